//! The tap server: who may observe, what is shown, and where it ends.

use crate::{
    harness::{LONG, Proxy, Setup, elsewhere, identity, soon},
    identity::{Ahead, HOUR},
    mesh::{Mesh, get, naming},
};
use http::Request;
use hyper_util::rt::TokioIo;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};
use weft_model::{
    ProtocolHint,
    endpoint::ServerTls,
    tap::{AddrMatch, End, Event, Match, Observation, Step, TextMatch},
};
use weft_testkit::http2;
use weft_transport::tls::{Key, Store};
use weft_wire::{Error, Incoming, tap::Client};

/// Whom the proxies let in: nobody's name in these tests but the observer's.
const OBSERVER: &str = "tap.ns.serviceaccount.identity.linkerd.cluster.local";
pub(crate) const TAP: [(&str, &str); 2] =
    [("LINKERD2_PROXY_TAP_SVC_NAME", OBSERVER), ("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", "127.0.0.1:0")];

fn addr(proxy: &Proxy) -> SocketAddr {
    proxy.addrs().tap.expect("it has a tap server")
}

pub(crate) async fn observe(proxy: &Proxy, limit: u32, matches: Match) -> Incoming<Event> {
    observe_at(addr(proxy), limit, matches).await
}

pub(crate) async fn observe_at(server: SocketAddr, limit: u32, matches: Match) -> Incoming<Event> {
    let channel = Endpoint::from_shared(format!("http://{server}")).unwrap().connect().await.unwrap();
    let observation = Observation { limit, matches, headers: true };
    soon(Client::new(channel).observe(&observation)).await.unwrap()
}

pub(crate) async fn next(events: &mut Incoming<Event>) -> Option<Event> {
    soon(events.next()).await.map(|event| event.unwrap())
}

pub(crate) fn everything() -> Match {
    Match::All(vec![])
}

fn prefix(path: &str) -> Match {
    Match::Path(TextMatch::Prefix(path.to_owned()))
}

#[tokio::test]
async fn a_request_is_seen_in_three_steps_at_both_proxies() {
    let mesh = Mesh::with(&TAP, &TAP).await;
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let (mut out, mut into) = (observe(&mesh.web, 1, everything()).await, observe(&mesh.app, 1, everything()).await);
    let request = Request::get("http://app.ns/a?b").header("x-a", "1").body(http2::full("")).unwrap();
    assert_eq!(soon(mesh.http2(&known).await.call(request)).await.unwrap().head.status, 200);

    for (events, proxy, outbound) in [(&mut out, &mesh.web, true), (&mut into, &mesh.app, false)] {
        let event = next(events).await.unwrap();
        assert_eq!((event.outbound, event.destination), (outbound, origin.addr()));
        let labels = |labels: &weft_model::tap::Labels| {
            labels.iter().map(|(name, value)| format!("{name}={value} ")).collect::<String>()
        };
        let (web, app) = (mesh.web.identity(), mesh.app.identity());
        let (source, destination) = (labels(&event.source_labels), labels(&event.destination_labels));
        if outbound {
            assert_eq!(source, "tls=loopback ");
            assert_eq!(destination, format!("pod=app-1 server_id={app} tls=true "));
            assert_eq!(labels(&event.route_labels), "group= kind=default route=http ");
        } else {
            assert_eq!((source, destination), (format!("client_id={web} tls=true "), "tls=loopback ".to_owned()));
        }
        let Step::Request { method, scheme, authority, path, fields } = event.step else { panic!("{event:?}") };
        assert_eq!([&*method, &*scheme, &*authority, &*path], ["GET", "http", "app.ns", "/a"]);
        assert!(fields.contains(&("x-a".to_owned(), b"1".to_vec())), "{fields:?}");

        let head = next(events).await.unwrap();
        assert_eq!(head.id, event.id);
        let Step::Response { since_request, status, fields } = head.step else { panic!("{head:?}") };
        assert!(status == 200 && fields.iter().any(|(name, _)| name == "content-length"), "{fields:?}");

        let end = next(events).await.unwrap();
        assert_eq!(end.id, event.id);
        let Step::End { since_request: total, since_response, response_bytes, end, fields } = end.step else {
            panic!("{end:?}")
        };
        assert!(total >= since_request && total >= since_response);
        assert_eq!((response_bytes, end, fields), (3, None, vec![]));
        assert_eq!(next(events).await, None, "one request was asked for");
        assert_eq!(proxy.metric("weft_proxy_tap_events_dropped_total"), 0.0);
    }
}

