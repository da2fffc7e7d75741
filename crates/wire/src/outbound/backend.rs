//! Where requests of a rule go.

use crate::{
    endpoint,
    error::{Invalid, Within, require, required},
    meta, time,
};
use linkerd2_proxy_api::outbound as proto;
use std::time::Duration;
use weft_model::policy::outbound::{Backend, BackendKind, Load, Penalty, Queue};

/// What counts where a message asks for penalties and does not say how much (data plane 4.6).
const DEFAULT_PENALTY: Penalty = Penalty { rtt: Duration::from_secs(5), max_retry_after: Duration::from_secs(300) };

pub(super) fn decode(backend: proto::Backend) -> Result<Backend, Invalid> {
    use proto::backend::Kind;
    let proto::Backend { metadata, queue, kind } = backend;
    Ok(Backend {
        meta: required("metadata", metadata, meta::decode_complete)?,
        kind: match kind {
            None => BackendKind::Missing,
            Some(Kind::Forward(addr)) => BackendKind::Forward(endpoint::decode(addr).within("forward")?),
            Some(Kind::Balancer(balance)) => decode_balance(balance).within("balancer")?,
        },
        queue: required("queue", queue, |proto::Queue { capacity, failfast_timeout }| {
            Ok(Queue { capacity, failfast: time::decode_required("failfast_timeout", failfast_timeout)? })
        })?,
    })
}

pub(super) fn encode(backend: &Backend) -> Result<proto::Backend, Invalid> {
    use proto::backend::Kind;
    let Backend { meta, kind, queue: Queue { capacity, failfast } } = backend;
    Ok(proto::Backend {
        metadata: Some(meta::encode_complete(meta).within("metadata")?),
        queue: Some(proto::Queue {
            capacity: *capacity,
            failfast_timeout: Some(time::encode(*failfast).within("queue.failfast_timeout")?),
        }),
        kind: match kind {
            BackendKind::Missing => None,
            BackendKind::Forward(endpoint) => Some(Kind::Forward(endpoint::encode(endpoint).within("forward")?)),
            BackendKind::Balance { target, load } => Some(Kind::Balancer(proto::backend::BalanceP2c {
                discovery: Some(encode_discovery(target)),
                load: Some(encode_load(load).within("balancer")?),
            })),
        },
    })
}

fn decode_balance(balance: proto::backend::BalanceP2c) -> Result<BackendKind, Invalid> {
    use proto::backend::{EndpointDiscovery, endpoint_discovery};
    let proto::backend::BalanceP2c { discovery, load } = balance;
    let EndpointDiscovery { kind } = require("discovery", discovery)?;
    let endpoint_discovery::Kind::Dst(endpoint_discovery::DestinationGet { path }) = require("discovery.kind", kind)?;
    Ok(BackendKind::Balance {
        target: path.parse().map_err(|e| Invalid::new("discovery.dst.path", e))?,
        load: decode_load(require("load", load)?)?,
    })
}

fn encode_discovery(target: &weft_model::NameAddr) -> proto::backend::EndpointDiscovery {
    use proto::backend::{EndpointDiscovery, endpoint_discovery};
    let get = endpoint_discovery::DestinationGet { path: target.to_string() };
    EndpointDiscovery { kind: Some(endpoint_discovery::Kind::Dst(get)) }
}

fn decode_load(load: proto::backend::balance_p2c::Load) -> Result<Load, Invalid> {
    use proto::backend::balance_p2c::{Load as Proto, PeakEwma, PenaltyPeakEwma};
    match load {
        Proto::PeakEwma(PeakEwma { default_rtt, decay }) => {
            let load = || {
                Ok(Load {
                    default_rtt: time::decode_required("default_rtt", default_rtt)?,
                    decay: time::decode_required("decay", decay)?,
                    penalty: None,
                })
            };
            load().within("peak_ewma")
        }
        Proto::PenaltyPeakEwma(PenaltyPeakEwma { default_rtt, decay, penalty, max_retry_after, penalty_decay: _ }) => {
            let load = || {
                Ok(Load {
                    default_rtt: time::decode_required("default_rtt", default_rtt)?,
                    decay: time::decode_required("decay", decay)?,
                    penalty: Some(Penalty {
                        rtt: time::decode_optional("penalty", penalty)?.unwrap_or(DEFAULT_PENALTY.rtt),
                        max_retry_after: time::decode_optional("max_retry_after", max_retry_after)?
                            .unwrap_or(DEFAULT_PENALTY.max_retry_after),
                    }),
                })
            };
            load().within("penalty_peak_ewma")
        }
    }
}

fn encode_load(load: &Load) -> Result<proto::backend::balance_p2c::Load, Invalid> {
    use proto::backend::balance_p2c::{Load as Proto, PeakEwma, PenaltyPeakEwma};
    let Load { default_rtt, decay, penalty } = *load;
    let default_rtt = Some(time::encode(default_rtt).within("default_rtt")?);
    let decay = Some(time::encode(decay).within("decay")?);
    Ok(match penalty {
        None => Proto::PeakEwma(PeakEwma { default_rtt, decay }),
        Some(Penalty { rtt, max_retry_after }) => Proto::PenaltyPeakEwma(PenaltyPeakEwma {
            default_rtt,
            decay,
            penalty: Some(time::encode(rtt).within("penalty")?),
            max_retry_after: Some(time::encode(max_retry_after).within("max_retry_after")?),
            // Proxies take the other one for both.
            penalty_decay: decay,
        }),
    })
}
