//! The course of one request over all its attempts: how long each part of it may take, how far it has come, and whether it is
//! sent once more (data plane 4.10, 4.11).
//!
//! ```text
//! direct ─► agree ─┐
//!                  ▼
//! attempt ─► started ─► too_late? … ─► answered ─► again? ─┬─► passed on ─► too_late? …
//!    ▲                                                     │
//!    └───────────────────────── pause ◄────────────────────┘
//! ```
//! The direction says what is asked for, the exchanges say how far they have come; what follows is decided in
//! `model::decide`. A request of which nothing is asked carries an empty cell: no timer is made, nothing is kept.

use super::{BodyCopy, Copies};
use crate::error::{Code, ProxyError};
use std::{
    any::Any,
    cell::{Cell, OnceCell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep};
use weft_model::{
    decide::{
        deadline::{self, Late, Progress},
        retry::{Outcome, RetryTerms, Standing, Verdict},
    },
    policy::outbound::Timeouts,
};

/// What is asked of one request. Lives as long as the request, whatever becomes of its attempts.
#[derive(Default)]
pub(crate) struct Course {
    running: OnceCell<Box<Running>>,
    followed: OnceCell<Rc<dyn Followed>>,
    copies: OnceCell<Rc<Copies>>,
    /// What the client was not told, or not as a reply.
    cut: OnceCell<Box<ProxyError>>,
    /// How many attempts have begun.
    attempts: Cell<u32>,
    /// The present attempt stands in for one that nobody has answered.
    stands_in: Cell<bool>,
}

/// How often a request goes to another endpoint because the last one did not answer and asking again does no harm.
pub(super) const MAX_AGAIN: usize = 3;

/// What a direction keeps of a request over all its attempts.
pub(crate) trait Followed: Any {
    /// There will be no other attempt: the client is told this by the proxy itself.
    fn given_up(&self, error: &ProxyError);
}

struct Running {
    timeouts: Timeouts,
    /// How long the client waits for the head of a response.
    answer: Option<Duration>,
    retries: Option<Retries>,
    /// Retries made so far.
    made: Cell<u32>,
    pause: Cell<Duration>,
    progress: Cell<Progress>,
    /// What the exchange said last of the bytes that it has moved.
    moved: Cell<u64>,
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
}

/// What is asked for concerning retries, and who answers for them.
pub(crate) struct Retries {
    pub(crate) terms: Rc<RetryTerms>,
    pub(crate) route: Rc<dyn Retrying>,
}

/// What a route knows and does about the retries of its requests.
pub(crate) trait Retrying {
    /// Whether a backend could take another attempt now, without waiting for one.
    fn is_ready(&self) -> bool;

    /// Takes one retry out of the route's budget, if it has one; false if that is spent.
    fn afford(&self) -> bool {
        true
    }

    fn count(&self, event: Retried);
}

/// What is counted of retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retried {
    /// A request is sent once more.
    Requested,
    /// A retry brought an answer that needs no other.
    Succeeded,
    /// It would have been worth another attempt, but all were made.
    LimitExceeded,
    /// It would have been worth another attempt, but no backend was ready.
    Overflow,
}

impl Course {
    /// Says what is asked of the request, whose head came at `began`. Only the first word counts: a request keeps what was
    /// agreed though its attempts are decided anew.
    pub(crate) fn agree(&self, began: std::time::Instant, timeouts: Timeouts, retries: Option<Retries>) {
        self.agree_all(began, timeouts, None, retries);
    }

    /// The same where the head of the response must come within `answer`, whatever it takes.
    pub(crate) fn agree_all(
        &self,
        began: std::time::Instant,
        timeouts: Timeouts,
        answer: Option<Duration>,
        retries: Option<Retries>,
    ) {
        self.running.get_or_init(|| {
            Box::new(Running {
                timeouts,
                answer,
                retries,
                made: Cell::new(0),
                pause: Cell::new(Duration::ZERO),
                progress: Cell::new(Progress { began, active: None, sent: None, head: None }),
                moved: Cell::new(0),
                timer: RefCell::new(None),
            })
        });
    }

