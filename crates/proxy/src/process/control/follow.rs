//! Keeps a watch stream open: hands on its messages, and opens it again when it is lost.

use crate::config::StreamLimits;
use futures_util::StreamExt;
use std::{future::Future, ops::ControlFlow, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};
use weft_model::{decide::backoff, policy::outbound::Backoff};
use weft_wire::{Error, Incoming, Verdict};

/// Whoever says that there is nothing, or refuses what he has answered before, is asked again after this long at most: most of what
/// makes him say so passes, such as an address that two pods have for a moment.
const PASSING: Duration = Duration::from_secs(10);
/// A question about a target or port that was refused and never answered is asked again after this long, as long as somebody wants
/// to know.
pub(in crate::process) const REFUSED: Duration = Duration::from_secs(30);

/// What happens on a stream that is kept open.
pub(in crate::process) enum Event<T> {
    Message {
        /// The first that can be used since the stream was opened: it stands for the whole state, not for a change.
        first: bool,
        value: T,
    },
    /// A message that cannot be used; the stream goes on.
    Invalid(String),
    Failed(Failed),
}

/// The stream could not be opened, or failed. It will be opened again, and its last known state holds unless its verdict says
/// otherwise.
pub(in crate::process) struct Failed {
    pub(in crate::process) error: Error,
    pub(in crate::process) verdict: Verdict,
    /// The same was said before, and there was no answer in between.
    pub(in crate::process) again: bool,
    /// The stream had brought an answer: who gave it takes it back, if that is what the verdict means.
    pub(in crate::process) answered: bool,
}

/// How a stream is kept open.
#[derive(Clone, Copy, Debug)]
pub(in crate::process) struct Following {
    pub(in crate::process) backoff: Backoff,
    pub(in crate::process) limits: StreamLimits,
    /// When to ask again who has said that there is nothing and has never had anything, where the backoff does not say so.
    pub(in crate::process) absent: Option<Duration>,
    /// The same for who refuses what he has never answered.
    pub(in crate::process) refused: Option<Duration>,
}

/// Since when there has been no answer, and whether there ever was one.
#[derive(Default)]
struct History {
    /// Streams in a row that brought none.
    failures: u32,
    answered: bool,
    said: Option<Verdict>,
}

/// Follows a stream for ever; waits longer after each failure in a row. No answer is final: what is refused now is asked again.
pub(in crate::process) async fn follow<T, F>(
    following: Following,
    open: impl FnMut() -> F,
    mut on: impl FnMut(Event<T>),
) where
    F: Future<Output = Result<Incoming<T>, Error>>,
{
    let always = |event| {
        on(event);
        ControlFlow::Continue(())
    };
    follow_while(following, open, always).await;
}

/// The same until `on` breaks.
pub(in crate::process) async fn follow_while<T, F>(
    following: Following,
    mut open: impl FnMut() -> F,
    mut on: impl FnMut(Event<T>) -> ControlFlow<()>,
) where
    F: Future<Output = Result<Incoming<T>, Error>>,
{
    let mut history = History::default();
    loop {
        let verdict = match once(following.limits, &mut open, &mut on).await {
            End::Break => return,
            End::Over { answered } => {
                history.note(answered);
                Verdict::None
            }
            End::Failed { answered, error } => {
                history.note(answered);
                let verdict = error.verdict();
                let again = history.said.replace(verdict) == Some(verdict);
                if on(Event::Failed(Failed { error, verdict, again, answered })).is_break() {
                    return;
                }
                verdict
            }
        };
        sleep(history.wait(&following, verdict)).await;
    }
}

impl History {
    /// A stream has ended that brought an answer or not.
    fn note(&mut self, answered: bool) {
        if answered {
            *self = Self { answered: true, ..Self::default() };
        } else {
            self.failures = self.failures.saturating_add(1);
        }
    }

    fn wait(&self, following: &Following, verdict: Verdict) -> Duration {
        let growing = backoff::delay(&following.backoff, self.failures.min(30), fastrand::f64());
        match verdict {
            Verdict::None => growing,
            Verdict::Unknown | Verdict::Unserved => self.late(following.absent, growing),
            Verdict::Refused => self.late(following.refused, growing),
        }
    }

    /// What was answered once may be answered again soon.
    fn late(&self, after: Option<Duration>, growing: Duration) -> Duration {
        after.filter(|_| !self.answered).unwrap_or_else(|| growing.min(PASSING))
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
    on: &mut impl FnMut(Event<T>) -> ControlFlow<()>,
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
    let mut answered = false;
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
            // A message that cannot be used has told nothing of the state: what an earlier stream told is not merged with this one.
            Some(Ok(value)) => Event::Message { first: !std::mem::replace(&mut answered, true), value },
        };
        if on(event).is_break() {
            return End::Break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, collections::VecDeque};
    use tokio::sync::Notify;
    use tonic::Status;

