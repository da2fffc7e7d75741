//! The same life by Helm, under load all the way: an app goes into the mesh as it runs, all of it at once; what `weft check` finds in
//! order is upgraded, its certificates are renewed, all is restarted; the app leaves the mesh, those who ask before those who are asked.
//!
//! | who asks has a proxy | who is asked and ends has one | |
//! |---|---|---|
//! | no, until it ends | no | into the mesh |
//! | yes | yes | restarts |
//! | no | yes | out of the mesh |
//!
//! Who asks without a proxy knows servers by their Service alone, and that one of them leaves only if it is told on the connection that it
//! keeps.

use super::{
    PARTS, ended, eventually, everything, in_order,
    load::Load,
    pods, ready, renewal,
    report::Report,
    restarted, rolled_out,
    upgrade::{CHANGED, PROXYS_CPU, new_values_hold},
    wire::{bot, pods_are_given_proxies},
};
use crate::{app, cluster, linkerd, typed::Terminal};
use weft_testkit::kubernetes::Cluster;

/// What a test's images and node want besides, in files of the terminal's folder.
const OURS: &str = "--set linkerdVersion=test,imagePullPolicy=Never,disableIPv6=false";
/// What a mesh has in its namespace, by whomever it was made: Leases are its processes'.
const NAMESPACED: &str = "secrets,configmaps,services,endpointslices,deployments,replicasets,pods,cronjobs,jobs,serviceaccounts,roles,rolebindings,leases,poddisruptionbudgets";
const APPS: [&str; 4] = ["web", "emoji", "voting", "bot"];

#[test]
fn a_mesh_is_installed_upgraded_and_taken_away_by_helm() {
    let Some(cluster) = cluster() else { return };
    let _alone = linkerd();
    let before = everything(cluster);
    let terminal = Terminal::open(cluster);
    let mut report = Report::default();

    cluster.apply(&(app("meshed", "") + &bot("meshed"))).unwrap();
    is_installed(cluster, &terminal);
    is_helms_to_change(&terminal);
    ready(cluster, "meshed", &[("emoji", "1"), ("voting", "1"), ("web", "2"), ("bot", "1")]);
    let mut load = Load::start(cluster);
    enters_the_mesh(cluster, &mut load, &mut report);
    is_upgraded(cluster, &terminal, &mut load, &mut report);
    leaves_the_mesh(cluster, &mut load, &mut report);
    load.through("helm uninstall", &mut report, || {
        terminal.types("helm uninstall linkerd-control-plane linkerd-crds -n linkerd", "");
    });
    // Definitions of kinds go once all of their objects have.
    eventually("the cluster to be as it was", || everything(cluster) == before);
    // Kubernetes puts these into every namespace.
    eventually("nothing of a mesh to be left in its namespace", || {
        let left = cluster.ask(&format!("--namespace linkerd get {NAMESPACED} --output name")).unwrap();
        let of_kubernetes = ["configmap/kube-root-ca.crt", "serviceaccount/default"];
        left.lines().all(|name| of_kubernetes.contains(&name))
    });
    cluster.ask("delete namespace linkerd meshed trial").unwrap();
    terminal.is_complete_of_helm();
}

/// As one does it: the namespace asks for proxies, and everything in it is made anew.
fn enters_the_mesh(cluster: &Cluster, load: &mut Load<'_>, report: &mut Report) {
    pods_are_given_proxies(cluster, "trial");
    load.through_its_own_restart("the app into the mesh, all of it at once", report, || {
        cluster.ask("annotate namespace meshed linkerd.io/inject=enabled").unwrap();
        cluster.ask("--namespace meshed rollout restart deployment").unwrap();
        rolled_out(cluster, "meshed", &APPS);
        rolled_out(cluster, "meshed", &["load"]);
        ended(cluster, "meshed");
    });
    assert_eq!(proxies(cluster), [true; 6]);
}

/// Whoever asks has no proxy any more while those that it asks end with theirs.
fn leaves_the_mesh(cluster: &Cluster, load: &mut Load<'_>, report: &mut Report) {
    load.through_its_own_restart("the client out of the mesh", report, || {
        cluster.ask("annotate namespace meshed linkerd.io/inject-").unwrap();
        restarted(cluster, "meshed", &["load"]);
    });
    assert_eq!(proxies(cluster).iter().filter(|is_meshed| !**is_meshed).count(), 1);
    load.through("its servers out of the mesh", report, || restarted(cluster, "meshed", &APPS));
    assert_eq!(proxies(cluster), [false; 6]);
}