#[tokio::test]
async fn only_what_was_asked_for_is_shown_and_only_as_much() {
    let mesh = Mesh::with(&TAP, &[]).await;
    let origin = http2::Origin::start(|_| async {
        let trailers = [("grpc-status", "5")].map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()));
        Ok(http::Response::new(http2::with_trailers("x", trailers.into_iter().collect())))
    });
    let origin = origin.await.unwrap();
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let mut some = observe(&mesh.web, 2, prefix("/b")).await;
    let mut none = observe(&mesh.web, 1, Match::Not(Box::new(prefix("/")))).await;
    let mut client = mesh.http2(&known).await;
    for path in ["/a", "/b1", "/c", "/b2", "/b3"] {
        let request = Request::get(format!("http://app.ns{path}")).body(http2::full("")).unwrap();
        assert_eq!(soon(client.call(request)).await.unwrap().head.status, 200);
    }
    let mut paths = vec![];
    while let Some(event) = next(&mut some).await {
        match event.step {
            Step::Request { path, .. } => paths.push(path),
            Step::End { end, fields, .. } => {
                assert_eq!(end, Some(End::Grpc(5)));
                assert_eq!(fields, [("grpc-status".to_owned(), b"5".to_vec())], "the trailers");
            }
            Step::Response { .. } => {}
        }
    }
    assert_eq!(paths, ["/b1", "/b2"]);
    assert!(tokio::time::timeout(Duration::from_millis(50), none.next()).await.is_err(), "nothing fits");
}

/// For a request for `/a?b` of `app.ns` from `client` to `server`: a match of each kind that takes it, and one that does not.
fn kinds(client: SocketAddr, server: SocketAddr, labels: [[&str; 3]; 2]) -> Vec<[Match; 2]> {
    let text = |text: &str| text.to_owned();
    let exact = |exact: &str| TextMatch::Exact(text(exact));
    let other_port = |port: u16| if port == 1 { 2 } else { port - 1 };
    let network = |network: &str| AddrMatch::Network(network.parse().unwrap());
    let ports = |port: u16| AddrMatch::Ports(port..=port);
    let [destination, route] = labels;
    vec![
        [Match::Source(network("127.0.0.0/8")), Match::Source(network("10.0.0.0/8"))],
        [Match::Source(ports(client.port())), Match::Source(ports(server.port()))],
        // Where it goes, not what was dialled.
        [Match::Destination(network("127.0.0.1/32")), Match::Destination(network("10.96.0.0/16"))],
        [Match::Destination(ports(server.port())), Match::Destination(ports(80))],
        [Match::Destination(AddrMatch::Ports(1..=65535)), Match::Destination(ports(other_port(server.port())))],
        [Match::Method(text("GET")), Match::Method(text("POST"))],
        [Match::Scheme(text("http")), Match::Scheme(text("https"))],
        [Match::Authority(exact("app.ns")), Match::Authority(exact("app"))],
        [Match::Authority(TextMatch::Prefix(text("app."))), Match::Authority(TextMatch::Prefix(text("ns")))],
        [Match::Path(exact("/a")), Match::Path(exact("/a?b"))],
        [Match::DestinationLabel(text(destination[0]), text(destination[1])), {
            Match::DestinationLabel(text(destination[0]), text(destination[2]))
        }],
        [Match::RouteLabel(text(route[0]), text(route[1])), Match::RouteLabel(text(route[0]), text(route[2]))],
        [Match::Any(vec![prefix("/b"), prefix("/a")]), Match::All(vec![prefix("/b"), prefix("/a")])],
    ]
}

/// What is matched is what the proxy knows of a request: at either proxy each kind takes one and leaves another.
#[tokio::test]
async fn every_kind_of_match_is_asked_of_the_request_as_it_is() {
    let mesh = Mesh::with(&TAP, &TAP).await;
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let outbound = [["pod", "app-1", "app-2"], ["route", "http", "grpc"]];
    let inbound = [["tls", "loopback", "true"], ["route", "default", "http"]];
    let ways = [
        (&mesh.web, mesh.connect(&known).await, outbound),
        (&mesh.app, mesh.app.connect_inbound(origin.addr()).await, inbound),
    ];
    for (proxy, tcp, labels) in ways {
        let marker = Match::Path(TextMatch::Exact("/marker".to_owned()));
        let (mut takes, mut leaves) = (vec![], vec![marker]);
        for [hit, miss] in kinds(tcp.local_addr().unwrap(), origin.addr(), labels) {
            takes.push((observe(proxy, 1, hit.clone()).await, hit));
            leaves.push(miss);
        }
        let mut left = observe(proxy, 1, Match::Any(leaves)).await;
        let mut client = http2::Client::over(tcp).await.unwrap();
        for path in ["/a?b", "/marker"] {
            let request = Request::get(format!("http://app.ns{path}")).body(http2::full("")).unwrap();
            assert_eq!(soon(client.call(request)).await.unwrap().head.status, 200);
        }
        let path = |event: Event| match event.step {
            Step::Request { path, .. } => path,
            other => panic!("{other:?}"),
        };
        for (events, hit) in &mut takes {
            assert_eq!(path(next(events).await.unwrap()), "/a", "{hit:?}");
        }
        assert_eq!(path(next(&mut left).await.unwrap()), "/marker", "what none of them wants is not shown");
    }
}

