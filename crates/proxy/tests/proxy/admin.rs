//! The admin server as peers meet it: mutual TLS or plaintext, and the policy of its port.

use crate::{
    explain::{explain, explained},
    harness::{Setup, elsewhere, eventually, http1, soon},
    mesh::Mesh,
};
use std::{io::Read, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_model::{
    Endpoint, Meta, ProtocolHint, ServerPolicy,
    policy::{
        inbound::{DefaultPolicy, InboundRule, ServerProtocol},
        route::{HttpMatch, HttpRoute, PathMatch, Rule},
    },
};
use weft_testkit::{control::FakeControl, http1 as wire, policy::inbound};

/// A mesh in which `app`'s admin server can be reached from elsewhere, and where that is.
async fn reachable() -> (Mesh, SocketAddr) {
    let mesh = Mesh::with(&[], &[("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", "0.0.0.0:0")]).await;
    let addr = SocketAddr::new(elsewhere(), mesh.app.addrs().admin.port());
    (mesh, addr)
}

/// What the control plane says of an admin port: whom `default` lets in, and what anybody may ask; nothing else exists.
fn policy(default: DefaultPolicy) -> ServerPolicy {
    let route = |name: &str, path: &str, authorizations| {
        let matches = vec![HttpMatch { path: Some(PathMatch::Exact(path.to_owned())), ..HttpMatch::default() }];
        let rule = Rule { matches, filters: vec![], does: InboundRule { authorizations } };
        HttpRoute { meta: Meta::default_named(name), hosts: vec![], rules: vec![rule] }
    };
    let anybody = inbound(DefaultPolicy::AllUnauthenticated).authorizations;
    let mut policy = inbound(default);
    let ServerProtocol::Detect { routes, .. } = &mut policy.protocol else { unreachable!() };
    let open = [("probe", "/ready"), ("explain", "/explain")].map(|(name, path)| route(name, path, anybody.clone()));
    *routes = [vec![route("metrics", "/metrics", vec![])], open.to_vec()].concat();
    policy
}

async fn ask(addr: SocketAddr, path: &str) -> (u16, String) {
    let tcp = soon(TcpStream::connect(addr)).await.unwrap();
    http1(tcp, &format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")).await
}

/// Asks for the metrics until that is refused; the body of the refusal.
async fn eventually_refused(addr: SocketAddr) -> String {
    let start = std::time::Instant::now();
    loop {
        let (status, body) = ask(addr, "/metrics").await;
        if status == 403 {
            return body;
        }
        assert!(start.elapsed() < crate::harness::LONG, "{status}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_program_of_the_mesh_scrapes_another_and_strangers_do_not() {
    let (mesh, addr) = reachable().await;
    mesh.control.set_inbound(addr.port(), policy(DefaultPolicy::AllAuthenticated));
    assert_eq!(eventually_refused(addr).await, "", "as soon as the policy is known");
    assert_eq!(ask(addr, "/ready").await, (200, "ready\n".into()), "probes are let in");
    assert_eq!(ask(addr, "/live").await.0, 404, "no route");

    // As the control plane describes the port: an identity, and no transport header.
    for hint in [ProtocolHint::H2, ProtocolHint::Unknown] {
        let endpoint = Endpoint { transport_port: None, ..mesh.endpoint(addr, hint) };
        let service = mesh.service(&[]);
        mesh.control.set_endpoints(&service.target, vec![endpoint]);
        let mut client = wire::Client::over(mesh.connect(&service).await);
        let scraped = soon(client.call("GET /metrics HTTP/1.1\r\nHost: app\r\n\r\n")).await.unwrap();
        assert_eq!(scraped.status(), Some(200), "{hint:?}: {}", scraped.head_text());
        assert!(scraped.body.ends_with(b"# EOF\n"), "{hint:?}");
        let missing = soon(client.call("GET /live HTTP/1.1\r\nHost: app\r\n\r\n")).await.unwrap();
        assert_eq!(missing.status(), Some(404), "{hint:?}");
    }
    let text = mesh.app.handle().metrics();
    let allowed = format!(
        "inbound_http_authz_allow_total{{target_addr=\"{addr}\",target_ip=\"{}\",target_port=\"{}\",tls=\"true\",client_id=\"{}\"",
        addr.ip(),
        addr.port(),
        mesh.web.identity()
    );
    assert_eq!(crate::harness::metric(&text, &allowed), 2.0, "{text}");
    mesh.app.at_least("inbound_http_authz_deny_total{", 1.0).await;
    mesh.app.at_least("inbound_http_route_not_found_total{", 3.0).await;
}

#[tokio::test]
async fn probes_are_let_in_before_the_control_plane_has_answered() {
    let env = [("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", "0.0.0.0:0"), ("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", "deny")];
    let mesh = Mesh::with(&[], &env).await;
    let addr = SocketAddr::new(elsewhere(), mesh.app.addrs().admin.port());
    assert_eq!(ask(addr, "/ready").await, (200, "ready\n".into()));
    assert_eq!(ask(addr, "/live").await, (200, "live\n".into()));
    assert_eq!(ask(addr, "/metrics").await.0, 403);
}

#[tokio::test]
async fn what_the_admin_server_refuses_is_explained() {
    let (mesh, addr) = reachable().await;
    mesh.control.set_inbound(addr.port(), policy(DefaultPolicy::AllAuthenticated));
    eventually_refused(addr).await;
    let told = explained(&mesh.app, "kind=request&code=UNAUTHORIZED&limit=1", 1).await;
    let record = &told["records"][0];
    assert_eq!(
        record["decided_by"],
        serde_json::json!({"parent": "default/all-authenticated", "route": "default/metrics"})
    );
    assert_eq!((&record["direction"], &record["outcome"]), (&"inbound".into(), &"failed".into()));
    assert_eq!((&record["method"], &record["authority"]), (&"GET".into(), &"admin".into()));
    assert_eq!((&record["path"], &record["status"]), (&"/metrics".into(), &403.into()));
    assert_eq!(record["target"], addr.to_string());
    assert!(told["codes"]["UNAUTHORIZED"]["remedy"].as_str().is_some_and(|text| !text.is_empty()), "{told}");
    assert_eq!(ask(addr, "/live").await.0, 404);
    let told = explained(&mesh.app, "kind=request&code=ROUTE_NOT_FOUND", 1).await;
    assert_eq!(told["records"][0]["decided_by"], serde_json::json!({"parent": "default/all-authenticated"}));
    // What is let in leaves no record.
    assert_eq!(ask(addr, "/ready").await.0, 200);
    assert_eq!(explain(&mesh.app, "kind=request&path=/ready").await["records"], serde_json::json!([]));
}

/// `deny` with a log: who would be refused is let in, counted under the name of the policy, and told.
#[tokio::test]
async fn the_audit_policy_lets_in_and_counts() {
    let audit = [("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", "0.0.0.0:0"), ("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", "audit")];
    let mesh = Mesh::with(&[], &audit).await;
    let addr = SocketAddr::new(elsewhere(), mesh.app.addrs().admin.port());
    assert_eq!(ask(addr, "/metrics").await.0, 200);
    let text = mesh.app.handle().metrics();
    let mut counted = text.lines().filter(|l| l.starts_with("inbound_http_authz_allow_total{"));
    let audited = counted.find(|line| line.contains(&format!("target_port=\"{}\"", addr.port())));
    assert!(audited.is_some_and(|line| line.contains("authz_kind=\"default\",authz_name=\"audit\"} 1")), "{text}");
}

#[tokio::test]
async fn tls_for_another_server_is_an_error() {
    let (mesh, addr) = reachable().await;
    let mut tcp = soon(TcpStream::connect(addr)).await.unwrap();
    tcp.write_all(&crate::inbound::client_hello("other.example")).await.unwrap();
    let closed = soon(tcp.read(&mut [0; 1])).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    let failed = "weft_proxy_errors_total{direction=\"inbound\",code=\"TLS_FAILED\"}";
    eventually("it is counted", || mesh.app.metric(failed) == 1.0).await;
    let told = explained(&mesh.app, "kind=connection&code=TLS_FAILED", 1).await;
    assert_eq!(told["records"][0]["target"], addr.to_string());
}

#[tokio::test]
async fn a_scrape_is_compressed_for_whoever_asks() {
    let mesh = Mesh::start().await;
    let mut client = wire::Client::connect(mesh.app.addrs().admin).await.unwrap();
    let ask = "GET /metrics HTTP/1.1\r\nHost: app\r\nAccept-Encoding: deflate, gzip\r\n\r\n";
    let zipped = soon(client.call(ask)).await.unwrap();
    assert_eq!(zipped.header("content-encoding").as_deref(), Some("gzip"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&zipped.body[..]).read_to_string(&mut text).unwrap();
    assert!(text.ends_with("# EOF\n") && text.len() > 2 * zipped.body.len(), "{text}");
}

/// The kubelet's probes are answered however many connections stand there and ask nothing, whether their clients have asked before
/// or are still about to.
#[tokio::test]
async fn connections_that_nobody_uses_keep_nobody_out() {
    let control = FakeControl::start().unwrap();
    let app = Setup::new(&control, "app").ready().await;
    let mut idle = vec![];
    for n in 0..512 {
        let mut tcp = soon(TcpStream::connect(app.addrs().admin)).await.unwrap();
        if n % 2 == 0 {
            tcp.write_all(b"GET /live HTTP/1.1\r\nhost: admin\r\n\r\n").await.unwrap();
            soon(tcp.read_exact(&mut [0; 15])).await.unwrap();
        } else {
            tcp.write_all(b"GET /live HTTP/1.1\r\nhost: ").await.unwrap();
        }
        idle.push(tcp);
    }
    for _ in 0..8 {
        // Sooner than any of them is given up.
        let asked = tokio::time::timeout(Duration::from_secs(10), app.admin("GET", "/ready"));
        assert_eq!(asked.await.expect("an answer").0, 200);
    }
    // Who came last stays.
    let mut last = idle.pop().unwrap();
    last.write_all(b"admin\r\n\r\n").await.unwrap();
    soon(last.read_exact(&mut [0; 15])).await.unwrap();
}
