//! `cargo xtask tidy`: what must hold of the tree and the compiler does not check.

use crate::{cargo, links, root};
use anyhow::{Context, bail};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The layer of each crate; an arrow goes to a strictly lower one.
const LAYERS: &[(&str, u8)] = &[
    ("weft-model", 0),
    ("weft-wire", 1),
    ("weft-telemetry", 1),
    ("weft-transport", 2),
    ("weft-cluster", 3),
    ("weft-init", 3),
    ("weft-proxy", 3),
    ("weft-control", 4),
    ("weft-viz", 4),
    ("weft-local", 5),
    ("weft-cli", 6),
    ("weft-demo", 7),
    ("weft-testkit", 7),
    ("weft-bench", 8),
    ("weft-fuzz", 8),
    ("xtask", 8),
];

/// A crate of the registry that only some of ours may name.
const CONFINED: &[(&str, &[&str])] = &[
    ("rustls", &["weft-transport"]),
    ("tokio-rustls", &["weft-transport"]),
    ("linkerd2-proxy-api", &["weft-wire"]),
    ("kube", &["weft-cluster"]),
    ("k8s-openapi", &["weft-cluster"]),
    // The demo only reads its errors: which calls have reached nobody.
    ("h2", &["weft-proxy", "weft-testkit", "weft-demo"]),
];

/// What `model` may depend on: nothing that reads a clock, draws random numbers, or does I/O.
const PURE: &[&str] = &["serde", "thiserror", "regex-automata"];
/// What its code does not name, for the same reason.
const IMPURE: &[&str] =
    &["std::fs", "std::env", "std::io", "std::process", "std::thread", "::now()", "TcpStream", "UdpSocket"];

/// Lines of code, tests left out.
const LINES_WARN: usize = 500;
const LINES_MAX: usize = 1000;
const ARCHITECTURE_MAX: usize = 300;

