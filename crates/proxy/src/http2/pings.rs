//! PINGs: whether a silent peer is still there, and how much comes in within one round trip.
//!
//! Any byte from the peer counts as life, so a busy connection is never pinged for that: once per interval it is asked whether it
//! read something, not once per frame. Where windows shall follow the connection's speed, one that receives is pinged now and then,
//! and less often once its window fits. There is one PING on its way at most, and one answer serves both.

use super::guarded::Link;
use h2::{Ping, PingPong};
use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};
use weft_model::{decide::bandwidth::Window, endpoint::Http2KeepAlive};

pub(crate) struct Pings {
    pings: PingPong,
    link: Rc<Link>,
    /// What had been received when the PING went out that is on its way.
    out: Option<u64>,
    life: Option<Life>,
    speed: Option<Speed>,
}

/// Whether the peer is there.
struct Life {
    params: Http2KeepAlive,
    timer: Pin<Box<Sleep>>,
    seen: u32,
    waiting: bool,
}

/// How large the window shall be.
struct Speed {
    window: Window,
    grown: Option<u32>,
    /// What had been received at the last look.
    seen: u64,
    next: Instant,
    wait: Duration,
}

/// The time between two looks at the speed: from the shortest, while the window grows, to the longest.
const WAITS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

/// The peer did not answer in time.
#[derive(Debug)]
pub(crate) struct Silent;

impl Pings {
    /// For a connection that wants either; `window` is that of a connection whose window follows its speed.
    pub(crate) fn new(
        keep_alive: Option<Http2KeepAlive>,
        window: Option<u32>,
        pings: impl FnOnce() -> Option<PingPong>,
        link: &Rc<Link>,
    ) -> Option<Self> {
        if keep_alive.is_none() && window.is_none() {
            return None;
        }
        let life = keep_alive.map(|params| {
            let timer = Box::pin(sleep(params.interval));
            Life { params, timer, seen: link.reads(), waiting: false }
        });
        let speed = window.map(|window| Speed {
            window: Window::new(window),
            grown: None,
            seen: link.received(),
            next: Instant::now(),
            wait: WAITS[0],
        });
        Some(Self { pings: pings()?, link: Rc::clone(link), out: None, life, speed })
    }

    /// Ready when the peer is gone. `idle` says that no stream is open.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, idle: bool) -> Poll<Silent> {
        loop {
            if let Some(received) = self.out
                && self.pings.poll_pong(cx).is_ready()
            {
                // An error says that the connection has ended, which its driver sees itself.
                self.answered(received);
            }
            if self.measure() {
                continue;
            }
            match self.watch(cx, idle) {
                Watched::Gone => return Poll::Ready(Silent),
                Watched::Asked => {}
                Watched::Waits => return Poll::Pending,
            }
        }
    }

    /// The window that the connection shall have from now on, once.
    pub(crate) fn grown(&mut self) -> Option<u32> {
        self.speed.as_mut()?.grown.take()
    }

    fn answered(&mut self, received: u64) {
        self.out = None;
        if let Some(life) = &mut self.life {
            life.waiting = false;
            life.arm();
        }
        if let Some(speed) = &mut self.speed {
            let [shortest, longest] = WAITS;
            speed.grown = speed.window.sample(self.link.received() - received).or(speed.grown);
            speed.wait = if speed.grown.is_some() { shortest } else { (speed.wait * 4).min(longest) };
            speed.next = Instant::now() + speed.wait;
            speed.seen = self.link.received();
        }
    }

    /// Asks for a round trip if something came since the last one. Says whether it did.
    fn measure(&mut self) -> bool {
        let Some(speed) = &self.speed else { return false };
        let due = self.out.is_none() && self.link.received() > speed.seen && Instant::now() >= speed.next;
        due && self.ask()
    }

    /// Sends a PING unless one is on its way. Says whether one is.
    fn ask(&mut self) -> bool {
        if self.out.is_none() && self.pings.send_ping(Ping::opaque()).is_ok() {
            self.out = Some(self.link.received());
        }
        self.out.is_some()
    }

    fn watch(&mut self, cx: &mut Context<'_>, idle: bool) -> Watched {
        let reads = self.link.reads();
        let Some(life) = &mut self.life else { return Watched::Waits };
        loop {
            if life.timer.as_mut().poll(cx).is_pending() {
                return Watched::Waits;
            }
            let alive = reads != life.seen;
            life.seen = reads;
            if life.waiting && !alive {
                return Watched::Gone;
            }
            if !life.waiting && !alive && (life.params.while_idle || !idle) {
                life.waiting = true;
                life.timer.as_mut().reset(Instant::now() + life.params.timeout);
                break;
            }
            life.arm();
        }
        if !self.ask()
            && let Some(life) = &mut self.life
        {
            life.waiting = false;
            life.arm();
        }
        Watched::Asked
    }
}

enum Watched {
    Waits,
    Asked,
    Gone,
}

impl Life {
    fn arm(&mut self) {
        self.timer.as_mut().reset(Instant::now() + self.params.interval);
    }
}
