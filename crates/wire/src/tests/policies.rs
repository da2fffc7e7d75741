//! Any policy that the protocol has words for.

use super::any::*;
use proptest::{collection::vec, option, prelude::*, sample::subsequence};
use std::time::Duration;
use weft_model::{
    ClientPolicy, Meta, ServerPolicy,
    meta::Resource,
    policy::{
        inbound::{
            Authentication, Authorization, IdentitySuffix, InboundRule, NetworkMatch, RateLimit, ServerProtocol,
        },
        outbound::{
            Backend, BackendKind, Backoff, Breaker, ClientProtocol, Distribution, HttpRoutes, Load, OutboundRule,
            Penalty, Queue, Retry, RetryOn, RouteBackend, TcpRoute, Timeouts, TlsRoute,
        },
        route::{Filter, GrpcRoute, HttpRoute, Rule},
    },
};

/// A server is named by labels, which hold less than metadata.
fn labelled() -> impl Strategy<Value = Meta> {
    prop_oneof![
        "[a-z-]{1,8}".prop_map(Meta::Default),
        ("[a-z.]{0,8}", "[a-z]{1,8}", "[a-z]{1,8}").prop_filter_map("kind of defaults", |(group, kind, name)| {
            (kind != "default").then(|| Meta::Resource(Resource { group, kind, name, ..Resource::default() }))
        }),
    ]
}

fn authorization() -> impl Strategy<Value = Authorization> {
    let network = (cidr(), vec(cidr(), 0..3)).prop_map(|(net, except)| NetworkMatch { net, except });
    let suffix = prop_oneof![Just(String::new()), dns_name().prop_map(|name| name.to_string())];
    let authentication = prop_oneof![
        Just(Authentication::Unauthenticated),
        Just(Authentication::TlsUnauthenticated),
        (vec(identity(), 0..3), vec(suffix.prop_map(IdentitySuffix), 0..3))
            .prop_map(|(identities, suffixes)| Authentication::TlsAuthenticated { identities, suffixes }),
    ];
    (meta(), vec(network, 1..3), authentication).prop_map(|(meta, networks, authentication)| Authorization {
        meta,
        networks,
        authentication,
    })
}

fn rate_limit() -> impl Strategy<Value = RateLimit> {
    (meta(), option::of(1_u32..), option::of(1_u32..), vec((1_u32.., vec(identity(), 0..3)), 0..3))
        .prop_map(|(meta, total, identity, overrides)| RateLimit { meta, total, identity, overrides })
}

/// The rules of one route, with the same authorizations.
fn inbound_rules<M: Clone + std::fmt::Debug + 'static>(
    m: impl Strategy<Value = M> + 'static,
    filter: impl Strategy<Value = Filter> + 'static,
) -> impl Strategy<Value = Vec<Rule<M, InboundRule>>> {
    (vec((vec(m, 0..3), vec(filter, 0..2)), 0..3), vec(authorization(), 0..2)).prop_map(|(rules, authorizations)| {
        let does = InboundRule { authorizations };
        rules.into_iter().map(|(matches, filters)| Rule { matches, filters, does: does.clone() }).collect()
    })
}

fn inbound_http() -> impl Strategy<Value = Vec<HttpRoute<InboundRule>>> {
    let rules = inbound_rules(http_match(), inbound_http_filter());
    vec((meta(), vec(host(), 0..2), rules).prop_map(|(meta, hosts, rules)| HttpRoute { meta, hosts, rules }), 1..3)
}

fn inbound_grpc() -> impl Strategy<Value = Vec<GrpcRoute<InboundRule>>> {
    let rules = inbound_rules(grpc_match(), grpc_filter());
    vec((meta(), vec(host(), 0..2), rules).prop_map(|(meta, hosts, rules)| GrpcRoute { meta, hosts, rules }), 1..3)
}

pub(super) fn server_policy() -> impl Strategy<Value = ServerPolicy> {
    let protocol = prop_oneof![
        (duration(), inbound_http(), option::of(rate_limit()))
            .prop_map(|(timeout, routes, rate_limit)| ServerProtocol::Detect { timeout, routes, rate_limit }),
        (inbound_http(), option::of(rate_limit()))
            .prop_map(|(routes, rate_limit)| ServerProtocol::Http1 { routes, rate_limit }),
        (inbound_http(), option::of(rate_limit()))
            .prop_map(|(routes, rate_limit)| ServerProtocol::Http2 { routes, rate_limit }),
        inbound_grpc().prop_map(|routes| ServerProtocol::Grpc { routes }),
        Just(ServerProtocol::Opaque),
        Just(ServerProtocol::Tls),
    ];
    (labelled(), protocol, vec(authorization(), 0..3)).prop_map(|(meta, protocol, authorizations)| ServerPolicy {
        meta,
        protocol,
        authorizations,
    })
}

fn backoff() -> impl Strategy<Value = Backoff> {
    (0_u64..1 << 30, 1_u64..1 << 30, 0.0_f32..=100.0).prop_map(|(min, more, jitter)| Backoff {
        min: Duration::from_millis(min),
        max: Duration::from_millis(min + more),
        jitter,
    })
}

