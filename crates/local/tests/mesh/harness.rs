//! A mesh of the real programs, started as a user starts it.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use weft_local::{
    Client, Status,
    client::{LogLine, Logs, Source},
    status::{Pod, Workload},
};

/// Nothing here takes longer unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// An ordinary user of every Linux.
pub(crate) const NOBODY: u32 = 65534;

/// Who starts the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// Whoever runs the test.
    Own,
    /// Somebody without rights, for which the test must be root.
    Ordinary,
}

/// As whom each promise is proved: as root both.
pub(crate) fn users() -> Vec<User> {
    if nix::unistd::geteuid().is_root() { vec![User::Own, User::Ordinary] } else { vec![User::Own] }
}

/// A running mesh. Dropping it kills it.
pub(crate) struct Mesh {
    pub(crate) dir: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) supervisor: Child,
    pub(crate) client: Client,
    runtime: tokio::runtime::Runtime,
    _alone: MutexGuard<'static, ()>,
}

/// One mesh at a time: their tests measure time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The programs of the mesh, in a folder that every user may enter.
pub(crate) fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let built = test.parent().and_then(Path::parent).unwrap();
        for program in ["weft", "weft-proxy", "weft-demo"] {
            let file = built.join(program);
            assert!(
                file.is_file(),
                "{} is missing: run `cargo xtask test`, or build weft-cli, weft-proxy, weft-demo",
                file.display()
            );
        }
        let open = |dir: &Path| dir.metadata().is_ok_and(|m| m.permissions().mode() & 0o001 != 0);
        if built.ancestors().all(open) {
            return built.to_owned();
        }
        let copies = std::env::temp_dir().join(format!("weft-mesh-{}-bin", std::process::id()));
        fs::create_dir_all(&copies).unwrap();
        for program in ["weft", "weft-proxy", "weft-demo"] {
            fs::copy(built.join(program), copies.join(program)).unwrap();
        }
        copies
    })
}

