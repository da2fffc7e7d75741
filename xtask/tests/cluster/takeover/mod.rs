//! From Linkerd and back: a control plane of Linkerd's objects is taken over under load and given back, by the commands of
//! `docs/from-linkerd.md`.
//!
//! Linkerd's own programs cannot be had here. Its objects are recorded (`linkerd.yaml`), its proxies are ours in exactly the environment that
//! its injector gives (`linkerd_proxy.yaml`), and in place of its command line stands a script that prints its objects; in place of its
//! charts, such that have these objects as they are (`helm`).

mod helm;

use crate::{
    app, cluster,
    life::{Load, PARTS, Report, eventually, load, rolled_out, told, weft},
    linkerd,
    typed::Terminal,
};
use serde_json::Value;
use std::process::{Command, Stdio};
use weft_testkit::kubernetes::{Cluster, built};

const OBJECTS: &str = include_str!("../linkerd.yaml");
const INIT: &str = include_str!("../linkerd_init.yaml");
const PROXY: &str = include_str!("../linkerd_proxy.yaml");
const VOLUMES: &str = "  - { name: linkerd-proxy-init-xtables-lock, emptyDir: {} }
  - { name: linkerd-identity-end-entity, emptyDir: { medium: Memory } }
  - name: linkerd-identity-token
    projected: { sources: [{ serviceAccountToken: { audience: identity.l5d.io, expirationSeconds: 86400, path: linkerd-identity-token } }] }
";
/// What stands in for Linkerd's programs asks for more than these do.
const STAND_IN: &str = "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: stand-in }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin }
subjects:
- { kind: ServiceAccount, name: linkerd-destination, namespace: linkerd }
- { kind: ServiceAccount, name: linkerd-identity, namespace: linkerd }
- { kind: ServiceAccount, name: linkerd-proxy-injector, namespace: linkerd }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: stand-in, namespace: linkerd }
data:
  values: |
    linkerdVersion: test
    imagePullPolicy: Never
";
const CERTIFICATES: [&str; 2] = ["linkerd-identity-issuer", "linkerd-proxy-injector-k8s-tls"];
/// Kinds of what an installation has outside of namespaces.
const EVERYWHERE: &str =
    "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations";
const APPS: [&str; 4] = ["emoji", "voting", "web", "bot"];
const BELOW_LINKERDS: &str = "rounds of weft's proxies below Linkerd's control plane";
/// What the images of a test want besides.
const IMAGES: &str = "--control-plane-version=test --image-pull-policy=Never";

