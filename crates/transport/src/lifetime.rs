//! Connections that must end because what they were opened with is over: asked to end at one time, cut off at a later one.
//!
//! ```text
//! tls ─► Stream::expires ─► Lifetimes::open(ask, cut) ─► Stream::bound      asked: the protocol ends in order
//! clock ─► Lifetimes::advance(now) ─────────────────────────┘               cut:   reads and writes fail
//! ```
//! The clock is the caller's: times are compared, never measured. It must not know what was over, or what a connection carries.

use futures_util::task::AtomicWaker;
use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::Context,
    time::SystemTime,
};
use tokio::sync::Notify;

const SERVING: u8 = 0;
const ASKED: u8 = 1;
const CUT: u8 = 2;

/// All connections of a process whose time is limited. Cheap to clone: the clones are one.
///
/// The table is locked when such a connection opens and closes, and while time advances; never per request.
#[derive(Clone, Default)]
pub struct Lifetimes(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    /// By the time of what happens next, and a number that tells connections apart.
    due: BTreeMap<(SystemTime, u64), Arc<Inner>>,
    opened: u64,
}

/// How long one connection may live. Held by its stream: dropping it means that the connection is closed.
pub struct Lifetime {
    inner: Arc<Inner>,
    all: Lifetimes,
}

/// Says how far a connection's life has come. Cheap to clone.
#[derive(Clone)]
pub struct Life(Arc<Inner>);

struct Inner {
    ask: SystemTime,
    cut: SystemTime,
    number: u64,
    phase: AtomicU8,
    asked: Notify,
    /// The task that reads and writes the connection, while it waits.
    io: AtomicWaker,
}

/// What [`Lifetimes::advance`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advanced {
    pub asked: u64,
    pub cut: u64,
    /// When there is something to do again.
    pub next: Option<SystemTime>,
}

impl Lifetimes {
    /// A connection that is asked to end at `ask` and cut off at `cut`.
    pub fn open(&self, ask: SystemTime, cut: SystemTime) -> Lifetime {
        let mut table = self.lock();
        table.opened += 1;
        let inner = Arc::new(Inner {
            ask: ask.min(cut),
            cut,
            number: table.opened,
            phase: AtomicU8::new(SERVING),
            asked: Notify::new(),
            io: AtomicWaker::new(),
        });
        table.due.insert((inner.ask, inner.number), inner.clone());
        Lifetime { inner, all: self.clone() }
    }

    /// Asks and cuts off whatever is due at `now`.
    pub fn advance(&self, now: SystemTime) -> Advanced {
        let mut table = self.lock();
        let mut done = Advanced::default();
        while let Some(first) = table.due.first_entry() {
            if first.key().0 > now {
                done.next = Some(first.key().0);
                break;
            }
            let inner = first.remove();
            if inner.phase.load(Relaxed) == SERVING {
                done.asked += 1;
                inner.phase.store(ASKED, Relaxed);
                inner.asked.notify_waiters();
                table.due.insert((inner.cut, inner.number), inner);
            } else {
                done.cut += 1;
                inner.phase.store(CUT, Relaxed);
                inner.io.wake();
            }
        }
        done
    }

    /// Connections that are open and not cut off.
    pub fn open_now(&self) -> usize {
        self.lock().due.len()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lifetime {
    pub fn life(&self) -> Life {
        Life(self.inner.clone())
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.inner.phase.load(Relaxed) != SERVING
    }

    /// Whether reads and writes fail from now on.
    pub(crate) fn is_cut(&self) -> bool {
        self.inner.phase.load(Relaxed) == CUT
    }

    /// The same; if not, the task is woken when they do.
    pub(crate) fn poll_cut(&self, cx: &mut Context<'_>) -> bool {
        self.inner.io.register(cx.waker());
        self.is_cut()
    }

    pub(crate) fn error() -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, "the certificate that the connection was opened with is over")
    }
}

