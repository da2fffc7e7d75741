//! Copies of requests to another Service, as a manifest says it, and clients that do not notice whether it is there.

use crate::harness::{Mesh, deployment, service, users};

/// Answers with its name, and says what it was sent; the one named `copy` never answers.
const SERVER: &str = r#"
import http.server, os, time
name = os.environ["HOSTNAME"].split("-")[0]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        print("GOT", self.path, self.headers["host"], body, flush=True)
        if name == "copy":
            time.sleep(3600)
        self.send_response(200)
        self.send_header("content-length", str(len(name)))
        self.end_headers()
        self.wfile.write(name.encode())
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"#;

/// Sends numbers over one connection, and says which answers were others than wanted, or did not come.
const CLIENT: &str = r#"
import http.client, itertools, time
connection = http.client.HTTPConnection("web", timeout=20)
for n in itertools.count():
    try:
        connection.request("POST", f"/{n}", body=f"body {n}")
        answer = connection.getresponse()
        body = answer.read().decode()
        if answer.status != 200 or body != "web":
            print("BAD", n, answer.status, answer.getheader("l5d-proxy-error"), body, flush=True)
    except Exception as error:
        print("BAD", repr(error), flush=True)
        connection = http.client.HTTPConnection("web", timeout=20)
    time.sleep(0.1)
"#;

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules:
  - filters:
    - type: RequestMirror
      requestMirror: {backendRef: {name: copy, port: 80}}
";

fn app(name: &str) -> String {
    deployment(name, 1, "", "[python3, DIR/server.py]", "ports: [{containerPort: 8000, name: http}]")
        + &service(name, "", "ports: [{port: 80, targetPort: http}]")
}

fn got(mesh: &Mesh, name: &str) -> usize {
    mesh.output(name).iter().filter(|line| line.starts_with("GOT ")).count()
}

#[test]
fn a_mirror_sees_what_is_sent_and_clients_do_not_notice_it() {
    const COPY: &str = "manifests/copy.yaml";
    for user in users() {
        let manifests = app("web") + &deployment("client", 1, "", "[python3, DIR/client.py]", "");
        let mut mesh = Mesh::up(user, &manifests, &[("server.py", SERVER), ("client.py", CLIENT)], &[]);
        mesh.ready(&["web", "client"]);
        // There is nobody yet to be sent copies.
        mesh.write("manifests/route.yaml", ROUTE);
        let before = got(&mesh, "web");
        mesh.until("requests while there is no mirror", |mesh| got(mesh, "web") > before + 20);
        mesh.write(COPY, &app("copy"));
        mesh.ready(&["copy"]);
        mesh.until("copies", |mesh| got(mesh, "copy") > 20);
        // Whole ones, of requests that their own server has seen.
        let sent = mesh.output("web");
        let copies = mesh.output("copy");
        for copy in copies.iter().filter(|line| line.starts_with("GOT ")).take(20) {
            assert!(copy.contains(" web body ") && sent.contains(copy), "{user:?}: {copy}");
        }
        std::fs::remove_file(mesh.dir.join(COPY)).unwrap();
        let before = got(&mesh, "web");
        mesh.until("requests without the mirror", |mesh| got(mesh, "web") > before + 20);
        let bad: Vec<_> = mesh.output("client").into_iter().filter(|line| line.starts_with("BAD")).collect();
        assert!(bad.is_empty(), "{user:?}: {bad:?}");
    }
}
