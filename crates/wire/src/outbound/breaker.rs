//! Circuit breakers, and the waits that grow between attempts.

use crate::{
    error::{Invalid, Within, here, require, required},
    time,
};
use linkerd2_proxy_api::outbound as proto;
use std::time::Duration;
use weft_model::policy::outbound::{Backoff, Breaker};

/// What Linkerd's proxies accept (data plane 4.9).
const MIN_WINDOW: Duration = Duration::from_millis(10);
const MAX_MIN_REQUESTS: u32 = 1_000_000;
const MAX_JITTER: f32 = 100.0;

pub(super) fn decode(accrual: proto::FailureAccrual) -> Result<Breaker, Invalid> {
    use proto::failure_accrual::{ConsecutiveFailures, Kind};
    let proto::FailureAccrual { ejection: _, kind } = accrual;
    match require("kind", kind)? {
        Kind::ConsecutiveFailures(ConsecutiveFailures { max_failures, backoff }) => Ok(Breaker::Consecutive {
            max_failures,
            backoff: required("backoff", backoff, decode_backoff).within("consecutive_failures")?,
        }),
        Kind::Unified(unified) => decode_unified(unified).within("unified"),
    }
}

fn decode_unified(unified: proto::failure_accrual::Unified) -> Result<Breaker, Invalid> {
    let proto::failure_accrual::Unified {
        success_rate_threshold,
        decay,
        min_requests,
        max_consecutive_failures,
        backoff,
    } = unified;
    if !(0.0..=1.0).contains(&success_rate_threshold) {
        return Err(Invalid::new("success_rate_threshold", "is 0 to 1"));
    }
    let window = time::decode_required("decay", decay)?;
    if window < MIN_WINDOW {
        return Err(Invalid::new("decay", "is at least 10 ms"));
    }
    if min_requests > MAX_MIN_REQUESTS {
        return Err(Invalid::new("min_requests", "is at most 1000000"));
    }
    let honor_retry_after = backoff.as_ref().is_some_and(|backoff| backoff.respect_retry_after_hint);
    let backoff = required("backoff", backoff, decode_backoff)?;
    Ok(Breaker::Unified {
        success_rate_threshold,
        window,
        min_requests,
        max_consecutive_failures,
        backoff,
        honor_retry_after,
    })
}

pub(super) fn encode(breaker: &Breaker) -> Result<proto::FailureAccrual, Invalid> {
    use proto::failure_accrual::{ConsecutiveFailures, Kind, Unified};
    let kind = match breaker {
        Breaker::Consecutive { max_failures, backoff } => Kind::ConsecutiveFailures(ConsecutiveFailures {
            max_failures: *max_failures,
            backoff: Some(encode_backoff(backoff).within("consecutive_failures.backoff")?),
        }),
        Breaker::Unified {
            success_rate_threshold,
            window,
            min_requests,
            max_consecutive_failures,
            backoff,
            honor_retry_after,
        } => {
            let backoff = encode_backoff(backoff).within("unified.backoff")?;
            Kind::Unified(Unified {
                success_rate_threshold: *success_rate_threshold,
                decay: Some(time::encode(*window).within("unified.decay")?),
                min_requests: *min_requests,
                max_consecutive_failures: *max_consecutive_failures,
                backoff: Some(proto::ExponentialBackoff { respect_retry_after_hint: *honor_retry_after, ..backoff }),
            })
        }
    };
    Ok(proto::FailureAccrual { ejection: None, kind: Some(kind) })
}

pub(super) fn decode_backoff(backoff: proto::ExponentialBackoff) -> Result<Backoff, Invalid> {
    let proto::ExponentialBackoff { min_backoff, max_backoff, jitter_ratio, respect_retry_after_hint: _ } = backoff;
    let min = time::decode_required("min_backoff", min_backoff)?;
    let max = time::decode_required("max_backoff", max_backoff)?;
    if max.is_zero() {
        return Err(Invalid::new("max_backoff", "is above 0"));
    }
    if min > max {
        return Err(here("max_backoff is not below min_backoff"));
    }
    if !(0.0..=MAX_JITTER).contains(&jitter_ratio) {
        return Err(Invalid::new("jitter_ratio", "is 0 to 100"));
    }
    Ok(Backoff { min, max, jitter: jitter_ratio })
}

pub(super) fn encode_backoff(backoff: &Backoff) -> Result<proto::ExponentialBackoff, Invalid> {
    let Backoff { min, max, jitter } = *backoff;
    Ok(proto::ExponentialBackoff {
        min_backoff: Some(time::encode(min).within("min_backoff")?),
        max_backoff: Some(time::encode(max).within("max_backoff")?),
        jitter_ratio: jitter,
        respect_retry_after_hint: false,
    })
}
