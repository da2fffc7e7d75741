//! What is said of a request before it is sent is what then happens to it; and what the control plane tells proxies can be looked at.

use crate::harness::{Mesh, SERVER, User, WATCH, deployment, service, weft};

fn policies(account: &str) -> String {
    format!(
        "---
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {{name: web, namespace: shop}}
spec: {{podSelector: {{matchLabels: {{app: web}}}}, port: http, proxyProtocol: HTTP/1}}
---
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {{name: own, namespace: shop}}
spec: {{podSelector: {{matchLabels: {{app: own}}}}, port: http, proxyProtocol: HTTP/1}}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {{name: one, namespace: shop}}
spec:
  targetRef: {{group: policy.linkerd.io, kind: Server, name: web}}
  requiredAuthenticationRefs: [{{kind: ServiceAccount, name: {account}}}]
"
    )
}

fn manifests(account: &str) -> String {
    let client =
        |name: &str, annotations: &str| deployment(name, 1, annotations, "[python3, DIR/watch.py, 'http://web/x']", "");
    let web = "ports: [{containerPort: 8000, name: http}]
          readinessProbe: {httpGet: {path: '/health;full/a b', port: http}, periodSeconds: 1}";
    deployment("web", 2, "", "[python3, DIR/server.py]", web)
        + &service("web", "", "ports: [{port: 80, targetPort: http}]")
        + &deployment(
            "own",
            1,
            "",
            "[python3, DIR/own.py, 'http://own/x']",
            "ports: [{containerPort: 8000, name: http}]",
        )
        + &service("own", "", "ports: [{port: 80, targetPort: http}]")
        + &client("bot", "")
        + &client("cat", "")
        + &client("plain", "linkerd.io/inject: disabled")
        + &policies(account)
}

