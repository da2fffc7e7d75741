//! What a client without a proxy is told when those whom it asks leave: as without the mesh, its connection ends in order.
//!
//! ```text
//! the application says that it leaves ──┐
//! it closes, and nobody listens ────────┴─► Departure ─► each client's idle HTTP/1 connection closes, HTTP/2 says GOAWAY
//! ```
//! A proxy ends behind its application: until then a request on a kept connection would find nobody. One value stands for all who ask
//! the same; it lives on one worker. It must not know why they leave.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

/// Whether those whom some clients ask are gone, and which connections are to be told.
#[derive(Default)]
pub(crate) struct Departure {
    /// Nobody is there who would answer.
    gone: Cell<bool>,
    /// How often it was said that what is new shall go elsewhere.
    said: Cell<u64>,
    waiters: RefCell<Waiters>,
}

#[derive(Default)]
struct Waiters {
    next: u64,
    /// One per connection that waits.
    wakers: HashMap<u64, Waker>,
}

/// A connection that is told; dropped with it.
pub(crate) struct Waiter {
    departure: Rc<Departure>,
    number: u64,
}

impl Departure {
    /// Nobody is there any more, so that connections that wait for another request end.
    pub(crate) fn found(&self) {
        self.gone.set(true);
        self.say();
    }

    /// Somebody is there again.
    pub(crate) fn over(&self) {
        self.gone.set(false);
    }

    /// Those who are asked want what is new to go elsewhere, and go on with what they have.
    pub(crate) fn say(&self) {
        self.said.set(self.said.get() + 1);
        self.waiters.borrow().wakers.values().for_each(Waker::wake_by_ref);
    }

    pub(crate) fn is_found(&self) -> bool {
        self.gone.get()
    }

    /// Whether anybody would be told.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.waiters.borrow().wakers.is_empty()
    }

    /// Has `waker` woken whenever there is something to be told.
    pub(crate) fn enlist(self: &Rc<Self>, waiter: &mut Option<Waiter>, waker: &Waker) {
        let waiters = &mut *self.waiters.borrow_mut();
        let number = match waiter {
            Some(waiter) => waiter.number,
            None => {
                waiters.next += 1;
                *waiter = Some(Waiter { departure: Rc::clone(self), number: waiters.next });
                waiters.next
            }
        };
        waiters.wakers.insert(number, waker.clone());
    }

    /// Resolves when what is new shall go elsewhere. May be dropped at any time.
    pub(crate) async fn said(self: &Rc<Self>) {
        let (before, mut waiter) = (self.said.get(), None);
        poll_fn(|cx| {
            if self.said.get() != before {
                return Poll::Ready(());
            }
            self.enlist(&mut waiter, cx.waker());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.departure.waiters.borrow_mut().wakers.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{task::yield_now, time::timeout};

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told_and_leaves_nothing_behind() {
        let departure = Rc::new(Departure::default());
        assert!(!departure.is_awaited());
        let told = async {
            let (one, two) = (departure.said(), departure.said());
            tokio::join!(one, two);
        };
        let saying = async {
            yield_now().await;
            assert!(departure.is_awaited() && !departure.is_found());
            departure.say();
        };
        tokio::join!(told, saying);
        assert!(!departure.is_awaited() && !departure.is_found());
        departure.found();
        let late = timeout(std::time::Duration::from_secs(1), departure.said()).await;
        assert!(late.is_err(), "what was said before is not said to who comes later");
        assert!(departure.is_found());
        departure.over();
        assert!(!departure.is_found());
    }
}
