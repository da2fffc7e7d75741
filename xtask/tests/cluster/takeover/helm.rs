//! The same of a control plane of Linkerd's that Helm has installed: Helm takes it over, and gives it back.

use super::{
    APPS, BELOW_LINKERDS, EVERYWHERE, STAND_IN, api_ports, control_plane, goes_on, identities, is_injected_anew,
    is_linkerds_again, is_meshed, meshed, named, names, rendered, what_was_given_holds,
};
use crate::{
    cluster,
    life::{Load, PARTS, Report, rolled_out, weft},
    linkerd,
    typed::Terminal,
};
use serde_json::{Value, json};
use std::{
    fs,
    process::{Command, Output, Stdio},
};
use weft_testkit::kubernetes::{Cluster, built};

const PAGE: &str = "docs/from-linkerd-by-helm.md";
/// What the images of a test want besides.
const OURS: &str = "--set linkerdVersion=test,imagePullPolicy=Never";
/// A route that goes if its definition does.
const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: stays, namespace: default }
spec: { parentRefs: [{ name: nobody, kind: Service, group: '' }] }
";

#[test]
fn a_control_plane_of_linkerds_that_helm_has_installed_is_taken_over_by_helm_and_given_back() {
    let Some(cluster) = cluster() else { return };
    let _alone = linkerd();
    let ours = rendered();
    let gateway_api = cluster.gateway_api("standard").display().to_string();
    // Linkerd's chart brings them.
    cluster.ask(&format!("delete --ignore-not-found --filename {gateway_api}")).unwrap();
    let before = names(cluster, EVERYWHERE);
    let terminal = Terminal::of(cluster, "takeover-by-helm", &[PAGE]);
    let files = fs::read_dir(&gateway_api).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    has_charts(cluster, &terminal, &ours, &files.collect::<Vec<_>>().join("\n---\n"));

    // Linkerd is there, and an app in its mesh.
    succeeds(
        &terminal.tries("helm install linkerd-crds linkerd-edge/linkerd-crds -n linkerd --create-namespace --wait"),
    );
    cluster.ask("wait --for condition=established --timeout 60s crd --all").unwrap();
    cluster.apply(STAND_IN).unwrap();
    succeeds(
        &terminal
            .tries("helm install linkerd-control-plane linkerd-edge/linkerd-control-plane -n linkerd -f given.json"),
    );
    rolled_out(cluster, "linkerd", &PARTS);
    cluster.apply(&meshed(&ours)).unwrap();
    rolled_out(cluster, "shop", &APPS);
    goes_on(cluster, "rounds below Linkerd", &[]);
    is_meshed(cluster);
    let kept = identities(cluster);

    is_helms_to_take_over(cluster, &terminal);
    let (mut load, mut report) = (Load::follow(cluster, "shop"), Report::default());
    load.through("Linkerd's control plane taken over by Helm", &mut report, || {
        is_taken_over(cluster, &terminal);
        goes_on(cluster, "rounds of Linkerd's proxies below weft", &[]);
    });
    is_meshed(cluster);
    assert_eq!(identities(cluster), kept, "certificates and anchors are kept");
    what_was_given_holds(cluster);
    let lost = is_injected_anew(cluster, &terminal);

    // And back.
    load.follow_the_newest();
    load.through("the control plane given back to Linkerd by Helm", &mut report, || {
        for line in
            terminal.documented("helm upgrade linkerd-").into_iter().rev().filter(|line| line.contains("linkerd-edge/"))
        {
            terminal.types(&line, "");
        }
        rolled_out(cluster, "linkerd", &PARTS);
        goes_on(cluster, BELOW_LINKERDS, &lost);
    });
    is_linkerds_again(cluster);
    terminal.is_complete();
    terminal.is_complete_of_helm();

    cluster.ask("delete namespace shop").unwrap();
    succeeds(&terminal.tries("helm uninstall linkerd-control-plane linkerd-crds -n linkerd"));
    cluster.ask("delete clusterrolebinding stand-in").unwrap();
    cluster.ask("delete namespace linkerd").unwrap();
    cluster.ask(&format!("delete --ignore-not-found --filename {gateway_api}")).unwrap();
    assert_eq!(names(cluster, EVERYWHERE), before, "the cluster is as it was");
}

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Charts whose templates are what Linkerd's come to, and what somebody has given to them.
fn has_charts(cluster: &Cluster, terminal: &Terminal<'_>, ours: &[Value], gateway_api: &str) {
    let mut command = Command::new(built("weft").unwrap());
    let kinds = command.args(["install", "--crds", "--ignore-cluster"]).stdin(Stdio::null()).output().unwrap();
    assert!(kinds.status.success(), "{kinds:?}");
    let kinds = String::from_utf8(kinds.stdout).unwrap();
    let is_route = |document: &&str| {
        ["httproutes", "grpcroutes"]
            .iter()
            .any(|name| document.contains(&format!("name: {name}.gateway.networking.k8s.io")))
    };
    let routes: String =
        gateway_api.split("\n---\n").filter(is_route).map(|document| format!("\n---\n{document}")).collect();
    assert_eq!(routes.matches("kind: CustomResourceDefinition").count(), 2);
    // Helm makes namespaces by itself, and knows by itself what was given to it.
    let is_helms = |document: &&str| {
        !document.contains("kind: Namespace\n") && !document.contains("name: linkerd-config-overrides")
    };
    let all = control_plane(ours, &api_ports(cluster));
    let all = all.split("\n---\n").filter(is_helms).collect::<Vec<_>>().join("\n---\n");
    for (name, text) in [("linkerd-crds", kinds + &routes), ("linkerd-control-plane", all)] {
        let folder = format!("linkerd-edge/{name}");
        terminal.has(&format!("{folder}/Chart.yaml"), &format!("apiVersion: v2\nname: {name}\nversion: 2026.8.1\n"));
        terminal.has(&format!("{folder}/templates/all.yaml"), &text.replace("{{", "{{ `{{` }}"));
    }
    let secret = |key: &str| named(ours, "Secret", "linkerd-identity-issuer")["stringData"][key].clone();
    let given = json!({
        "identityTrustAnchorsPEM": named(ours, "ConfigMap", "linkerd-identity-trust-roots")["data"]["ca-bundle.crt"],
        "identity": { "issuer": { "issuanceLifetime": "48h0m0s", "tls": { "crtPEM": secret("crt.pem"), "keyPEM": secret("key.pem") } } },
        "heartbeatSchedule": "13 7 * * *", "podLabels": { "team": "mesh" }, "policyController": { "logLevel": "debug" },
        "proxy": { "image": { "name": "cr.l5d.io/linkerd/proxy" }, "resources": { "cpu": { "request": "12m" } } },
    });
    terminal.has("given.json", &given.to_string());
}

