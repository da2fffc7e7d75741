//! What the suite's program tells while it runs, by test, and the page that is made of it.

use std::{collections::BTreeMap, fmt::Write as _, process::Command, time::Duration};

/// The suite's own test, below which all others stand.
const ALL: &str = "TestConformance/";
/// What tests of meshes are called; the others are of gateways.
const OURS: &str = "Mesh";

/// What became of a test.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passed,
    Failed,
    Skipped,
}

#[derive(Default)]
pub(crate) struct Outcome {
    tests: BTreeMap<String, Fate>,
    /// Cases of tests.
    failed: Vec<String>,
    /// Which feature a test wants that is not claimed.
    wants: BTreeMap<String, String>,
}

impl Outcome {
    /// Reads a line, and says what is worth a look while the suite runs.
    pub(crate) fn hears(&mut self, line: &str) -> Option<String> {
        if let Some((_, told)) = line.split_once("Skipping ")
            && let Some((test, feature)) = told.split_once(": suite does not support ")
        {
            self.wants.insert(test.to_owned(), feature.trim().to_owned());
        }
        let (fate, named) = line.trim_start().strip_prefix("--- ")?.split_once(": ")?;
        let fate = match fate {
            "PASS" => Fate::Passed,
            "FAIL" => Fate::Failed,
            "SKIP" => Fate::Skipped,
            _ => return None,
        };
        let name = named.split_once(" (").map_or(named, |(name, _)| name).strip_prefix(ALL)?;
        if name.contains('/') {
            if fate == Fate::Failed {
                self.failed.push(name.to_owned());
            }
            return None;
        }
        self.tests.insert(name.to_owned(), fate);
        (fate != Fate::Skipped || name.starts_with(OURS)).then(|| line.trim().to_owned())
    }

    fn that(&self, wanted: Fate) -> impl Iterator<Item = &str> {
        self.tests.iter().filter(move |(_, fate)| **fate == wanted).map(|(name, _)| name.as_str())
    }

    pub(crate) fn passed(&self) -> impl Iterator<Item = &str> {
        self.that(Fate::Passed)
    }

    pub(crate) fn failed(&self) -> impl Iterator<Item = &str> {
        self.that(Fate::Failed)
    }

    fn left_out(&self) -> impl Iterator<Item = &str> {
        self.that(Fate::Skipped).filter(|name| name.starts_with(OURS))
    }

    /// The page beside the report.
    pub(crate) fn page(&self, suite: &str, took: Duration) -> String {
        let mut text = format!(
            "# Conformance with the Gateway API\n\nWritten by `cargo xtask conformance` on {}, of {}: the project's own suite \
             (`sigs.k8s.io/gateway-api/conformance` {suite}, unmodified) with its profiles for meshes, against weft in a cluster of \
             `cargo xtask cluster` with the definitions of the standard channel of that version; echo is Istio's. The suite took {} s. \
             [report.yaml](report.yaml) is its own report.\n\n| | tests |\n|---|---|\n",
            said("date", &["+%F"]),
            commit(),
            took.as_secs(),
        );
        let mut row = |what: &str, tests: Vec<&str>| {
            let _ = writeln!(text, "| {what}: {} | {} |", tests.len(), tests.join(", "));
        };
        row("passed", self.passed().collect());
        row("failed", self.failed().collect());
        row("left out", self.left_out().collect());
        for test in self.left_out() {
            let feature = self.wants.get(test).map_or("another feature", String::as_str);
            let _ = write!(text, "\n`{test}` wants `{feature}`, which weft does not claim.\n");
        }
        for case in &self.failed {
            let _ = write!(text, "\nFailed: `{case}`\n");
        }
        text
    }
}

/// Which sources are run; what is written here is none of them.
pub(crate) fn commit() -> String {
    let commit = said("git", &["rev-parse", "--short=12", "HEAD"]);
    let changes = ["status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)conformance"];
    let changed = !said("git", &changes).is_empty();
    if changed { format!("{commit} with changes") } else { commit }
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn results_are_read_as_go_tells_them() {
    let mut outcome = Outcome::default();
    let lines = "=== RUN   TestConformance
=== RUN   TestConformance/GatewayInfrastructure
    conformance.go:48: Skipping GatewayInfrastructure: suite does not support Gateway
    conformance.go:48: Skipping MeshHTTPRouteRewritePath: suite does not support MeshHTTPRouteRewritePath
        --- FAIL: TestConformance/MeshPorts/1_request_to_'echo'_should_go_to_v1 (30.01s)
    --- FAIL: TestConformance/MeshPorts (31.20s)
    --- SKIP: TestConformance/GatewayInfrastructure (0.00s)
    --- SKIP: TestConformance/MeshHTTPRouteRewritePath (0.00s)
    --- PASS: TestConformance/MeshBasic (0.40s)
--- FAIL: TestConformance (40.00s)";
    let told: Vec<_> = lines.lines().filter_map(|line| outcome.hears(line)).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(outcome.passed().collect::<Vec<_>>(), ["MeshBasic"]);
    assert_eq!(outcome.failed().collect::<Vec<_>>(), ["MeshPorts"]);
    assert_eq!(outcome.left_out().collect::<Vec<_>>(), ["MeshHTTPRouteRewritePath"]);
    let page = outcome.page("v1", Duration::from_secs(40));
    for part in [
        "| passed: 1 | MeshBasic |",
        "| failed: 1 | MeshPorts |",
        "`MeshHTTPRouteRewritePath` wants `MeshHTTPRouteRewritePath`, which",
        "Failed: `MeshPorts/1_request_to_'echo'_should_go_to_v1`",
    ] {
        assert!(page.contains(part), "{page}");
    }
}
