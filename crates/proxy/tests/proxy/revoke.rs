//! A policy that changes is asked about what is open: requests one by one, and connections that nobody would let in any more.

use crate::{
    harness::{elsewhere, eventually, soon},
    mesh::{Mesh, get, naming},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use weft_model::{
    Meta, ServerPolicy,
    policy::{
        inbound::{DefaultPolicy, InboundRule, ServerProtocol},
        route::{HttpMatch, HttpRoute, PathMatch, Rule},
    },
};
use weft_testkit::{http2, policy::inbound};

const TERMINATED: &str = "inbound_tcp_authz_terminate_total{";

/// Answers the first request of each connection with `answer` and then says nothing more.
async fn stalling(answer: &'static str) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut held = vec![];
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut head = vec![];
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.unwrap());
            }
            tcp.write_all(answer.as_bytes()).await.unwrap();
            held.push(tcp);
        }
    });
    (addr, task)
}

/// Connects from elsewhere, asks, and reads until `seen`.
async fn begun(mesh: &Mesh, addr: SocketAddr, request: &str, seen: &str) -> TcpStream {
    let mut tcp = mesh.app.connect_inbound_from(elsewhere(), addr).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut read = String::new();
    while !read.ends_with(seen) {
        read.push(char::from(soon(tcp.read_u8()).await.unwrap()));
    }
    tcp
}

#[tokio::test]
async fn a_response_that_is_under_way_is_cut_and_does_not_look_complete() {
    let mesh = Mesh::start().await;
    // The end of the connection is the end of this body.
    let (addr, origin) = stalling("HTTP/1.0 200 OK\r\n\r\nhalf").await;
    mesh.control.set_inbound(addr.port(), inbound(DefaultPolicy::AllUnauthenticated));
    let mut tcp = begun(&mesh, addr, "GET / HTTP/1.0\r\n\r\n", "half").await;
    mesh.control.set_inbound(addr.port(), inbound(DefaultPolicy::AllAuthenticated));
    let rest = soon(tcp.read_to_end(&mut vec![])).await;
    assert!(rest.is_err(), "reset, not ended: {rest:?}");
    eventually("it is counted", || mesh.app.metric(TERMINATED) == 1.0).await;
    origin.abort();
}

#[tokio::test]
async fn a_tunnel_and_an_idle_connection_are_cut() {
    let mesh = Mesh::start().await;
    let upgraded = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    // How the application sees its connection end.
    let application = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await.unwrap());
        }
        tcp.write_all(upgraded.as_bytes()).await.unwrap();
        tcp.read_to_end(&mut vec![]).await
    });
    mesh.control.set_inbound(addr.port(), inbound(DefaultPolicy::AllUnauthenticated));
    let request = "GET / HTTP/1.1\r\nhost: app\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let mut tunnel = begun(&mesh, addr, request, "hello").await;
    let idle = naming("app").await;
    mesh.control.set_inbound(idle.addr().port(), inbound(DefaultPolicy::AllUnauthenticated));
    let tcp = mesh.app.connect_inbound_from(elsewhere(), idle.addr()).await.unwrap();
    let mut client = http2::Client::over(tcp).await.unwrap();
    assert_eq!(soon(client.call(get())).await.unwrap().head.status, 200);
    for port in [addr.port(), idle.addr().port()] {
        mesh.control.set_inbound(port, inbound(DefaultPolicy::Deny));
    }
    assert!(soon(tunnel.read_to_end(&mut vec![])).await.is_err(), "reset");
    let ended = soon(application).await.unwrap();
    assert!(ended.is_err(), "the application sees no end: {ended:?}");
    eventually("both are counted", || mesh.app.metric(TERMINATED) == 2.0).await;
    assert!(soon(client.call(get())).await.is_err());
}

#[tokio::test]
async fn streams_of_http2_are_cut() {
    let mesh = Mesh::start().await;
    let origin = http2::Origin::start(|_| async {
        let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"half")))]).chain(stream::pending());
        Ok(Response::new(BodyExt::boxed(StreamBody::new(first))))
    })
    .await
    .unwrap();
    mesh.control.set_inbound(origin.addr().port(), inbound(DefaultPolicy::AllUnauthenticated));
    let tcp = mesh.app.connect_inbound_from(elsewhere(), origin.addr()).await.unwrap();
    let mut client = http2::Client::over(tcp).await.unwrap();
    let mut body = soon(client.start(get())).await.unwrap().into_body();
    assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "half");
    mesh.control.set_inbound(origin.addr().port(), inbound(DefaultPolicy::AllAuthenticated));
    let rest = soon(body.frame()).await;
    assert!(rest.is_some_and(|frame| frame.is_err()), "it broke off");
    eventually("it is counted", || mesh.app.metric(TERMINATED) == 1.0).await;
}

/// `/open` for everybody, everything for whom `default` lets in.
fn with_open_route(default: DefaultPolicy) -> ServerPolicy {
    let mut policy = inbound(default);
    let ServerProtocol::Detect { routes, .. } = &mut policy.protocol else { unreachable!() };
    let matches = vec![HttpMatch { path: Some(PathMatch::Exact("/open".to_owned())), ..HttpMatch::default() }];
    let authorizations = inbound(DefaultPolicy::AllUnauthenticated).authorizations;
    let rule = Rule { matches, filters: vec![], does: InboundRule { authorizations } };
    routes.push(HttpRoute { meta: Meta::default_named("open"), hosts: vec![], rules: vec![rule] });
    policy
}

#[tokio::test]
async fn who_may_still_ask_for_something_keeps_the_connection() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    mesh.control.set_inbound(origin.addr().port(), with_open_route(DefaultPolicy::AllUnauthenticated));
    let tcp = mesh.app.connect_inbound_from(elsewhere(), origin.addr()).await.unwrap();
    let mut client = http2::Client::over(tcp).await.unwrap();
    let ask = |path: &str| http::Request::get(format!("http://app.ns{path}")).body(http2::full("")).unwrap();
    assert_eq!(soon(client.call(ask("/other"))).await.unwrap().head.status, 200);
    mesh.control.set_inbound(origin.addr().port(), with_open_route(DefaultPolicy::AllAuthenticated));
    let start = std::time::Instant::now();
    while soon(client.call(ask("/other"))).await.unwrap().head.status != 403 {
        assert!(start.elapsed() < crate::harness::LONG);
    }
    assert_eq!(soon(client.call(ask("/open"))).await.unwrap().head.status, 200, "on the same connection");
    assert_eq!(mesh.app.metric(TERMINATED), 0.0);
}

#[tokio::test]
async fn the_audit_policy_lets_in_and_counts() {
    let env = [("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", "audit")];
    let mesh = Mesh::with(&[], &env).await;
    let origin = naming("app").await;
    let tcp = mesh.app.connect_inbound_from(elsewhere(), origin.addr()).await.unwrap();
    let answer = soon(http2::Client::over(tcp).await.unwrap().call(get())).await.unwrap();
    assert_eq!(answer.head.status, 200);
    let text = mesh.app.handle().metrics();
    let counted: Vec<&str> = text.lines().filter(|l| l.starts_with("inbound_http_authz_allow_total{")).collect();
    assert!(counted.len() == 1 && counted[0].contains("authz_kind=\"default\",authz_name=\"audit\"} 1"), "{counted:?}");
}
