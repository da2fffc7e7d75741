//! The life of a mesh in a cluster, as people run it: installed, meshed, used, upgraded under load, taken away.

use crate::{app, cluster, jobs, linkerd, typed::Terminal};
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

pub(crate) fn weft(cluster: &Cluster, words: &[&str]) -> Output {
    let mut command = Command::new(built("weft").unwrap());
    command.args(words).arg("--kubeconfig").arg(&cluster.kubeconfig).stdin(Stdio::null());
    command.output().unwrap()
}

/// What a command prints for kubectl.
pub(crate) fn printed(cluster: &Cluster, words: &[&str]) -> String {
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
pub(crate) fn ready(cluster: &Cluster, namespace: &str, deployments: &[(&str, &str)]) {
    for (name, replicas) in deployments {
        let words =
            format!("--namespace {namespace} get deployment {name} --output jsonpath={{.status.readyReplicas}}");
        if let Err(error) = cluster.until(&words, |ready| ready == *replicas) {
            panic!("{error}\n{}", told(cluster, namespace));
        }
    }
}

/// What a person would look at.
pub(crate) fn told(cluster: &Cluster, namespace: &str) -> String {
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

pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// Asks web for a page by its Service's name, again and again.
pub(crate) fn bot(namespace: &str) -> String {
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

pub(crate) const CONTROL_PLANE: [(&str, &str); 3] =
    [("linkerd-identity", "1"), ("linkerd-destination", "1"), ("linkerd-proxy-injector", "1")];

#[test]
fn a_mesh_is_installed_used_and_taken_away() {
    let Some(cluster) = cluster() else { return };
    let _alone = linkerd();
    let before = everything(cluster);
    let terminal = Terminal::open(cluster);

    // First things first.
    let told = refused(cluster, &["install"]);
    assert!(told.contains("weft install --crds | kubectl apply -f -"), "{told}");
    terminal.types(
        "kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.4.1/standard-install.yaml",
        "",
    );
    terminal.types("weft check --pre", "");
    terminal.types("weft install --crds | kubectl apply -f -", "");
    let mut install = vec!["install", "--control-plane-version=test", "--image-pull-policy=Never"];
    let output = weft(cluster, &install);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("--set disableIPv6=false"), "{told}");
    install.push("--set=disableIPv6=false");
    terminal.types("weft install | kubectl apply -f -", &install[1..].join(" "));
    ready(cluster, "linkerd", &CONTROL_PLANE);
    in_order(&terminal.types("weft check", "--expected-version=test"));
    what_would_not_hold_is_refused(cluster);
    let told = refused(cluster, &install);
    assert!(told.contains("installed in the namespace linkerd already"), "{told}");

    speaks_in_the_clear_without_a_mesh_only(cluster);

    in_order(&terminal.types("weft check --proxy", "--expected-version=test"));

    jobs::end(cluster);

    is_upgraded_under_load(cluster, &terminal);

    // Its pods are in use.
    let told = refused(cluster, &["uninstall"]);
    assert!(told.contains("pod meshed/web-"), "{told}");
    terminal.types("kubectl -n shop get deployments -o yaml | weft uninject - | kubectl apply -f -", "");
    cluster.ask("delete namespace shop meshed trial").unwrap();
    let remains = terminal.types("weft uninstall | kubectl delete -f -", "");
    assert_eq!(everything(cluster), before, "the cluster is as it was: {remains}");
    let told = refused(cluster, &["uninstall"]);
    assert!(told.contains("nothing of a mesh"), "{told}");
    terminal.is_complete();
}

/// A policy that does nothing would let everybody in. The API server comes to know the rule in a while.
fn what_would_not_hold_is_refused(cluster: &Cluster) {
    let network = "apiVersion: policy.linkerd.io/v1alpha1
kind: EgressNetwork
metadata: { name: early, namespace: default }
spec: { trafficPolicy: Deny }
";
    let start = Instant::now();
    while cluster.apply(network).is_ok() {
        cluster.ask("delete egressnetwork early").unwrap();
        assert!(start.elapsed() < PATIENCE, "it is taken");
        thread::sleep(Duration::from_millis(200));
    }
    let error = cluster.apply(network).unwrap_err().to_string();
    assert!(error.contains("does not carry out objects of th"), "{error}");
}

/// Waits until nothing of what Deployments were before is left.
fn rolled_out(cluster: &Cluster, namespace: &str, deployments: &[&str]) {
    for name in deployments {
        let words = format!("--namespace {namespace} rollout status deployment {name} --timeout 300s");
        if let Err(error) = cluster.ask(&words) {
            panic!("{error}\n{}", told(cluster, namespace));
        }
    }
}

/// What people say of requests: the bot of what it got, web of what it asked.
fn log(cluster: &Cluster, app: &str) -> Vec<String> {
    let words = format!("--namespace meshed logs --selector app={app} --container {app} --tail -1");
    cluster.ask(&words).unwrap().lines().map(str::to_owned).collect()
}

/// Lines of requests that failed, but for the votes that the app itself makes fail.
fn lost(cluster: &Cluster, app: &str) -> Vec<String> {
    let lines = log(cluster, app).into_iter().filter(|line| has_failed(line));
    lines.filter(|line| !line.contains("doughnut")).collect()
}

fn has_failed(line: &str) -> bool {
    line.contains("WARN") || line.contains("status=") && !line.contains("status=200")
}

/// The certificates of the mesh, as the API server shows them.
fn certificates(cluster: &Cluster) -> Vec<String> {
    ["linkerd-identity-issuer", "linkerd-proxy-injector-k8s-tls"]
        .map(|name| cluster.ask(&format!("--namespace linkerd get secret {name} --output jsonpath={{.data}}")).unwrap())
        .to_vec()
}

/// What a pod that is made now would be given.
fn would_be(cluster: &Cluster, path: &str) -> String {
    let words = "--namespace trial run trial --image=weft/demo:test --dry-run=server --output";
    cluster.ask(&format!("{words} jsonpath={path}")).unwrap_or_default()
}

const PARTS: [&str; 3] = ["linkerd-identity", "linkerd-destination", "linkerd-proxy-injector"];
/// The images are the same; everything that is told from the version is another.
const NEXT: &str = "--control-plane-version=next";
/// What is said once and kept from then on.
const CHANGED: &str = "--set controllerImageVersion=test,proxy.image.version=test,proxy.resources.cpu.request=11m";

fn is_upgraded_under_load(cluster: &Cluster, terminal: &Terminal<'_>) {
    let before = certificates(cluster);
    // The bot asks web, over HTTP/1, and web the two others.
    let apps = ["bot", "web"];
    let (rounds, lost_before) = (log(cluster, "bot").len(), apps.map(|app| lost(cluster, app)));
    cluster.ask("--namespace linkerd create configmap left-over").unwrap();
    cluster.ask("--namespace linkerd label configmap left-over linkerd.io/control-plane-ns=linkerd").unwrap();
    terminal.types("weft upgrade --crds | kubectl apply -f -", "");
    terminal.types("weft upgrade | kubectl apply -f -", &format!("{NEXT} {CHANGED}"));
    rolled_out(cluster, "linkerd", &PARTS);
    in_order(&terminal.types("weft check", "--expected-version=next"));
    // Enough that each of web's proxies has met the new control plane.
    eventually("rounds with the new control plane", || log(cluster, "bot").len() > rounds + 200);
    assert_eq!(apps.map(|app| lost(cluster, app)), lost_before, "requests that failed");
    for app in apps {
        assert!(log(cluster, app).iter().any(|line| has_failed(line)), "{app} tells what fails: the doughnut");
    }
    assert_eq!(certificates(cluster), before, "nothing is rotated by accident");
    let expected = "Server version: next\nProxy versions:\n\ttest (8 pods)\n";
    eventually("the versions", || printed(cluster, &["version", "--proxy"]).ends_with(expected));
    // What was given once, and what is given now.
    let pull = "--namespace linkerd get deployment linkerd-identity --output jsonpath={.spec.template.spec.containers[*].imagePullPolicy}";
    assert!(cluster.ask(pull).unwrap().split(' ').all(|policy| policy == "Never"));
    let request = "{.spec.initContainers[?(@.name=='linkerd-proxy')].resources.requests.cpu}";
    eventually("pods with the new values", || would_be(cluster, request) == "11m");

    let pruned = terminal.types("weft prune | kubectl delete -f -", "");
    assert_eq!(pruned.lines().count(), 1, "{pruned}");
    assert!(pruned.contains("\"left-over\""), "{pruned}");
    assert_eq!(printed(cluster, &["prune"]), "", "nothing is left");
    terminal.types("kubectl -n linkerd get configmaps,secrets -o yaml > linkerd.yaml", "");
    terminal.types("weft upgrade --from-manifests linkerd.yaml > upgraded.yaml", "");

    goes_on_below_another_root(cluster, terminal, &before);
}

fn goes_on_below_another_root(cluster: &Cluster, terminal: &Terminal<'_>, before: &[String]) {
    for line in terminal.documented("openssl ") {
        terminal.types(&line, "");
    }
    let issuer = "weft upgrade --identity-issuer-certificate-file issuer.crt --identity-issuer-key-file issuer.key | kubectl apply -f -";
    terminal.types(
        "kubectl -n linkerd get configmap linkerd-identity-trust-roots -o 'jsonpath={.data.ca-bundle\\.crt}' > old.crt",
        "",
    );
    terminal.types("cat old.crt root.crt > both.crt", "");
    let told = terminal.types_in_vain(issuer, NEXT);
    assert!(told.contains("do not belong together"), "{told}");
    terminal.types("weft upgrade --identity-trust-anchors-file both.crt | kubectl apply -f -", NEXT);
    let told = terminal.types_in_vain(issuer, NEXT);
    assert!(told.contains("* pod meshed/"), "{told}");
    rolled_out(cluster, "linkerd", &PARTS);
    // Now it would be meshed with the new anchors.
    let injects = "{.spec.initContainers[?(@.name=='linkerd-proxy')].env[?(@.name=='LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS')].value}";
    eventually("pods that believe both roots", || would_be(cluster, injects).matches("BEGIN CERTIFICATE").count() == 2);
    terminal.types("kubectl -n shop get deployments -o yaml | weft inject - | kubectl apply -f -", "");
    terminal.types("kubectl -n shop rollout restart deployment", "");
    cluster.ask("--namespace meshed rollout restart deployment").unwrap();
    for namespace in ["shop", "meshed"] {
        rolled_out(cluster, namespace, &["emoji", "voting", "web", "bot"]);
        // What is told to end still trusts the old root alone.
        let pods = format!("--namespace {namespace} get pods --output name");
        cluster.until(&pods, |names| names.lines().count() == 5).unwrap();
    }
    terminal.types(issuer, NEXT);
    assert_ne!(certificates(cluster)[0], before[0], "another issuer");
    assert_eq!(certificates(cluster)[1], before[1]);
    in_order(&terminal.types("weft check", "--expected-version=next"));
    in_order(&terminal.types("weft check --proxy", "--expected-version=next"));
    let client = "client_id=\"default.shop.serviceaccount.identity.linkerd.cluster.local\"";
    let wanted = ["direction=\"inbound\"", "tls=\"true\"", client];
    eventually("meshed requests in the shop", || {
        sum(&metrics(cluster, "shop", "web"), "request_total", &wanted) > 10.0
    });
    terminal.types("weft upgrade --identity-trust-anchors-file root.crt | kubectl apply -f -", NEXT);
}

/// No line of a check fails.
fn in_order(told: &str) {
    assert!(!told.contains('‼') && told.contains("Status check results are √"), "{told}");
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
    cluster.apply(&(app("shop", "") + &bot("shop"))).unwrap();
    // A Ready injector is not at once asked: the API server and the node's rules follow, and until then pods come without proxies.
    cluster.ask("create namespace trial").unwrap();
    cluster.ask("annotate namespace trial linkerd.io/inject=enabled").unwrap();
    let trial = "--namespace trial run trial --image=weft/demo:test --dry-run=server --output \
                 jsonpath={.spec.initContainers[*].name}";
    cluster.until(trial, |names| names.contains("linkerd-proxy")).unwrap();
    cluster.apply(&(app("meshed", "linkerd.io/inject: enabled") + &bot("meshed"))).unwrap();
    for namespace in ["shop", "meshed"] {
        ready(cluster, namespace, &[("emoji", "1"), ("voting", "1"), ("web", "2"), ("bot", "1")]);
    }
    for (namespace, proxies) in [("shop", 0), ("meshed", 5)] {
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
    eventually("the shop's requests on the wire", || capture.contains(&header("shop")));
    assert!(!capture.contains(&header("meshed")), "a meshed pod's request in the clear");
}
