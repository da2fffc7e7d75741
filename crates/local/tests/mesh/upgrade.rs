//! The proxies of a running mesh are replaced by new processes, and supervised as before.

use crate::{
    failure::{bad, more, start},
    harness::{Mesh, children, kill, lives, users},
};
use nix::sys::signal::Signal;
use weft_local::status::Pod;

/// Which process of a proxy accepts connections, by its own number.
fn accepts(mesh: &Mesh, pod: &Pod) -> String {
    std::fs::read_to_string(mesh.state.join("run/pods").join(&pod.name).join("pid")).unwrap_or_default()
}

fn now(mesh: &Mesh, pod: &Pod) -> Option<Pod> {
    let all = ["web", "load"].into_iter().flat_map(|name| mesh.pods(name));
    all.into_iter().find(|p| p.name == pod.name)
}

/// Asks for an upgrade and waits until the old process has ended.
fn upgrade(mesh: &mut Mesh, pod: &Pod) {
    let init = pod.proxy_pid.unwrap();
    mesh.until("the proxy to say who accepts", |mesh| !accepts(mesh, pod).is_empty());
    let (before, old) = (accepts(mesh, pod), children(init));
    kill(init, Signal::SIGUSR2);
    mesh.until("another process to accept", |mesh| accepts(mesh, pod) != before);
    mesh.until("the old process to end", |_| {
        let left = children(init);
        left.len() == 1 && !old.contains(&left[0]) && old.iter().all(|pid| !lives(*pid))
    });
}

#[test]
fn proxies_are_upgraded_under_load_and_supervised_as_before() {
    for user in users() {
        let mut mesh = start(user);
        let pods: Vec<Pod> = ["web", "load"].into_iter().flat_map(|name| mesh.pods(name)).collect();
        for pod in &pods {
            for _ in 0..2 {
                upgrade(&mut mesh, pod);
                more(&mut mesh, 20);
            }
            let after = now(&mesh, pod).unwrap();
            assert_eq!((after.proxy_pid, after.proxy_restarts), (pod.proxy_pid, 0), "{user:?}");
            assert!(after.ready, "{user:?}: {after:?}");
        }
        assert_eq!(bad(&mesh), Vec::<String>::new(), "{user:?}");

        // The end of the process that has taken over is the end of the proxy.
        let victim = &pods[0];
        let init = victim.proxy_pid.unwrap();
        kill(children(init)[0], Signal::SIGKILL);
        mesh.until("the proxy to be back", |mesh| {
            now(mesh, victim).is_some_and(|p| p.ready && p.proxy_restarts == 1 && p.proxy_pid != Some(init))
        });
        let back = now(&mesh, victim).unwrap();
        upgrade(&mut mesh, &back);
        more(&mut mesh, 20);
        assert!(bad(&mesh).len() <= 1, "{user:?}: what was under way in the killed one: {:#?}", bad(&mesh));
    }
}
