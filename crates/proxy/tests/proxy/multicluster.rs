//! A gateway: direct connections whose transport header names a target behind it.

use crate::{
    explain::explained,
    harness::{elsewhere, eventually, soon},
    mesh::{Mesh, naming, peer, peer_at, shouting},
};
use http::Request;
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use weft_model::{
    Endpoint, Profile,
    policy::inbound::DefaultPolicy,
    profile::{ProfileRoute, RequestMatch, ResponseClass, ResponseMatch},
};
use weft_testkit::{
    control::Target,
    http1, http2,
    policy::{balance, detect, inbound, opaque, service},
};
use weft_transport::Stream;
use weft_wire::transport_header::{SessionProtocol, TransportHeader};

const TARGET: &str = "far.ns.svc.cluster.local:80";

/// A mesh in which `app`'s proxy is a gateway to what is below `svc.cluster.local`.
async fn mesh() -> Mesh {
    let suffixes = ("LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES", "svc.cluster.local.");
    let mesh = Mesh::with(&[], &[suffixes]).await;
    mesh.control.set_inbound(mesh.app.addrs().inbound.port(), inbound(DefaultPolicy::AllAuthenticated));
    mesh
}

/// What is behind the target: one endpoint outside the mesh.
fn far(mesh: &Mesh, endpoint: Endpoint, bytes: bool) {
    let meta = service("ns", "far", 80);
    let backend = balance(meta.clone(), TARGET.parse().unwrap());
    let policy = if bytes { opaque(meta, backend) } else { detect(meta, backend) };
    mesh.control.set_outbound_target(Target::Authority(TARGET.to_owned()), policy);
    mesh.control.set_endpoints(TARGET, vec![endpoint]);
    mesh.control.set_profile(TARGET, Profile { name: "far.ns.svc.cluster.local".parse().ok(), ..Profile::default() });
}

/// A connection of a peer that asks the gateway for `name`.
async fn named(mut stream: Stream, name: &str, protocol: Option<SessionProtocol>) -> Stream {
    let header = TransportHeader { port: 80, name: Some(name.parse().unwrap()), protocol };
    stream.write_all(&header.encode()).await.unwrap();
    stream
}

#[tokio::test]
async fn requests_go_on_and_say_how_they_came() {
    let mesh = mesh().await;
    let origin = naming("far").await;
    far(&mesh, Endpoint::plain(origin.addr()), false);
    let (client, gateway) = (crate::harness::identity("peer"), mesh.app.identity());
    let stream = named(peer(&mesh).await, "far.ns.svc.cluster.local", Some(SessionProtocol::Http2)).await;
    let mut http = http2::Client::over(stream).await.unwrap();
    let request =
        Request::get("http://far.east/").header("forwarded", "for=192.0.2.9").header("l5d-client-id", "forged");
    let answer = soon(http.call(request.body(http2::full("")).unwrap())).await.unwrap();
    assert_eq!((answer.head.status.as_u16(), &answer.body[..]), (200, &b"far"[..]));
    let seen = origin.seen().requests[0].clone();
    let forwarded: Vec<_> = seen.headers.get_all("forwarded").iter().collect();
    assert_eq!(forwarded, [&format!("for=192.0.2.9, by={gateway};for={client};host=far.east;proto=https")]);
    let ids: Vec<_> = seen.headers.get_all("l5d-client-id").iter().collect();
    assert_eq!(ids, [client.as_str()]);

    // HTTP/1 that the client's proxy carries on HTTP/2 becomes HTTP/1 again, for the target.
    let old = http1::Origin::start(|_| http1::Reply::ok("old")).await.unwrap();
    far(&mesh, Endpoint::plain(old.addr()), false);
    let request =
        || Request::get("http://far.east/").header("l5d-orig-proto", "HTTP/1.1").body(http2::full("")).unwrap();
    let start = std::time::Instant::now();
    while old.seen().requests.is_empty() {
        // A request to the endpoint that was there before fails and ends its connection.
        let stream = named(peer(&mesh).await, "far.ns.svc.cluster.local", Some(SessionProtocol::Http2)).await;
        let mut http = http2::Client::over(stream).await.unwrap();
        let _ = soon(http.call(request())).await;
        assert!(start.elapsed() < crate::harness::LONG);
    }
    let seen = old.seen().requests[0].clone();
    assert_eq!(seen.headers("host"), [TARGET]);
    assert!(seen.headers("forwarded")[0].contains("host=far.east"));
    assert!(seen.headers("l5d-orig-proto").is_empty());

    // And HTTP/1 as it is.
    let stream = named(peer(&mesh).await, "far.ns.svc.cluster.local", Some(SessionProtocol::Http1)).await;
    let answer = soon(http1::Client::over(stream).call("GET /a HTTP/1.1\r\nHost: far.east\r\n\r\n")).await.unwrap();
    assert_eq!(answer.status(), Some(200));
    assert_eq!(old.seen().requests.last().unwrap().headers("host"), [TARGET]);
}

