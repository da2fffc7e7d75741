//! Client policies.

use super::{Case, check, check_below, on, resource, seconds, service};
use crate::{Invalid, outbound::policy};
use linkerd2_proxy_api::{
    destination, grpc_route as grpc_matches, http_route as matches, net, opaque_route as opaque_matches,
    outbound::{
        self as proto, backend, failure_accrual as accrual, grpc_route, http_route, opaque_route,
        proxy_protocol as protocol, tls_route,
    },
    tls_route as sni,
};
use weft_model::{ClientPolicy, policy::outbound::ClientProtocol};

fn balancer(load: backend::balance_p2c::Load) -> Option<proto::Backend> {
    let dst = backend::endpoint_discovery::DestinationGet { path: "web.ns:80".to_owned() };
    let discovery = backend::EndpointDiscovery { kind: Some(backend::endpoint_discovery::Kind::Dst(dst)) };
    Some(proto::Backend {
        metadata: service(),
        queue: Some(proto::Queue { capacity: 100, failfast_timeout: seconds(3) }),
        kind: Some(backend::Kind::Balancer(backend::BalanceP2c { discovery: Some(discovery), load: Some(load) })),
    })
}

fn ewma() -> backend::balance_p2c::Load {
    let ewma = backend::balance_p2c::PeakEwma { default_rtt: seconds(1), decay: seconds(10) };
    backend::balance_p2c::Load::PeakEwma(ewma)
}

fn backoff() -> Option<proto::ExponentialBackoff> {
    Some(proto::ExponentialBackoff {
        min_backoff: seconds(1),
        max_backoff: seconds(60),
        jitter_ratio: 0.5,
        respect_retry_after_hint: false,
    })
}

fn http() -> proto::OutboundPolicy {
    let to = http_route::RouteBackend { backend: balancer(ewma()), ..Default::default() };
    let to = http_route::WeightedRouteBackend { backend: Some(to), weight: 1 };
    let random = http_route::distribution::RandomAvailable { backends: vec![to] };
    let rule = http_route::Rule {
        backends: Some(http_route::Distribution {
            kind: Some(http_route::distribution::Kind::RandomAvailable(random)),
        }),
        timeouts: Some(matches::Timeouts { response: seconds(1), request: None, idle: None }),
        retry: Some(http_route::Retry {
            max_retries: 1,
            max_request_bytes: 1,
            conditions: Some(http_route::retry::Conditions {
                status_ranges: vec![http_route::retry::conditions::StatusRange { start: 500, end: 599 }],
            }),
            timeout: seconds(1),
            backoff: backoff(),
        }),
        ..Default::default()
    };
    let route = proto::HttpRoute { metadata: service(), hosts: vec![], rules: vec![rule] };
    policy(protocol::Kind::Http1(protocol::Http1 {
        routes: vec![route],
        failure_accrual: Some(proto::FailureAccrual {
            ejection: None,
            kind: Some(accrual::Kind::Unified(accrual::Unified {
                success_rate_threshold: 0.8,
                decay: seconds(10),
                min_requests: 5,
                max_consecutive_failures: 7,
                backoff: backoff(),
            })),
        }),
    }))
}

fn policy(kind: protocol::Kind) -> proto::OutboundPolicy {
    proto::OutboundPolicy { metadata: service(), protocol: Some(proto::ProxyProtocol { kind: Some(kind) }) }
}

fn http1(m: &mut proto::OutboundPolicy) -> &mut protocol::Http1 {
    match on(&mut on(&mut m.protocol).kind) {
        protocol::Kind::Http1(http1) => http1,
        other => panic!("{other:?}"),
    }
}

fn rule(m: &mut proto::OutboundPolicy) -> &mut http_route::Rule {
    &mut http1(m).routes[0].rules[0]
}

fn random(m: &mut proto::OutboundPolicy) -> &mut http_route::distribution::RandomAvailable {
    match on(&mut on(&mut rule(m).backends).kind) {
        http_route::distribution::Kind::RandomAvailable(random) => random,
        other => panic!("{other:?}"),
    }
}

