//! The official conformance suite of the Gateway API, unmodified, against the mesh in a cluster: what we claim is what it finds.
//!
//! `cargo xtask conformance` builds the suite and its echo program, and names their folder.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod beyond;
mod outcome;

use outcome::Outcome;
use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};
use weft_testkit::kubernetes::{Cluster, built, fed, or_skip, pack};

/// Of the profiles' extended features, and of those that tests of the profiles want besides.
const CLAIMED: &[&str] = &[
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteParentRefPort",
    "HTTPRouteResponseHeaderModification",
];
const PROFILES: &str = "MESH-HTTP,MESH-GRPC";
/// The suite waits for pods itself; what takes longer is broken.
const PATIENCE: &str = "30m";

/// What `cargo xtask conformance` passes on.
struct Given {
    /// What it has built.
    folder: PathBuf,
    /// One test of the suite alone.
    test: Option<String>,
    /// More flags of `weft install`.
    install: Vec<String>,
    /// The cluster is somebody's who sees to its images.
    other: bool,
}

impl Given {
    fn read() -> Self {
        let folder = env::var_os("WEFT_CONFORMANCE").map(PathBuf::from);
        let install = env::var("WEFT_INSTALL").unwrap_or_default();
        Self {
            folder: folder.unwrap_or_else(|| panic!("WEFT_CONFORMANCE is not set: run cargo xtask conformance")),
            test: env::var("WEFT_CONFORMANCE_TEST").ok(),
            install: install.split_whitespace().map(str::to_owned).collect(),
            other: env::var_os("WEFT_KUBECONFIG").is_some(),
        }
    }
}

#[test]
#[ignore = "minutes, and a suite that Go builds: run by cargo xtask conformance"]
fn the_official_suite_finds_what_is_claimed() {
    let given = Given::read();
    let Some(cluster) = or_skip(Cluster::shared()) else { return };
    if !given.other {
        load(cluster, &given.folder);
    }
    let mesh = Mesh::install(cluster, &given);
    let start = Instant::now();
    let report = scratch("conformance-report.yaml");
    let outcome = runs(cluster, &given, &report);
    let took = start.elapsed();
    let failed: Vec<_> = outcome.failed().collect();
    if given.test.is_none() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance");
        fs::copy(&report, folder.join("report.yaml"))
            .unwrap_or_else(|error| panic!("the suite wrote no report: {error}"));
        let suite = fs::read_to_string(given.folder.join("version")).unwrap();
        fs::write(folder.join("README.md"), outcome.page(&suite, took)).unwrap();
        for case in beyond::CASES.iter().filter(|case| CLAIMED.contains(&case.feature)) {
            case.holds(cluster, &given.folder);
        }
        say("redirects lead where they should, and statuses are set");
    }
    drop(mesh);
    assert!(outcome.passed().count() > 0, "no test of the suite has passed");
    assert!(failed.is_empty(), "failed: {failed:?}");
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "conformance: {line}");
}

/// The mesh's images, and the echo program under the names that the suite's manifests ask for.
fn load(cluster: &Cluster, folder: &Path) {
    let images = scratch("conformance-images");
    pack(&images).unwrap();
    cluster.load(&["controller", "proxy"].map(|name| images.join(format!("{name}.tar")))).unwrap();
    let manifests = fs::read_to_string(folder.join("mesh/manifests.yaml")).unwrap();
    let asked: BTreeSet<_> =
        manifests.lines().filter_map(|line| line.trim().strip_prefix("image:")).map(str::trim).collect();
    assert!(!asked.is_empty(), "the suite's manifests name no image");
    let names: Vec<_> = asked.into_iter().map(|name| (name, "/usr/local/bin/server")).collect();
    cluster.load_as(&folder.join("echo.tar"), &names).unwrap();
}

/// An installed mesh. It is taken away again where others may go on using the cluster.
struct Mesh<'c> {
    cluster: &'c Cluster,
    other: bool,
}

impl<'c> Mesh<'c> {
    fn install(cluster: &'c Cluster, given: &Given) -> Self {
        let definitions = given.folder.join("gateway-api/standard");
        // On somebody's cluster whoever else owns their fields keeps them.
        let forced = (!given.other).then_some("--force-conflicts");
        let mut apply = cluster.kubectl();
        apply.args(["apply", "--server-side"]).args(forced).arg("--filename").arg(&definitions);
        assert!(apply.status().unwrap().success());
        // A cluster that has a mesh is refused here, before there is anything to be taken away.
        let crds = weft(cluster, &["install", "--crds"]);
        let mesh = Self { cluster, other: given.other };
        cluster.apply(&crds).unwrap();
        let (mut install, mut check) = (vec!["install", "--set=disableIPv6=false"], vec!["check"]);
        if !given.other {
            install.extend(["--control-plane-version=test", "--image-pull-policy=Never"]);
            check.push("--expected-version=test");
        }
        install.extend(given.install.iter().map(String::as_str));
        cluster.apply(&weft(cluster, &install)).unwrap();
        weft(cluster, &check);
        say("the mesh is installed");
        mesh
    }
}

impl Drop for Mesh<'_> {
    fn drop(&mut self) {
        if self.other {
            let removed = weft(self.cluster, &["uninstall", "--force"]);
            fed(self.cluster.kubectl().args(["delete", "--filename=-"]), &removed).unwrap();
            self.cluster.ask("delete namespace --selector gateway-conformance --wait=false").unwrap();
        }
    }
}

/// What a command of ours prints; it succeeds.
fn weft(cluster: &Cluster, words: &[&str]) -> String {
    fed(Command::new(built("weft").unwrap()).args(words).arg("--kubeconfig").arg(&cluster.kubeconfig), "").unwrap()
}

/// Runs the suite, and keeps all that it tells.
fn runs(cluster: &Cluster, given: &Given, report: &Path) -> Outcome {
    let log = scratch("conformance.log");
    let _ = fs::remove_file(report); // of an earlier run
    let mut suite = Command::new(given.folder.join("conformance.test"));
    suite.current_dir(env!("CARGO_TARGET_TMPDIR")).env("KUBECONFIG", &cluster.kubeconfig);
    suite.args(["-test.v", "-test.run=^TestConformance$"]).arg(format!("-test.timeout={PATIENCE}"));
    suite.arg(format!("--conformance-profiles={PROFILES}"));
    suite.arg(format!("--supported-features={}", CLAIMED.join(",")));
    suite.arg("--namespace-annotations=linkerd.io/inject=enabled");
    suite.args(["--organization=weft", "--project=weft", "--url=not published yet", "--contact=not published yet"]);
    suite.arg(format!("--version={} ({})", env!("CARGO_PKG_VERSION"), outcome::commit()));
    suite.arg(format!("--report-output={}", report.display()));
    // Something is asked of its pods afterwards.
    suite.arg("--cleanup-base-resources=false");
    suite.args(given.test.iter().map(|test| format!("--run-test={test}")));
    let mut child = suite.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut outcome = Outcome::default();
    let mut kept = fs::File::create(&log).unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).split(b'\n') {
        let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
        writeln!(kept, "{line}").unwrap();
        if let Some(told) = outcome.hears(&line) {
            say(&told);
        }
    }
    let status = child.wait().unwrap();
    say(&format!("the suite ended: {status}; all that it told is in {}", log.display()));
    outcome
}
