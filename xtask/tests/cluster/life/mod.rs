//! The life of a mesh in a cluster, as people run it: installed, meshed, used, changed under load, taken away.
//!
//! ```text
//! install ─► check ─► wire: nothing in the clear ─► report: at rest ─► constraint, demos, annotated, ends, security, missed
//!                     load ─► restart of the app, of the control plane ─► upgrade ─► another root, proxies, issuer
//! uninject ─► uninstall ─► a clean cluster, a working app
//! ```
//! Commands are those of the pages in `docs/`. What only one installation can show is shown here, so that there is one.

mod annotated;
mod constraint;
mod demos;
mod ends;
mod helm;
mod load;
mod missed;
mod renewal;
mod report;
mod security;
mod upgrade;
mod wire;

pub(crate) use load::{Load, manifest as load};
pub(crate) use report::Report;
pub(crate) use wire::{bot, pods_are_given_proxies};

use crate::{cluster, linkerd, typed::Terminal};
use serde_json::Value;
use std::{
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};
use weft_testkit::kubernetes::{Cluster, built, fed};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) const PARTS: [&str; 3] = ["linkerd-identity", "linkerd-destination", "linkerd-proxy-injector"];
/// The images are the same; everything that is told from the version is another.
const NEXT: &str = "--control-plane-version=next";

#[test]
fn a_mesh_is_installed_used_and_taken_away() {
    let Some(cluster) = cluster() else { return };
    let _alone = linkerd();
    let before = everything(cluster);
    let terminal = Terminal::open(cluster);
    let mut report = Report::default();

    report.came_up(cluster);
    is_installed(cluster, &terminal, &mut report);
    wire::speaks_in_the_clear_without_a_mesh_only(cluster);
    report.at_rest(cluster, &terminal);
    constraint::holds(cluster);
    demos::begin(cluster, &terminal);
    annotated::pods_do_as_they_are_told(cluster);
    ends::jobs_end(cluster);
    security::is_kept_but_for_linkerd_init(cluster);
    missed::are_named(cluster);
    demos::talk(cluster);

    let mut load = Load::start(cluster);
    load.through("rolling restart of the app", &mut report, || {
        restarted(cluster, "meshed", &["web", "emoji", "voting"]);
    });
    load.through("rolling restart of the control plane", &mut report, || restarted(cluster, "linkerd", &PARTS));
    upgrade::is_upgraded_under_load(cluster, &terminal, &mut load, &mut report);

    is_taken_away(cluster, &terminal, &mut report);
    assert_eq!(everything(cluster), before, "the cluster is as it was");
    let told = refused(cluster, &["uninstall"]);
    assert!(told.contains("nothing of a mesh"), "{told}");
    terminal.is_complete();
    report.print();
}

fn is_installed(cluster: &Cluster, terminal: &Terminal<'_>, report: &mut Report) {
    let completed = terminal.types_before("source <(weft completion bash)", "complete -p weft");
    assert!(completed.ends_with(" weft\n"), "{completed}");
    // First things first.
    let told = refused(cluster, &["install"]);
    assert!(told.contains("weft install --crds | kubectl apply -f -"), "{told}");
    terminal.types(
        "kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.4.1/standard-install.yaml",
        "",
    );
    terminal.types("weft check --pre", "");
    let start = Instant::now();
    terminal.types("weft install --crds | kubectl apply -f -", "");
    let mut install = vec!["install", "--control-plane-version=test", "--image-pull-policy=Never"];
    let output = weft(cluster, &install);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("--set disableIPv6=false"), "{told}");
    install.push("--set=disableIPv6=false");
    terminal.types("weft install | kubectl apply -f -", &install[1..].join(" "));
    rolled_out(cluster, "linkerd", &PARTS);
    report.installed(start.elapsed());
    in_order(&terminal.types("weft check", "--expected-version=test"));
    let told = refused(cluster, &install);
    assert!(told.contains("installed in the namespace linkerd already"), "{told}");
}

