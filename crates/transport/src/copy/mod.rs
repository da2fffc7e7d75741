//! Copies bytes between two connections until both directions have ended.
//!
//! The last stage of an opaque connection. It must not look into the bytes.

mod direction;

use crate::Stream;
use direction::Direction;
use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

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

/// Copies both ways until both have ended. The end of one direction is passed on as a half-close while the other goes
/// on. Where reading from one side fails the other is reset, so that a cut is never taken for an end. Where writing to
/// one side fails, what it had sent before is still delivered.
///
/// `count(side, bytes)` is called as bytes that were read from `side` have been written to the other.
///
/// Cancel-safe in that dropping it loses no more than what was on its way; both connections are to be dropped then.
pub async fn duplex(a: &mut Stream, b: &mut Stream, mut count: impl FnMut(Side, usize)) -> Outcome {
    let mut both = Both { a_to_b: Direction::default(), b_to_a: Direction::default(), failure: None };
    poll_fn(|cx| both.poll(cx, a, b, &mut count)).await;
    let Both { a_to_b, b_to_a, failure } = both;
    match &failure {
        Some(Failure { side: Side::A, operation: Operation::Read, .. }) => b.reset_on_close(),
        Some(Failure { side: Side::B, operation: Operation::Read, .. }) => a.reset_on_close(),
        _ => {}
    }
    Outcome { a_to_b: a_to_b.bytes(), b_to_a: b_to_a.bytes(), result: failure.map_or(Ok(()), Err) }
}

struct Both {
    a_to_b: Direction,
    b_to_a: Direction,
    /// The first, or that of a read behind it.
    failure: Option<Failure>,
}

impl Both {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        a: &mut Stream,
        b: &mut Stream,
        count: &mut impl FnMut(Side, usize),
    ) -> Poll<()> {
        let a_to_b = self.a_to_b.poll(cx, a, b, |n| count(Side::A, n));
        if self.ended(a_to_b, Side::A, Side::B) {
            return Poll::Ready(());
        }
        let b_to_a = self.b_to_a.poll(cx, b, a, |n| count(Side::B, n));
        if self.ended(b_to_a, Side::B, Side::A) || (self.a_to_b.is_done() && self.b_to_a.is_done()) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Notes a failure. A connection that cannot be read any more is dead in both directions. That counts for more than a write to
    /// it that failed before: only the read tells a cut from an end.
    fn ended(&mut self, polled: Poll<Result<(), (Operation, io::Error)>>, from: Side, to: Side) -> bool {
        let Poll::Ready(Err((operation, source))) = polled else { return false };
        let side = match operation {
            Operation::Read => from,
            Operation::Write => to,
        };
        if operation == Operation::Read || self.failure.is_none() {
            self.failure = Some(Failure { side, operation, source });
        }
        operation == Operation::Read
    }
}

#[cfg(test)]
mod test;
