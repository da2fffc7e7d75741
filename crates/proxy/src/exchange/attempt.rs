//! How an attempt ends without the endpoint's answer, or with one that is not passed on: what its record is told, whatever carries
//! the request.
//!
//! ```text
//! attempt ─┬─► unanswered ──────► one that stands in for it
//!          ├─► passed_over ─┬───► the next one, as was agreed
//!          ├─► failed_once ─┘
//!          ├─► failed | replied ► the proxy's own reply
//!          ├─► cut ─────────────► what the client can tell from an end
//!          └─► untold ──────────► the end of the client's connection
//! ```
//! Decides nothing: [`super::Course`] says whether another attempt is made. An answer that is passed on is told as it comes.

use super::{Course, Observe};
use crate::error::ProxyError;

/// Nobody has answered, and asking another endpoint does no harm: the next attempt is told in this one's stead.
pub(super) fn unanswered(record: &mut impl Observe, course: &Course) {
    record.repeated();
    course.stand_in();
}

/// An answer came, whose head the record knows, and another attempt is made instead of passing it on.
pub(super) fn passed_over(record: &mut impl Observe, grpc_status: Option<u16>) {
    record.repeated();
    record.first_byte();
    record.end(grpc_status, None);
}

/// No answer is passed on, and another attempt is made.
pub(super) fn failed_once(record: &mut impl Observe, error: &ProxyError) {
    record.repeated();
    failed(record, error);
}

/// No answer is passed on, and no other attempt is made.
pub(super) fn failed(record: &mut impl Observe, error: &ProxyError) {
    replied(record, (error.status(), None), error);
}

/// The same where the client was told these statuses: HTTP's, and gRPC's if it speaks that.
pub(super) fn replied(record: &mut impl Observe, (status, grpc_status): (u16, Option<u16>), error: &ProxyError) {
    record.response_head(status);
    record.first_byte();
    record.end(grpc_status, Some(error));
}

/// No other attempt is made, and the client is told nothing: it may ask elsewhere.
pub(super) fn untold(record: &mut impl Observe, error: &ProxyError) {
    record.end(None, Some(error));
}

/// The request is cut off, with this status of gRPC behind what the client has of an answer, if there was a way to say it.
pub(super) fn cut(record: &mut impl Observe, course: &Course, grpc_status: Option<u16>, error: &ProxyError) {
    course.cut_off(error);
    record.end(grpc_status, Some(error));
}
