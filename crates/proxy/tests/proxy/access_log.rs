//! The access log: a line per inbound request, and none of anything else.

use crate::{
    harness::{Setup, eventually, soon},
    mesh::{get, naming},
};
use http::Request;
use weft_model::policy::inbound::DefaultPolicy;
use weft_testkit::{control::FakeControl, http2, policy::inbound};

#[tokio::test]
async fn inbound_requests_are_logged_when_their_response_begins() {
    let control = FakeControl::start().unwrap();
    let (log, out) = crate::harness::Log::new();
    let app = Setup::new(&control, "app").env("LINKERD2_PROXY_ACCESS_LOG", "json").access_log(out).ready().await;
    let origin = naming("app").await;
    control.set_inbound(origin.addr().port(), inbound(DefaultPolicy::AllUnauthenticated));
    let mut client = http2::Client::over(app.connect_inbound(origin.addr()).await).await.unwrap();
    let request = Request::post("http://app.ns/a?b=1")
        .header("user-agent", "curl/8")
        .header("x-request-id", "r-1")
        .header("content-length", "2");
    assert_eq!(soon(client.call(request.body(http2::full("hi")).unwrap())).await.unwrap().head.status, 200);
    eventually("the line is written", || log.text().ends_with('\n')).await;
    let text = log.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    let field = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    assert!(field("client.addr").starts_with("127.0.0.1:"), "{text}");
    assert_eq!((field("client.id"), field("host"), field("method")), ("-".into(), "app.ns".into(), "POST".into()));
    assert_eq!((field("uri"), field("version")), ("http://app.ns/a?b=1".into(), "HTTP/2.0".into()));
    assert_eq!((field("request_bytes"), field("response_bytes")), ("2".into(), "3".into()));
    assert_eq!((field("user_agent"), field("trace_id")), ("curl/8".into(), "r-1".into()));
    let nanos = |name: &str| field(name).parse::<u64>().unwrap();
    assert!(nanos("processing_ns") <= nanos("total_ns") && line["status"] == 200, "{text}");

    // Nobody is there: the proxy's own reply is logged too.
    let gone = crate::harness::nobody();
    let mut client = http2::Client::over(app.connect_inbound(gone).await).await.unwrap();
    assert_eq!(soon(client.call(get())).await.unwrap().head.status, 502);
    eventually("the line is written", || log.text().lines().count() == 2).await;
    assert!(log.text().lines().nth(1).unwrap().contains("\"status\":502"), "{}", log.text());
    assert_eq!(app.metric("weft_proxy_access_log_dropped_total"), 0.0);
    // What was written before the end is there after it.
    app.shutdown().await;
}

#[tokio::test]
async fn apache_is_the_other_form_and_outbound_is_not_logged() {
    let control = FakeControl::start().unwrap();
    let (log, out) = crate::harness::Log::new();
    let app = Setup::new(&control, "app").env("LINKERD2_PROXY_ACCESS_LOG", "apache").access_log(out).ready().await;
    let origin = naming("app").await;
    control.set_inbound(origin.addr().port(), inbound(DefaultPolicy::AllUnauthenticated));
    let mut outside = http2::Client::over(app.connect_outbound(([10, 96, 1, 1], 80).into()).await).await.unwrap();
    let _ = soon(outside.call(get())).await;
    let mut client = http2::Client::over(app.connect_inbound(origin.addr()).await).await.unwrap();
    assert_eq!(soon(client.call(get())).await.unwrap().head.status, 200);
    eventually("the line is written", || log.text().ends_with('\n')).await;
    let text = log.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("127.0.0.1:") && text.ends_with("] \"GET http://app.ns/ HTTP/2.0\" 200\n"), "{text}");
}
