//! `cargo xtask fuzz`: libFuzzer on every parser, for so many minutes each; writes docs/fuzz.md.
//!
//! It needs no nightly toolchain: coverage comes from LLVM's pass, and there is no unsafe code for a sanitizer to look at. What
//! is found is left below target/fuzz; put it into fuzz/corpus with the mend.

use crate::{cargo, commit, output_of, root, run as run_command, target_dir};
use anyhow::{Context, bail};
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";
/// Bytes of one input.
const MAX_LEN: usize = 4096;
/// What stands above the report's rows.
const HEAD: &str = "# Fuzzing\n\nWritten by `cargo xtask fuzz`: the newest run of each target. The test command runs the same targets over `fuzz/corpus` \
    and its mutations.\n\n| target | on | of | minutes | inputs | findings |\n|---|---|---|--:|--:|---|\n";
/// MB of memory.
const MEMORY: usize = 1024;

pub(crate) fn run(minutes: u64, only: Option<&str>) -> anyhow::Result<()> {
    let built = target_dir()?.join("fuzz");
    let mut build = cargo();
    build
        .args(["build", "--package", "weft-fuzz", "--features", "libfuzzer", "--release", "--target", TRIPLE])
        .arg("--target-dir")
        .arg(&built)
        // Debug assertions and overflow checks find what release builds would hide.
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
        .env("RUSTFLAGS", COVERAGE);
    run_command(&mut build)?;
    let program = built.join(TRIPLE).join("release/weft-fuzz");
    let targets: Vec<_> = targets()?.into_iter().filter(|target| only.is_none_or(|only| only == target)).collect();
    let (date, commit) = (output_of("date", &["+%F"])?, commit()?);
    let next = AtomicUsize::new(0);
    let ended = Mutex::new(BTreeMap::new());
    // Each has a core to itself.
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let one_after_the_other = || -> anyhow::Result<()> {
        while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            eprintln!("xtask: fuzzing {target} for {minutes} min");
            let end = fuzz(&program, target, &built, minutes)?;
            ended.lock().unwrap_or_else(PoisonError::into_inner).insert(target.clone(), end);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..cores).map(|_| scope.spawn(one_after_the_other)).collect();
        all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| bail!("a target could not be run")))
    })?;
    let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    let rows = ended.iter().map(|(target, (ended_well, inputs))| {
        let findings = if *ended_well { "none" } else { "yes" };
        (target.clone(), format!("| {target} | {date} | {commit} | {minutes} | {inputs} | {findings} |"))
    });
    let findings = ended.values().filter(|(ended_well, _)| !ended_well).count();
    report(rows)?;
    if findings > 0 {
        bail!("{findings} targets have findings; the inputs are below {}", built.display());
    }
    Ok(())
}

/// The names of the targets: each has a corpus.
fn targets() -> anyhow::Result<Vec<String>> {
    let dir = root().join("fuzz/corpus");
    let entries = fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut names: Vec<_> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Whether it ended without a finding, and how many inputs were tried.
fn fuzz(program: &Path, target: &str, built: &Path, minutes: u64) -> anyhow::Result<(bool, String)> {
    let found = built.join("found").join(target);
    let grown = built.join("corpus").join(target);
    for dir in [&found, &grown] {
        fs::create_dir_all(dir)?;
    }
    let output = Command::new(program)
        .env("WEFT_FUZZ_TARGET", target)
        .arg(format!("-max_total_time={}", minutes * 60))
        .args([
            &format!("-max_len={MAX_LEN}"),
            &format!("-rss_limit_mb={MEMORY}"),
            "-timeout=10",
            "-print_final_stats=1",
        ])
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg(&grown) // new inputs go here, the committed ones stay as they are
        .arg(root().join("fuzz/corpus").join(target))
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let inputs = text.lines().find_map(|l| l.strip_prefix("stat::number_of_executed_units:")).unwrap_or("?").trim();
    if !output.status.success() {
        let end: Vec<_> = text.lines().rev().take(30).collect();
        eprintln!("{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    Ok((output.status.success(), inputs.to_owned()))
}

/// Puts these rows into the report, in the place of what it said of the same targets.
fn report(rows: impl Iterator<Item = (String, String)>) -> anyhow::Result<()> {
    let file = root().join("docs/fuzz.md");
    let before = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let mut all: BTreeMap<String, String> = before.lines().filter_map(row).collect();
    all.extend(rows);
    let mut text = HEAD.to_owned();
    for row in all.values() {
        let _ = writeln!(text, "{row}");
    }
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
}

/// A row of an earlier report, by its target.
fn row(line: &str) -> Option<(String, String)> {
    let target = line.strip_prefix("| ")?.split(' ').next()?;
    (target != "target").then(|| (target.to_owned(), line.to_owned()))
}
