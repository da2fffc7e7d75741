//! The programs of others: where they are, and how they are run.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};
use tokio::process::{Child, Command};

/// A program that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(180);

/// A file below the folder of tools; `None` where tests may be skipped.
pub(crate) fn tool(path: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("WEFT_TOOLS").map(PathBuf::from);
    if let Some(file) = folder.map(|folder| folder.join(path)).filter(|file| file.exists()) {
        return Some(file);
    }
    if std::env::var("WEFT_ALLOW_SKIP").is_ok_and(|v| v == "1") {
        #[expect(clippy::print_stderr, reason = "a skipped test is loud")]
        {
            eprintln!("SKIPPED: {path} is not there");
        }
        return None;
    }
    panic!("{path} is not below WEFT_TOOLS: run the suite with `cargo xtask test`, which installs it");
}

/// A script of the suites, by its path below `tests`.
fn script(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}

/// Python of the tools, running a script.
pub(crate) fn python(path: &str) -> Option<Command> {
    let mut command = Command::new(tool("python/bin/python")?);
    command.arg(script(path));
    Some(command)
}

/// Node of the machine with the packages of the tools, running a script.
pub(crate) fn node(path: &str) -> Option<Command> {
    let modules = tool("node/node_modules")?;
    let mut command = Command::new("node");
    command.arg(script(path)).env("NODE_PATH", modules);
    Some(command)
}

/// Runs to the end; it must succeed.
pub(crate) async fn done(command: &mut Command) -> String {
    let output = output(command).await;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {} {text}", output.status);
    text
}

/// Runs to the end.
pub(crate) async fn output(command: &mut Command) -> Output {
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    tokio::time::timeout(PATIENCE, running).await.expect("the program hangs").expect("the program starts")
}

/// Starts a server that prints `listening on PORT` once it is ready, and ends with the value.
pub(crate) async fn server(command: &mut Command) -> (Child, SocketAddr) {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("the server starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let port = tokio::time::timeout(PATIENCE, async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the server says where it listens");
            if let Some(port) = line.strip_prefix("listening on ") {
                return port.trim().parse::<u16>().unwrap();
            }
        }
    });
    let port = port.await.expect("the server is ready");
    // Who does not read blocks the server at some time.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
