//! The admin server as peers meet it: mutual TLS or plaintext, and the policy of its port.

use crate::{
    harness::{elsewhere, eventually, http1, soon},
    mesh::Mesh,
};
use std::{io::Read, net::SocketAddr};
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
use weft_testkit::{http1 as wire, policy::inbound};

/// A mesh in which `app`'s admin server can be reached from elsewhere, and where that is.
async fn reachable() -> (Mesh, SocketAddr) {
    let mesh = Mesh::with(&[], &[("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", "0.0.0.0:0")]).await;
    let addr = SocketAddr::new(elsewhere(), mesh.app.addrs().admin.port());
    (mesh, addr)
}

/// What the control plane says of an admin port: whom `default` lets in, and probes by anybody; nothing else exists.
fn policy(default: DefaultPolicy) -> ServerPolicy {
    let route = |name: &str, path: &str, authorizations| {
        let matches = vec![HttpMatch { path: Some(PathMatch::Exact(path.to_owned())), ..HttpMatch::default() }];
        let rule = Rule { matches, filters: vec![], does: InboundRule { authorizations } };
        HttpRoute { meta: Meta::default_named(name), hosts: vec![], rules: vec![rule] }
    };
    let anybody = inbound(DefaultPolicy::AllUnauthenticated).authorizations;
    let mut policy = inbound(default);
    let ServerProtocol::Detect { routes, .. } = &mut policy.protocol else { unreachable!() };
    *routes = vec![route("metrics", "/metrics", vec![]), route("probe", "/ready", anybody)];
    policy
}

async fn ask(addr: SocketAddr, path: &str) -> (u16, String) {
    let tcp = soon(TcpStream::connect(addr)).await.unwrap();
    http1(tcp, &format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn a_program_of_the_mesh_scrapes_another_and_strangers_do_not() {
    let (mesh, addr) = reachable().await;
    mesh.control.set_inbound(addr.port(), policy(DefaultPolicy::AllAuthenticated));
    let mut stranger = ask(addr, "/metrics").await;
    for _ in 0..1000 {
        if stranger.0 == 403 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        stranger = ask(addr, "/metrics").await;
    }
    assert_eq!(stranger, (403, String::new()), "as soon as the policy is known");
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
async fn tls_for_another_server_is_an_error() {
    let (mesh, addr) = reachable().await;
    let mut tcp = soon(TcpStream::connect(addr)).await.unwrap();
    tcp.write_all(&crate::inbound::client_hello("other.example")).await.unwrap();
    let closed = soon(tcp.read(&mut [0; 1])).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    let failed = "weft_proxy_errors_total{direction=\"inbound\",code=\"TLS_FAILED\"}";
    eventually("it is counted", || mesh.app.metric(failed) == 1.0).await;
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
