//! Small things that Linkerd's proxy does and that have no subject of their own (docs/reference/parity.md).

use crate::{
    harness::{eventually, soon},
    mesh::{Mesh, Service, get, naming},
};
use h2::Reason;
use tokio::net::TcpListener;
use weft_model::{
    Endpoint, ProtocolHint,
    policy::outbound::{Backend, BackendKind},
};
use weft_testkit::{
    control::Call,
    policy::{detect, forward, service},
};
use weft_wire::{destination::Lookup, outbound::Target};

/// What the injector gives a proxy to say of itself is said word by word.
#[tokio::test]
async fn the_control_plane_is_told_who_asks() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    assert_eq!(soon(mesh.http2(&known).await.call(get())).await.unwrap().head.status, 200);
    let of = |pod: &str| format!("{{\"ns\":\"ns\",\"pod\":\"{pod}\"}}");
    let (path, target) = (known.addr.to_string(), known.target.clone());
    // A port's policy is asked for beside the first connection.
    let watched = |call: &Call| matches!(call, Call::Outbound(spec) if spec.workload == of("web") && spec.target == Target::Addr(known.addr));
    let port = |call: &Call| matches!(call, Call::Inbound(spec) if spec.workload == of("app") && spec.port == origin.addr().port());
    soon(mesh.control.called(watched)).await.unwrap();
    soon(mesh.control.called(port)).await.unwrap();
    let profile = Call::Profile(Lookup { path, context: of("web") });
    soon(mesh.control.called(|call| *call == profile)).await.unwrap();
    let endpoints = Call::Endpoints(Lookup { path: target, context: of("web") });
    soon(mesh.control.called(|call| *call == endpoints)).await.unwrap();
}

#[tokio::test]
async fn a_backend_without_a_kind_is_a_502() {
    let mesh = Mesh::start().await;
    let known = Service::new();
    let nothing = forward(Endpoint::plain(known.addr));
    let meta = service("ns", "app", 80);
    mesh.control.set_outbound(known.addr, detect(meta, Backend { kind: BackendKind::Missing, ..nothing }));
    let answer = soon(mesh.http2(&known).await.call(get())).await.unwrap();
    assert_eq!(answer.head.status, 502);
    assert!(answer.head.headers["l5d-proxy-error"].to_str().unwrap().ends_with("[POLICY_UNSUPPORTED]"));
}

/// How an endpoint ends a stream stands in the metrics of its route.
#[tokio::test]
async fn how_a_stream_ended_is_a_label_of_its_route() {
    let mesh = Mesh::start().await;
    // Who says goodbye may be gone by the time that the last attempt is made.
    for (how, labels_of) in [
        (Some(Reason::INTERNAL_ERROR), &["RESET"][..]),
        (Some(Reason::CANCEL), &["CANCEL"]),
        (Some(Reason::ENHANCE_YOUR_CALM), &["ENHANCE_YOUR_CALM"]),
        (None, &["GO_AWAY", "IO"]),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(tcp).await.unwrap();
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        match how {
                            Some(reason) => respond.send_reset(reason),
                            None => connection.abrupt_shutdown(Reason::PROTOCOL_ERROR),
                        }
                    }
                });
            }
        });
        let (known, meta) = (Service::new(), service("ns", "app", 80));
        mesh.control.set_outbound(known.addr, detect(meta, forward(Endpoint::plain(addr))));
        // What was not looked at is asked for once more; that it fails is all that counts here.
        let _ = soon(mesh.http2(&known).await.call(get())).await;
        let labels = "parent_group=\"core\",parent_kind=\"Service\",parent_namespace=\"ns\",parent_name=\"app\",\
             parent_port=\"80\",parent_section_name=\"\",route_group=\"\",route_kind=\"default\",route_namespace=\"\",\
             route_name=\"http\",hostname=\"\",http_status=\"\"";
        let series = |label: &str| format!("outbound_http_route_request_statuses_total{{{labels},error=\"{label}\"}}");
        eventually(&labels_of.join(" or "), || {
            labels_of.iter().map(|label| mesh.web.metric(&series(label))).sum::<f64>() >= 1.0
        })
        .await;
        server.abort();
    }
}
