//! Ingress mode: requests that name their target; and endpoints that put another authority in (data plane 4.7, 4.15).

use crate::{
    harness::soon,
    mesh::{Mesh, Service, naming},
};
use http::Request;
use weft_model::{Endpoint, ProtocolHint};
use weft_testkit::{
    control::{Call, Target},
    http1, http2,
    policy::{balance, detect, service},
};

pub(crate) const INGRESS: (&str, &str) = ("LINKERD2_PROXY_INGRESS_MODE", "true");

/// A service that is known by its name alone.
fn named(mesh: &Mesh, name: &str, endpoint: Endpoint) {
    let meta = service("ns", "named", 80);
    let policy = detect(meta.clone(), balance(meta, name.parse().unwrap()));
    mesh.control.set_outbound_target(Target::Authority(name.to_owned()), policy);
    mesh.control.set_endpoints(name, vec![endpoint]);
}

fn request(name: &str) -> Request<http2::Body> {
    Request::get("http://shop.example/").header("l5d-dst-override", name).body(http2::full("")).unwrap()
}

#[tokio::test]
async fn each_request_goes_where_its_header_says() {
    let mesh = Mesh::with(&[INGRESS], &[]).await;
    let (blue, green, dialled) = (naming("blue").await, naming("green").await, naming("dialled").await);
    named(&mesh, "blue.ns.svc.cluster.local:80", mesh.endpoint(blue.addr(), ProtocolHint::H2));
    named(&mesh, "green.ns.svc.cluster.local:8080", mesh.endpoint(green.addr(), ProtocolHint::H2));
    let service = mesh.service(&[mesh.endpoint(dialled.addr(), ProtocolHint::H2)]);
    let mut client = mesh.http2(&service).await;
    for (header, answer) in [
        ("blue.ns.svc.cluster.local", "blue"),
        ("green.ns.svc.cluster.local:8080", "green"),
        ("BLUE.ns.svc.cluster.local.:80", "blue"),
    ] {
        let answered = soon(client.call(request(header))).await.unwrap();
        assert_eq!((answered.head.status.as_u16(), &answered.body[..]), (200, answer.as_bytes()), "{header}");
    }
    let plain = Request::get("http://shop.example/").body(http2::full("")).unwrap();
    assert_eq!(&soon(client.call(plain)).await.unwrap().body[..], b"dialled");
    for origin in [&blue, &green, &dialled] {
        for seen in origin.seen().requests {
            assert!(!seen.headers.contains_key("l5d-dst-override"), "{seen:?}");
            assert_eq!(seen.uri.authority().map(|a| a.as_str()), Some("shop.example"), "the host stays");
        }
    }
    // It was asked for by name, once per name.
    let asked = |wanted: &str| {
        let calls = mesh.control.calls();
        calls
            .iter()
            .filter(|call| matches!(call, Call::Outbound(spec) if spec.target == Target::Authority(wanted.to_owned())))
            .count()
    };
    assert_eq!((asked("blue.ns.svc.cluster.local:80"), asked("green.ns.svc.cluster.local:8080")), (1, 1));
    let profile = |call: &Call| matches!(call, Call::Profile(l) if l.path == "blue.ns.svc.cluster.local:80");
    assert!(mesh.control.calls().iter().any(profile));
}

/// As ingresses ask: over one connection of HTTP/1 that is kept, on either carrier.
#[tokio::test]
async fn each_request_of_one_http1_connection_goes_where_its_header_says() {
    let mesh = Mesh::with(&[INGRESS], &[]).await;
    let origin = async |name: &'static str| http1::Origin::start(move |_| http1::Reply::ok(name)).await.unwrap();
    let (blue, green, dialled) = (origin("blue").await, origin("green").await, origin("dialled").await);
    for (zone, hint) in [("east", ProtocolHint::Unknown), ("west", ProtocolHint::H2)] {
        named(&mesh, &format!("blue.{zone}.svc.cluster.local:80"), mesh.endpoint(blue.addr(), hint));
        named(&mesh, &format!("green.{zone}.svc.cluster.local:8080"), mesh.endpoint(green.addr(), hint));
        let service = mesh.service(&[mesh.endpoint(dialled.addr(), hint)]);
        let mut client = http1::Client::over(mesh.connect(&service).await);
        for (n, (header, answer)) in [
            (format!("l5d-dst-override: blue.{zone}.svc.cluster.local\r\n"), &blue),
            (format!("L5D-Dst-Override: green.{zone}.svc.cluster.local:8080\r\n"), &green),
            (String::new(), &dialled),
            (format!("l5d-dst-override: BLUE.{zone}.svc.cluster.local.:80\r\n"), &blue),
            (String::new(), &dialled),
        ]
        .into_iter()
        .enumerate()
        {
            let before = answer.seen().requests.len();
            let sent = format!("GET /{n} HTTP/1.1\r\nHost: shop.example\r\n{header}X-Own: o\r\n\r\n");
            let answered = soon(client.call(sent)).await.unwrap();
            assert_eq!(answered.status(), Some(200), "{hint:?} {header}");
            let seen = answer.seen().requests;
            assert_eq!(seen.len(), before + 1, "{hint:?} {header}");
            let seen = seen.last().unwrap();
            assert_eq!(seen.first_line(), format!("GET /{n} HTTP/1.1"), "{hint:?} {header}");
            assert_eq!(seen.header("l5d-dst-override"), None, "{hint:?} {}", seen.head_text());
            assert_eq!(seen.header("host").as_deref(), Some("shop.example"), "the host stays");
            assert_eq!(seen.header("x-own").as_deref(), Some("o"));
            assert_eq!(seen.header("l5d-client-id").as_deref(), Some(mesh.web.identity().as_str()), "over the mesh");
        }
        let accepted = format!("tcp_open_total{{direction=\"outbound\",peer=\"src\",target_addr=\"{}\"", service.addr);
        mesh.web.reaches(&accepted, 1.0).await;
    }
}

