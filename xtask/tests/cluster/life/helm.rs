//! The same life by Helm: what `weft check` finds in order is upgraded and taken away under load, and keeps the certificates that it has.

use super::{
    PARTS, ended, everything, in_order,
    load::Load,
    pods,
    report::Report,
    restarted, rolled_out,
    upgrade::{CHANGED, PROXYS_CPU, new_values_hold},
    wire::app_is_meshed,
};
use crate::{cluster, linkerd, typed::Terminal};
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};
use weft_testkit::kubernetes::Cluster;

/// What a test's images and node want besides, in files of the terminal's folder.
const OURS: &str = "--set linkerdVersion=test,imagePullPolicy=Never,disableIPv6=false";

#[test]
fn a_mesh_is_installed_upgraded_and_taken_away_by_helm() {
    let Some(cluster) = cluster() else { return };
    let _alone = linkerd();
    let before = everything(cluster);
    let terminal = Terminal::open(cluster);
    let mut report = Report::default();

    is_installed(cluster, &terminal);
    is_helms_to_change(&terminal);
    app_is_meshed(cluster);
    let mut load = Load::start(cluster);
    is_upgraded(cluster, &terminal, &mut load, &mut report);
    load.through_its_own_restart("the app without a mesh, and helm uninstall", &mut report, || {
        cluster.ask("annotate namespace meshed linkerd.io/inject-").unwrap();
        // Servers first: who asks them is kept from those that end by its proxy.
        restarted(cluster, "meshed", &["emoji", "voting", "web", "bot"]);
        restarted(cluster, "meshed", &["load"]);
        terminal.types("helm uninstall linkerd-control-plane linkerd-crds -n linkerd", "");
    });
    assert_eq!(everything(cluster), before);
    let left = "--namespace linkerd get secrets,services,deployments,serviceaccounts --selector linkerd.io/control-plane-ns --output name";
    assert_eq!(cluster.ask(left).unwrap(), "");
    cluster.ask("delete namespace linkerd meshed trial").unwrap();
    terminal.is_complete_of_helm();
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

    // One that ends soon is replaced, and trusted until the injector has read the next.
    let ending = ends_soon(cluster);
    load.through("helm upgrade, with a new certificate of the webhook", report, || drop(terminal.types(upgrade, "")));
    let [secret, bundle] = certificates(cluster);
    assert!(!secret.contains(&ending) && secret != certificate[0], "another certificate");
    assert_eq!(decoded(&bundle).matches("BEGIN CERTIFICATE").count(), 2);
    assert!(decoded(&bundle).contains(decoded(&ending).trim()), "the one before is trusted");

    new_values_hold(cluster);
    load.through("rolling restart of the app below the new control plane", report, || {
        restarted(cluster, "meshed", &["web", "emoji", "voting"]);
    });
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

/// Gives the injector a certificate for a month, and tells it in base64.
fn ends_soon(cluster: &Cluster) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let [certificate, key] = ["ending.crt", "ending.key"].map(|name| folder.join(name).display().to_string());
    let name = "linkerd-proxy-injector.linkerd.svc";
    let words = format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={name} -addext subjectAltName=DNS:{name} \
         -keyout {key} -out {certificate}"
    );
    let made = Command::new("openssl").args(words.split_whitespace()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let secret = "linkerd-proxy-injector-k8s-tls";
    let words = format!("create secret tls {secret} --cert={certificate} --key={key} --dry-run=client --output yaml");
    let text = cluster
        .ask(&words)
        .unwrap()
        .replace(&format!("name: {secret}"), &format!("name: {secret}\n  namespace: linkerd"));
    cluster.apply(&text).unwrap();
    cluster.ask(&format!("--namespace linkerd get secret {secret} --output jsonpath={{.data.tls\\.crt}}")).unwrap()
}

fn decoded(base64: &str) -> String {
    let mut command =
        Command::new("base64").arg("--decode").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    command.stdin.take().unwrap().write_all(base64.as_bytes()).unwrap();
    String::from_utf8(command.wait_with_output().unwrap().stdout).unwrap()
}
