//! What the life of the mesh took, beside Linkerd's edge release of August 2026 on such a cluster: printed, and never a reason to fail.
//!
//! `cargo xtask cluster report` measures what varies several times, with programs as they are shipped, and writes
//! `docs/cluster-report.md`. Those that tests build are not optimised.

use super::{
    in_order, pods,
    wire::{metrics, of_proxy, sum},
};
use crate::typed::Terminal;
use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};
use weft_testkit::kubernetes::Cluster;

/// Says that the report is written, …
const WRITE: &str = "WEFT_REPORT";
/// … and of which programs it is.
const PROFILE: &str = "WEFT_PROFILE";
/// Starts of a pod of each kind; of several the median counts.
const STARTS: usize = 5;
/// The control plane's parts, and the ports on which each shows its own metrics.
const PARTS: [(&str, u16); 3] = [("identity", 9990), ("destination", 9996), ("proxy-injector", 9995)];
const RESIDENT: &str = "process_resident_memory_bytes";

#[derive(Default)]
pub(crate) struct Report {
    figures: Vec<Figure>,
    stages: Vec<String>,
}

/// One figure, with its unit.
struct Figure {
    what: &'static str,
    linkerd: &'static str,
    reach: &'static str,
    weft: String,
}

impl Report {
    pub(super) fn came_up(&mut self, cluster: &Cluster) {
        self.figure("the cluster itself, dual-stack, from nothing to Ready", "–", "30 s", seconds(cluster.took));
    }

    pub(super) fn installed(&mut self, took: Duration) {
        self.figure("install to Ready", "17.5 s", "9 s", seconds(took));
    }

    /// What took place under load, or without.
    pub(super) fn line(&mut self, stage: &str) {
        let _ = writeln!(io::stderr(), "cluster: {stage}");
        self.stages.push(stage.to_owned());
    }

    fn figure(&mut self, what: &'static str, linkerd: &'static str, reach: &'static str, weft: String) {
        let _ = writeln!(io::stderr(), "cluster: {what}: {weft}");
        self.figures.push(Figure { what, linkerd, reach, weft });
    }

    /// What an installation takes that nobody loads.
    pub(super) fn at_rest(&mut self, cluster: &Cluster, terminal: &Terminal<'_>) {
        let start = Instant::now();
        in_order(&terminal.types("weft check --proxy", "--expected-version=test"));
        let checked = start.elapsed();

        let of_part = |part: &str, port: u16| {
            let selector = format!("linkerd.io/control-plane-component={part}");
            sum(&metrics(cluster, "linkerd", &selector, port), RESIDENT, &[])
        };
        let (own, proxies): (f64, f64) = (
            PARTS.iter().map(|(part, port)| of_part(part, *port)).sum(),
            PARTS.iter().map(|(part, _)| of_part(part, 4191)).sum(),
        );
        let weft =
            format!("{} in six processes, of them {} in three proxies", megabytes(own + proxies), megabytes(proxies));
        self.figure("the control plane's resident memory, at rest", "243 MB in six processes", "70 MB", weft);

        let apps = ["web", "emoji", "voting", "bot"];
        let all: f64 = apps.iter().map(|app| sum(&of_proxy(cluster, "meshed", app), RESIDENT, &[])).sum();
        self.figure("resident memory of an app's proxy", "21 MB", "12 MB", megabytes(all / apps.len() as f64));

        let starts = if env::var_os(WRITE).is_some() { STARTS } else { 1 };
        let [plain, shaped, meshed] =
            [Kind::Plain, Kind::Shaped, Kind::Meshed].map(|kind| median((0..starts).map(|_| kind.start(cluster))));
        let weft = format!(
            "{}, of which the kubelet takes {} for the same containers without a mesh",
            difference(meshed, plain),
            difference(shaped, plain)
        );
        self.figure("start of a meshed pod, minus that of another", "1.5 s", "0.8 s", weft);
        self.figure("`check --proxy`", "13 s", "3 s", seconds(checked));
    }

    /// On the terminal, which a test that passes does not write to otherwise.
    pub(super) fn print(&self) {
        let text = self.text();
        let _ = writeln!(io::stderr(), "\n{text}");
        if env::var_os(WRITE).is_some() {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cluster-report.md");
            fs::write(file, text).unwrap();
        }
    }

    fn text(&self) -> String {
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().unwrap();
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        let programs = match env::var(PROFILE).as_deref() {
            Ok("dist") => "as they are shipped",
            _ => "built for tests, not optimised",
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut text = format!(
            "# The life of a mesh in a cluster\n\nWritten by `cargo xtask cluster report` on {}, of {}. \
             One node in namespaces of a machine with {cores} cores, which the load and all of Kubernetes run on as well; the programs are \
             {programs}. Beside them Linkerd's edge release of August 2026, optimised, on such a cluster, and what is reached \
             for. Nothing here is a limit.\n\n| | Linkerd's edge | reached for | weft |\n|---|--:|--:|--:|\n",
            said("date", &["+%F"]),
            said("git", &["rev-parse", "--short=12", "HEAD"]),
        );
        for Figure { what, linkerd, reach, weft } in &self.figures {
            let _ = writeln!(text, "| {what} | {linkerd} | {reach} | {weft} |");
        }
        text += "\n## Under load\n\nAt least 200 requests a second each of HTTP/1 and HTTP/2, and an open stream of gRPC, between meshed pods; \
                 each stage lasts until all pods that it replaces have ended, and until the load has kept its rate.\n\n";
        for stage in &self.stages {
            let _ = writeln!(text, "- {stage}");
        }
        text
    }
}

/// A pod whose start is measured.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    /// With as many containers as a meshed one, of the same kinds, that do next to nothing.
    Shaped,
    Meshed,
}

impl Kind {
    /// From when it is asked for until it is Ready.
    fn start(self, cluster: &Cluster) -> Duration {
        let (inject, more) = match self {
            Self::Plain => ("disabled", ""),
            Self::Shaped => (
                "disabled",
                "  initContainers:
  - { name: init, image: 'weft/proxy:test', imagePullPolicy: Never, command: [/bin/sleep, '0'] }
  - name: sidecar
    image: weft/demo:test
    imagePullPolicy: Never
    args: [emoji, '--port=4191']
    restartPolicy: Always
    startupProbe: { grpc: { port: 4191 }, periodSeconds: 1 }
",
            ),
            Self::Meshed => ("enabled", ""),
        };
        let pod = format!(
            "apiVersion: v1
kind: Pod
metadata: {{ name: started, namespace: trial, annotations: {{ linkerd.io/inject: {inject} }} }}
spec:
  terminationGracePeriodSeconds: 1
  enableServiceLinks: false
{more}  containers:
  - {{ name: main, image: 'weft/demo:test', imagePullPolicy: Never, args: [emoji] }}
"
        );
        let start = Instant::now();
        cluster.apply(&pod).unwrap();
        cluster.ask("--namespace trial wait --for=condition=Ready pod/started --timeout=300s").unwrap();
        let took = start.elapsed();
        let meshed = pods(cluster, "trial", "").iter().any(|pod| pod.to_string().contains("linkerd-proxy"));
        assert_eq!(meshed, matches!(self, Self::Meshed));
        cluster.ask("--namespace trial delete pod started").unwrap();
        took
    }
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort();
    times[times.len() / 2]
}

fn difference(long: Duration, short: Duration) -> String {
    format!("{:.1} s", long.as_secs_f64() - short.as_secs_f64())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn megabytes(bytes: f64) -> String {
    format!("{:.0} MB", bytes / 1e6)
}
