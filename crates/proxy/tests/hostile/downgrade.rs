//! HTTP/2 that goes on as HTTP/1 (CVE-2021-21295 and its family): a peer of the mesh that says in frames what HTTP/1 would read as the end
//! of a head, as framing, or as another request. One request in is one request out, or a refusal.
//!
//! Budget: none, with two requests of another client behind it, costs more than three streams with nothing wrong and what is behind them.

use crate::{
    cost::Cost,
    frames::*,
    harness::soon,
    measure::{alone, say},
    mesh::Mesh,
};
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;
use weft_model::policy::inbound::DefaultPolicy;
use weft_testkit::{http1, policy::inbound};

/// The case with nothing wrong.
const ORDINARY: &str = "an ordinary request";
const SMUGGLED: &str = "a\r\nGET /smuggled HTTP/1.1\r\nHost: app.ns\r\n\r\n";

/// The fields of a head in order, and what follows it.
struct Case {
    name: &'static str,
    head: Vec<(Vec<u8>, Vec<u8>)>,
    body: Option<&'static [u8]>,
    trailers: Vec<(&'static str, Vec<u8>)>,
}

fn pair(name: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
    (name.as_bytes().to_vec(), value.as_bytes().to_vec())
}

/// An ordinary head in which `changes` take the place of what they name, or are added.
fn head(changes: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let ordinary = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/case"),
        (":authority", "app.ns"),
        ("l5d-orig-proto", "HTTP/1.1"),
    ];
    let changed = |name: &str| changes.iter().find(|(changed, _)| *changed == name);
    let replaced = ordinary.iter().map(|(name, value)| pair(name, changed(name).map_or(*value, |(_, value)| *value)));
    let added = changes.iter().filter(|(name, _)| !ordinary.iter().any(|(known, _)| known == name));
    replaced.chain(added.map(|(name, value)| pair(name, value))).collect()
}

