//! The load under which everything that changes is changed: a pod that asks, and counts what it gets.
//!
//! Each stage lasts as long as what it does, and then until the load has kept its rate over the whole of it: on a busy machine
//! it makes up for what it was late with. No request may have failed, whoever was replaced meanwhile.

use super::{PATIENCE, pods, report::Report, told};
use serde::Deserialize;
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};
use weft_testkit::kubernetes::Cluster;

/// Requests per second that each stage has, of HTTP/1 and of HTTP/2 each, …
const WANTED: f64 = 200.0;
/// … and that the load is asked for.
const RATE: u32 = 210;

/// What one pod has counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
struct Sum {
    asked: u64,
    answered: u64,
    /// Of gRPC, what its library knew to have reached nobody.
    again: u64,
    failed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
struct Sums {
    http1: Sum,
    grpc: Sum,
    stream: Sum,
}

impl Sum {
    fn plus(self, other: Self) -> Self {
        Self {
            asked: self.asked + other.asked,
            answered: self.answered + other.answered,
            again: self.again + other.again,
            failed: self.failed + other.failed,
        }
    }

    fn minus(self, before: Self) -> Self {
        Self {
            asked: self.asked - before.asked,
            answered: self.answered - before.answered,
            again: self.again - before.again,
            failed: self.failed - before.failed,
        }
    }
}

impl Sums {
    fn with(self, other: Self, of: fn(Sum, Sum) -> Sum) -> Self {
        let Self { http1, grpc, stream } = self;
        Self { http1: of(http1, other.http1), grpc: of(grpc, other.grpc), stream: of(stream, other.stream) }
    }

    fn failed(&self) -> u64 {
        self.http1.failed + self.grpc.failed + self.stream.failed
    }

    fn again(&self) -> u64 {
        self.http1.again + self.grpc.again + self.stream.again
    }
}

/// The pods that ask, one at a time, and what each has said.
pub(crate) struct Load<'c> {
    cluster: &'c Cluster,
    namespace: &'static str,
    pods: Vec<Pod>,
}

/// One of them, whose log is followed to its end: a pod that is gone has none.
struct Pod {
    name: String,
    is_meshed: bool,
    log: PathBuf,
    follower: Child,
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.follower.kill();
        let _ = self.follower.wait();
    }
}

/// The Deployment of the pod that asks, beside the app of its namespace.
pub(crate) fn manifest(namespace: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{ name: load, namespace: {namespace} }}
spec:
  selector: {{ matchLabels: {{ app: load }} }}
  template:
    metadata: {{ labels: {{ app: load }} }}
    spec:
      enableServiceLinks: false
      containers:
      - name: load
        image: weft/demo:test
        imagePullPolicy: Never
        args: [load, '--web=web:80', '--emoji=emoji:80', '--rate={RATE}']
"
    )
}

impl<'c> Load<'c> {
    pub(super) fn start(cluster: &'c Cluster) -> Self {
        cluster.apply(&manifest("meshed")).unwrap();
        Self::follow(cluster, "meshed")
    }

    /// Listens to the load that is in a namespace already.
    pub(crate) fn follow(cluster: &'c Cluster, namespace: &'static str) -> Self {
        let mut load = Self { cluster, namespace, pods: vec![] };
        load.follow_the_newest();
        load
    }

    /// Finds the pod that asks now and listens to it.
    pub(crate) fn follow_the_newest(&mut self) {
        let start = Instant::now();
        let (name, is_meshed) = loop {
            let found = pods(self.cluster, self.namespace, "app=load").into_iter().find_map(|pod| {
                let runs = pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null();
                let name = pod["metadata"]["name"].as_str()?.to_owned();
                let is_new = !self.pods.iter().any(|known| known.name == name);
                (runs && is_new).then(|| (name, pod.to_string().contains("\"linkerd-proxy\"")))
            });
            match found {
                Some(found) => break found,
                None => assert!(start.elapsed() < PATIENCE, "no pod loads: {}", told(self.cluster, self.namespace)),
            }
            thread::sleep(Duration::from_millis(200));
        };
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.log"));
        let mut follow = self.cluster.kubectl();
        follow.args(["--namespace", self.namespace, "logs", "--follow", "--container", "load", &name]);
        let follower = follow.stdout(File::create(&log).unwrap()).stderr(Stdio::null()).spawn().unwrap();
        self.pods.push(Pod { name, is_meshed, log, follower });
        self.until("the load's first answers", |pods| pods.last().is_some_and(|sums| sums.stream.answered > 0));
    }

