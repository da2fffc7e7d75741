//! Parts fail; what runs goes on, and nothing passes around the mesh.

use crate::harness::{LOAD, Mesh, SERVER, User, deployment, kill, lives, service, users};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

fn shop() -> String {
    let server = deployment(
        "web",
        2,
        "",
        "[python3, DIR/server.py]",
        "ports: [{containerPort: 8000}]\n          readinessProbe: {httpGet: {path: /, port: 8000}, periodSeconds: 1}",
    );
    server
        + &service("web", "", "ports: [{port: 80, targetPort: 8000}]")
        + &deployment("load", 1, "", "[python3, DIR/load.py, web]", "")
}

fn start(user: User) -> Mesh {
    let mut mesh = Mesh::up(user, &shop(), &[("server.py", SERVER), ("load.py", LOAD)], &[]);
    mesh.ready(&["web", "load"]);
    mesh.said("load", "good");
    mesh
}

pub(crate) fn good(mesh: &Mesh) -> u64 {
    let last = |l: &String| l.strip_prefix("good ").and_then(|n| n.parse().ok());
    mesh.output("load").iter().rev().find_map(last).unwrap_or_default()
}

pub(crate) fn bad(mesh: &Mesh) -> Vec<String> {
    mesh.output("load").into_iter().filter(|l| l.starts_with("BAD")).collect()
}

/// Waits until so many more requests have gone well.
pub(crate) fn more(mesh: &mut Mesh, requests: u64) {
    let wanted = good(mesh) + requests;
    mesh.until("more requests", |mesh| good(mesh) >= wanted);
}

#[test]
fn a_killed_proxy_comes_back_and_the_other_replica_serves_on() {
    for user in users() {
        let mut mesh = start(user);
        let victim = mesh.pods("web").remove(0);
        let proxy = victim.proxy_pid.unwrap();
        kill(proxy, Signal::SIGKILL);
        let start = Instant::now();
        let back = |mesh: &Mesh| {
            let pod = mesh.pods("web").into_iter().find(|p| p.name == victim.name);
            pod.is_some_and(|p| p.ready && p.proxy_restarts == 1 && p.proxy_pid != Some(proxy))
        };
        mesh.until("the proxy to be back", back);
        assert!(start.elapsed() < Duration::from_secs(2), "{user:?}: {:?}", start.elapsed());
        let pod = mesh.pods("web").into_iter().find(|p| p.name == victim.name).unwrap();
        assert_eq!((pod.pid, pod.restarts), (victim.pid, 0), "the program was not touched");
        more(&mut mesh, 50);
        // What was under way in the killed proxy is lost; no more than that.
        assert!(bad(&mesh).len() <= 1, "{user:?}: {:#?}", bad(&mesh));
    }
}

#[test]
fn the_control_plane_is_missed_by_nobody() {
    for user in users() {
        let mut mesh = start(user);
        let control = mesh.status().control_plane;
        kill(control.pid.unwrap(), Signal::SIGKILL);
        more(&mut mesh, 50);
        mesh.until("the control plane to be back", |mesh| {
            let now = mesh.status().control_plane;
            now.ready && now.restarts == 1 && now.pid != control.pid
        });
        more(&mut mesh, 50);
        assert_eq!(bad(&mesh), Vec::<String>::new(), "{user:?}");
        assert!(mesh.pods("web").iter().all(|p| p.ready && p.proxy_restarts == 0));
    }
}

#[test]
fn a_program_that_ends_is_started_again() {
    for user in users() {
        let mut mesh = start(user);
        let victim = mesh.pods("web").remove(0);
        kill(victim.pid.unwrap(), Signal::SIGKILL);
        mesh.until("the program to be back", |mesh| {
            let pod = mesh.pods("web").into_iter().find(|p| p.name == victim.name);
            pod.is_some_and(|p| p.ready && p.restarts == 1 && p.pid != victim.pid)
        });
        assert!(!lives(victim.pid.unwrap()));
        more(&mut mesh, 50);
        assert!(bad(&mesh).len() <= 1, "{user:?}: {:#?}", bad(&mesh));
    }
}
