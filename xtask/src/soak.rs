//! `cargo xtask soak`: what takes too long for the test command. It repeats the suites of the whole stack for as long as it is
//! told, runs every property with four times the cases, and writes what came of it to `docs/soak.md`.

use crate::{cargo, demo, foreign, root, tools};
use anyhow::{Context, bail};
use std::{
    fmt::Write,
    process::Command,
    time::{Duration, Instant},
};

/// Cases of each property; the test command runs 256.
const CASES: &str = "1024";
/// The packages that have properties.
const PROPERTIES: &[&str] =
    &["weft-model", "weft-wire", "weft-telemetry", "weft-transport", "weft-proxy", "weft-cluster", "weft-viz"];
/// Suites of whole proxies and whole meshes.
const SUITES: &[(&str, &str)] =
    &[("weft-proxy", "proxy"), ("weft-proxy", "hostile"), ("weft-proxy", "conformance"), ("weft-local", "mesh")];

/// What the runs of one suite came to.
#[derive(Default)]
struct Tally {
    runs: u32,
    passed: u64,
    failed: Vec<String>,
    longest: Duration,
}

pub(crate) fn run(minutes: u64) -> anyhow::Result<()> {
    let found = tools::ensure(tools::TEST)?;
    let others = foreign::ensure()?;
    demo::build(&[])?;
    let mut rows = vec![];
    for package in PROPERTIES {
        let mut tally = Tally::default();
        let mut command = cargo();
        command.args(["test", "--package", package, "--lib"]).env("PROPTEST_CASES", CASES);
        tally.add(found.apply(&mut command))?;
        rows.push((format!("{package}, properties with {CASES} cases"), tally));
    }
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let mut tallies: Vec<Tally> = SUITES.iter().map(|_| Tally::default()).collect();
    while Instant::now() < end {
        for ((package, suite), tally) in SUITES.iter().zip(&mut tallies) {
            let mut command = cargo();
            // What the test command leaves to us is marked as ignored.
            command.args(["test", "--package", package, "--test", suite, "--", "--include-ignored"]);
            command.env("WEFT_TOOLS", &others);
            tally.add(found.apply(&mut command))?;
        }
    }
    rows.extend(SUITES.iter().map(|(package, suite)| format!("{package}, suite {suite}")).zip(tallies));
    write_report(minutes, &rows)?;
    let failed: usize = rows.iter().map(|(_, tally)| tally.failed.len()).sum();
    if failed > 0 {
        bail!("{failed} tests failed; see docs/soak.md");
    }
    Ok(())
}

impl Tally {
    fn add(&mut self, command: &mut Command) -> anyhow::Result<()> {
        let start = Instant::now();
        let output = command.output().context("starting cargo test")?;
        self.longest = self.longest.max(start.elapsed());
        self.runs += 1;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let results: Vec<&str> = text.lines().filter(|l| l.starts_with("test result:")).collect();
        if results.is_empty() {
            bail!("a suite ran no test: {}", String::from_utf8_lossy(&output.stderr));
        }
        for line in results {
            self.passed += line.split_whitespace().nth(3).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        let failed = text.lines().filter_map(|l| l.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
        self.failed.extend(failed.map(str::to_owned));
        if !output.status.success() && self.failed.is_empty() {
            self.failed.push("a suite ended early".to_owned());
        }
        Ok(())
    }
}

fn write_report(minutes: u64, rows: &[(String, Tally)]) -> anyhow::Result<()> {
    let date = Command::new("date").arg("+%F").output().context("asking for the date")?;
    let mut text = format!(
        "# Soak\n\nWritten by `cargo xtask soak --minutes {minutes}` on {}.\n\n| what | runs | tests passed | failed | longest run |\n|---|--:|--:|--:|--:|\n",
        String::from_utf8_lossy(&date.stdout).trim()
    );
    for (what, tally) in rows {
        let _ = writeln!(
            text,
            "| {what} | {} | {} | {} | {} s |",
            tally.runs,
            tally.passed,
            tally.failed.len(),
            tally.longest.as_secs()
        );
    }
    for name in rows.iter().flat_map(|(_, tally)| &tally.failed) {
        let _ = writeln!(text, "\nFailed: `{name}`");
    }
    let file = root().join("docs/soak.md");
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
}
