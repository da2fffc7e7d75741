//! Last stage, for requests: an application that cannot be connected is tried again, as long as it has not been away for the failfast
//! timeout; from then on each request is told after one attempt.
//!
//! An application that is started again in its place costs no request. One that is away while the proxy ends comes back nowhere, and
//! nobody waits for it. The bound on who waits holds for the process.

use crate::{
    config::Queue,
    error::{Code, ProxyError},
    exchange::Departure,
    process::in_flight::InFlight,
};
use std::{
    cell::Cell,
    future::poll_fn,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use weft_model::{decide::backoff, policy::outbound::Backoff};
use weft_transport::{Stream, drain};

/// Whether an application can be connected, as one worker sees it.
pub(super) struct Reach {
    limits: Queue,
    backoff: Backoff,
    /// All workers' requests that wait for an application.
    waiting: Arc<InFlight>,
    /// Since when no attempt has succeeded.
    away: Cell<Option<Away>>,
    /// Wakes those who wait when it has left.
    left: Notify,
    /// Tells clients of it.
    departure: Rc<Departure>,
    drain: drain::Watch,
}

/// An application that cannot be connected.
#[derive(Clone, Copy)]
struct Away {
    since: Instant,
    /// When it was found so last.
    seen: Instant,
}

impl Reach {
    pub(super) fn new(limits: Queue, backoff: Backoff, waiting: &Arc<InFlight>, drain: drain::Watch) -> Self {
        let (waiting, departure) = (Arc::clone(waiting), Rc::default());
        Self { limits, backoff, waiting, away: Cell::new(None), left: Notify::new(), departure, drain }
    }

    pub(super) fn departure(&self) -> &Rc<Departure> {
        &self.departure
    }

    /// The first connection that comes about; who waits for it has a place of its own.
    ///
    /// # Errors
    /// The application has been away for too long, or too many wait for it.
    pub(super) async fn connect<F>(&self, attempt: impl Fn() -> F) -> Result<Stream, ProxyError>
    where
        F: Future<Output = Result<Stream, ProxyError>>,
    {
        self.wait(self.again(attempt)).await
    }

    /// What comes of `connecting`, for which others may be waiting too: it takes a place as soon as that has to wait for an
    /// application that is away.
    ///
    /// # Errors
    /// Those of `connecting`, or too many wait already.
    pub(super) async fn wait<T>(
        &self,
        connecting: impl Future<Output = Result<T, ProxyError>>,
    ) -> Result<T, ProxyError> {
        let mut connecting = pin!(connecting);
        let mut left = None;
        // Held from the first wait to the end: who waits keeps its place.
        let mut place = None;
        poll_fn(|cx| {
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(connected);
            }
            if place.is_some() {
                return Poll::Pending;
            }
            if self.away.get().is_none() {
                // Boxed: it is asked for while a connection is made, and needed only if that fails.
                let left = left.get_or_insert_with(|| Box::pin(self.left.notified()));
                ready!(left.as_mut().poll(cx));
            }
            match self.waiting.admit() {
                Ok(taken) => place = Some(taken),
                Err(_) => {
                    let text = format!("more than {} requests wait for the application", self.limits.capacity);
                    return Poll::Ready(Err(ProxyError::new(Code::LoadShed, text)));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The first connection that comes about, for everybody who waits for it.
    ///
    /// # Errors
    /// The application has been away for too long.
    pub(super) async fn again<F>(&self, attempt: impl Fn() -> F) -> Result<Stream, ProxyError>
    where
        F: Future<Output = Result<Stream, ProxyError>>,
    {
        let mut attempts = 0;
        loop {
            let error = match self.once(&attempt).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let Some(Away { since, seen: now }) = self.away.get().filter(|_| error.code.is_unreached()) else {
                return Err(error);
            };
            let wait = backoff::delay(&self.backoff, attempts, fastrand::f64());
            if now + wait >= since + self.limits.failfast || self.drain.is_draining() {
                return Err(error);
            }
            tokio::select! {
                () = sleep(wait) => attempts += 1,
                () = self.drain.signaled() => return Err(error),
            }
        }
    }

    /// One attempt, of which everybody learns who asks for the application.
    ///
    /// # Errors
    /// It failed.
    pub(super) async fn once<F>(&self, attempt: &impl Fn() -> F) -> Result<Stream, ProxyError>
    where
        F: Future<Output = Result<Stream, ProxyError>>,
    {
        let error = match attempt().await {
            Ok(stream) => {
                self.away.set(None);
                self.departure.over();
                return Ok(stream);
            }
            Err(error) => error,
        };
        if !error.code.is_unreached() {
            return Err(error);
        }
        let now = Instant::now();
        // What was found so long ago says nothing of now: it may have been back, and be started again.
        let known = self.away.get().filter(|away| now.duration_since(away.seen) < self.limits.failfast);
        self.away.set(Some(Away { since: known.map_or(now, |away| away.since), seen: now }));
        self.left.notify_waiters();
        // One that is only slow has not left.
        if error.code == Code::ConnectFailed {
            self.departure.found();
        }
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn reach(capacity: usize) -> (drain::Signal, Reach) {
        let (signal, watch) = drain::channel();
        (signal, until(capacity, watch))
    }

    fn until(capacity: usize, drain: drain::Watch) -> Reach {
        let backoff = Backoff { min: MS(100), max: MS(10_000), jitter: 0.0 };
        Reach::new(Queue { capacity, failfast: MS(1000) }, backoff, &InFlight::new(capacity), drain)
    }

    async fn refused() -> Result<Stream, ProxyError> {
        Err(ProxyError::new(Code::ConnectFailed, "refused"))
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_until_the_application_has_been_away_for_too_long() {
        let ((_signal, reach), start) = (reach(10), Instant::now());
        let attempts = Cell::new(0);
        let attempt = || {
            attempts.set(attempts.get() + 1);
            refused()
        };
        assert_eq!(reach.connect(attempt).await.err().map(|e| e.code), Some(Code::ConnectFailed));
        assert_eq!((attempts.get(), start.elapsed()), (4, MS(700)), "after 0, 100, 300 and 700 ms");
        tokio::time::sleep(MS(300)).await;
        assert!(reach.connect(attempt).await.is_err());
        assert_eq!((attempts.get(), start.elapsed()), (5, MS(1000)), "one attempt, at once");
    }

    /// Nobody has asked between two outages, so nobody has seen that the first one ended.
    #[tokio::test(start_paused = true)]
    async fn an_outage_long_after_another_is_waited_for_as_well() {
        let (_signal, reach) = reach(10);
        assert!(reach.connect(refused).await.is_err());
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let start = Instant::now();
        assert!(reach.connect(refused).await.is_err());
        assert_eq!(start.elapsed(), MS(700), "as long as the first time");
    }

    /// It ends with its proxy, and comes back somewhere else.
    #[tokio::test(start_paused = true)]
    async fn nobody_waits_while_the_proxy_ends() {
        let (signal, watch) = drain::channel();
        let (reach, start) = (until(10, watch), Instant::now());
        let ending = async {
            sleep(MS(150)).await;
            signal.drain(MS(0)).await;
        };
        let (waiting, ()) = tokio::join!(reach.connect(refused), ending);
        assert_eq!((waiting.err().map(|e| e.code), start.elapsed()), (Some(Code::ConnectFailed), MS(150)));
        assert!(reach.connect(refused).await.is_err());
        assert_eq!(start.elapsed(), MS(150), "one attempt");
    }

    #[tokio::test(start_paused = true)]
    async fn an_application_has_left_where_nobody_listens_until_somebody_does() {
        let (_signal, reach) = reach(10);
        let slow = || async { Err::<Stream, _>(ProxyError::new(Code::ConnectTimeout, "slow")) };
        assert!(reach.once(&slow).await.is_err() && !reach.departure().is_found());
        assert!(reach.once(&refused).await.is_err() && reach.departure().is_found());
        let there = || async { Ok(Stream::tcp(connected().await)) };
        assert!(reach.once(&there).await.is_ok() && !reach.departure().is_found());
    }

    async fn connected() -> tokio::net::TcpStream {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_bounded() {
        let (_signal, reach) = reach(1);
        let (one, two) = tokio::join!(reach.connect(refused), reach.connect(refused));
        assert_eq!(one.err().map(|e| e.code), Some(Code::ConnectFailed));
        assert_eq!(two.err().map(|e| e.code), Some(Code::LoadShed));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_anothers_attempt_is_bounded_too() {
        let (_signal, reach) = reach(2);
        let shared = async {
            sleep(MS(500)).await;
            Ok(())
        };
        let of = |code| async move { Err::<(), _>(ProxyError::new(code, "")) };
        let (making, a, b, c) = tokio::join!(
            reach.again(refused),
            reach.wait(shared),
            reach.wait(async {
                sleep(MS(600)).await;
                of(Code::ConnectFailed).await
            }),
            reach.wait(std::future::pending::<Result<(), _>>()),
        );
        assert_eq!(making.err().map(|e| e.code), Some(Code::ConnectFailed), "it has no place of its own");
        assert!(a.is_ok());
        assert_eq!(b.err().map(|e| e.code), Some(Code::ConnectFailed));
        assert_eq!(c.err().map(|e| e.code), Some(Code::LoadShed), "there are two places");
    }
}
