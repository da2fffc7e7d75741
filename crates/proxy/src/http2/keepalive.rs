//! PINGs that find out whether a silent peer is still there.
//!
//! Any byte from the peer counts as life, so a busy connection is never pinged: once per interval it is asked whether it read
//! something, not once per frame.

use super::guarded::Link;
use h2::{Ping, PingPong};
use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::time::{Sleep, sleep};
use weft_model::endpoint::Http2KeepAlive;

pub(crate) struct KeepAlive {
    params: Http2KeepAlive,
    pings: PingPong,
    link: Rc<Link>,
    timer: Pin<Box<Sleep>>,
    seen: u32,
    waiting: bool,
}

/// The peer did not answer in time.
#[derive(Debug)]
pub(crate) struct Silent;

impl KeepAlive {
    pub(crate) fn new(params: Http2KeepAlive, pings: PingPong, link: Rc<Link>) -> Self {
        let timer = Box::pin(sleep(params.interval));
        Self { params, pings, seen: link.reads(), link, timer, waiting: false }
    }

    /// Ready when the peer is gone. `idle` says that no stream is open.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, idle: bool) -> Poll<Silent> {
        loop {
            if self.waiting && self.pings.poll_pong(cx).is_ready() {
                // An error says that the connection has ended, which its driver sees itself.
                self.waiting = false;
                self.arm();
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let alive = self.link.reads() != self.seen;
            self.seen = self.link.reads();
            if self.waiting && !alive {
                return Poll::Ready(Silent);
            }
            if !self.waiting
                && !alive
                && (self.params.while_idle || !idle)
                && self.pings.send_ping(Ping::opaque()).is_ok()
            {
                self.waiting = true;
                self.timer.as_mut().reset(tokio::time::Instant::now() + self.params.timeout);
                continue;
            }
            self.arm();
        }
    }

    fn arm(&mut self) {
        self.timer.as_mut().reset(tokio::time::Instant::now() + self.params.interval);
    }
}
