//! Upgrades under load: another version with other values, and another root, issuer and proxies.

use super::{
    NEXT, PARTS, ended, eventually, in_order,
    load::Load,
    pods, printed,
    report::Report,
    rolled_out,
    wire::{of_proxy, proven, sum},
};
use crate::typed::Terminal;
use weft_testkit::kubernetes::Cluster;

/// What is said once and kept from then on; the images are the same.
pub(super) const CHANGED: &str = "controllerImageVersion=test,proxy.image.version=test,proxy.resources.cpu.request=11m";
/// What proxies have by it.
pub(super) const PROXYS_CPU: &str = "11m";

/// What people say of requests: the bot of what it got, web of what it asked.
pub(super) fn log(cluster: &Cluster, namespace: &str, app: &str) -> Vec<String> {
    let words = format!("--namespace {namespace} logs --selector app={app} --container {app} --tail -1");
    cluster.ask(&words).unwrap().lines().map(str::to_owned).collect()
}

/// Lines of requests that failed, but for the votes that the app itself makes fail.
fn lost(cluster: &Cluster, app: &str) -> Vec<String> {
    let lines = log(cluster, "meshed", app).into_iter().filter(|line| has_failed(line));
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

/// The kubelet tells a pod of other values when it comes to that, also one that has just started.
pub(super) fn new_values_hold(cluster: &Cluster) {
    let request = "{.spec.initContainers[?(@.name=='linkerd-proxy')].resources.requests.cpu}";
    eventually("pods with the new values", || would_be(cluster, request) == PROXYS_CPU);
}

/// What a pod that is made now would be given.
fn would_be(cluster: &Cluster, path: &str) -> String {
    let words = "--namespace trial run trial --image=weft/demo:test --dry-run=server --output";
    cluster.ask(&format!("{words} jsonpath={path}")).unwrap_or_default()
}

pub(super) fn is_upgraded_under_load(
    cluster: &Cluster,
    terminal: &Terminal<'_>,
    load: &mut Load<'_>,
    report: &mut Report,
) {
    let before = certificates(cluster);
    // The bot asks web, over HTTP/1, and web the two others.
    let apps = ["bot", "web"];
    let (rounds, lost_before) = (log(cluster, "meshed", "bot").len(), apps.map(|app| lost(cluster, app)));
    cluster.ask("--namespace linkerd create configmap left-over").unwrap();
    cluster.ask("--namespace linkerd label configmap left-over linkerd.io/control-plane-ns=linkerd").unwrap();
    load.through("upgrade of the control plane", report, || {
        terminal.types("weft upgrade --crds | kubectl apply -f -", "");
        terminal.types("weft upgrade | kubectl apply -f -", &format!("{NEXT} --set {CHANGED}"));
        rolled_out(cluster, "linkerd", &PARTS);
        ended(cluster, "linkerd");
    });
    in_order(&terminal.types("weft check", "--expected-version=next"));
    // Enough that each of web's proxies has met the new control plane.
    eventually("rounds with the new control plane", || log(cluster, "meshed", "bot").len() > rounds + 200);
    assert_eq!(apps.map(|app| lost(cluster, app)), lost_before, "requests that failed");
    for app in apps {
        let told = log(cluster, "meshed", app);
        assert!(told.iter().any(|line| has_failed(line)), "{app} tells what fails: the doughnut");
    }
    assert_eq!(certificates(cluster), before, "nothing is rotated by accident");
    let count = pods(cluster, "linkerd", "").len() + pods(cluster, "meshed", "").len();
    let expected = format!("Server version: next\nProxy versions:\n\ttest ({count} pods)\n");
    eventually("the versions", || printed(cluster, &["version", "--proxy"]).ends_with(&expected));
    // What was given once, and what is given now.
    let pull = "--namespace linkerd get deployment linkerd-identity --output jsonpath={.spec.template.spec.containers[*].imagePullPolicy}";
    assert!(cluster.ask(pull).unwrap().split(' ').all(|policy| policy == "Never"));
    new_values_hold(cluster);

    let pruned = terminal.types("weft prune | kubectl delete -f -", "--expected-version=next");
    assert_eq!(pruned.lines().count(), 1, "{pruned}");
    assert!(pruned.contains("\"left-over\""), "{pruned}");
    assert_eq!(printed(cluster, &["prune", "--expected-version=next"]), "", "nothing is left");
    terminal.types("kubectl -n linkerd get configmaps,secrets -o yaml > linkerd.yaml", "");
    terminal.types("weft upgrade --from-manifests linkerd.yaml > upgraded.yaml", "");

    goes_on_below_another_root(cluster, terminal, &before, load, report);
}

fn goes_on_below_another_root(
    cluster: &Cluster,
    terminal: &Terminal<'_>,
    before: &[String],
    load: &mut Load<'_>,
    report: &mut Report,
) {
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
    load.through("a second root", report, || {
        terminal.types("weft upgrade --identity-trust-anchors-file both.crt | kubectl apply -f -", NEXT);
        let told = terminal.types_in_vain(issuer, NEXT);
        assert!(told.contains("* pod meshed/"), "{told}");
        rolled_out(cluster, "linkerd", &PARTS);
    });
    // Now it would be meshed with the new anchors.
    let injects = "{.spec.initContainers[?(@.name=='linkerd-proxy')].env[?(@.name=='LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS')].value}";
    eventually("pods that believe both roots", || would_be(cluster, injects).matches("BEGIN CERTIFICATE").count() == 2);
    load.through_its_own_restart("new proxies, of servers and of the client", report, || {
        terminal.types("kubectl -n shop get deployments -o yaml | weft inject - | kubectl apply -f -", "");
        terminal.types("kubectl -n shop rollout restart deployment", "");
        cluster.ask("--namespace meshed rollout restart deployment").unwrap();
        for namespace in ["shop", "meshed"] {
            rolled_out(cluster, namespace, &["emoji", "voting", "web", "bot"]);
            // What is told to end still trusts the old root alone.
            ended(cluster, namespace);
        }
        rolled_out(cluster, "meshed", &["load"]);
    });
    load.through("a new issuer, and a certificate of it", report, || {
        terminal.types(issuer, NEXT);
        // The kubelet hands it over; whoever is made then is certified by it.
        eventually("the issuer to be in force", || signs_with_the_new_one(cluster));
        super::restarted(cluster, "meshed", &["emoji"]);
    });
    assert_ne!(certificates(cluster)[0], before[0], "another issuer");
    assert_eq!(certificates(cluster)[1], before[1]);
    in_order(&terminal.types("weft check", "--expected-version=next"));
    in_order(&terminal.types("weft check --proxy", "--expected-version=next"));
    let client = proven("shop", "default");
    let wanted = ["direction=\"inbound\"", "tls=\"true\"", &client];
    eventually("meshed requests in the shop", || {
        sum(&of_proxy(cluster, "shop", "web"), "request_total", &wanted) > 10.0
    });
    let shown = terminal.types("weft identity -n shop -l app=web", "");
    let name = "default.shop.serviceaccount.identity.linkerd.cluster.local";
    assert_eq!(shown.matches(&format!("DNS:{name}")).count(), 2, "one of each pod: {shown}");
    // Certificates of the old issuer, which the mesh still has, would be believed by nobody.
    let third = "weft upgrade --identity-trust-anchors-file root.crt | kubectl apply -f -";
    let told = terminal.types_in_vain(third, NEXT);
    assert!(told.contains("leave out a present one") && told.contains("may be valid until"), "{told}");
}

/// The identity process tells of each issuer that it takes up.
fn signs_with_the_new_one(cluster: &Cluster) -> bool {
    let events = "--namespace linkerd get events --field-selector reason=IssuerUpdated --output name";
    cluster.ask(events).is_ok_and(|names| !names.is_empty())
}
