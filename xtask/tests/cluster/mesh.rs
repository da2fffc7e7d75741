//! The life of a mesh in a cluster, as people run it: installed, meshed, used, taken away.

use crate::{app, cluster, linkerd};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};
use weft_testkit::kubernetes::{Cluster, built};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(300);

fn weft(cluster: &Cluster, words: &[&str]) -> Output {
    let mut command = Command::new(built("weft").unwrap());
    command.args(words).arg("--kubeconfig").arg(&cluster.kubeconfig).stdin(Stdio::null());
    command.output().unwrap()
}

/// What a command prints for kubectl.
fn printed(cluster: &Cluster, words: &[&str]) -> String {
    let output = weft(cluster, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command says when it prints nothing that could be applied.
fn refused(cluster: &Cluster, words: &[&str]) -> String {
    let output = weft(cluster, words);
    assert!(!output.status.success() && output.stdout.is_empty(), "{words:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Waits until all replicas of a Deployment are ready.
fn ready(cluster: &Cluster, namespace: &str, deployments: &[(&str, &str)]) {
    for (name, replicas) in deployments {
        let words =
            format!("--namespace {namespace} get deployment {name} --output jsonpath={{.status.readyReplicas}}");
        if let Err(error) = cluster.until(&words, |ready| ready == *replicas) {
            panic!("{error}\n{}", told(cluster, namespace));
        }
    }
}

/// What a person would look at.
fn told(cluster: &Cluster, namespace: &str) -> String {
    let mut text = String::new();
    for words in ["get pods --output wide", "describe pods", "get events --sort-by=.lastTimestamp"] {
        text += &cluster.ask(&format!("--namespace {namespace} {words}")).unwrap_or_else(|error| error.to_string());
    }
    let pods = cluster.ask(&format!("--namespace {namespace} get pods --output name")).unwrap_or_default();
    for pod in pods.lines() {
        let words = format!("--namespace {namespace} logs {pod} --all-containers --prefix --tail 40");
        text += &cluster.ask(&words).unwrap_or_else(|error| error.to_string());
    }
    text
}

/// Every packet of the node's network, which all pods' traffic passes, until it is dropped.
struct Capture {
    file: PathBuf,
    sniffer: Child,
}

/// Writes what passes to argv[1], until argv[1].end is there or whoever asked is gone.
const SNIFF: &str = r#"
import os, socket, sys
sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sniffer.settimeout(0.2)
asked = os.getppid()
with open(sys.argv[1], "wb", buffering=0) as out:
    while os.getppid() == asked and not os.path.exists(sys.argv[1] + ".end"):
        try:
            packet, (link, *_) = sniffer.recvfrom(65536)
            # There etcd is told, in the clear, what manifests say.
            if link != "lo":
                out.write(packet)
        except TimeoutError:
            pass
"#;

impl Capture {
    fn start(cluster: &Cluster, name: &str) -> Self {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.packets"));
        for left in [file.clone(), end(&file)] {
            let _ = fs::remove_file(left); // of an earlier run
        }
        let path = file.to_str().unwrap();
        let sniffer = cluster.on_node(&["python3", "-c", SNIFF, path]).spawn().unwrap();
        eventually("the capture to begin", || file.exists());
        Self { file, sniffer }
    }

    fn contains(&self, word: &str) -> bool {
        String::from_utf8_lossy(&fs::read(&self.file).unwrap()).contains(word)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = fs::write(end(&self.file), "");
        let _ = self.sniffer.wait();
    }
}

fn end(file: &Path) -> PathBuf {
    file.with_extension("packets.end")
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// Asks web for a page by its Service's name, again and again.
fn bot(namespace: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{ name: bot, namespace: {namespace} }}
spec:
  selector: {{ matchLabels: {{ app: bot }} }}
  template:
    metadata: {{ labels: {{ app: bot }} }}
    spec:
      terminationGracePeriodSeconds: 1
      enableServiceLinks: false
      containers:
      - name: bot
        image: weft/demo:test
        imagePullPolicy: Never
        args: [bot, '--web={}', '--rate=10']
",
        host(namespace)
    )
}

/// What its requests name; queries for names are written otherwise.
fn host(namespace: &str) -> String {
    format!("web.{namespace}:80")
}

/// The metrics of one pod's proxy.
fn metrics(cluster: &Cluster, namespace: &str, app: &str) -> String {
    let words =
        format!("--namespace {namespace} get pods --selector app={app} --output jsonpath={{.items[0].status.podIP}}");
    let address = cluster.ask(&words).unwrap();
    let url = format!("http://{address}:4191/metrics");
    let patient = ["--max-time", "60", "--retry", "60", "--retry-delay", "1", "--retry-all-errors"];
    let mut ask = vec!["curl", "--silent", "--show-error", "--fail", &url];
    ask.extend(patient);
    let output = cluster.on_node(&ask).output().unwrap();
    assert!(output.status.success(), "{url}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The sum of the series of a family that have all these labels.
fn sum(metrics: &str, family: &str, labels: &[&str]) -> f64 {
    let series = metrics.lines().filter(|line| line.starts_with(&format!("{family}{{")));
    let wanted = series.filter(|line| labels.iter().all(|label| line.contains(label)));
    wanted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

const CONTROL_PLANE: [(&str, &str); 3] =
    [("linkerd-identity", "1"), ("linkerd-destination", "1"), ("linkerd-proxy-injector", "1")];

#[test]
fn a_mesh_is_installed_used_and_taken_away() {
    let Some(cluster) = cluster() else { return };
    let _alone = linkerd();
    let before = everything(cluster);

    // First things first.
    let told = refused(cluster, &["install"]);
    assert!(told.contains("weft install --crds | kubectl apply -f -"), "{told}");
    let gateway_api = cluster.gateway_api("standard");
    cluster.ask(&format!("apply --server-side --filename {}", gateway_api.display())).unwrap();
    cluster.apply(&printed(cluster, &["install", "--crds"])).unwrap();
    let mut install = vec!["install", "--control-plane-version=test", "--image-pull-policy=Never"];
    let output = weft(cluster, &install);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("--set disableIPv6=false"), "{told}");
    install.push("--set=disableIPv6=false");
    cluster.apply(&printed(cluster, &install)).unwrap();
    ready(cluster, "linkerd", &CONTROL_PLANE);
    in_order(cluster, &["check", "--expected-version=test"]);
    let told = refused(cluster, &install);
    assert!(told.contains("installed in the namespace linkerd already"), "{told}");

    speaks_in_the_clear_without_a_mesh_only(cluster);

    in_order(cluster, &["check", "--proxy", "--expected-version=test"]);

    // Its pods are in use.
    let told = refused(cluster, &["uninstall"]);
    assert!(told.contains("pod meshed/web-"), "{told}");
    cluster.ask("delete namespace plain meshed trial").unwrap();
    let remains = printed(cluster, &["uninstall"]);
    let mut delete = cluster.kubectl();
    delete.args(["delete", "--filename=-"]).stdin(Stdio::piped());
    let mut delete = delete.spawn().unwrap();
    std::io::Write::write_all(&mut delete.stdin.take().unwrap(), remains.as_bytes()).unwrap();
    assert!(delete.wait().unwrap().success(), "{remains}");
    assert_eq!(everything(cluster), before, "the cluster is as it was");
    let told = refused(cluster, &["uninstall"]);
    assert!(told.contains("nothing of a mesh"), "{told}");
}

/// No line fails.
fn in_order(cluster: &Cluster, words: &[&str]) {
    let output = weft(cluster, words);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !told.contains('‼') && told.contains("Status check results are √"), "{told}");
}

/// Whatever an installation makes outside namespaces.
fn everything(cluster: &Cluster) -> Vec<String> {
    let kinds = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations,crds";
    let names = cluster.ask(&format!("get {kinds} --output name")).unwrap();
    let namespaces = cluster.ask("get namespaces --selector linkerd.io/control-plane-ns --output name").unwrap();
    // The Gateway API's come and go with another test.
    names
        .lines()
        .chain(namespaces.lines())
        .filter(|name| !name.contains("gateway.networking.k8s.io"))
        .map(str::to_owned)
        .collect()
}

fn speaks_in_the_clear_without_a_mesh_only(cluster: &Cluster) {
    let capture = Capture::start(cluster, "mesh");
    cluster.apply(&(app("plain", "") + &bot("plain"))).unwrap();
    // A Ready injector is not at once asked: the API server and the node's rules follow, and until then pods come without proxies.
    cluster.ask("create namespace trial").unwrap();
    cluster.ask("annotate namespace trial linkerd.io/inject=enabled").unwrap();
    let trial = "--namespace trial run trial --image=weft/demo:test --dry-run=server --output \
                 jsonpath={.spec.initContainers[*].name}";
    cluster.until(trial, |names| names.contains("linkerd-proxy")).unwrap();
    cluster.apply(&(app("meshed", "linkerd.io/inject: enabled") + &bot("meshed"))).unwrap();
    for namespace in ["plain", "meshed"] {
        ready(cluster, namespace, &[("emoji", "1"), ("voting", "1"), ("web", "2"), ("bot", "1")]);
    }
    for (namespace, proxies) in [("plain", 0), ("meshed", 5)] {
        let words = format!(
            "--namespace {namespace} get pods --output jsonpath={{.items[*].spec['initContainers','containers'][*].name}}"
        );
        let names = cluster.ask(&words).unwrap();
        assert_eq!(names.split(' ').filter(|name| *name == "linkerd-proxy").count(), proxies, "{names}");
    }
    // Each hop by its two ends: who called, and that it was proven.
    let identity = |account: &str| format!("{account}.meshed.serviceaccount.identity.linkerd.cluster.local");
    let client = format!("client_id=\"{}\"", identity("default"));
    for (app, client) in [("web", &client), ("emoji", &client), ("voting", &client)] {
        let wanted = ["direction=\"inbound\"", "tls=\"true\"", client];
        eventually(&format!("meshed requests at {app}:\n{}", metrics(cluster, "meshed", app)), || {
            sum(&metrics(cluster, "meshed", app), "request_total", &wanted) > 10.0
        });
    }
    let outbound = ["direction=\"outbound\"", "tls=\"true\""];
    eventually("meshed requests of the bot", || {
        sum(&metrics(cluster, "meshed", "bot"), "request_total", &outbound) > 10.0
    });
    let in_the_clear = ["direction=\"outbound\"", "tls=\"no_identity\""];
    assert_eq!(sum(&metrics(cluster, "meshed", "bot"), "request_total", &in_the_clear), 0.0);
    // What is seen of the one is not seen of the other.
    let header = |namespace: &str| format!("host: {}\r\n", host(namespace));
    eventually("the plain app's requests on the wire", || capture.contains(&header("plain")));
    assert!(!capture.contains(&header("meshed")), "a meshed pod's request in the clear");
}
