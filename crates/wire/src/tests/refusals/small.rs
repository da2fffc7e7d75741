//! Identity, trust and the transport header.

use super::check;
use crate::{
    extension, identity,
    transport_header::{Error, MAX_BYTES, PREFACE, TransportHeader},
    trust,
};
use linkerd2_proxy_api::identity as proto;
use weft_model::{
    Extensions,
    policy::route::{Extension, Filter, PathReplacement, Rewrite},
};

#[test]
fn certificate_requests() {
    let complete =
        proto::CertifyRequest { identity: "a.b".to_owned(), token: vec![1], certificate_signing_request: vec![1] };
    check(
        &complete,
        identity::decode_request,
        &[
            (|m| m.identity.clear(), Some("identity")),
            (|m| m.identity = "a b".to_owned(), Some("identity")),
            (|m| m.token.clear(), Some("token")),
            (|m| m.certificate_signing_request.clear(), Some("certificate_signing_request")),
        ],
    );
}

#[test]
fn certificates() {
    let complete = proto::CertifyResponse {
        leaf_certificate: vec![1],
        intermediate_certificates: vec![],
        valid_until: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
    };
    check(
        &complete,
        identity::decode_certificate,
        &[
            (|m| m.leaf_certificate.clear(), Some("leaf_certificate")),
            (|m| m.valid_until = None, Some("valid_until")),
            (|m| m.valid_until = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), Some("valid_until")),
            (|m| m.valid_until = Some(prost_types::Timestamp { seconds: -1, nanos: 0 }), Some("valid_until")),
        ],
    );
}

#[test]
fn trust_bundles() {
    let empty = trust::TrustBundle { pem: String::new(), version: String::new() };
    assert_eq!(trust::encode(&empty).unwrap_err().field, "pem");
    assert_eq!(trust::decode(Default::default()).unwrap_err().field, "pem");
}

#[test]
fn extensions() {
    let message = extension::message(&Extension { key: "0123456789abcdef".to_owned(), wants: "A, which".to_owned() });
    assert_eq!(extension::named(&message).unwrap().wants, "A, which");
    for other in ["", "the route wants a B", &message.replace("0123", "X123"), &format!("{message} ")] {
        assert_eq!(extension::named(other), None, "{other}");
    }
}

#[test]
fn what_another_version_knows_costs_its_own_rules_alone() {
    let path = |path: &str| Some(PathReplacement::Full(path.to_owned()));
    let rewrite = |to: &str| vec![Filter::Rewrite(Rewrite { host: None, path: path(to) })];
    let all = Extensions([("a", "/a"), ("b", "/b"), ("c", "/c")].map(|(key, to)| (key.to_owned(), rewrite(to))).into());
    let mut message = extension::encode(&all).unwrap();
    // Of a kind that nobody here has a name for, beside one that is known.
    let known = message.extensions[0].filters[0].clone();
    message.extensions[0].filters[0].kind = None;
    message.extensions[0].filters.push(known);
    message.extensions[2].key.clear();
    let (usable, invalid) = extension::decode(message);
    assert_eq!(usable.unwrap(), Extensions([("b".to_owned(), rewrite("/b"))].into()));
    let fields: Vec<_> = invalid.into_iter().map(|invalid| invalid.field).collect();
    assert_eq!(fields, ["extensions[0].filters[0].kind", "extensions[2].key"]);
}

#[test]
fn transport_headers() {
    let header = |message: &[u8]| {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        TransportHeader::decode(&[PREFACE.as_slice(), &length, message].concat())
    };
    assert_eq!(TransportHeader::decode(b"GET / HTTP/1.1\r\n"), Err(Error::Preface));
    assert_eq!(TransportHeader::decode(b"transport.l5d.io/v2"), Err(Error::Preface));
    assert_eq!(header(&[]), Err(Error::Port(0)), "a port that is not sent is 0");
    assert_eq!(header(&[0x08, 0]), Err(Error::Port(0)));
    assert_eq!(header(&[0x08, 0x80, 0x80, 0x04]), Err(Error::Port(65536)));
    let minus_one = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(header(&minus_one), Err(Error::Port(-1)));
    assert_eq!(header(&[0x08, 80, 0x12, 3, b'a', b' ', b'b']), Err(Error::Name));
    assert_eq!(header(&[0x08]), Err(Error::Message));
    let too_long = u32::try_from(MAX_BYTES).unwrap().to_be_bytes();
    let refused = TransportHeader::decode(&[PREFACE.as_slice(), &too_long].concat());
    assert!(matches!(refused, Err(Error::TooLong(_))), "{refused:?}");
}
