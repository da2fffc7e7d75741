//! Requests that go on with another path and host, as a manifest says it and for as long as it does.

use crate::harness::{Mesh, deployment, service, users};

/// Says which path and host it was asked for.
const ECHO: &str = r#"
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = (self.path + " of " + self.headers["host"]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"#;

/// Asks for two paths over one connection again and again, and says whenever the answers are others.
const ASK: &str = r#"
import http.client, time
connection = http.client.HTTPConnection("web", timeout=20)
def ask(path):
    global connection
    while True:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
            return body if answer.status == 200 else f"{answer.status} {answer.getheader('l5d-proxy-error')}"
        except Exception as error:
            print("BAD", repr(error), flush=True)
            connection = http.client.HTTPConnection("web", timeout=20)
            time.sleep(0.1)
before = None
while True:
    now = f"{ask('/api/a%20b?c=/api')} | {ask('/apis')}"
    if now != before:
        print("NOW", now, flush=True)
        before = now
    time.sleep(0.02)
"#;

const FILE: &str = "manifests/route.yaml";

fn route(path: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web, namespace: shop}}
spec:
  parentRefs: [{{group: '', kind: Service, name: web, port: 80}}]
  rules:
  - {{}}
  - matches: [{{path: {{type: PathPrefix, value: /api}}}}]
    filters:
    - type: URLRewrite
      urlRewrite: {{hostname: inner.example, path: {path}}}
"
    )
}

fn until(mesh: &mut Mesh, wanted: &str) {
    let newest = |mesh: &Mesh| mesh.output("client").into_iter().rev().find(|line| line.starts_with("NOW "));
    mesh.until(wanted, |mesh| newest(mesh).is_some_and(|line| line == format!("NOW {wanted}")));
}

#[test]
fn requests_go_on_by_another_path_and_host_while_a_route_says_so() {
    for user in users() {
        let ready = "ports: [{containerPort: 8000, name: http}]";
        let manifests = deployment("web", 1, "", "[python3, DIR/echo.py]", ready)
            + &service("web", "", "ports: [{port: 80, targetPort: http}]")
            + &deployment("client", 1, "", "[python3, DIR/ask.py]", "");
        let mut mesh = Mesh::up(user, &manifests, &[("echo.py", ECHO), ("ask.py", ASK)], &[]);
        mesh.ready(&["web", "client"]);
        let untouched = "/api/a%20b?c=/api of web | /apis of web";
        until(&mut mesh, untouched);
        mesh.write(FILE, &route("{type: ReplacePrefixMatch, replacePrefixMatch: /v2/}"));
        until(&mut mesh, "/v2/a%20b?c=/api of inner.example | /apis of web");
        mesh.write(FILE, &route("{type: ReplacePrefixMatch, replacePrefixMatch: ''}"));
        until(&mut mesh, "/a%20b?c=/api of inner.example | /apis of web");
        mesh.write(FILE, &route("{type: ReplaceFullPath, replaceFullPath: /one}"));
        until(&mut mesh, "/one?c=/api of inner.example | /apis of web");
        std::fs::remove_file(mesh.dir.join(FILE)).unwrap();
        until(&mut mesh, untouched);
        // None of the changes was seen by halves.
        let said = mesh.output("client");
        let odd: Vec<_> =
            said.iter().filter(|line| line.starts_with("BAD") || line.contains("POLICY_UNSUPPORTED")).collect();
        assert!(odd.is_empty(), "{user:?}: {odd:?}");
    }
}
