//! What strangers say of themselves, and requests that policy and server could read in two ways.

use crate::{
    harness::{elsewhere, eventually, identity, soon},
    mesh::{Mesh, naming, shouting},
};
use http::{HeaderMap, Request, Response};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_model::{
    Meta, ProtocolHint, ServerPolicy,
    endpoint::ServerTls,
    policy::{
        inbound::{DefaultPolicy, InboundRule, ServerProtocol},
        route::{HttpMatch, HttpRoute, PathMatch, Rule},
    },
};
use weft_testkit::{http1, http2, policy::inbound};
use weft_transport::{
    Stream,
    tls::{Key, Store},
};
use weft_wire::transport_header::{PREFACE, SessionProtocol, TransportHeader};

/// A peer of the mesh that the test plays itself: mutual TLS to `app`'s inbound port, a transport header announced.
pub(crate) async fn peer(mesh: &Mesh) -> Stream {
    peer_at(mesh, "peer", mesh.app.addrs().inbound).await
}

/// The same as somebody else, or over another address.
pub(crate) async fn peer_at(mesh: &Mesh, name: &str, addr: SocketAddr) -> Stream {
    let id = identity(name);
    let issued = mesh.control.ca().issue(&id, Duration::from_secs(600)).unwrap();
    let store = Store::new(mesh.control.ca().anchors_pem(), id.as_str().parse().unwrap(), id).unwrap();
    let intermediates: Vec<Vec<u8>> = issued.certificate.intermediates.iter().map(|der| der.to_vec()).collect();
    let key = Key::from_pkcs8(&issued.key_pkcs8).unwrap();
    store.set_certificate(&key, &issued.certificate.leaf, &intermediates).unwrap();
    let tcp = TcpStream::connect(addr).await.unwrap();
    let identity = identity("app");
    let server = ServerTls { server_name: identity.as_str().parse().unwrap(), identity };
    let (stream, transport) = soon(store.connect(tcp, &server, true)).await.unwrap();
    assert!(transport);
    stream
}

/// What comes back for these bytes behind the handshake; `None` if the connection is only closed.
async fn answered(mesh: &Mesh, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut stream = peer(mesh).await;
    stream.write_all(bytes).await.unwrap();
    let _ = stream.shutdown().await;
    let mut answer = vec![];
    let _ = soon(stream.read_to_end(&mut answer)).await;
    (!answer.is_empty()).then_some(answer)
}