pub(crate) fn run() -> anyhow::Result<()> {
    let output = cargo().args(["metadata", "--format-version=1"]).output().context("running cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    let mut faults = vec![];
    let members = members(&metadata);
    arrows(&members, &mut faults);
    pure(&members, &mut faults)?;
    one_provider(&mut faults)?;
    sizes(&mut faults)?;
    forgotten_modules(&mut faults)?;
    left_over(&mut faults)?;
    looked_once(&mut faults)?;
    described(&members, &mut faults)?;
    guarded(&mut faults)?;
    held(&mut faults)?;
    links::resolve(&mut faults)?;
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    match faults.len() {
        0 => Ok(()),
        n => bail!("tidy found {n} faults"),
    }
}

/// Each member with its dependencies: name and kind (`None` is an ordinary one).
type Members = BTreeMap<String, Vec<(String, Option<String>)>>;

fn members(metadata: &Value) -> Members {
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    packages
        .iter()
        .filter(|p| p["source"].is_null())
        .map(|p| {
            let dependencies = p["dependencies"].as_array().cloned().unwrap_or_default();
            let text = |v: &Value| v.as_str().map(str::to_owned);
            let edges = dependencies.iter().filter_map(|d| Some((text(&d["name"])?, text(&d["kind"])))).collect();
            (text(&p["name"]).unwrap_or_default(), edges)
        })
        .collect()
}

fn arrows(members: &Members, faults: &mut Vec<String>) {
    let layer = |name: &str| LAYERS.iter().find(|(n, _)| *n == name).map(|(_, l)| *l);
    for (name, dependencies) in members {
        let Some(own) = layer(name) else {
            faults.push(format!("crate {name} stands in no layer: add it to LAYERS and to ARCHITECTURE.md"));
            continue;
        };
        for (to, kind) in dependencies {
            if kind.is_none() && layer(to).is_some_and(|to| to >= own) {
                faults.push(format!("{name} depends on {to}, which is not in a lower layer"));
            }
            if to == "weft-testkit" && kind.is_none() && name != "weft-bench" {
                faults.push(format!("{name} depends on weft-testkit outside its tests"));
            }
            let confined = CONFINED.iter().find(|(n, _)| n == to);
            if let Some((_, allowed)) = confined
                && !allowed.contains(&name.as_str())
            {
                faults.push(format!("{name} names {to}, which belongs to {}", allowed.join(" and ")));
            }
        }
    }
}

/// `model` decides and does nothing else.
fn pure(members: &Members, faults: &mut Vec<String>) -> anyhow::Result<()> {
    for (to, kind) in members.get("weft-model").into_iter().flatten() {
        if kind.is_none() && !PURE.contains(&to.as_str()) {
            faults.push(format!("weft-model depends on {to}: only {} keep it pure", PURE.join(", ")));
        }
    }
    for file in sources(&root().join("crates/model"))? {
        let text = fs::read_to_string(&file)?;
        let code: Vec<_> = text.lines().take_while(|l| !l.starts_with("#[cfg(test)]")).collect();
        for name in IMPURE.iter().filter(|name| code.iter().any(|line| line.contains(**name))) {
            faults.push(format!("{} names {name}: pass in what it gives", file.display()));
        }
    }
    Ok(())
}

/// With two crypto providers in the tree rustls refuses to pick one at run time.
///
/// Asked of `cargo tree`: `cargo metadata` also lists what a weak feature (`ring?/std`) names and nobody turned on.
fn one_provider(faults: &mut Vec<String>) -> anyhow::Result<()> {
    for banned in ["ring", "openssl", "openssl-sys", "native-tls"] {
        let args = ["tree", "--workspace", "--target", "all", "--prefix", "none", "--invert", banned];
        let tree = cargo().args(args).output().context("running cargo tree")?;
        // A package that Cargo.lock does not have at all is an error of the command.
        if tree.status.success() && !tree.stdout.is_empty() {
            faults.push(format!("{banned} is in the tree: aws-lc-rs is the only crypto provider"));
        }
    }
    Ok(())
}

fn sizes(faults: &mut Vec<String>) -> anyhow::Result<()> {
    for file in sources(&root())? {
        if file.components().any(|c| c.as_os_str() == "gen") {
            continue;
        }
        let text = fs::read_to_string(&file)?;
        let lines = text.lines().take_while(|l| !l.starts_with("#[cfg(test)]")).count();
        let name = file.strip_prefix(root()).unwrap_or(&file).display();
        if lines > LINES_MAX {
            faults.push(format!("{name} has {lines} lines of code; split it, {LINES_MAX} is the most"));
        } else if lines > LINES_WARN {
            eprintln!("tidy: warning: {name} has {lines} lines of code");
        }
        let is_root = file.ends_with("src/lib.rs") || file.ends_with("src/main.rs");
        if is_root && !text.contains("#![forbid(unsafe_code)]") {
            faults.push(format!("{name} does not forbid unsafe code"));
        }
        if !text.starts_with("//!") && !name.to_string().contains("/tests/") {
            faults.push(format!("{name} does not open with a //! header"));
        }
    }
    Ok(())
}

/// What no file names as its module is never compiled, and if it holds tests they never run. What is generated is included instead.
fn forgotten_modules(faults: &mut Vec<String>) -> anyhow::Result<()> {
    for file in sources(&root())? {
        let (Some(folder), Some(name)) = (file.parent(), file.file_stem().and_then(|name| name.to_str())) else {
            continue;
        };
        let of_crate = |folder: Option<&Path>| folder.is_some_and(|folder| folder.join("Cargo.toml").exists());
        let is_root = matches!(name, "main" | "lib")
            || folder.ends_with("gen")
            || of_crate(Some(folder))
            || (of_crate(folder.parent()) && !folder.ends_with("src"));
        if is_root {
            continue;
        }
        let (module, folder) = match (name, folder.file_name().and_then(|name| name.to_str()), folder.parent()) {
            ("mod", Some(name), Some(above)) => (name, above),
            _ => (name, folder),
        };
        let [own, shared] = [format!("mod {module};"), format!(" mod {module};")];
        let declares =
            |text: String| text.lines().any(|line| line == own || (line.starts_with("pub") && line.ends_with(&shared)));
        let parents = ["main.rs", "lib.rs", "mod.rs"].map(|name| folder.join(name)).into_iter();
        let mut parents =
            parents.chain([folder.with_extension("rs")]).filter_map(|parent| fs::read_to_string(parent).ok());
        if !parents.any(declares) {
            faults.push(format!("{} is no module of the file above it: it is never compiled", file.display()));
        }
    }
    Ok(())
}

/// What a merge or an editor leaves behind.
fn left_over(faults: &mut Vec<String>) -> anyhow::Result<()> {
    for like in ["*.orig", "*.rej", "*~"] {
        faults.extend(files(&root(), like)?.iter().map(|file| format!("{} was left behind", file.display())));
    }
    Ok(())
}

/// A proxy counts behind the last byte that a peer sees: whoever looks for a count once loses that race on a busy machine.
fn looked_once(faults: &mut Vec<String>) -> anyhow::Result<()> {
    for file in sources(&root().join("crates/proxy/tests"))? {
        let text = fs::read_to_string(&file)?;
        for (number, line) in text.lines().enumerate() {
            let counts = line.contains("assert_eq!(") && !line.contains(", 0.0");
            let grew = line.contains("assert!(") && line.contains(" >= ");
            if line.contains(".metric(") && (counts || grew) {
                let at = format!("{}:{}", file.strip_prefix(root()).unwrap_or(&file).display(), number + 1);
                faults.push(format!("{at} looks for a count once: use `reaches` or `at_least`"));
            }
        }
    }
    Ok(())
}

fn described(members: &Members, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).context("reading ARCHITECTURE.md")?;
    let lines = architecture.lines().count();
    if lines > ARCHITECTURE_MAX {
        faults.push(format!("ARCHITECTURE.md has {lines} lines; {ARCHITECTURE_MAX} is the most"));
    }
    for name in members.keys() {
        let folder = name.strip_prefix("weft-").unwrap_or(name);
        if !architecture.contains(&format!("`{folder}`")) {
            faults.push(format!("ARCHITECTURE.md does not describe `{folder}`"));
        }
    }
    Ok(())
}