fn cases() -> Vec<Case> {
    let changed = |name, changes: &[(&str, &str)]| Case { name, head: head(changes), body: None, trailers: vec![] };
    let with =
        |name, changes: &[(&str, &str)], body| Case { name, head: head(changes), body: Some(body), trailers: vec![] };
    let ended = |name, trailer: (&'static str, &str)| Case {
        name,
        head: head(&[]),
        body: Some(b"hello"),
        trailers: vec![(trailer.0, trailer.1.as_bytes().to_vec())],
    };
    let without = |what: &str| head(&[]).into_iter().filter(|(name, _)| name != what.as_bytes()).collect();
    let lines: &str = "x: y\r\nGET /smuggled HTTP/1.1\r\nhost";
    vec![
        with(ORDINARY, &[("content-length", "5")], b"hello"),
        changed("a value that ends the head", &[("x", SMUGGLED)]),
        changed("a value with a line end", &[("x", "a\r\ntransfer-encoding: chunked")]),
        changed("a value with a line feed", &[("x", "a\nb: c")]),
        changed("a value with a carriage return", &[("x", "a\rb: c")]),
        changed("a value with a NUL", &[("x", "a\0b")]),
        changed("a value that begins with a blank", &[("x", " a")]),
        changed("a name with lines", &[(lines, "app.ns")]),
        changed("a name with a colon", &[("transfer-encoding: chunked", "x")]),
        changed("a name with a blank", &[("transfer-encoding ", "chunked")]),
        changed("a name in capitals", &[("Transfer-Encoding", "chunked")]),
        changed("an empty name", &[("", "a")]),
        with("chunks", &[("transfer-encoding", "chunked")], b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        with("chunks that are asked for", &[("te", "chunked")], b"hello"),
        with("connection", &[("connection", "content-length")], b"hello"),
        with("keep-alive", &[("keep-alive", "timeout=5")], b"hello"),
        with("an upgrade", &[("upgrade", "websocket"), ("connection", "upgrade")], b"GET /smuggled HTTP/1.1\r\n\r\n"),
        with("an upgrade alone", &[("upgrade", "websocket")], b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        with("a length that is too small", &[("content-length", "3")], b"helloGET /smuggled HTTP/1.1\r\n\r\n"),
        with("a length that is too large", &[("content-length", "300")], b"hello"),
        with("two lengths", &[("content-length", "5, 6")], b"hello"),
        with("a length twice", &[("content-length", "5"), ("content-length", "5")], b"hello"),
        with("a length with a sign", &[("content-length", "+5")], b"hello"),
        with("a length of 0", &[("content-length", "0")], b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        changed("a length without a body", &[("content-length", "5")]),
        changed("a path with a blank", &[(":path", "/case HTTP/1.1\r\nx: y")]),
        changed("a path with a version", &[(":path", "/smuggled HTTP/1.1")]),
        changed("a path with a tab", &[(":path", "/smuggled\tx")]),
        changed("a path that is a line", &[(":path", "/case\r\n\r\nGET /smuggled")]),
        changed("a path that is a URI", &[(":path", "http://other/smuggled")]),
        changed("a path without a slash", &[(":path", "smuggled")]),
        changed("an empty path", &[(":path", "")]),
        changed("a path with a fragment", &[(":path", "/case#/smuggled")]),
        changed("a method with a path", &[(":method", "GET /smuggled HTTP/1.1\r\nx:")]),
        changed("a method with a blank", &[(":method", "GET /smuggled")]),
        changed("an empty method", &[(":method", "")]),
        changed("a method that is the preface", &[(":method", "PRI"), (":path", "*")]),
        changed("an authority with lines", &[(":authority", SMUGGLED)]),
        changed("an authority with a blank", &[(":authority", "app.ns other")]),
        changed("an authority with a path", &[(":authority", "app.ns/smuggled")]),
        changed("an authority with a user", &[(":authority", "other@app.ns")]),
        changed("an empty authority", &[(":authority", "")]),
        changed("another host", &[("host", "other")]),
        changed("two hosts", &[("host", "app.ns"), ("Host", "other")]),
        changed("a scheme with lines", &[(":scheme", "http\r\nx: y")]),
        changed("a scheme that is none", &[(":scheme", "file")]),
        changed("an absolute form", &[("l5d-orig-proto", "HTTP/1.1; absolute-form"), (":authority", "app.ns\r\nx: y")]),
        changed("a version with lines", &[("l5d-orig-proto", "HTTP/1.1\r\nx: y")]),
        with(
            "version 1.0 with a body",
            &[("l5d-orig-proto", "HTTP/1.0")],
            b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        with("a version that is none", &[("l5d-orig-proto", "HTTP/3.0")], b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        with("an expectation", &[("expect", "100-continue")], b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        changed("a cookie with lines", &[("cookie", SMUGGLED)]),
        changed("a CONNECT", &[(":method", "CONNECT")]),
        ended("a trailer with lines", ("x", SMUGGLED)),
        ended("a trailer that frames", ("transfer-encoding", "chunked")),
        ended("a trailer with a length", ("content-length", "5")),
        ended("a trailer with a host", ("host", "other")),
        ended("a trailer with a pseudo-header", (":path", "/smuggled")),
        Case { name: "no path", head: without(":path"), body: None, trailers: vec![] },
        Case { name: "no authority", head: without(":authority"), body: None, trailers: vec![] },
        Case { name: "no method", head: without(":method"), body: None, trailers: vec![] },
        Case { name: "no scheme", head: without(":scheme"), body: None, trailers: vec![] },
    ]
}

/// Sends the case as a peer of the mesh, and waits until the stream or connection has ended.
async fn send(mesh: &Mesh, addr: SocketAddr, case: &Case) -> Heard {
    let tcp = mesh.app.connect_inbound(addr).await;
    let (stream, _) = soon(mesh.store("peer").connect(tcp, &mesh.server(), false)).await.unwrap();
    let block: Vec<u8> = case.head.iter().flat_map(|(name, value)| field(name, value)).collect();
    let last = |is: bool| if is { END_STREAM } else { 0 };
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    bytes.extend(frame(HEADERS, END_HEADERS | last(case.body.is_none()), 1, &block));
    if let Some(body) = case.body {
        bytes.extend(frame(DATA, last(case.trailers.is_empty()), 1, body));
    }
    if !case.trailers.is_empty() {
        let block: Vec<u8> = case.trailers.iter().flat_map(|(name, value)| field(name.as_bytes(), value)).collect();
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
    }
    let (from, mut to) = tokio::io::split(stream);
    let _ = to.write_all(&bytes).await;
    // A goodbye behind the answers: the connection ends once the stream has.
    let _ = to.write_all(&frame(GOAWAY, 0, 0, &[0; 8])).await;
    let heard = soon(hear(from)).await;
    drop(to);
    heard
}

#[test]
fn one_stream_in_is_one_request_out() {
    alone(module_path!(), "one_stream_in_is_one_request_out", every_case);
}

async fn every_case() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|_| http1::Reply::ok(b"fine")).await.unwrap();
    let addr = origin.addr();
    mesh.control.set_inbound(addr.port(), inbound(DefaultPolicy::AllUnauthenticated));
    let mut faults = vec![];
    let mut passed = 0;
    let exchange = async |case: &Case| {
        let heard = send(&mesh, addr, case).await;
        let mut client = http1::Client::over(mesh.app.connect_inbound(addr).await);
        for _ in 0..2 {
            let reply = soon(client.call("GET /end HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
            assert_eq!(reply.status(), Some(200), "{}: another client", case.name);
        }
        heard
    };
    let ordinary = cases().swap_remove(0);
    assert_eq!(ordinary.name, ORDINARY);
    let cost = Cost::begin(async || drop(exchange(&ordinary).await)).await;
    for case in cases() {
        let before = origin.seen().requests.len();
        let heard = exchange(&case).await;
        let new = origin.seen().requests.split_off(before);
        let (ends, seen): (Vec<_>, Vec<_>) =
            new.iter().partition(|request| request.first_line() == "GET /end HTTP/1.1");
        let lines: Vec<String> = seen.iter().map(|request| request.first_line()).collect();
        passed += seen.len();
        assert!(case.name != ORDINARY || seen.len() == 1, "{}: {heard:?}", case.name);
        if ends.len() != 2
            || seen.len() > 1
            || lines.iter().any(|line| line.contains("smuggled") || line.split(' ').count() != 3)
        {
            faults.push(format!("{}: {lines:?}, {heard:?}", case.name));
        }
        for request in seen {
            // Each line of a head is one that was a field.
            let text = request.head_text();
            let wrong = text.lines().skip(1).any(|line| !line.is_empty() && !line.contains(": "))
                || text.replace("\r\n", "").contains(['\r', '\n', '\0'])
                || text.matches("content-length:").count() > 1;
            if wrong || text.contains("smuggled") {
                faults.push(format!("{}: {text:?}", case.name));
            }
        }
    }
    say(&format!("{passed} of {} cases were passed on", cases().len()));
    cost.end("streams that would be requests", cases().len(), 3.0);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
