//! Routes of TLS by server name: bytes are forwarded as they are, and what cannot be routed is refused with its reason.

use crate::{
    harness::{eventually, soon},
    inbound::client_hello,
    mesh::{Mesh, Service},
};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use weft_model::{
    Endpoint, ProtocolHint,
    policy::{
        inbound::{DefaultPolicy, ServerProtocol},
        outbound::{ClientProtocol, Distribution, TlsRoute},
        route::Filter,
    },
};
use weft_testkit::policy::{balance, forward, inbound, service, tls_route};

/// Reads to the end, then sends its name and what it has read.
struct Named {
    addr: SocketAddr,
    task: AbortHandle,
}

impl Named {
    async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut all = name.as_bytes().to_vec();
                    tcp.read_to_end(&mut all).await?;
                    tcp.write_all(&all).await
                });
            }
        });
        Self { addr, task: task.abort_handle() }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A service with these routes.
fn service_of(mesh: &Mesh, routes: Vec<TlsRoute>) -> Service {
    let known = Service::new();
    let policy = weft_model::ClientPolicy { meta: service("ns", "db", 443), protocol: ClientProtocol::Tls(routes) };
    mesh.control.set_outbound(known.addr, policy);
    known
}

/// What comes back for `bytes` and an end; the error is a reset.
async fn exchange(mesh: &Mesh, service: &Service, bytes: &[u8]) -> std::io::Result<String> {
    let mut tcp = mesh.connect(service).await;
    tcp.write_all(bytes).await?;
    tcp.shutdown().await?;
    answer(&mut tcp).await
}

async fn answer(tcp: &mut TcpStream) -> std::io::Result<String> {
    let mut all = vec![];
    soon(tcp.read_to_end(&mut all)).await?;
    Ok(String::from_utf8_lossy(&all).into_owned())
}

#[tokio::test]
async fn the_server_name_decides_and_the_bytes_are_untouched() {
    let mesh = Mesh::start().await;
    let (exact, suffix, meshed) =
        (Named::start("exact").await, Named::start("suffix").await, Named::start("mesh").await);
    let mut opaque = inbound(DefaultPolicy::AllUnauthenticated);
    opaque.protocol = ServerProtocol::Opaque;
    mesh.control.set_inbound(meshed.addr.port(), opaque);
    let target = "db.ns.svc.cluster.local:443";
    mesh.control.set_endpoints(target, vec![mesh.endpoint(meshed.addr, ProtocolHint::Opaque)]);
    let to = |named: &Named| forward(Endpoint::plain(named.addr));
    let service = service_of(
        &mesh,
        vec![
            tls_route("suffix", &["*.example.com"], to(&suffix)),
            tls_route("meshed", &["db.test"], balance(service("ns", "db", 443), target.parse().unwrap())),
            tls_route("exact", &["db.example.com"], to(&exact)),
        ],
    );
    for (sni, name) in [("db.example.com", "exact"), ("a.example.com", "suffix"), ("db.test", "mesh")] {
        let hello = client_hello(sni);
        let all = exchange(&mesh, &service, &hello).await.unwrap();
        assert_eq!(all, format!("{name}{}", String::from_utf8_lossy(&hello)), "{sni}");
    }
    let declared = "outbound_tcp_protocol_connections_total{protocol=\"tls\",parent_group=\"core\",parent_kind=\"Service\",\
                    parent_namespace=\"ns\",parent_name=\"db\"";
    mesh.web.reaches(declared, 3.0).await;
    let labels = |route: &str| {
        format!(
            "{{parent_group=\"core\",parent_kind=\"Service\",parent_namespace=\"ns\",parent_name=\"db\",parent_port=\"443\",\
             parent_section_name=\"\",route_group=\"\",route_kind=\"default\",route_namespace=\"\",route_name=\"{route}\",hostname=\"\""
        )
    };
    for route in ["exact", "suffix", "meshed"] {
        let (opened, closed) = (
            format!("outbound_tls_route_open_total{}}}", labels(route)),
            format!("outbound_tls_route_close_total{},error=\"\"}}", labels(route)),
        );
        mesh.web.reaches(&opened, 1.0).await;
        eventually("it is closed", || mesh.web.metric(&closed) == 1.0).await;
    }
    assert!(
        mesh.app.metric("tcp_read_bytes_total{direction=\"inbound\",peer=\"src\"") > 0.0,
        "through the peer's proxy"
    );
}

