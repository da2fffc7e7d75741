//! What must not get through, and what the client is told instead.

use crate::{
    faults::forwarded,
    harness::{LONG, elsewhere, eventually, identity, soon},
    mesh::{Mesh, get, naming},
};
use http::Request;
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};
use tokio::io::AsyncReadExt;
use weft_model::{
    Endpoint, ProtocolHint,
    policy::{
        inbound::{DefaultPolicy, ServerProtocol},
        outbound::{ClientProtocol, Distribution},
        route::{Filter, HeaderEdits},
    },
};
use weft_testkit::{
    http2,
    policy::{balance, detect, inbound, service},
};

/// So that tests of failing need not wait for the default of three seconds.
const FAILFAST: (&str, &str) = ("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "300ms");

fn status(message: &http2::Message<http::response::Parts>) -> (u16, String) {
    let text = message.head.headers.get("l5d-proxy-error").map(|v| v.to_str().unwrap().to_owned());
    (message.head.status.as_u16(), text.unwrap_or_default())
}

#[tokio::test]
async fn a_server_with_another_identity_gets_no_byte_of_a_request() {
    let mesh = Mesh::with(&[FAILFAST], &[]).await;
    let origin = naming("app").await;
    let mut endpoint = mesh.endpoint(origin.addr(), ProtocolHint::H2);
    // The server answers to this name, but is not who it should be.
    endpoint.tls.as_mut().unwrap().identity = identity("somebody-else");
    let service = mesh.service(&[endpoint]);
    let (code, text) = status(&soon(mesh.http2(&service).await.call(get())).await.unwrap());
    assert_eq!(code, 504);
    assert!(text.contains("is ready: no TLS with") && text.ends_with("[FAILFAST]"), "{text}");
    assert!(text.contains(identity("somebody-else").as_str()), "{text}");
    assert_eq!(origin.seen().connections, 0);
    assert_eq!(mesh.app.metric("tcp_read_bytes_total{"), 0.0, "{}", mesh.app.handle().metrics());
    mesh.web.reaches("outbound_http_errors_total{error=\"failfast\"}", 1.0).await;
    mesh.web.reaches("weft_proxy_errors_total{direction=\"outbound\",code=\"FAILFAST\"}", 1.0).await;
    assert_eq!(mesh.web.metric("request_total{"), 0.0);
}

/// A workload with an address of its own, whose loopback nobody is to be led to; by a gateway that would be a peer.
#[tokio::test]
async fn endpoints_on_loopback_are_not_dialled() {
    let bytes = ("LINKERD2_PROXY_OUTBOUND_TCP_FAILFAST_TIMEOUT", FAILFAST.1);
    let mesh = Mesh::with(&[FAILFAST, bytes, ("LINKERD2_PROXY_INBOUND_IPS", "10.9.9.9")], &[]).await;
    let origin = naming("own").await;
    let port = origin.addr().port();
    for addr in [origin.addr(), ([0, 0, 0, 0], port).into(), (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port).into()] {
        let known = mesh.service(&[Endpoint::plain(addr)]);
        let (code, text) = status(&soon(mesh.http2(&known).await.call(get())).await.unwrap());
        assert_eq!(code, 504);
        assert!(text.contains("does not dial") && text.ends_with("[FAILFAST]"), "{text}");
        let known = forwarded(&mesh, Endpoint::plain(addr));
        let (code, text) = status(&soon(mesh.http2(&known).await.call(get())).await.unwrap());
        assert_eq!(code, 502);
        assert!(text.contains("does not dial") && text.ends_with("[CONNECT_FAILED]"), "{text}");
        let known = mesh.opaque(&[Endpoint::plain(addr)]);
        let mut tcp = mesh.connect(&known).await;
        assert!(!matches!(soon(tcp.read(&mut [0])).await, Ok(1..)));
    }
    assert_eq!(origin.seen().connections, 0);
}

#[tokio::test]
async fn a_request_may_require_an_identity() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let mut client = mesh.http2(&service).await;
    let request = |id: &str| Request::get("http://app.ns/").header("l5d-require-id", id).body(http2::full("")).unwrap();
    let (code, text) = status(&soon(client.call(request(identity("db").as_str()))).await.unwrap());
    assert_eq!(code, 502);
    assert!(text.ends_with("[IDENTITY_MISMATCH]"), "{text}");
    assert_eq!(origin.seen().requests.len(), 0);
    let answer = soon(client.call(request(identity("app").as_str()))).await.unwrap();
    assert_eq!(answer.head.status, 200);
    assert!(!origin.seen().requests[0].headers.contains_key("l5d-require-id"));
}

