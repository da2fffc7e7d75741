//! Any endpoint, match, filter or profile that the protocol has words for.

use proptest::{collection::btree_map, collection::vec, option, prelude::*, sample::select};
use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::{Duration, SystemTime},
};
use weft_model::{
    DnsName, Endpoint, EndpointUpdate, Identity, Meta, NameAddr, Profile, ProtocolHint,
    decide::cidr::Cidr,
    duration::LONGEST,
    endpoint::{Http2KeepAlive, Http2Params, ServerTls},
    meta::Resource,
    policy::route::{
        Filter, GrpcMatch, HeaderEdits, HeaderMatch, HostMatch, HttpMatch, Mirror, PathMatch, PathReplacement, Pattern,
        QueryMatch, Ratio, Redirect, Rewrite, ValueMatch,
    },
    profile::{ProfileRoute, RequestMatch, ResponseClass, ResponseMatch, RetryBudget, WeightedTarget},
};

pub(super) fn dns_name() -> impl Strategy<Value = DnsName> {
    "[a-z][a-z0-9_-]{0,8}(\\.[a-z0-9]{1,8}){0,4}".prop_map(|name| name.parse().unwrap())
}

pub(super) fn name_addr() -> impl Strategy<Value = NameAddr> {
    (dns_name(), 1_u16..).prop_map(|(name, port)| NameAddr { name, port })
}

pub(super) fn identity() -> impl Strategy<Value = Identity> {
    prop_oneof![
        dns_name().prop_map(Identity::Dns),
        "spiffe://[a-z]{1,8}\\.[a-z]{2}(/[a-z0-9]{1,4}){0,3}".prop_map(|uri| uri.parse().unwrap()),
    ]
}

pub(super) fn duration() -> impl Strategy<Value = Duration> {
    (0..LONGEST.as_secs(), 0_u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos))
}

pub(super) fn time() -> impl Strategy<Value = SystemTime> {
    (0_u64..1 << 33, 0_u32..1_000_000_000).prop_map(|(s, n)| SystemTime::UNIX_EPOCH + Duration::new(s, n))
}

pub(super) fn cidr() -> impl Strategy<Value = Cidr> {
    (any::<IpAddr>(), 0_u8..=128).prop_filter_map("too long for the family", |(ip, len)| Cidr::new(ip, len))
}

/// A reference with every part, as the outbound side needs.
pub(super) fn meta() -> impl Strategy<Value = Meta> {
    let text = "[a-z.]{1,8}";
    prop_oneof![
        ".{0,8}".prop_map(Meta::Default),
        (text, text, text, text, ".{0,8}", any::<u16>()).prop_map(|(group, kind, namespace, name, section, port)| {
            Meta::Resource(Resource { group, kind, namespace, name, section, port })
        }),
    ]
}

pub(super) fn addr() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), 1_u16..).prop_map(SocketAddr::from)
}

prop_compose! {
    pub(super) fn endpoint()(
        addr in addr(),
        weight: u32,
        tls in option::of((identity(), dns_name())),
        hint in select(vec![ProtocolHint::Unknown, ProtocolHint::H2, ProtocolHint::Opaque]),
        transport_port in option::of(1_u16..u16::MAX),
        authority_override in option::of("[a-z]{1,8}(:[1-9][0-9]{0,3})?"),
        labels in btree_map("[a-z]{1,3}", ".{0,4}", 0..4),
        http2 in http2_params(),
    ) -> Endpoint {
        let tls = tls.map(|(identity, server_name)| ServerTls { identity, server_name });
        Endpoint { addr, weight, tls, hint, transport_port, authority_override, labels, http2 }
    }
}

prop_compose! {
    fn http2_params()(
        connection_window in option::of(1..=i32::MAX as u32),
        stream_window in option::of(1..=i32::MAX as u32),
        adaptive_window: bool,
        keep_alive in option::of((duration(), duration(), any::<bool>())),
        max_concurrent_reset_streams in option::of(1_u32..),
        max_frame_size in option::of(16_384_u32..=16_777_215),
        max_send_buf_size in option::of(1_u32..),
    ) -> Http2Params {
        let keep_alive = keep_alive
            .map(|(interval, timeout, while_idle)| Http2KeepAlive { interval, timeout, while_idle });
        Http2Params {
            connection_window,
            stream_window,
            adaptive_window,
            keep_alive,
            max_concurrent_reset_streams,
            max_frame_size,
            max_send_buf_size,
        }
    }
}

