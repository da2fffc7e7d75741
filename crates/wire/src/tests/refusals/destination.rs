//! Endpoints and profiles.

use super::{check, on, resource, seconds, service};
use crate::{endpoint, profile};
use linkerd2_proxy_api::{
    destination::{self as proto, http2_client_params as http2},
    http_types, net,
};
use proto::{protocol_hint, tls_identity};
use weft_model::{EndpointUpdate, Profile};

fn addr(port: u32) -> net::TcpAddress {
    net::TcpAddress { ip: Some([10, 0, 0, 1].into()), port }
}

fn weighted() -> proto::WeightedAddr {
    proto::WeightedAddr {
        addr: Some(addr(80)),
        weight: 1,
        metric_labels: Default::default(),
        tls_identity: Some(proto::TlsIdentity {
            server_name: Some(dns("a.b")),
            strategy: Some(tls_identity::Strategy::UriLikeIdentity(tls_identity::UriLikeIdentity {
                uri: "spiffe://td/a".to_owned(),
            })),
        }),
        protocol_hint: Some(proto::ProtocolHint {
            opaque_transport: Some(protocol_hint::OpaqueTransport { inbound_port: 4143 }),
            protocol: None,
        }),
        authority_override: Some(proto::AuthorityOverride { authority_override: "a:80".to_owned() }),
        http2: Some(proto::Http2ClientParams {
            flow_control: Some(http2::FlowControl::default()),
            keep_alive: Some(http2::KeepAlive { interval: seconds(1), timeout: seconds(1), while_idle: false }),
            internals: Some(http2::Internals::default()),
        }),
        resource_ref: None,
    }
}

fn dns(name: &str) -> tls_identity::DnsLikeIdentity {
    tls_identity::DnsLikeIdentity { name: name.to_owned() }
}

fn uri(uri: &str) -> Option<tls_identity::Strategy> {
    Some(tls_identity::Strategy::UriLikeIdentity(tls_identity::UriLikeIdentity { uri: uri.to_owned() }))
}

fn flow(m: &mut proto::WeightedAddr) -> &mut http2::FlowControl {
    on(&mut on(&mut m.http2).flow_control)
}

fn frame_size(m: &mut proto::WeightedAddr) -> &mut u32 {
    &mut on(&mut on(&mut m.http2).internals).max_frame_size
}

#[test]
fn endpoints() {
    check(
        &weighted(),
        endpoint::decode,
        &[
            (|m| m.addr = None, Some("addr")),
            (|m| on(&mut m.addr).ip = None, Some("addr.ip")),
            (|m| on(&mut on(&mut m.addr).ip).ip = None, Some("addr.ip.ip")),
            (|m| on(&mut m.addr).port = 0, Some("addr.port")),
            (|m| on(&mut m.addr).port = 65536, Some("addr.port")),
            (|m| m.tls_identity = None, None),
            (|m| on(&mut m.tls_identity).strategy = None, Some("tls_identity.strategy")),
            (|m| on(&mut m.tls_identity).server_name = None, Some("tls_identity.server_name")),
            (|m| on(&mut m.tls_identity).server_name = Some(dns("a b")), Some("tls_identity.server_name")),
            (|m| on(&mut m.tls_identity).strategy = uri("a.b"), Some("tls_identity.uri_like_identity.uri")),
            (|m| on(&mut m.tls_identity).strategy = uri("spiffe://"), Some("tls_identity.uri_like_identity.uri")),
            (
                |m| on(&mut m.tls_identity).strategy = Some(tls_identity::Strategy::DnsLikeIdentity(dns("a b"))),
                Some("tls_identity.dns_like_identity.name"),
            ),
            (|m| m.protocol_hint = None, None),
            (|m| transport(m).inbound_port = 0, Some("protocol_hint.opaque_transport.inbound_port")),
            (|m| transport(m).inbound_port = 65535, Some("protocol_hint.opaque_transport.inbound_port")),
            (|m| transport(m).inbound_port = 65534, None),
            (|m| on(&mut m.authority_override).authority_override = "a b".to_owned(), Some("authority_override")),
            (|m| on(&mut m.authority_override).authority_override.clear(), None),
            (|m| on(&mut on(&mut m.http2).keep_alive).interval = None, Some("http2.keep_alive.interval")),
            (|m| on(&mut on(&mut m.http2).keep_alive).timeout = None, Some("http2.keep_alive.timeout")),
            (|m| on(&mut on(&mut m.http2).keep_alive).timeout = seconds(-1), Some("http2.keep_alive.timeout")),
            (
                |m| flow(m).initial_connection_window_size = 1 << 31,
                Some("http2.flow_control.initial_connection_window_size"),
            ),
            (|m| flow(m).initial_stream_window_size = 1 << 31, Some("http2.flow_control.initial_stream_window_size")),
            (|m| *frame_size(m) = 16_383, Some("http2.internals.max_frame_size")),
            (|m| *frame_size(m) = 16_777_216, Some("http2.internals.max_frame_size")),
            (|m| *frame_size(m) = 16_384, None),
        ],
    );
}