#[tokio::test]
async fn all_authenticated_refuses_a_client_without_a_certificate() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    let port = origin.addr().port();
    let deny = inbound(DefaultPolicy::AllAuthenticated);
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    mesh.control.set_inbound(port, deny.clone());

    // Plain HTTP/2, from an address that is not loopback. The first answer comes from the default policy until the control
    // plane's is known.
    let refused = "inbound_http_authz_deny_total{";
    let mut status = None;
    for _ in 0..200 {
        let tcp = mesh.app.connect_inbound_from(elsewhere(), origin.addr()).await.unwrap();
        // Whoever is connected when the policy comes is cut off.
        let Ok(mut client) = http2::Client::over(tcp).await else { continue };
        let Ok(answer) = soon(client.call(get())).await else { continue };
        assert!(answer.head.headers.get("l5d-proxy-error").is_none(), "strangers are told nothing");
        status = Some(answer.head.status.as_u16());
        if status == Some(403) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(status, Some(403));
    mesh.app.at_least(refused, 1.0).await;

    // gRPC is told in its own way.
    let tcp = mesh.app.connect_inbound_from(elsewhere(), origin.addr()).await.unwrap();
    let request = Request::post("http://app.ns/a.B/C").header("content-type", "application/grpc").body(http2::full(""));
    let answer = soon(http2::Client::over(tcp).await.unwrap().call(request.unwrap())).await.unwrap();
    assert_eq!((answer.head.status.as_u16(), &answer.head.headers["grpc-status"]), (200, &"7".parse().unwrap()));

    // The mesh is let in.
    let before = origin.seen().requests.len();
    assert_eq!(soon(mesh.http2(&service).await.call(get())).await.unwrap().head.status, 200);
    assert_eq!(origin.seen().requests.len(), before + 1);

    // Bytes are refused as well: the connection is reset.
    let mut opaque = deny;
    opaque.protocol = ServerProtocol::Opaque;
    mesh.control.set_inbound(port, opaque);
    eventually_refused(&mesh, &origin).await;
    mesh.app.at_least("inbound_tcp_authz_deny_total{", 1.0).await;
}