pub(super) fn update() -> impl Strategy<Value = EndpointUpdate> {
    prop_oneof![
        vec(endpoint(), 0..5).prop_map(EndpointUpdate::Add),
        vec(addr(), 0..5).prop_map(EndpointUpdate::Remove),
        any::<bool>().prop_map(|exists| EndpointUpdate::NoEndpoints { exists }),
    ]
}

pub(super) fn host() -> impl Strategy<Value = HostMatch> {
    prop_oneof![
        dns_name().prop_map(|name| HostMatch::Exact(name.to_string())),
        vec("[a-z0-9]{1,5}", 0..4).prop_map(HostMatch::Suffix),
    ]
}

pub(super) fn pattern() -> impl Strategy<Value = Pattern> {
    "[a-z]{0,4}(\\.\\*|\\[0-9\\]\\+)?".prop_map(|regex| Pattern::new(&regex).unwrap())
}

fn method() -> impl Strategy<Value = String> {
    "GET|POST|PUT|DELETE|PATCH|OPTIONS|CONNECT|HEAD|TRACE|get|[A-Z]{1,8}"
}

fn header_name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,8}"
}

fn headers() -> impl Strategy<Value = Vec<HeaderMatch>> {
    let value = prop_oneof![vec(any::<u8>(), 0..8).prop_map(ValueMatch::Exact), pattern().prop_map(ValueMatch::Regex)];
    vec((header_name(), value).prop_map(|(name, value)| HeaderMatch { name, value }), 0..3)
}

pub(super) fn http_match() -> impl Strategy<Value = HttpMatch> {
    let path = prop_oneof![
        ".{0,8}".prop_map(PathMatch::Exact),
        ".{0,8}".prop_map(PathMatch::Prefix),
        pattern().prop_map(PathMatch::Regex),
    ];
    let value = prop_oneof![
        ".{0,8}".prop_map(|text| ValueMatch::Exact(text.into_bytes())),
        pattern().prop_map(ValueMatch::Regex),
    ];
    let query = vec((".{1,4}", value).prop_map(|(name, value)| QueryMatch { name, value }), 0..3);
    (option::of(path), headers(), query, option::of(method())).prop_map(|(path, headers, query, method)| HttpMatch {
        path,
        headers,
        query,
        method,
    })
}

pub(super) fn grpc_match() -> impl Strategy<Value = GrpcMatch> {
    (".{0,8}", ".{0,8}", headers()).prop_map(|(service, method, headers)| GrpcMatch { service, method, headers })
}

fn edits() -> impl Strategy<Value = HeaderEdits> {
    let pairs = || vec((header_name(), "[ -~]{0,8}".prop_map(String::into_bytes)), 0..3);
    (pairs(), pairs(), vec(header_name(), 0..3)).prop_map(|(add, set, remove)| HeaderEdits { add, set, remove })
}

fn ratio() -> impl Strategy<Value = Ratio> {
    (any::<u32>(), 1_u32..).prop_map(|(numerator, denominator)| Ratio { numerator, denominator })
}

fn http_failure() -> impl Strategy<Value = Filter> {
    (100_u16..=599, ".{0,8}", ratio()).prop_map(|(status, message, ratio)| Filter::HttpFailure {
        status,
        message,
        ratio,
    })
}

fn redirect() -> impl Strategy<Value = Filter> {
    let path = prop_oneof![".{0,8}".prop_map(PathReplacement::Full), ".{0,8}".prop_map(PathReplacement::Prefix)];
    (
        option::of("http|https|ws"),
        option::of("[a-z.]{1,8}"),
        option::of(path),
        option::of(1_u16..),
        option::of(300_u16..400),
    )
        .prop_map(|(scheme, host, path, port, status)| Filter::Redirect(Redirect { scheme, host, path, port, status }))
}

