//! What an attack costs the proxies: a test in a process of its own, whose memory and worker threads are measured.

use std::{fs, process::Command, time::Duration};

/// Set for the process of its own.
const INSIDE: &str = "WEFT_TEST_ALONE";
/// What that process says at its end: one that ran no test does not.
const DONE: &str = "measured to the end";
/// What a figure begins with: `cargo xtask soak` copies such lines into its report.
const FIGURE: &str = "soak: ";
const PAGE: usize = 4096;

/// Since when is measured.
pub(crate) struct Meter {
    cpu: Duration,
    resident: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// Of the workers of all proxies in this process.
    pub(crate) cpu: Duration,
    /// Bytes by which the process was larger at its peak.
    pub(crate) resident: usize,
}

/// Runs `test`, which is `name` of `module`, in a process of its own, and passes on what it prints.
pub(crate) fn alone(module: &str, name: &str, test: impl AsyncFnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        weft_transport::socket::raise_open_files().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        // Behind what the test program has begun a line with.
        print("");
        runtime.block_on(test());
        print(DONE);
        return;
    }
    let (_, module) = module.split_once("::").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{name}"), "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains(DONE), "{text}{errors}");
    // Not what the test program there says of itself: its one test would be counted twice.
    text.lines().filter(|line| line.starts_with(FIGURE)).for_each(print);
}

/// A figure, for who reads along.
pub(crate) fn say(text: &str) {
    print(&format!("{FIGURE}{text}"));
}

#[expect(clippy::print_stdout, reason = "the figures are shown with --nocapture")]
fn print(line: &str) {
    println!("{line}");
}

impl Meter {
    pub(crate) fn start() -> Self {
        // The peak begins anew.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        Self { cpu: workers(), resident: resident() }
    }

    pub(crate) fn stop(&self) -> Spent {
        Spent { cpu: workers().saturating_sub(self.cpu), resident: peak().saturating_sub(self.resident) }
    }
}

/// Bytes of memory that this process holds.
pub(crate) fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * PAGE
}

fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Time that the proxies' workers have run, to the nanosecond.
fn workers() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    // Who ends meanwhile is none of them.
    let workers =
        tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("worker-")));
    let ran = |task: std::path::PathBuf| -> Option<u64> {
        fs::read_to_string(task.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(workers.filter_map(ran).sum())
}
