//! The connections that all requests to an endpoint share, and one attempt to establish another, whose outcome they share.
//!
//! Mostly there is one. Where it is full the next one is made, and the full one is kept until it has room again; the one that was
//! used last is asked first. Their number is bounded: [`super`] lets requests wait then.

use crate::error::{Code, ProxyError};
use std::{cell::RefCell, rc::Rc, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// What requests share.
pub(crate) trait Connection: Clone + 'static {
    /// It is worth keeping.
    fn is_good(&self) -> bool;
    /// It takes another request at once, or will say so soon.
    fn takes_another(&self) -> bool;
    /// It takes none at all, and has said so.
    fn takes_none(&self) -> bool;
    /// There are no requests on it.
    fn is_idle(&self) -> bool;
}

/// The most connections of a worker to one endpoint that take requests; what drains is left to the requests that it has. With the
/// hundred streams that servers commonly allow at least, they hold 25,600 requests.
pub(super) const MAX_CONNECTIONS: usize = 256;

/// The connections of one endpoint.
pub(crate) struct Shared<S> {
    state: RefCell<State<S>>,
}

type Waiter<S> = oneshot::Sender<Result<S, ProxyError>>;

struct State<S> {
    /// The one used last is the first.
    open: Vec<Open<S>>,
    /// Requests that wait for the connection under way; each of them is bounded by the limit of requests in flight.
    connecting: Option<Vec<Waiter<S>>>,
}

struct Open<S> {
    sender: S,
    /// Since when there have been no requests on it, as far as was looked.
    idle_since: Option<Instant>,
}

