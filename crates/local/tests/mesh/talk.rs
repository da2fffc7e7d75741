//! Programs reach each other by name, through two proxies, over mutual TLS.

use crate::harness::{Mesh, SERVER, User, WATCH, deployment, get, service, users};

/// Asks once for each argument, as often as it takes to be answered, and says what it got.
const ASK: &str = r#"
import sys, time, urllib.request
for url in sys.argv[1:]:
    for attempt in range(50):
        try:
            print("ANSWER", url, urllib.request.urlopen(url, timeout=5).read().decode(), flush=True)
            break
        except Exception as error:
            last = error
            time.sleep(0.1)
    else:
        print("ANSWER", url, repr(last), getattr(last, "headers", {}).get("l5d-proxy-error"), flush=True)
time.sleep(1000)
"#;

/// Echoes bytes; argv[1] is greeted first, as servers do that speak before their clients.
const ECHO: &str = r#"
import socket, threading
server = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
def serve(connection):
    connection.sendall(b"hello\n")
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.close()
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"#;

const CONVERSE: &str = r#"
import socket, sys, time
while True:
    try:
        connection = socket.create_connection((sys.argv[1], 7000), timeout=5)
        assert connection.recv(6) == b"hello\n"
        sent = bytes(range(256)) * 4096
        import threading
        threading.Thread(target=lambda: (connection.sendall(sent), connection.shutdown(socket.SHUT_WR))).start()
        got = b""
        while part := connection.recv(65536):
            got += part
        print("ECHO", got == sent, flush=True)
        break
    except Exception as error:
        print("again", repr(error), flush=True)
        time.sleep(0.2)
time.sleep(1000)
"#;

fn web(annotations: &str) -> String {
    deployment(
        "web",
        2,
        annotations,
        "[python3, DIR/server.py]",
        "ports: [{containerPort: 8000, name: http}]\n          readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}",
    ) + &service("web", "", "ports: [{port: 80, targetPort: http}]")
}

#[test]
fn by_name_over_mutual_tls() {
    for user in users() {
        let client = deployment(
            "client",
            1,
            "",
            "[python3, DIR/ask.py, 'http://web/short', 'http://web.shop/namespace', 'http://web.shop.svc.cluster.local/full', 'http://dual/six', 'http://headless:8000/pods']",
            "",
        );
        let services = service("dual", "", "ipFamilies: [IPv6], ports: [{port: 80, targetPort: 8000}]")
            .replace("app: dual", "app: web")
            + &service("headless", "", "clusterIP: None, ports: [{port: 8000}]").replace("app: headless", "app: web");
        let manifests = web("") + &services + &client;
        let mut mesh =
            Mesh::up(user, &manifests, &[("server.py", SERVER), ("ask.py", ASK)], &["--publish", "0:shop/web:80"]);
        mesh.ready(&["web", "client"]);
        for (url, path) in [
            ("http://web/short", "/short"),
            ("http://web.shop/namespace", "/namespace"),
            ("http://web.shop.svc.cluster.local/full", "/full"),
            ("http://dual/six", "/six"),
            ("http://headless:8000/pods", "/pods"),
        ] {
            let answer = mesh.said("client", &format!("ANSWER {url} "));
            let identity = "client=client.shop.serviceaccount.identity.linkerd.cluster.local";
            assert!(
                answer.starts_with("web-") && answer.ends_with(&format!("{path} {identity}")),
                "{user:?} {url}: {answer}"
            );
        }
        let published = mesh.status().published[0].listen;
        assert!(published.ip().is_loopback());
        let answer = get(published, "/host").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(" /host client=none"), "{answer}");
    }
}

