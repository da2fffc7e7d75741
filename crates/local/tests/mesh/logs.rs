//! `weft logs`, as a person types it.

use crate::harness::{Mesh, User, deployment, users, weft};
use nix::sys::signal::Signal;
use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

/// Counts aloud.
const COUNT: &str =
    "import itertools, time\nfor n in itertools.count():\n    print('count', n, flush=True)\n    time.sleep(0.02)\n";

const PATIENCE: Duration = Duration::from_secs(30);

/// A `weft logs` that runs, and the lines that it prints.
fn logs(user: User, mesh: &Mesh, arguments: &[&str]) -> (Child, Receiver<String>) {
    let mut command = weft(user, &mesh.state);
    let mut child = command.arg("logs").args(arguments).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                // The reader goes away: so does the pipe.
                return;
            }
        }
    });
    (child, lines)
}

fn number(line: &str) -> Option<u64> {
    line.split_once(" count ")?.1.parse().ok()
}

#[test]
fn lines_are_followed_without_a_gap_until_the_mesh_ends() {
    for user in users() {
        let manifests = deployment("count", 1, "", "[python3, DIR/count.py]", "")
            + &deployment("silent", 1, "", "[sleep, '1000']", "");
        let mut mesh = Mesh::up(user, &manifests, &[("count.py", COUNT)], &[]);
        mesh.ready(&["count", "silent"]);
        mesh.said("count", "count 10");
        let pod = mesh.pods("count").remove(0).name;

        // What is kept, and what comes, in one row.
        let (mut all, lines) = logs(user, &mesh, &["shop/count", "--follow"]);
        let numbers: Vec<u64> = std::iter::from_fn(|| {
            let line = lines.recv_timeout(PATIENCE).unwrap();
            assert!(line.starts_with(&pod) || number(&line).is_none(), "{user:?} {line}");
            Some(number(&line))
        })
        .flatten()
        .take(60)
        .collect();
        assert_eq!(numbers, (0..60).collect::<Vec<_>>(), "{user:?}");

        // The last lines, then what comes.
        let (mut some, last) = logs(user, &mesh, &[&pod, "--tail", "2", "-f"]);
        let first = number(&last.recv_timeout(PATIENCE).unwrap()).unwrap();
        assert!(first >= 55, "{user:?}: {first}");
        for next in first + 1..first + 10 {
            assert_eq!(number(&last.recv_timeout(PATIENCE).unwrap()), Some(next), "{user:?}");
        }

        // Whoever has read enough is not held.
        drop(last);
        assert!(ended(&mut some), "{user:?}");

        let refused = weft(user, &mesh.state).args(["logs", "nobody", "--follow"]).output().unwrap();
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && text.contains("nobody") && text.contains("weft ps"), "{user:?} {text}");

        mesh.signal(Signal::SIGINT);
        mesh.ended();
        assert!(ended(&mut all), "{user:?}: it ends with the mesh");
    }
}

/// Waits for the end of a process and says whether it went well.
fn ended(child: &mut Child) -> bool {
    let start = std::time::Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("`weft logs` does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
