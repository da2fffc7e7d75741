//! `cargo xtask soak`: what takes too long for the test command. Every property with four times the cases, every test that is left
//! to it, then the suites of the whole stack again and again; what came of it is written to `docs/soak.md`.
//!
//! Each part has a limit, so that the whole ends within [`PROPERTIES`] + suites × [`LEFT`] + what is asked for, in practice in
//! about an hour: one of the tests that are left to it waits for half an hour.

use crate::{cargo, commit, demo, foreign, output_of, root, tools};
use anyhow::{Context, bail};
use std::{
    fmt::Write,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Cases of each property; the test command runs 256.
const CASES: &str = "1024";
/// Histories of the index and policies that are tried; the test command tries a tenth.
const HISTORIES: &str = "1000000";
/// How long the properties may take.
const PROPERTIES: Duration = Duration::from_secs(25 * 60);
/// How long the tests that a suite leaves to us may take.
const LEFT: Duration = Duration::from_secs(50 * 60);
/// How long one run of a suite may take.
const SUITE: Duration = Duration::from_secs(8 * 60);
/// What a test prints behind this is a figure for the report.
const FIGURE: &str = "soak: ";

/// What the runs of one part came to.
#[derive(Default)]
struct Tally {
    what: String,
    runs: u32,
    passed: u64,
    failed: Vec<String>,
    longest: Duration,
    figures: Vec<String>,
}

/// How parts are run.
struct Soak {
    found: tools::Found,
    others: std::path::PathBuf,
    rows: Vec<Tally>,
}

pub(crate) fn run(minutes: u64, only: Option<&str>) -> anyhow::Result<()> {
    let found = tools::ensure(tools::TEST)?;
    let others = foreign::ensure(foreign::TEST).and_then(|_| foreign::ensure(foreign::SOAK))?;
    demo::build(&[])?;
    let suites = suites()?;
    // Built beforehand, so that no part waits for the compiler. The features are those of the test command: nothing is built anew.
    crate::run(cargo().args(["test", "--workspace", "--no-run", "--quiet"]))?;
    let start = Instant::now();
    let mut soak = Soak { found, others, rows: vec![] };
    let wanted = |part: &str| only.is_none_or(|only| part.contains(only));
    if wanted("properties") {
        let what = format!("properties with {CASES} cases, and {HISTORIES} histories of the index");
        let mut tally = Tally { what, ..Tally::default() };
        let mut command = soak.command(&["--lib"], &[]);
        tally.add(command.env("PROPTEST_CASES", CASES).env("WEFT_CASES", HISTORIES), PROPERTIES)?;
        soak.rows.push(tally);
    }
    for suite in &suites {
        let what = format!("what the suite `{suite}` leaves to soak");
        if wanted(&what) {
            let mut tally = Tally { what, ..Tally::default() };
            // Two at once: some are long because they load the machine, one because it waits.
            let args = ["--ignored", "--test-threads", "2", "--show-output"];
            tally.add(&mut soak.command(&["--test", suite], &args), LEFT)?;
            soak.rows.push(tally);
        }
    }
    if wanted("again and again") {
        soak.again_and_again(&suites, Duration::from_secs(minutes * 60))?;
    }
    if only.is_none() {
        soak.report(minutes, start.elapsed())?;
    }
    let failed: Vec<&str> = soak.rows.iter().flat_map(|tally| &tally.failed).map(String::as_str).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// The names of the suites: each is `crates/*/tests/<suite>/main.rs`.
fn suites() -> anyhow::Result<Vec<String>> {
    let mut found = vec![];
    for krate in fs::read_dir(root().join("crates"))?.flatten() {
        let Ok(tests) = fs::read_dir(krate.path().join("tests")) else { continue };
        let suites = tests.flatten().filter(|entry| entry.path().join("main.rs").is_file());
        found.extend(suites.filter_map(|entry| entry.file_name().into_string().ok()));
    }
    found.sort();
    if found.is_empty() {
        bail!("there is no suite below crates/*/tests");
    }
    Ok(found)
}

impl Soak {
    /// Runs tests of these targets, with arguments for the test programs.
    fn command(&self, targets: &[&str], args: &[&str]) -> Command {
        let mut command = cargo();
        command.args(["test", "--workspace", "--no-fail-fast"]).args(targets).arg("--").args(args);
        command.env("WEFT_TOOLS", &self.others);
        self.found.apply(&mut command);
        command
    }

    /// Repeats the suites in turn. One that does not fit any more into the time that is left is not begun, but each runs once.
    fn again_and_again(&mut self, suites: &[String], time: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        let named = |suite: &String| Tally { what: format!("suite `{suite}`, again and again"), ..Tally::default() };
        let mut tallies: Vec<Tally> = suites.iter().map(named).collect();
        loop {
            let mut ran = false;
            for (suite, tally) in suites.iter().zip(&mut tallies) {
                if tally.runs == 0 || start.elapsed() + tally.longest < time {
                    tally.add(&mut self.command(&["--test", suite], &[]), SUITE)?;
                    ran = true;
                }
            }
            if !ran {
                break;
            }
        }
        self.rows.append(&mut tallies);
        Ok(())
    }

    fn report(&self, minutes: u64, took: Duration) -> anyhow::Result<()> {
        let mut text = format!(
            "# Soak\n\nWritten by `cargo xtask soak --minutes {minutes}` on {}; it took {} min behind the build.\n\n{}\n\
             | part | runs | tests passed | failed | longest run |\n|---|--:|--:|--:|--:|\n",
            output_of("date", &["+%F"])?,
            took.as_secs().div_ceil(60),
            machine()?
        );
        for Tally { what, runs, passed, failed, longest, figures: _ } in &self.rows {
            let _ = writeln!(text, "| {what} | {runs} | {passed} | {} | {} s |", failed.len(), longest.as_secs());
        }
        for name in self.rows.iter().flat_map(|tally| &tally.failed) {
            let _ = write!(text, "\nFailed: `{name}`\n");
        }
        if self.rows.iter().any(|tally| !tally.figures.is_empty()) {
            text.push_str("\n## Figures\n\n");
        }
        for figure in self.rows.iter().flat_map(|tally| &tally.figures) {
            let _ = writeln!(text, "- {figure}");
        }
        let file = root().join("docs/soak.md");
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    }
}

/// What it ran on and what ran: a list.
fn machine() -> anyhow::Result<String> {
    let of = |path: &str, key: &str| -> anyhow::Result<String> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        Ok(line.split_once(':').map_or(line, |(_, value)| value).trim().to_owned())
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut text = format!(
        "- machine: {cores} cores of {}, {}, Linux {}\n- weft {}, {}\n",
        of("/proc/cpuinfo", "model name")?,
        of("/proc/meminfo", "MemTotal")?,
        of("/proc/sys/kernel/osrelease", "")?,
        commit()?,
        output_of("rustc", &["--version"])?,
    );
    for pins in [foreign::TEST, foreign::SOAK].into_iter().flatten().map(foreign::Foreign::pins) {
        let _ = writeln!(text, "- {pins}");
    }
    Ok(text)
}

impl Tally {
    /// Runs `command`, which runs tests, for at most `limit`.
    fn add(&mut self, command: &mut Command, limit: Duration) -> anyhow::Result<()> {
        eprintln!("xtask: {}", self.what);
        let log = tools::cache()?.join("soak.log");
        let start = Instant::now();
        let ended = watched(command, &log, limit)?;
        self.longest = self.longest.max(start.elapsed());
        self.runs += 1;
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        if !text.lines().any(|line| line.starts_with("test result:")) {
            bail!("{}: no test ran: {text}", self.what);
        }
        let before = self.failed.len();
        self.count(&text, ended);
        if self.failed.len() > before {
            let name = self.what.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            let kept = log.with_file_name(format!("soak-{name}.log"));
            fs::copy(&log, &kept)?;
            eprintln!("xtask: failed: {}; what it said is in {}", self.failed[before..].join(", "), kept.display());
        }
        Ok(())
    }

    fn count(&mut self, text: &str, ended: Option<bool>) {
        let before = self.failed.len();
        for line in text.lines() {
            let passed =
                line.strip_prefix("test result:").and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
            self.passed += passed.unwrap_or(0);
            self.failed
                .extend(line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED")).map(str::to_owned));
            self.figures.extend(line.trim().strip_prefix(FIGURE).map(str::to_owned));
        }
        match ended {
            None => self.failed.push(format!("{}: it took too long", self.what)),
            Some(false) if self.failed.len() == before => self.failed.push(format!("{}: it ended early", self.what)),
            Some(_) => {}
        }
    }
}

/// Runs a command with its output in a file; whether it succeeded, or nothing if it was ended because it took too long.
fn watched(command: &mut Command, log: &Path, limit: Duration) -> anyhow::Result<Option<bool>> {
    let out = fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let mut child = command.spawn().context("starting cargo test")?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if start.elapsed() > limit {
            end(&mut child)?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Ends cargo, the test programs that it runs and what these have started, which would go on alone.
fn end(child: &mut std::process::Child) -> anyhow::Result<()> {
    // Found before the first is gone: what is left behind has another parent.
    let mut pids = vec![child.id().to_string()];
    let mut seen = 0;
    while let Some(pid) = pids.get(seen).cloned() {
        // Each thread has its own children.
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let below = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            pids.extend(below.split_whitespace().map(str::to_owned));
        }
        seen += 1;
    }
    Command::new("kill").arg("-KILL").args(&pids).status().context("starting kill")?;
    child.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tests_print_is_counted() {
        let mut tally = Tally { what: "part".to_owned(), ..Tally::default() };
        let text =
            "test a ... ok\ntest b::c ... FAILED\nsoak: 7 MB\ntest result: FAILED. 3 passed; 1 failed; 0 ignored\n";
        tally.count(text, Some(false));
        assert_eq!(
            (tally.passed, &tally.failed[..], &tally.figures[..]),
            (3, &["b::c".to_owned()][..], &["7 MB".to_owned()][..])
        );
        tally.count("test result: ok. 2 passed; 0 failed\n", Some(false));
        tally.count("test result: ok. 2 passed; 0 failed\n", None);
        assert_eq!(tally.failed[1..], ["part: it ended early", "part: it took too long"]);
        assert_eq!(tally.passed, 7);
    }
}
