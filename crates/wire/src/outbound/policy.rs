//! One target's policy and its routes.

use super::{breaker, distribution, rule};
use crate::{
    error::{Invalid, Within, each, here, optional, require, required},
    extension, filter, meta, route, time,
};
use linkerd2_proxy_api::outbound as proto;
use proto::proxy_protocol as kind;
use weft_model::{
    ClientPolicy,
    policy::{
        outbound::{ClientProtocol, HttpRoutes, OutboundRule, TcpRoute, TlsRoute},
        route::{GrpcRoute, HttpRoute, Rule},
    },
};

pub(crate) fn decode(policy: proto::OutboundPolicy) -> Result<ClientPolicy, Invalid> {
    let proto::OutboundPolicy { protocol, metadata } = policy;
    Ok(ClientPolicy {
        meta: required("metadata", metadata, meta::decode_complete)?,
        protocol: required("protocol", protocol, decode_protocol)?,
    })
}

pub(crate) fn encode(policy: &ClientPolicy) -> Result<proto::OutboundPolicy, Invalid> {
    let ClientPolicy { meta, protocol } = policy;
    Ok(proto::OutboundPolicy {
        protocol: Some(proto::ProxyProtocol { kind: Some(encode_protocol(protocol).within("protocol")?) }),
        metadata: Some(meta::encode_complete(meta).within("metadata")?),
    })
}

fn decode_protocol(protocol: proto::ProxyProtocol) -> Result<ClientProtocol, Invalid> {
    Ok(match require("kind", protocol.kind)? {
        kind::Kind::Detect(detect) => decode_detect(detect).within("detect")?,
        kind::Kind::Opaque(opaque) => ClientProtocol::Opaque(decode_opaque(opaque).within("opaque")?),
        kind::Kind::Http1(kind::Http1 { routes, failure_accrual }) => {
            ClientProtocol::Http1(decode_http(routes, failure_accrual).within("http1")?)
        }
        kind::Kind::Http2(kind::Http2 { routes, failure_accrual }) => {
            ClientProtocol::Http2(decode_http(routes, failure_accrual).within("http2")?)
        }
        kind::Kind::Grpc(kind::Grpc { routes, failure_accrual }) => ClientProtocol::Grpc {
            routes: each("grpc.routes", routes, decode_grpc_route)?,
            breaker: optional("grpc.failure_accrual", failure_accrual, breaker::decode)?,
        },
        kind::Kind::Tls(kind::Tls { routes }) => ClientProtocol::Tls(each("tls.routes", routes, decode_tls_route)?),
    })
}

fn decode_detect(detect: kind::Detect) -> Result<ClientProtocol, Invalid> {
    let kind::Detect { timeout, opaque, http1, http2 } = detect;
    Ok(ClientProtocol::Detect {
        timeout: time::decode_required("timeout", timeout)?,
        opaque: required("opaque", opaque, decode_opaque)?,
        http1: required("http1", http1, |kind::Http1 { routes, failure_accrual }| {
            decode_http(routes, failure_accrual)
        })?,
        http2: required("http2", http2, |kind::Http2 { routes, failure_accrual }| {
            decode_http(routes, failure_accrual)
        })?,
    })
}

fn encode_protocol(protocol: &ClientProtocol) -> Result<kind::Kind, Invalid> {
    Ok(match protocol {
        ClientProtocol::Detect { timeout, http1, http2, opaque } => kind::Kind::Detect(kind::Detect {
            timeout: Some(time::encode(*timeout).within("detect.timeout")?),
            opaque: Some(encode_opaque(opaque.as_ref()).within("detect.opaque")?),
            http1: Some(encode_http1(http1).within("detect.http1")?),
            http2: Some(encode_http2(http2).within("detect.http2")?),
        }),
        ClientProtocol::Http1(routes) => kind::Kind::Http1(encode_http1(routes).within("http1")?),
        ClientProtocol::Http2(routes) => kind::Kind::Http2(encode_http2(routes).within("http2")?),
        ClientProtocol::Grpc { routes, breaker } => kind::Kind::Grpc(kind::Grpc {
            routes: each("grpc.routes", routes, encode_grpc_route)?,
            failure_accrual: optional("grpc.failure_accrual", breaker.as_ref(), breaker::encode)?,
        }),
        ClientProtocol::Opaque(route) => kind::Kind::Opaque(encode_opaque(route.as_ref()).within("opaque")?),
        ClientProtocol::Tls(routes) => {
            kind::Kind::Tls(kind::Tls { routes: each("tls.routes", routes, encode_tls_route)? })
        }
    })
}