    /// What the direction keeps of the request; made by its first attempt.
    pub(crate) fn follow<T: Followed>(&self, make: impl FnOnce() -> T) -> Option<Rc<T>> {
        let kept = Rc::clone(self.followed.get_or_init(|| Rc::new(make())));
        (kept as Rc<dyn Any>).downcast().ok()
    }

    /// No attempt is left, and nothing has been said to the record of the last.
    pub(crate) fn give_up(&self, error: &ProxyError) {
        if let Some(followed) = self.followed.get() {
            followed.given_up(error);
        }
    }

    /// Has the request's body copied as it is passed on, from now on, within `time` and whatever becomes of its attempts.
    pub(crate) fn copy(&self, copies: Vec<BodyCopy>, time: Duration) {
        self.copies.get_or_init(|| Copies::within(copies, time));
    }

    /// Whether copies were taken, or there was nobody to take one.
    pub(crate) fn is_copied(&self) -> bool {
        self.copies.get().is_some()
    }

    pub(super) fn copies(&self) -> Option<&Rc<Copies>> {
        self.copies.get()
    }

    pub(crate) fn is_agreed(&self) -> bool {
        self.running.get().is_some()
    }

    /// Whether no attempt before this one was decided: what counts requests, or is drawn for each, counts and draws now.
    pub(crate) fn is_first(&self) -> bool {
        self.attempts.get() <= 1
    }

    /// Whether this attempt stands in for one before it, which was counted where attempts are: what was asked for is one of them,
    /// however many endpoints did not answer.
    pub(crate) fn is_counted(&self) -> bool {
        self.stands_in.get()
    }

    /// The attempt that begins next stands in for the present one, which nobody has answered.
    pub(super) fn stand_in(&self) {
        self.stands_in.set(true);
    }

    /// An attempt begins.
    pub(super) fn attempt(&self) {
        self.attempts.set(self.attempts.get().saturating_add(1));
        if let Some(running) = self.running.get() {
            running.advance(|progress| Progress { began: progress.began, active: None, sent: None, head: None });
        }
    }

    /// The attempt has a connection, and is sent from now on.
    pub(super) fn started(&self) {
        if let Some(running) = self.running.get() {
            running.advance(|progress| Progress { active: Some(now()), ..progress });
        }
    }

    /// The head of the response came.
    pub(super) fn answered(&self) {
        if let Some(running) = self.running.get() {
            running.advance(|progress| Progress { head: Some(now()), ..progress });
        }
    }

    /// Ready when the request is too late with something; else the task is woken when it is. Asked whenever nothing else is
    /// to be done. `moved` is any number that changes when bytes of a body move; `sent` says that the request is complete.
    pub(super) fn too_late(&self, cx: &mut Context<'_>, moved: u64, sent: bool) -> Poll<ProxyError> {
        match self.running.get() {
            Some(running) => running.too_late(cx, moved, sent),
            None => Poll::Pending,
        }
    }