impl Mesh {
    /// Starts a mesh with these manifests, and files that they may name as `DIR/…`.
    pub(crate) fn up(user: User, manifests: &str, files: &[(&str, &str)], arguments: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let alone = alone();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("weft-mesh-{}-{number}", std::process::id()));
        let manifest_dir = dir.join("manifests");
        fs::create_dir_all(&manifest_dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
        fs::write(manifest_dir.join("app.yaml"), manifests.replace("DIR", dir.to_str().unwrap())).unwrap();
        if user == User::Ordinary {
            chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let state = dir.join("state");
        let log = fs::File::create(dir.join("up.log")).unwrap();
        let mut command = weft(user, &state);
        command.arg("up").arg("-f").arg(&manifest_dir).args(arguments);
        let supervisor =
            command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let client = Client::new(Some(state.clone())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut mesh = Self { dir, state, supervisor, client, runtime, _alone: alone };
        mesh.until("the mesh to answer", |mesh| mesh.try_status().is_some());
        mesh
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn try_status(&self) -> Option<Status> {
        self.wait(self.client.status()).ok()
    }

    pub(crate) fn status(&self) -> Status {
        self.wait(self.client.status()).unwrap()
    }

    /// Looks until it holds.
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let start = Instant::now();
        while !holds(self) {
            if let Some(status) = self.supervisor.try_wait().unwrap() {
                panic!("waiting for {what}: the mesh ended: {status}\n{}", self.log());
            }
            assert!(start.elapsed() < PATIENCE, "waited too long for {what}\n{:#?}\n{}", self.try_status(), self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        start.elapsed()
    }

    /// What the supervisor has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("up.log")).unwrap_or_default()
    }

    pub(crate) fn workload(&self, name: &str) -> Option<Workload> {
        self.status().workloads.into_iter().find(|w| w.name == name)
    }

    pub(crate) fn pods(&self, name: &str) -> Vec<Pod> {
        self.workload(name).map(|w| w.pods).unwrap_or_default()
    }

    pub(crate) fn is_ready(&self, name: &str) -> bool {
        self.workload(name).is_some_and(|w| w.ready == w.replicas && w.pods.len() == w.replicas as usize)
    }

    pub(crate) fn ready(&mut self, names: &[&str]) {
        for name in names {
            self.until(&format!("{name} to be ready"), |mesh| mesh.is_ready(name));
        }
    }

    pub(crate) fn lines(&self, name: &str, source: Source) -> Vec<LogLine> {
        let asked = Logs { namespace: None, name: name.into(), follow: false, tail: None, source: Some(source) };
        self.wait(async {
            let mut lines = self.client.logs(asked).await.unwrap();
            let mut all = Vec::new();
            while let Some(line) = lines.recv().await {
                all.push(line);
            }
            all
        })
    }

    /// What a program has written.
    pub(crate) fn output(&self, name: &str) -> Vec<String> {
        self.lines(name, Source::Program).into_iter().map(|l| l.text).collect()
    }

    /// Waits until a program has written a line that begins so, and gives the rest of it.
    pub(crate) fn said(&mut self, name: &str, beginning: &str) -> String {
        let find = |mesh: &Self| {
            mesh.output(name).into_iter().find_map(|l| l.strip_prefix(beginning).map(|rest| rest.trim().to_owned()))
        };
        self.until(&format!("{name} to say {beginning:?}"), |mesh| find(mesh).is_some());
        find(self).unwrap()
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        // As editors do it: never half a file.
        let (new, file) = (self.dir.join("new"), self.dir.join(file));
        fs::write(&new, text.replace("DIR", self.dir.to_str().unwrap())).unwrap();
        fs::rename(new, file).unwrap();
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        kill(self.supervisor.id(), signal);
    }

    /// Waits for the supervisor's end.
    pub(crate) fn ended(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.supervisor.try_wait().unwrap() {
                return (status, start.elapsed());
            }
            assert!(start.elapsed() < PATIENCE, "the mesh does not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How long supervisor and node have waited for a processor.
    fn waited(&self) -> [Duration; 2] {
        [waited(self.supervisor.id()), waited(self.node())]
    }

    /// PID 1 of the node, as the host sees it.
    pub(crate) fn node(&self) -> u32 {
        let children = |pid: u32| -> Vec<u32> {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            text.split_whitespace().filter_map(|p| p.parse().ok()).collect()
        };
        let tasks = fs::read_dir(format!("/proc/{}/task", self.supervisor.id())).unwrap();
        let outer = tasks.flatten().find_map(|task| {
            let children = fs::read_to_string(task.path().join("children")).ok()?;
            children.split_whitespace().next()?.parse().ok()
        });
        children(outer.unwrap())[0]
    }

    /// Every process of the mesh, as the host sees them.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let node = self.node();
        let mut all = vec![node];
        let parent = |pid: u32| -> Option<u32> {
            let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            text.lines().find_map(|l| l.strip_prefix("PPid:"))?.trim().parse().ok()
        };
        let pids: Vec<u32> =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        loop {
            let more: Vec<u32> = pids
                .iter()
                .copied()
                .filter(|p| !all.contains(p) && parent(*p).is_some_and(|p| all.contains(&p)))
                .collect();
            if more.is_empty() {
                break;
            }
            all.extend(more);
        }
        all
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
        if std::thread::panicking() {
            eprintln!("kept: {}\n{}", self.dir.display(), self.log());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// The time that a promise of the mesh takes: what its processes wait for a processor is the machine's time, not theirs. On a
/// quiet machine it is the time on the wall.
pub(crate) struct Stopwatch {
    start: Instant,
    /// Of supervisor and node.
    before: [Duration; 2],
}

impl Stopwatch {
    pub(crate) fn start(mesh: &Mesh) -> Self {
        Self { start: Instant::now(), before: mesh.waited() }
    }

    /// Until now; `born` are the processes that were started since then and that the promise depends on.
    pub(crate) fn own(&self, mesh: &Mesh, born: &[u32]) -> Duration {
        let took = self.start.elapsed();
        let [supervisor, node] = mesh.waited();
        let those = [supervisor.saturating_sub(self.before[0]), node.saturating_sub(self.before[1])];
        // Several wait at one moment: the one that waited longest stands for all, so that no time is taken off twice.
        let waited = born.iter().copied().map(waited).chain(those).max().unwrap_or_default();
        eprintln!("{took:?} on the wall, of which {waited:?} waiting for a processor");
        took.saturating_sub(waited)
    }
}

/// The processes that a process has started, as the host sees them.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    texts.flat_map(|text| text.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<_>>()).collect()
}

/// How long the thread of a process that had to wait longest has waited for a processor, or that of one that it has started.
fn waited(pid: u32) -> Duration {
    let processes = std::iter::once(pid).chain(children(pid));
    let threads = processes.flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten());
    let nanos = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().nth(1)?.parse().ok()
    });
    Duration::from_nanos(nanos.max().unwrap_or_default())
}

/// The command line, as this user.
pub(crate) fn weft(user: User, state: &Path) -> Command {
    let mut command = Command::new(programs().join("weft"));
    command.arg("--state").arg(state);
    if user == User::Ordinary {
        command.uid(NOBODY).gid(NOBODY).env("HOME", "/nonexistent");
    }
    command
}

pub(crate) fn kill(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Whether a process is there and not just waiting to be taken note of.
pub(crate) fn lives(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|l| l.starts_with("State:") && !l.contains('Z') && !l.contains('X'))
}

/// A GET from the host; the whole answer, or why there is none.
pub(crate) fn get(addr: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A Deployment of a python program, with further lines for its pod's annotations and container.
pub(crate) fn deployment(name: &str, replicas: u32, annotations: &str, command: &str, container: &str) -> String {
    format!(
        "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: shop}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}, annotations: {{{annotations}}}}}
    spec:
      serviceAccountName: {name}
      terminationGracePeriodSeconds: 5
      containers:
        - name: {name}
          image: none
          command: {command}
          {container}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: shop}}
"
    )
}

/// A Service in front of a Deployment of this name.
pub(crate) fn service(name: &str, annotations: &str, rest: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop, annotations: {{{annotations}}}}}
spec: {{selector: {{app: {name}}}, {rest}}}
"
    )
}