impl<S: Connection> Shared<S> {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self { state: RefCell::new(State { open: vec![], connecting: None }) })
    }

    /// An open connection that takes another request.
    pub(crate) fn open(&self) -> Option<S> {
        let open = &mut self.state.borrow_mut().open;
        match open.first() {
            Some(first) if first.sender.takes_another() => return Some(first.sender.clone()),
            None => return None,
            Some(_) => {}
        }
        open.retain(|open| open.sender.is_good());
        let at = open.iter().position(|open| open.sender.takes_another())?;
        open.swap(0, at);
        let first = open.first_mut()?;
        first.idle_since = None;
        Some(first.sender.clone())
    }

    /// Whether there are as many connections as there may be; asked when none of them takes another request.
    pub(crate) fn is_full(&self) -> bool {
        let State { open, connecting } = &*self.state.borrow();
        open.len() >= MAX_CONNECTIONS && connecting.is_none()
    }

    /// Whether the endpoint takes no requests at all: another connection would be of no use.
    pub(crate) fn takes_none(&self) -> bool {
        self.state.borrow().open.iter().any(|open| open.sender.is_good() && open.sender.takes_none())
    }

    /// A connection, which `connect` establishes unless another request is already doing so. The attempt is a task of
    /// its own: a request that gives up does not take the connection from those who wait with it.
    pub(crate) async fn get<F>(self: &Rc<Self>, connect: impl FnOnce() -> F) -> Result<S, ProxyError>
    where
        F: Future<Output = Result<S, ProxyError>> + 'static,
    {
        if let Some(open) = self.open() {
            return Ok(open);
        }
        let (waiter, answer) = oneshot::channel();
        let first = {
            let connecting = &mut self.state.borrow_mut().connecting;
            let first = connecting.is_none();
            connecting.get_or_insert_default().push(waiter);
            first
        };
        if first {
            let attempt = connect();
            let shared = Rc::clone(self);
            tokio::task::spawn_local(async move { shared.settle(attempt.await) });
        }
        answer
            .await
            .unwrap_or_else(|_| Err(ProxyError::new(Code::ConnectFailed, "the connection attempt was given up")))
    }

    /// Forgets what has ended, and but for the one used last what has been without requests for `timeout`.
    pub(crate) fn expire(&self, now: Instant, timeout: Duration) {
        let mut first = true;
        self.state.borrow_mut().open.retain_mut(|open| {
            let first = std::mem::take(&mut first);
            if first || !open.sender.is_idle() {
                open.idle_since = None;
                return open.sender.is_good();
            }
            let since = *open.idle_since.get_or_insert(now);
            open.sender.is_good() && now.duration_since(since) < timeout
        });
    }

    /// Forgets the connections; requests on them go on.
    pub(crate) fn clear(&self) {
        self.state.borrow_mut().open.clear();
    }

    fn settle(&self, outcome: Result<S, ProxyError>) {
        let waiters = {
            let State { open, connecting } = &mut *self.state.borrow_mut();
            if let Ok(sender) = &outcome {
                open.insert(0, Open { sender: sender.clone(), idle_since: None });
            }
            connecting.take()
        };
        for waiter in waiters.into_iter().flatten() {
            // A waiter that is gone was a request that gave up.
            let _ = waiter.send(outcome.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::task::LocalSet;

    /// A connection with a number, and what it says of itself.
    #[derive(Clone, Debug)]
    struct Fake(u32, Rc<Says>);

    #[derive(Debug, Default)]
    struct Says {
        ended: Cell<bool>,
        full: Cell<bool>,
        idle: Cell<bool>,
    }

    impl Connection for Fake {
        fn is_good(&self) -> bool {
            !self.1.ended.get()
        }

        fn takes_another(&self) -> bool {
            self.is_good() && !self.1.full.get()
        }

        fn takes_none(&self) -> bool {
            false
        }

        fn is_idle(&self) -> bool {
            self.1.idle.get()
        }
    }

    fn fake(number: u32) -> Fake {
        Fake(number, Rc::default())
    }

    #[tokio::test]
    async fn requests_share_one_attempt_and_its_outcome() {
        LocalSet::new()
            .run_until(async {
                let shared = Shared::<Fake>::new();
                let attempts = Rc::new(Cell::new(0));
                let get = |outcome: Result<Fake, ProxyError>| {
                    let (shared, attempts) = (Rc::clone(&shared), Rc::clone(&attempts));
                    async move {
                        let attempt = || async move {
                            attempts.set(attempts.get() + 1);
                            tokio::task::yield_now().await;
                            outcome
                        };
                        shared.get(attempt).await.map(|fake| fake.0)
                    }
                };
                let failed = || Err(ProxyError::new(Code::ConnectFailed, "refused"));
                let (a, b) = tokio::join!(get(failed()), get(Ok(fake(1))));
                assert!(a.is_err() && b.is_err(), "one attempt failed for both");
                let seven = fake(7);
                let (a, b) = tokio::join!(get(Ok(seven.clone())), get(Ok(fake(8))));
                assert_eq!((a.unwrap(), b.unwrap()), (7, 7));
                assert_eq!(get(Ok(fake(9))).await.unwrap(), 7, "open");
                assert_eq!(attempts.get(), 2);
                seven.1.ended.set(true);
                assert_eq!(get(Ok(fake(9))).await.unwrap(), 9);
            })
            .await;
    }

    #[tokio::test]
    async fn what_was_full_is_used_again_and_what_is_not_used_is_closed() {
        LocalSet::new()
            .run_until(async {
                let shared = Shared::<Fake>::new();
                let all: Vec<_> = (0..3).map(fake).collect();
                for next in &all {
                    let made = next.clone();
                    assert_eq!(shared.get(|| async { Ok(made) }).await.unwrap().0, next.0);
                    next.1.full.set(true);
                }
                assert!(shared.open().is_none());
                all[1].1.full.set(false);
                assert_eq!(shared.open().unwrap().0, 1, "it has room again");
                let (start, timeout) = (Instant::now(), Duration::from_secs(3));
                let at = |s| start + Duration::from_secs(s);
                let kept = || shared.state.borrow().open.iter().map(|open| open.sender.0).collect::<Vec<_>>();
                all[0].1.idle.set(true);
                all[1].1.idle.set(true);
                shared.expire(at(0), timeout);
                shared.expire(at(2), timeout);
                assert_eq!(kept(), [1, 2, 0]);
                shared.expire(at(3), timeout);
                assert_eq!(kept(), [1, 2], "the one used last stays");
                all[2].1.ended.set(true);
                shared.expire(at(3), timeout);
                assert_eq!(kept(), [1]);
                shared.clear();
                assert!(shared.open().is_none());
            })
            .await;
    }

    #[tokio::test]
    async fn one_that_ends_makes_room_for_another() {
        LocalSet::new()
            .run_until(async {
                let shared = Shared::<Fake>::new();
                let all: Vec<_> = (0..MAX_CONNECTIONS as u32).map(fake).collect();
                for made in all.clone() {
                    assert!(shared.open().is_none() && !shared.is_full(), "{}", made.0);
                    made.1.full.set(true);
                    shared.get(|| async { Ok(made) }).await.unwrap();
                }
                assert!(shared.open().is_none() && shared.is_full());
                all[3].1.ended.set(true);
                assert!(shared.open().is_none() && !shared.is_full());
            })
            .await;
    }

    #[tokio::test]
    async fn a_request_that_gives_up_leaves_the_attempt_to_the_others() {
        LocalSet::new()
            .run_until(async {
                let shared = Shared::<Fake>::new();
                let (go, wait) = oneshot::channel::<()>();
                let first = {
                    let shared = Rc::clone(&shared);
                    tokio::task::spawn_local(async move {
                        let _ =
                            shared.get(|| async move { wait.await.map(|()| fake(5)).map_err(|_| unreachable()) }).await;
                    })
                };
                tokio::task::yield_now().await;
                first.abort();
                let second = {
                    let shared = Rc::clone(&shared);
                    tokio::task::spawn_local(async move { shared.get(|| async { Ok(fake(6)) }).await })
                };
                tokio::task::yield_now().await;
                go.send(()).unwrap();
                assert_eq!(second.await.unwrap().unwrap().0, 5);
            })
            .await;
    }

    fn unreachable() -> ProxyError {
        ProxyError::new(Code::ConnectFailed, "unreachable")
    }
}
