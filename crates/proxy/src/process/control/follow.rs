//! Keeps a watch stream open: hands on its messages, and opens it again when it is lost.

use crate::config::StreamLimits;
use futures_util::StreamExt;
use std::{future::Future, ops::ControlFlow, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};
use weft_model::{decide::backoff, policy::outbound::Backoff};
use weft_wire::{Error, Incoming};

/// What happens on a stream that is kept open.
pub(in crate::process) enum Event<T> {
    Message {
        /// The first since the stream was opened: it stands for the whole state, not for a change.
        first: bool,
        value: T,
    },
    /// A message that cannot be used; the stream goes on.
    Invalid(String),
    /// The stream could not be opened, or failed. Its last known state holds.
    Failed(Error),
}

/// How a stream is kept open.
#[derive(Clone, Copy, Debug)]
pub(in crate::process) struct Following {
    pub(in crate::process) backoff: Backoff,
    pub(in crate::process) limits: StreamLimits,
}

/// Follows a stream until `on` breaks; waits longer after each failure in a row. `on` may ask for a wait of its own.
pub(in crate::process) async fn follow<T, F>(
    following: Following,
    mut open: impl FnMut() -> F,
    mut on: impl FnMut(Event<T>) -> ControlFlow<(), Option<Duration>>,
) where
    F: Future<Output = Result<Incoming<T>, Error>>,
{
    let mut failures = 0;
    loop {
        let mut wait = None;
        match once(following.limits, &mut open, &mut on).await {
            End::Break => return,
            End::Over { answered } => failures = if answered { 0 } else { failures + 1 },
            End::Failed { answered, error } => {
                failures = if answered { 0 } else { failures + 1 };
                match on(Event::Failed(error)) {
                    ControlFlow::Break(()) => return,
                    ControlFlow::Continue(own) => wait = own,
                }
            }
        }
        let wait = wait.unwrap_or_else(|| backoff::delay(&following.backoff, u32::min(failures, 30), fastrand::f64()));
        sleep(wait).await;
    }
}

enum End {
    Break,
    /// Ended in order, or by a limit.
    Over {
        answered: bool,
    },
    Failed {
        answered: bool,
        error: Error,
    },
}

async fn once<T, F>(
    limits: StreamLimits,
    open: &mut impl FnMut() -> F,
    on: &mut impl FnMut(Event<T>) -> ControlFlow<(), Option<Duration>>,
) -> End
where
    F: Future<Output = Result<Incoming<T>, Error>>,
{
    let late = || tonic::Status::deadline_exceeded("no first answer in time").into();
    let start = Instant::now();
    let end = limits.lifetime.map(|lifetime| start + lifetime);
    let first_by = limits.initial.map(|initial| start + initial);
    let opened = match first_by {
        None => open().await,
        Some(by) => timeout_at(by, open()).await.unwrap_or_else(|_| Err(late())),
    };
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(error) => return End::Failed { answered: false, error },
    };
    let (mut answered, mut begun) = (false, false);
    loop {
        let by = if answered { limits.idle.map(|idle| Instant::now() + idle) } else { first_by };
        let by = by.into_iter().chain(end).min();
        let next = match by {
            None => stream.next().await,
            Some(by) => match timeout_at(by, stream.next()).await {
                Ok(next) => next,
                Err(_) if answered => return End::Over { answered },
                Err(_) => return End::Failed { answered, error: late() },
            },
        };
        let event = match next {
            None => return End::Over { answered },
            Some(Err(Error::Invalid(invalid))) => Event::Invalid(invalid.to_string()),
            Some(Err(error)) => return End::Failed { answered, error },
            Some(Ok(value)) => Event::Message { first: !begun, value },
        };
        // What follows a message that cannot be used is a change, too.
        begun = true;
        if !matches!(event, Event::Invalid(_)) {
            answered = true;
        }
        if on(event).is_break() {
            return End::Break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn following(limits: StreamLimits) -> Following {
        let backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(60), jitter: 0.0 };
        Following { backoff, limits }
    }

    type Item = Result<u32, Error>;

    fn lost() -> Error {
        tonic::Status::unavailable("lost").into()
    }

    /// Follows streams of these items; a stream that ends with 0 stays open.
    async fn run(limits: StreamLimits, streams: Vec<Result<Vec<Item>, Error>>) -> Vec<(u64, String)> {
        let mut streams: VecDeque<_> = streams.into();
        let (start, mut seen) = (Instant::now(), vec![]);
        let open = || {
            let next = streams.pop_front();
            async move {
                let items = next.unwrap_or_else(|| Err(tonic::Status::invalid_argument("end").into()))?;
                let stays = matches!(items.last(), Some(Ok(0)));
                let rest = futures_util::stream::pending().take(usize::from(stays));
                Ok(Box::pin(futures_util::stream::iter(items).chain(rest)) as Incoming<u32>)
            }
        };
        follow(following(limits), open, |event| {
            let at = start.elapsed().as_millis() as u64;
            let (text, end) = match event {
                Event::Message { first, value } => (format!("{value}{}", if first { "!" } else { "" }), false),
                Event::Invalid(_) => ("invalid".into(), false),
                Event::Failed(e) => ("failed".into(), e.is_final()),
            };
            seen.push((at, text));
            if end { ControlFlow::Break(()) } else { ControlFlow::Continue(None) }
        })
        .await;
        seen
    }

    fn texts(seen: &[(u64, String)]) -> Vec<(u64, &str)> {
        seen.iter().map(|(at, text)| (*at, text.as_str())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn waits_longer_after_each_failure_and_starts_again_after_an_answer() {
        let streams = vec![Err(lost()), Err(lost()), Ok(vec![Ok(1), Ok(2), Err(lost())]), Ok(vec![Ok(3)])];
        let seen = run(StreamLimits::default(), streams).await;
        let expected =
            [(0, "failed"), (200, "failed"), (600, "1!"), (600, "2"), (600, "failed"), (700, "3!"), (800, "failed")];
        assert_eq!(texts(&seen), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_a_message_that_cannot_be_used_is_a_change() {
        let invalid = || Err(weft_wire::Invalid { field: "update".into(), reason: "is required".into() }.into());
        let seen = run(StreamLimits::default(), vec![Ok(vec![invalid(), Ok(1)]), Ok(vec![Ok(2), invalid()])]).await;
        let expected = [(0, "invalid"), (0, "1"), (100, "2!"), (100, "invalid"), (200, "failed")];
        assert_eq!(texts(&seen), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn limits_end_a_stream() {
        let limits = StreamLimits {
            initial: Some(Duration::from_secs(1)),
            idle: Some(Duration::from_secs(5)),
            lifetime: Some(Duration::from_secs(8)),
        };
        let seen = run(limits, vec![Ok(vec![Ok(1), Ok(0)])]).await;
        assert_eq!(texts(&seen), [(0, "1!"), (0, "0"), (5100, "failed")]);
    }
}