/// Two that keep account of the same objects would undo each other's work.
fn is_helms_to_take_over(cluster: &Cluster, terminal: &Terminal<'_>) {
    let told = refused(&weft(cluster, &["install"]));
    assert!(told.contains("`helm upgrade linkerd-control-plane charts/linkerd-control-plane -n linkerd "), "{told}");
    for line in terminal.documented("helm get ") {
        terminal.types(&line, "");
    }
    let told = terminal.types_in_vain("weft upgrade", "");
    for part in
        ["heartbeatSchedule: ", "policyController.logLevel: ", "proxy.image.name: it names an image of Linkerd's"]
    {
        assert!(told.contains(&format!("* {part}")), "{part}: {told}");
    }
    // What the page says is what weft says.
    for line in terminal.documented("helm upgrade linkerd-").iter().filter(|line| line.contains(" charts/")) {
        assert!(told.contains(&format!("    {line}\n")), "{line}: {told}");
    }
    let told = terminal
        .tries("helm upgrade linkerd-control-plane charts/linkerd-control-plane -n linkerd --reset-then-reuse-values");
    let told = refused(&told);
    for part in
        ["heartbeatSchedule: weft does not carry out", "proxy.image.name: \"cr.l5d.io/linkerd/proxy\" is Linkerd's"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
}

fn is_taken_over(cluster: &Cluster, terminal: &Terminal<'_>) {
    let upgrades = terminal.documented("helm upgrade linkerd-");
    let of = |chart: &str| upgrades.iter().find(|line| line.contains(&format!(" charts/{chart} "))).unwrap();
    let keep = &terminal.documented("kubectl annotate crd ")[0];
    cluster.apply(ROUTE).unwrap();
    let told = terminal.types_in_vain(of("linkerd-crds"), "");
    assert!(told.contains(&format!("    {keep}\n")), "{told}");
    terminal.types(keep, "");
    terminal.types(of("linkerd-crds"), "");
    cluster.ask("--namespace default get httproutes.gateway.networking.k8s.io stays").unwrap();
    terminal.types(of("linkerd-control-plane"), OURS);
    rolled_out(cluster, "linkerd", &PARTS);
    let check = terminal.types("weft check", "--expected-version=test");
    assert!(check.contains("Status check results are √"), "{check}");
    for gone in ["cronjob linkerd-heartbeat", "role remote-discovery"] {
        let left = cluster.ask(&format!("--namespace linkerd get {gone} --ignore-not-found --output name")).unwrap();
        assert_eq!(left, "", "{gone}");
    }
}
