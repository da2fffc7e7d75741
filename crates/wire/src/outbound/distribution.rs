//! How the requests of a rule spread over backends. Each kind of route has its own copy of the same message.

use super::backend;
use crate::{
    error::{Invalid, each, require, required},
    extension, filter,
};
use linkerd2_proxy_api::outbound as proto;
use weft_model::policy::outbound::{Distribution, RouteBackend};

/// Conversions of the messages in one module; `$rest` fills in the fields that only some of them have.
macro_rules! distribution {
    ($decode:ident, $encode:ident, $module:ident, $decode_filter:path, $encode_filter:path $(, $rest:ident)?) => {
        pub(super) fn $decode(distribution: proto::$module::Distribution) -> Result<Distribution, Invalid> {
            use proto::$module::{self as m, distribution as d};
            let one = |route: m::RouteBackend| {
                let m::RouteBackend { backend: to, filters, .. } = route;
                Ok(RouteBackend {
                    backend: required("backend", to, backend::decode)?,
                    filters: each("filters", filters, $decode_filter)?,
                })
            };
            match require("kind", distribution.kind)? {
                d::Kind::Empty(_) => Ok(Distribution::Empty),
                d::Kind::FirstAvailable(d::FirstAvailable { backends }) => {
                    let backends: Vec<_> = each("first_available.backends", backends, one)?;
                    if backends.is_empty() {
                        return Err(Invalid::missing("first_available.backends"));
                    }
                    Ok(Distribution::FirstAvailable(backends))
                }
                d::Kind::RandomAvailable(d::RandomAvailable { backends }) => {
                    let field = "random_available.backends";
                    let backends: Vec<_> = each(field, backends, |m::WeightedRouteBackend { backend, weight }| {
                        Ok((required("backend", backend, one)?, weight))
                    })?;
                    check_weights(field, backends.iter().map(|(_, weight)| *weight))?;
                    Ok(Distribution::RandomAvailable(backends))
                }
            }
        }

        pub(super) fn $encode(distribution: &Distribution) -> Result<proto::$module::Distribution, Invalid> {
            use proto::$module::{self as m, distribution as d};
            let one = |RouteBackend { backend: to, filters }: &RouteBackend| {
                Ok(m::RouteBackend {
                    backend: Some(backend::encode(to)?),
                    filters: each("filters", extension::standing_in(filters).iter(), $encode_filter)?,
                    $(..$rest::default())?
                })
            };
            let kind = match distribution {
                Distribution::Empty => d::Kind::Empty(d::Empty {}),
                Distribution::FirstAvailable(backends) => d::Kind::FirstAvailable(d::FirstAvailable {
                    backends: each("first_available.backends", backends, one)?,
                }),
                Distribution::RandomAvailable(backends) => d::Kind::RandomAvailable(d::RandomAvailable {
                    backends: each("random_available.backends", backends, |(backend, weight)| {
                        Ok(m::WeightedRouteBackend { backend: Some(one(backend)?), weight: *weight })
                    })?,
                }),
            };
            Ok(m::Distribution { kind: Some(kind) })
        }
    };
}

distribution!(
    decode_http,
    encode_http,
    http_route,
    filter::decode_outbound_http,
    filter::encode_outbound_http,
    Default
);
distribution!(
    decode_grpc,
    encode_grpc,
    grpc_route,
    filter::decode_outbound_grpc,
    filter::encode_outbound_grpc,
    Default
);
distribution!(decode_opaque, encode_opaque, opaque_route, filter::decode_opaque, filter::encode_opaque);
distribution!(decode_tls, encode_tls, tls_route, filter::decode_tls, filter::encode_tls);

/// Something must be able to be chosen, and the sum must not overflow.
fn check_weights(field: &str, weights: impl ExactSizeIterator<Item = u32>) -> Result<(), Invalid> {
    if weights.len() == 0 {
        return Err(Invalid::missing(field));
    }
    match weights.map(u64::from).sum::<u64>() {
        0 => Err(Invalid::new(field, "all weights are 0")),
        sum if sum > u64::from(u32::MAX) => Err(Invalid::new(field, "the weights add up to more than 4294967295")),
        _ => Ok(()),
    }
}