/// What a client says that it asks for stays that, whatever it is.
#[tokio::test]
async fn a_host_forges_no_other_client() {
    let mesh = mesh().await;
    let origin = naming("far").await;
    far(&mesh, Endpoint::plain(origin.addr()), false);
    let (client, gateway) = (crate::harness::identity("peer"), mesh.app.identity());
    let target = "far.ns.svc.cluster.local";
    let host = "x;for=victim";
    let written = format!("by={gateway};for={client};host=\"{host}\";proto=https");
    let stream = named(peer(&mesh).await, target, Some(SessionProtocol::Http2)).await;
    let mut http = http2::Client::over(stream).await.unwrap();
    let request = |host: &str| Request::get(format!("http://{host}/")).body(http2::full("")).unwrap();
    assert_eq!(soon(http.call(request(host))).await.unwrap().head.status, 200);
    assert_eq!(origin.seen().requests[0].headers["forwarded"], written);
    // What is no host goes nowhere.
    assert!(soon(http.call(request("x,by=gw;for=victim"))).await.is_err());
    assert_eq!(origin.seen().requests.len(), 1);
}

#[tokio::test]
async fn loops_and_foreign_names_are_refused() {
    let mesh = mesh().await;
    let origin = naming("far").await;
    far(&mesh, Endpoint::plain(origin.addr()), false);
    // Once as it is and once as a call of gRPC: the status, the status of gRPC, and why.
    let ask = async |who: &str, name: &str, forwarded: &str| {
        let stream = peer_at(&mesh, who, mesh.app.addrs().inbound).await;
        let stream = named(stream, name, Some(SessionProtocol::Http2)).await;
        let mut http = http2::Client::over(stream).await.unwrap();
        let mut told = vec![];
        for content in ["text/plain", "application/grpc"] {
            let request =
                Request::post("http://far.east/a.B/C").header("forwarded", forwarded).header("content-type", content);
            let answer = soon(http.call(request.body(http2::full("")).unwrap())).await.unwrap();
            let header = |name: &str| answer.head.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
            let grpc = header("grpc-status");
            told.push((answer.head.status.as_u16(), grpc, header("l5d-proxy-error").unwrap_or_default()));
        }
        told
    };
    let is_refused = |told: &[(u16, Option<String>, String)], status: u16, grpc: &str, why: &str| {
        let [http, call] = told else { panic!("{told:?}") };
        assert!((http.0, http.1.as_deref()) == (status, None) && http.2.ends_with(why), "{told:?}");
        assert!((call.0, call.1.as_deref()) == (200, Some(grpc)) && call.2.ends_with(why), "{told:?}");
    };
    let target = "far.ns.svc.cluster.local";
    assert_eq!(ask("peer", target, "for=1").await[0].0, 200);
    let own = mesh.app.identity();
    is_refused(&ask("peer", target, &format!("by={own};for=x, for=2")).await, 508, "10", "[LOOP]");
    is_refused(&ask("app", target, "for=1").await, 508, "10", "[LOOP]");
    for foreign in ["far.example", "evilsvc.cluster.local"] {
        is_refused(&ask("peer", foreign, "for=1").await, 404, "5", "[GATEWAY_DOMAIN_INVALID]");
    }
    let unknown = ask("peer", "nobody.ns.svc.cluster.local", "for=1").await;
    is_refused(&unknown, 404, "5", "has no profile [GATEWAY_DOMAIN_INVALID]");
    assert_eq!(origin.seen().requests.len(), 2);
    mesh.app.reaches("inbound_http_errors_total{error=\"gateway loop\"}", 4.0).await;
    mesh.app.reaches("inbound_http_errors_total{error=\"gateway domain invalid\"}", 6.0).await;
}

