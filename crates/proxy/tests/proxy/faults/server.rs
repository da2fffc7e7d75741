//! What servers do wrong, and endpoints that cannot be reached.

use super::{Fault, Saw, Sees, call, end, fault, forwarded, get, grpc, nobody};
use crate::{
    harness::identity,
    mesh::{Mesh, naming},
};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use weft_model::{
    Endpoint, ProtocolHint,
    endpoint::ServerTls,
    policy::inbound::{DefaultPolicy, ServerProtocol},
};
use weft_proxy::{
    direction::Direction::{Inbound, Outbound},
    error::Code,
};
use weft_testkit::{
    http1::{Client, Origin, Reply},
    policy::{balance, forward, inbound, opaque, service},
};

const FAILFAST: super::Env = &[
    ("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "100ms"),
    ("LINKERD2_PROXY_OUTBOUND_TCP_FAILFAST_TIMEOUT", "100ms"),
];

pub(super) fn faults() -> Vec<Fault> {
    let answer = |name, inject| fault(name, Code::UpstreamProtocol, Inbound, Sees::Reply, inject);
    let none = |name, sees, inject| fault(name, Code::Failfast, Outbound, sees, inject).web(FAILFAST);
    let late = |name, sees, inject| {
        let short = &[("LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT", "200ms")];
        fault(name, Code::ConnectTimeout, Inbound, sees, inject).app(short)
    };
    vec![
        answer("an answer that is none", |m| Box::pin(answered(m, Reply::Last(b"what?\r\n\r\n".to_vec())))),
        answer("no answer but the end", |m| Box::pin(answered(m, Reply::Last(vec![])))),
        answer("no answer but a reset", |m| Box::pin(answered(m, Reply::Reset))),
        answer("an answer that breaks off in its head", |m| {
            Box::pin(answered(m, Reply::Last(b"HTTP/1.1 200 OK\r\nx:".to_vec())))
        }),
        fault("an answer that breaks off behind its head", Code::UpstreamProtocol, Inbound, Sees::Status(200), |m| {
            let part = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab";
            Box::pin(answered(m, Reply::Last(part.to_vec())))
        }),
        answer("a status that is none", |m| {
            Box::pin(answered(m, Reply::Last(b"HTTP/1.1 99 X\r\ncontent-length: 0\r\n\r\n".to_vec())))
        }),
        answer("a length and chunks in the answer", |m| {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
            Box::pin(answered(m, Reply::Last(head.to_vec())))
        }),
        answer("a switch of protocols that nobody asked for", |m| {
            let head = b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
            Box::pin(answered(m, Reply::Last(head.to_vec())))
        }),
        answer("an answer whose head is too large", |m| {
            let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(65 * 1024));
            Box::pin(answered(m, Reply::Last(head.into_bytes())))
        }),
        fault("an application that is not there", Code::ConnectFailed, Inbound, Sees::Reply, |m| {
            Box::pin(async move { call(m.app.connect_inbound(nobody()).await, crate::mesh::get()).await })
        }),
        fault("an application that is not there, for gRPC", Code::ConnectFailed, Inbound, Sees::Grpc, |m| {
            Box::pin(async move { call(m.app.connect_inbound(nobody()).await, grpc()).await })
        }),
        fault("an application that is not there, for bytes", Code::ConnectFailed, Inbound, Sees::End, |m| {
            Box::pin(async move {
                let gone = nobody();
                let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
                policy.protocol = ServerProtocol::Opaque;
                m.control.set_inbound(gone.port(), policy);
                match m.app.connect_inbound_from(Ipv4Addr::LOCALHOST.into(), gone).await {
                    Ok(tcp) => end(tcp, "\x00\x01\x02").await,
                    Err(_) => Saw::End,
                }
            })
        })
        .pushed(),
        late("an application that accepts nobody", Sees::Reply, |m| {
            Box::pin(async move {
                let (addr, _held) = full().await;
                let mut client = Client::over(m.app.connect_inbound(addr).await);
                let answer = client.call("GET / HTTP/1.1\r\nhost: app.ns\r\n\r\n").await.unwrap();
                assert_eq!(answer.header("connection").as_deref(), Some("close"));
                assert_eq!(client.rest().await.unwrap(), b"");
                Saw::Reply { status: answer.status().unwrap(), grpc: None, text: answer.header("l5d-proxy-error") }
            })
        }),
        late("an application that accepts nobody, for gRPC", Sees::Grpc, |m| {
            Box::pin(async move {
                let (addr, _held) = full().await;
                call(m.app.connect_inbound(addr).await, grpc()).await
            })
        }),
        late("an application that accepts nobody, for bytes", Sees::End, |m| {
            Box::pin(async move {
                let (addr, _held) = full().await;
                end(m.app.connect_inbound(addr).await, "\x00\x01\x02").await
            })
        }),
        fault("an endpoint that is not there", Code::ConnectFailed, Outbound, Sees::Reply, |m| {
            Box::pin(async move { get(m.connect(&forwarded(m, Endpoint::plain(nobody()))).await).await })
        }),
        fault("an endpoint that is not there, for bytes", Code::ConnectFailed, Outbound, Sees::End, |m| {
            Box::pin(async move {
                let known = m.service(&[]);
                m.control
                    .set_outbound(known.addr, opaque(service("ns", "app", 80), forward(Endpoint::plain(nobody()))));
                super::dial(&m.web, known.addr, "\x00\x01\x02").await
            })
        }),
        none("a target without endpoints", Sees::Reply, |m| {
            Box::pin(async move { get(m.connect(&m.service(&[])).await).await })
        }),
        none("a target without endpoints, for gRPC", Sees::Grpc, |m| {
            Box::pin(async move { call(m.connect(&m.service(&[])).await, grpc()).await })
        }),
        none("a target without endpoints, for bytes", Sees::End, |m| {
            Box::pin(async move {
                let known = m.service(&[]);
                let meta = service("ns", "app", 80);
                let balanced = balance(meta.clone(), known.target.parse().unwrap());
                m.control.set_outbound(known.addr, opaque(meta, balanced));
                super::dial(&m.web, known.addr, "\x00\x01\x02").await
            })
        }),
        none("endpoints that all refuse", Sees::Reply, |m| {
            Box::pin(async move { get(m.connect(&m.service(&[Endpoint::plain(nobody())])).await).await })
        }),
        fault("a server with another identity", Code::IdentityMismatch, Outbound, Sees::Reply, |m| {
            Box::pin(async move {
                let origin = naming("app").await;
                let mut endpoint = m.endpoint(origin.addr(), ProtocolHint::H2);
                endpoint.tls.as_mut().unwrap().identity = identity("somebody-else");
                get(m.connect(&forwarded(m, endpoint)).await).await
            })
        }),
        fault("a server that speaks no TLS", Code::TlsFailed, Outbound, Sees::Reply, |m| {
            Box::pin(async move {
                let origin = Origin::start(|_| Reply::Last(vec![])).await.unwrap();
                // It answers a ClientHello with something that is no TLS.
                let (addr, task) = crate::mesh::shouting(Ipv4Addr::LOCALHOST.into()).await;
                drop(origin);
                let saw = get(m.connect(&forwarded(m, meshed(m, addr))).await).await;
                task.abort();
                saw
            })
        }),
        fault("a server that says nothing to TLS", Code::ConnectTimeout, Outbound, Sees::Reply, |m| {
            Box::pin(async move {
                let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                let endpoint = meshed(m, silent.local_addr().unwrap());
                get(m.connect(&forwarded(m, endpoint)).await).await
            })
        })
        .web(&[("LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT", "200ms")]),
    ]
}

/// A server that accepts nobody and whose queue holds one, who is there: the kernel answers no other.
async fn full() -> (SocketAddr, (TcpListener, TcpStream)) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let first = TcpStream::connect(addr).await.unwrap();
    (addr, (listener, first))
}

/// An endpoint at `addr` itself that should be `app`'s proxy.
fn meshed(mesh: &Mesh, addr: SocketAddr) -> Endpoint {
    let identity = mesh.app.identity();
    let tls = ServerTls { server_name: identity.as_str().parse().unwrap(), identity };
    Endpoint { tls: Some(tls), ..Endpoint::plain(addr) }
}

/// A request of HTTP/1 to an application that answers so.
async fn answered(mesh: &Mesh, reply: Reply) -> Saw {
    let origin = Origin::start(move |_| reply.clone()).await.unwrap();
    mesh.control.set_inbound(origin.addr().port(), inbound(DefaultPolicy::AllUnauthenticated));
    let tcp = mesh.app.connect_inbound(origin.addr()).await;
    super::say(tcp, "POST / HTTP/1.1\r\nhost: app.ns\r\ncontent-length: 1\r\n\r\nx").await
}
