//! What is counted of inbound routes: Linkerd's families, with its labels; and what clients of gRPC see of a failure that one injects.

use crate::{
    harness::{eventually, metric, soon},
    mesh::Mesh,
};
use http::{HeaderMap, Request, Response};
use weft_model::{
    ProtocolHint, ServerPolicy,
    policy::{
        inbound::{DefaultPolicy, ServerProtocol},
        route::{Filter, GrpcMatch, GrpcRoute, HttpMatch, PathMatch, Ratio, Rule},
    },
};
use weft_testkit::{
    http2,
    policy::{inbound, service},
};

/// Answers with 2,000 bytes and the gRPC status 5.
async fn origin() -> http2::Origin {
    http2::Origin::start(|request| async move {
        http2::complete((), request.into_body()).await?;
        let trailers = HeaderMap::from_iter([("grpc-status".parse()?, "5".parse()?)]);
        Ok(Response::new(http2::with_trailers(vec![b'x'; 2000], trailers)))
    })
    .await
    .unwrap()
}

fn call(path: &str) -> Request<http2::Body> {
    Request::post(format!("http://app.ns{path}")).body(http2::full(vec![b'y'; 100])).unwrap()
}

#[tokio::test]
async fn http_and_grpc_are_told_apart_by_the_policy() {
    let mesh = Mesh::start().await;
    let origin = origin().await;
    let port = origin.addr().port();
    let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
    policy.meta = service("ns", "server", 0);
    let mut grpc = policy.clone();
    let rule = Rule { matches: vec![GrpcMatch::default()], filters: vec![], does: Default::default() };
    let route = GrpcRoute { meta: service("ns", "rpc", 0), hosts: vec![], rules: vec![rule] };
    grpc.protocol = ServerProtocol::Grpc { routes: vec![route] };
    for (policy, kind, route, status) in [
        (policy, "http", r#"route_group="",route_kind="default",route_name="default""#, "200"),
        (grpc, "grpc", r#"route_group="core",route_kind="Service",route_name="rpc""#, "5"),
    ] {
        mesh.control.set_inbound(port, policy);
        let labels =
            format!(r#"parent_group="core",parent_kind="Service",parent_name="server",parent_port="{port}",{route}"#);
        let family = |name: &str| format!("inbound_{kind}_{name}{{{labels}");
        let start = std::time::Instant::now();
        // The first requests may still follow the policy before.
        while mesh.app.metric(&family("requests_total")) < 1.0 {
            let mut client = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
            assert_eq!(soon(client.call(call("/a.B/C"))).await.unwrap().head.status, 200);
            assert!(start.elapsed() < crate::harness::LONG, "{}", mesh.app.handle().metrics());
        }
        eventually("the response has ended", || {
            mesh.app.metric(&format!("inbound_{kind}_statuses_total{{{labels},status=\"{status}\"}}")) == 1.0
        })
        .await;
        let text = mesh.app.handle().metrics();
        for (name, value) in [
            ("requests_total", 1.0),
            ("request_duration_seconds_count", 1.0),
            ("response_duration_seconds_count", 1.0),
            ("request_frame_size_bytes_sum", 100.0),
            ("response_frame_size_bytes_sum", 2000.0),
        ] {
            assert_eq!(metric(&text, &family(name)), value, "{kind} {name}\n{text}");
        }
        for (name, bounds) in [
            ("request_duration_seconds", "0.025 0.05 0.1 0.25 0.5 1 10 +Inf"),
            ("response_duration_seconds", "0.05 0.5 1 10 +Inf"),
            ("response_frame_size_bytes", "128 1024 10240 +Inf"),
        ] {
            let buckets = text.lines().filter(|l| l.starts_with(&family(&format!("{name}_bucket"))));
            let le = |l: &str| l.rsplit_once("le=\"").and_then(|(_, rest)| Some(rest.split_once('"')?.0.to_owned()));
            assert_eq!(buckets.filter_map(le).collect::<Vec<_>>().join(" "), bounds, "{name}");
        }
    }
}

#[tokio::test]
async fn the_authority_is_a_label_only_where_it_is_asked_for() {
    for (env, label) in [
        (&[][..], "request_total{direction=\"inbound\",target_addr="),
        (
            &[("LINKERD2_PROXY_INBOUND_METRICS_AUTHORITY_LABELS", "unsafe")][..],
            "request_total{direction=\"inbound\",authority=\"app.ns\",target_addr=",
        ),
    ] {
        let mesh = Mesh::with(&[], env).await;
        let origin = origin().await;
        let mut client = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
        for path in ["/a", "/b"] {
            assert_eq!(soon(client.call(call(path))).await.unwrap().head.status, 200);
        }
        mesh.app.reaches(label, 2.0).await;
    }
}

/// Injected by a rule of gRPC with its code, or by one of HTTP: who speaks gRPC gets a status of gRPC, through the mesh and to its
/// own framing, and no server sees the call.
#[tokio::test]
async fn a_failure_that_a_port_injects_is_a_status_of_grpc_to_who_speaks_it() {
    let mesh = Mesh::start().await;
    let always = Ratio { numerator: 1, denominator: 1 };
    let grpc = |called: &str, filters| Rule {
        matches: vec![GrpcMatch { service: called.to_owned(), ..GrpcMatch::default() }],
        filters,
        does: Default::default(),
    };
    let message = "50% of it".to_owned();
    let unavailable = Filter::GrpcFailure { code: 14, message: message.clone(), ratio: always };
    let rules = vec![grpc("a.B", vec![]), grpc("a.Broken", vec![unavailable])];
    let mut of_grpc = inbound(DefaultPolicy::AllUnauthenticated);
    of_grpc.protocol =
        ServerProtocol::Grpc { routes: vec![GrpcRoute { meta: service("ns", "rpc", 0), hosts: vec![], rules }] };
    let mut of_http = inbound(DefaultPolicy::AllUnauthenticated);
    if let ServerProtocol::Detect { routes, .. } = &mut of_http.protocol {
        let mut broken = routes[0].rules[0].clone();
        let path = Some(PathMatch::Prefix("/a.Broken".to_owned()));
        broken.matches = vec![HttpMatch { path, ..HttpMatch::default() }];
        broken.filters = vec![Filter::HttpFailure { status: 418, message, ratio: always }];
        routes[0].rules.push(broken);
    }
    // Who does not speak gRPC gets the status of HTTP that stands for the code.
    for (name, policy, code, status) in [("grpc", of_grpc, "14", 503), ("http", of_http, "9", 418)] {
        let origin = origin().await;
        let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
        mesh.control.set_inbound(origin.addr().port(), ServerPolicy { meta: service("ns", name, 0), ..policy });
        let ask = |path: &str, content: &str| {
            let request = Request::post(format!("http://app.ns{path}")).header("content-type", content);
            request.body(http2::full("x")).unwrap()
        };
        let mut client = mesh.http2(&known).await;
        let start = std::time::Instant::now();
        // The first calls may still follow the default policy, and are served.
        let mut refused = loop {
            let answer = soon(client.call(ask("/a.Broken/C", "application/grpc"))).await.unwrap();
            if answer.body.is_empty() {
                break answer;
            }
            assert!(start.elapsed() < crate::harness::LONG, "{name}: {answer:?}");
        };
        let before = origin.seen().requests.len();
        for _ in 0..2 {
            let header = |name: &str| refused.head.headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!((refused.head.status.as_u16(), header("grpc-status")), (200, Some(code)), "{name}");
            assert_eq!(header("grpc-message"), Some("50%25 of it [FAULT_INJECTED]"), "{name}");
            assert_eq!(header("content-type"), Some("application/grpc"), "{name}");
            assert!(refused.trailers.is_none(), "{name}: what is refused has no trailers of its own");
            refused = soon(client.call(ask("/a.Broken/C", "application/grpc"))).await.unwrap();
        }
        let plain = soon(client.call(ask("/a.Broken/C", "text/plain"))).await.unwrap();
        assert_eq!((plain.head.status.as_u16(), plain.head.headers.get("grpc-status")), (status, None), "{name}");
        // A stranger is told the code and nothing else.
        let tcp = mesh.app.connect_inbound(origin.addr()).await;
        let mut stranger = http2::Client::over(tcp).await.unwrap();
        let told = soon(stranger.call(ask("/a.Broken/C", "application/grpc"))).await.unwrap();
        assert_eq!(told.head.headers["grpc-status"], code, "{name}");
        assert!(!told.head.headers.contains_key("grpc-message"), "{name}");
        assert_eq!(origin.seen().requests.len(), before, "{name}");
        let served = soon(client.call(ask("/a.B/C", "application/grpc"))).await.unwrap();
        assert_eq!(
            (served.body.len(), &served.trailers.unwrap()["grpc-status"]),
            (2000, &"5".parse().unwrap()),
            "{name}"
        );
        let failed = format!("grpc_status=\"{code}\"");
        eventually("the client's side counts them as failures", || {
            let text = mesh.web.metrics();
            let of =
                text.lines().filter(|l| l.starts_with("response_total{direction=\"outbound\"") && l.contains(&failed));
            of.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() == 3.0
        })
        .await;
        let route = format!(
            "inbound_{name}_requests_total{{parent_group=\"core\",parent_kind=\"Service\",parent_name=\"{name}\""
        );
        mesh.app.reaches(&route, 1.0).await;
    }
    mesh.app.reaches("weft_proxy_errors_total{direction=\"inbound\",code=\"FAULT_INJECTED\"}", 10.0).await;
    assert_eq!(mesh.app.metric("inbound_http_errors_total{"), 0.0, "asked for by a policy: no error");
}
