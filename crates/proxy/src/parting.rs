//! How endpoints take their leave of connections that are kept: noticed as it happens, where somebody wants to know.
//!
//! Stands below `http2`, whose connections tell it, and `pool`, which looks at idle connections of HTTP/1 and is asked for the news.

use crate::http1;
use std::{
    cell::{Cell, RefCell},
    task::{Context, Poll, Waker},
};

/// What an endpoint has done to a connection that it was to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// It has said that it takes no more requests (GOAWAY).
    Said,
    Closed,
}

/// Who wants to know of it, and what has happened since.
#[derive(Debug, Default)]
pub(crate) struct Partings {
    news: Cell<Option<Parting>>,
    watcher: RefCell<Option<Waker>>,
}

impl Partings {
    pub(crate) fn tell(&self, parting: Parting) {
        // What was said before a connection closed counts.
        if self.news.get() != Some(Parting::Said) {
            self.news.set(Some(parting));
        }
        self.wake();
    }

    pub(crate) fn wake(&self) {
        if let Some(watcher) = &*self.watcher.borrow() {
            watcher.wake_by_ref();
        }
    }

    /// Whether an HTTP/1 connection that is about to be kept goes on: then its end wakes the watcher, if there is one.
    pub(crate) fn keeps(&self, connection: &mut http1::Connection) -> bool {
        let watcher = self.watcher.borrow();
        let Some(watcher) = &*watcher else { return true };
        if connection.poll_ended(&mut Context::from_waker(watcher)).is_pending() {
            return true;
        }
        self.news.set(self.news.get().or(Some(Parting::Closed)));
        watcher.wake_by_ref();
        false
    }

    /// Ready when an endpoint has parted; `ended` looks through what is idle.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, ended: impl FnOnce(&mut Context<'_>) -> bool) -> Poll<Parting> {
        let known = self.watcher.borrow().as_ref().is_some_and(|watcher| watcher.will_wake(cx.waker()));
        if !known {
            self.watcher.replace(Some(cx.waker().clone()));
        }
        let closed = ended(cx).then_some(Parting::Closed);
        self.news.take().or(closed).map_or(Poll::Pending, Poll::Ready)
    }
}