#[test]
fn grpc_and_bytes() {
    for user in users() {
        let opaque = "config.linkerd.io/opaque-ports: '7000'";
        let manifests = deployment(
            "echo",
            1,
            opaque,
            "[python3, DIR/echo.py]",
            "readinessProbe: {tcpSocket: {port: 7000}, periodSeconds: 1}",
        ) + &service("echo", opaque, "ports: [{port: 7000}]")
            + &deployment("client", 1, "", "[python3, DIR/converse.py, echo]", "")
            + &deployment(
                "emoji",
                2,
                "",
                "[weft-demo, emoji, --port, '8080']",
                "readinessProbe: {grpc: {port: 8080}, periodSeconds: 1}",
            )
            .replace("grpc: {port: 8080}", "tcpSocket: {port: 8080}")
            + &service("emoji", "", "ports: [{port: 8080}]")
            + &deployment(
                "voting",
                1,
                "",
                "[weft-demo, voting, --port, '8080']",
                "readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}",
            )
            + &service("voting", "", "ports: [{port: 8080}]")
            + &deployment(
                "page",
                1,
                "",
                "[weft-demo, web, --port, '8000', --emoji, 'emoji:8080', --voting, 'voting:8080']",
                "readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1}",
            )
            + &service("page", "", "ports: [{port: 80, targetPort: 8000}]");
        let files = [("echo.py", ECHO), ("converse.py", CONVERSE)];
        let mut mesh = Mesh::up(user, &manifests, &files, &["--publish", "0:shop/page:80"]);
        mesh.ready(&["echo", "client", "emoji", "voting", "page"]);
        assert_eq!(mesh.said("client", "ECHO"), "True", "{user:?}");
        let published = mesh.status().published[0].listen;
        let list = get(published, "/api/list").unwrap();
        assert!(list.starts_with("HTTP/1.1 200") && list.contains(":doughnut:"), "{user:?} {list}");
        let vote = get(published, "/api/vote?choice=:doughnut:").unwrap();
        assert!(vote.starts_with("HTTP/1.1 500"), "{user:?} {vote}");
    }
}

/// A pod that is not in the mesh reaches cluster IPs by rules, and is let in or not by the server's policy.
#[test]
fn strangers_are_refused_where_the_policy_says_so() {
    for user in users() {
        let ask = "[python3, DIR/ask.py, 'http://web/from']";
        let manifests = web("config.linkerd.io/default-inbound-policy: all-authenticated")
            + &web("")
                .replace("name: web", "name: open")
                .replace("app: web", "app: open")
                .replace("serviceAccountName: web", "serviceAccountName: open")
            + &deployment("inside", 1, "", ask, "")
            + &deployment(
                "outside",
                1,
                "linkerd.io/inject: disabled",
                "[python3, DIR/ask.py, 'http://open/from', 'http://web/from']",
                "",
            );
        let mut mesh = Mesh::up(user, &manifests, &[("server.py", SERVER), ("ask.py", ASK)], &[]);
        mesh.ready(&["web", "open", "inside", "outside"]);
        let inside = mesh.said("inside", "ANSWER http://web/from ");
        assert!(inside.contains("client=inside.shop."), "{user:?} {inside}");
        let open = mesh.said("outside", "ANSWER http://open/from ");
        assert!(open.contains("client=none"), "{user:?} {open}");
        let refused = mesh.said("outside", "ANSWER http://web/from ");
        assert!(refused.contains("403"), "{user:?} {refused}");
    }
}

/// Objects of the mesh's own kinds on disk hold like those of a cluster, as they come and go.
#[test]
fn who_is_let_in_follows_the_manifests() {
    const FILE: &str = "manifests/policy.yaml";
    const CLOSED: &str = "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, port: http}
";
    const GRANT: &str = "---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: bot, namespace: shop}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: web}
  requiredAuthenticationRefs: [{kind: ServiceAccount, name: bot}]
";
    // Not `/`, which is the probe's: probes are let in whatever the policy is.
    let client = |name: &str| deployment(name, 1, "", "[python3, DIR/watch.py, 'http://web/asked']", "");
    let files = [("server.py", SERVER), ("watch.py", WATCH)];
    let mut mesh = Mesh::up(User::Own, &(web("") + &client("bot") + &client("guest")), &files, &[]);
    mesh.ready(&["web", "bot", "guest"]);
    let gets = |mesh: &Mesh, name: &str, status: &str| {
        mesh.output(name).iter().rfind(|line| line.starts_with("NOW ")).is_some_and(|line| line[4..] == *status)
    };
    mesh.until("an open app", |mesh| gets(mesh, "bot", "200") && gets(mesh, "guest", "200"));
    mesh.write(FILE, CLOSED);
    mesh.until("nobody to be let in", |mesh| gets(mesh, "bot", "403") && gets(mesh, "guest", "403"));
    mesh.write(FILE, &(CLOSED.to_owned() + GRANT));
    mesh.until("the bot to be let in", |mesh| gets(mesh, "bot", "200"));
    assert!(gets(&mesh, "guest", "403"), "it alone");
    std::fs::remove_file(mesh.dir.join(FILE)).unwrap();
    mesh.until("an open app again", |mesh| gets(mesh, "guest", "200"));
}

