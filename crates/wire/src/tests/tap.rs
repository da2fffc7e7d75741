//! Observations and what they show, to the wire and back; and what is refused.

use crate::tap::{decode, decode_event, encode, encode_event};
use linkerd2_proxy_api::tap::{ObserveRequest, TapEvent, observe_request as asked};
use proptest::{collection::btree_map, collection::vec, option, prelude::*};
use prost::Message;
use std::time::Duration;
use weft_model::{
    decide::cidr::Cidr,
    tap::{AddrMatch, End, Event, Match, Observation, Step, StreamId, TextMatch},
};

fn addr_match() -> impl Strategy<Value = AddrMatch> {
    prop_oneof![
        (any::<std::net::IpAddr>(), 0..=32_u8).prop_map(|(ip, len)| AddrMatch::Network(Cidr::new(ip, len).unwrap())),
        (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| AddrMatch::Ports(a.min(b)..=a.max(b))),
    ]
}

fn text_match() -> impl Strategy<Value = TextMatch> {
    prop_oneof![".{0,4}".prop_map(TextMatch::Exact), ".{0,4}".prop_map(TextMatch::Prefix)]
}

fn matches() -> impl Strategy<Value = Match> {
    let label = || ("[a-z]{1,3}", ".{0,3}");
    let leaf = prop_oneof![
        addr_match().prop_map(Match::Source),
        addr_match().prop_map(Match::Destination),
        prop_oneof![Just("http"), Just("https"), Just("ws")].prop_map(|s| Match::Scheme(s.to_owned())),
        prop_oneof![Just("GET"), Just("TRACE"), Just("PURGE")].prop_map(|s| Match::Method(s.to_owned())),
        text_match().prop_map(Match::Authority),
        text_match().prop_map(Match::Path),
        label().prop_map(|(name, value)| Match::DestinationLabel(name, value)),
        label().prop_map(|(name, value)| Match::RouteLabel(name, value)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Match::All),
            vec(inner.clone(), 0..3).prop_map(Match::Any),
            inner.prop_map(|m| Match::Not(Box::new(m))),
        ]
    })
}

fn step() -> impl Strategy<Value = Step> {
    let fields = || vec(("[a-z]{1,4}", vec(b' '..=b'~', 0..4)), 0..3);
    let duration = || (0..1_u64 << 40).prop_map(Duration::from_nanos);
    let end = prop_oneof![any::<u32>().prop_map(End::Grpc), any::<u32>().prop_map(End::Reset)];
    prop_oneof![
        ("[A-Z]{1,6}", prop_oneof![Just(""), Just("http")], ".{0,4}", ".{0,4}", fields()).prop_map(
            |(method, scheme, authority, path, fields)| {
                Step::Request { method, scheme: scheme.to_owned(), authority, path, fields }
            }
        ),
        (duration(), any::<u16>(), fields()).prop_map(|(since_request, status, fields)| Step::Response {
            since_request,
            status,
            fields
        }),
        (duration(), duration(), any::<u64>(), option::of(end), fields()).prop_map(
            |(since_request, since_response, response_bytes, end, fields)| {
                Step::End { since_request, since_response, response_bytes, end, fields }
            }
        ),
    ]
}

proptest! {
    #[test]
    fn observations(limit in 1_u32.., matches in matches(), headers: bool) {
        let sent = Observation { limit, matches, headers };
        let bytes = encode(&sent).encode_to_vec();
        prop_assert_eq!(decode(ObserveRequest::decode(bytes.as_slice()).unwrap()), Ok(sent));
    }

    #[test]
    fn events(
        (source, destination) in (any::<(std::net::IpAddr, u16)>(), any::<(std::net::IpAddr, u16)>()),
        labels in vec(btree_map("[a-z]{1,3}", ".{0,3}", 0..3), 3),
        (outbound, base, stream, step) in (any::<bool>(), any::<u32>(), any::<u64>(), step()),
    ) {
        let addr = |(ip, port): (std::net::IpAddr, u16)| (ip, port.max(1)).into();
        let [source_labels, destination_labels, route_labels] = labels.try_into().unwrap();
        let sent = Event {
            outbound, source: addr(source), source_labels, destination: addr(destination), destination_labels,
            route_labels, id: StreamId { base, stream }, step,
        };
        let bytes = encode_event(&sent).unwrap().encode_to_vec();
        prop_assert_eq!(decode_event(TapEvent::decode(bytes.as_slice()).unwrap()), Ok(sent));
    }
}

#[test]
fn what_asks_for_nothing_or_too_much_is_refused() {
    let all = Some(asked::Match { r#match: Some(asked::r#match::Match::All(asked::r#match::Seq::default())) });
    let refused = |limit, matches| {
        decode(ObserveRequest { limit, r#match: matches, extract: None }).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(refused(1, all.clone()), Ok(()));
    assert_eq!(refused(0, all.clone()), Err("limit: must be more than 0".to_owned()));
    assert_eq!(refused(1, None), Err("match: is required".to_owned()));
    assert_eq!(refused(1, Some(asked::Match::default())), Err("match.match: is required".to_owned()));
    let deep = (0..30).fold(all, |inner, _| {
        Some(asked::Match { r#match: Some(asked::r#match::Match::Not(Box::new(inner.unwrap()))) })
    });
    let text = refused(1, deep).unwrap_err();
    assert!(text.ends_with(": conditions are nested more than 16 deep"), "{text}");
    // One end of a range is a range of one port.
    let ports = |min, max| {
        let range = asked::r#match::tcp::PortRange { min, max };
        let tcp = asked::r#match::Tcp { r#match: Some(asked::r#match::tcp::Match::Ports(range)) };
        let matches = Some(asked::Match { r#match: Some(asked::r#match::Match::Source(tcp)) });
        decode(ObserveRequest { limit: 1, r#match: matches, extract: None }).map(|o| o.matches)
    };
    assert_eq!(ports(80, 0), Ok(Match::Source(AddrMatch::Ports(80..=80))));
    assert_eq!(ports(0, 80), Ok(Match::Source(AddrMatch::Ports(80..=80))));
    assert!(ports(0, 0).is_err() && ports(9, 8).is_err() && ports(1, 65536).is_err());
}
