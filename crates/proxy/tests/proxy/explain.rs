//! Decision records by `/explain`: what a proxy says of the requests and connections that it has served and refused.

use crate::{
    harness::{Proxy, http1, soon},
    mesh::{Mesh, get, naming, shouting},
};
use serde_json::Value;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_model::{ProtocolHint, policy::outbound::ClientProtocol};
use weft_testkit::policy::{balance, detect, service};

/// The records that a proxy has for `query`.
pub(crate) async fn explain(proxy: &Proxy, query: &str) -> Value {
    let (status, body) = proxy.admin("GET", &format!("/explain?{query}")).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Asks until there are as many records: they are written when a request has ended.
pub(crate) async fn explained(proxy: &Proxy, query: &str, records: usize) -> Value {
    let start = std::time::Instant::now();
    loop {
        let explained = explain(proxy, query).await;
        if explained["records"].as_array().unwrap().len() == records {
            return explained;
        }
        assert!(start.elapsed() < crate::harness::LONG, "{explained:#}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn both_proxies_remember_a_request_and_by_whom_it_was_decided() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let request = http::Request::post("http://app.ns/a/b?secret=1").body(weft_testkit::http2::full("hello")).unwrap();
    let answer = soon(mesh.http2(&known).await.call(request)).await.unwrap();
    assert_eq!(answer.head.status, 200);

    let out = explained(&mesh.web, "kind=request&direction=outbound", 1).await;
    let record = &out["records"][0];
    let field = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    assert_eq!((field("method"), field("authority"), field("path")), ("POST".into(), "app.ns".into(), "/a/b".into()));
    assert_eq!(field("target"), known.addr.to_string());
    assert_eq!((field("endpoint"), field("server_id")), (origin.addr().to_string(), mesh.app.identity().to_string()));
    let by = serde_json::json!({"parent": "Service/ns/app", "route": "default/http", "rule": 0});
    assert_eq!(record["decided_by"], by);
    assert_eq!((record["status"].as_u64(), field("outcome")), (Some(200), "ended".into()));
    assert_eq!((record["request_bytes"].as_u64(), record["response_bytes"].as_u64()), (Some(5), Some(3)));
    let timings = &record["microseconds"];
    let at = |name: &str| timings[name].as_u64().unwrap();
    assert!(at("decided") <= at("response_head") && at("response_head") <= at("first_byte"), "{timings}");
    assert!(at("first_byte") <= at("total"), "{timings}");
    assert!(field("time").ends_with('Z'), "{record}");

    let into = explained(&mesh.app, "kind=request&path=/a/", 1).await;
    let record = &into["records"][0];
    assert_eq!(record["client_id"], mesh.web.identity().as_str());
    assert_eq!((&record["direction"], &record["tls"]), (&"inbound".into(), &"true".into()));
    let by = serde_json::json!({
        "parent": "default/all-unauthenticated", "route": "default/default", "authorization": "default/all-unauthenticated"
    });
    assert_eq!(record["decided_by"], by);
    assert_eq!((record["request_bytes"].as_u64(), record["response_bytes"].as_u64()), (Some(5), Some(3)));
}

#[tokio::test]
async fn a_refusal_is_remembered_with_its_code_cause_and_remedy() {
    let mesh = Mesh::start().await;
    let known = mesh.service(&[]);
    let meta = service("ns", "app", 80);
    let mut policy = detect(meta.clone(), balance(meta, known.target.parse().unwrap()));
    if let ClientProtocol::Detect { http1, .. } = &mut policy.protocol {
        http1.routes.clear();
    }
    mesh.control.set_outbound(known.addr, policy);
    let request = "GET /x HTTP/1.1\r\nhost: app.ns\r\nconnection: close\r\n\r\n";
    assert_eq!(http1(mesh.connect(&known).await, request).await.0, 404);
    let explained = explained(&mesh.web, "code=ROUTE_NOT_FOUND&status=404", 1).await;
    let record = &explained["records"][0];
    assert_eq!((&record["outcome"], &record["code"]), (&"failed".into(), &"ROUTE_NOT_FOUND".into()));
    assert_eq!(record["message"], format!("no route of {} matches", known.addr));
    assert_eq!(record["decided_by"]["parent"], "Service/ns/app");
    assert!(record["endpoint"].is_null() && record["microseconds"]["decided"].is_null(), "{record}");
    let why = &explained["codes"]["ROUTE_NOT_FOUND"];
    assert!(why["cause"].as_str().is_some_and(|text| text.contains("route")), "{why}");
    assert!(why["remedy"].as_str().is_some_and(|text| !text.is_empty()), "{why}");
}

#[tokio::test]
async fn a_connection_is_remembered_with_its_bytes() {
    let mesh = Mesh::start().await;
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let known = mesh.opaque(&[mesh.endpoint(addr, ProtocolHint::Opaque)]);
    let mut tcp = mesh.connect(&known).await;
    tcp.write_all(b"abc").await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut answer = vec![];
    soon(tcp.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"hello\nABCbye\n");
    for (proxy, parent) in [(&mesh.web, "Service/ns/app"), (&mesh.app, "default/all-unauthenticated")] {
        let explained = explained(proxy, "kind=connection", 1).await;
        let record = &explained["records"][0];
        assert_eq!((&record["protocol"], &record["outcome"]), (&"opaque".into(), &"ended".into()));
        assert_eq!((record["request_bytes"].as_u64(), record["response_bytes"].as_u64()), (Some(3), Some(13)));
        assert_eq!(record["decided_by"]["parent"], parent);
    }
    server.abort();
}

#[tokio::test]
async fn every_worker_is_asked_and_bad_questions_are_told_so() {
    let mesh = Mesh::with(&[("LINKERD2_PROXY_CORES", "2")], &[]).await;
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let (mut first, mut second) = (mesh.http2(&known).await, mesh.http2(&known).await);
    for client in [&mut first, &mut second] {
        assert_eq!(soon(client.call(get())).await.unwrap().head.status, 200);
    }
    let explained = explained(&mesh.web, "kind=request", 2).await;
    let mut workers: Vec<_> = explained["records"].as_array().unwrap().iter().map(|r| r["worker"].as_u64()).collect();
    workers.sort_unstable();
    assert_eq!(workers, [Some(0), Some(1)]);
    assert!(explained["workers_missing"].is_null());
    assert_eq!(explain(&mesh.web, "kind=request&limit=1").await["records"].as_array().unwrap().len(), 1);

    let (status, text) = mesh.web.admin("GET", "/explain?colour=red").await;
    assert_eq!((status, &text[..27]), (400, "unknown parameter \"colour\":"));
    assert_eq!(mesh.web.admin("GET", "/explain?limit=1000000").await.0, 400);
    assert_eq!(mesh.web.admin("POST", "/explain").await.0, 405);
}