#[tokio::test]
async fn the_server_name_is_a_label_where_that_is_configured() {
    let mesh = Mesh::with(&[("LINKERD2_PROXY_OUTBOUND_METRICS_HOSTNAME_LABELS", "true")], &[]).await;
    let server = Named::start("server").await;
    let service = service_of(&mesh, vec![tls_route("all", &["*.example.com"], forward(Endpoint::plain(server.addr)))]);
    for sni in ["a.example.com", "b.example.com", "a.example.com"] {
        exchange(&mesh, &service, &client_hello(sni)).await.unwrap();
    }
    let of = |family: &str, host: &str, more: &str| {
        let parent = "parent_group=\"core\",parent_kind=\"Service\",parent_namespace=\"ns\",parent_name=\"db\",parent_port=\"443\"";
        let route = "route_group=\"\",route_kind=\"default\",route_namespace=\"\",route_name=\"all\"";
        format!(
            "outbound_tls_route_{family}_total{{{parent},parent_section_name=\"\",{route},hostname=\"{host}\"{more}}}"
        )
    };
    for (host, connections) in [("a.example.com", 2.0), ("b.example.com", 1.0)] {
        mesh.web.reaches(&of("open", host, ""), connections).await;
        mesh.web.reaches(&of("close", host, ",error=\"\""), connections).await;
    }
}

#[tokio::test]
async fn every_split_of_the_hello_is_understood() {
    let mesh = Mesh::start().await;
    let origin = Named::start("x").await;
    let service = service_of(&mesh, vec![tls_route("r", &["db.test"], forward(Endpoint::plain(origin.addr)))]);
    let hello = client_hello("db.test");
    for at in 1..hello.len() {
        let mut tcp = mesh.connect(&service).await;
        tcp.set_nodelay(true).unwrap();
        let (one, two) = hello.split_at(at);
        tcp.write_all(one).await.unwrap();
        // The proxy has read the first part, or reads both at once: either must do.
        tokio::task::yield_now().await;
        tcp.write_all(two).await.unwrap();
        tcp.shutdown().await.unwrap();
        let all = answer(&mut tcp).await.unwrap();
        assert_eq!(all.as_bytes()[1..], *String::from_utf8_lossy(&hello).as_bytes(), "split at {at}");
    }
    // Byte by byte.
    let mut tcp = mesh.connect(&service).await;
    tcp.set_nodelay(true).unwrap();
    for byte in &hello {
        tcp.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    tcp.shutdown().await.unwrap();
    assert_eq!(answer(&mut tcp).await.unwrap().len(), 1 + String::from_utf8_lossy(&hello).len());
}

#[tokio::test]
async fn what_cannot_be_routed_is_refused_with_its_reason() {
    let mesh = Mesh::with(&[("LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT", "200ms")], &[]).await;
    let origin = Named::start("x").await;
    let filtered = |name: &str, sni: &str, filter| {
        let mut route = tls_route(name, &[sni], forward(Endpoint::plain(origin.addr)));
        route.route.filters = vec![filter];
        route
    };
    let mut empty = tls_route("empty", &["empty.test"], forward(Endpoint::plain(origin.addr)));
    empty.route.backends = Distribution::Empty;
    let service = service_of(
        &mesh,
        vec![
            tls_route("ok", &["db.test"], forward(Endpoint::plain(origin.addr))),
            filtered("forbidden", "forbidden.test", Filter::Forbidden),
            filtered("invalid", "invalid.test", Filter::Invalid("it is wrong".into())),
            empty,
        ],
    );
    let refused =
        |code: &str| mesh.web.metric(&format!("weft_proxy_errors_total{{direction=\"outbound\",code=\"{code}\"}}"));
    // A name that is no DNS name is none.
    for (bytes, code) in [
        (client_hello("*"), "NO_SERVER_NAME"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "NO_SERVER_NAME"),
        (client_hello("db.test")[..20].to_vec(), "NO_SERVER_NAME"),
        (client_hello("elsewhere.test"), "ROUTE_NOT_FOUND"),
        (client_hello("forbidden.test"), "UNAUTHORIZED"),
        (client_hello("invalid.test"), "POLICY_UNSUPPORTED"),
        (client_hello("empty.test"), "LOAD_SHED"),
    ] {
        let before = refused(code);
        let outcome = exchange(&mesh, &service, &bytes).await;
        assert!(outcome.is_err(), "{code}: {outcome:?}");
        eventually(code, || refused(code) == before + 1.0).await;
    }
    // Silence is not waited for without end.
    let mut silent = mesh.connect(&service).await;
    assert!(answer(&mut silent).await.is_err());
    eventually("the silence is counted", || refused("DETECT_TIMEOUT") == 1.0).await;
    for (route, error) in [("forbidden", "forbidden"), ("invalid", "invalid_policy"), ("empty", "unexpected")] {
        let metrics = mesh.web.handle().metrics();
        let closed = metrics.lines().find(|l| {
            l.starts_with("outbound_tls_route_close_total{")
                && l.contains(&format!("route_name=\"{route}\",hostname=\"\",error=\"{error}\""))
        });
        assert!(closed.is_some_and(|l| l.ends_with(" 1")), "{route}: {metrics}");
    }
    assert_eq!(exchange(&mesh, &service, &client_hello("db.test")).await.unwrap().as_bytes()[0], b'x');
}