/// Routes on disk say who may ask for what, and a limit how often.
#[test]
fn routes_and_limits_follow_the_manifests() {
    const FILE: &str = "manifests/policy.yaml";
    const ROUTES: &str = "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, port: http, proxyProtocol: HTTP/1}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: rest, namespace: shop}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: web}]
---
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: asked, namespace: shop}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: web}]
  rules:
  - matches: [{path: {type: Exact, value: /asked}, method: GET}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: asked, namespace: shop}
spec:
  targetRef: {group: policy.linkerd.io, kind: HTTPRoute, name: asked}
  requiredAuthenticationRefs: [{kind: ServiceAccount, name: bot}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: rest, namespace: shop}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: HTTPRoute, name: rest}
  requiredAuthenticationRefs: []
";
    const LIMIT: &str = "---
apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPLocalRateLimitPolicy
metadata: {name: web, namespace: shop}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: web}
  identity: {requestsPerSecond: 1}
";
    let client =
        |name: &str, path: &str| deployment(name, 1, "", &format!("[python3, DIR/watch.py, 'http://web/{path}']"), "");
    let files = [("server.py", SERVER), ("watch.py", WATCH)];
    let clients = client("bot", "asked") + &client("guest", "asked") + &client("other", "other");
    let mut mesh = Mesh::up(User::Own, &(web("") + &clients), &files, &[]);
    mesh.ready(&["web", "bot", "guest", "other"]);
    let gets = |mesh: &Mesh, name: &str, status: &str| {
        mesh.output(name).iter().rfind(|line| line.starts_with("NOW ")).is_some_and(|line| line[4..] == *status)
    };
    mesh.until("an open app", |mesh| gets(mesh, "bot", "200") && gets(mesh, "guest", "200"));
    mesh.write(FILE, ROUTES);
    mesh.until("the guest to be refused", |mesh| gets(mesh, "guest", "403"));
    mesh.until("the others to be let in", |mesh| gets(mesh, "bot", "200") && gets(mesh, "other", "200"));
    mesh.write(FILE, &(ROUTES.to_owned() + LIMIT));
    mesh.until("the bot to ask too often", |mesh| gets(mesh, "bot", "429"));
    std::fs::remove_file(mesh.dir.join(FILE)).unwrap();
    mesh.until("an open app again", |mesh| gets(mesh, "bot", "200") && gets(mesh, "guest", "200"));
}

/// Connections that annotations take out of the mesh go around both proxies.
#[test]
fn skipped_ports_pass_no_proxy() {
    for user in users() {
        let around = deployment(
            "around",
            1,
            "config.linkerd.io/skip-outbound-ports: '80'",
            "[python3, DIR/ask.py, 'http://web/around']",
            "",
        );
        let through = deployment("through", 1, "", "[python3, DIR/ask.py, 'http://web/through']", "");
        let manifests = web("config.linkerd.io/skip-inbound-ports: '8000'") + &around + &through;
        let mut mesh = Mesh::up(user, &manifests, &[("server.py", SERVER), ("ask.py", ASK)], &[]);
        mesh.ready(&["web", "around", "through"]);
        for name in ["around", "through"] {
            let answer = mesh.said(name, &format!("ANSWER http://web/{name} "));
            assert!(answer.starts_with("web-") && answer.ends_with("client=none"), "{user:?} {name}: {answer}");
        }
    }
}

/// The users of the machine are told apart even where the test itself is root.
#[test]
fn an_ordinary_user_is_among_the_users() {
    assert!(users().contains(&User::Own));
    assert_eq!(users().contains(&User::Ordinary), nix::unistd::geteuid().is_root());
}