fn decode_http(
    routes: Vec<proto::HttpRoute>,
    failure_accrual: Option<proto::FailureAccrual>,
) -> Result<HttpRoutes, Invalid> {
    Ok(HttpRoutes {
        routes: each("routes", routes, decode_http_route)?,
        breaker: optional("failure_accrual", failure_accrual, breaker::decode)?,
    })
}

fn encode_http1(HttpRoutes { routes, breaker }: &HttpRoutes) -> Result<kind::Http1, Invalid> {
    Ok(kind::Http1 {
        routes: each("routes", routes, encode_http_route)?,
        failure_accrual: optional("failure_accrual", breaker.as_ref(), breaker::encode)?,
    })
}

fn encode_http2(HttpRoutes { routes, breaker }: &HttpRoutes) -> Result<kind::Http2, Invalid> {
    Ok(kind::Http2 {
        routes: each("routes", routes, encode_http_route)?,
        failure_accrual: optional("failure_accrual", breaker.as_ref(), breaker::encode)?,
    })
}

/// Conversions of one kind of route; both differ in their matches, filters and conditions of retries.
macro_rules! routes {
    ($decode:ident, $encode:ident, $message:ident, $module:ident,
     matches: $decode_match:path, $encode_match:path, filters: $decode_filter:path, $encode_filter:path,
     backends: $decode_backends:path, $encode_backends:path, retry: $decode_retry:path, $encode_retry:path) => {
        fn $decode(route: proto::$message) -> Result<$message<OutboundRule>, Invalid> {
            let proto::$message { metadata, hosts, rules } = route;
            Ok($message {
                meta: required("metadata", metadata, meta::decode_complete)?,
                hosts: each("hosts", hosts, route::decode_host)?,
                rules: each("rules", rules, |rule| {
                    #[expect(deprecated, reason = "what an older control plane sends instead of timeouts")]
                    let proto::$module::Rule {
                        matches,
                        filters,
                        backends,
                        request_timeout,
                        timeouts,
                        retry,
                        allow_l5d_request_headers,
                    } = rule;
                    Ok(Rule {
                        matches: each("matches", matches, $decode_match)?,
                        filters: each("filters", filters, $decode_filter)?,
                        does: OutboundRule {
                            backends: required("backends", backends, $decode_backends)?,
                            timeouts: rule::decode_timeouts(timeouts, request_timeout)?,
                            retry: optional("retry", retry, $decode_retry)?,
                            allow_l5d_headers: allow_l5d_request_headers,
                        },
                    })
                })?,
            })
        }

        fn $encode(route: &$message<OutboundRule>) -> Result<proto::$message, Invalid> {
            let $message { meta, hosts, rules } = route;
            Ok(proto::$message {
                metadata: Some(meta::encode_complete(meta).within("metadata")?),
                hosts: hosts.iter().map(route::encode_host).collect(),
                rules: each("rules", rules, |Rule { matches, filters, does }| {
                    let OutboundRule { backends, timeouts, retry, allow_l5d_headers } = does;
                    Ok(proto::$module::Rule {
                        matches: each("matches", matches, $encode_match)?,
                        filters: each("filters", extension::standing_in(filters).iter(), $encode_filter)?,
                        backends: Some($encode_backends(backends).within("backends")?),
                        timeouts: rule::encode_timeouts(timeouts)?,
                        retry: optional("retry", retry.as_ref(), $encode_retry)?,
                        allow_l5d_request_headers: *allow_l5d_headers,
                        // The deprecated request timeout.
                        ..Default::default()
                    })
                })?,
            })
        }
    };
}

