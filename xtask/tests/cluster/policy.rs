//! Who may call what: the control plane's own ports, and an app's as its owner says.

use crate::{
    app, cluster, commands, external,
    life::{bot, eventually, pods_are_given_proxies, ready, weft, with_mesh},
    linkerd,
};
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};
use weft_testkit::kubernetes::Cluster;

/// The address of a pod.
fn address(cluster: &Cluster, namespace: &str, selector: &str) -> String {
    let words =
        format!("--namespace {namespace} get pods --selector {selector} --output jsonpath={{.items[0].status.podIP}}");
    cluster.ask(&words).unwrap()
}

/// What somebody on the node, who is of no mesh, is answered: a status of HTTP, or 000 if the connection is cut.
fn asked(cluster: &Cluster, url: &str) -> String {
    curl(cluster, &["--write-out", "%{http_code}", url])
}

/// An empty call of gRPC, of which its status is told as well.
const CALL: [&str; 9] = [
    "--http2-prior-knowledge",
    "--header",
    "content-type: application/grpc",
    "--header",
    "te: trailers",
    "--data",
    "",
    "--write-out",
    "%{http_code} %header{grpc-status}",
];

/// The same of a call of gRPC, with its status behind.
fn called(cluster: &Cluster, url: &str) -> String {
    curl(cluster, &[&CALL[..], &[url]].concat())
}

fn curl(cluster: &Cluster, options: &[&str]) -> String {
    let words = [&["curl", "--silent", "--max-time", "20", "--output", "/dev/null"], options].concat();
    String::from_utf8(cluster.on_node(&words).output().unwrap().stdout).unwrap()
}

#[test]
fn whoever_is_not_named_is_denied() {
    let Some(cluster) = cluster() else { return };
    let _alone = linkerd();
    with_mesh(cluster, || {
        the_control_plane_lets_in_whom_it_should(cluster);
        who_may_forward_ports_is_answered(cluster);
        what_cannot_be_carried_out_is_refused(cluster);
        what_slips_in_is_named(cluster);
        external::a_machine_is_behind_a_service(cluster);
        an_app_lets_in_whom_its_owner_names(cluster);
        routes_say_who_may_ask_for_what(cluster);
        cluster.ask("delete namespace guarded").unwrap();
    });
}

fn the_control_plane_lets_in_whom_it_should(cluster: &Cluster) {
    let of = |component: &str| address(cluster, "linkerd", &format!("linkerd.io/control-plane-component={component}"));
    let (identity, destination, injector) = (of("identity"), of("destination"), of("proxy-injector"));
    // Scrapes and probes.
    for (address, admin) in [(&identity, 9990), (&destination, 9996), (&injector, 9995)] {
        for port in [admin, 4191] {
            let url = format!("http://{address}:{port}/metrics");
            eventually(&url, || asked(cluster, &url) == "200");
        }
    }
    // What follows is so from a proxy's first answer on, which destination's own proxy gets from destination.
    for (address, what) in [(&identity, "identity"), (&destination, "destination"), (&injector, "injector")] {
        let url = format!("http://{address}:4999/");
        eventually(&format!("{what} to deny what is not named"), || asked(cluster, &url) == "403");
    }
    // Without an identity; on 8080 without the mesh's TLS. What denies in gRPC says 7, or else cuts the connection.
    for (address, port, call) in [
        (&destination, 8086, "io.linkerd.proxy.destination.Destination/Get"),
        (&destination, 8090, "io.linkerd.proxy.inbound.InboundServerPolicies/GetPort"),
        (&identity, 8080, "io.linkerd.proxy.identity.Identity/Certify"),
    ] {
        let url = format!("http://{address}:{port}/{call}");
        eventually(&format!("{port} to deny"), || ["000 ", "403 7", "200 7"].contains(&called(cluster, &url).as_str()));
    }
    let denied = denials(cluster, &destination);
    for server in ["linkerd-destination-grpc", "linkerd-policy-grpc"] {
        assert!(denied.contains(&format!("srv_name=\"{server}\"")), "{server}: {denied}");
    }
}

/// The API server and the kubelet carry it to the process itself, in the clear, for commands that show what it knows.
fn who_may_forward_ports_is_answered(cluster: &Cluster) {
    for (port, call) in [
        (8086, "io.linkerd.proxy.destination.Destination/Get"),
        (8090, "io.linkerd.proxy.inbound.InboundServerPolicies/GetPort"),
    ] {
        let mut forward = cluster.kubectl();
        forward.args(["--namespace", "linkerd", "port-forward", "deployment/linkerd-destination", &format!(":{port}")]);
        let mut forward = forward.stdout(Stdio::piped()).spawn().unwrap();
        // "Forwarding from 127.0.0.1:41234 -> 8086"
        let mut line = String::new();
        BufReader::new(forward.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let local = line.split(" -> ").next().and_then(|from| from.rsplit(' ').next()).unwrap().to_owned();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "60", "--output", "/dev/null"]).args(CALL);
        let answer = curl.arg(format!("http://{local}/{call}")).output().unwrap();
        forward.kill().unwrap();
        forward.wait().unwrap();
        // There is no question in it, which is not what a proxy says.
        let answer = String::from_utf8(answer.stdout).unwrap();
        let status = answer.strip_prefix("200 ").and_then(|status| status.parse::<u8>().ok());
        assert!(status.is_some_and(|status| ![0, 7, 14, 16].contains(&status)), "{port}: {line}{answer}");
    }
}