fn to(m: &mut proto::OutboundPolicy) -> &mut proto::Backend {
    on(&mut on(&mut random(m).backends[0].backend).backend)
}

fn balance(m: &mut proto::OutboundPolicy) -> &mut backend::BalanceP2c {
    match on(&mut to(m).kind) {
        backend::Kind::Balancer(balance) => balance,
        backend::Kind::Forward(_) => panic!("no balancer"),
    }
}

fn set_path(m: &mut proto::OutboundPolicy, path: &str) {
    let dst = backend::endpoint_discovery::DestinationGet { path: path.to_owned() };
    on(&mut balance(m).discovery).kind = Some(backend::endpoint_discovery::Kind::Dst(dst));
}

fn set_load(m: &mut proto::OutboundPolicy, default_rtt: Option<i64>, decay: Option<i64>) {
    let seconds = |s: Option<i64>| s.and_then(seconds);
    let ewma = backend::balance_p2c::PeakEwma { default_rtt: seconds(default_rtt), decay: seconds(decay) };
    balance(m).load = Some(backend::balance_p2c::Load::PeakEwma(ewma));
}

/// Fields behind `protocol.http1.`.
fn check_http(cases: &[Case<proto::OutboundPolicy>]) {
    check_below("protocol.http1.", &http(), policy::decode, cases);
}

#[test]
fn policies_and_metadata() {
    check(
        &http(),
        policy::decode,
        &[
            (|m| m.protocol = None, Some("protocol")),
            (|m| on(&mut m.protocol).kind = None, Some("protocol.kind")),
            (|m| m.metadata = None, Some("metadata")),
            (|m| on(&mut m.metadata).kind = None, Some("metadata.kind")),
            (|m| resource(&mut m.metadata).group.clear(), Some("metadata.resource.group")),
            (|m| resource(&mut m.metadata).kind.clear(), Some("metadata.resource.kind")),
            (|m| resource(&mut m.metadata).name.clear(), Some("metadata.resource.name")),
            (|m| resource(&mut m.metadata).namespace.clear(), Some("metadata.resource.namespace")),
            (|m| resource(&mut m.metadata).port = 65536, Some("metadata.resource.port")),
        ],
    );
}

#[test]
fn backends() {
    check_http(&[
        (|m| http1(m).routes[0].metadata = None, Some("routes[0].metadata")),
        (|m| rule(m).backends = None, Some("routes[0].rules[0].backends")),
        (|m| on(&mut rule(m).backends).kind = None, Some("routes[0].rules[0].backends.kind")),
        (|m| random(m).backends.clear(), Some("routes[0].rules[0].backends.random_available.backends")),
        (|m| random(m).backends[0].weight = 0, Some("routes[0].rules[0].backends.random_available.backends")),
        (
            |m| {
                random(m).backends[0].weight = u32::MAX;
                let twice = random(m).backends[0].clone();
                random(m).backends.push(twice);
            },
            Some("routes[0].rules[0].backends.random_available.backends"),
        ),
        (
            |m| {
                let first = http_route::distribution::FirstAvailable { backends: vec![] };
                on(&mut rule(m).backends).kind = Some(http_route::distribution::Kind::FirstAvailable(first));
            },
            Some("routes[0].rules[0].backends.first_available.backends"),
        ),
        (
            |m| random(m).backends[0].backend = None,
            Some("routes[0].rules[0].backends.random_available.backends[0].backend"),
        ),
        (
            |m| on(&mut random(m).backends[0].backend).backend = None,
            Some("routes[0].rules[0].backends.random_available.backends[0].backend.backend"),
        ),
    ]);
    // Below a backend the way there is the same for all.
    let way = "protocol.http1.routes[0].rules[0].backends.random_available.backends[0].backend.backend.";
    check_below(
        way,
        &http(),
        policy::decode,
        &[
            (|m| to(m).metadata = None, Some("metadata")),
            (|m| to(m).queue = None, Some("queue")),
            (|m| on(&mut to(m).queue).failfast_timeout = None, Some("queue.failfast_timeout")),
            (|m| to(m).kind = None, None),
            (|m| balance(m).discovery = None, Some("balancer.discovery")),
            (|m| on(&mut balance(m).discovery).kind = None, Some("balancer.discovery.kind")),
            (|m| set_path(m, ""), Some("balancer.discovery.dst.path")),
            (|m| set_path(m, "web"), Some("balancer.discovery.dst.path")),
            (|m| set_path(m, "web:0"), Some("balancer.discovery.dst.path")),
            (|m| balance(m).load = None, Some("balancer.load")),
            (|m| set_load(m, None, Some(1)), Some("balancer.peak_ewma.default_rtt")),
            (|m| set_load(m, Some(1), None), Some("balancer.peak_ewma.decay")),
            (
                |m| balance(m).load = Some(backend::balance_p2c::Load::PenaltyPeakEwma(Default::default())),
                Some("balancer.penalty_peak_ewma.default_rtt"),
            ),
            (|m| to(m).kind = Some(backend::Kind::Forward(forward(80))), None),
            (|m| to(m).kind = Some(backend::Kind::Forward(forward(0))), Some("forward.addr.port")),
        ],
    );
}

