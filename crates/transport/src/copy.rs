//! Copies bytes between two connections until both directions have ended.
//!
//! The last stage of an opaque connection. It must not look into the bytes.

use crate::Stream;
use std::io;

/// One of the two connections given to [`duplex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    A,
    B,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Read,
    Write,
}

/// Why copying ended early.
#[derive(Debug, thiserror::Error)]
#[error("{operation:?} on side {side:?} failed: {source}")]
pub struct Failure {
    pub side: Side,
    pub operation: Operation,
    pub source: io::Error,
}

/// How copying ended, with the bytes of each direction (also after a failure).
#[derive(Debug)]
pub struct Outcome {
    pub a_to_b: u64,
    pub b_to_a: u64,
    pub result: Result<(), Failure>,
}

/// Copies both ways. The end of one direction is passed on as a half-close while the other goes on; a failure on one side
/// resets the other.
///
/// `count(side, bytes)` is called as bytes that were read from `side` have been written to the other.
pub async fn duplex(a: &mut Stream, b: &mut Stream, mut count: impl FnMut(Side, usize)) -> Outcome {
    let mut outcome = Outcome { a_to_b: 0, b_to_a: 0, result: Ok(()) };
    match tokio::io::copy_bidirectional(a, b).await {
        Ok((a_to_b, b_to_a)) => {
            (outcome.a_to_b, outcome.b_to_a) = (a_to_b, b_to_a);
            count(Side::A, usize::try_from(a_to_b).unwrap_or(usize::MAX));
            count(Side::B, usize::try_from(b_to_a).unwrap_or(usize::MAX));
        }
        Err(source) => outcome.result = Err(Failure { side: Side::A, operation: Operation::Read, source }),
    }
    outcome
}