impl Drop for Lifetime {
    fn drop(&mut self) {
        let Inner { ask, cut, number, .. } = *self.inner;
        let mut table = self.all.lock();
        if table.due.remove(&(ask, number)).is_none() {
            table.due.remove(&(cut, number));
        }
    }
}

impl Life {
    /// Whether the connection shall take nothing new.
    pub fn is_ending(&self) -> bool {
        self.0.phase.load(Relaxed) != SERVING
    }

    /// Resolves when the connection shall take nothing new. Cancel-safe.
    pub async fn ending(&self) {
        let asked = self.0.asked.notified();
        tokio::pin!(asked);
        // Before the look at the phase, so that nothing between the two is missed.
        asked.as_mut().enable();
        if !self.is_ending() {
            asked.await;
        }
    }
}

impl fmt::Debug for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifetime").field("ask", &self.inner.ask).field("cut", &self.inner.cut).finish_non_exhaustive()
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life").field("ending", &self.is_ending()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Lifetimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifetimes").field("open", &self.open_now()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Stream, tls::test::tcp_pair};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn asked_first_and_cut_off_later() {
        let all = Lifetimes::default();
        let (early, late) = (all.open(at(10), at(20)), all.open(at(15), at(25)));
        let life = early.life();
        assert_eq!(all.advance(at(9)), Advanced { asked: 0, cut: 0, next: Some(at(10)) });
        let told = tokio::spawn({
            let life = life.clone();
            async move { life.ending().await }
        });
        tokio::task::yield_now().await;
        assert!(!told.is_finished() && !life.is_ending());
        assert_eq!(all.advance(at(10)), Advanced { asked: 1, cut: 0, next: Some(at(15)) });
        told.await.unwrap();
        life.ending().await;
        assert!(life.is_ending() && !late.life().is_ending() && !early.is_cut());
        assert_eq!(all.advance(at(24)), Advanced { asked: 1, cut: 1, next: Some(at(25)) });
        assert!(early.is_cut() && !late.is_cut());
        assert_eq!(all.open_now(), 1);
    }

    /// A clock that jumps over both times, and one that is set back.
    #[test]
    fn clocks_may_jump() {
        let all = Lifetimes::default();
        let one = all.open(at(10), at(20));
        assert_eq!(all.advance(at(100)), Advanced { asked: 1, cut: 1, next: None });
        assert!(one.is_cut());
        let two = all.open(at(10), at(20));
        all.advance(at(12));
        assert_eq!(all.advance(at(1)), Advanced { asked: 0, cut: 0, next: Some(at(20)) });
        assert!(two.life().is_ending());
    }

    #[test]
    fn closed_connections_leave_nothing_behind() {
        let all = Lifetimes::default();
        drop(all.open(at(10), at(20)));
        let asked = all.open(at(10), at(20));
        all.advance(at(11));
        drop(asked);
        let cut = all.open(at(10), at(10));
        all.advance(at(11));
        drop(cut);
        assert_eq!(all.open_now(), 0);
    }

    #[tokio::test]
    async fn what_is_cut_off_can_be_neither_read_nor_written() {
        let all = Lifetimes::default();
        let (client, server) = tcp_pair().await;
        let (mut client, mut server) = (Stream::tcp(client), Stream::tcp(server));
        server.bound(all.open(at(10), at(20)));
        client.write_all(b"before").await.unwrap();
        let mut got = [0; 6];
        server.read_exact(&mut got).await.unwrap();
        let waits = tokio::spawn(async move {
            let outcome = server.read(&mut [0]).await;
            (outcome, server)
        });
        tokio::task::yield_now().await;
        all.advance(at(20));
        let (outcome, mut server) = waits.await.unwrap();
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        client.write_all(b"after").await.unwrap();
        assert!(server.read(&mut [0]).await.is_err() && server.write(b"x").await.is_err());
        drop(server);
        assert_eq!(all.open_now(), 0);
    }
}
