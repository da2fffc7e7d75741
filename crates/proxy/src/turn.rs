//! The time of one turn: read once while a task is polled, however many want to know it.
//!
//! A request is decided, sent, counted and recorded within one poll of its task, which takes microseconds: its readings of the
//! clock would all say the same, and were a visible part of what it costs (docs/adr/0005). Whatever waits for a time must not
//! ask here, but the runtime's timers.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn::Outside) };
}

#[derive(Clone, Copy)]
enum Turn {
    /// No task is polled that counts in turns.
    Outside,
    /// Nobody has asked yet.
    Begun,
    Read(Instant),
}

/// The time of the present turn; outside of any, the time.
pub(crate) fn now() -> Instant {
    match TURN.get() {
        Turn::Read(now) => now,
        Turn::Begun => {
            let now = read();
            TURN.set(Turn::Read(now));
            now
        }
        Turn::Outside => read(),
    }
}

/// How long ago `start` was.
pub(crate) fn since(start: Instant) -> Duration {
    now().saturating_duration_since(start)
}

/// By the runtime's clock, which tests can stop.
fn read() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Polls as one turn.
pub(crate) fn poll<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    TURN.set(Turn::Begun);
    let _ended = Ended;
    future.poll(cx)
}

/// Ends a turn, also one that panics.
struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        TURN.set(Turn::Outside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::poll_fn, pin::pin};

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_within_a_turn_alone() {
        let mut task = pin!(async {
            let mut seen = vec![];
            for _ in 0..2 {
                seen.push(now());
                tokio::time::advance(Duration::from_secs(1)).await;
                seen.push(now());
            }
            seen
        });
        let start = now();
        let seen = poll_fn(|cx| poll(task.as_mut(), cx)).await;
        let seen: Vec<_> = seen.into_iter().map(|at| (at - start).as_secs()).collect();
        // `advance` yields, which ends a turn.
        assert_eq!(seen, [0, 1, 1, 2]);
        assert_eq!((now() - start).as_secs(), 2, "outside");
        let mut within = pin!(async {
            let first = now();
            std::thread::sleep(Duration::from_millis(2));
            now() - first
        });
        assert_eq!(
            poll(within.as_mut(), &mut Context::from_waker(std::task::Waker::noop())),
            Poll::Ready(Duration::ZERO)
        );
    }
}