#[tokio::test]
async fn a_refusal_is_seen_and_who_leaves_ends_the_observation() {
    let mesh = Mesh::with(&[TAP[0], TAP[1], ("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "50ms")], &[]).await;
    let known = mesh.service(&[]);
    let mut events = observe(&mesh.web, 5, everything()).await;
    assert_eq!(soon(mesh.http2(&known).await.call(get())).await.unwrap().head.status, 504);
    let steps = [next(&mut events).await.unwrap(), next(&mut events).await.unwrap(), next(&mut events).await.unwrap()];
    assert!(matches!(&steps[1].step, Step::Response { status: 504, .. }), "{:?}", steps[1]);
    assert!(matches!(&steps[2].step, Step::End { end: Some(End::Reset(2)), .. }), "{:?}", steps[2]);
    drop(events);
    // A server notices that its client has left a moment later.
    let start = std::time::Instant::now();
    loop {
        let mut all = vec![];
        for _ in 0..64 {
            let channel =
                Endpoint::from_shared(format!("http://{}", addr(&mesh.web))).unwrap().connect().await.unwrap();
            let asked = Observation { limit: 1, matches: everything(), headers: false };
            all.push(Client::new(channel).observe(&asked).await);
        }
        if all.iter().all(Result::is_ok) {
            break;
        }
        assert!(start.elapsed() < LONG, "there is room for as many again");
    }
}

/// A channel from another address than loopback, in TLS as `name` or in plaintext.
async fn stranger(mesh: &Mesh, name: Option<&str>) -> Channel {
    let to = SocketAddr::new(elsewhere(), addr(&mesh.app).port());
    let server = mesh.app.identity();
    let server = ServerTls { server_name: server.as_str().parse().unwrap(), identity: server };
    let store = name.map(|name| {
        let identity = identity(name);
        let issued = mesh.control.ca().issue(&identity, Duration::from_secs(60)).unwrap();
        let store = Store::new(mesh.control.ca().anchors_pem(), identity.as_str().parse().unwrap(), identity).unwrap();
        let intermediates: Vec<_> = issued.certificate.intermediates.iter().map(|der| der.to_vec()).collect();
        let key = Key::from_pkcs8(&issued.key_pkcs8).unwrap();
        store.set_certificate(&key, &issued.certificate.leaf, &intermediates).unwrap();
        store
    });
    let connect = tower::service_fn(move |_| {
        let (store, server) = (store.clone(), server.clone());
        async move {
            let tcp = TcpStream::connect(to).await?;
            let stream = match store {
                Some(store) => store.connect(tcp, &server, false).await.map_err(std::io::Error::other)?.0,
                None => weft_transport::Stream::tcp(tcp),
            };
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://tap").connect_with_connector(connect).await.unwrap()
}

#[tokio::test]
async fn only_the_observer_may_observe_from_outside() {
    let mesh = Mesh::with(&[], &[TAP[0], ("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", "0.0.0.0:0")]).await;
    let asked = Observation { limit: 1, matches: everything(), headers: false };
    for (name, permitted) in [(None, false), (Some("web"), false), (Some("tap"), true)] {
        let answer = soon(Client::new(stranger(&mesh, name).await).observe(&asked)).await;
        match answer {
            Ok(_) => assert!(permitted, "{name:?}"),
            Err(Error::Rpc(status)) => {
                assert!(!permitted && status.code() == tonic::Code::Unauthenticated, "{name:?}: {status}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    // What asks for nothing is told so.
    let mut client = Client::new(stranger(&mesh, Some("tap")).await);
    let nothing = Observation { limit: 0, matches: everything(), headers: false };
    let refused = soon(client.observe(&nothing)).await.map(drop);
    assert!(matches!(refused, Err(Error::Rpc(status)) if status.code() == tonic::Code::InvalidArgument));
}

/// Who observes is told to come again before its connection ends with its certificate.
#[tokio::test]
async fn an_observer_is_told_before_its_connection_ends() {
    let (ahead, clock) = Ahead::new();
    let tap = |setup: Setup| {
        let setup = setup.env(TAP[0].0, TAP[0].1).env("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", "0.0.0.0:0");
        setup.wall_clock(clock)
    };
    let mesh = Mesh::of(|web| web, tap).await;
    let to = SocketAddr::new(elsewhere(), addr(&mesh.app).port());
    let tcp = TcpStream::connect(to).await.unwrap();
    // Certified for an hour, as `app` is at least.
    let (mut stream, _) = soon(mesh.store("tap").connect(tcp, &mesh.server(), false)).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut kind = 0;
    while kind != 7 {
        let mut head = [0; 9];
        soon(stream.read_exact(&mut head)).await.expect("it says goodbye before it ends");
        kind = head[3];
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        soon(stream.read_exact(&mut vec![0; length])).await.unwrap();
        if kind == 4 && head[4] == 1 {
            // The settings are known: it is served.
            ahead.by(HOUR + Duration::from_secs(1));
        }
    }
}

#[tokio::test]
async fn without_an_observers_name_there_is_no_tap_server() {
    let mesh = Mesh::start().await;
    assert_eq!(mesh.web.addrs().tap, None);
}
