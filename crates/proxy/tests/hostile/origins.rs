//! Real servers of HTTP/1 as child processes: each says in a log what it took for a request, and answers nothing else.

use crate::program::{free_port, node, python};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};
use tokio::net::TcpStream;

/// A server that does not listen by then does not start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Another program may take the port that was free.
const TRIES: usize = 5;

/// The kinds of servers. Where a parser has a lenient mode it is on: what the proxy lets through is to be safe there, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Haproxy,
    Apache,
    Node,
    Python,
}

/// A running server. Dropping it kills it and removes its folder.
pub(crate) struct Server {
    kind: Kind,
    child: Child,
    addr: SocketAddr,
    dir: PathBuf,
}

impl Kind {
    /// The status of what was understood.
    pub(crate) fn ok(self) -> u16 {
        // There is no module for more than a folder without files.
        if self == Self::Apache { 404 } else { 200 }
    }

    /// `None` where it is not installed and tests may be skipped.
    pub(crate) async fn start(self) -> Option<Server> {
        for _ in 0..TRIES {
            if let Some(server) = self.start_on(free_port()).await? {
                return Some(server);
            }
        }
        panic!("{self:?} does not start");
    }

    async fn start_on(self, port: u16) -> Option<Option<Server>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("weft-origin-{}-{n}", std::process::id()));
        fs::create_dir_all(dir.join("www")).unwrap();
        let log = dir.join("log");
        fs::write(&log, "").unwrap();
        let mut command = match self {
            Self::Nginx => nginx(&dir, port),
            Self::Haproxy => haproxy(&dir, port),
            Self::Apache => apache(&dir, port)?,
            Self::Node => {
                let mut node = node("hostile/origin.js")?.into_std();
                node.arg(port.to_string()).arg(&log);
                node
            }
            Self::Python => {
                let mut python = python("hostile/origin.py")?.into_std();
                python.arg(port.to_string()).arg(&log).env("AIOHTTP_NO_EXTENSIONS", "1");
                python
            }
        };
        let said = |name: &str| fs::File::create(dir.join(name)).unwrap();
        // The log of HAProxy is what it says.
        let out = if self == Self::Haproxy { said("log") } else { said("stdout") };
        let child = command.stdin(Stdio::null()).stdout(out).stderr(said("stderr")).spawn();
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                let _ = fs::remove_dir_all(&dir);
                return missing(&format!("{command:?}: {error}"));
            }
        };
        let mut server = Server { kind: self, child, addr, dir };
        let start = Instant::now();
        while TcpStream::connect(addr).await.is_err() {
            if server.child.try_wait().unwrap().is_some() || start.elapsed() > PATIENCE {
                server.tell();
                return Some(None);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(Some(server))
    }
}

/// A server that is not installed is skipped loudly, or fails.
fn missing<T>(what: &str) -> Option<T> {
    if std::env::var("WEFT_ALLOW_SKIP").is_ok_and(|v| v == "1") {
        #[expect(clippy::print_stderr, reason = "a skipped test is loud")]
        {
            eprintln!("SKIPPED: {what}");
        }
        return None;
    }
    panic!("{what}: run the suite with `cargo xtask test`, which installs it");
}

fn nginx(dir: &Path, port: u16) -> Command {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("  {name}_temp_path {}/{name};\n", dir.display()))
        .concat();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log {dir}/errors;\nevents {{ worker_connections 256; }}\nhttp {{\n{temporary}  \
         log_format seen escape=json '$status $request $http_l5d_client_id';\n  access_log {dir}/log seen;\n  \
         keepalive_requests 1000000;\n  merge_slashes off;\n  ignore_invalid_headers off;\n  \
         server {{ listen 127.0.0.1:{port}; location / {{ return 200 fine; }} }}\n}}\n",
        dir = dir.display()
    );
    fs::write(dir.join("config"), config).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(dir).arg("-e").arg(dir.join("errors")).arg("-c").arg(dir.join("config"));
    command
}

fn haproxy(dir: &Path, port: u16) -> Command {
    let config = format!(
        "global\n  log stdout format raw local0\n  nbthread 1\ndefaults\n  mode http\n  log global\n  timeout client 60s\n  \
         timeout http-keep-alive 60s\n  option http-buffer-request\n  option accept-invalid-http-request\nfrontend all\n  \
         bind 127.0.0.1:{port}\n  http-request capture req.hdr(l5d-client-id) len 128\n  \
         http-request return status 200 content-type text/plain string fine\n  log-format \"%ST %r %[capture.req.hdr(0)]\"\n",
    );
    fs::write(dir.join("config"), config).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(dir.join("config"));
    command
}

/// Its modules lie beside the program.
fn apache(dir: &Path, port: u16) -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path).map(|dir| dir.join("apache2")).find(|file| file.is_file());
    let Some(program) = program else { return missing("apache2 is not there") };
    let modules = program.parent().unwrap().parent().unwrap().join("lib/apache2/modules");
    let config = format!(
        "ServerRoot {dir}\nPidFile {dir}/pid\nErrorLog {dir}/errors\nMutex posixsem\nServerName app.ns\nListen 127.0.0.1:{port}\n\
         LoadModule mpm_event_module {modules}/mod_mpm_event.so\nLoadModule authz_core_module {modules}/mod_authz_core.so\n\
         User #65534\nGroup #65534\nHttpProtocolOptions Unsafe LenientMethods Allow0.9\nDocumentRoot {dir}/www\nKeepAlive On\nKeepAliveTimeout 60\n\
         MaxKeepAliveRequests 0\nStartServers 1\nServerLimit 2\nThreadsPerChild 25\nMaxRequestWorkers 50\n\
         LogFormat \"%>s %r %{{l5d-client-id}}i\" seen\nCustomLog {dir}/log seen\n",
        dir = dir.display(),
        modules = modules.display()
    );
    fs::write(dir.join("config"), config).unwrap();
    let mut command = Command::new(program);
    command.arg("-X").arg("-f").arg(dir.join("config"));
    Some(command)
}

impl Server {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// What it took for requests: `STATUS METHOD TARGET VERSION …`, one per line.
    pub(crate) fn log(&self) -> Vec<String> {
        let text = fs::read(self.dir.join("log")).unwrap();
        // A line that is being written is not there yet.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = String::from_utf8_lossy(&text[..whole]).into_owned();
        let request = |line: &&str| line.split(' ').next().is_some_and(|status| status.parse::<u16>().is_ok());
        text.lines().filter(request).map(str::to_owned).collect()
    }

    /// Why it did not start.
    fn tell(&self) {
        for name in ["stdout", "stderr", "errors"] {
            let text = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
            crate::measure::say(&format!("{:?}, {name}: {text}", self.kind));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
