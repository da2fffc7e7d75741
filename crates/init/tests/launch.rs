//! What starts and ends beside a proxy: `linkerd-await`, the entrypoint and `sleep`, against an admin server of the test's own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    process::{Command, Output, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use weft_testkit::folder::Folder;

/// Answers one request after the other with these statuses, and returns the first lines of what it was asked.
fn admin(statuses: &'static [u16]) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let mut asked = vec![];
        for status in statuses {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
            asked.push(lines.next().unwrap());
            lines.find(String::is_empty).unwrap();
            write!(&stream, "HTTP/1.1 {status} status\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
        asked
    });
    (port, server)
}

fn helper(name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft-init"));
    command.arg0(name).env_remove("LINKERD_DISABLED").env_remove("LINKERD_AWAIT_DISABLED");
    command
}

fn awaiting(port: u16, arguments: &[&str]) -> Output {
    helper("linkerd-await").arg(format!("--port={port}")).arg("--backoff=10ms").args(arguments).output().unwrap()
}

#[test]
fn it_waits_until_the_proxy_is_ready() {
    let (port, server) = admin(&[503, 500, 200]);
    // As the injector's hook calls it.
    assert!(awaiting(port, &["--timeout=2m"]).status.success());
    assert_eq!(server.join().unwrap(), ["GET /ready HTTP/1.1"; 3]);
}

#[test]
fn it_becomes_the_program() {
    let (port, server) = admin(&[200]);
    let output = awaiting(port, &["--", "sh", "-c", "echo $PPID; exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    // The parent is this process: there is nobody between.
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), std::process::id().to_string());
    server.join().unwrap();
}

#[test]
fn the_proxy_ends_behind_the_program() {
    let (port, server) = admin(&[200, 200]);
    let output = awaiting(port, &["-S", "sh", "-c", "exit 9"]);
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(server.join().unwrap(), ["GET /ready HTTP/1.1", "POST /shutdown HTTP/1.1"]);
    let (port, server) = admin(&[200, 200]);
    assert_eq!(awaiting(port, &["--shutdown", "sh", "-c", "kill -9 $$"]).status.code(), Some(71));
    server.join().unwrap();
}

#[test]
fn the_end_of_the_pod_is_passed_on() {
    let (port, server) = admin(&[200, 200]);
    let script = "trap 'exit 5' TERM; echo ready; while true; do sleep 0.01; done";
    let mut command = helper("linkerd-await");
    command.arg(format!("--port={port}")).args(["-S", "--", "sh", "-c", script]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(server.join().unwrap().last().unwrap(), "POST /shutdown HTTP/1.1");
}

#[test]
fn its_patience_ends() {
    // Nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = Instant::now();
    let output = awaiting(port, &["--timeout=200ms", "--verbose", "true"]);
    assert_eq!(output.status.code(), Some(69));
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not ready"), "{output:?}");
}

#[test]
fn who_has_no_proxy_waits_for_none() {
    for name in ["LINKERD_DISABLED", "LINKERD_AWAIT_DISABLED"] {
        let output = helper("linkerd-await")
            .env(name, "no mesh here")
            .args(["--verbose", "-S", "sh", "-c", "exit 3"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert!(String::from_utf8_lossy(&output.stderr).contains("no mesh here"), "{output:?}");
    }
}

#[test]
fn the_entrypoint_becomes_the_proxy_beside_it() {
    let folder = Folder::new("entrypoint").unwrap();
    fs::copy(env!("CARGO_BIN_EXE_weft-init"), folder.join("weft-init")).unwrap();
    symlink("weft-init", folder.join("linkerd2-proxy-identity")).unwrap();
    let run = || Command::new(folder.join("linkerd2-proxy-identity")).arg("--flag").output().unwrap();
    let output = run();
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("linkerd2-proxy"),
        "{output:?}"
    );
    fs::write(folder.join("linkerd2-proxy"), "#!/bin/sh\necho proxy $1 $PPID\n").unwrap();
    fs::set_permissions(folder.join("linkerd2-proxy"), fs::Permissions::from_mode(0o755)).unwrap();
    let output = run();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("proxy --flag {}", std::process::id()));
}

#[test]
fn other_names_are_told_the_known_ones() {
    let output = helper("weft-init").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("linkerd2-network-validator"), "{output:?}");
    // And by the first argument.
    assert!(helper("weft-init").args(["sleep", "0"]).status().unwrap().success());
}
