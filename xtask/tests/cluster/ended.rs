//! A root and its issuer that have ended: nobody is given a certificate, so that nothing of the mesh that is made anew comes to be ready;
//! `weft check` says why, and what it names mends it.

use crate::{
    app, cluster,
    life::{PARTS, eventually, printed, rolled_out},
    linkerd,
    typed::Terminal,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use weft_testkit::kubernetes::{Cluster, fed};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const APPS: [&str; 3] = ["emoji", "voting", "web"];
const CHECK: &str = "weft check --proxy --expected-version=test --wait 1s -o json";
const MEND: &str = "; to mend it: ";

#[test]
fn a_root_that_has_ended_is_replaced_by_what_check_names() {
    let Some(cluster) = cluster() else { return };
    let _alone = linkerd();
    let gateway_api = cluster.gateway_api("standard").display().to_string();
    cluster.ask(&format!("apply --server-side --filename {gateway_api}")).unwrap();
    cluster.apply(&printed(cluster, &["install", "--crds"])).unwrap();
    let install = ["install", "--control-plane-version=test", "--image-pull-policy=Never"];
    cluster.apply(&printed(cluster, &install)).unwrap();
    rolled_out(cluster, "linkerd", &PARTS);
    let app = app("ended", "linkerd.io/inject: enabled").replace("PreferDualStack", "SingleStack");
    let (namespace, workloads) = app.split_once("---\n").unwrap();
    cluster.apply(namespace).unwrap();
    let trial = "--namespace ended run trial --image=weft/demo:test --dry-run=server --output jsonpath={.spec.initContainers[*].name}";
    cluster.until(trial, |names| names.contains("linkerd-proxy")).unwrap();
    cluster.apply(workloads).unwrap();
    rolled_out(cluster, "ended", &APPS);

    let terminal = Terminal::of(cluster, "ended", &["docs/certificates.md"]);
    is_given_ended_ones(cluster);
    cluster.ask("--namespace linkerd delete pods --all").unwrap();
    eventually("the cause", || told(&terminal).is_some_and(|(why, _)| why.contains("has expired")));
    let (_, command) = told(&terminal).unwrap();
    assert!(command.contains("kubectl -n ended rollout restart deployment/emoji"), "{command}");
    // The images of a test have another version than weft.
    let command = command.replace("weft upgrade --force", "weft upgrade --force --control-plane-version=test");
    let output = terminal.tries(&command);
    assert!(output.status.success(), "{command}: {output:?}");
    rolled_out(cluster, "linkerd", &PARTS);
    rolled_out(cluster, "ended", &APPS);
    eventually("everything in order", || terminal.tries(CHECK).status.success());
    let meshed =
        "--namespace ended get pods --output jsonpath={range.items[*]}{.spec.initContainers[*].name}{\"\\n\"}{end}";
    eventually("pods with proxies alone", || {
        let pods = cluster.ask(meshed).unwrap();
        pods.lines().count() == 4 && pods.lines().all(|names| names.contains("linkerd-proxy"))
    });

    cluster.ask("delete namespace ended").unwrap();
    let mut delete = cluster.kubectl();
    fed(delete.args(["delete", "--filename=-"]), &printed(cluster, &["uninstall"])).unwrap();
}

/// What the first line that fails says, and what it says to do.
fn told(terminal: &Terminal<'_>) -> Option<(String, String)> {
    let output = terminal.tries(CHECK);
    let report: Value = serde_json::from_slice(&output.stdout).ok()?;
    let checks = report["categories"].as_array()?.iter().flat_map(|of| of["checks"].as_array().into_iter().flatten());
    let error = checks.filter(|check| check["result"] == "error").find_map(|check| check["error"].as_str())?;
    let (why, command) = error.split_once(MEND)?;
    Some((why.to_owned(), command.to_owned()))
}

/// As they would stand there by then.
fn is_given_ended_ones(cluster: &Cluster) {
    let now = SystemTime::now();
    let authority = |name: &str| {
        let name = format!("{name}.linkerd.cluster.local");
        let mut params = CertificateParams::new(vec![name.clone()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = ((now - 30 * DAY).into(), (now - DAY).into());
        (params, KeyPair::generate().unwrap())
    };
    let ((root, root_key), (issuer, key)) = (authority("root"), authority("identity"));
    let root = root.self_signed(&root_key).unwrap().pem();
    let issuer = issuer.signed_by(&key, &Issuer::from_ca_cert_pem(&root, root_key).unwrap()).unwrap().pem();
    let anchors = json!({ "data": { "ca-bundle.crt": root } });
    let pair = json!({ "stringData": { "crt.pem": issuer, "key.pem": key.serialize_pem() } });
    for (object, patch) in
        [("configmap/linkerd-identity-trust-roots", anchors), ("secret/linkerd-identity-issuer", pair)]
    {
        let mut command = cluster.kubectl();
        command.args(["--namespace=linkerd", "patch", object, "--type=merge", "--patch"]).arg(patch.to_string());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}