routes!(decode_http_route, encode_http_route, HttpRoute, http_route,
    matches: route::decode_http, route::encode_http,
    filters: filter::decode_outbound_http, filter::encode_outbound_http,
    backends: distribution::decode_http, distribution::encode_http,
    retry: rule::decode_http_retry, rule::encode_http_retry);

routes!(decode_grpc_route, encode_grpc_route, GrpcRoute, grpc_route,
    matches: route::decode_grpc, route::encode_grpc,
    filters: filter::decode_outbound_grpc, filter::encode_outbound_grpc,
    backends: distribution::decode_grpc, distribution::encode_grpc,
    retry: rule::decode_grpc_retry, rule::encode_grpc_retry);

/// At most one route, with exactly one rule (data plane 4.13).
fn decode_opaque(kind::Opaque { routes }: kind::Opaque) -> Result<Option<TcpRoute>, Invalid> {
    if routes.len() > 1 {
        return Err(Invalid::new("routes", "there is at most one opaque route"));
    }
    let routes: Vec<_> = each("routes", routes, |proto::OpaqueRoute { metadata, rules }| {
        let proto::opaque_route::Rule { backends, filters } = only("rules", rules)?;
        Ok(TcpRoute {
            meta: required("metadata", metadata, meta::decode_complete)?,
            backends: required("backends", backends, distribution::decode_opaque).within("rules[0]")?,
            filters: each("filters", filters, filter::decode_opaque).within("rules[0]")?,
        })
    })?;
    Ok(routes.into_iter().next())
}

fn encode_opaque(route: Option<&TcpRoute>) -> Result<kind::Opaque, Invalid> {
    let routes = each("routes", route, |TcpRoute { meta, backends, filters }| {
        let rule = proto::opaque_route::Rule {
            backends: Some(distribution::encode_opaque(backends).within("rules[0].backends")?),
            filters: each("rules[0].filters", filters, filter::encode_opaque)?,
        };
        let metadata = Some(meta::encode_complete(meta).within("metadata")?);
        Ok(proto::OpaqueRoute { metadata, rules: vec![rule] })
    })?;
    Ok(kind::Opaque { routes })
}

fn decode_tls_route(route: proto::TlsRoute) -> Result<TlsRoute, Invalid> {
    let proto::TlsRoute { metadata, snis, rules } = route;
    let proto::tls_route::Rule { backends, filters } = only("rules", rules)?;
    Ok(TlsRoute {
        snis: each("snis", snis, route::decode_sni)?,
        route: TcpRoute {
            meta: required("metadata", metadata, meta::decode_complete)?,
            backends: required("backends", backends, distribution::decode_tls).within("rules[0]")?,
            filters: each("filters", filters, filter::decode_tls).within("rules[0]")?,
        },
    })
}

fn encode_tls_route(route: &TlsRoute) -> Result<proto::TlsRoute, Invalid> {
    let TlsRoute { snis, route: TcpRoute { meta, backends, filters } } = route;
    let rule = proto::tls_route::Rule {
        backends: Some(distribution::encode_tls(backends).within("rules[0].backends")?),
        filters: each("rules[0].filters", filters, filter::encode_tls)?,
    };
    Ok(proto::TlsRoute {
        metadata: Some(meta::encode_complete(meta).within("metadata")?),
        snis: snis.iter().map(route::encode_sni).collect(),
        rules: vec![rule],
    })
}

/// The one element of a list.
fn only<T>(field: &str, list: Vec<T>) -> Result<T, Invalid> {
    let [one] = <[T; 1]>::try_from(list)
        .map_err(|list| here(format_args!("there is exactly one, not {}", list.len())))
        .within(field)?;
    Ok(one)
}
