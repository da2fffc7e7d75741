//! One port's policy.

use super::authorization;
use crate::{
    error::{Invalid, Within, each, here, optional, require, required},
    filter, meta, route, time,
};
use linkerd2_proxy_api::inbound as proto;
use weft_model::{
    Meta, ServerPolicy,
    policy::{
        inbound::{Authorization, InboundRule, RateLimit, ServerProtocol},
        route::{GrpcRoute, HttpRoute, Rule},
    },
};

/// Conversions of one kind of route; both differ in their matches and filters only.
macro_rules! routes {
    ($decode:ident, $encode:ident, $message:ident, $module:ident, $model:ident,
     $decode_match:path, $encode_match:path, $decode_filter:path, $encode_filter:path) => {
        fn $decode(route: proto::$message) -> Result<$model<InboundRule>, Invalid> {
            let proto::$message { metadata, hosts, authorizations, rules } = route;
            let does = InboundRule { authorizations: authorization::decode_list(authorizations)? };
            Ok($model {
                meta: required("metadata", metadata, meta::decode)?,
                hosts: each("hosts", hosts, route::decode_host)?,
                rules: each("rules", rules, |proto::$module::Rule { matches, filters }| {
                    Ok(Rule {
                        matches: each("matches", matches, $decode_match)?,
                        filters: each("filters", filters, $decode_filter)?,
                        does: does.clone(),
                    })
                })?,
            })
        }

        fn $encode(route: &$model<InboundRule>) -> Result<proto::$message, Invalid> {
            let $model { meta, hosts, rules } = route;
            Ok(proto::$message {
                metadata: Some(meta::encode(meta)),
                hosts: hosts.iter().map(route::encode_host).collect(),
                authorizations: authorization::encode_list(shared_authorizations(rules)?)?,
                rules: each("rules", rules, |Rule { matches, filters, does: _ }| {
                    Ok(proto::$module::Rule {
                        matches: each("matches", matches, $encode_match)?,
                        filters: each("filters", filters, $encode_filter)?,
                    })
                })?,
            })
        }
    };
}

routes!(
    decode_http_route,
    encode_http_route,
    HttpRoute,
    http_route,
    HttpRoute,
    route::decode_http,
    route::encode_http,
    filter::decode_inbound_http,
    filter::encode_inbound_http
);

routes!(
    decode_grpc_route,
    encode_grpc_route,
    GrpcRoute,
    grpc_route,
    GrpcRoute,
    route::decode_grpc,
    route::encode_grpc,
    filter::decode_inbound_grpc,
    filter::encode_inbound_grpc
);

pub(crate) fn decode(server: proto::Server) -> Result<ServerPolicy, Invalid> {
    let proto::Server { protocol, server_ips: _, authorizations, labels } = server;
    Ok(ServerPolicy {
        meta: authorization::decode_labels(labels, "server")?,
        protocol: required("protocol", protocol, decode_protocol)?,
        authorizations: authorization::decode_list(authorizations)?,
    })
}

pub(crate) fn encode(policy: &ServerPolicy) -> Result<proto::Server, Invalid> {
    let ServerPolicy { meta, protocol, authorizations } = policy;
    Ok(proto::Server {
        protocol: Some(proto::ProxyProtocol { kind: Some(encode_protocol(protocol).within("protocol")?) }),
        server_ips: vec![],
        authorizations: authorization::encode_list(authorizations)?,
        labels: authorization::encode_labels(meta),
    })
}

fn decode_protocol(protocol: proto::ProxyProtocol) -> Result<ServerProtocol, Invalid> {
    use proto::proxy_protocol::{Detect, Grpc, Http1, Http2, Kind};
    Ok(match require("kind", protocol.kind)? {
        Kind::Detect(Detect { timeout, http_routes, http_local_rate_limit }) => ServerProtocol::Detect {
            timeout: time::decode_required("timeout", timeout).within("detect")?,
            routes: decode_http_routes("detect.http_routes", http_routes)?,
            rate_limit: optional("detect.http_local_rate_limit", http_local_rate_limit, decode_rate_limit)?,
        },
        Kind::Http1(Http1 { routes, local_rate_limit }) => ServerProtocol::Http1 {
            routes: decode_http_routes("http1.routes", routes)?,
            rate_limit: optional("http1.local_rate_limit", local_rate_limit, decode_rate_limit)?,
        },
        Kind::Http2(Http2 { routes, local_rate_limit }) => ServerProtocol::Http2 {
            routes: decode_http_routes("http2.routes", routes)?,
            rate_limit: optional("http2.local_rate_limit", local_rate_limit, decode_rate_limit)?,
        },
        Kind::Grpc(Grpc { routes }) => {
            let mut routes: Vec<_> = each("grpc.routes", routes, decode_grpc_route)?;
            if routes.is_empty() {
                routes.push(GrpcRoute { meta: implied_route(), hosts: vec![], rules: vec![implied_rule()] });
            }
            ServerProtocol::Grpc { routes }
        }
        Kind::Opaque(_) => ServerProtocol::Opaque,
        Kind::Tls(_) => ServerProtocol::Tls,
    })
}

