//! Every parser of bytes from outside as a function that panics on what must never be, for libFuzzer (`cargo xtask fuzz`) and,
//! over the corpus and its mutations, for the test command.

#![forbid(unsafe_code)]

mod authorizations;
mod context;
mod matchers;
mod reviews;

use std::fmt::Debug;
use weft_model::{
    DnsName, Identity, NameAddr,
    decide::{cidr::Cidr, forwarded, path},
};
use weft_transport::{detect, tls};
use weft_wire::transport_header::{self, TransportHeader};

/// One parser. Its corpus is `fuzz/corpus/NAME`.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

pub const TARGETS: &[Target] = &[
    target("http1_request", weft_proxy::fuzzing::http1_request),
    target("http1_response", weft_proxy::fuzzing::http1_response),
    target("http1_limits", weft_proxy::fuzzing::http1_limits),
    target("http2_gate", weft_proxy::fuzzing::http2_gate),
    target("detect_tls", detect_tls),
    target("detect_http", detect_http),
    target("transport_header", header),
    target("tls_records", tls::fuzzing::records),
    target("tls_messages", tls::fuzzing::messages),
    target("messages", weft_wire::fuzzing::messages),
    target("updates", weft_wire::fuzzing::updates),
    target("observations", weft_wire::fuzzing::observations),
    target("svids", weft_wire::fuzzing::svids),
    target("names", names),
    target("matchers", matchers::run),
    target("grpc_matchers", matchers::grpc),
    target("authorizations", authorizations::run),
    target("readings", readings),
    target("forwarded", through),
    target("trace_context", context::run),
    target("explain_query", weft_proxy::fuzzing::explain_query),
    target("dns", weft_proxy::fuzzing::dns),
    target("reviews", reviews::run),
    target("manifests", reviews::manifests),
    // A library parses these: of ours is only what is asked of it.
    target("anchors", anchors),
];

/// More bytes never change an answer, and none is missing at the limit.
fn detect_tls(data: &[u8]) {
    decided_once(data, detect::tls, |part, whole| *part == detect::Tls::NeedMore || part == whole);
}

/// But a head that begins well and goes on badly is found out later, by the codec or here.
fn detect_http(data: &[u8]) {
    use detect::Http;
    decided_once(data, detect::http, |part, whole| {
        *part == Http::NeedMore || part == whole || (*part, *whole) == (Http::Http1, Http::NotHttp)
    });
}

fn decided_once<T: Debug>(data: &[u8], detect: fn(&[u8]) -> T, stays: impl Fn(&T, &T) -> bool) {
    let data = data.get(..detect::MAX_BYTES).unwrap_or(data);
    let whole = detect(data);
    assert!(
        data.len() < detect::MAX_BYTES || !format!("{whole:?}").contains("NeedMore"),
        "more than the limit is waited for"
    );
    // Cuts are tried at every place near the front, where the decisions fall, and at some behind.
    for end in (0..data.len()).filter(|end| *end < 256 || end % 97 == 0) {
        let part = detect(data.get(..end).unwrap_or_default());
        assert!(stays(&part, &whole), "{part:?} of {end} bytes became {whole:?}");
    }
}

/// What is read can be written and is the same then; a part of it is never the whole.
fn header(data: &[u8]) {
    let Ok(Some((header, len))) = TransportHeader::decode(data) else { return };
    assert!(len <= data.len() && len <= transport_header::MAX_BYTES);
    assert!(!matches!(TransportHeader::decode(data.get(..len - 1).unwrap_or_default()), Ok(Some(_))));
    let written = header.encode();
    assert_eq!(TransportHeader::decode(&written), Ok(Some((header, written.len()))));
}

/// Names are what they are written as.
fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = text.parse::<DnsName>() {
        assert_eq!(name.to_string().parse::<DnsName>().as_ref(), Ok(&name));
    }
    if let Ok(identity) = text.parse::<Identity>() {
        assert_eq!(identity.to_string().parse::<Identity>().as_ref(), Ok(&identity));
    }
    if let Ok(addr) = text.parse::<NameAddr>() {
        assert_eq!(addr.to_string().parse::<NameAddr>().as_ref(), Ok(&addr));
    }
    if let Ok(net) = text.parse::<Cidr>() {
        assert_eq!(net.to_string().parse::<Cidr>().as_ref(), Ok(&net));
    }
}

/// A bundle of anchors is taken whole or refused.
fn anchors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (Ok(name), Ok(identity)) = ("a.b".parse::<DnsName>(), "a.b".parse::<Identity>()) else { return };
    let _ = tls::Store::new(text, name, identity);
}

/// A plain path has no other reading, and none is the path itself or stands there twice. A reading that a server may come to is
/// one of an address below the root.
fn readings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_');
    let read = path::readings(text);
    if text.bytes().all(plain) && !text.contains("//") {
        assert!(read.is_empty(), "{read:?}");
    }
    for (n, reading) in read.iter().enumerate() {
        assert_ne!(reading.path, text);
        assert!(read.iter().skip(n + 1).all(|other| other.path != reading.path), "{} stands there twice", reading.path);
        assert!(reading.path.len() <= text.len() + 1, "a reading only takes away");
    }
    // Whoever follows the dots of the path as it is finds one of the readings.
    let dots = |segment: &str| matches!(segment, "." | "..");
    if text.starts_with('/') && text.split('/').any(dots) {
        assert!(!read.is_empty(), "dots are followed by servers");
    }
}

/// A gateway knows its own element among any others, and no element of somebody else's is taken for it.
fn through(data: &[u8]) {
    let (Ok(own), Ok(other)) = ("gw.ns.id".parse::<Identity>(), "other.ns.id".parse::<Identity>()) else { return };
    let element = forwarded::element(&own, "web.ns.id", "app.ns");
    for all in [[data, b",", element.as_bytes()].concat(), [element.as_bytes(), b",", data].concat()] {
        assert!(forwarded::went_through(&all, &own), "{}", all.escape_ascii());
    }
    let names = |name: &[u8]| data.to_ascii_lowercase().windows(name.len()).any(|part| part == name);
    assert!(!forwarded::went_through(data, &own) || names(b"gw.ns.id"), "taken for its own");
    assert!(!forwarded::went_through(data, &other) || names(b"other.ns.id"), "taken for its own");
}