pub(super) fn rewrite() -> impl Strategy<Value = Filter> {
    let path = prop_oneof!["/.{0,8}".prop_map(PathReplacement::Full), ".{0,8}".prop_map(PathReplacement::Prefix)];
    (option::of("[a-z.]{1,8}"), option::of(path)).prop_map(|(host, path)| Filter::Rewrite(Rewrite { host, path }))
}

pub(super) fn mirror() -> impl Strategy<Value = Filter> {
    ("[a-z]{1,4}", "[a-z]{1,4}", name_addr(), ratio()).prop_map(|(namespace, name, target, share)| {
        let (group, kind) = ("core".to_owned(), "Service".to_owned());
        let section = String::new();
        let meta = Meta::Resource(Resource { group, kind, namespace, name, section, port: target.port });
        Filter::Mirror(Mirror { meta, target, share })
    })
}

pub(super) fn inbound_http_filter() -> impl Strategy<Value = Filter> {
    prop_oneof![edits().prop_map(Filter::RequestHeaders), redirect(), http_failure()]
}

pub(super) fn outbound_http_filter() -> impl Strategy<Value = Filter> {
    prop_oneof![inbound_http_filter(), edits().prop_map(Filter::ResponseHeaders)]
}

pub(super) fn grpc_filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        edits().prop_map(Filter::RequestHeaders),
        (any::<u16>(), ".{0,8}", ratio()).prop_map(|(code, message, ratio)| Filter::GrpcFailure {
            code,
            message,
            ratio
        }),
    ]
}

pub(super) fn opaque_filter() -> impl Strategy<Value = Filter> {
    prop_oneof![Just(Filter::Forbidden), ".{0,8}".prop_map(Filter::Invalid)]
}

fn status_range() -> impl Strategy<Value = RangeInclusive<u16>> {
    (100_u16..=599).prop_flat_map(|from| (Just(from), from..=599)).prop_map(|(from, to)| from..=to)
}

fn request_match() -> impl Strategy<Value = RequestMatch> {
    let leaf = prop_oneof![pattern().prop_map(RequestMatch::Path), method().prop_map(RequestMatch::Method)];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(RequestMatch::All),
            vec(inner.clone(), 0..3).prop_map(RequestMatch::Any),
            inner.prop_map(|m| RequestMatch::Not(Box::new(m))),
        ]
    })
}

fn response_match() -> impl Strategy<Value = ResponseMatch> {
    status_range().prop_map(ResponseMatch::Status).prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(ResponseMatch::All),
            vec(inner.clone(), 0..3).prop_map(ResponseMatch::Any),
            inner.prop_map(|m| ResponseMatch::Not(Box::new(m))),
        ]
    })
}

prop_compose! {
    fn profile_route()(
        matches in request_match(),
        response_classes in vec((response_match(), any::<bool>()), 0..3),
        labels in btree_map("[a-z]{1,3}", ".{0,4}", 0..3),
        retryable: bool,
        timeout in option::of(duration()),
    ) -> ProfileRoute {
        let class = |(matches, failure)| ResponseClass { matches, failure };
        let response_classes = response_classes.into_iter().map(class).collect();
        ProfileRoute { matches, response_classes, labels, retryable, timeout }
    }
}

prop_compose! {
    pub(super) fn profile()(
        name in option::of(dns_name()),
        opaque: bool,
        endpoint in option::of(endpoint()),
        routes in vec(profile_route(), 0..3),
        budget in option::of((0.0_f32..=1000.0, any::<u32>(), 1_000_u64..=60_000)),
        targets in vec((name_addr(), 1_u32..), 0..3),
        parent in option::of(meta()),
        origin in option::of(meta()),
    ) -> Profile {
        let retry_budget = budget.map(|(ratio, min_retries_per_second, ttl)| RetryBudget {
            ratio,
            min_retries_per_second,
            ttl: Duration::from_millis(ttl),
        });
        let targets = targets.into_iter().map(|(target, weight)| WeightedTarget { target, weight }).collect();
        Profile { name, opaque, endpoint, routes, retry_budget, targets, parent, origin }
    }
}