/// A port without routes has one for every request (data plane 3.11).
fn decode_http_routes(field: &str, routes: Vec<proto::HttpRoute>) -> Result<Vec<HttpRoute<InboundRule>>, Invalid> {
    let mut routes: Vec<_> = each(field, routes, decode_http_route)?;
    if routes.is_empty() {
        routes.push(HttpRoute { meta: implied_route(), hosts: vec![], rules: vec![implied_rule()] });
    }
    Ok(routes)
}

fn implied_route() -> Meta {
    Meta::default_named("default")
}

fn implied_rule<M>() -> Rule<M, InboundRule> {
    Rule { matches: vec![], filters: vec![], does: InboundRule::default() }
}

fn encode_protocol(protocol: &ServerProtocol) -> Result<proto::proxy_protocol::Kind, Invalid> {
    use proto::proxy_protocol::{Detect, Grpc, Http1, Http2, Kind, Opaque, Tls};
    Ok(match protocol {
        ServerProtocol::Detect { timeout, routes, rate_limit } => Kind::Detect(Detect {
            timeout: Some(time::encode(*timeout).within("detect.timeout")?),
            http_routes: each("detect.http_routes", routes, encode_http_route)?,
            http_local_rate_limit: rate_limit.as_ref().map(encode_rate_limit),
        }),
        ServerProtocol::Http1 { routes, rate_limit } => Kind::Http1(Http1 {
            routes: each("http1.routes", routes, encode_http_route)?,
            local_rate_limit: rate_limit.as_ref().map(encode_rate_limit),
        }),
        ServerProtocol::Http2 { routes, rate_limit } => Kind::Http2(Http2 {
            routes: each("http2.routes", routes, encode_http_route)?,
            local_rate_limit: rate_limit.as_ref().map(encode_rate_limit),
        }),
        ServerProtocol::Grpc { routes } => Kind::Grpc(Grpc { routes: each("grpc.routes", routes, encode_grpc_route)? }),
        ServerProtocol::Opaque => Kind::Opaque(Opaque {}),
        ServerProtocol::Tls => Kind::Tls(Tls {}),
    })
}

/// On the wire a route's rules have their authorizations together.
fn shared_authorizations<M>(rules: &[Rule<M, InboundRule>]) -> Result<&[Authorization], Invalid> {
    let Some((first, others)) = rules.split_first() else { return Ok(&[]) };
    if others.iter().any(|rule| rule.does != first.does) {
        return Err(here("the rules of one route have the same authorizations"));
    }
    Ok(&first.does.authorizations)
}

fn decode_rate_limit(limit: proto::HttpLocalRateLimit) -> Result<RateLimit, Invalid> {
    use proto::http_local_rate_limit::{Override, r#override::ClientIdentities};
    let proto::HttpLocalRateLimit { metadata, total, identity, overrides } = limit;
    Ok(RateLimit {
        meta: required("metadata", metadata, meta::decode)?,
        total: optional("total", total, decode_limit)?,
        identity: optional("identity", identity, decode_limit)?,
        overrides: each("overrides", overrides, |Override { limit, clients }| {
            let ClientIdentities { identities } = require("clients", clients)?;
            Ok((
                required("limit", limit, decode_limit)?,
                authorization::decode_identities(identities).within("clients")?,
            ))
        })?,
    })
}

fn decode_limit(limit: proto::http_local_rate_limit::Limit) -> Result<u32, Invalid> {
    match limit.requests_per_second {
        0 => Err(Invalid::new("requests_per_second", "is above 0")),
        limit => Ok(limit),
    }
}

fn encode_rate_limit(limit: &RateLimit) -> proto::HttpLocalRateLimit {
    use proto::http_local_rate_limit::{Limit, Override, r#override::ClientIdentities};
    let RateLimit { meta, total, identity, overrides } = limit;
    let limit = |requests_per_second| Limit { requests_per_second };
    proto::HttpLocalRateLimit {
        metadata: Some(meta::encode(meta)),
        total: total.map(limit),
        identity: identity.map(limit),
        overrides: overrides
            .iter()
            .map(|(requests_per_second, identities)| Override {
                limit: Some(limit(*requests_per_second)),
                clients: Some(ClientIdentities { identities: authorization::encode_identities(identities) }),
            })
            .collect(),
    }
}