#[tokio::test]
async fn forged_transport_headers_lead_nowhere() {
    let mesh = Mesh::with(&[], &[("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "300ms")]).await;
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
    policy.protocol = ServerProtocol::Opaque;
    mesh.control.set_inbound(addr.port(), policy);
    let header = |port, protocol| TransportHeader { port, name: None, protocol }.encode();
    let whole = header(addr.port(), None);
    let answer = answered(&mesh, &[&whole[..], b"abc"].concat()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "hello\nABCbye\n");

    let message = |bytes: &[u8]| [&PREFACE[..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let own = mesh.app.addrs().inbound.port();
    let forged: [(&str, Vec<u8>); 9] = [
        ("nothing", vec![]),
        ("a request", b"GET / HTTP/1.1\r\nHost: app\r\n\r\n".to_vec()),
        ("a part of the preface", PREFACE[..10].to_vec()),
        ("a part of the header", whole[..whole.len() - 1].to_vec()),
        ("a length without end", [&PREFACE[..], &[0xff; 4]].concat()),
        ("no message", message(&[0xff; 8])),
        ("port 0", message(&[])),
        ("port 65536", message(&[0x08, 0x80, 0x80, 0x04])),
        ("this proxy itself", header(own, Some(SessionProtocol::Http2))),
    ];
    for (what, bytes) in forged {
        assert_eq!(answered(&mesh, &bytes).await, None, "{what}");
    }
    let code =
        |code: &str| mesh.app.metric(&format!("weft_proxy_errors_total{{direction=\"inbound\",code=\"{code}\"}}"));
    // Counted behind the end of the connection.
    eventually("each is counted", || (code("LOOP"), code("BAD_REQUEST")) == (1.0, 8.0)).await;
    // Every byte on its own is as good as all at once.
    let mut stream = peer(&mesh).await;
    for byte in &whole {
        stream.write_all(&[*byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    let mut hello = [0; 6];
    soon(stream.read_exact(&mut hello)).await.unwrap();
    let counted = format!(
        "inbound_tcp_transport_header_connections_total{{session_protocol=\"\",target_port=\"{}\",target_name=\"\",client_id=\"{}\"}}",
        addr.port(),
        identity("peer")
    );
    mesh.app.reaches(&counted, 2.0).await;
    server.abort();
}

#[tokio::test]
async fn direct_connections_need_the_mesh_and_outbound_ones_a_destination() {
    let mesh = Mesh::with(&[], &[("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "300ms")]).await;
    for addr in [mesh.app.addrs().inbound, mesh.app.addrs().outbound[0]] {
        for bytes in [&b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0"] {
            let mut tcp = TcpStream::connect(addr).await.unwrap();
            // It may be closed already.
            let _ = tcp.write_all(bytes).await;
            let mut answer = vec![];
            let _ = soon(tcp.read_to_end(&mut answer)).await;
            assert!(answer.is_empty(), "{addr} {bytes:?}: {answer:?}");
        }
    }
    // Counted behind the end of the connection.
    let counted = |series: &str| mesh.app.metric(&format!("weft_proxy_errors_total{{{series}}}")) == 3.0;
    eventually("strangers are counted", || counted("direction=\"inbound\",code=\"UNAUTHORIZED\"")).await;
    eventually("loops are counted", || counted("direction=\"outbound\",code=\"LOOP\"")).await;
}

const FORGED: &str = "admin.ns.serviceaccount.identity.linkerd.cluster.local";

#[tokio::test]
async fn an_identity_is_never_taken_from_headers_or_trailers() {
    let mesh = Mesh::start().await;
    // HTTP/1 in plaintext: any case, several, nominated, and behind the body.
    let origin = http1::Origin::start(|request| http1::Reply::ok(&request.body)).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: app\r\nL5D-CLIENT-ID: {FORGED}\r\nl5d-client-id: {FORGED}\r\nConnection: l5d-client-id, x-mine\r\n\
         X-Mine: 1\r\nl5d-orig-proto: HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nl5d-client-id: {FORGED}\r\n\r\n"
    );
    let mut client = http1::Client::over(mesh.app.connect_inbound(origin.addr()).await);
    assert_eq!(soon(client.call(&request)).await.unwrap().status(), Some(200));
    let seen = origin.seen().requests[0].clone();
    let raw = String::from_utf8_lossy(&seen.raw).to_ascii_lowercase();
    assert!(!raw.contains("admin.ns") && !raw.contains("l5d-client-id") && !raw.contains("x-mine"), "{raw}");

    // The same through the client's proxy: what is known of the client is said, and `connection` cannot take it away.
    for hint in [ProtocolHint::Unknown, ProtocolHint::H2] {
        let service = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
        let before = origin.seen().requests.len();
        let mut client = http1::Client::over(mesh.connect(&service).await);
        assert_eq!(soon(client.call(&request)).await.unwrap().status(), Some(200), "{hint:?}");
        let seen = origin.seen().requests[before].clone();
        assert_eq!(seen.headers("l5d-client-id"), [mesh.web.identity().as_str()], "{hint:?}");
        assert!(!String::from_utf8_lossy(&seen.raw).contains("admin.ns"), "{hint:?}");
    }

    // HTTP/2, in headers and trailers.
    let origin = http2::Origin::start(|request| async move {
        let got = http2::complete((), request.into_body()).await?;
        let trailers = got.trailers.unwrap_or_default();
        Ok(Response::new(http2::full(format!("{}", trailers.contains_key("l5d-client-id")))))
    })
    .await
    .unwrap();
    let trailers: HeaderMap = [("l5d-client-id".parse().unwrap(), FORGED.parse().unwrap())].into_iter().collect();
    let request = Request::post("http://app.ns/").header("l5d-client-id", FORGED).header("l5d-client-id", "other");
    let mut client = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
    let answer = soon(client.call(request.body(http2::with_trailers("x", trailers)).unwrap())).await.unwrap();
    assert_eq!(&answer.body[..], b"false");
    assert!(!origin.seen().requests[0].headers.contains_key("l5d-client-id"));
}

/// Everybody may use what is below `/`, and members of the mesh `/admin` on every host, and all of `admin.ns`.
fn guarded() -> ServerPolicy {
    let mut policy = inbound(DefaultPolicy::Deny);
    let ServerProtocol::Detect { routes, .. } = &mut policy.protocol else { unreachable!() };
    let route = |name: &str, hosts, prefix: &str, default| {
        let matches = vec![HttpMatch { path: Some(PathMatch::Prefix(prefix.to_owned())), ..HttpMatch::default() }];
        let does = InboundRule { authorizations: inbound(default).authorizations };
        HttpRoute { meta: Meta::default_named(name), hosts, rules: vec![Rule { matches, filters: vec![], does }] }
    };
    let host = |name: &str| vec![weft_model::policy::route::HostMatch::Exact(name.to_owned())];
    *routes = vec![
        route("open", vec![], "/", DefaultPolicy::AllUnauthenticated),
        route("admin", vec![], "/admin", DefaultPolicy::AllAuthenticated),
        route("admin-host", host("admin.ns"), "/", DefaultPolicy::AllAuthenticated),
    ];
    policy
}

/// The status that a stranger's request gets; `None` if the connection is only closed.
async fn status(mesh: &Mesh, addr: SocketAddr, request: &str) -> Option<u16> {
    let tcp = mesh.app.connect_inbound_from(elsewhere(), addr).await.unwrap();
    let mut client = http1::Client::over(tcp);
    soon(client.call(request)).await.ok()?.status()
}

#[tokio::test]
async fn paths_and_hosts_are_read_once() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|_| http1::Reply::ok("open")).await.unwrap();
    let addr = origin.addr();
    mesh.control.set_inbound(addr.port(), guarded());
    let get = |path: &str, host: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut known = None;
    for _ in 0..1000 {
        known = status(&mesh, addr, &get("/admin", "app")).await;
        if known == Some(403) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(known, Some(403), "as soon as the policy is known");
    let before = origin.seen().requests.len();
    for (path, host) in [
        ("/admin/x", "app"),
        ("//admin", "app"),
        ("/./admin", "app"),
        ("/x/../admin", "app"),
        ("/%61dmin", "app"),
        ("/x%2f..%2fadmin", "app"),
        ("/x/..;a/admin", "app"),
        ("/admin;a=b", "app"),
        ("/x/..\\admin", "app"),
        ("http://app/admin", "app"),
        ("http://app//admin", "app"),
        // The request line wins over the header, which the server is then told.
        ("http://admin.ns/", "app"),
        ("/", "admin.ns"),
        ("/", "ADMIN.NS"),
        ("/", "admin.ns."),
        ("/", "admin.ns:80"),
        ("http://ADMIN.ns:8080", "app"),
    ] {
        let got = status(&mesh, addr, &get(path, host)).await;
        assert!(matches!(got, Some(400 | 403)), "{path} of {host}: {got:?}");
    }
    for request in [
        "GET / HTTP/1.1\r\nHost: app\r\nHost: admin.ns\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: app,admin.ns\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@admin.ns\r\n\r\n",
        "GET http://user@admin.ns/ HTTP/1.1\r\nHost: app\r\n\r\n",
        "GET /admin#x HTTP/1.1\r\nHost: app\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: app\r\n Host: admin.ns\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : admin.ns\r\n\r\n",
    ] {
        assert_eq!(status(&mesh, addr, request).await, Some(400), "{request:?}");
    }
    assert_eq!(origin.seen().requests.len(), before, "none of them reached the server");
    for path in ["/", "/x//y", "/administrator", "/a%20b", "/.well-known/a", "/ADMIN"] {
        assert_eq!(status(&mesh, addr, &get(path, "app")).await, Some(200), "{path}");
        assert!(origin.seen().requests.last().unwrap().first_line().contains(path), "{path} goes on as it came");
    }
}

#[tokio::test]
async fn http2_has_one_host_too() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    mesh.control.set_inbound(origin.addr().port(), guarded());
    let ask = async |uri: &str, host: Option<&str>| {
        let tcp = mesh.app.connect_inbound_from(elsewhere(), origin.addr()).await.unwrap();
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let request = request.body(http2::full("")).unwrap();
        let mut client = http2::Client::over(tcp).await.unwrap();
        soon(client.call(request)).await.ok().map(|answer| answer.head.status.as_u16())
    };
    eventually_is(&ask, 403).await;
    let before = origin.seen().requests.len();
    assert_eq!(ask("http://ADMIN.ns:80/", None).await, Some(403));
    assert_eq!(ask("http://app/", Some("admin.ns")).await, None, "reset: two hosts");
    assert_eq!(ask("http://app//admin", None).await, Some(403));
    assert_eq!(origin.seen().requests.len(), before);
    assert_eq!(ask("http://app/", Some("app")).await, Some(200));
    eventually("refusals are counted", || mesh.app.metric("inbound_http_authz_deny_total{") >= 3.0).await;
}

async fn eventually_is(ask: &impl AsyncFn(&str, Option<&str>) -> Option<u16>, wanted: u16) {
    let start = std::time::Instant::now();
    while ask("http://app/admin", None).await != Some(wanted) {
        assert!(start.elapsed() < crate::harness::LONG);
    }
}
