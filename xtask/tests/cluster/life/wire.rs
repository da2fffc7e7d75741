//! What passes between pods: every packet, and what the proxies count.

use super::{eventually, ready};
use crate::app;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};
use weft_testkit::kubernetes::Cluster;

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

/// Whether the file argv[1] holds the bytes argv[2].
const FIND: &str = "import sys; print(bytes.fromhex(sys.argv[2]) in open(sys.argv[1], 'rb').read())";

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

    /// The bytes are in hexadecimal digits.
    fn contains(&self, bytes: &str) -> bool {
        let mut python = Command::new("python3");
        let found = python.args(["-c", FIND]).arg(&self.file).arg(bytes).output().unwrap();
        match String::from_utf8_lossy(&found.stdout).trim() {
            "True" => true,
            "False" => false,
            other => panic!("{other}: {}", String::from_utf8_lossy(&found.stderr)),
        }
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

/// What the pod of an app shows on a port for metrics.
pub(super) fn metrics(cluster: &Cluster, namespace: &str, selector: &str, port: u16) -> String {
    let words =
        format!("--namespace {namespace} get pods --selector {selector} --output jsonpath={{.items[0].status.podIP}}");
    let address = cluster.ask(&words).unwrap();
    let url = format!("http://{address}:{port}/metrics");
    let patient = ["--max-time", "60", "--retry", "60", "--retry-delay", "1", "--retry-all-errors"];
    let mut ask = vec!["curl", "--silent", "--show-error", "--fail", &url];
    ask.extend(patient);
    let output = cluster.on_node(&ask).output().unwrap();
    assert!(output.status.success(), "{url}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Those of the proxy of an app's pod.
pub(super) fn of_proxy(cluster: &Cluster, namespace: &str, app: &str) -> String {
    metrics(cluster, namespace, &format!("app={app}"), 4191)
}

/// The sum of the series of a family that have all these labels.
pub(super) fn sum(metrics: &str, family: &str, labels: &[&str]) -> f64 {
    let of_family = |line: &&str| line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let wanted = metrics.lines().filter(of_family).filter(|line| labels.iter().all(|label| line.contains(label)));
    wanted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// The label of a client that has proven to be this account of its namespace.
pub(super) fn proven(namespace: &str, account: &str) -> String {
    format!("client_id=\"{account}.{namespace}.serviceaccount.identity.linkerd.cluster.local\"")
}

/// Makes the app anew in a namespace of its own, with a proxy in each pod, once pods are given one.
fn app_is_meshed(cluster: &Cluster) {
    pods_are_given_proxies(cluster, "trial");
    cluster.apply(&(app("meshed", "linkerd.io/inject: enabled") + &bot("meshed"))).unwrap();
    has_proxies(cluster, "meshed", 5);
}

/// Waits until they are, in a new namespace that asks for them.
pub(crate) fn pods_are_given_proxies(cluster: &Cluster, namespace: &str) {
    // A Ready injector is not at once asked: the API server and the node's rules follow, and until then pods come without proxies.
    cluster.ask(&format!("create namespace {namespace}")).unwrap();
    cluster.ask(&format!("annotate namespace {namespace} linkerd.io/inject=enabled")).unwrap();
    let trial = format!(
        "--namespace {namespace} run trial --image=weft/demo:test --dry-run=server --output \
         jsonpath={{.spec.initContainers[*].name}}"
    );
    cluster.until(&trial, |names| names.contains("linkerd-proxy")).unwrap();
}

/// Waits for the app, and counts its proxies.
fn has_proxies(cluster: &Cluster, namespace: &str, expected: usize) {
    ready(cluster, namespace, &[("emoji", "1"), ("voting", "1"), ("web", "2"), ("bot", "1")]);
    let words = format!(
        "--namespace {namespace} get pods --output jsonpath={{.items[*].spec['initContainers','containers'][*].name}}"
    );
    let names = cluster.ask(&words).unwrap();
    assert_eq!(names.split(' ').filter(|name| *name == "linkerd-proxy").count(), expected, "{names}");
}

/// What passes at each hop of the app, and in which bytes, of which whatever else passes has none: kubelets ask for pages and of gRPC
/// for health alone.
const READABLE: [(&str, &str); 5] = [
    // GET /api/vote?choice=
    ("a request of HTTP/1", "474554202f6170692f766f74653f63686f6963653d"),
    // "shortcode":"
    ("its answer, of JSON", "2273686f7274636f6465223a22"),
    // /emojivoto.v1.EmojiService/ and /emojivoto.v1.VotingService/Vote, as HPACK's code of Huffman has them
    ("a request of gRPC to emoji", "60b49fa1bb9d275fb857c149fa1b716cee6215"),
    ("a request of gRPC to voting", "60b49fa1bb9d275fb857e2749aa9b716cee62158e274"),
    // A jack-o'-lantern, and the number of the field behind it
    ("an answer of gRPC", "f09f8e8312"),
];

pub(super) fn speaks_in_the_clear_without_a_mesh_only(cluster: &Cluster) {
    let of_mesh = Capture::start(cluster, "mesh");
    app_is_meshed(cluster);
    // Each hop by its two ends: who called, and that it was proven.
    let client = proven("meshed", "default");
    for app in ["web", "emoji", "voting"] {
        let wanted = ["direction=\"inbound\"", "tls=\"true\"", &client];
        eventually(&format!("meshed requests at {app}:\n{}", of_proxy(cluster, "meshed", app)), || {
            sum(&of_proxy(cluster, "meshed", app), "request_total", &wanted) > 10.0
        });
    }
    let outbound = ["direction=\"outbound\"", "tls=\"true\""];
    eventually("meshed requests of the bot", || {
        sum(&of_proxy(cluster, "meshed", "bot"), "request_total", &outbound) > 10.0
    });
    let in_the_clear = ["direction=\"outbound\"", "tls=\"no_identity\""];
    assert_eq!(sum(&of_proxy(cluster, "meshed", "bot"), "request_total", &in_the_clear), 0.0);
    for (what, bytes) in READABLE {
        assert!(!of_mesh.contains(bytes), "{what} of a meshed pod in the clear");
    }
    drop(of_mesh);
    // All of it is seen where there is no mesh, with the names that meshed pods' requests have not.
    let of_shop = Capture::start(cluster, "shop");
    cluster.apply(&(app("shop", "") + &bot("shop"))).unwrap();
    has_proxies(cluster, "shop", 0);
    for (what, bytes) in READABLE {
        eventually(&format!("{what} of the shop on the wire"), || of_shop.contains(bytes));
    }
    let header = |namespace: &str| -> String {
        format!("host: {}\r\n", host(namespace)).bytes().map(|byte| format!("{byte:02x}")).collect()
    };
    eventually("the shop's requests on the wire", || of_shop.contains(&header("shop")));
    assert!(!of_shop.contains(&header("meshed")), "a meshed pod's request in the clear");
}