/// Each test that the invariants name exists, so that none of them is a promise without a guard.
fn guarded(faults: &mut Vec<String>) -> anyhow::Result<()> {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).context("reading ARCHITECTURE.md")?;
    let invariants = architecture.split("## Invariants").nth(1).context("ARCHITECTURE.md has no invariants")?;
    let tests = Tests::read()?;
    for line in invariants.lines() {
        // What is not joined by `_` is a program or a folder.
        let named = quoted(line).filter(|name| name.contains('_'));
        faults.extend(named.filter_map(|name| tests.lacks("ARCHITECTURE.md", line, name)));
    }
    Ok(())
}

/// Each row of what Linkerd does names tests, in its last column, and they exist; one of them, at least, has the whole
/// program before it.
fn held(faults: &mut Vec<String>) -> anyhow::Result<()> {
    let name = "docs/reference/parity.md";
    let text = fs::read_to_string(root().join(name)).with_context(|| format!("reading {name}"))?;
    let tests = Tests::read()?;
    for row in text.lines().filter(|line| line.starts_with("| ")) {
        let mut columns = row.trim_matches('|').split('|');
        let (what, last) = (columns.next().unwrap_or_default().trim(), columns.next_back().unwrap_or_default());
        // The head of a table.
        if last.trim() == "tests" {
            continue;
        }
        if !quoted(last).any(|test| tests.is_outside(test)) {
            faults.push(format!("{name}: no test below a tests/ folder holds `{what}`"));
        }
        faults.extend(quoted(last).filter_map(|test| tests.lacks(name, last, test)));
    }
    Ok(())
}

/// What a text has in code quotes that may be the name of a function.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let word = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    text.split('`').skip(1).step_by(2).filter(word)
}

/// All code by file, to look for tests in.
struct Tests(Vec<(PathBuf, String)>);

impl Tests {
    fn read() -> anyhow::Result<Self> {
        let read = |file: PathBuf| fs::read_to_string(&file).map(|text| (file, text));
        Ok(Self(sources(&root())?.into_iter().map(read).collect::<Result<_, _>>()?))
    }

    /// Whether a test of this name lies below a package's `tests/`, beside its code and not within.
    fn is_outside(&self, test: &str) -> bool {
        let below = |file: &Path, folder: &str| file.components().any(|c| c.as_os_str() == folder);
        let outside = |file: &Path| below(file, "tests") && !below(file, "src");
        self.0
            .iter()
            .any(|(file, text)| outside(file.strip_prefix(root()).unwrap_or(file)) && attributes(text, test).is_some())
    }

    /// What is wrong where `file` names `test` in a line: there is none, or only soak runs it and the line does not say so.
    fn lacks(&self, file: &str, line: &str, test: &str) -> Option<String> {
        let found: Vec<_> = self.0.iter().filter_map(|(_, text)| attributes(text, test)).collect();
        let runs = |ignored: bool| found.iter().any(|attributes| attributes.contains("#[ignore") == ignored);
        let why = match (runs(false), runs(true)) {
            (false, false) => "which does not exist",
            (false, true) if !line.contains("soak") => "which only soak runs: say so in the same line",
            _ => return None,
        };
        Some(format!("{file} names the test {test}, {why}"))
    }
}

/// The attributes of a test, if the text has one of this name; a case of a suite without the harness has none.
fn attributes(text: &str, test: &str) -> Option<String> {
    if text.contains(&format!("name: \"{test}\"")) {
        return Some(String::new());
    }
    let function = format!("fn {test}(");
    text.match_indices(&function).find_map(|(at, _)| {
        let before: Vec<&str> = text.get(..at)?.split('\n').collect();
        // Behind the last line break is what precedes `fn`: `async`, say.
        let above = before.iter().rev().skip(1).map(|line| line.trim());
        let attributes: String = above.take_while(|line| line.starts_with("#[") || line.starts_with("//")).collect();
        ["#[test]", "#[tokio::test"].iter().any(|test| attributes.contains(test)).then_some(attributes)
    })
}

/// Every Rust file that git knows or would add.
fn sources(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    files(root, "*.rs")
}

/// Every file like this that git knows or would add.
pub(crate) fn files(root: &Path, like: &str) -> anyhow::Result<Vec<PathBuf>> {
    let output = std::process::Command::new("git")
        .current_dir(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard", like])
        .output()
        .context("asking git for the files")?;
    let names = String::from_utf8(output.stdout)?;
    Ok(names.lines().map(|l| root.join(l)).filter(|p| p.exists()).collect())
}
