//! Trace context on its way through two proxies, and the spans that they add.

use crate::{
    control_streams::front,
    harness::{Setup, soon},
    mesh::{Mesh, naming},
};
use http::{HeaderMap, Request};
use std::sync::Arc;
use weft_model::{
    ProtocolHint,
    trace::{Context, Span, SpanKind, Value, propagate},
};
use weft_testkit::{collector::Collector, control::FakeControl, http2};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

pub(crate) fn collector(addr: std::net::SocketAddr) -> [(&'static str, String); 3] {
    [
        ("LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR", addr.to_string()),
        ("LINKERD2_PROXY_TRACE_EXTRA_ATTRIBUTES", "zone=a".to_owned()),
        ("LINKERD2_PROXY_TRACE_SERVICE_NAME", "web-proxy".to_owned()),
    ]
}

/// What the server sees of a request with these headers.
async fn seen(mesh: &Mesh, headers: &[(&'static str, &str)]) -> HeaderMap {
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let mut request = Request::get("http://app.ns/a?b");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = soon(mesh.http2(&known).await.call(request.body(http2::full("")).unwrap())).await.unwrap();
    assert_eq!(answer.head.status, 200);
    let requests = origin.seen().requests;
    let [request] = &requests[..] else { panic!("{requests:?}") };
    Arc::clone(request).headers.clone()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of(spans: &[Span], direction: &str, kind: SpanKind) -> Span {
    let direction = ("direction".to_owned(), Value::Text(direction.to_owned()));
    let span = spans.iter().find(|span| span.kind == kind && span.attributes.contains(&direction));
    span.unwrap_or_else(|| panic!("no such span among {spans:#?}")).clone()
}

#[tokio::test]
async fn without_a_collector_the_context_passes_untouched() {
    let mesh = Mesh::start().await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let sent = [("traceparent", &*parent), ("tracestate", "a=b"), ("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)];
    let seen = seen(&mesh, &sent).await;
    for (name, value) in sent {
        assert_eq!(seen[name], value);
    }
}

/// In each of the forms that a context has, to a collector that is of the mesh itself: it is known by its identity. All at once:
/// spans wait until there are many, or for long.
#[tokio::test]
async fn a_sampled_request_leaves_four_spans_that_hang_together() {
    // A version, then the trace, the span and the flags, each behind its number.
    const GRPC: &str = "AAAK92UZFs1D3YRI6yEcgDGcAbeta3FpIDMxAgE";
    const W3C: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    // The short form, of half as many digits.
    const B3: &str = "463ac35c9f6413ad";
    let control = FakeControl::start().unwrap();
    let collected = Collector::start().await.unwrap();
    let (addr, id) = front(&control, collected.addr()).await;
    let setup = |name| {
        let setup = Setup::new(&control, name).env("LINKERD2_PROXY_TRACE_COLLECTOR_SVC_NAME", &id);
        collector(addr).into_iter().fold(setup, |setup, (name, value)| setup.env(name, value))
    };
    let (web, app) = tokio::join!(setup("web").ready(), setup("app").ready());
    let mesh = Mesh { control, web, app };
    let w3c = [("traceparent", &*format!("00-{W3C}-{SPAN}-01")), ("tracestate", "a=b"), ("user-agent", "curl/8")];
    let seen_w3c = seen(&mesh, &w3c).await;
    assert_eq!(seen_w3c["tracestate"], "a=b");
    let b3 = [("x-b3-traceid", B3), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1"), ("user-agent", "curl/8")];
    let seen_b3 = seen(&mesh, &b3).await;
    let seen_grpc = seen(&mesh, &[("grpc-trace-bin", GRPC), ("user-agent", "curl/8")]).await;
    let all = collected.saw(12).await.unwrap();
    assert_eq!(all.len(), 12, "{all:#?}");
    for trace in [W3C, &format!("{:016}{B3}", 0), TRACE] {
        let spans: Vec<_> = all.iter().filter(|span| hex(&span.trace) == trace).cloned().collect();
        assert_eq!(spans.len(), 4, "{trace}: {all:#?}");
        let (server, client) = (of(&spans, "outbound", SpanKind::Server), of(&spans, "outbound", SpanKind::Client));
        let (inner, last) = (of(&spans, "inbound", SpanKind::Server), of(&spans, "inbound", SpanKind::Client));
        assert_eq!(hex(&server.parent), SPAN);
        assert_eq!((client.parent, inner.parent, last.parent), (server.id, client.id, inner.id));
        match trace {
            W3C => assert_eq!(seen_w3c["traceparent"], format!("00-{W3C}-{}-01", hex(&last.id))),
            TRACE => {
                let context = Context { trace: last.trace, parent: server.parent, sampled: true };
                let expected =
                    |id| propagate::headers(&context, propagate::Format::GrpcBin(1), id, [0; 8]).swap_remove(0).1;
                assert_eq!(expected(server.parent), GRPC);
                assert_eq!(seen_grpc["grpc-trace-bin"], expected(last.id));
            }
            _ => {
                let names = ["x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled"];
                let now = names.map(|name| seen_b3[name].to_str().unwrap());
                assert_eq!(now, [B3, &hex(&last.id), &hex(&inner.id), "1"]);
            }
        }
        for span in &spans {
            assert!(span.start <= span.end && span.name == "/a" && span.failure.is_none(), "{span:?}");
            for (name, value) in [
                ("http.request.method", Value::Text("GET".into())),
                ("url.full", Value::Text("http://app.ns/a?b".into())),
                ("http.response.status_code", Value::Number(200)),
                ("user_agent.original", Value::Text("curl/8".into())),
            ] {
                assert!(span.attributes.contains(&(name.to_owned(), value)), "{name}: {span:#?}");
            }
        }
    }
    let resource = &collected.exports()[0].resource;
    for (name, value) in [("zone", "a"), ("service.name", "web-proxy")] {
        assert!(resource.contains(&(name.to_owned(), Value::Text(value.to_owned()))), "{resource:?}");
    }
    let sent = format!("control_request_total{{addr=\"{addr}\",tls=\"true\",server_id=\"{id}\"}}");
    for proxy in [&mesh.web, &mesh.app] {
        proxy.reaches("opentelemetry_span_exports ", 6.0).await;
        proxy.at_least(&sent, 1.0).await;
    }
    mesh.web.at_least("opentelemetry_span_export_requests ", 1.0).await;
    mesh.web.at_least("opentelemetry_balancer_queue_requests_total{addr=\"", 1.0).await;
}

#[tokio::test]
async fn who_is_not_sampled_gets_new_ids_and_is_not_exported() {
    let collected = Collector::start().await.unwrap();
    let env = collector(collected.addr());
    let mesh = Mesh::with(&[(env[0].0, &env[0].1)], &[]).await;
    let seen_w3c = seen(&mesh, &[("traceparent", &format!("00-{TRACE}-{SPAN}-00"))]).await;
    let parent = seen_w3c["traceparent"].to_str().unwrap();
    assert!(
        parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-00") && !parent.contains(SPAN),
        "{parent}"
    );
    let b3 = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "0")];
    let seen_b3 = seen(&mesh, &b3).await;
    assert_eq!((&seen_b3["x-b3-traceid"], &seen_b3["x-b3-sampled"]), (&TRACE.parse().unwrap(), &"0".parse().unwrap()));
    assert!(seen_b3["x-b3-spanid"] != SPAN && seen_b3["x-b3-parentspanid"] != SPAN, "{seen_b3:?}");
    let none = seen(&mesh, &[]).await;
    assert!(!none.contains_key("traceparent") && !none.contains_key("x-b3-spanid"), "no trace begins here");
    assert_eq!(collected.exports(), []);
    assert_eq!(mesh.web.metric("opentelemetry_span_exports "), 0.0);
}
