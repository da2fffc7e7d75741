//! The program itself: exit status, log lines, signals.

use crate::harness::{LONG, Setup};
use std::{
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Instant,
};
use weft_testkit::control::FakeControl;

fn command<'a>(vars: impl IntoIterator<Item = (&'a str, &'a str)>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft-proxy"));
    command.env_clear().envs(vars).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Kills it if the test fails before it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_wrong_environment_is_status_64_and_names_everything() {
    let output = command([("LINKERD2_PROXY_CORES", "none")]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8(output.stderr).unwrap();
    for name in ["LINKERD2_PROXY_CORES: ", "LINKERD2_PROXY_IDENTITY_DIR: ", "LINKERD2_PROXY_POLICY_WORKLOAD: "] {
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn an_address_in_use_is_status_1() {
    let control = FakeControl::start().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let setup = Setup::new(&control, "web").env("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", taken.local_addr().unwrap());
    let output = command(setup.vars()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot listen on"));
}

#[test]
fn it_says_where_it_listens_and_ends_on_a_signal() {
    let control = FakeControl::start().unwrap();
    let setup = Setup::new(&control, "web").env("LINKERD2_PROXY_TYPO", "1");
    let mut running = Running(command(setup.vars()).spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut seen = String::new();
    while !seen.contains("Certified identity") {
        seen.push_str(&lines.next().expect("it goes on").unwrap());
        seen.push('\n');
    }
    let name = "web.ns.serviceaccount.identity.linkerd.cluster.local";
    for expected in [
        "WARN",
        "LINKERD2_PROXY_TYPO",
        "Admin interface on 127.0.0.1:",
        "Inbound interface on 127.0.0.1:",
        "Outbound interface on 127.0.0.1:",
        &format!("SNI is {name}"),
        &format!("Local identity is {name}"),
        "Destinations resolved via 127.0.0.1:",
    ] {
        assert!(seen.contains(expected), "{expected:?} is not in\n{seen}");
    }
    let (_, rest) = seen.split_once("Admin interface on ").unwrap();
    let addr = rest.lines().next().unwrap();
    let ask = |request: &str| {
        let mut admin = TcpStream::connect(addr).unwrap();
        std::io::Write::write_all(&mut admin, request.as_bytes()).unwrap();
        let mut answer = String::new();
        admin.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = ask("GET /ready HTTP/1.0\r\n\r\n");
    assert!(answer.contains(" 200 ") && answer.ends_with("ready\n"), "{answer}");
    // What it logs is changed while it runs.
    let answer = ask("PUT /proxy-log-level HTTP/1.0\r\ncontent-length: 18\r\n\r\nwarn,weft_x=trace9");
    assert!(answer.contains(" 400 "), "{answer}");
    let answer = ask("PUT /proxy-log-level HTTP/1.0\r\ncontent-length: 5\r\n\r\ndebug");
    assert!(answer.contains(" 204 "), "{answer}");
    assert!(ask("GET /proxy-log-level HTTP/1.0\r\n\r\n").ends_with("debug"), "{answer}");

    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let start = Instant::now();
    let status = loop {
        if let Some(status) = running.0.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < LONG, "it does not end");
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(0));
}
