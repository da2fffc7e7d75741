//! Linkerd's two demos, by manifests of their shape that know nothing of us: applied as they are, meshed, and talking.

use super::{
    eventually, rolled_out, told, weft_of,
    wire::{of_proxy, proven, sum},
};
use crate::typed::Terminal;
use std::path::Path;
use weft_testkit::kubernetes::Cluster;

/// Name, manifests, workloads.
const DEMOS: [(&str, &str, &[&str]); 2] = [
    ("emojivoto", include_str!("emojivoto.yaml"), &["emoji", "voting", "web", "vote-bot"]),
    ("booksapp", include_str!("booksapp.yaml"), &["authors", "books", "webapp", "traffic"]),
];
/// What the manifests call our stand-ins, and what each of these images runs.
const IMAGES: [(&str, &str); 5] = [
    ("weft/emojivoto-emoji-svc:v11", "/weft-demo emoji"),
    ("weft/emojivoto-voting-svc:v11", "/weft-demo voting"),
    ("weft/emojivoto-web:v11", "/weft-demo web"),
    ("weft/booksapp:v0", "/weft-demo booksapp"),
    ("weft/booksapp-traffic:v0", "/weft-demo booksapp-traffic"),
];

/// As their tutorials do, but that nothing is started without a mesh first: the one from a folder, the other from a pipe.
pub(super) fn begin(cluster: &Cluster, terminal: &Terminal<'_>) {
    let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images/demo.tar");
    cluster.load_as(&archive, &IMAGES).unwrap();
    cluster.ask("create namespace booksapp").unwrap();
    let [(_, emojivoto, _), (name, booksapp, _)] = DEMOS;
    terminal.has("app/emojivoto.yaml", emojivoto);
    let applied = terminal.types("weft inject app/ | kubectl apply -f -", "");
    assert!(applied.contains("deployment.apps/vote-bot created"), "{applied}");
    cluster.apply_in(name, &weft_of(&["inject", "-"], booksapp)).unwrap();
}

pub(super) fn talk(cluster: &Cluster) {
    for (name, _, workloads) in DEMOS {
        rolled_out(cluster, name, workloads);
    }
    // Server, client's account and namespace.
    for (namespace, app, account) in [
        ("emojivoto", "web-svc", "default"),
        ("emojivoto", "emoji-svc", "web"),
        ("emojivoto", "voting-svc", "web"),
        ("booksapp", "webapp", "default"),
        ("booksapp", "authors", "default"),
        ("booksapp", "books", "default"),
    ] {
        let client = proven(namespace, account);
        let meshed = |family: &str, more: &str| {
            let wanted = ["direction=\"inbound\"", "tls=\"true\"", &client, more];
            sum(&of_proxy(cluster, namespace, app), family, &wanted)
        };
        eventually(&format!("meshed requests at {namespace}/{app}: {}", told(cluster, namespace)), || {
            meshed("request_total", "") > 0.0
        });
        if app == "authors" {
            eventually("the failure that booksapp has built in", || {
                meshed("response_total", "status_code=\"503\"") > 0.0
            });
        }
    }
    let said = |namespace: &str, workload: &str, word: &str| {
        eventually(&format!("{word} of {namespace}/{workload}"), || {
            let logs = cluster.ask(&format!("--namespace {namespace} logs deployment/{workload}"));
            logs.is_ok_and(|text| text.contains(word))
        });
    };
    said("emojivoto", "vote-bot", "status=200");
    said("booksapp", "traffic", "round");
    cluster.ask("delete namespace emojivoto booksapp --wait=false").unwrap();
}