fn transport(m: &mut proto::WeightedAddr) -> &mut protocol_hint::OpaqueTransport {
    on(&mut on(&mut m.protocol_hint).opaque_transport)
}

#[test]
fn a_dns_identity_is_its_own_server_name() {
    let mut addr = weighted();
    addr.tls_identity = Some(proto::TlsIdentity {
        server_name: None,
        strategy: Some(tls_identity::Strategy::DnsLikeIdentity(dns("a.b"))),
    });
    assert_eq!(endpoint::decode(addr).unwrap().tls.unwrap().server_name.as_str(), "a.b");
}

#[test]
fn endpoint_updates() {
    let bad = proto::WeightedAddr { addr: None, ..weighted() };
    let set = |addrs| proto::WeightedAddrSet { addrs, metric_labels: Default::default() };
    // What is wrong with one address costs no other one.
    let add = proto::update::Update::Add(set(vec![weighted(), bad, weighted()]));
    let remove = proto::update::Update::Remove(proto::AddrSet { addrs: vec![addr(80), addr(0), addr(81)] });
    for (update, usable, field) in
        [(None, 0, "update"), (Some(add), 2, "add.addrs[1].addr"), (Some(remove), 2, "remove.addrs[1].port")]
    {
        let (update, invalid) = endpoint::decode_update(proto::Update { update });
        let kept = update.map_or(0, |update| match update {
            EndpointUpdate::Add(endpoints) => endpoints.len(),
            EndpointUpdate::Remove(addrs) => addrs.len(),
            EndpointUpdate::NoEndpoints { .. } => 0,
        });
        assert_eq!(kept, usable, "{field}");
        assert_eq!(invalid.iter().map(|invalid| invalid.field.as_str()).collect::<Vec<_>>(), [field]);
    }
}

#[test]
fn labels_of_an_address_win() {
    let labels = |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let set = proto::WeightedAddrSet {
        addrs: vec![proto::WeightedAddr { metric_labels: labels(&[("a", "own")]), ..weighted() }],
        metric_labels: labels(&[("a", "shared"), ("b", "shared")]),
    };
    let update =
        endpoint::decode_whole_update(proto::Update { update: Some(proto::update::Update::Add(set)) }).unwrap();
    let EndpointUpdate::Add(endpoints) = update else { panic!("{update:?}") };
    assert_eq!(endpoints[0].labels["a"], "own");
    assert_eq!(endpoints[0].labels["b"], "shared");
}