/// Which pods of the app have one.
fn proxies(cluster: &Cluster) -> Vec<bool> {
    pods(cluster, "meshed", "").iter().map(|pod| pod.to_string().contains("\"linkerd-proxy\"")).collect()
}

fn is_installed(cluster: &Cluster, terminal: &Terminal<'_>) {
    let gateway_api = cluster.gateway_api("standard").display().to_string();
    cluster.ask(&format!("apply --server-side --filename {gateway_api}")).unwrap();
    for line in terminal.documented("openssl ") {
        terminal.types(&line, "");
    }
    terminal.types("helm install linkerd-crds charts/linkerd-crds -n linkerd --create-namespace --wait", "");
    terminal.types(&terminal.documented("helm install linkerd-control-plane ")[0], OURS);
    rolled_out(cluster, "linkerd", &PARTS);
    in_order(&terminal.types("weft check", "--expected-version=test"));
}

fn is_helms_to_change(terminal: &Terminal<'_>) {
    for line in ["weft upgrade | kubectl apply -f -", "weft prune | kubectl delete -f -"] {
        let told = terminal.types_in_vain(line, "");
        assert!(told.contains("is upgraded by helm"), "{line}: {told}");
    }
    let told = terminal.types_in_vain("weft uninstall | kubectl delete -f -", "");
    assert!(told.contains("helm uninstall -n linkerd linkerd-control-plane"), "{told}");
}

/// To another version with other values, with another certificate, and then the pods of the app.
fn is_upgraded(cluster: &Cluster, terminal: &Terminal<'_>, load: &mut Load<'_>, report: &mut Report) {
    let upgrade = &terminal.documented("helm upgrade linkerd-control-plane ")[0];
    let certificate = certificates(cluster);
    load.through("helm upgrade", report, || {
        terminal.types(upgrade, &format!("--set linkerdVersion=next,{CHANGED}"));
        rolled_out(cluster, "linkerd", &PARTS);
        ended(cluster, "linkerd");
    });
    in_order(&terminal.types("weft check", "--expected-version=next"));
    let replicas =
        cluster.ask("--namespace linkerd get deployment --output jsonpath={.items[*].spec.replicas}").unwrap();
    assert_eq!(replicas, "2 2 2");
    assert_eq!(certificates(cluster), certificate, "what the API server trusts stays, with many days left");
    let pull = "--namespace linkerd get deployment linkerd-identity --output jsonpath={.spec.template.spec.containers[*].imagePullPolicy}";
    assert!(cluster.ask(pull).unwrap().split(' ').all(|policy| policy == "Never"), "what was given once is kept");

    // One upgrade on the heels of another.
    renewal::costs_no_review(cluster, load, report, || (0..2).for_each(|_| drop(terminal.types(upgrade, ""))));

    new_values_hold(cluster);
    load.through("rolling restart of the app below the new control plane", report, || {
        restarted(cluster, "meshed", &["web", "emoji", "voting"]);
    });
    load.through("rolling restart of the control plane", report, || restarted(cluster, "linkerd", &PARTS));
    // Pods that are ready replace others before those are gone.
    ended(cluster, "meshed");
    for app in ["web", "emoji", "voting"] {
        let pods = pods(cluster, "meshed", &format!("app={app}"));
        let old = pods.iter().find(|pod| !pod.to_string().contains(PROXYS_CPU));
        assert!(old.is_none(), "{app} has the new values: {old:?}");
    }
}

/// The webhook's own, and what the API server is told of it.
fn certificates(cluster: &Cluster) -> [String; 2] {
    [
        "--namespace linkerd get secret linkerd-proxy-injector-k8s-tls --output jsonpath={.data}",
        "get mutatingwebhookconfiguration linkerd-proxy-injector-webhook-config --output jsonpath={.webhooks[*].clientConfig.caBundle}",
    ]
    .map(|words| cluster.ask(words).unwrap())
}
