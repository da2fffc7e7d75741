//! Every parser of bytes from outside as a function that panics on what must never be, for libFuzzer (`cargo xtask fuzz`) and,
//! over the corpus and its mutations, for the test command.

#![forbid(unsafe_code)]

mod matchers;

use std::fmt::Debug;
use weft_model::{DnsName, Identity, NameAddr, decide::cidr::Cidr};
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
    target("messages", weft_wire::fuzzing::messages),
    target("names", names),
    target("matchers", matchers::run),
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