fn forward(port: u32) -> destination::WeightedAddr {
    let addr = net::TcpAddress { ip: Some([10, 0, 0, 1].into()), port };
    destination::WeightedAddr { addr: Some(addr), ..Default::default() }
}

fn statuses(m: &mut proto::OutboundPolicy, start: u32, end: u32) {
    let range = http_route::retry::conditions::StatusRange { start, end };
    on(&mut on(&mut rule(m).retry).conditions).status_ranges = vec![range];
}

#[test]
fn retries_and_timeouts() {
    check_http(&[
        (|m| on(&mut rule(m).timeouts).response = seconds(-1), Some("routes[0].rules[0].timeouts.response")),
        (|m| on(&mut rule(m).retry).conditions = None, Some("routes[0].rules[0].retry.conditions")),
        (|m| statuses(m, 0, 599), Some("routes[0].rules[0].retry.conditions.status_ranges[0]")),
        (|m| statuses(m, 500, 600), Some("routes[0].rules[0].retry.conditions.status_ranges[0]")),
        (|m| statuses(m, 501, 500), Some("routes[0].rules[0].retry.conditions.status_ranges[0]")),
        (|m| statuses(m, 1, 599), None),
        (
            |m| on(&mut on(&mut rule(m).retry).backoff).min_backoff = None,
            Some("routes[0].rules[0].retry.backoff.min_backoff"),
        ),
        (|m| on(&mut rule(m).retry).timeout = seconds(-1), Some("routes[0].rules[0].retry.timeout")),
    ]);
}

#[test]
#[expect(deprecated, reason = "what an older control plane sends")]
fn the_old_request_timeout_counts_where_there_is_no_new_one() {
    let request = |m: proto::OutboundPolicy| match policy::decode(m).unwrap().protocol {
        ClientProtocol::Http1(routes) => routes.routes[0].rules[0].does.timeouts.request.map(|t| t.as_secs()),
        other => panic!("{other:?}"),
    };
    let mut message = http();
    rule(&mut message).request_timeout = seconds(7);
    assert_eq!(request(message.clone()), Some(7));
    on(&mut rule(&mut message).timeouts).request = seconds(3);
    assert_eq!(request(message), Some(3));
}

fn unified(m: &mut proto::OutboundPolicy) -> &mut accrual::Unified {
    match on(&mut on(&mut http1(m).failure_accrual).kind) {
        accrual::Kind::Unified(unified) => unified,
        other => panic!("{other:?}"),
    }
}

fn waits(m: &mut proto::OutboundPolicy) -> &mut proto::ExponentialBackoff {
    on(&mut unified(m).backoff)
}

