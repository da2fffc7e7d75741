//! Small things that Linkerd's proxy does and that have no subject of their own (docs/reference/parity.md).

use crate::{
    harness::{eventually, soon},
    http2_settings::{GOAWAY, HEADERS, RST_STREAM, SETTINGS, read, write},
    mesh::{Mesh, Service, get, naming},
};
use h2::Reason;
use http::{Request, Response};
use http_body_util::BodyExt;
use std::net::SocketAddr;
use tokio::{io::AsyncReadExt, net::TcpListener, sync::watch, task::JoinHandle};
use weft_model::{
    Endpoint, ProtocolHint,
    policy::outbound::{Backend, BackendKind},
};
use weft_testkit::{
    control::Call,
    frames::PREFACE,
    http2,
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
    assert!(answer.head.headers["l5d-proxy-error"].to_str().unwrap().ends_with("[BACKEND_INVALID]"));
}

/// How an endpoint ends a stream.
#[derive(Clone, Copy)]
enum Ends {
    Reset(Reason),
    /// With a GOAWAY that says that nothing was looked at, on a connection that stays open.
    Goodbye,
    /// With its connection, and not a word.
    Cut,
}

/// A server that ends every request so once it is there.
async fn ending(how: Ends) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                soon(tcp.read_exact(&mut [0; PREFACE.len()])).await.unwrap();
                write(&mut tcp, SETTINGS, 0, 0, &[]).await;
                while let Ok(frame) = read(&mut tcp).await {
                    match how {
                        _ if frame.kind != HEADERS => {}
                        Ends::Reset(reason) => {
                            write(&mut tcp, RST_STREAM, 0, frame.stream, &u32::from(reason).to_be_bytes()).await;
                        }
                        Ends::Goodbye => {
                            let code = u32::from(Reason::PROTOCOL_ERROR).to_be_bytes();
                            write(&mut tcp, GOAWAY, 0, 0, &[[0; 4], code].concat()).await;
                        }
                        Ends::Cut => return tcp.set_zero_linger().unwrap(),
                    }
                }
            });
        }
    });
    (addr, task)
}

/// How an endpoint ends a stream stands in the metrics of its route.
#[tokio::test]
async fn how_a_stream_ended_is_a_label_of_its_route() {
    let mesh = Mesh::start().await;
    for (how, label) in [
        (Ends::Reset(Reason::INTERNAL_ERROR), "RESET"),
        (Ends::Reset(Reason::CANCEL), "CANCEL"),
        (Ends::Reset(Reason::ENHANCE_YOUR_CALM), "ENHANCE_YOUR_CALM"),
        (Ends::Reset(Reason::REFUSED_STREAM), "REFUSED"),
        (Ends::Goodbye, "GO_AWAY"),
        (Ends::Cut, "IO"),
    ] {
        let (addr, server) = ending(how).await;
        let (known, meta) = (Service::new(), service("ns", label, 80));
        mesh.control.set_outbound(known.addr, detect(meta, forward(Endpoint::plain(addr))));
        // What was not looked at is asked for once more; that it fails is all that counts here.
        let _ = soon(mesh.http2(&known).await.call(get())).await;
        let series = |error: &str| {
            format!(
                "outbound_http_route_request_statuses_total{{parent_group=\"core\",parent_kind=\"Service\",\
                 parent_namespace=\"ns\",parent_name=\"{label}\",parent_port=\"80\",parent_section_name=\"\",\
                 route_group=\"\",route_kind=\"default\",route_namespace=\"\",route_name=\"http\",hostname=\"\",\
                 http_status=\"\"{error}"
            )
        };
        mesh.web.reaches(&series(&format!(",error=\"{label}\"}}")), 1.0).await;
        // And that one alone.
        mesh.web.reaches(&series(""), 1.0).await;
        server.abort();
    }
}

/// A server whose connection breaks within its answer once it is told to.
async fn breaking(go: watch::Receiver<bool>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut go = go.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(tcp).await.unwrap();
                let Some(Ok((_, mut respond))) = connection.accept().await else { return };
                let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                respond.send_response(head, false).unwrap().send_data("half".into(), false).unwrap();
                tokio::select! { _ = go.wait_for(|now| *now) => {}, _ = connection.accept() => {} }
            });
        }
    });
    (addr, task)
}

/// Through both proxies: a call ends with a status and why, and what is no call ends so that it does not look complete.
#[tokio::test]
async fn a_call_that_breaks_off_ends_with_a_status_and_other_requests_with_a_reset() {
    let mesh = Mesh::start().await;
    for (content, grpc) in [("application/grpc", true), ("text/plain", false)] {
        let (go, wait) = watch::channel(false);
        let (addr, server) = breaking(wait).await;
        let known = mesh.service(&[mesh.endpoint(addr, ProtocolHint::H2)]);
        let request = Request::post("http://app.ns/a.B/C").header("content-type", content).body(http2::full("x"));
        let mut body = soon(mesh.http2(&known).await.start(request.unwrap())).await.unwrap().into_body();
        let part = soon(body.frame()).await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&part[..], b"half");
        go.send_replace(true);
        let end = soon(body.frame()).await.unwrap();
        if grpc {
            let trailers = end.unwrap().into_trailers().unwrap();
            // UNAVAILABLE
            assert_eq!(trailers["grpc-status"], "14");
            assert!(!trailers["grpc-message"].is_empty());
            assert!(soon(body.frame()).await.is_none());
        } else {
            assert!(end.is_err(), "{end:?}");
        }
        server.abort();
    }
    eventually("both are counted as what they are", || {
        let text = mesh.app.metrics();
        let broken =
            text.lines().filter(|l| l.starts_with("response_total{") && l.contains("classification=\"failure\""));
        let broken: Vec<_> = broken.filter(|l| l.ends_with("error=\"UPSTREAM_PROTOCOL\"} 1")).collect();
        broken.len() == 2 && broken.iter().filter(|l| l.contains("grpc_status=\"14\"")).count() == 1
    })
    .await;
}