async fn eventually_refused(mesh: &Mesh, origin: &http2::Origin) {
    use tokio::io::AsyncReadExt;
    let start = Instant::now();
    loop {
        let Ok(mut tcp) = mesh.app.connect_inbound_from(elsewhere(), origin.addr()).await else { return };
        let mut byte = [0];
        // While the port is still detected the proxy waits for the client's first byte.
        match tokio::time::timeout(Duration::from_millis(50), tcp.read(&mut byte)).await {
            Ok(Err(_)) => return,
            other => assert!(start.elapsed() < LONG, "{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_policy_that_denies_later_ends_open_connections() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mesh = Mesh::start().await;
    let (addr, server) = crate::mesh::shouting(std::net::Ipv4Addr::LOCALHOST.into()).await;
    mesh.opaque(&[mesh.endpoint(addr, ProtocolHint::Opaque)]);
    let mut tcp = mesh.app.connect_inbound_from(elsewhere(), addr).await.unwrap();
    tcp.write_all(b"\x00").await.unwrap();
    let mut hello = [0; 6];
    soon(tcp.read_exact(&mut hello)).await.unwrap();
    let mut deny = inbound(DefaultPolicy::Deny);
    deny.protocol = ServerProtocol::Opaque;
    mesh.control.set_inbound(addr.port(), deny);
    let mut rest = vec![];
    assert!(soon(tcp.read_to_end(&mut rest)).await.is_err(), "reset");
    eventually("it is counted", || mesh.app.metric("inbound_tcp_authz_terminate_total{") == 1.0).await;
    server.abort();
}

#[tokio::test]
async fn requests_wait_for_an_endpoint_and_fail_at_once_after_the_timeout() {
    let mesh = Mesh::with(&[(FAILFAST.0, "2s")], &[]).await;
    let origin = naming("app").await;
    let endpoint = mesh.endpoint(origin.addr(), ProtocolHint::H2);
    let service = mesh.service(std::slice::from_ref(&endpoint));
    mesh.control.set_endpoints(&service.target, vec![]);
    let start = Instant::now();
    let (code, text) = status(&soon(mesh.http2(&service).await.call(get())).await.unwrap());
    assert_eq!((code, text.as_str()), (504, &*format!("{} has no endpoints [FAILFAST]", service.target)));
    assert!(start.elapsed() >= Duration::from_secs(2));
    let again = Instant::now();
    assert_eq!(status(&soon(mesh.http2(&service).await.call(get())).await.unwrap()).0, 504);
    assert!(again.elapsed() < Duration::from_secs(2), "it did not wait again: {:?}", again.elapsed());
    mesh.control.set_endpoints(&service.target, vec![endpoint]);
    let start = Instant::now();
    loop {
        let (code, _) = status(&soon(mesh.http2(&service).await.call(get())).await.unwrap());
        if code == 200 {
            break;
        }
        assert!(start.elapsed() < LONG);
    }
}

/// What the control plane knew of a target counts no longer once there is none.
#[tokio::test]
async fn a_target_that_is_gone_has_no_endpoints_until_it_is_back() {
    let mesh = Mesh::with(&[(FAILFAST.0, "100ms")], &[]).await;
    let origin = naming("app").await;
    let endpoint = mesh.endpoint(origin.addr(), ProtocolHint::H2);
    let service = mesh.service(std::slice::from_ref(&endpoint));
    let call = async || status(&soon(mesh.http2(&service).await.call(get())).await.unwrap());
    // The first connection may take longer than that.
    while call().await.0 != 200 {}
    let ready = "outbound_http_balancer_endpoints{endpoint_state=\"ready\"";
    mesh.web.reaches(ready, 1.0).await;
    mesh.control.remove_endpoints(&service.target);
    mesh.web.reaches(ready, 0.0).await;
    let (code, text) = call().await;
    assert_eq!((code, text.as_str()), (504, &*format!("{} does not exist [FAILFAST]", service.target)));
    assert_eq!(origin.seen().requests.len(), 1);
    mesh.web.at_least("weft_proxy_errors_total{direction=\"outbound\",code=\"FAILFAST\"}", 1.0).await;
    mesh.control.set_endpoints(&service.target, vec![endpoint]);
    mesh.web.reaches(ready, 1.0).await;
    assert_eq!(call().await.0, 200);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_connected_is_passed_over() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    let gone = crate::harness::nobody();
    let dead = weft_model::Endpoint::plain(gone);
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2), dead]);
    for _ in 0..20 {
        assert_eq!(soon(mesh.http2(&service).await.call(get())).await.unwrap().head.status, 200);
    }
    assert_eq!(origin.seen().requests.len(), 20);
}

#[tokio::test]
async fn what_is_not_carried_out_is_refused_by_name() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let meta = service("ns", "app", 80);
    let mut policy = detect(meta.clone(), balance(meta, known.target.parse().unwrap()));
    if let ClientProtocol::Detect { http2, .. } = &mut policy.protocol {
        let edits = HeaderEdits { remove: vec!["host".to_owned()], ..HeaderEdits::default() };
        http2.routes[0].rules[0].filters = vec![Filter::RequestHeaders(edits)];
    }
    mesh.control.set_outbound(known.addr, policy.clone());
    let (code, text) = status(&soon(mesh.http2(&known).await.call(get())).await.unwrap());
    assert_eq!(code, 500);
    assert!(text.contains("what this proxy does not carry out: filter that edits request headers"), "{text}");
    assert!(text.ends_with("host [POLICY_UNSUPPORTED]"), "{text}");

    // The connection's next request follows the policy that holds then.
    let mut client = mesh.http2(&known).await;
    if let ClientProtocol::Detect { http2, .. } = &mut policy.protocol {
        http2.routes[0].rules[0].filters = vec![];
    }
    mesh.control.set_outbound(known.addr, policy.clone());
    let start = Instant::now();
    while status(&soon(client.call(get())).await.unwrap()).0 != 200 {
        // The refusal closes the connection.
        client = mesh.http2(&known).await;
        assert!(start.elapsed() < LONG);
    }

    if let ClientProtocol::Detect { http2, .. } = &mut policy.protocol {
        http2.routes[0].rules[0].does.backends = Distribution::Empty;
    }
    mesh.control.set_outbound(known.addr, policy);
    while status(&soon(client.call(get())).await.unwrap()).0 != 503 {
        assert!(start.elapsed() < LONG);
    }
}
