//! What people's kubeconfigs say besides an address: a proxy on the way, and credentials that may be no use.

use crate::lab::{Home, Told};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Write, copy},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};
use tokio::runtime::Runtime;
use weft_testkit::api_server::FakeApi;

/// A proxy that takes CONNECT and nothing else, until the process ends; and how often it was asked.
fn proxy() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            count.fetch_add(1, Relaxed);
            thread::spawn(|| carry(client));
        }
    });
    (addr, asked)
}

fn carry(mut client: TcpStream) -> Option<()> {
    let mut from = BufReader::new(client.try_clone().ok()?);
    let mut first = String::new();
    from.read_line(&mut first).ok()?;
    let to = first.strip_prefix("CONNECT ")?.split(' ').next()?;
    let mut line = String::new();
    while from.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    let mut server = TcpStream::connect(to).ok()?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let mut back = server.try_clone().ok()?;
    thread::spawn(move || {
        let _ = copy(&mut back, &mut client);
        let _ = client.shutdown(Shutdown::Write);
    });
    let _ = copy(&mut from, &mut server);
    server.shutdown(Shutdown::Write).ok()
}

#[test]
fn a_cluster_behind_a_proxy_is_reached() {
    let runtime = Runtime::new().unwrap();
    let (home, api) = (Home::new(), runtime.block_on(FakeApi::start()).unwrap());
    let (addr, asked) = proxy();
    let mut config: Value = serde_json::from_str(&api.kubeconfig()).unwrap();
    config["clusters"][0]["cluster"]["proxy-url"] = json!(format!("http://{addr}"));
    fs::write(home.0.join("config"), config.to_string()).unwrap();
    let told = home.runs(&["version", "--kubeconfig", "config"]);
    assert!(told.ok && asked.load(Relaxed) > 0, "{told:?}");
    let told = home.runs(&["ps", "--kubeconfig", "config"]);
    assert!(told.ok && told.err.is_empty(), "{told:?}");
    // The environment may name it instead.
    fs::write(home.0.join("config"), api.kubeconfig()).unwrap();
    let told = home.runs(&["ps", "--kubeconfig", "config", "--context", "nope"]);
    assert!(!told.ok && told.err.contains("config: there is no context nope, it has fake; name another"), "{told:?}");
    let before = asked.load(Relaxed);
    let mut ps = home.weft(&["ps", "--kubeconfig", "config"]);
    let told: Told = ps.env("HTTPS_PROXY", format!("http://{addr}")).output().unwrap().into();
    assert!(told.ok && asked.load(Relaxed) > before, "{told:?}");
}

#[test]
fn credentials_that_are_no_use_are_told_with_what_to_do() {
    let runtime = Runtime::new().unwrap();
    let (home, api) = (Home::new(), runtime.block_on(FakeApi::start()).unwrap());
    let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-program", "interactiveMode": "Never"});
    for (user, says) in [
        (json!({"exec": exec}), "unable to run auth exec"),
        (json!({"tokenFile": "/nowhere/token"}), "/nowhere/token"),
        (json!({"client-certificate-data": "bm8=", "client-key-data": "bm8="}), "private key"),
        (json!({"auth-provider": {"name": "gcp", "config": {}}}), "auth"),
    ] {
        let mut config: Value = serde_json::from_str(&api.kubeconfig()).unwrap();
        config["users"][0]["user"] = user;
        fs::write(home.0.join("config"), config.to_string()).unwrap();
        let told = home.runs(&["ps", "--kubeconfig", "config"]);
        let first = "weft: the cluster's configuration is no use: ";
        let remedy = "--kubeconfig FILE or --context NAME names another\n";
        let all = told.err.starts_with(first) && told.err.contains(says) && told.err.ends_with(remedy);
        assert!(!told.ok && all, "{told:?}");
    }
}

/// What is wrong is told by file, line and what was expected there. Nothing of the file is shown: it holds keys.
#[test]
fn a_broken_kubeconfig_is_told_without_what_it_holds() {
    const SECRET: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6";
    let home = Home::new();
    let with = |broken: &str| {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nusers:\n- name: u\n  user:\n    token: {SECRET}before\n{}",
            broken.replace("SECRET", SECRET)
        )
    };
    for (broken, line, expected) in [
        ("clusters: SECRET\n", 8, "expected sequence start"),
        ("- name: v\n  user: SECRET\n", 9, "expected mapping start"),
        ("- name: v\n  user:\n    token: [SECRET]\n", 10, "expected string scalar"),
        ("- name: v\n  user:\n    exec: {command: c, env: SECRET}\n", 10, "expected sequence start"),
        ("- user: {token: SECRET}\n", 8, "missing field `name`"),
        ("- name: v\n  user: {SECRET: 1, SECRET: 2}\n", 9, "a key stands twice"),
        ("- name: v\n  user:\n    token: \"SECRET\n", 10, "expected "),
        ("- name: v\n  user:\n    token: SECRET: SECRET\n", 10, "expected "),
        ("- name: v\n  user:\n    token: *SECRET\n", 10, "expected "),
        ("- name: v\n  user:\n    token: !SECRET [1]\n", 10, "expected "),
        ("- name: v\n  user:\n   token: SECRET\n  SECRET\n", 11, "expected YAML"),
    ] {
        fs::write(home.0.join("config"), with(broken)).unwrap();
        let named = home.runs(&["ps", "--kubeconfig", "config"]);
        let mut listed = home.weft(&["ps"]);
        let listed: Told = listed.env("KUBECONFIG", home.0.join("config")).output().unwrap().into();
        for told in [named, listed] {
            assert!(!told.ok && told.out.is_empty(), "{told:?}");
            assert!(!told.err.contains(&SECRET[..8]), "{broken}: {}", told.err);
            let place = format!("config: line {line}: ");
            assert!(told.err.contains(&place) && told.err.contains(expected), "{broken}: {}", told.err);
            assert!(told.err.lines().count() == 1 && told.err.contains("--kubeconfig FILE"), "{broken}: {}", told.err);
        }
    }
}