#[tokio::test]
async fn what_names_nothing_is_refused_and_informational_headers_are_off() {
    let mesh = Mesh::with(&[INGRESS], &[]).await;
    let dialled = naming("dialled").await;
    let service = mesh.service(&[mesh.endpoint(dialled.addr(), ProtocolHint::H2)]);
    for (header, status, code) in [
        ("nobody.ns.svc.cluster.local", 404, "ROUTE_NOT_FOUND"),
        ("not a name", 400, "BAD_REQUEST"),
        ("127.0.0.1:80", 400, "BAD_REQUEST"),
    ] {
        let mut client = mesh.http2(&service).await;
        let answered = soon(client.call(request(header))).await.unwrap();
        assert_eq!(answered.head.status.as_u16(), status, "{header}");
        assert!(!answered.head.headers.contains_key("l5d-proxy-error"));
        let counted = format!("weft_proxy_errors_total{{direction=\"outbound\",code=\"{code}\"}}");
        mesh.web.at_least(&counted, 1.0).await;
    }
    assert_eq!(dialled.seen().requests.len(), 0);
}

#[tokio::test]
async fn elsewhere_the_header_is_not_interpreted() {
    let mesh = Mesh::start().await;
    let (blue, dialled) = (naming("blue").await, naming("dialled").await);
    named(&mesh, "blue.ns.svc.cluster.local:80", mesh.endpoint(blue.addr(), ProtocolHint::H2));
    let service = mesh.service(&[mesh.endpoint(dialled.addr(), ProtocolHint::H2)]);
    let answered = soon(mesh.http2(&service).await.call(request("blue.ns.svc.cluster.local"))).await.unwrap();
    assert_eq!(&answered.body[..], b"dialled");
    assert_eq!(dialled.seen().requests[0].headers["l5d-dst-override"], "blue.ns.svc.cluster.local");
    assert_eq!(blue.seen().requests.len(), 0);
}

#[tokio::test]
async fn an_authority_override_replaces_host_on_both_carriers() {
    let mesh = Mesh::start().await;
    let one = http1::Origin::start(|_| http1::Reply::ok(b"")).await.unwrap();
    let two = naming("app").await;
    let overridden = |endpoint: Endpoint| {
        let authority = Some("app.ns.svc.east.local".to_owned());
        mesh.service(&[Endpoint { authority_override: authority, ..endpoint }])
    };
    for hint in [ProtocolHint::Unknown, ProtocolHint::H2] {
        let service = overridden(mesh.endpoint(one.addr(), hint));
        let mut client = http1::Client::over(mesh.connect(&service).await);
        let sent = "GET /x HTTP/1.1\r\nHost: app.ns\r\nL5d-Dst-Canonical: app.ns.svc.cluster.local:80\r\n\r\n";
        assert_eq!(soon(client.call(sent)).await.unwrap().status(), Some(200));
        let seen = one.seen().requests.pop().unwrap();
        assert_eq!(seen.header("host").as_deref(), Some("app.ns.svc.east.local"), "{hint:?}");
        assert_eq!(seen.header("l5d-dst-canonical"), None, "{hint:?}");
        assert_eq!(seen.first_line(), "GET /x HTTP/1.1");
    }
    let service = overridden(mesh.endpoint(two.addr(), ProtocolHint::H2));
    let sent = Request::get("http://app.ns/x")
        .header("l5d-dst-canonical", "app.ns.svc.cluster.local:80")
        .body(http2::full(""))
        .unwrap();
    assert_eq!(soon(mesh.http2(&service).await.call(sent)).await.unwrap().head.status, 200);
    let seen = two.seen().requests[0].clone();
    assert_eq!(seen.uri.to_string(), "http://app.ns.svc.east.local/x");
    assert!(!seen.headers.contains_key("l5d-dst-canonical") && !seen.headers.contains_key("host"), "{seen:?}");
}

#[tokio::test]
async fn the_workload_itself_is_no_gateway() {
    let origin = naming("self").await;
    let mesh = Mesh::with(&[("LINKERD2_PROXY_INBOUND_IPS", "127.0.0.1")], &[]).await;
    let endpoint = Endpoint {
        authority_override: Some("elsewhere.test".into()),
        ..mesh.endpoint(origin.addr(), ProtocolHint::H2)
    };
    let service: Service = mesh.service(&[endpoint]);
    let sent = Request::get("http://app.ns/").body(http2::full("")).unwrap();
    assert_eq!(soon(mesh.http2(&service).await.call(sent)).await.unwrap().head.status, 200);
    assert_eq!(origin.seen().requests[0].uri.authority().map(|a| a.as_str()), Some("app.ns"));
}