    fn following(limits: StreamLimits) -> Following {
        let backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(60), jitter: 0.0 };
        Following { backoff, limits, absent: None, refused: Some(REFUSED) }
    }

    type Item = Result<u32, Error>;

    fn lost() -> Error {
        Status::unavailable("lost").into()
    }

    fn unknown() -> Error {
        Status::not_found("nothing").into()
    }

    fn refused() -> Error {
        Status::failed_precondition("two have it").into()
    }

    /// Follows streams of these items until one more is asked for; a stream that ends with 0 stays open.
    async fn run(following: Following, streams: Vec<Result<Vec<Item>, Error>>) -> Vec<(u64, String)> {
        let mut streams: VecDeque<_> = streams.into();
        let (start, seen, over) = (Instant::now(), RefCell::new(vec![]), Notify::new());
        let note = |text: String| seen.borrow_mut().push((start.elapsed().as_millis() as u64, text));
        let open = || {
            let next = streams.pop_front();
            let (note, over) = (&note, &over);
            async move {
                let Some(next) = next else {
                    note("asked".into());
                    over.notify_one();
                    return std::future::pending().await;
                };
                let items = next?;
                let stays = matches!(items.last(), Some(Ok(0)));
                let rest = futures_util::stream::pending().take(usize::from(stays));
                Ok(Box::pin(futures_util::stream::iter(items).chain(rest)) as Incoming<u32>)
            }
        };
        let on = |event| match event {
            Event::Message { first, value } => note(format!("{value}{}", if first { "!" } else { "" })),
            Event::Invalid(_) => note("invalid".into()),
            Event::Failed(Failed { verdict, again, .. }) => {
                note(format!("{verdict:?}{}", if again { " again" } else { "" }));
            }
        };
        tokio::select! {
            () = follow(following, open, on) => unreachable!("it goes on for ever"),
            () = over.notified() => {}
        }
        seen.into_inner()
    }

    fn texts(seen: &[(u64, String)]) -> Vec<(u64, &str)> {
        seen.iter().map(|(at, text)| (*at, text.as_str())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn waits_longer_after_each_failure_and_starts_again_after_an_answer() {
        let streams = vec![Err(lost()), Err(lost()), Ok(vec![Ok(1), Ok(2), Err(lost())]), Ok(vec![Ok(3)])];
        let seen = run(following(StreamLimits::default()), streams).await;
        let expected =
            [(0, "None"), (200, "None again"), (600, "1!"), (600, "2"), (600, "None"), (700, "3!"), (800, "asked")];
        assert_eq!(texts(&seen), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_cannot_be_used_is_not_the_first() {
        let invalid = || Err(weft_wire::Invalid { field: "update".into(), reason: "is required".into() }.into());
        let streams = vec![Ok(vec![invalid(), Ok(1)]), Ok(vec![Ok(2), invalid()])];
        let seen = run(following(StreamLimits::default()), streams).await;
        let expected = [(0, "invalid"), (0, "1!"), (100, "2!"), (100, "invalid"), (200, "asked")];
        assert_eq!(texts(&seen), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn limits_end_a_stream() {
        let limits = StreamLimits {
            initial: Some(Duration::from_secs(1)),
            idle: Some(Duration::from_secs(5)),
            lifetime: Some(Duration::from_secs(8)),
        };
        let seen = run(following(limits), vec![Ok(vec![Ok(1), Ok(0)])]).await;
        assert_eq!(texts(&seen), [(0, "1!"), (0, "0"), (5100, "asked")]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_asked_again_late_at_first_and_soon_once_it_was_answered() {
        let streams = vec![Err(refused()), Ok(vec![Ok(1), Err(refused())]), Err(refused()), Ok(vec![Ok(2)])];
        let seen = run(following(StreamLimits::default()), streams).await;
        let expected = [
            (0, "Refused"),
            (30_000, "1!"),
            (30_000, "Refused"),
            (30_100, "Refused again"),
            (30_300, "2!"),
            (30_400, "asked"),
        ];
        assert_eq!(texts(&seen), expected);
        // However long it is refused, who asks finds out soon that it no longer is.
        let mut streams = vec![Ok(vec![Ok(1)])];
        streams.extend((0..20).map(|_| Err(refused())));
        let seen = run(following(StreamLimits::default()), streams).await;
        let [.., (before, _), (last, text)] = &texts(&seen)[..] else { panic!() };
        assert_eq!((last - before, *text), (10_000, "asked"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_nothing_is_asked_again_by_the_backoff_or_when_it_was_said() {
        let streams = || vec![Err(unknown()), Err(unknown()), Ok(vec![Ok(1), Err(unknown())])];
        let seen = run(following(StreamLimits::default()), streams()).await;
        let expected = [(0, "Unknown"), (200, "Unknown again"), (600, "1!"), (600, "Unknown"), (700, "asked")];
        assert_eq!(texts(&seen), expected);
        let absent = Some(Duration::from_secs(7));
        let seen = run(Following { absent, ..following(StreamLimits::default()) }, streams()).await;
        let expected =
            [(0, "Unknown"), (7000, "Unknown again"), (14_000, "1!"), (14_000, "Unknown"), (14_100, "asked")];
        assert_eq!(texts(&seen), expected);
    }
}
