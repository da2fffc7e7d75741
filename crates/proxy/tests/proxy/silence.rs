//! Silence on ports whose protocol a policy declares: it opens no session for a server that speaks first, however long it lasts, and
//! who is late is served.

use crate::{
    harness::{Proxy, soon},
    mesh::{Mesh, Service, naming, peer, shouting},
    rate_limit::known,
};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use weft_model::{
    ClientPolicy, Endpoint, ServerPolicy,
    policy::{
        inbound::{DefaultPolicy, ServerProtocol},
        outbound::ClientProtocol,
        route::{GrpcMatch, GrpcRoute, Rule},
    },
};
use weft_testkit::{
    http1, http2,
    policy::{balance, grpc_routes, http_routes, inbound, service},
};
use weft_wire::transport_header::TransportHeader;

const SOON: (&str, &str) = ("WEFT_PROXY_OUTBOUND_SERVER_FIRST_WAIT", "20ms");
const SOON_INBOUND: (&str, &str) = ("WEFT_PROXY_INBOUND_SERVER_FIRST_WAIT", "20ms");

/// Silent connections that are opened behind another one and greeted: by then that one has been silent for longer than a proxy waits.
async fn others_are_greeted(connect: impl AsyncFn() -> TcpStream) {
    for _ in 0..3 {
        let mut tcp = connect().await;
        let mut hello = [0; 6];
        soon(tcp.read_exact(&mut hello)).await.unwrap();
        assert_eq!(&hello, b"hello\n");
    }
}

/// A server of what is declared, and how many have connected to it.
enum Server {
    Http1(http1::Origin),
    Http2(http2::Origin),
}

impl Server {
    async fn start(http1: bool) -> Self {
        if http1 {
            return Self::Http1(http1::Origin::start(|_| http1::Reply::ok("app")).await.unwrap());
        }
        Self::Http2(naming("app").await)
    }

    fn addr(&self) -> SocketAddr {
        match self {
            Self::Http1(origin) => origin.addr(),
            Self::Http2(origin) => origin.addr(),
        }
    }

    fn connections(&self) -> usize {
        match self {
            Self::Http1(origin) => origin.seen().connections.len(),
            Self::Http2(origin) => origin.seen().connections,
        }
    }

    /// What is said late is a request.
    async fn serves(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let body = match self {
            Self::Http1(_) => {
                let mut client = http1::Client::over(stream);
                soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap().body
            }
            Self::Http2(_) => {
                let mut client = http2::Client::over(stream).await.unwrap();
                // By its path a call of gRPC, too.
                let request = http::Request::post("http://app.ns/a.B/C").body(http2::full("")).unwrap();
                soon(client.call(request)).await.unwrap().body.to_vec()
            }
        };
        assert_eq!(body, b"app");
    }
}

fn sessions(proxy: &Proxy) -> f64 {
    proxy.metric("weft_proxy_server_first_total{")
}

#[tokio::test]
async fn silence_on_a_port_declared_to_be_http_opens_no_session_at_the_clients_proxy() {
    let mesh = Mesh::with(&[SOON], &[]).await;
    let (greeting, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let detected = mesh.service(&[Endpoint::plain(greeting)]);
    for declared in ["http/1", "http/2", "grpc"] {
        let origin = Server::start(declared == "http/1").await;
        let known: Service = mesh.service(&[Endpoint::plain(origin.addr())]);
        let meta = service("ns", "app", 80);
        let backend = balance(meta.clone(), known.target.parse().unwrap());
        let protocol = match declared {
            "http/1" => ClientProtocol::Http1(http_routes(backend)),
            "http/2" => ClientProtocol::Http2(http_routes(backend)),
            _ => ClientProtocol::Grpc { routes: grpc_routes(backend), breaker: None },
        };
        mesh.control.set_outbound(known.addr, ClientPolicy { meta, protocol });
        let late = mesh.connect(&known).await;
        let before = sessions(&mesh.web);
        others_are_greeted(async || mesh.connect(&detected).await).await;
        mesh.web.reaches("weft_proxy_server_first_total{", before + 3.0).await;
        assert_eq!(origin.connections(), 0, "{declared}: nobody was dialled");
        origin.serves(late).await;
        assert_eq!(origin.connections(), 1, "{declared}");
    }
    server.abort();
}

fn declared(protocol: &str) -> ServerPolicy {
    let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
    let ServerProtocol::Detect { routes, .. } = &policy.protocol else { unreachable!() };
    let routes = routes.clone();
    policy.protocol = match protocol {
        "http/1" => ServerProtocol::Http1 { routes, rate_limit: None },
        "http/2" => ServerProtocol::Http2 { routes, rate_limit: None },
        _ => {
            let rule = Rule { matches: vec![GrpcMatch::default()], filters: vec![], does: Default::default() };
            ServerProtocol::Grpc {
                routes: vec![GrpcRoute { meta: service("ns", "grpc", 0), hosts: vec![], rules: vec![rule] }],
            }
        }
    };
    policy
}

#[tokio::test]
async fn silence_on_a_port_declared_to_be_http_opens_no_session_at_the_servers_proxy() {
    let mesh = Mesh::with(&[], &[SOON_INBOUND]).await;
    let (greeting, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    for (n, protocol) in ["http/1", "http/2", "grpc"].into_iter().enumerate() {
        let origin = Server::start(protocol == "http/1").await;
        let (addr, port) = (origin.addr(), origin.addr().port());
        known(&mesh, port, declared(protocol), &format!("declared-{n}")).await;
        // While it was still detected somebody may have been slow.
        let (dialled, before) = (origin.connections(), sessions(&mesh.app));
        // Without the mesh, inside its TLS, and over a session for bytes that a client's proxy has opened in silence.
        let stranger = mesh.app.connect_inbound(addr).await;
        let tcp = mesh.app.connect_inbound(addr).await;
        let (of_mesh, _) = soon(mesh.store("web").connect(tcp, &mesh.server(), false)).await.unwrap();
        let mut session = peer(&mesh).await;
        session.write_all(&TransportHeader { port, name: None, protocol: None }.encode()).await.unwrap();
        others_are_greeted(async || mesh.app.connect_inbound(greeting).await).await;
        assert!(!matches!(soon(session.read(&mut [0])).await, Ok(1..)), "{protocol}: no byte of a server");
        let refused = "weft_proxy_server_first_total{direction=\"inbound\",outcome=\"refused\"}";
        mesh.app.reaches(refused, (n + 1) as f64).await;
        assert_eq!(origin.connections(), dialled, "{protocol}: nobody was dialled");
        origin.serves(stranger).await;
        origin.serves(of_mesh).await;
        // Those that were greeted, and the one that was refused.
        mesh.app.reaches("weft_proxy_server_first_total{", before + 4.0).await;
    }
    server.abort();
}