#[test]
fn breakers() {
    check_http(&[
        (|m| http1(m).failure_accrual = None, None),
        (|m| on(&mut http1(m).failure_accrual).kind = None, Some("failure_accrual.kind")),
        (
            |m| on(&mut http1(m).failure_accrual).kind = Some(accrual::Kind::ConsecutiveFailures(Default::default())),
            Some("failure_accrual.consecutive_failures.backoff"),
        ),
        (|m| unified(m).success_rate_threshold = 1.1, Some("failure_accrual.unified.success_rate_threshold")),
        (|m| unified(m).success_rate_threshold = f64::NAN, Some("failure_accrual.unified.success_rate_threshold")),
        (|m| unified(m).decay = None, Some("failure_accrual.unified.decay")),
        (
            |m| unified(m).decay = Some(prost_types::Duration { seconds: 0, nanos: 9_999_999 }),
            Some("failure_accrual.unified.decay"),
        ),
        (|m| unified(m).min_requests = 1_000_001, Some("failure_accrual.unified.min_requests")),
        (|m| unified(m).backoff = None, Some("failure_accrual.unified.backoff")),
        (|m| waits(m).min_backoff = None, Some("failure_accrual.unified.backoff.min_backoff")),
        (|m| waits(m).max_backoff = None, Some("failure_accrual.unified.backoff.max_backoff")),
        (
            |m| (waits(m).min_backoff, waits(m).max_backoff) = (seconds(0), seconds(0)),
            Some("failure_accrual.unified.backoff.max_backoff"),
        ),
        (|m| waits(m).min_backoff = seconds(61), Some("failure_accrual.unified.backoff")),
        (|m| waits(m).jitter_ratio = -0.1, Some("failure_accrual.unified.backoff.jitter_ratio")),
        (|m| waits(m).jitter_ratio = 100.1, Some("failure_accrual.unified.backoff.jitter_ratio")),
    ]);
}

#[test]
fn detection_needs_every_protocol() {
    let complete = policy(protocol::Kind::Detect(protocol::Detect {
        timeout: seconds(10),
        opaque: Some(protocol::Opaque::default()),
        http1: Some(protocol::Http1::default()),
        http2: Some(protocol::Http2::default()),
    }));
    fn detect(m: &mut proto::OutboundPolicy) -> &mut protocol::Detect {
        match on(&mut on(&mut m.protocol).kind) {
            protocol::Kind::Detect(detect) => detect,
            other => panic!("{other:?}"),
        }
    }
    check(
        &complete,
        policy::decode,
        &[
            (|m| detect(m).timeout = None, Some("protocol.detect.timeout")),
            (|m| detect(m).opaque = None, Some("protocol.detect.opaque")),
            (|m| detect(m).http1 = None, Some("protocol.detect.http1")),
            (|m| detect(m).http2 = None, Some("protocol.detect.http2")),
        ],
    );
}

fn decode_routes(kind: protocol::Kind) -> Result<ClientPolicy, Invalid> {
    policy::decode(policy(kind))
}

