//! Parts fail; what runs goes on, and nothing passes around the mesh.

use crate::harness::{LOAD, Mesh, SERVER, Stopwatch, User, deployment, kill, lives, service, users};
use nix::sys::signal::Signal;
use std::time::Duration;
use weft_local::{client::Source, status::Pod};

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

pub(crate) fn start(user: User) -> Mesh {
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

/// From the kill of a proxy to its Ready, whatever is killed with it.
const BACK: Duration = Duration::from_secs(2);

/// Kills the proxy of a pod, and the control plane with it; waits until the pod is Ready again and says how long that took.
fn back(mesh: &mut Mesh, victim: &Pod, control: Option<u32>) -> Duration {
    let proxy = victim.proxy_pid.unwrap();
    let watch = Stopwatch::start(mesh);
    for pid in control.into_iter().chain([proxy]) {
        kill(pid, Signal::SIGKILL);
    }
    let now = |mesh: &Mesh| mesh.pods("web").into_iter().find(|p| p.name == victim.name);
    mesh.until("the proxy to be back", |mesh| {
        now(mesh)
            .is_some_and(|p| p.ready && p.proxy_restarts == victim.proxy_restarts + 1 && p.proxy_pid != Some(proxy))
    });
    let pod = now(mesh).unwrap();
    let born = [pod.proxy_pid, control.and(mesh.status().control_plane.pid)];
    let took = watch.own(mesh, &born.into_iter().flatten().collect::<Vec<_>>());
    assert_eq!((pod.pid, pod.restarts), (victim.pid, victim.restarts), "the program was not touched");
    took
}

#[test]
fn a_killed_proxy_comes_back_and_the_other_replica_serves_on() {
    for user in users() {
        let mut mesh = start(user);
        let victim = mesh.pods("web").remove(0);
        let took = back(&mut mesh, &victim, None);
        assert!(took < BACK, "{user:?}: {took:?}\n{:#?}", mesh.lines("web", Source::Proxy));
        more(&mut mesh, 50);
        // What was under way in the killed proxy is lost; no more than that.
        assert!(bad(&mesh).len() <= 1, "{user:?}: {:#?}", bad(&mesh));
    }
}

/// The proxy finds nobody to certify it when it starts, and asks again as soon as somebody may be there.
#[test]
fn a_proxy_killed_together_with_the_control_plane_comes_back_as_soon() {
    for user in users() {
        let mut mesh = start(user);
        let victim = mesh.pods("web").remove(0);
        let control = mesh.status().control_plane;
        let took = back(&mut mesh, &victim, control.pid);
        assert!(took < BACK, "{user:?}: {took:?}\n{:#?}", mesh.lines("web", Source::Proxy));
        assert_eq!(mesh.status().control_plane.restarts, control.restarts + 1, "{user:?}");
        more(&mut mesh, 50);
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
        // What was asked of it before its end was noticed failed; nothing fails once it is back.
        let before = bad(&mesh).len();
        more(&mut mesh, 50);
        assert_eq!(bad(&mesh).len(), before, "{user:?}: {:#?}", bad(&mesh));
    }
}