    fn counted(&self) -> Vec<Sums> {
        self.pods.iter().map(|pod| pod.counted()).collect()
    }

    fn all(&self) -> Sums {
        self.counted().into_iter().fold(Sums::default(), |all, of_pod| all.with(of_pod, Sum::plus))
    }

    fn until(&self, what: &str, holds: impl Fn(&[Sums]) -> bool) {
        let start = Instant::now();
        while !holds(&self.counted()) {
            if start.elapsed() > PATIENCE {
                panic!("waited too long for {what}: {}\n{}", self.said(), told(self.cluster, self.namespace));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Does something that replaces others; none of the requests meanwhile may fail.
    pub(crate) fn through(&mut self, stage: &str, report: &mut Report, work: impl FnOnce()) {
        self.stage(stage, report, false, work);
    }

    /// The same of something that replaces the load's pod, too.
    pub(super) fn through_its_own_restart(&mut self, stage: &str, report: &mut Report, work: impl FnOnce()) {
        self.stage(stage, report, true, work);
    }

    fn stage(&mut self, stage: &str, report: &mut Report, is_replaced: bool, work: impl FnOnce()) {
        let (before, start) = (self.all(), Instant::now());
        let was_meshed = self.is_meshed();
        work();
        if is_replaced {
            self.follow_the_newest();
            let replaced = &self.pods[self.pods.len() - 2];
            let start = Instant::now();
            while !replaced.has_left() {
                assert!(start.elapsed() < PATIENCE, "{} did not end in order: {}", replaced.name, replaced.text());
                thread::sleep(Duration::from_millis(100));
            }
        }
        let took = start.elapsed();
        let wanted = WANTED * took.as_secs_f64();
        let since = |pods: &[Sums]| {
            let all = pods.iter().fold(Sums::default(), |all, of_pod| all.with(*of_pod, Sum::plus));
            all.with(before, Sum::minus)
        };
        self.until("the load's rate", |pods| {
            let Sums { http1, grpc, stream } = since(pods);
            http1.asked as f64 >= wanted && grpc.asked as f64 >= wanted && stream.answered > 0
        });
        let of_stage = since(&self.counted());
        let Sums { http1, grpc, stream } = of_stage;
        let again = match of_stage.again() {
            0 => String::new(),
            again => format!(", {again} asked again as they had reached nobody"),
        };
        report.line(&format!(
            "{stage}: {:.1} s, {} requests of HTTP/1, {} of HTTP/2, {} messages of a stream, {} failed{again}",
            took.as_secs_f64(),
            http1.answered,
            grpc.answered,
            stream.answered,
            of_stage.failed(),
        ));
        assert_eq!(
            of_stage.failed(),
            0,
            "{stage}: requests failed: {}\n{}",
            self.said(),
            told(self.cluster, self.namespace)
        );
        // Who has a proxy leaves that to it.
        let leaves_it = was_meshed && self.is_meshed();
        assert!(!leaves_it || of_stage.again() == 0, "{stage}: asked again: {}", self.said());
    }

    fn is_meshed(&self) -> bool {
        self.pods.last().is_some_and(|pod| pod.is_meshed)
    }

    /// Lines that are not sums.
    fn said(&self) -> String {
        let lines = self.pods.iter().map(|pod| {
            let text = pod.text();
            let lines: Vec<&str> = text.lines().filter(|line| !line.contains(SUMS)).collect();
            format!("{}: {:?}\n{}\n", pod.name, pod.counted(), lines.join("\n"))
        });
        lines.collect()
    }
}

const SUMS: &str = "sums=";

impl Pod {
    fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// By the last line that is whole.
    fn counted(&self) -> Sums {
        let text = self.text();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let last = whole.lines().rev().find_map(|line| Some(line.split_once(SUMS)?.1.to_owned()));
        last.map(|sums| json(&sums)).unwrap_or_default()
    }

    fn has_left(&self) -> bool {
        self.text().lines().any(|line| line.ends_with("left"))
    }
}

/// As the log has it: a text in quotes.
fn json(logged: &str) -> Sums {
    let text: String = serde_json::from_str(logged).unwrap_or_else(|_| logged.to_owned());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{logged}: {error}"))
}