/// With the app that it has meshed going on.
fn is_taken_away(cluster: &Cluster, terminal: &Terminal<'_>, report: &mut Report) {
    // Its pods are in use.
    let told = refused(cluster, &["uninstall"]);
    assert!(told.contains("pod meshed/web-"), "{told}");
    // While these end.
    cluster.ask("delete namespace meshed trial --wait=false").unwrap();
    terminal.types("kubectl -n shop get deployments -o yaml | weft uninject - | kubectl apply -f -", "");
    let app = ["emoji", "voting", "web", "bot"];
    rolled_out(cluster, "shop", &app);
    // What ends is meshed to its end.
    let meshed = "--namespace shop get pods --selector linkerd.io/control-plane-ns --output name";
    cluster.until(meshed, str::is_empty).unwrap();
    cluster.until("get namespaces meshed trial --ignore-not-found --output name", str::is_empty).unwrap();
    terminal.types("weft uninstall | kubectl delete -f -", "");
    // Everything of it is made anew where there is no mesh, and works.
    restarted(cluster, "shop", &app);
    eventually("rounds without a mesh", || {
        let lines = upgrade::log(cluster, "shop", "bot");
        lines.len() > 20 && lines.iter().filter(|line| line.contains("status=200")).count() > 10
    });
    report.line("uninstalled: the app works without a mesh");
    cluster.ask("delete namespace shop").unwrap();
}

/// A mesh that is there, with the Gateway API's kinds, while this is done; then it is taken away.
pub(crate) fn with_mesh(cluster: &Cluster, work: impl FnOnce()) {
    let gateway_api = cluster.gateway_api("standard").display().to_string();
    cluster.ask(&format!("apply --server-side --filename {gateway_api}")).unwrap();
    cluster.apply(&printed(cluster, &["install", "--crds"])).unwrap();
    let install = ["install", "--control-plane-version=test", "--image-pull-policy=Never", "--set=disableIPv6=false"];
    cluster.apply(&printed(cluster, &install)).unwrap();
    rolled_out(cluster, "linkerd", &PARTS);
    work();
    let uninstall = printed(cluster, &["uninstall"]);
    fed(cluster.kubectl().args(["delete", "--filename=-"]), &uninstall).unwrap();
}

pub(crate) fn weft(cluster: &Cluster, words: &[&str]) -> Output {
    let mut command = Command::new(built("weft").unwrap());
    command.args(words).arg("--kubeconfig").arg(&cluster.kubeconfig).stdin(Stdio::null());
    command.output().unwrap()
}

/// What a command makes of manifests.
fn weft_of(words: &[&str], manifests: &str) -> String {
    fed(Command::new(built("weft").unwrap()).args(words), manifests).unwrap()
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

/// Waits until nothing of what Deployments were before is left.
pub(crate) fn rolled_out(cluster: &Cluster, namespace: &str, deployments: &[&str]) {
    for name in deployments {
        let words = format!("--namespace {namespace} rollout status deployment {name} --timeout 300s");
        if let Err(error) = cluster.ask(&words) {
            panic!("{error}\n{}", told(cluster, namespace));
        }
    }
}

/// Makes every pod of Deployments anew, and waits until the old ones have ended.
fn restarted(cluster: &Cluster, namespace: &str, deployments: &[&str]) {
    for name in deployments {
        cluster.ask(&format!("--namespace {namespace} rollout restart deployment {name}")).unwrap();
    }
    rolled_out(cluster, namespace, deployments);
    ended(cluster, namespace);
}

/// Waits until no pod is on its way out.
fn ended(cluster: &Cluster, namespace: &str) {
    eventually(&format!("pods of {namespace} to end"), || {
        pods(cluster, namespace, "").iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_null())
    });
}

fn pods(cluster: &Cluster, namespace: &str, selector: &str) -> Vec<Value> {
    let words = format!("--namespace {namespace} get pods --selector={selector} --output json");
    let list: Value = serde_json::from_str(&cluster.ask(&words).unwrap()).unwrap();
    list["items"].as_array().cloned().unwrap_or_default()
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

pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// No line of a check fails.
fn in_order(told: &str) {
    assert!(!told.contains('‼') && told.contains("Status check results are √"), "{told}");
}

/// Whatever an installation makes outside namespaces.
fn everything(cluster: &Cluster) -> Vec<String> {
    let kinds = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations,\
                 validatingadmissionpolicies,validatingadmissionpolicybindings,crds";
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