    /// What comes of `future`, unless the request is too late before.
    pub(crate) async fn in_time<T>(&self, mut future: Pin<&mut impl Future<Output = T>>) -> Result<T, ProxyError> {
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => self.too_late(cx, 0, false).map(Err),
        })
        .await
    }

    /// The request ends by `error`, and the client gets no reply that says so.
    pub(super) fn cut_off(&self, error: &ProxyError) {
        self.cut.get_or_init(|| Box::new(error.clone()));
    }

    /// By what the request was cut off, if it was.
    pub(super) fn cut(&self) -> Option<&ProxyError> {
        self.cut.get().map(|error| &**error)
    }

    /// How many bytes of the body to keep, if there may be another attempt.
    pub(super) fn keeps(&self) -> Option<usize> {
        let running = self.running.get()?;
        running.retries.as_ref().filter(|retries| running.made.get() < retries.terms.limit).map(|r| r.terms.body)
    }

    /// Whether so many bytes of a body may be kept.
    pub(super) fn fits(&self, content: u64) -> bool {
        self.keeps().is_some_and(|limit| content <= limit as u64)
    }

    /// Whether the answer to a gRPC request must be known to its status before it is passed on: another attempt may follow, or one
    /// has been made and is counted by how it ended. `whole` as for [`Self::again`].
    pub(super) fn peeks(&self, whole: bool) -> bool {
        let Some(running) = self.running.get() else { return false };
        let (made, retries) = (running.made.get(), running.retries.as_ref());
        retries.is_some_and(|r| !r.terms.codes.is_empty() && (made > 0 || whole && r.terms.limit > 0))
    }

    /// Whether the request is sent once more after an attempt that ended in `outcome`. `whole` says that it was read to its
    /// end and all of it is kept.
    pub(super) fn again(&self, outcome: Outcome, whole: bool) -> bool {
        let again = self.running.get().is_some_and(|running| running.again(outcome, whole));
        if again {
            self.stands_in.set(false);
        }
        again
    }

    /// The same after an attempt that the proxy itself has failed.
    pub(super) fn again_failed(&self, error: &ProxyError, whole: bool) -> bool {
        let outcome = match error.code {
            Code::Failfast | Code::BreakerShut => Outcome::Failfast,
            Code::ResponseHeadersTimeout => Outcome::Late,
            _ => return false,
        };
        self.again(outcome, whole)
    }

    /// The wait before the next attempt.
    pub(super) fn pause(&self) -> Sleep {
        tokio::time::sleep(self.running.get().map(|running| running.pause.get()).unwrap_or_default())
    }
}

impl Running {
    fn advance(&self, change: impl FnOnce(Progress) -> Progress) {
        self.progress.set(change(self.progress.get()));
    }

    fn too_late(&self, cx: &mut Context<'_>, moved: u64, sent: bool) -> Poll<ProxyError> {
        let mut progress = self.progress.get();
        if self.moved.replace(moved) != moved && progress.active.is_some() && self.timeouts.idle.is_some() {
            progress.active = Some(now());
        }
        if sent && progress.sent.is_none() {
            progress.sent = Some(now());
        }
        self.progress.set(progress);
        let retries = self.retries.as_ref();
        // The last attempt may take the time that there is.
        let attempt = retries.filter(|r| self.made.get() < r.terms.limit).and_then(|r| r.terms.timeout);
        let Some((at, late)) = deadline::next(&self.timeouts, attempt, self.answer, &progress) else {
            return Poll::Pending;
        };
        let at = Instant::from_std(at);
        let mut timer = self.timer.borrow_mut();
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if at < timer.deadline() {
            timer.as_mut().reset(at);
        }
        while Instant::now() < at {
            ready!(timer.as_mut().poll(cx));
            // A time that was put off is set when it would have come, not whenever it is put off.
            timer.as_mut().reset(at);
        }
        Poll::Ready(too_late(late))
    }

    fn again(&self, outcome: Outcome, whole: bool) -> bool {
        let Some(Retries { terms, route }) = &self.retries else { return false };
        let made = self.made.get();
        if made == 0 && !terms.includes(outcome) {
            return false;
        }
        let timeout = self.timeouts.request;
        let left = timeout.map(|timeout| timeout.saturating_sub(now().duration_since(self.progress.get().began)));
        let standing = Standing { made, whole, ready: route.is_ready(), left };
        match terms.decide(outcome, standing, fastrand::f64()) {
            Verdict::Settled => false,
            Verdict::Recovered => {
                route.count(Retried::Succeeded);
                false
            }
            Verdict::LimitExceeded => {
                route.count(Retried::LimitExceeded);
                false
            }
            Verdict::Overflow => {
                route.count(Retried::Overflow);
                false
            }
            Verdict::Again(_) if !route.afford() => false,
            Verdict::Again(pause) => {
                route.count(Retried::Requested);
                self.made.set(made + 1);
                self.pause.set(pause);
                true
            }
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn too_late(late: Late) -> ProxyError {
    let (code, text) = match late {
        Late::Headers => (Code::ResponseHeadersTimeout, "response headers timeout"),
        Late::Response => (Code::ResponseTimeout, "response timeout"),
        Late::Idle => (Code::IdleTimeout, "idle timeout"),
        Late::Request => (Code::RequestTimeout, "request timeout"),
        Late::Answer => (Code::ProfileTimeout, "profile route timeout"),
    };
    ProxyError::new(code, text)
}
