//! Routes of connections: where bytes and TLS go by them, among the programs of the mesh and out of it.

use crate::{
    harness::{Mesh, User, deployment, service, weft},
    network::own_address,
};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
};

/// Says who it is to whoever says something, and what that began with.
const WHO: &str = r#"
import os, socket, threading
server = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
def serve(connection):
    try:
        while data := connection.recv(65536):
            connection.sendall(f"{os.environ['HOSTNAME'].split('-')[0]}:{data[0]:02x}".encode())
    finally:
        connection.close()
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"#;

/// Connects again and again to each NAME=HOST:PORT, with a ClientHello for a server's name if the argument ends in one (@SERVER), and
/// says who has answered.
const ASK: &str = r#"
import json, socket, ssl, sys, time
def hello(server):
    given, made = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(given, made, server_hostname=server)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return made.read()
def ask(host, port, server):
    try:
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(hello(server) if server else bytes(5))
            return connection.recv(64).decode() or "no"
    except OSError:
        return "no"
def parsed(argument):
    name, at = argument.split("=")
    at, _, server = at.partition("@")
    return (name, *at.rsplit(":", 1), server)
targets = [parsed(argument) for argument in sys.argv[1:]]
while True:
    print("NOW", json.dumps({name: ask(*rest) for name, *rest in targets}), flush=True)
    time.sleep(0.1)
"#;

/// Outside of the mesh: answers `pong` to whatever is said first, and stays until the client leaves.
fn pong() -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::new(own_address(), 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut said = [0; 4096];
                if stream.read(&mut said).is_ok_and(|n| n > 0) && stream.write_all(b"pong").is_ok() {
                    while stream.read(&mut said).is_ok_and(|n| n > 0) {}
                }
            });
        }
    });
    addr
}

fn newest(mesh: &Mesh) -> Option<Value> {
    let lines = mesh.output("client");
    let line = lines.iter().rev().find_map(|line| line.strip_prefix("NOW "))?;
    Some(serde_json::from_str(line).unwrap())
}

/// Until the client is answered so.
fn until(mesh: &mut Mesh, what: &str, expected: &[(&str, &str)]) {
    let holds = |now: &Value| expected.iter().all(|(name, who)| now[*name] == *who);
    mesh.until(what, |mesh| newest(mesh).is_some_and(|now| holds(&now)));
}

fn route(kind: &str, name: &str, parent: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: shop}}
spec:
  parentRefs: [{parent}]
{spec}
"
    )
}

/// What `weft get` says of an object: each condition by its reason.
fn reasons(mesh: &Mesh, kind: &str, name: &str) -> Vec<String> {
    let told = weft(User::Own, &mesh.state).args(["get", &format!("{kind}/{name}"), "-o", "json"]).output().unwrap();
    if told.status.code() == Some(1) && told.stdout.is_empty() {
        return vec![];
    }
    let objects: Value = serde_json::from_slice(&told.stdout).unwrap_or_else(|e| panic!("{e}: {told:?}"));
    let status = &objects[0]["status"];
    let of_parents =
        status["parents"].as_array().into_iter().flatten().flat_map(|entry| entry["conditions"].as_array());
    let all = of_parents.chain(status["conditions"].as_array()).flatten();
    all.map(|condition| condition["reason"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn bytes_and_tls_follow_their_routes_in_the_mesh_and_out_of_it() {
    let [out, secret] = [pong(), pong()];
    let app = |name: &str| {
        deployment(name, 1, "", "[python3, DIR/who.py]", "readinessProbe: {tcpSocket: {port: 7000}, periodSeconds: 1}")
    };
    let behind = |name: &str, port: u16, app: &str| {
        service(name, "", &format!("ports: [{{port: {port}, targetPort: 7000}}]"))
            .replace(&format!("app: {name}"), &format!("app: {app}"))
    };
    let ask = format!(
        "[python3, DIR/ask.py, 'bytes=db:7000', 'vault=vault:7443@vault.test', 'other=vault:7443@other.test', 'out={out}', 'secret={secret}@api.test', 'plain={secret}']"
    );
    let manifests = app("one")
        + &app("two")
        + &behind("db", 7000, "one")
        + &behind("vault", 7443, "one")
        + &behind("next", 7000, "two")
        + &deployment("client", 1, "", &ask, "");
    let mut mesh = Mesh::up(User::Own, &manifests, &[("who.py", WHO), ("ask.py", ASK)], &[]);
    mesh.ready(&["one", "two", "client"]);
    let before = [
        ("bytes", "one:00"),
        ("vault", "one:16"),
        ("other", "one:16"),
        ("out", "pong"),
        ("secret", "pong"),
        ("plain", "pong"),
    ];
    until(&mut mesh, "a mesh without routes", &before);

    let of = |service: &str, port: u16| format!("{{group: '', kind: Service, name: {service}, port: {port}}}");
    let next = "  rules: [{backendRefs: [{name: next, port: 7000}]}]";
    mesh.write("manifests/tcp.yaml", &route("TCPRoute", "db", &of("db", 7000), next));
    until(&mut mesh, "bytes to go elsewhere", &[("bytes", "two:00"), ("vault", "one:16"), ("out", "pong")]);
    assert_eq!(reasons(&mesh, "tcproute", "db"), ["Accepted", "ResolvedRefs"]);
    // By the name of the server, and nobody else's; the bytes are the client's.
    let names = format!("  hostnames: [vault.test]\n{next}");
    mesh.write("manifests/tls.yaml", &route("TLSRoute", "vault", &of("vault", 7443), &names));
    until(&mut mesh, "TLS to go by its name", &[("vault", "two:16"), ("other", "no"), ("bytes", "two:00")]);
    assert_eq!(reasons(&mesh, "tlsroute", "vault"), ["Accepted", "ResolvedRefs"]);

    let network = format!(
        "apiVersion: policy.linkerd.io/v1alpha1
kind: EgressNetwork
metadata: {{name: host, namespace: shop}}
spec: {{trafficPolicy: Deny, networks: [{{cidr: {}}}]}}
",
        out.ip()
    );
    mesh.write("manifests/egress.yaml", &network);
    until(&mut mesh, "nothing to leave", &[("out", "no"), ("secret", "no"), ("plain", "no"), ("bytes", "two:00")]);
    assert_eq!(reasons(&mesh, "egressnetwork", "host"), ["Accepted"]);
    let host = "{group: policy.linkerd.io, kind: EgressNetwork, name: host";
    let itself = format!("  rules: [{{backendRefs: [{host}}}]}}]");
    let at = |addr: SocketAddr| format!("{host}, port: {}}}", addr.port());
    mesh.write("manifests/out.yaml", &route("TCPRoute", "out", &at(out), &itself));
    until(&mut mesh, "one port to be let out", &[("out", "pong"), ("secret", "no"), ("plain", "no")]);
    let names = format!("  hostnames: [api.test]\n{itself}");
    mesh.write("manifests/secret.yaml", &route("TLSRoute", "secret", &at(secret), &names));
    until(&mut mesh, "one name to be let out", &[("out", "pong"), ("secret", "pong"), ("plain", "no")]);
    // Or back into the mesh.
    mesh.write("manifests/out.yaml", &route("TCPRoute", "out", &at(out), next));
    until(&mut mesh, "what leaves to come back", &[("out", "two:00"), ("secret", "pong")]);

    for file in ["tcp", "tls", "egress", "out", "secret"] {
        std::fs::remove_file(mesh.dir.join(format!("manifests/{file}.yaml"))).unwrap();
    }
    until(&mut mesh, "a mesh without routes again", &before);
}