#[test]
fn opaque_and_tls_routes_have_one_rule() {
    let refused = |kind| decode_routes(kind).err().map(|invalid| invalid.field);
    let opaque = |rules: Vec<opaque_route::Rule>| proto::OpaqueRoute { metadata: service(), rules };
    let rule = opaque_route::Rule {
        backends: Some(opaque_route::Distribution {
            kind: Some(opaque_route::distribution::Kind::Empty(Default::default())),
        }),
        filters: vec![opaque_route::Filter {
            kind: Some(opaque_route::filter::Kind::Forbidden(opaque_matches::Forbidden {})),
        }],
    };
    let routes = |routes| refused(protocol::Kind::Opaque(protocol::Opaque { routes }));
    assert_eq!(routes(vec![]), None);
    assert_eq!(routes(vec![opaque(vec![rule.clone()])]), None);
    let twice = vec![opaque(vec![rule.clone()]), opaque(vec![rule.clone()])];
    assert_eq!(routes(twice).as_deref(), Some("protocol.opaque.routes"));
    assert_eq!(routes(vec![opaque(vec![])]).as_deref(), Some("protocol.opaque.routes[0].rules"));
    let two_rules = vec![opaque(vec![rule.clone(), rule.clone()])];
    assert_eq!(routes(two_rules).as_deref(), Some("protocol.opaque.routes[0].rules"));
    let without = opaque_route::Rule { backends: None, ..rule.clone() };
    assert_eq!(routes(vec![opaque(vec![without])]).as_deref(), Some("protocol.opaque.routes[0].rules[0].backends"));
    let kindless = opaque_route::Rule { filters: vec![opaque_route::Filter { kind: None }], ..rule };
    let field = routes(vec![opaque(vec![kindless])]);
    assert_eq!(field.as_deref(), Some("protocol.opaque.routes[0].rules[0].filters[0].kind"));

    let tls = |snis, rules| {
        let routes = vec![proto::TlsRoute { metadata: service(), snis, rules }];
        refused(protocol::Kind::Tls(protocol::Tls { routes }))
    };
    assert_eq!(tls(vec![], vec![]).as_deref(), Some("protocol.tls.routes[0].rules"));
    let without = tls_route::Rule { backends: None, filters: vec![] };
    assert_eq!(tls(vec![], vec![without.clone()]).as_deref(), Some("protocol.tls.routes[0].rules[0].backends"));
    let sni = vec![sni::SniMatch { r#match: None }];
    assert_eq!(tls(sni, vec![without]).as_deref(), Some("protocol.tls.routes[0].snis[0].match"));
}

#[test]
fn grpc_routes() {
    let rule = grpc_route::Rule {
        matches: vec![grpc_matches::GrpcRouteMatch { rpc: None, headers: vec![] }],
        backends: Some(grpc_route::Distribution {
            kind: Some(grpc_route::distribution::Kind::Empty(Default::default())),
        }),
        retry: Some(grpc_route::Retry { conditions: Some(Default::default()), ..Default::default() }),
        ..Default::default()
    };
    let refused = |rule: grpc_route::Rule| {
        let routes = vec![proto::GrpcRoute { metadata: service(), hosts: vec![], rules: vec![rule] }];
        let field = decode_routes(protocol::Kind::Grpc(protocol::Grpc { routes, failure_accrual: None }));
        field.err().map(|invalid| invalid.field)
    };
    assert_eq!(refused(rule.clone()), None, "without service and method every call matches");
    let mut without = rule.clone();
    on(&mut without.retry).conditions = None;
    assert_eq!(refused(without).as_deref(), Some("protocol.grpc.routes[0].rules[0].retry.conditions"));
    let mut failing = rule;
    let code = grpc_matches::GrpcFailureInjector { code: 65536, message: String::new(), ratio: None };
    failing.filters = vec![grpc_route::Filter { kind: Some(grpc_route::filter::Kind::FailureInjector(code)) }];
    assert_eq!(refused(failing).as_deref(), Some("protocol.grpc.routes[0].rules[0].filters[0].failure_injector.code"));
}

/// What has no words is an error on this side, not a message that says something else.
#[test]
fn the_unspeakable_is_not_sent() {
    use weft_model::policy::{
        outbound::{Distribution, HttpRoutes, TcpRoute},
        route::Filter,
    };
    let sent = policy::decode(http()).unwrap();
    let mut forbidden = sent.clone();
    let ClientProtocol::Http1(HttpRoutes { routes, .. }) = &mut forbidden.protocol else { panic!("no HTTP") };
    routes[0].rules[0].filters = vec![Filter::Forbidden];
    let refused = policy::encode(&forbidden).unwrap_err();
    assert_eq!(refused.field, "protocol.http1.routes[0].rules[0].filters[0]");

    let meta = weft_model::Meta::Resource(Default::default());
    let route = TcpRoute { meta, backends: Distribution::Empty, filters: vec![] };
    let nameless = ClientPolicy { protocol: ClientProtocol::Opaque(Some(route)), ..sent };
    assert_eq!(policy::encode(&nameless).unwrap_err().field, "protocol.opaque.routes[0].metadata");
}
