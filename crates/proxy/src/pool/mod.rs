//! Connections of one worker to one address, kept for the next request: idle HTTP/1 connections, and the shared HTTP/2
//! connection.
//!
//! Knows neither addresses nor TLS: the direction gives it the future that connects. Holds no timer; whoever owns the pool
//! calls [`Pool::expire`] now and then. While an HTTP/2 connection is full another one is used; while there are as many as there may
//! be, requests wait in line.

mod idle;
mod shared;

use crate::{
    config::Http1Pool,
    error::{Code, ProxyError},
    http1, http2,
    parting::{Parting, Partings},
    turn,
};
use idle::{Idle, IdleLimit};
use shared::{Connection, MAX_CONNECTIONS, Shared};
use std::{
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use weft_transport::Stream;

pub(crate) struct Pool {
    idle: Idle<http1::Connection>,
    shared: Rc<Shared<http2::Sender>>,
    /// How long connections are kept that nobody uses.
    idle_timeout: Duration,
    settings: http2::ClientSettings,
    /// Who waits for room; each of them is bounded by the limit of requests in flight.
    room: Rc<http2::Room>,
    /// How long.
    patience: Duration,
    partings: Rc<Partings>,
}

/// Slow requests hold up nobody but themselves: a connection that is full is left to them until it has room.
impl Connection for http2::Sender {
    fn is_good(&self) -> bool {
        self.is_good()
    }

    fn takes_another(&self) -> bool {
        self.is_good() && (self.has_room() || self.is_cold())
    }

    fn takes_none(&self) -> bool {
        !self.is_cold() && self.allows_none()
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }
}

impl Pool {
    /// Requests wait for room on HTTP/2 connections for as long as `patience`.
    pub(crate) fn new(http1: Http1Pool, settings: http2::ClientSettings, patience: Duration) -> Self {
        let limit = IdleLimit { connections: http1.max_idle, timeout: http1.idle_timeout };
        let (idle, shared, room) = (Idle::new(limit), Shared::new(), http2::Room::new());
        let partings = Rc::default();
        Self { idle, shared, idle_timeout: http1.idle_timeout, settings, room, patience, partings }
    }

    /// An idle connection that is still good, or a new one.
    pub(crate) async fn http1<F>(&self, connect: impl FnOnce() -> F) -> Result<http1::Connection, ProxyError>
    where
        F: Future<Output = Result<Stream, ProxyError>>,
    {
        while let Some(mut connection) = self.idle.take(turn::now().into()) {
            if connection.is_reusable() {
                return Ok(connection);
            }
        }
        // Boxed: most requests find a connection, and need not carry the room for making one.
        Ok(http1::Connection::new(Box::pin(connect()).await?))
    }

    pub(crate) fn keep(&self, mut connection: http1::Connection) {
        if self.partings.keeps(&mut connection) {
            self.idle.keep(turn::now().into(), connection);
        }
    }

    /// Ready when the endpoint has closed a connection that is kept, or has said that it will. One task at a time may ask, and is
    /// woken when the pool ends as well.
    pub(crate) fn poll_parting(&self, cx: &mut Context<'_>) -> Poll<Parting> {
        self.partings.poll(cx, |cx| self.idle.drops(|connection| connection.poll_ended(cx).is_pending()))
    }

    /// A sender that may open a stream, on a shared connection or, when none is there that takes it, on a new one.
    pub(crate) async fn http2<F>(&self, connect: impl Fn() -> F) -> Result<http2::Sender, ProxyError>
    where
        F: Future<Output = Result<Stream, ProxyError>> + 'static,
    {
        // Until when the request waits for room, once it had to.
        let mut until = None;
        loop {
            let behind = until.is_none() && self.room.is_awaited();
            let open = if behind { None } else { self.shared.open() };
            let fresh = open.is_none();
            let mut sender = match open {
                Some(sender) => sender,
                None if self.shared.takes_none() => {
                    return Err(ProxyError::new(Code::ConnectFailed, "the server allows no requests"));
                }
                None if behind || self.shared.is_full() => {
                    let until = *until.get_or_insert_with(|| Instant::now() + self.patience);
                    // Boxed, as all of this is that most requests do not need.
                    Box::pin(self.wait(until)).await?;
                    continue;
                }
                None => Box::pin(self.establish(&connect)).await?,
            };
            if !sender.has_room() {
                // A burst has met a fresh connection. Boxed: most requests find one that has settled.
                Box::pin(sender.settled()).await;
                if !sender.takes_another() {
                    continue;
                }
            }
            match sender.ready().await {
                Ok(()) => return Ok(sender),
                // It drains, or ended unnoticed: another connection takes its place.
                Err(error) => {
                    sender.leave();
                    if fresh {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Waits for its turn, and for room on a connection or for another one.
    async fn wait(&self, until: Instant) -> Result<(), ProxyError> {
        let room = self.room.wait(|| self.shared.open().is_some() || !self.shared.is_full());
        timeout_at(until, room).await.map_err(|_| {
            let text = format!("all {MAX_CONNECTIONS} connections to the endpoint have been full for too long");
            ProxyError::new(Code::EndpointFull, text)
        })
    }

    async fn establish<F>(&self, connect: &impl Fn() -> F) -> Result<http2::Sender, ProxyError>
    where
        F: Future<Output = Result<Stream, ProxyError>> + 'static,
    {
        let settings = self.settings;
        let start = || {
            let (connecting, room, partings) = (connect(), Rc::clone(&self.room), Rc::clone(&self.partings));
            async move {
                let stream = connecting.await?;
                let life = stream.life();
                Ok(http2::connect(stream, &settings).await?.until(life).telling(&room, &partings))
            }
        };
        self.shared.get(start).await
    }

    /// Closes what has been idle for too long.
    pub(crate) fn expire(&self, now: Instant) {
        self.idle.expire(now);
        // Without this what has ended would be kept until somebody asks for it.
        self.shared.expire(now, self.idle_timeout);
        self.room.tell();
    }

    /// Keeps nothing any more; requests that are under way go on.
    pub(crate) fn clear(&self) {
        self.idle.clear();
        self.shared.clear();
        self.room.tell();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.partings.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        cell::{Cell, RefCell},
        time::Duration,
    };
    use tokio::net::{TcpListener, TcpStream};
    use weft_model::endpoint::Http2Params;

    const HTTP1: Http1Pool = Http1Pool { max_idle: 1, idle_timeout: Duration::from_secs(3) };
    const HTTP2: crate::config::Http2Client =
        crate::config::Http2Client { stream_window: 65_535, connection_window: 1 << 20 };

    /// No test takes as long.
    const LONG: Duration = Duration::from_secs(60);

    fn pool(patience: Duration) -> Pool {
        Pool::new(HTTP1, http2::ClientSettings::new(&HTTP2, &Http2Params::default()), patience)
    }

    #[test]
    fn the_workers_shares_are_the_limit() {
        for (max_idle, workers) in [(10_000, 1), (10_000, 3), (1, 2), (0, 2), (7, 4)] {
            let pool = Http1Pool { max_idle, ..HTTP1 };
            let all: usize = (0..workers).map(|index| pool.share(index, workers).max_idle).sum();
            assert_eq!(all, max_idle, "{workers} workers");
        }
    }

    /// Slow requests hold the places of one connection, and nobody waits for them.
    #[tokio::test]
    async fn a_full_connection_is_left_to_its_requests() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let local = tokio::task::LocalSet::new();
        local.spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::task::spawn_local(async move {
                    let mut builder = h2::server::Builder::new();
                    let mut server = builder.max_concurrent_streams(1).handshake::<_, bytes::Bytes>(tcp).await.unwrap();
                    let mut open = vec![];
                    while let Some(Ok(request)) = server.accept().await {
                        open.push(request);
                    }
                });
            }
        });
        let test = async {
            let pool = pool(LONG);
            let connections = Cell::new(0);
            let connect = || {
                connections.set(connections.get() + 1);
                async move { Ok(Stream::tcp(TcpStream::connect(addr).await.unwrap())) }
            };
            let get = || http::Request::get("http://web.test/").body(()).unwrap();
            let mut first = pool.http2(connect).await.unwrap();
            let _open = first.send(get(), true).unwrap();
            while first.has_room() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let mut second = pool.http2(connect).await.unwrap();
            let open = second.send(get(), true).unwrap();
            assert_eq!(connections.get(), 2);
            drop(open);
            while !second.has_room() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            pool.http2(connect).await.unwrap();
            assert_eq!(connections.get(), 2, "the one with room is used again");
        };
        tokio::time::timeout(LONG, local.run_until(test)).await.expect("nobody waits");
    }

    /// Nobody knows what a server allows before it says so: what it would refuse is not sent there.
    #[tokio::test]
    async fn a_burst_meets_no_refusal_on_a_fresh_connection() {
        const BURST: usize = 250;
        const ALLOWED: u32 = 120;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let local = tokio::task::LocalSet::new();
        let taken = Rc::new(Cell::new(0));
        let takes = Rc::clone(&taken);
        local.spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let taken = Rc::clone(&takes);
                tokio::task::spawn_local(async move {
                    let mut builder = h2::server::Builder::new();
                    let builder = builder.max_concurrent_streams(ALLOWED);
                    let mut server = builder.handshake::<_, bytes::Bytes>(tcp).await.unwrap();
                    let mut open = vec![];
                    while let Some(Ok(request)) = server.accept().await {
                        taken.set(taken.get() + 1);
                        open.push(request);
                    }
                });
            }
        });
        let test = async {
            let pool = Rc::new(pool(LONG));
            let connections = Rc::new(Cell::new(0));
            let asked = (0..BURST).map(|_| {
                let (pool, connections) = (Rc::clone(&pool), Rc::clone(&connections));
                tokio::task::spawn_local(async move {
                    let connect = || {
                        connections.set(connections.get() + 1);
                        async move { Ok(Stream::tcp(TcpStream::connect(addr).await.unwrap())) }
                    };
                    let mut sender = pool.http2(connect).await.unwrap();
                    sender.send(http::Request::get("http://web.test/").body(()).unwrap(), true).unwrap()
                })
            });
            let asked: Vec<_> = asked.collect();
            let mut open = vec![];
            for asked in asked {
                open.push(asked.await.unwrap());
            }
            while taken.get() < BURST {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(connections.get(), BURST.div_ceil(ALLOWED as usize));
        };
        tokio::time::timeout(LONG, local.run_until(test)).await.expect("all are taken");
    }

    /// A server that allows so many requests at once on a connection and answers each a moment later.
    async fn answering(allowed: u32) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::task::spawn_local(async move {
                    let mut builder = h2::server::Builder::new();
                    let builder = builder.max_concurrent_streams(allowed);
                    let mut server = builder.handshake::<_, bytes::Bytes>(tcp).await.unwrap();
                    while let Some(Ok((_, mut answer))) = server.accept().await {
                        tokio::task::spawn_local(async move {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                            let _ = answer.send_response(http::Response::new(()), true);
                        });
                    }
                });
            }
        });
        addr
    }

    /// So many requests at once; says how many were answered.
    async fn ask(pool: &Rc<Pool>, addr: std::net::SocketAddr, connections: &Rc<Cell<u32>>, requests: u32) -> u32 {
        let asked = (0..requests).map(|_| {
            let (pool, connections) = (Rc::clone(pool), Rc::clone(connections));
            tokio::task::spawn_local(async move {
                let connect = || {
                    connections.set(connections.get() + 1);
                    async move { Ok(Stream::tcp(TcpStream::connect(addr).await.unwrap())) }
                };
                let Ok(mut sender) = pool.http2(connect).await else { return false };
                let get = http::Request::get("http://web.test/").body(()).unwrap();
                let (response, _body, mut open) = sender.send(get, true).unwrap();
                let answered = response.await.is_ok();
                open.answered();
                answered
            })
        });
        let asked: Vec<_> = asked.collect();
        let mut answered = 0;
        for asked in asked {
            answered += u32::from(asked.await.unwrap());
        }
        answered
    }

    /// More requests than a connection takes, all the time: those that were full are used again.
    #[tokio::test]
    async fn requests_beyond_a_connections_limit_cost_as_many_connections_as_they_fill() {
        let local = tokio::task::LocalSet::new();
        let test = async {
            let addr = answering(100).await;
            let pool = Rc::new(pool(LONG));
            let connections = Rc::new(Cell::new(0));
            for _ in 0..10 {
                assert_eq!(ask(&pool, addr, &connections, 250).await, 250);
            }
            assert_eq!(connections.get(), 3);
        };
        tokio::time::timeout(LONG, local.run_until(test)).await.expect("all are answered");
    }

    /// Requests of one stream each: what they find is what is left.
    #[tokio::test]
    async fn connections_are_bounded_and_who_finds_no_room_waits_in_line() {
        /// A server's settings: so many streams.
        fn allowing(streams: u8) -> [u8; 15] {
            [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, streams]
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let local = tokio::task::LocalSet::new();
        let servers = Rc::new(RefCell::new(vec![]));
        let accepted = Rc::clone(&servers);
        local.spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.writable().await.unwrap();
                tcp.try_write(&allowing(1)).unwrap();
                accepted.borrow_mut().push(tcp);
            }
        });
        let test = async {
            let mut pool = pool(Duration::from_millis(20));
            let connections = Cell::new(0);
            let connect = || {
                connections.set(connections.get() + 1);
                async move { Ok(Stream::tcp(TcpStream::connect(addr).await.unwrap())) }
            };
            let send = async |mut sender: http2::Sender| {
                let sent = sender.send(http::Request::get("http://web.test/").body(()).unwrap(), true).unwrap();
                // Until the server has said how many it allows.
                while sender.has_room() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                sent
            };
            let mut open = vec![];
            for _ in 0..MAX_CONNECTIONS {
                open.push(send(pool.http2(connect).await.unwrap()).await);
            }
            assert_eq!(pool.http2(connect).await.err().map(|error| error.code), Some(Code::EndpointFull));
            assert_eq!(connections.get(), MAX_CONNECTIONS);
            pool.patience = LONG;
            // A request ends, a server allows one more, a connection ends.
            for way in 0..3 {
                let freed = async {
                    while !pool.room.is_awaited() {
                        tokio::task::yield_now().await;
                    }
                    match way {
                        0 => drop(open.pop()),
                        1 => assert_eq!(servers.borrow()[7].try_write(&allowing(2)).unwrap(), 15),
                        _ => drop(servers.borrow_mut().remove(9)),
                    }
                };
                let (served, ()) = tokio::join!(pool.http2(connect), freed);
                open.push(send(served.unwrap()).await);
            }
            assert_eq!(connections.get(), MAX_CONNECTIONS + 1);
        };
        tokio::time::timeout(LONG, local.run_until(test)).await.expect("nobody is forgotten");
    }

    #[tokio::test]
    async fn a_server_that_allows_no_requests_gets_one_connection() {
        let local = tokio::task::LocalSet::new();
        let test = async {
            let addr = answering(0).await;
            let pool = Rc::new(pool(LONG));
            let connections = Rc::new(Cell::new(0));
            for _ in 0..5 {
                assert_eq!(ask(&pool, addr, &connections, 20).await, 0);
            }
            assert_eq!(connections.get(), 1);
        };
        tokio::time::timeout(LONG, local.run_until(test)).await.expect("all are told");
    }
}