/// Asks for argv[1] again and again, and says what it gets when that is something else.
pub(crate) const WATCH: &str = r#"
import sys, time, urllib.error, urllib.request
last = None
while True:
    try:
        now = urllib.request.urlopen(sys.argv[1], timeout=5).status
    except urllib.error.HTTPError as error:
        now = error.code
    except Exception as error:
        now = repr(error)
    if now != last:
        print("NOW", now, flush=True)
        last = now
    time.sleep(0.05)
"#;

/// Serves HTTP/1 on port 8000, v4 and v6, and says who answers.
pub(crate) const SERVER: &str = r#"
import http.server, os, signal, socket, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = (os.environ["HOSTNAME"] + " " + self.path + " client=" + self.headers.get("l5d-client-id", "none") + "\n").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
server = Server(("::", 8000), Handler)
signal.signal(signal.SIGTERM, lambda *a: threading.Thread(target=server.shutdown).start())
server.serve_forever()
"#;

/// Asks for argv[1] again and again over one connection while it lasts, and says what goes wrong and, now and then, how much went well.
pub(crate) const LOAD: &str = r#"
import http.client, sys, time
host, good, since = sys.argv[1], 0, time.time()
connection = None
while True:
    try:
        if connection is None:
            connection = http.client.HTTPConnection(host, timeout=5)
        connection.request("GET", "/load")
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            print("BAD", answer.status, answer.getheader("l5d-proxy-error"), flush=True)
        good += 1
        if answer.will_close:
            connection.close(); connection = None
    except Exception as error:
        print("BAD", repr(error), flush=True)
        connection = None
        time.sleep(0.05)
    if time.time() - since > 0.2:
        print("good", good, flush=True)
        since = time.time()
    time.sleep(0.002)
"#;