/// The series of what a proxy has denied.
fn denials(cluster: &Cluster, address: &str) -> String {
    let url = format!("http://{address}:4191/metrics");
    let output = cluster.on_node(&["curl", "--silent", "--max-time", "60", &url]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| line.contains("authz_deny_total{")).map(|line| format!("{line}\n")).collect()
}

/// The API server comes to know its webhooks in a while.
fn what_cannot_be_carried_out_is_refused(cluster: &Cluster) {
    let server = "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: { name: early, namespace: default }
spec: { podSelector: {}, port: 80, accessPolicy: everybody }
";
    let refused = || match cluster.apply(server) {
        Ok(_) => {
            cluster.ask("delete server early").unwrap();
            None
        }
        Err(error) => Some(error.to_string()),
    };
    eventually("the validator to refuse", || refused().is_some());
    let told = refused().unwrap();
    assert!(told.contains("spec.accessPolicy: \"everybody\" is no policy; use one of deny, "), "{told}");
    // Anybody can say of anything that it is a control plane's.
    let labelled =
        server.replace("namespace: default", "namespace: default, labels: { linkerd.io/control-plane-ns: linkerd }");
    let told = cluster.apply(&labelled).unwrap_err().to_string();
    assert!(told.contains("spec.accessPolicy: \"everybody\" is no policy"), "{told}");
}

/// The webhook does not look at what is the control plane's.
fn what_slips_in_is_named(cluster: &Cluster) {
    let server = "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: { name: slipped, namespace: linkerd, labels: { linkerd.io/control-plane-ns: linkerd } }
spec: { podSelector: {}, port: 80, accessPolicy: everybody }
";
    cluster.apply(server).unwrap();
    let check = weft(cluster, &["check", "--expected-version=test"]);
    let told = String::from_utf8(check.stdout).unwrap();
    assert!(!check.status.success() && told.contains("Server linkerd/slipped: spec.accessPolicy"), "{told}");
    cluster.ask("--namespace linkerd delete server slipped").unwrap();
}

const GUARD: &str = "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: { name: web, namespace: guarded }
spec: { podSelector: { matchLabels: { app: web } }, port: 8080 }
";
const GRANT: &str = "apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: { name: web, namespace: guarded }
spec:
  targetRef: { group: policy.linkerd.io, kind: Server, name: web }
  requiredAuthenticationRefs: [{ group: policy.linkerd.io, kind: MeshTLSAuthentication, name: bot }]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: { name: bot, namespace: guarded }
spec: { identityRefs: [{ kind: ServiceAccount, name: default }] }
";
const OPEN: &str = "apiVersion: policy.linkerd.io/v1beta1
kind: ServerAuthorization
metadata: { name: anybody, namespace: guarded }
spec: { server: { name: web }, client: { unauthenticated: true } }
";

fn an_app_lets_in_whom_its_owner_names(cluster: &Cluster) {
    // That it comes with proxies says that the webhook is open, and that certificates, destination and policy are to be had.
    let trial = "create deployment trial --image=weft/demo:test --dry-run=server --output name";
    cluster.until(trial, |_| true).unwrap();
    pods_are_given_proxies(cluster, "guarded");
    cluster.apply(&(app("guarded", "linkerd.io/inject: enabled") + &bot("guarded"))).unwrap();
    ready(cluster, "guarded", &[("emoji", "1"), ("voting", "1"), ("web", "2"), ("bot", "1")]);

    // No path of a probe, which is let in anyway.
    let url = format!("http://{}:8080/api/list", address(cluster, "guarded", "app=web"));
    eventually("an open app", || asked(cluster, &url) == "200");
    cluster.apply(GUARD).unwrap();
    eventually("nobody to be let in", || asked(cluster, &url) == "403");
    let bots = || {
        let words = "--namespace guarded logs --selector app=bot --container bot --tail 3";
        cluster.ask(words).unwrap()
    };
    eventually("the bot to be refused", || bots().lines().all(|line| line.contains("403")));
    commands::while_nobody_may(cluster);
    cluster.apply(GRANT).unwrap();
    eventually("the bot to be let in", || !bots().contains("403"));
    commands::while_the_bot_may(cluster);
    assert_eq!(asked(cluster, &url), "403", "it alone");
    cluster.apply(OPEN).unwrap();
    eventually("everybody in the cluster's networks", || asked(cluster, &url) == "200");
    cluster.ask("--namespace guarded delete serverauthorization anybody").unwrap();
    eventually("nobody else again", || asked(cluster, &url) == "403");
    cluster.ask("--namespace guarded delete server web").unwrap();
    eventually("an open app again", || asked(cluster, &url) == "200");
}

