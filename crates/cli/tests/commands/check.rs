//! `weft check` that waits: somebody at a terminal sees what for, and a pipe the lines alone.

use crate::lab::Home;
use serde_json::json;
use std::{
    io::Read,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;
use weft_cluster::{
    install::{By, crds},
    values::Values,
};
use weft_testkit::api_server::FakeApi;

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(120);
const LINE: &str = "the mesh's own kinds are defined";
/// Runs its arguments at a terminal of their own, and ends as they do.
const AT_A_TERMINAL: &str = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

/// What `weft check --crds` writes while it waits for what comes true meanwhile.
fn waits(terminal: bool) -> String {
    let runtime = Runtime::new().unwrap();
    let (home, api) = (Home::new(), runtime.block_on(FakeApi::start()).unwrap());
    let _running = runtime.enter();
    for name in ["httproutes", "grpcroutes"] {
        api.put(json!({"kind": "CustomResourceDefinition", "metadata": {"name": format!("{name}.gateway.networking.k8s.io")},
            "spec": {"group": "gateway.networking.k8s.io", "scope": "Namespaced", "names": {"kind": "R", "plural": name},
                "versions": [{"name": "v1", "served": true, "storage": true}]}}));
    }
    home.configure(&api);
    let mut command = home.weft(&["check", "--crds", "--wait=2m"]);
    if terminal {
        let weft = command;
        command = Command::new("python3");
        command.args(["-c", AT_A_TERMINAL]).arg(weft.get_program()).args(weft.get_args()).current_dir(&home.0);
        for (name, value) in weft.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut shown = vec![];
    let start = Instant::now();
    let is_shown = |shown: &[u8], text: &str| String::from_utf8_lossy(shown).contains(text);
    if terminal {
        let mut more = [0; 4096];
        while !is_shown(&shown, &format!("| {LINE}: ")) {
            let read = out.read(&mut more).unwrap();
            assert!(read > 0 && start.elapsed() < PATIENCE, "{}", String::from_utf8_lossy(&shown));
            shown.extend(more.iter().take(read));
        }
    } else {
        // It has looked once, and nothing of that is on its way to a file.
        runtime.block_on(api.asked(|request| request.path.ends_with(".linkerd.io"))).unwrap();
    }
    crds(&Values::default(), "linkerd", By::Cli).into_iter().for_each(|object| api.put(object));
    out.read_to_end(&mut shown).unwrap_or_default();
    assert!(child.wait().unwrap().success(), "{}", String::from_utf8_lossy(&shown));
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(told, "", "at a terminal both are one, and else nothing is told");
    String::from_utf8(shown).unwrap()
}

#[test]
fn what_is_waited_for_is_shown_at_a_terminal() {
    let shown = waits(true);
    // It stands in one line, which the outcome takes.
    let (before, after) = shown.rsplit_once("\r\x1b[K").unwrap();
    assert!(before.contains(&format!("\r\x1b[K| {LINE}: ")), "{shown:?}");
    assert!(after.contains(&format!("√ {LINE}")) && after.contains("results are √"), "{shown:?}");
    let plain = waits(false);
    assert!(plain.contains(&format!("√ {LINE}\n")) && !plain.contains('|') && !plain.contains('\x1b'), "{plain:?}");
}
