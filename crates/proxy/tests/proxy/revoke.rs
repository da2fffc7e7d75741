//! A policy that changes is asked about what is open: requests one by one, and connections that nobody would let in any more.

use crate::{
    harness::{elsewhere, eventually, identity, soon},
    mesh::{Mesh, get, naming, peer_at},
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
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use weft_model::{
    Meta, ServerPolicy,
    policy::{
        inbound::{Authentication, DefaultPolicy, InboundRule, ServerProtocol},
        route::{HttpMatch, HttpRoute, PathMatch, Rule},
    },
};
use weft_testkit::{http2, policy::inbound};
use weft_transport::Stream;
use weft_wire::transport_header::{SessionProtocol, TransportHeader};

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

/// What an application of the test speaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Speaks {
    Http2,
    Http1,
    Bytes,
}

/// An application on an address other than loopback, that says a half and, once it is let go, the rest. Ends with the task.
async fn halves(speaks: Speaks, held: watch::Receiver<bool>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((elsewhere(), 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let held = held.clone();
            connections.spawn(async move {
                // How its client is cut off shows there.
                let _ = match speaks {
                    Speaks::Http2 => in_streams(tcp, held).await,
                    Speaks::Http1 => {
                        let head = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n";
                        in_bytes(tcp, head, b"\r\n\r\n", held).await
                    }
                    Speaks::Bytes => in_bytes(tcp, "", b"\0", held).await,
                };
            });
        }
    });
    (addr, task)
}

async fn in_bytes(
    mut tcp: TcpStream,
    head: &str,
    asked: &[u8],
    mut held: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut bytes = vec![];
    while !bytes.ends_with(asked) {
        bytes.push(tcp.read_u8().await?);
    }
    tcp.write_all(format!("{head}half").as_bytes()).await?;
    let _ = held.wait_for(|over| *over).await;
    tcp.write_all(b"rest").await?;
    tcp.read_to_end(&mut vec![]).await.map(drop)
}

async fn in_streams(tcp: TcpStream, held: watch::Receiver<bool>) -> std::io::Result<()> {
    let mut connection = h2::server::handshake(tcp).await.map_err(std::io::Error::other)?;
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let mut held = held.clone();
        tokio::spawn(async move {
            let mut body = respond.send_response(Response::new(()), false)?;
            body.send_data(Bytes::from_static(b"half"), false)?;
            let _ = held.wait_for(|over| *over).await;
            body.send_data(Bytes::from_static(b"rest"), true)
        });
    }
    Ok(())
}

/// A client of the mesh, in the middle of an answer.
enum Amid {
    Stream(hyper::body::Incoming, http2::Client),
    Bytes(Box<Stream>),
}

impl Amid {
    /// As `name`, with a transport header or as it is redirected without.
    async fn of(mesh: &Mesh, name: &str, addr: SocketAddr, speaks: Speaks, header: bool) -> Self {
        let mut stream = if header {
            let mut stream = peer_at(mesh, name, mesh.app.addrs().inbound).await;
            let protocol = match speaks {
                Speaks::Http2 => Some(SessionProtocol::Http2),
                Speaks::Http1 => Some(SessionProtocol::Http1),
                Speaks::Bytes => None,
            };
            let header = TransportHeader { port: addr.port(), name: None, protocol };
            stream.write_all(&header.encode()).await.unwrap();
            stream
        } else {
            let tcp = mesh.app.connect_inbound_from(elsewhere(), addr).await.unwrap();
            soon(mesh.store(name).connect(tcp, &mesh.server(), false)).await.unwrap().0
        };
        let asks = match speaks {
            Speaks::Http2 => {
                let mut client = http2::Client::over(stream).await.unwrap();
                let mut body = soon(client.start(get())).await.unwrap().into_body();
                assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "half");
                return Self::Stream(body, client);
            }
            Speaks::Http1 => "GET / HTTP/1.1\r\nhost: app.ns\r\n\r\n",
            Speaks::Bytes => "\0",
        };
        stream.write_all(asks.as_bytes()).await.unwrap();
        let mut read = String::new();
        while !read.ends_with("half") {
            read.push(char::from(soon(stream.read_u8()).await.unwrap()));
        }
        Self::Bytes(Box::new(stream))
    }

    /// It is cut off, which does not look like an end.
    async fn ends_cut(self) {
        match self {
            Self::Stream(mut body, mut client) => {
                assert!(soon(body.frame()).await.is_some_and(|frame| frame.is_err()), "it broke off");
                assert!(soon(client.call(get())).await.is_err(), "with its connection");
            }
            Self::Bytes(mut stream) => {
                let rest = soon(stream.read(&mut [0])).await;
                assert!(rest.is_err(), "an end that is none: {rest:?}");
            }
        }
    }

    async fn goes_on(self) {
        match self {
            Self::Stream(mut body, _client) => {
                assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "rest");
            }
            Self::Bytes(mut stream) => {
                let mut rest = [0; 4];
                soon(stream.read_exact(&mut rest)).await.unwrap();
                assert_eq!(&rest, b"rest");
            }
        }
    }
}

/// Lets in these alone. TLS to a port that is opaque is the application's where no header says that it is not.
fn letting_in(opaque: bool, names: &[&str]) -> ServerPolicy {
    let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
    let identities = names.iter().map(|name| identity(name)).collect();
    policy.authorizations[0].authentication = Authentication::TlsAuthenticated { identities, suffixes: vec![] };
    if opaque {
        policy.protocol = ServerProtocol::Opaque;
    }
    policy
}

/// The normal case of a mesh: a client is known by its certificate, and its name is taken off the list while it is served.
#[tokio::test]
async fn an_identity_that_is_taken_off_the_list_loses_what_it_has_open_and_no_other_does() {
    // Over loopback everybody is let in.
    let listener = format!("{}:0", elsewhere());
    let mesh = Mesh::with(&[], &[("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", &listener)]).await;
    let (release, held) = watch::channel(false);
    let (mut leaving, mut staying, mut applications) = (vec![], vec![], vec![]);
    for speaks in [Speaks::Http2, Speaks::Http1, Speaks::Bytes] {
        for header in [true, false] {
            let opaque = header && speaks == Speaks::Bytes;
            let (addr, application) = halves(speaks, held.clone()).await;
            mesh.control.set_inbound(addr.port(), letting_in(opaque, &["leaves", "stays"]));
            leaving.push(Amid::of(&mesh, "leaves", addr, speaks, header).await);
            staying.push(Amid::of(&mesh, "stays", addr, speaks, header).await);
            applications.push((addr, opaque, application));
        }
    }
    for (addr, opaque, _) in &applications {
        mesh.control.set_inbound(addr.port(), letting_in(*opaque, &["stays"]));
    }
    let cut = leaving.len() as f64;
    for client in leaving {
        client.ends_cut().await;
    }
    let terminated = |who: &str| {
        let (text, id) = (mesh.app.metrics(), format!("client_id=\"{}\"", identity(who)));
        let lines = text.lines().filter(|line| line.starts_with(TERMINATED) && line.contains(&id));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
    };
    eventually("each is counted, with who it was", || terminated("leaves") == cut).await;
    release.send_replace(true);
    for client in staying {
        client.goes_on().await;
    }
    mesh.app.reaches(TERMINATED, cut).await;
    for (_, _, application) in applications {
        application.abort();
    }
}
