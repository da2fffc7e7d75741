//! What a rule asks for besides its filters: backends, timeouts, retries.

use super::breaker::{decode_backoff, encode_backoff};
use crate::{
    error::{Invalid, Within, each, here, optional, require},
    time,
};
use linkerd2_proxy_api::{http_route, outbound as proto};
use std::{ops::RangeInclusive, time::Duration};
use weft_model::policy::outbound::{Retry, RetryOn, Timeouts};

/// gRPC codes that a retry may be for, which are the numbers of their fields.
const CANCELLED: u16 = 1;
const DEADLINE_EXCEEDED: u16 = 4;
const RESOURCE_EXHAUSTED: u16 = 8;
const INTERNAL: u16 = 13;
const UNAVAILABLE: u16 = 14;

/// `deprecated` is the request timeout as it was once sent.
pub(super) fn decode_timeouts(
    timeouts: Option<http_route::Timeouts>,
    deprecated: Option<prost_types::Duration>,
) -> Result<Timeouts, Invalid> {
    let http_route::Timeouts { response, request, idle } = timeouts.unwrap_or_default();
    let deprecated = time::decode_optional("request_timeout", deprecated)?;
    let timeouts = || {
        Ok(Timeouts {
            response: time::decode_optional("response", response)?,
            request: time::decode_optional("request", request)?.or(deprecated),
            idle: time::decode_optional("idle", idle)?,
        })
    };
    timeouts().within("timeouts")
}

pub(super) fn encode_timeouts(timeouts: &Timeouts) -> Result<Option<http_route::Timeouts>, Invalid> {
    let encode = |timeout: Option<Duration>| time::encode_optional("timeouts", timeout);
    let Timeouts { response, request, idle } = *timeouts;
    let encoded = http_route::Timeouts { response: encode(response)?, request: encode(request)?, idle: encode(idle)? };
    Ok((*timeouts != Timeouts::default()).then_some(encoded))
}

pub(super) fn decode_http_retry(retry: proto::http_route::Retry) -> Result<Retry, Invalid> {
    use proto::http_route::retry::Conditions;
    let proto::http_route::Retry { max_retries, max_request_bytes, conditions, timeout, backoff } = retry;
    let Conditions { status_ranges } = require("conditions", conditions)?;
    Ok(Retry {
        max_retries,
        max_request_bytes,
        on: RetryOn::Statuses(each("conditions.status_ranges", status_ranges, decode_status_range)?),
        timeout: time::decode_optional("timeout", timeout)?,
        backoff: optional("backoff", backoff, decode_backoff)?,
    })
}

fn decode_status_range(
    range: proto::http_route::retry::conditions::StatusRange,
) -> Result<RangeInclusive<u16>, Invalid> {
    match (u16::try_from(range.start), u16::try_from(range.end)) {
        (Ok(start), Ok(end)) if 1 <= start && start <= end && end <= 599 => Ok(start..=end),
        _ => Err(here(format_args!("{} to {} is no range within 1 to 599", range.start, range.end))),
    }
}

pub(super) fn encode_http_retry(retry: &Retry) -> Result<proto::http_route::Retry, Invalid> {
    use proto::http_route::retry::{Conditions, conditions::StatusRange};
    let Retry { max_retries, max_request_bytes, on, timeout, backoff } = retry;
    let RetryOn::Statuses(ranges) = on else {
        return Err(Invalid::new("conditions", "an HTTP route retries on statuses"));
    };
    let range = |r: &RangeInclusive<u16>| StatusRange { start: (*r.start()).into(), end: (*r.end()).into() };
    Ok(proto::http_route::Retry {
        max_retries: *max_retries,
        max_request_bytes: *max_request_bytes,
        conditions: Some(Conditions { status_ranges: ranges.iter().map(range).collect() }),
        timeout: time::encode_optional("timeout", *timeout)?,
        backoff: optional("backoff", backoff.as_ref(), encode_backoff)?,
    })
}

pub(super) fn decode_grpc_retry(retry: proto::grpc_route::Retry) -> Result<Retry, Invalid> {
    use proto::grpc_route::retry::Conditions;
    let proto::grpc_route::Retry { max_retries, max_request_bytes, conditions, timeout, backoff } = retry;
    // One of the names is misspelled in the protocol.
    let Conditions { cancelled, deadine_exceeded, resource_exhausted, internal, unavailable } =
        require("conditions", conditions)?;
    let codes = [
        (CANCELLED, cancelled),
        (DEADLINE_EXCEEDED, deadine_exceeded),
        (RESOURCE_EXHAUSTED, resource_exhausted),
        (INTERNAL, internal),
        (UNAVAILABLE, unavailable),
    ];
    Ok(Retry {
        max_retries,
        max_request_bytes,
        on: RetryOn::GrpcCodes(codes.into_iter().filter(|(_, on)| *on).map(|(code, _)| code).collect()),
        timeout: time::decode_optional("timeout", timeout)?,
        backoff: optional("backoff", backoff, decode_backoff)?,
    })
}

pub(super) fn encode_grpc_retry(retry: &Retry) -> Result<proto::grpc_route::Retry, Invalid> {
    use proto::grpc_route::retry::Conditions;
    let Retry { max_retries, max_request_bytes, on, timeout, backoff } = retry;
    let RetryOn::GrpcCodes(codes) = on else {
        return Err(Invalid::new("conditions", "a gRPC route retries on codes"));
    };
    let mut conditions = Conditions::default();
    for code in codes {
        let condition = match *code {
            CANCELLED => &mut conditions.cancelled,
            DEADLINE_EXCEEDED => &mut conditions.deadine_exceeded,
            RESOURCE_EXHAUSTED => &mut conditions.resource_exhausted,
            INTERNAL => &mut conditions.internal,
            UNAVAILABLE => &mut conditions.unavailable,
            other => return Err(Invalid::new("conditions", format_args!("gRPC code {other} is not retried"))),
        };
        *condition = true;
    }
    Ok(proto::grpc_route::Retry {
        max_retries: *max_retries,
        max_request_bytes: *max_request_bytes,
        conditions: Some(conditions),
        timeout: time::encode_optional("timeout", *timeout)?,
        backoff: optional("backoff", backoff.as_ref(), encode_backoff)?,
    })
}
