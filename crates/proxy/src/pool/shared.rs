//! One connection for all requests, and one attempt to establish it, whose outcome they share.

use crate::error::{Code, ProxyError};
use std::{cell::RefCell, rc::Rc};
use tokio::sync::oneshot;

/// The one connection that all requests to an endpoint share.
pub(crate) struct Shared<S> {
    state: RefCell<State<S>>,
}

type Waiter<S> = oneshot::Sender<Result<S, ProxyError>>;

enum State<S> {
    Vacant,
    /// Requests that wait for the connection under way; each of them is bounded by the limit of requests in flight.
    Connecting(Vec<Waiter<S>>),
    Open(S),
}

impl<S: Clone + 'static> Shared<S> {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self { state: RefCell::new(State::Vacant) })
    }

    /// The open connection, if `alive` says it still is.
    pub(crate) fn open(&self, alive: impl Fn(&S) -> bool) -> Option<S> {
        let mut state = self.state.borrow_mut();
        match &*state {
            State::Open(sender) if alive(sender) => Some(sender.clone()),
            State::Open(_) => {
                *state = State::Vacant;
                None
            }
            _ => None,
        }
    }

    /// The connection, which `connect` establishes unless another request is already doing so. The attempt is a task of
    /// its own: a request that gives up does not take the connection from those who wait with it.
    pub(crate) async fn get<F>(
        self: &Rc<Self>,
        alive: impl Fn(&S) -> bool,
        connect: impl FnOnce() -> F,
    ) -> Result<S, ProxyError>
    where
        F: Future<Output = Result<S, ProxyError>> + 'static,
    {
        if let Some(open) = self.open(alive) {
            return Ok(open);
        }
        let (waiter, answer) = oneshot::channel();
        let first = {
            let mut state = self.state.borrow_mut();
            match &mut *state {
                State::Connecting(waiters) => {
                    waiters.push(waiter);
                    false
                }
                _ => {
                    *state = State::Connecting(vec![waiter]);
                    true
                }
            }
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

    /// Forgets the connection; requests on it go on.
    pub(crate) fn clear(&self) {
        let mut state = self.state.borrow_mut();
        if matches!(&*state, State::Open(_)) {
            *state = State::Vacant;
        }
    }

    fn settle(&self, outcome: Result<S, ProxyError>) {
        let next = outcome.as_ref().map_or(State::Vacant, |sender| State::Open(sender.clone()));
        let before = self.state.replace(next);
        if let State::Connecting(waiters) = before {
            for waiter in waiters {
                // A waiter that is gone was a request that gave up.
                let _ = waiter.send(outcome.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::task::LocalSet;

    #[tokio::test]
    async fn requests_share_one_attempt_and_its_outcome() {
        LocalSet::new()
            .run_until(async {
                let shared = Shared::<u32>::new();
                let attempts = Rc::new(Cell::new(0));
                let get = |outcome: Result<u32, ProxyError>| {
                    let (shared, attempts) = (Rc::clone(&shared), Rc::clone(&attempts));
                    async move {
                        shared
                            .get(
                                |_| true,
                                || async move {
                                    attempts.set(attempts.get() + 1);
                                    tokio::task::yield_now().await;
                                    outcome
                                },
                            )
                            .await
                    }
                };
                let failed = || Err(ProxyError::new(Code::ConnectFailed, "refused"));
                let (a, b) = tokio::join!(get(failed()), get(Ok(1)));
                assert!(a.is_err() && b.is_err(), "one attempt failed for both");
                let (a, b) = tokio::join!(get(Ok(7)), get(Ok(8)));
                assert_eq!((a.unwrap(), b.unwrap()), (7, 7));
                assert_eq!(get(Ok(9)).await.unwrap(), 7, "open");
                assert_eq!(attempts.get(), 2);
                assert_eq!(shared.open(|_| false), None, "no longer alive");
                assert_eq!(get(Ok(9)).await.unwrap(), 9);
            })
            .await;
    }

    #[tokio::test]
    async fn a_request_that_gives_up_leaves_the_attempt_to_the_others() {
        LocalSet::new()
            .run_until(async {
                let shared = Shared::<u32>::new();
                let (go, wait) = oneshot::channel::<()>();
                let first = {
                    let shared = Rc::clone(&shared);
                    tokio::task::spawn_local(async move {
                        let _ = shared
                            .get(|_| true, || async move { wait.await.map(|()| 5).map_err(|_| unreachable()) })
                            .await;
                    })
                };
                tokio::task::yield_now().await;
                first.abort();
                let second = {
                    let shared = Rc::clone(&shared);
                    tokio::task::spawn_local(async move { shared.get(|_| true, || async { Ok(6) }).await })
                };
                tokio::task::yield_now().await;
                go.send(()).unwrap();
                assert_eq!(second.await.unwrap().unwrap(), 5);
            })
            .await;
    }

    fn unreachable() -> ProxyError {
        ProxyError::new(Code::ConnectFailed, "unreachable")
    }
}
