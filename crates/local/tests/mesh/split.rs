//! Routes of Services: whom clients are sent to, by share, header and path, while they ask over one connection.

use crate::harness::{Mesh, SERVER, deployment, service, users};

/// Asks 500 times for `/` and says whose answers it got, by the names of workloads or by status; then 100 times for `/gone`; then
/// what it gets with a header, and for `/old`.
const TALLY: &str = r#"
import collections, http.client, json, time
connection = http.client.HTTPConnection("web", timeout=20)
def ask(path, headers={}):
    global connection
    while True:
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read().decode()
            if answer.status == 200:
                return body.split("-")[0]
            return f"{answer.status} {answer.getheader('location') or answer.getheader('l5d-proxy-error')}"
        except Exception as error:
            print("BAD", repr(error), flush=True)
            connection = http.client.HTTPConnection("web", timeout=20)
            time.sleep(0.1)
def tally(path, times):
    return dict(collections.Counter(ask(path) for _ in range(times)))
while True:
    print("NOW", json.dumps({
        "all": tally("/", 500), "gone": tally("/gone", 100),
        "canary": ask("/", {"x-canary": "yes"}), "old": ask("/old"),
    }), flush=True)
    time.sleep(0.1)
"#;

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules:
  - backendRefs: [{name: web, port: 80, weight: 90}, {name: next, port: 80, weight: 10}]
  - matches: [{headers: [{name: x-canary, value: 'yes'}]}]
    backendRefs: [{name: next, port: 80}]
  - matches: [{path: {type: Exact, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /new}}}]
  - matches: [{path: {type: Exact, value: /gone}}]
    backendRefs: [{name: web, port: 80}, {name: gone, port: 80}]
";
const FILE: &str = "manifests/route.yaml";

/// The newest that the client has said.
fn newest(mesh: &Mesh) -> Option<serde_json::Value> {
    let lines = mesh.output("client");
    let line = lines.iter().rev().find_map(|line| line.strip_prefix("NOW "))?;
    Some(serde_json::from_str(line).unwrap())
}

/// Until a whole round of the client shows it.
fn until(mesh: &mut Mesh, what: &str, holds: impl Fn(&serde_json::Value) -> bool) {
    mesh.until(what, |mesh| newest(mesh).is_some_and(|now| holds(&now)));
}

fn of(now: &serde_json::Value, path: &str, whose: &str) -> u64 {
    now[path][whose].as_u64().unwrap_or_default()
}

#[test]
fn clients_follow_the_routes_of_a_service_and_what_was_before_comes_back() {
    for user in users() {
        let app = |name: &str| {
            let ready = "ports: [{containerPort: 8000, name: http}]\n          readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}";
            deployment(name, 1, "", "[python3, DIR/server.py]", ready)
                + &service(name, "", "ports: [{port: 80, targetPort: http}]")
        };
        let client = deployment("client", 1, "", "[python3, DIR/tally.py]", "");
        let manifests = app("web") + &app("next") + &client;
        let mut mesh = Mesh::up(user, &manifests, &[("server.py", SERVER), ("tally.py", TALLY)], &[]);
        mesh.ready(&["web", "next", "client"]);
        let before = |now: &serde_json::Value| {
            let one = |name: &str| now[name] == "web";
            of(now, "all", "web") == 500 && of(now, "gone", "web") == 100 && one("canary") && one("old")
        };
        until(&mut mesh, "an app without routes", before);

        mesh.write(FILE, ROUTE);
        until(&mut mesh, "a tenth of 500 requests to go to the next one", |now| {
            (425..=475).contains(&of(now, "all", "web"))
                && of(now, "all", "web") + of(now, "all", "next") == 500
                && now["canary"] == "next"
        });
        until(&mut mesh, "a redirect", |now| now["old"] == "302 http://web/new");
        let none = "500 there is no Service shop/gone [BACKEND_INVALID]";
        until(&mut mesh, "half of the requests to go to nobody", |now| {
            (30..=70).contains(&of(now, "gone", none)) && of(now, "gone", none) + of(now, "gone", "web") == 100
        });

        // It comes, without a change of the route.
        let gone = service("gone", "", "ports: [{port: 80, targetPort: 8000}]").replace("app: gone", "app: next");
        mesh.write("manifests/gone.yaml", &gone);
        until(&mut mesh, "somebody to be there", |now| {
            of(now, "gone", "next") > 0 && of(now, "gone", "next") + of(now, "gone", "web") == 100
        });
        std::fs::remove_file(mesh.dir.join(FILE)).unwrap();
        until(&mut mesh, "an app without routes again", before);
        let bad: Vec<_> = mesh.output("client").into_iter().filter(|line| line.starts_with("BAD")).collect();
        assert!(bad.is_empty(), "{user:?}: {bad:?}");
    }
}