fn method(number: i32) -> http_types::HttpMethod {
    http_types::HttpMethod { r#type: Some(http_types::http_method::Type::Registered(number)) }
}

fn route(m: proto::request_match::Match) -> proto::Route {
    let status = proto::response_match::Match::Status(proto::HttpStatusRange { min: 500, max: 599 });
    proto::Route {
        condition: Some(proto::RequestMatch { r#match: Some(m) }),
        response_classes: vec![proto::ResponseClass {
            condition: Some(proto::ResponseMatch { r#match: Some(status) }),
            is_failure: true,
        }],
        metrics_labels: Default::default(),
        is_retryable: false,
        timeout: seconds(1),
    }
}

fn matched(m: &mut proto::DestinationProfile, by: proto::request_match::Match) {
    on(&mut m.routes[0].condition).r#match = Some(by);
}

fn status(m: &mut proto::DestinationProfile, min: u32, max: u32) {
    let range = proto::response_match::Match::Status(proto::HttpStatusRange { min, max });
    on(&mut m.routes[0].response_classes[0].condition).r#match = Some(range);
}

#[test]
fn profiles() {
    use proto::request_match::{Match, Seq};
    let complete = proto::DestinationProfile {
        fully_qualified_name: "web.ns".to_owned(),
        opaque_protocol: false,
        routes: vec![route(Match::Method(method(0)))],
        retry_budget: Some(proto::RetryBudget { retry_ratio: 0.2, min_retries_per_second: 10, ttl: seconds(10) }),
        dst_overrides: vec![proto::WeightedDst { authority: "a:80".to_owned(), weight: 1, backend_ref: None }],
        endpoint: Some(weighted()),
        parent_ref: service(),
        profile_ref: service(),
    };
    check(
        &complete,
        profile::decode_whole,
        &[
            (|m| m.fully_qualified_name.clear(), None),
            (|m| m.fully_qualified_name = "a b".to_owned(), Some("fully_qualified_name")),
            (|m| m.routes[0].condition = None, Some("routes[0].condition")),
            (|m| on(&mut m.routes[0].condition).r#match = None, Some("routes[0].condition.match")),
            (|m| matched(m, Match::Method(method(9))), Some("routes[0].condition.method.registered")),
            (
                |m| matched(m, Match::Path(proto::PathMatch { regex: "(".to_owned() })),
                Some("routes[0].condition.path.regex"),
            ),
            (
                |m| matched(m, Match::All(Seq { matches: vec![proto::RequestMatch { r#match: None }] })),
                Some("routes[0].condition.all.matches[0].match"),
            ),
            (
                |m| matched(m, Match::Not(Box::new(proto::RequestMatch { r#match: None }))),
                Some("routes[0].condition.not.match"),
            ),
            (|m| m.routes[0].response_classes[0].condition = None, Some("routes[0].response_classes[0].condition")),
            (|m| status(m, 0, 0), Some("routes[0].response_classes[0].condition.status.min")),
            (|m| status(m, 500, 499), Some("routes[0].response_classes[0].condition.status")),
            (|m| status(m, 500, 600), Some("routes[0].response_classes[0].condition.status")),
            (|m| status(m, 0, 500), None),
            (|m| status(m, 500, 0), None),
            (|m| m.routes[0].timeout = seconds(-1), Some("routes[0].timeout")),
            (|m| on(&mut m.retry_budget).ttl = None, Some("retry_budget.ttl")),
            (|m| on(&mut m.retry_budget).ttl = seconds(61), Some("retry_budget.ttl")),
            (|m| on(&mut m.retry_budget).ttl = seconds(0), Some("retry_budget.ttl")),
            (|m| on(&mut m.retry_budget).retry_ratio = f32::NAN, Some("retry_budget.retry_ratio")),
            (|m| on(&mut m.retry_budget).retry_ratio = 1000.1, Some("retry_budget.retry_ratio")),
            (|m| m.dst_overrides[0].authority = "a".to_owned(), Some("dst_overrides[0].authority")),
            (|m| m.dst_overrides[0].weight = 0, None),
            (|m| on(&mut m.endpoint).addr = None, Some("endpoint.addr")),
            (|m| on(&mut m.parent_ref).kind = None, None),
            (|m| resource(&mut m.profile_ref).port = 65_536, None),
        ],
    );
}

/// As Linkerd's proxies take them.
#[test]
fn a_part_of_a_profile_that_is_wrong_costs_no_other_one() {
    use proto::request_match::Match;
    let budget = |ttl| proto::RetryBudget { retry_ratio: 0.2, min_retries_per_second: 10, ttl: Some(ttl) };
    let half = prost_types::Duration { seconds: 0, nanos: 500_000_000 };
    let target = |authority: &str| proto::WeightedDst { authority: authority.to_owned(), weight: 1, backend_ref: None };
    let path = |regex: &str| route(Match::Path(proto::PathMatch { regex: regex.to_owned() }));
    let good = proto::DestinationProfile {
        fully_qualified_name: "web.ns".to_owned(),
        opaque_protocol: true,
        routes: vec![path("/a"), path("/b")],
        retry_budget: Some(budget(seconds(60).unwrap())),
        dst_overrides: vec![target("a:80"), target("b:80")],
        endpoint: Some(weighted()),
        parent_ref: service(),
        profile_ref: service(),
    };
    let whole = profile::decode_whole(good.clone()).unwrap();

    let mut bad = good.clone();
    bad.routes.insert(0, proto::Route { condition: None, ..path("/c") });
    bad.routes.insert(2, path("("));
    bad.dst_overrides.insert(1, target("a"));
    let (usable, invalid) = profile::decode(bad);
    assert_eq!(usable, whole);
    let fields = |invalid: &[crate::Invalid]| invalid.iter().map(|part| part.field.clone()).collect::<Vec<_>>();
    assert_eq!(
        fields(&invalid),
        ["routes[0].condition", "routes[2].condition.path.regex", "dst_overrides[1].authority"]
    );

    // What there is one of is left out of the rest.
    for ttl in [seconds(61).unwrap(), half] {
        let (usable, invalid) =
            profile::decode(proto::DestinationProfile { retry_budget: Some(budget(ttl)), ..good.clone() });
        assert_eq!(usable, Profile { retry_budget: None, ..whole.clone() });
        assert_eq!(fields(&invalid), ["retry_budget.ttl"]);
    }
    let mut bad = good.clone();
    bad.fully_qualified_name = "a b".to_owned();
    on(&mut bad.endpoint).addr = None;
    bad.routes[1].timeout = seconds(-1);
    bad.routes[1].response_classes.insert(0, proto::ResponseClass { condition: None, is_failure: false });
    let (usable, invalid) = profile::decode(bad);
    let mut rest = Profile { name: None, endpoint: None, ..whole };
    rest.routes[1].timeout = None;
    assert_eq!(usable, rest);
    let left_out =
        ["routes[1].response_classes[0].condition", "routes[1].timeout", "fully_qualified_name", "endpoint.addr"];
    assert_eq!(fields(&invalid), left_out);
}