/// A profile that routes takes precedence over the policy of the name, as on the way out; one that only has an endpoint is followed
/// where there is no policy.
#[tokio::test]
async fn a_profile_of_the_name_is_followed() {
    let mesh = mesh().await;
    let origin = naming("far").await;
    far(&mesh, Endpoint::plain(origin.addr()), false);
    let route = ProfileRoute {
        matches: RequestMatch::All(vec![]),
        response_classes: vec![ResponseClass { matches: ResponseMatch::Status(200..=200), failure: true }],
        labels: [("route".to_owned(), "all".to_owned())].into(),
        retryable: false,
        timeout: None,
    };
    let name = "far.ns.svc.cluster.local".parse().ok();
    mesh.control.set_profile(TARGET, Profile { name, routes: vec![route], ..Profile::default() });
    let stream = named(peer(&mesh).await, "far.ns.svc.cluster.local", Some(SessionProtocol::Http2)).await;
    let mut http = http2::Client::over(stream).await.unwrap();
    let request = || Request::get("http://far.east/").body(http2::full("")).unwrap();
    assert_eq!(&soon(http.call(request())).await.unwrap().body[..], b"far");
    let seen = origin.seen().requests[0].headers.clone();
    assert_eq!(seen["l5d-dst-canonical"], TARGET);
    assert!(seen["forwarded"].to_str().unwrap().ends_with("host=far.east;proto=https"), "{seen:?}");
    let labels = format!("{{direction=\"outbound\",dst=\"{TARGET}\",rt_route=\"all\"");
    let failed = format!("route_response_total{labels},status_code=\"200\",classification=\"failure\"}}");
    mesh.app.reaches(&failed, 1.0).await;
    mesh.app.reaches(&format!("route_request_total{labels}"), 1.0).await;
    assert_eq!(mesh.app.metric("outbound_http_route_"), 0.0, "no route of the policy");

    // A pod of a StatefulSet by its name: no policy is about it.
    let pod = naming("pod").await;
    let (bytes, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    for (name, addr) in [("pod-0", pod.addr()), ("pod-1", bytes)] {
        let name = format!("{name}.far.ns.svc.cluster.local");
        let endpoint = Some(Endpoint::plain(addr));
        let profile = Profile { name: name.parse().ok(), endpoint, ..Profile::default() };
        mesh.control.set_profile(format!("{name}:80"), profile);
    }
    let stream = named(peer(&mesh).await, "pod-0.far.ns.svc.cluster.local", Some(SessionProtocol::Http2)).await;
    let mut http = http2::Client::over(stream).await.unwrap();
    assert_eq!(&soon(http.call(request())).await.unwrap().body[..], b"pod");
    let mut stream = named(peer(&mesh).await, "pod-1.far.ns.svc.cluster.local", None).await;
    stream.write_all(b"abc").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "hello\nABCbye\n");

    // Beside a policy an endpoint alone says nothing.
    let name = "far.ns.svc.cluster.local".parse().ok();
    let endpoint = Some(Endpoint::plain(pod.addr()));
    mesh.control.set_profile(TARGET, Profile { name, endpoint, ..Profile::default() });
    let policys = "outbound_http_route_request_statuses_total{parent_group=\"core\",parent_kind=\"Service\",\
                   parent_namespace=\"ns\",parent_name=\"far\"";
    let stream = named(peer(&mesh).await, "far.ns.svc.cluster.local", Some(SessionProtocol::Http2)).await;
    let mut http = http2::Client::over(stream).await.unwrap();
    let start = Instant::now();
    while mesh.app.metric(policys) == 0.0 {
        assert_eq!(&soon(http.call(request())).await.unwrap().body[..], b"far");
        assert!(start.elapsed() < crate::harness::LONG, "the profile never comes");
    }
    server.abort();
}

