//! Durations, which on the wire may be negative and must not.

use crate::error::{Invalid, here, optional, required};
use std::time::Duration;

pub(crate) fn decode(proto: prost_types::Duration) -> Result<Duration, Invalid> {
    Duration::try_from(proto).map_err(|_| here("a duration is not negative"))
}

pub(crate) fn encode(duration: Duration) -> Result<prost_types::Duration, Invalid> {
    prost_types::Duration::try_from(duration).map_err(|_| here("the duration is too long"))
}

pub(crate) fn decode_required(field: &str, proto: Option<prost_types::Duration>) -> Result<Duration, Invalid> {
    required(field, proto, decode)
}

pub(crate) fn decode_optional(field: &str, proto: Option<prost_types::Duration>) -> Result<Option<Duration>, Invalid> {
    optional(field, proto, decode)
}

pub(crate) fn encode_optional(
    field: &str,
    duration: Option<Duration>,
) -> Result<Option<prost_types::Duration>, Invalid> {
    optional(field, duration, encode)
}
