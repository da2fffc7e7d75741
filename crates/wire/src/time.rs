//! Durations, which on the wire may be negative and must not, and may be longer than any clock can tell.

use crate::error::{Invalid, here, optional, required};
use std::time::Duration;
use weft_model::duration::LONGEST;

pub(crate) fn decode(proto: prost_types::Duration) -> Result<Duration, Invalid> {
    let duration = Duration::try_from(proto).map_err(|_| here("a duration is not negative"))?;
    Ok(duration.min(LONGEST))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_clock_can_tell_is_a_century() {
        for (seconds, nanos) in [(i64::MAX, 999_999_999), (1 << 40, 0)] {
            assert_eq!(decode(prost_types::Duration { seconds, nanos }).ok(), Some(LONGEST));
        }
        assert_eq!(decode(prost_types::Duration { seconds: 1, nanos: 5 }).ok(), Some(Duration::new(1, 5)));
        assert!(decode(prost_types::Duration { seconds: -1, nanos: 0 }).is_err());
    }
}
