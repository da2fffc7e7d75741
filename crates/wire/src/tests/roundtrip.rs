//! To the wire and back, through bytes.

use super::{any, policies};
use crate::{
    Invalid,
    destination::{self, Lookup},
    endpoint, extension,
    identity::{Certificate, CertifyRequest},
    inbound::{self, PortSpec},
    outbound::{self, Target, TrafficSpec},
    profile, shown,
    transport_header::{SessionProtocol, TransportHeader},
    trust::{self, TrustBundle},
    work::{self, Progress, WorkSpec},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use prost::Message;
use weft_model::policy::route::Filter;

/// `value` encoded, sent, received and decoded; and people could be shown it.
fn across<T, P: Message + Default + std::fmt::Debug>(
    value: &T,
    encode: impl Fn(&T) -> Result<P, Invalid>,
    decode: impl Fn(P) -> Result<T, Invalid>,
) -> Result<T, String> {
    let bytes = encode(value).map_err(|e| format!("encoding: {e}"))?.encode_to_vec();
    let message = P::decode(bytes.as_slice()).map_err(|e| e.to_string())?;
    if !shown::is_read(&message) {
        return Err(format!("showing: {message:?}"));
    }
    decode(message).map_err(|e| format!("decoding: {e}"))
}

proptest! {
    #[test]
    fn endpoint_updates(update in any::update()) {
        prop_assert_eq!(across(&update, endpoint::encode_update, endpoint::decode_whole_update), Ok(update));
    }

    #[test]
    fn profiles(sent in any::profile()) {
        prop_assert_eq!(across(&sent, profile::encode, profile::decode_whole), Ok(sent));
    }

    #[test]
    fn server_policies(sent in policies::server_policy()) {
        prop_assert_eq!(across(&sent, inbound::policy::encode, inbound::policy::decode), Ok(sent));
    }

    #[test]
    fn client_policies(sent in policies::client_policy()) {
        prop_assert_eq!(across(&sent, outbound::policy::encode, outbound::policy::decode), Ok(sent));
    }

    /// In two messages, of which the one alone leaves nothing undone in silence.
    #[test]
    fn client_policies_that_linkerd_has_no_words_for(
        mut sent in policies::client_policy(),
        beyond in vec(vec(prop_oneof![any::rewrite(), any::mirror()], 0..3), 1..8),
    ) {
        let mut next = beyond.iter().cycle();
        sent.change_filters(&mut |filters| drop(filters.splice(0..0, next.next().into_iter().flatten().cloned())));
        let alone = across(&sent, outbound::policy::encode, outbound::policy::decode).unwrap();
        prop_assert_eq!(alone.filters().len(), sent.filters().len());
        for (filters, beyond) in alone.filters().into_iter().zip(beyond.iter().cycle()) {
            let stands_in = matches!(filters.first(), Some(Filter::Extension(_)));
            prop_assert_eq!(stands_in, !beyond.is_empty(), "{:?}", filters);
        }
        let again = across(&alone, outbound::policy::encode, outbound::policy::decode);
        prop_assert_eq!(again, Ok(alone.clone()));
        let told = across(&extension::of(&sent), extension::encode, extension::decode_whole).unwrap();
        prop_assert_eq!(alone.extended(&told), sent);
    }

    #[test]
    fn questions(workload in ".{0,16}", path in ".{1,16}", uid in ".{0,8}", addr in any::addr(), is_addr: bool) {
        let sent = PortSpec { workload: workload.clone(), port: addr.port() };
        prop_assert_eq!(across(&sent, |s| Ok(inbound::encode_spec(s.clone())), inbound::decode_spec), Ok(sent));
        let target = if is_addr { Target::Addr(addr) } else { Target::Authority(path.clone()) };
        let sent = TrafficSpec { workload: workload.clone(), target };
        prop_assert_eq!(across(&sent, |s| Ok(outbound::encode_spec(s.clone())), outbound::decode_spec), Ok(sent.clone()));
        prop_assert_eq!(across(&sent, |s| Ok(extension::encode_spec(s.clone())), extension::decode_spec), Ok(sent));
        let sent = Lookup { path, context: workload.clone() };
        let decode = |message| Ok(destination::decode_lookup(message));
        prop_assert_eq!(across(&sent, |s| Ok(destination::encode_lookup(s.clone())), decode), Ok(sent));
        let sent = WorkSpec { workload, uid };
        let decode = |message| Ok(work::decode_spec(message));
        prop_assert_eq!(across(&sent, |s| Ok(work::encode_spec(s.clone())), decode), Ok(sent));
    }

    #[test]
    fn certificates(
        leaf in vec(any::<u8>(), 1..9), more in vec(vec(any::<u8>(), 0..9), 0..3), valid_until in any::time(),
    ) {
        let intermediates = more.into_iter().map(Into::into).collect();
        let sent = Certificate { leaf: leaf.into(), intermediates, valid_until };
        let encode = |c: &Certificate| crate::identity::encode_certificate(c.clone());
        prop_assert_eq!(across(&sent, encode, crate::identity::decode_certificate), Ok(sent));
    }

    #[test]
    fn certificate_requests(
        identity in any::identity(), token in vec(any::<u8>(), 1..9), csr in vec(any::<u8>(), 1..9),
    ) {
        let sent = CertifyRequest { identity, token: token.into(), csr: csr.into() };
        let encode = |r: &CertifyRequest| Ok(crate::identity::encode_request(r.clone()));
        prop_assert_eq!(across(&sent, encode, crate::identity::decode_request), Ok(sent));
    }

    #[test]
    fn trust_bundles(pem in ".{1,32}", version in ".{0,8}") {
        let sent = TrustBundle { pem, version };
        prop_assert_eq!(across(&sent, trust::encode, trust::decode), Ok(sent));
    }

    #[test]
    fn progress_of_work(done: bool) {
        let sent = Progress { done };
        prop_assert_eq!(across(&sent, work::encode, work::decode), Ok(sent));
    }

    /// Also when it comes in two parts, with the application's bytes behind it.
    #[test]
    fn transport_headers(
        port in 1_u16..,
        name in option::of(any::dns_name()),
        protocol in select(vec![None, Some(SessionProtocol::Http1), Some(SessionProtocol::Http2)]),
        more in vec(any::<u8>(), 0..9),
        cut: prop::sample::Index,
    ) {
        let sent = TransportHeader { port, name, protocol };
        let mut bytes = sent.encode();
        let length = bytes.len();
        bytes.extend(more);
        prop_assert_eq!(TransportHeader::decode(&bytes), Ok(Some((sent, length))));
        prop_assert_eq!(TransportHeader::decode(&bytes[..cut.index(length)]), Ok(None));
    }

    /// Whatever bytes come, conversions answer.
    #[test]
    fn garbage_is_refused_without_a_panic(bytes in vec(any::<u8>(), 0..64)) {
        let _ = TransportHeader::decode(&bytes);
        let mut header = TransportHeader { port: 1, name: None, protocol: None }.encode();
        header.splice(23.., bytes.iter().copied());
        let _ = TransportHeader::decode(&header);
        if let Ok(message) = Message::decode(bytes.as_slice()) {
            let _ = endpoint::decode_update(message);
        }
        if let Ok(message) = Message::decode(bytes.as_slice()) {
            let _ = inbound::policy::decode(message);
        }
        if let Ok(message) = Message::decode(bytes.as_slice()) {
            let _ = outbound::policy::decode(message);
        }
    }
}

/// The layout of data-plane.md 3.9, written out by hand.
#[test]
fn a_transport_header_is_byte_exact() {
    let header =
        TransportHeader { port: 8080, name: Some("a.b".parse().unwrap()), protocol: Some(SessionProtocol::Http2) };
    let mut expected = b"transport.l5d.io/v1\r\n\r\n".to_vec();
    expected.extend([0, 0, 0, 12, 0x08, 0x90, 0x3f, 0x12, 3, b'a', b'.', b'b', 0x1a, 2, 0x12, 0]);
    assert_eq!(header.encode(), expected);
}

/// Shared labels travel once.
#[test]
fn labels_of_all_endpoints_are_sent_once() {
    use weft_model::{Endpoint, EndpointUpdate};
    let endpoint = |host: u8| {
        let mut endpoint = Endpoint::plain(([10, 0, 0, host], 80).into());
        endpoint.labels = [("ns".to_owned(), "n".to_owned()), ("pod".to_owned(), host.to_string())].into();
        endpoint
    };
    let update = EndpointUpdate::Add(vec![endpoint(1), endpoint(2)]);
    let Some(linkerd2_proxy_api::destination::update::Update::Add(set)) =
        endpoint::encode_update(&update).unwrap().update
    else {
        panic!("not an addition");
    };
    assert_eq!(set.metric_labels.len(), 1);
    assert!(set.addrs.iter().all(|addr| addr.metric_labels.len() == 1));
}