/// Everybody may ask for what follows the route `open`, of either group, and nobody for the rest.
fn routed(group: &str, version: &str, path: &str, labels: &str) -> String {
    format!(
        "apiVersion: {group}/{version}
kind: HTTPRoute
metadata: {{ name: open, namespace: guarded, labels: {{ {labels} }} }}
spec:
  parentRefs: [{{ group: policy.linkerd.io, kind: Server, name: web }}]
  rules: [{{ matches: [{{ path: {{ type: Exact, value: {path} }} }}] }}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {{ name: open, namespace: guarded }}
spec:
  targetRef: {{ group: {group}, kind: HTTPRoute, name: open }}
  requiredAuthenticationRefs: []
"
    )
}

fn routes_say_who_may_ask_for_what(cluster: &Cluster) {
    let url = |path: &str| format!("http://{}:8080{path}", address(cluster, "guarded", "app=web"));
    for (group, version) in [("policy.linkerd.io", "v1beta3"), ("gateway.networking.k8s.io", "v1")] {
        let resource = format!("httproutes.{group}");
        let condition = |field: &str| {
            let path = format!("jsonpath={{.status.parents[0].conditions[0].{field}}}");
            cluster.ask(&format!("--namespace guarded get {resource} open --output {path}")).unwrap()
        };
        eventually("an open app", || asked(cluster, &url("/")) == "200");
        cluster.apply(&(GUARD.to_owned() + "---\n" + &routed(group, version, "/", ""))).unwrap();
        eventually("the rest to have no route", || asked(cluster, &url("/other")) == "404");
        eventually("the route to be open", || asked(cluster, &url("/")) == "200");
        eventually("the route to be accepted", || condition("status") == "True");
        assert_eq!((condition("reason"), condition("observedGeneration")), ("Accepted".to_owned(), "1".to_owned()));
        cluster.ask("--namespace guarded delete authorizationpolicy open").unwrap();
        eventually("nobody to be let in", || asked(cluster, &url("/")) == "403");

        // The webhook names the field; it does not look at namespaces that say so.
        let told = cluster.apply(&routed(group, version, "/%61", "a: b")).unwrap_err().to_string();
        assert!(told.contains("spec.rules[0].matches[0].path.value"), "{told}");
        if group == "policy.linkerd.io" {
            // Of a change it looks at both sides: it does not see what is such from its first moment.
            let delete = format!("--namespace guarded delete {resource} open");
            cluster.ask(&delete).unwrap();
            let looked_at = "label namespace guarded config.linkerd.io/admission-webhooks";
            cluster.ask(&format!("{looked_at}=disabled")).unwrap();
            eventually("what is wrong to slip in", || cluster.apply(&routed(group, version, "/%61", "a: b")).is_ok());
            cluster.ask(&format!("{looked_at}-")).unwrap();
            eventually("what slipped in to say so", || condition("reason") == "UnsupportedValue");
            let check = weft(cluster, &["check", "--expected-version=test"]);
            let told = String::from_utf8(check.stdout).unwrap();
            assert!(told.contains("guarded/open: spec.rules[0].matches[0].path.value"), "{told}");
            cluster.ask(&delete).unwrap();
            cluster.apply(&routed(group, version, "/", "a: b")).unwrap();
        }
        cluster.ask("--namespace guarded delete server web").unwrap();
        eventually("the route to have no parent", || condition("reason") == "NoMatchingParent");
        cluster.ask(&format!("--namespace guarded delete {resource} open")).unwrap();
    }
    a_limit_counts_requests(cluster, &url("/"));
}

fn a_limit_counts_requests(cluster: &Cluster, url: &str) {
    let limit = "---
apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPLocalRateLimitPolicy
metadata: { name: web, namespace: guarded }
spec: { targetRef: { group: policy.linkerd.io, kind: Server, name: web }, total: { requestsPerSecond: 1 } }
";
    cluster.apply(&(GUARD.to_owned() + limit + "---\n" + OPEN)).unwrap();
    let often = format!("{url}?n=[1-20]");
    eventually("somebody to ask too often", || asked(cluster, &often).contains("429"));
    let path = "jsonpath={.status.conditions[0].reason}";
    let reason =
        || cluster.ask(&format!("--namespace guarded get httplocalratelimitpolicy web --output {path}")).unwrap();
    eventually("the limit to be accepted", || reason() == "Accepted");
    cluster.ask("--namespace guarded delete httplocalratelimitpolicy,server,serverauthorization --all").unwrap();
    eventually("an open app again", || asked(cluster, url) == "200");
}