/// The status, and everything that was said.
fn said(mesh: &Mesh, words: &[&str]) -> (Option<i32>, String) {
    let output = weft(User::Own, &mesh.state).args(words).current_dir("/").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

fn now(mesh: &Mesh, client: &str) -> Option<String> {
    mesh.output(client).into_iter().rev().find_map(|line| line.strip_prefix("NOW ").map(str::to_owned))
}

#[test]
fn what_is_said_is_what_happens() {
    let inside = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let own = format!("import os\nif os.fork() == 0:\n{}else:\n{}", inside(SERVER), inside(WATCH));
    let files = [("server.py", SERVER), ("watch.py", WATCH), ("own.py", &own)];
    let mut mesh = Mesh::up(User::Own, &manifests("bot"), &files, &[]);
    mesh.ready(&["web", "own", "bot", "cat", "plain"]);
    // Its Server lets in nobody, but it comes to itself past its proxy.
    mesh.until("own to get 200", |mesh| now(mesh, "own").as_deref() == Some("200"));
    for (client, code) in [("own", 0), ("bot", 1)] {
        let who = format!("deploy/{client}");
        let (said, text) = said(&mesh, &["policy", "can", "-n", "shop", &who, "svc/own:80", "GET", "/x"]);
        assert_eq!(said, Some(code), "{client}: {text}");
    }
    // The pods are ready by a probe that is let in as it is written.
    for (path, code) in [("/health;full/a%20b", 0), ("/health/a%20b", 1)] {
        let (said, text) = said(&mesh, &["policy", "can", "-n", "shop", "deploy/plain", "svc/web:80", "GET", path]);
        assert_eq!(said, Some(code), "{path}: {text}");
    }
    for allowed in ["bot", "cat"] {
        mesh.write("manifests/app.yaml", &manifests(allowed));
        for client in ["bot", "cat", "plain"] {
            let (status, code) = if client == allowed { ("200", 0) } else { ("403", 1) };
            mesh.until(&format!("{client} to get {status}"), |mesh| now(mesh, client).as_deref() == Some(status));
            let who = format!("deploy/{client}");
            let (said, text) = said(&mesh, &["policy", "can", "-n", "shop", &who, "svc/web:80", "GET", "/x"]);
            assert_eq!(said, Some(code), "{client}: {text}");
            let names = if client == allowed {
                "by       AuthorizationPolicy/one"
            } else {
                "nearest  AuthorizationPolicy/one: "
            };
            assert!(text.contains(names), "{client}: {text}");
        }
    }
    let cases = mesh.dir.join("cases.yaml");
    let text = "namespace: shop\ncases:\n- {client: deploy/cat, target: 'svc/web:80', expect: allow, by: one}\n- {client: deploy/plain, target: 'svc/web:80', expect: deny}\n";
    std::fs::write(&cases, text).unwrap();
    let (code, text) = said(&mesh, &["policy", "test", "-f", cases.to_str().unwrap()]);
    assert!(code == Some(0) && text.contains("2 cases: 2 as expected"), "{text}");
    let (code, text) = said(&mesh, &["authz", "-n", "shop", "deploy/web"]);
    assert!(
        code == Some(0) && text.lines().nth(1).is_some_and(|l| l.split_whitespace().eq(["*", "web", "one"])),
        "{text}"
    );
    let (code, text) = said(&mesh, &["get", "servers", "-n", "shop"]);
    let row = ["shop", "server/web"];
    assert!(code == Some(0) && text.lines().any(|l| l.split_whitespace().eq(row)), "{text}");
    let (code, text) = said(&mesh, &["get", "srv/web"]);
    assert!(code == Some(0) && text.contains("server/web"), "{text}");
    for (words, says) in [
        (&["get", "srv/nope"][..], "weft: there is no srv/nope\n"),
        (&["get", "srv/web", "-n", "other"], "weft: there is no srv/web in the namespace other\n"),
        (&["get", "srv/nope", "-o", "json"], "weft: there is no srv/nope\n"),
    ] {
        assert_eq!(said(&mesh, words), (Some(1), says.to_owned()), "{words:?}");
    }
    looked_at(&mesh);
}

/// `weft diagnostics`, of the mesh on this machine.
fn looked_at(mesh: &Mesh) {
    let web = mesh.pods("web");
    let (code, text) = said(mesh, &["diagnostics", "endpoints", "web.shop.svc.cluster.local:80"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        text.lines().next().map(|l| l.split_whitespace().collect()),
        Some(vec!["NAMESPACE", "IP", "PORT", "POD", "SERVICE"])
    );
    for pod in &web {
        let line = text.lines().find(|line| line.contains(&pod.name)).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(" 8000 ") && line.ends_with("web.shop"), "{line}");
    }
    let (code, text) = said(mesh, &["dg", "ep", "web.shop.svc.cluster.local:80", "-o", "json"]);
    let rows: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!((code, rows.as_array().map(Vec::len)), (Some(0), Some(2)), "{text}");
    assert_eq!(rows[0]["labels"]["serviceaccount"], "web");
    let (code, text) = said(mesh, &["diagnostics", "endpoints", "nowhere"]);
    assert!(code == Some(1) && text.contains("Destination API error: "), "{text}");
    let address = format!("{}:8000", web[0].ips[0]);
    let (code, text) = said(mesh, &["diagnostics", "profile", &address]);
    let profile: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!((code, &profile["endpoint"]["metric_labels"]["pod"]), (Some(0), &web[0].name.clone().into()), "{text}");
    let pod = format!("po/{}", web[0].name);
    let (code, text) = said(mesh, &["diagnostics", "policy", "-n", "shop", &pod, "8000", "-o", "json"]);
    let policy: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!((code, &policy["labels"]["name"]), (Some(0), &"web".into()), "{text}");
    let (code, text) = said(mesh, &["diagnostics", "policy", "-n", "shop", "svc/web", "80"]);
    assert!(code == Some(0) && text.contains("protocol:"), "{text}");
    let (code, text) = said(mesh, &["diagnostics", "proxy-metrics", "-n", "shop", "deploy/web", "--obfuscate"]);
    assert!(code == Some(0) && text.contains("(2 of 2)\n#\n") && text.contains("request_total{"), "{text}");
    assert!(!text.contains("client_id=\"bot.shop"), "{text}");
    let (code, text) = said(mesh, &["diagnostics", "controller-metrics"]);
    assert!(
        code == Some(0) && text.contains("# POD control-plane (1 of 1)\n# CONTAINER control-plane \n#\n"),
        "{text}"
    );
}
