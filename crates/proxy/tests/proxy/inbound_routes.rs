//! What is counted of inbound routes: Linkerd's families, with its labels.

use crate::{
    harness::{eventually, metric, soon},
    mesh::Mesh,
};
use http::{HeaderMap, Request, Response};
use weft_model::policy::{
    inbound::{DefaultPolicy, ServerProtocol},
    route::{GrpcMatch, GrpcRoute, Rule},
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
