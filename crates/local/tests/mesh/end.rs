//! The mesh ends, by request or by force, and leaves nothing behind.

use crate::harness::{LOAD, Mesh, PATIENCE, SERVER, User, deployment, lives, service, users, weft};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    time::{Duration, Instant},
};

/// Does not care about being asked to end.
const STUBBORN: &str =
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('here', flush=True)\ntime.sleep(1000)\n";

fn start(user: User) -> Mesh {
    let manifests = deployment(
        "web",
        2,
        "",
        "[python3, DIR/server.py]",
        "readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1}",
    ) + &service("web", "", "ports: [{port: 80, targetPort: 8000}]")
        + &deployment("stubborn", 1, "", "[python3, DIR/stubborn.py]", "")
        + &deployment("load", 1, "", "[python3, DIR/load.py, web]", "");
    let files = [("server.py", SERVER), ("load.py", LOAD), ("stubborn.py", STUBBORN)];
    let mut mesh = Mesh::up(user, &manifests, &files, &["--publish", "0:shop/web:80"]);
    mesh.ready(&["web", "load", "stubborn"]);
    mesh.said("stubborn", "here");
    mesh
}

/// What of the host a mesh must not change.
fn host() -> Vec<String> {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    vec![
        run("ip", &["-o", "link"]),
        run("ip", &["-o", "addr"]).replace("forever", ""),
        run("ip", &["route"]),
        run("ip", &["-6", "route"]),
        run("/usr/sbin/nft", &["list", "ruleset"]),
        read("/proc/sys/net/ipv4/ip_forward"),
        read("/proc/sys/net/ipv6/conf/all/forwarding"),
        read("/proc/sys/net/bridge/bridge-nf-call-iptables"),
        read("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
        read("/proc/sys/kernel/hostname"),
        read("/proc/self/mountinfo"),
    ]
}

fn files_of(mesh: &Mesh) -> BTreeSet<String> {
    fs::read_dir(&mesh.state).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

fn gone(processes: &[u32], within: Duration) -> Vec<u32> {
    let start = Instant::now();
    loop {
        let left: Vec<u32> = processes.iter().copied().filter(|p| lives(*p)).collect();
        if left.is_empty() || start.elapsed() > within {
            return left;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn by_ctrl_c_within_three_seconds() {
    for user in users() {
        let before = host();
        let mut mesh = start(user);
        assert_eq!(host(), before, "{user:?}: the host is changed by a running mesh");
        let processes = mesh.processes();
        assert!(processes.len() > 12, "{processes:?}");
        mesh.signal(Signal::SIGINT);
        let (status, took) = mesh.ended();
        assert!(status.success(), "{user:?} {status} {}", mesh.log());
        assert!(took < Duration::from_secs(3), "{user:?}: {took:?}");
        assert_eq!(gone(&processes, Duration::from_millis(100)), Vec::<u32>::new(), "{user:?}");
        assert_eq!(host(), before, "{user:?}");
        assert_eq!(files_of(&mesh), ["ca", "lock", "logs"].map(String::from).into(), "{user:?}");
    }
}

#[test]
fn by_kill_within_one_second() {
    for user in users() {
        let before = host();
        let mut mesh = start(user);
        let processes = mesh.processes();
        let published = mesh.status().published[0].listen;
        mesh.signal(Signal::SIGKILL);
        mesh.ended();
        assert_eq!(gone(&processes, Duration::from_secs(1)), Vec::<u32>::new(), "{user:?}");
        assert!(std::net::TcpStream::connect(published).is_err(), "{user:?}");
        assert_eq!(host(), before, "{user:?}");

        // What it left in its folder does not hinder the next one.
        let answers = weft(user, &mesh.state).arg("ps").output().unwrap();
        assert!(!answers.status.success());
        let mut again = weft(user, &mesh.state);
        let mut again = again.arg("up").arg("-f").arg(mesh.dir.join("manifests")).current_dir("/").spawn().unwrap();
        let start = Instant::now();
        while mesh.try_status().is_none_or(|s| s.workloads.iter().any(|w| w.ready != w.replicas)) {
            assert!(start.elapsed() < PATIENCE, "{user:?}: {:?}", mesh.try_status());
            std::thread::sleep(Duration::from_millis(20));
        }
        for arguments in [&["up", "-f", "/dev/null"][..], &["up", "-d", "-f", "/dev/null"]] {
            let second = weft(user, &mesh.state).args(arguments).output().unwrap();
            let text = String::from_utf8_lossy(&second.stderr);
            assert!(!second.status.success() && text.contains("another mesh runs"), "{user:?} {text}");
        }
        let start = Instant::now();
        let down = weft(user, &mesh.state).arg("down").output().unwrap();
        assert!(down.status.success() && start.elapsed() < Duration::from_secs(3), "{user:?} {down:?}");
        assert!(again.wait().unwrap().success(), "{user:?}");
    }
}

#[test]
fn with_its_node() {
    for user in users() {
        let mut mesh = start(user);
        let processes = mesh.processes();
        crate::harness::kill(mesh.node(), Signal::SIGKILL);
        let (status, took) = mesh.ended();
        assert!(!status.success() && mesh.log().contains("node"), "{user:?} {status} {}", mesh.log());
        assert!(took < Duration::from_secs(1), "{user:?} {took:?}");
        assert_eq!(gone(&processes, Duration::from_secs(1)), Vec::<u32>::new(), "{user:?}");
    }
}