fn breaker() -> impl Strategy<Value = Breaker> {
    prop_oneof![
        (any::<u32>(), backoff()).prop_map(|(max_failures, backoff)| Breaker::Consecutive { max_failures, backoff }),
        (0.0_f64..=1.0, 10_u64..1 << 30, 0_u32..=1_000_000, any::<u32>(), backoff(), any::<bool>()).prop_map(
            |(success_rate_threshold, window, min_requests, max_consecutive_failures, backoff, honor_retry_after)| {
                let window = Duration::from_millis(window);
                Breaker::Unified {
                    success_rate_threshold,
                    window,
                    min_requests,
                    max_consecutive_failures,
                    backoff,
                    honor_retry_after,
                }
            }
        ),
    ]
}

fn backend() -> impl Strategy<Value = Backend> {
    let penalty = (duration(), duration()).prop_map(|(rtt, max_retry_after)| Penalty { rtt, max_retry_after });
    let load = (duration(), duration(), option::of(penalty)).prop_map(|(default_rtt, decay, penalty)| Load {
        default_rtt,
        decay,
        penalty,
    });
    let kind = prop_oneof![
        endpoint().prop_map(BackendKind::Forward),
        (name_addr(), load).prop_map(|(target, load)| BackendKind::Balance { target, load }),
        Just(BackendKind::Missing),
    ];
    (meta(), kind, any::<u32>(), duration()).prop_map(|(meta, kind, capacity, failfast)| Backend {
        meta,
        kind,
        queue: Queue { capacity, failfast },
    })
}

fn distribution(filter: BoxedStrategy<Filter>) -> impl Strategy<Value = Distribution> {
    let one = (backend(), vec(filter, 0..2)).prop_map(|(backend, filters)| RouteBackend { backend, filters });
    let one = one.boxed();
    prop_oneof![
        Just(Distribution::Empty),
        vec(one.clone(), 1..3).prop_map(Distribution::FirstAvailable),
        (one.clone(), 1_u32..1000, vec((one, 0_u32..1000), 0..2)).prop_map(|(first, weight, mut others)| {
            others.push((first, weight));
            Distribution::RandomAvailable(others)
        }),
    ]
}

fn outbound_rules<M: Clone + std::fmt::Debug + 'static>(
    m: impl Strategy<Value = M> + 'static,
    filter: BoxedStrategy<Filter>,
    on: impl Strategy<Value = RetryOn> + 'static,
) -> impl Strategy<Value = Vec<Rule<M, OutboundRule>>> {
    let retry = (any::<u32>(), any::<u32>(), on, option::of(duration()), option::of(backoff())).prop_map(
        |(max_retries, max_request_bytes, on, timeout, backoff)| Retry {
            max_retries,
            max_request_bytes,
            on,
            timeout,
            backoff,
        },
    );
    let timeouts = (option::of(duration()), option::of(duration()), option::of(duration()))
        .prop_map(|(response, request, idle)| Timeouts { response, request, idle });
    let does = (distribution(filter.clone()), timeouts, option::of(retry), any::<bool>()).prop_map(
        |(backends, timeouts, retry, allow_l5d_headers)| OutboundRule { backends, timeouts, retry, allow_l5d_headers },
    );
    let rule =
        (vec(m, 0..3), vec(filter, 0..2), does).prop_map(|(matches, filters, does)| Rule { matches, filters, does });
    vec(rule, 0..3)
}

fn outbound_http() -> impl Strategy<Value = HttpRoutes> {
    let range = (1_u16..=599).prop_flat_map(|start| (Just(start), start..=599)).prop_map(|(start, end)| start..=end);
    let on = vec(range, 0..3).prop_map(RetryOn::Statuses);
    let rules = outbound_rules(http_match(), outbound_http_filter().boxed(), on);
    let route = (meta(), vec(host(), 0..2), rules).prop_map(|(meta, hosts, rules)| HttpRoute { meta, hosts, rules });
    (vec(route, 0..3), option::of(breaker())).prop_map(|(routes, breaker)| HttpRoutes { routes, breaker })
}

fn outbound_grpc() -> impl Strategy<Value = Vec<GrpcRoute<OutboundRule>>> {
    let on = subsequence(vec![1, 4, 8, 13, 14], 0..=5).prop_map(RetryOn::GrpcCodes);
    let rules = outbound_rules(grpc_match(), grpc_filter().boxed(), on);
    vec((meta(), vec(host(), 0..2), rules).prop_map(|(meta, hosts, rules)| GrpcRoute { meta, hosts, rules }), 0..3)
}

fn tcp_route() -> impl Strategy<Value = TcpRoute> {
    (meta(), distribution(opaque_filter().boxed()), vec(opaque_filter(), 0..2))
        .prop_map(|(meta, backends, filters)| TcpRoute { meta, backends, filters })
}

pub(super) fn client_policy() -> impl Strategy<Value = ClientPolicy> {
    let protocol = prop_oneof![
        (duration(), outbound_http(), outbound_http(), option::of(tcp_route()))
            .prop_map(|(timeout, http1, http2, opaque)| ClientProtocol::Detect { timeout, http1, http2, opaque }),
        outbound_http().prop_map(ClientProtocol::Http1),
        outbound_http().prop_map(ClientProtocol::Http2),
        (outbound_grpc(), option::of(breaker())).prop_map(|(routes, breaker)| ClientProtocol::Grpc { routes, breaker }),
        option::of(tcp_route()).prop_map(ClientProtocol::Opaque),
        vec((vec(host(), 0..2), tcp_route()).prop_map(|(snis, route)| TlsRoute { snis, route }), 0..3)
            .prop_map(ClientProtocol::Tls),
    ];
    (meta(), protocol).prop_map(|(meta, protocol)| ClientPolicy { meta, protocol })
}
