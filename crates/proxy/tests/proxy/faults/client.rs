//! What clients do wrong.

use super::{Fault, Sees, call, end, fault, say};
use crate::mesh::{Mesh, naming};
use weft_model::ProtocolHint;
use weft_proxy::{direction::Direction::Outbound, error::Code};
use weft_testkit::http2;

/// The preface of HTTP/2 and empty settings.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

pub(super) fn faults() -> Vec<Fault> {
    let bad = |name, inject| fault(name, Code::BadRequest, Outbound, Sees::Reply, inject).early();
    let large = |name, inject| fault(name, Code::HeadTooLarge, Outbound, Sees::Reply, inject).early();
    let broken = |name, inject| fault(name, Code::Http2Violation, Outbound, Sees::End, inject);
    vec![
        bad("no host", |m| Box::pin(head(m, "GET / HTTP/1.1\r\n"))),
        bad("two hosts", |m| Box::pin(head(m, "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n"))),
        bad("a host that is none", |m| Box::pin(head(m, "GET / HTTP/1.1\r\nhost: a b\r\n"))),
        bad("a length and chunks", |m| {
            Box::pin(head(m, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n"))
        }),
        bad("two lengths", |m| {
            Box::pin(head(m, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n"))
        }),
        bad("a signed length", |m| Box::pin(head(m, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n"))),
        bad("an unknown transfer coding", |m| {
            Box::pin(head(m, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n"))
        }),
        bad("chunks in HTTP/1.0", |m| {
            Box::pin(head(m, "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n"))
        }),
        bad("a folded line", |m| Box::pin(head(m, "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n"))),
        bad("a blank before the colon", |m| Box::pin(head(m, "GET / HTTP/1.1\r\nhost : a\r\n"))),
        bad("a line that ends with LF alone", |m| Box::pin(head(m, "GET / HTTP/1.1\nhost: a\r\n"))),
        bad("CONNECT in HTTP/1.0", |m| Box::pin(head(m, "CONNECT a:1 HTTP/1.0\r\nhost: a:1\r\n"))),
        large("a head of more than 64 KiB", |m| {
            Box::pin(async move { head(m, &format!("GET /{} HTTP/1.1\r\nhost: a\r\n", "a".repeat(65 * 1024))).await })
        }),
        large("a head of too many lines", |m| {
            Box::pin(async move { head(m, &format!("GET / HTTP/1.1\r\nhost: a\r\n{}", "x: 1\r\n".repeat(200))).await })
        }),
        fault("a head that does not end", Code::HeadTimeout, Outbound, Sees::Reply, |m| {
            Box::pin(head(m, "GET / HTTP/1.1\r\nhost: a\r\nx: 1"))
        })
        .web(&[("WEFT_PROXY_OUTBOUND_HTTP_HEAD_TIMEOUT", "50ms")])
        .early(),
        fault("several hosts in HTTP/2", Code::BadRequest, Outbound, Sees::End, |m| Box::pin(hosts(m))),
        broken("data on stream 0", |m| Box::pin(frames(m, b"\x00\x00\x00\x00\x00\x00\x00\x00\x00"))),
        broken("a ping of 7 bytes", |m| Box::pin(frames(m, b"\x00\x00\x07\x06\x00\x00\x00\x00\x00abcdefg"))),
        broken("a frame that is too long", |m| Box::pin(frames(m, b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"))),
    ]
}

/// Sends a head of HTTP/1 to a service that works.
async fn head(mesh: &Mesh, head: &str) -> super::Saw {
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let saw = say(mesh.connect(&known).await, format!("{head}\r\n")).await;
    assert!(origin.seen().requests.is_empty(), "it got through: {head:?}");
    saw
}

/// Sends frames of HTTP/2 to a service that works.
async fn frames(mesh: &Mesh, frames: &[u8]) -> super::Saw {
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    end(mesh.connect(&known).await, [HELLO, frames].concat()).await
}

async fn hosts(mesh: &Mesh) -> super::Saw {
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let request = http::Request::get("http://app.ns/").header("host", "app.ns").header("host", "app.ns");
    call(mesh.connect(&known).await, request.body(http2::full("")).unwrap()).await
}