/// What `weft install` would make: certificates and the arguments of processes are taken from it.
fn rendered() -> Vec<Value> {
    let mut command = Command::new(built("weft").unwrap());
    let output = command.args(["install", "--ignore-cluster", "--output=json"]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn named<'o>(objects: &'o [Value], kind: &str, name: &str) -> &'o Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// A list's lines, so much further to the right.
fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

fn api_ports(cluster: &Cluster) -> String {
    let port = "--namespace default get service kubernetes --output jsonpath={.spec.ports[0].targetPort}";
    format!("443,{}", cluster.ask(port).unwrap())
}

/// The control plane as Linkerd has it, with programs of ours.
fn control_plane(ours: &[Value], api_ports: &str) -> String {
    let secret = |name: &str, key: &str| named(ours, "Secret", name)["stringData"][key].to_string();
    let hook = named(ours, "MutatingWebhookConfiguration", "linkerd-proxy-injector-webhook-config");
    let args = |name: &str| {
        let containers = named(ours, "Deployment", name)["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        let own = containers.iter().find(|container| container["name"] != "linkerd-proxy").unwrap();
        // Where Linkerd validates is another process.
        let args = own["args"].as_array().unwrap().iter();
        Value::Array(args.filter(|arg| !arg.as_str().unwrap().contains("-validator-")).cloned().collect()).to_string()
    };
    // Longer words first: some begin alike.
    let words = [
        ("ISSUERCRT", secret("linkerd-identity-issuer", "crt.pem")),
        ("ISSUERKEY", secret("linkerd-identity-issuer", "key.pem")),
        ("HOOKCRT", secret("linkerd-proxy-injector-k8s-tls", "tls.crt")),
        ("HOOKKEY", secret("linkerd-proxy-injector-k8s-tls", "tls.key")),
        ("CABUNDLE", hook["webhooks"][0]["clientConfig"]["caBundle"].to_string()),
        ("ANCHORS", named(ours, "ConfigMap", "linkerd-identity-trust-roots")["data"]["ca-bundle.crt"].to_string()),
        ("APIPORTS", api_ports.to_owned()),
        ("ARGS_IDENTITY", args("linkerd-identity")),
        ("ARGS_DESTINATION", args("linkerd-destination")),
        ("ARGS_PROXY_INJECTOR", args("linkerd-proxy-injector")),
        ("name: CONFIG }", "name: stand-in }".to_owned()),
    ];
    let objects = OBJECTS.split_once("apiVersion").map(|(_, rest)| format!("apiVersion{rest}")).unwrap();
    let objects = words.iter().fold(objects, |text, (word, value)| text.replace(word, value));
    let init = INIT
        .replace("    # MOUNTS\n", "")
        .replace("\"4567,4568\"", &format!("\"{api_ports}\""))
        .replace("    - --subnets-to-ignore\n    - \"192.168.0.0/16\"\n", "");
    let mut all =
        objects.replace("      # INIT\n", &indented(&init, 4)).replace("      # VOLUMES\n", &indented(VOLUMES, 4));
    for component in ["identity", "destination", "proxy-injector"] {
        all = all.replace(&format!("      # PROXY {component}\n"), &indented(&of_the_control_plane(component), 4));
    }
    all
}

/// The proxy of one of the control plane's own pods.
fn of_the_control_plane(component: &str) -> String {
    let anchors = "valueFrom: { configMapKeyRef: { name: linkerd-identity-trust-roots, key: ca-bundle.crt } } }";
    let proxy = PROXY.replace("value: ANCHORS }", anchors);
    let ports = |ports: &str| ("\"8080\"".to_owned(), format!("\"{ports}\""));
    let local = |service: &str, port: u16| {
        (format!("{service}.linkerd.svc.cluster.local.:{port}"), format!("localhost.:{port}"))
    };
    let changes = match component {
        "destination" => vec![
            ports("8086,8090,8443,9443,9990,9996,9997"),
            local("linkerd-dst-headless", 8086),
            local("linkerd-policy", 8090),
        ],
        "identity" => vec![
            ports("8080,9990"),
            local("linkerd-identity-headless", 8080),
            // Beside the process that it gets its certificate from, and waited for by nobody.
            ("    restartPolicy: Always\n".to_owned(), String::new()),
            (
                "    startupProbe: { httpGet: { path: /ready, port: 4191 }, periodSeconds: 1, failureThreshold: 120 }\n".to_owned(),
                String::new(),
            ),
            (
                "    - { name: _pod_sa,".to_owned(),
                "    - { name: LINKERD2_PROXY_INBOUND_PORTS_REQUIRE_TLS, value: \"8080\" }\n    - { name: _pod_sa,".to_owned(),
            ),
        ],
        _ => vec![ports("8443,9995")],
    };
    changes.iter().fold(proxy, |text, (from, to)| {
        assert!(text.contains(from.as_str()), "{from}");
        text.replace(from, to)
    })
}

/// The voting app with a bot, whose pods Linkerd's injector has patched.
fn meshed(ours: &[Value]) -> String {
    let bot = "apiVersion: apps/v1
kind: Deployment
metadata: { name: bot, namespace: shop }
spec:
  selector: { matchLabels: { app: bot } }
  template:
    metadata: { labels: { app: bot } }
    spec:
      terminationGracePeriodSeconds: 1
      enableServiceLinks: false
      containers:
      - name: bot
        image: weft/demo:test
        imagePullPolicy: Never
        args: [bot, '--web=web.shop:80', '--rate=20']
";
    let anchors = named(ours, "ConfigMap", "linkerd-identity-trust-roots")["data"]["ca-bundle.crt"].to_string();
    let init = INIT.replace("    # MOUNTS\n", "").replace("    - --subnets-to-ignore\n    - \"192.168.0.0/16\"\n", "");
    let patch = format!(
        "      initContainers:\n{}{}      volumes:\n{}      containers:\n",
        indented(&init, 4),
        indented(&PROXY.replace("value: ANCHORS }", &format!("value: {anchors} }}")), 4),
        indented(VOLUMES, 4)
    );
    let mut all = (app("shop", "linkerd.io/inject: enabled") + bot + "---\n" + &load("shop"))
        // Linkerd's default leaves IPv6 alone.
        .replace("PreferDualStack", "SingleStack")
        .replace("      containers:\n", &patch);
    for name in APPS.into_iter().chain(["load"]) {
        let labels = format!(
            "labels: {{ app: {name}, linkerd.io/control-plane-ns: linkerd, linkerd.io/workload-ns: shop, linkerd.io/proxy-deployment: {name} }}"
        );
        all = all.replace(&format!("metadata: {{ labels: {{ app: {name} }} }}"), &format!("metadata: {{ {labels} }}"));
    }
    all
}

/// Rounds that the bot has made since its pod began, and those of them that failed, but for the votes that the app makes fail.
fn rounds(cluster: &Cluster) -> (usize, Vec<String>) {
    let words = "--namespace shop logs --selector app=bot --container bot --tail -1";
    let log = cluster.ask(words).unwrap_or_default();
    let has_failed = |line: &&str| line.contains("WARN") || line.contains("status=") && !line.contains("status=200");
    let failed = log.lines().filter(has_failed).filter(|line| !line.contains("doughnut")).map(str::to_owned).collect();
    (log.lines().count(), failed)
}

/// So many rounds more, and no request that failed since the bot began but those that were lost by then.
fn goes_on(cluster: &Cluster, what: &str, lost: &[String]) {
    let before = rounds(cluster).0;
    eventually(what, || rounds(cluster).0 > before + 100);
    let failed = rounds(cluster).1;
    assert!(failed == lost, "{what}: requests that failed: {failed:?}, by then {lost:?}\n{}", said(cluster));
}

/// What the app's servers and the proxies say of what failed, but for the votes that the app makes fail.
fn said(cluster: &Cluster) -> String {
    let of =
        |words: &str| cluster.ask(&format!("--namespace shop logs {words} --prefix --tail -1")).unwrap_or_default();
    let text =
        ["web", "emoji", "voting", "bot"].map(|app| of(&format!("--selector app={app} --all-containers"))).concat();
    let is_told = |line: &&str| !line.contains("oughnut") && !line.contains("status=200");
    text.lines().filter(is_told).map(|line| format!("{line}\n")).collect::<String>() + &told(cluster, "shop")
}

/// Certificates, keys and anchors, as the API server shows them.
fn identities(cluster: &Cluster) -> Vec<String> {
    let roots = "--namespace linkerd get configmap linkerd-identity-trust-roots --output jsonpath={.data}";
    let words = CERTIFICATES.map(|name| format!("--namespace linkerd get secret {name} --output jsonpath={{.data}}"));
    words.iter().map(String::as_str).chain([roots]).map(|words| cluster.ask(words).unwrap()).collect()
}

fn what_was_given_holds(cluster: &Cluster) {
    let lifetime = "--namespace linkerd get deployment linkerd-identity --output jsonpath={.spec.template.spec.containers[0].args}";
    assert!(cluster.ask(lifetime).unwrap().contains("48h0m0s"), "what was given");
    let labels = "--namespace linkerd get pods --selector team=mesh --output name";
    eventually("pods with the label that was given", || cluster.ask(labels).unwrap().lines().count() == 3);
    assert_eq!(makers(cluster).len(), 0, "the app's pods are Linkerd's patched ones");
}

fn names(cluster: &Cluster, words: &str) -> Vec<String> {
    cluster.ask(&format!("get {words} --output name")).unwrap().lines().map(str::to_owned).collect()
}

/// Of each of the app's pods: what its proxy was made by.
fn makers(cluster: &Cluster) -> Vec<String> {
    // A version is its second word.
    let words = r#"--namespace shop get pods --output jsonpath={range.items[*]}{.metadata.annotations.linkerd\.io/created-by}{"\n"}{end}"#;
    cluster.ask(words).unwrap().lines().filter(|maker| !maker.is_empty()).map(str::to_owned).collect()
}

#[test]
fn a_control_plane_of_linkerds_is_taken_over_under_load_and_given_back() {
    let Some(cluster) = cluster() else { return };
    let _alone = linkerd();
    let ours = rendered();
    let before = names(cluster, EVERYWHERE);
    let gateway_api = cluster.gateway_api("standard");
    cluster.ask(&format!("apply --server-side --filename {}", gateway_api.display())).unwrap();
    let linkerds = control_plane(&ours, &api_ports(cluster));
    let terminal = Terminal::of(cluster, "takeover", &["docs/from-linkerd.md"]);
    let kinds = weft(cluster, &["install", "--crds"]);
    assert!(kinds.status.success(), "{kinds:?}");
    let kinds = String::from_utf8(kinds.stdout).unwrap();

    // Linkerd is there, and an app in its mesh.
    cluster.apply(&kinds).unwrap();
    cluster.apply(&linkerds).unwrap();
    cluster.apply(STAND_IN).unwrap();
    rolled_out(cluster, "linkerd", &PARTS);
    cluster.apply(&meshed(&ours)).unwrap();
    rolled_out(cluster, "shop", &APPS);
    goes_on(cluster, "rounds below Linkerd", &[]);
    is_meshed(cluster);
    let kept = identities(cluster);
    let (mut load, mut report) = (Load::follow(cluster, "shop"), Report::default());

    let refused = weft(cluster, &["install"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{text}");
    assert!(text.contains("weft upgrade -L linkerd --crds | kubectl apply -f -"), "{text}");
    let refused = weft(cluster, &["prune"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && text.contains("is Linkerd's, and all of it would be taken for left-overs"),
        "{text}"
    );

    // There.
    load.through("Linkerd's control plane taken over", &mut report, || {
        is_taken_over(cluster, &terminal);
        goes_on(cluster, "rounds of Linkerd's proxies below weft", &[]);
    });
    is_meshed(cluster);
    assert_eq!(identities(cluster), kept, "certificates and anchors are kept");
    what_was_given_holds(cluster);

    shows_who_it_is(cluster);
    let lost = is_injected_anew(cluster, &terminal);
    load.follow_the_newest();
    load.through("the control plane given back to Linkerd", &mut report, || {
        is_given_back(cluster, &terminal, &kinds, &linkerds);
        goes_on(cluster, BELOW_LINKERDS, &lost);
    });
    is_linkerds_again(cluster);
    terminal.is_complete();

    // Away with all of it, whoever's it is.
    cluster.ask("delete namespace shop").unwrap();
    let remains = weft(cluster, &["uninstall"]);
    assert!(remains.status.success(), "{remains:?}");
    delete(cluster, &String::from_utf8(remains.stdout).unwrap());
    cluster.ask("delete clusterrolebinding stand-in").unwrap();
    assert_eq!(names(cluster, EVERYWHERE), before, "the cluster is as it was");
}

fn is_taken_over(cluster: &Cluster, terminal: &Terminal<'_>) {
    terminal.types("kubectl -n linkerd get configmaps,secrets -o yaml > linkerd-before.yaml", "");
    terminal.types("weft upgrade --crds | kubectl apply -f -", "");
    let (_, said) = terminal.types_and_hears("weft upgrade | kubectl apply -f -", IMAGES);
    for left_out in
        ["heartbeatSchedule: ", "policyController.logLevel: ", "proxy.image.name: it names an image of Linkerd's"]
    {
        assert!(said.contains(left_out), "{left_out}: {said}");
    }
    rolled_out(cluster, "linkerd", &PARTS);
    let pruned = terminal.types("weft prune | kubectl delete -f -", "--expected-version=test");
    for gone in ["linkerd-heartbeat", "remote-discovery"] {
        assert!(pruned.contains(&format!("\"{gone}\"")), "{gone}: {pruned}");
    }
    assert!(!pruned.contains("webhook-config"), "the webhooks are weft's now: {pruned}");
    let check = terminal.types("weft check", "--expected-version=test");
    assert!(check.contains("Status check results are √"), "{check}");
}

/// Through the API server, as the certificate of Linkerd's pods is seen too.
fn shows_who_it_is(cluster: &Cluster) {
    let shown = weft(cluster, &["identity", "--namespace=shop", "--selector=app=web"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success(), "{text}{}", String::from_utf8_lossy(&shown.stderr));
    assert!(text.contains("(2 of 2)"), "{text}");
    let name = "DNS:default.shop.serviceaccount.identity.linkerd.cluster.local";
    assert_eq!(text.matches(name).count(), 2, "{text}");
}

/// The templates ask for proxies and have none, as they would have been before Linkerd's injector saw their pods. What the app's own
/// end cost meanwhile, which is none of the mesh's.
fn is_injected_anew(cluster: &Cluster, terminal: &Terminal<'_>) -> Vec<String> {
    let plain = (app("shop", "linkerd.io/inject: enabled")).replace("PreferDualStack", "SingleStack");
    let trial = "--namespace shop run trial --image=weft/demo:test --dry-run=server --output jsonpath={.spec.initContainers[*].name}";
    cluster.until(trial, |names| names.contains("linkerd-proxy")).unwrap();
    cluster.apply(&plain).unwrap();
    terminal.types("kubectl -n shop rollout restart deployment", "");
    rolled_out(cluster, "shop", &APPS);
    // What is told to end is gone.
    cluster.until("--namespace shop get pods --output name", |names| names.lines().count() == 6).unwrap();
    let lost = rounds(cluster).1;
    goes_on(cluster, "rounds between weft's proxies and one of Linkerd's", &lost);
    // The bot and the load are still Linkerd's, and ask weft's.
    let of_weft = makers(cluster);
    assert!(of_weft.len() == 4 && of_weft.iter().all(|maker| maker.contains("proxy-injector")), "{of_weft:?}");
    is_meshed(cluster);
    let check = terminal.types("weft check --proxy", "--expected-version=test");
    assert!(check.contains("Status check results are √"), "{check}");
    lost
}

fn is_given_back(cluster: &Cluster, terminal: &Terminal<'_>, kinds: &str, linkerds: &str) {
    terminal.has("kinds.yaml", kinds);
    terminal.has("linkerds.yaml", linkerds);
    terminal.installs(
        "linkerd",
        "#!/bin/sh
# Stands in for Linkerd's command line.
case \"$*\" in
'upgrade --crds') cat kinds.yaml ;;
'upgrade --from-manifests linkerd-before.yaml') grep -q 'heartbeatSchedule\\|linkerd-config-overrides' linkerd-before.yaml && cat linkerds.yaml ;;
*) exit 1 ;;
esac
",
    );
    terminal.types("linkerd upgrade --crds | kubectl apply -f -", "");
    terminal.types("linkerd upgrade --from-manifests linkerd-before.yaml | kubectl apply -f -", "");
    terminal.types("kubectl -n linkerd rollout status deployment", "");
    terminal.types("kubectl -n linkerd delete servers,serverauthorizations -l linkerd.io/control-plane-ns", "");
    rolled_out(cluster, "linkerd", &PARTS);
}

fn is_linkerds_again(cluster: &Cluster) {
    is_meshed(cluster);
    let containers = "--namespace linkerd get deployment linkerd-destination --output jsonpath={.spec.template.spec.containers[*].name}";
    assert_eq!(cluster.ask(containers).unwrap(), "destination sp-validator policy");
    let mine = "--namespace linkerd get configmap linkerd-config --output jsonpath={.data.weft-version}";
    assert_eq!(cluster.ask(mine).unwrap(), "", "nothing says that it is weft's");
    let hooks = names(cluster, "validatingwebhookconfigurations");
    assert!(hooks.iter().any(|name| name.ends_with("linkerd-sp-validator-webhook-config")), "{hooks:?}");
}

/// Web is asked over the mesh alone, by a client that has proven who it is.
fn is_meshed(cluster: &Cluster) {
    let ip = "--namespace shop get pods --selector app=web --output jsonpath={.items[0].status.podIP}";
    let count = || {
        let url = format!("http://{}:4191/metrics", cluster.ask(ip).unwrap());
        let output = cluster.on_node(&["curl", "--silent", "--show-error", "--max-time", "60", &url]).output().unwrap();
        let client = "client_id=\"default.shop.serviceaccount.identity.linkerd.cluster.local\"";
        let text = String::from_utf8(output.stdout).unwrap();
        let of = |line: &&str| line.starts_with("request_total{") && line.contains("direction=\"inbound\"");
        let number = |line: &str| line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        let proven = |line: &&str| line.contains("tls=\"true\"") && line.contains(client);
        text.lines().filter(of).filter(proven).map(number).sum::<f64>()
    };
    let before = count();
    eventually("requests whose client is proven", || count() > before);
}

fn delete(cluster: &Cluster, manifests: &str) {
    use std::io::Write;
    let mut command = cluster.kubectl();
    command.args(["delete", "--filename=-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}
