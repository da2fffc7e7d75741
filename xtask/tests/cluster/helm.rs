//! The life of a mesh by Helm: what `weft check` finds in order is upgraded without another certificate, and taken away whole.

use crate::{cluster, linkerd, typed::Terminal};
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};
use weft_testkit::kubernetes::Cluster;

/// What a test's images and node want besides, in files of the terminal's folder.
const OURS: &str = "--set linkerdVersion=test,imagePullPolicy=Never,disableIPv6=false";
const PARTS: [&str; 3] = ["linkerd-identity", "linkerd-destination", "linkerd-proxy-injector"];

#[test]
fn a_mesh_is_installed_upgraded_and_taken_away_by_helm() {
    let Some(cluster) = cluster() else { return };
    let _alone = linkerd();
    let before = everything(cluster);
    let terminal = Terminal::open(cluster);
    let gateway_api = cluster.gateway_api("standard").display().to_string();
    cluster.ask(&format!("apply --server-side --filename {gateway_api}")).unwrap();
    for line in terminal.documented("openssl ") {
        terminal.types(&line, "");
    }

    terminal.types("helm install linkerd-crds charts/linkerd-crds -n linkerd --create-namespace --wait", "");
    terminal.types(&terminal.documented("helm install linkerd-control-plane ")[0], OURS);
    rolled_out(cluster);
    let told = terminal.types("weft check", "--expected-version=test");
    assert!(!told.contains('‼') && told.contains("Status check results are √"), "{told}");

    // It is Helm's to change.
    for line in ["weft upgrade | kubectl apply -f -", "weft prune | kubectl delete -f -"] {
        let told = terminal.types_in_vain(line, "");
        assert!(told.contains("is upgraded by helm"), "{line}: {told}");
    }
    let told = terminal.types_in_vain("weft uninstall | kubectl delete -f -", "");
    assert!(told.contains("helm uninstall -n linkerd linkerd-control-plane"), "{told}");

    let certificate = certificates(cluster);
    terminal.types(&terminal.documented("helm upgrade linkerd-control-plane ")[0], "");
    rolled_out(cluster);
    let replicas =
        cluster.ask("--namespace linkerd get deployment --output jsonpath={.items[*].spec.replicas}").unwrap();
    assert_eq!(replicas, "2 2 2");
    assert_eq!(certificates(cluster), certificate, "what the API server trusts stays, with many days left");
    let pull = "--namespace linkerd get deployment linkerd-identity --output jsonpath={.spec.template.spec.containers[*].imagePullPolicy}";
    assert!(cluster.ask(pull).unwrap().split(' ').all(|policy| policy == "Never"), "what was given once is kept");

    // One that ends soon is replaced, and trusted until the injector has read the next.
    let ending = ends_soon(cluster);
    terminal.types(&terminal.documented("helm upgrade linkerd-control-plane ")[0], "");
    let [secret, bundle] = certificates(cluster);
    assert!(!secret.contains(&ending) && secret != certificate[0], "another certificate");
    assert_eq!(decoded(&bundle).matches("BEGIN CERTIFICATE").count(), 2);
    assert!(decoded(&bundle).contains(decoded(&ending).trim()), "the one before is trusted");

    terminal.types("helm uninstall linkerd-control-plane linkerd-crds -n linkerd", "");
    assert_eq!(everything(cluster), before);
    let left = "--namespace linkerd get secrets,services,deployments,serviceaccounts --selector linkerd.io/control-plane-ns --output name";
    assert_eq!(cluster.ask(left).unwrap(), "");
    cluster.ask("delete namespace linkerd").unwrap();
    terminal.is_complete_of_helm();
}

fn rolled_out(cluster: &Cluster) {
    for part in PARTS {
        cluster.ask(&format!("--namespace linkerd rollout status deployment {part} --timeout 300s")).unwrap();
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

/// Whatever an installation makes outside namespaces; the Gateway API's come and go with other tests.
fn everything(cluster: &Cluster) -> Vec<String> {
    let kinds = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations,\
                 validatingadmissionpolicies,validatingadmissionpolicybindings,crds";
    let names = cluster.ask(&format!("get {kinds} --output name")).unwrap();
    names.lines().filter(|name| !name.contains("gateway.networking.k8s.io")).map(str::to_owned).collect()
}
