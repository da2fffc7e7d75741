//! Carries bytes between a connection of the mesh and one of the host, until both have ended or neither says anything.
//!
//! The last step of egress and of published ports. Each connection holds one of a bounded number of places: silence gives
//! it back, and who comes when all are taken is refused at once instead of waiting unheard.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use weft_transport::{
    Stream,
    copy::duplex,
    socket::{self, AcceptOptions},
};

/// A connection on which no byte has passed for this long gives its place back.
pub(super) const IDLE: Duration = Duration::from_secs(60 * 60);
/// A peer that is gone without a word is asked after this long, and noticed some ten minutes later.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How many connections there may be at once.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Semaphore>);

impl Places {
    pub(super) fn new(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places)))
    }

    /// `None` if all are taken. Dropping it gives it back.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_owned().ok()
    }
}

/// How carrying ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides have ended.
    Ended,
    /// Nothing passed for too long.
    Idle,
}

/// Carries between two connections. A cut of one, and silence for `idle`, reset the other: neither is ever taken for an end.
pub(super) async fn carry(a: TcpStream, b: TcpStream, idle: Duration) -> io::Result<End> {
    let options = AcceptOptions { keepalive: Some(KEEPALIVE), user_timeout: None };
    socket::accepted(&a, &options)?;
    socket::accepted(&b, &options)?;
    let (mut a, mut b) = (Stream::tcp(a), Stream::tcp(b));
    let heard = Heard::now();
    let outcome = tokio::select! {
        outcome = duplex(&mut a, &mut b, |_, _| heard.note()) => Some(outcome),
        () = heard.silence(idle) => None,
    };
    match outcome {
        Some(outcome) => outcome.result.map(|()| End::Ended).map_err(io::Error::other),
        None => {
            a.reset_on_close();
            b.reset_on_close();
            Ok(End::Idle)
        }
    }
}

/// When bytes passed last.
struct Heard {
    start: Instant,
    /// Since `start`.
    millis: AtomicU64,
}

impl Heard {
    fn now() -> Self {
        Self { start: Instant::now(), millis: AtomicU64::new(0) }
    }

    fn note(&self) {
        self.millis.store(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Resolves when nothing has passed for `idle`. One timer, set again no more than once per `idle`.
    async fn silence(&self, idle: Duration) {
        loop {
            let until = self.start + Duration::from_millis(self.millis.load(Relaxed)) + idle;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// Two ends of one connection.
    pub(in crate::supervisor) async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (dialled, listener.accept().await.unwrap().0)
    }

    /// Reads to the end; a cut is an error.
    pub(in crate::supervisor) async fn rest(stream: &mut TcpStream) -> Result<String, io::ErrorKind> {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.map_err(|e| e.kind()).map(|_| text)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_byte() {
        let (start, heard) = (Instant::now(), Heard::now());
        let minute = Duration::from_secs(60);
        let speaking = async {
            for _ in 0..4 {
                tokio::time::sleep(IDLE - minute).await;
                heard.note();
            }
        };
        tokio::join!(heard.silence(IDLE), speaking);
        assert_eq!(start.elapsed(), 4 * (IDLE - minute) + IDLE);
    }

    #[tokio::test]
    async fn silence_is_no_end() {
        let ((mut client, inside), (outside, mut server)) = (pair().await, pair().await);
        assert_eq!(carry(inside, outside, Duration::from_millis(50)).await.unwrap(), End::Idle);
        for end in [&mut client, &mut server] {
            assert_eq!(rest(end).await, Err(io::ErrorKind::ConnectionReset));
        }
    }

    #[tokio::test]
    async fn both_ends_end_it_and_a_cut_stays_a_cut() {
        let ((mut client, inside), (outside, mut server)) = (pair().await, pair().await);
        let carried = tokio::spawn(carry(inside, outside, IDLE));
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut server).await.unwrap(), "question");
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(rest(&mut client).await.unwrap(), "answer");
        assert_eq!(carried.await.unwrap().unwrap(), End::Ended);

        let ((mut client, inside), (outside, server)) = (pair().await, pair().await);
        let carried = tokio::spawn(carry(inside, outside, IDLE));
        server.set_zero_linger().unwrap();
        drop(server);
        assert_eq!(rest(&mut client).await, Err(io::ErrorKind::ConnectionReset));
        carried.await.unwrap().unwrap_err();
    }

    #[test]
    fn places_come_back() {
        let places = Places::new(1);
        let first = places.take();
        assert!(first.is_some() && places.take().is_none());
        drop(first);
        assert!(places.take().is_some());
    }
}