/// Peers keep their connections: what is refused may be let in, or found, by the next request of the same one.
#[tokio::test]
async fn a_connection_that_was_refused_once_is_not_refused_for_ever() {
    let (mesh, addr) = from_elsewhere(&[]).await;
    let request = || Request::get("http://far/").body(http2::full("")).unwrap();
    let start = Instant::now();
    mesh.control.set_inbound(addr.port(), inbound(DefaultPolicy::Deny));
    let mut http = loop {
        let stream = peer_at(&mesh, "peer", addr).await;
        let stream = named(stream, "far.ns.svc.cluster.local", Some(SessionProtocol::Http2)).await;
        // One that the policy cuts as it comes is not the one that is wanted.
        if let Ok(mut http) = http2::Client::over(stream).await
            && soon(http.call(request())).await.is_ok_and(|answer| answer.head.status == 403)
        {
            break http;
        }
        assert!(start.elapsed() < crate::harness::LONG, "the policy never comes");
    };
    let mut until = async |status: u16| {
        let start = Instant::now();
        while soon(http.call(request())).await.expect("the connection stays").head.status != status {
            assert!(start.elapsed() < crate::harness::LONG, "{status} never comes");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    mesh.control.set_inbound(addr.port(), inbound(DefaultPolicy::AllAuthenticated));
    until(404).await;
    let origin = naming("far").await;
    far(&mesh, Endpoint::plain(origin.addr()), false);
    until(200).await;
}

#[tokio::test]
async fn the_policy_of_the_gateways_port_holds() {
    let app = [
        ("LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES", "svc.cluster.local."),
        ("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", "0.0.0.0:0"),
    ];
    let mesh = Mesh::with(&[], &app).await;
    let port = mesh.app.addrs().inbound.port();
    let origin = naming("far").await;
    far(&mesh, Endpoint::plain(origin.addr()), false);
    let ask = async |name: &str| {
        let stream = peer_at(&mesh, "peer", (elsewhere(), port).into()).await;
        let stream = named(stream, &format!("{name}.ns.svc.cluster.local"), Some(SessionProtocol::Http2)).await;
        // A connection that a change of policy no longer lets in is cut.
        let mut http = http2::Client::over(stream).await.ok()?;
        let answer = soon(http.call(Request::get("http://far/").body(http2::full("")).unwrap())).await.ok()?;
        Some(answer.head.status.as_u16())
    };
    for (default, expected) in [(DefaultPolicy::AllAuthenticated, 200), (DefaultPolicy::Deny, 403)] {
        mesh.control.set_inbound(port, inbound(default));
        let start = std::time::Instant::now();
        while ask("far").await != Some(expected) {
            assert!(start.elapsed() < crate::harness::LONG, "{default:?}");
        }
    }
    mesh.app.at_least("inbound_http_authz_deny_total{", 1.0).await;
    // Who is let in nowhere does not make it ask for names.
    assert_eq!(ask("unheard-of").await, Some(403));
    let asked = |name: &str| mesh.control.calls().iter().any(|call| format!("{call:?}").contains(name));
    assert!(asked("far.ns") && !asked("unheard-of"), "{:?}", mesh.control.calls());
}

/// `deny` with a log: who would be refused is let in, counted under the name of the policy, and told.
#[tokio::test]
async fn the_audit_policy_of_the_gateways_port_lets_in_and_counts() {
    let (mesh, addr) = from_elsewhere(&[("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", "audit")]).await;
    mesh.control.set_inbound(addr.port(), inbound(DefaultPolicy::Audit));
    let origin = naming("far").await;
    far(&mesh, Endpoint::plain(origin.addr()), false);
    // By what is in force before the control plane has answered nobody else is let in either.
    let stream =
        named(peer_at(&mesh, "peer", addr).await, "far.ns.svc.cluster.local", Some(SessionProtocol::Http2)).await;
    let mut http = http2::Client::over(stream).await.unwrap();
    let answer = soon(http.call(Request::get("http://far/").body(http2::full("")).unwrap())).await.unwrap();
    assert_eq!(answer.head.status, 200);
    let text = mesh.app.handle().metrics();
    let counted: Vec<&str> = text.lines().filter(|l| l.starts_with("inbound_http_authz_allow_total{")).collect();
    assert!(counted.len() == 1 && counted[0].contains("authz_kind=\"default\",authz_name=\"audit\"} 1"), "{counted:?}");
    // Bytes too, under the same name.
    let (bytes, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    far(&mesh, Endpoint::plain(bytes), true);
    let mut stream = named(peer_at(&mesh, "peer", addr).await, "far.ns.svc.cluster.local", None).await;
    stream.write_all(b"abc").await.unwrap();
    mesh.app.at_least("inbound_tcp_authz_allow_total{", 1.0).await;
    let text = mesh.app.handle().metrics();
    let mut counted = text.lines().filter(|l| l.starts_with("inbound_tcp_authz_allow_total{"));
    assert!(counted.any(|line| line.contains("authz_kind=\"default\",authz_name=\"audit\"")), "{text}");
    server.abort();
}

#[tokio::test]
async fn bytes_go_on() {
    let mesh = mesh().await;
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    far(&mesh, Endpoint::plain(addr), true);
    let mut stream = named(peer(&mesh).await, "far.ns.svc.cluster.local", None).await;
    stream.write_all(b"abc").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "hello\nABCbye\n");
    let mut foreign = named(peer(&mesh).await, "far.example", None).await;
    let mut nothing = vec![];
    let _ = soon(foreign.read_to_end(&mut nothing)).await;
    assert!(nothing.is_empty());
    let code = "weft_proxy_errors_total{direction=\"inbound\",code=\"GATEWAY_DOMAIN_INVALID\"}";
    eventually("it is counted", || mesh.app.metric(code) == 1.0).await;
    server.abort();
}

/// A mesh whose gateway is reached from elsewhere: over loopback everybody is let in.
async fn from_elsewhere(variables: &[(&str, &str)]) -> (Mesh, SocketAddr) {
    let always = [
        ("LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES", "svc.cluster.local."),
        ("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", "0.0.0.0:0"),
    ];
    let mesh = Mesh::with(&[], &[&always, variables].concat()).await;
    let port = mesh.app.addrs().inbound.port();
    mesh.control.set_inbound(port, inbound(DefaultPolicy::AllAuthenticated));
    (mesh, (elsewhere(), port).into())
}

#[tokio::test]
async fn bytes_that_are_no_longer_let_in_are_cut_on_both_sides() {
    let (mesh, addr) = from_elsewhere(&[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    far(&mesh, Endpoint::plain(listener.local_addr().unwrap()), true);
    let mut client = named(peer_at(&mesh, "peer", addr).await, "far.ns.svc.cluster.local", None).await;
    client.write_all(b"a").await.unwrap();
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    assert_eq!(soon(server.read_u8()).await.unwrap(), b'a');
    mesh.control.set_inbound(addr.port(), inbound(DefaultPolicy::Deny));
    assert!(soon(client.read(&mut [0])).await.is_err(), "an end that is none");
    assert!(soon(server.read(&mut [0])).await.is_err(), "an end that is none");
    mesh.app.reaches("inbound_tcp_authz_terminate_total{", 1.0).await;
    // Whoever comes now is refused, and the record says by which policy.
    let mut client = named(peer_at(&mesh, "peer", addr).await, "far.ns.svc.cluster.local", None).await;
    let _ = client.write_all(b"a").await;
    assert!(!matches!(soon(client.read(&mut [0])).await, Ok(1..)));
    let explained = explained(&mesh.app, "kind=connection&code=UNAUTHORIZED", 1).await;
    assert_eq!(explained["records"][0]["decided_by"]["parent"], "default/deny");
}

#[tokio::test]
async fn a_gateways_requests_are_in_flight_and_its_refusals_are_explained() {
    let (mesh, addr) = from_elsewhere(&[("LINKERD2_PROXY_INBOUND_MAX_IN_FLIGHT", "1")]).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    far(&mesh, Endpoint::plain(silent.local_addr().unwrap()), false);
    let connect = async || {
        let stream = peer_at(&mesh, "peer", addr).await;
        http1::Client::over(named(stream, "far.ns.svc.cluster.local", Some(SessionProtocol::Http1)).await)
    };
    let (mut first, mut second) = (connect().await, connect().await);
    first.send("GET / HTTP/1.1\r\nHost: far\r\n\r\n").await.unwrap();
    let (_server, _) = soon(silent.accept()).await.unwrap();
    let answer = soon(second.call("GET / HTTP/1.1\r\nHost: far\r\n\r\n")).await.unwrap();
    assert_eq!(answer.status(), Some(503));
    explained(&mesh.app, "kind=request&code=LOAD_SHED", 1).await;

    let answer = soon(connect().await.call("GET / HTTP/9\r\n\r\n")).await.unwrap();
    assert_eq!(answer.status(), Some(400));
    explained(&mesh.app, "kind=request&code=BAD_REQUEST", 1).await;

    mesh.control.set_inbound(addr.port(), inbound(DefaultPolicy::Deny));
    let start = std::time::Instant::now();
    let text = "GET / HTTP/1.1\r\nHost: far\r\n\r\n";
    // In plaintext nobody is refused before a request says what it wants; the connection that stands is.
    loop {
        let answer = soon(connect().await.call(text)).await;
        if answer.is_ok_and(|answer| answer.status() == Some(403)) {
            break;
        }
        assert!(start.elapsed() < crate::harness::LONG);
    }
    let explained = explained(&mesh.app, "kind=request&code=UNAUTHORIZED", 1).await;
    let by = serde_json::json!({"parent": "default/deny", "route": "default/default"});
    assert_eq!(explained["records"][0]["decided_by"], by);
}
