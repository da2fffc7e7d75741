//! Connections of one worker to one address, kept for the next request: idle HTTP/1 connections, and the one shared HTTP/2
//! connection.
//!
//! Knows neither addresses nor TLS: the direction gives it the future that connects. Holds no timer; whoever owns the pool
//! calls [`Pool::expire`] now and then.

mod idle;
mod shared;

use crate::{config::Http1Pool, error::ProxyError, http1, http2};
use idle::{Idle, IdleLimit};
use shared::Shared;
use std::rc::Rc;
use tokio::time::Instant;
use weft_transport::Stream;

pub(crate) struct Pool {
    idle: Idle<http1::Connection>,
    shared: Rc<Shared<http2::Sender>>,
    settings: http2::ClientSettings,
}

impl Pool {
    pub(crate) fn new(http1: Http1Pool, settings: http2::ClientSettings) -> Self {
        let limit = IdleLimit { connections: http1.max_idle, timeout: http1.idle_timeout };
        Self { idle: Idle::new(limit), shared: Shared::new(), settings }
    }

    /// An idle connection that is still good, or a new one.
    pub(crate) async fn http1<F>(&self, connect: impl FnOnce() -> F) -> Result<http1::Connection, ProxyError>
    where
        F: Future<Output = Result<Stream, ProxyError>>,
    {
        while let Some(mut connection) = self.idle.take(Instant::now()) {
            if connection.is_reusable() {
                return Ok(connection);
            }
        }
        // Boxed: most requests find a connection, and need not carry the room for making one.
        Ok(http1::Connection::new(Box::pin(connect()).await?))
    }

    pub(crate) fn keep(&self, connection: http1::Connection) {
        self.idle.keep(Instant::now(), connection);
    }

    /// A sender that may open a stream, on the shared connection or, when there is none or it drains, on a new one.
    pub(crate) async fn http2<F>(&self, connect: impl Fn() -> F) -> Result<http2::Sender, ProxyError>
    where
        F: Future<Output = Result<Stream, ProxyError>> + 'static,
    {
        loop {
            let open = self.shared.open(http2::Sender::is_good);
            let fresh = open.is_none();
            let mut sender = match open {
                Some(sender) => sender,
                None => Box::pin(self.establish(&connect)).await?,
            };
            match sender.ready().await {
                Ok(()) => return Ok(sender),
                Err(error) if fresh => return Err(error),
                // It drains, or ended unnoticed: another connection takes its place.
                Err(_) => self.shared.clear(),
            }
        }
    }

    async fn establish<F>(&self, connect: &impl Fn() -> F) -> Result<http2::Sender, ProxyError>
    where
        F: Future<Output = Result<Stream, ProxyError>> + 'static,
    {
        let settings = self.settings;
        let start = || {
            let connecting = connect();
            async move {
                let stream = connecting.await?;
                let life = stream.life();
                Ok(http2::connect(stream, &settings).await?.until(life))
            }
        };
        self.shared.get(http2::Sender::is_good, start).await
    }

    /// Closes what has been idle for too long.
    pub(crate) fn expire(&self, now: Instant) {
        self.idle.expire(now);
        // Without this the connection would be kept until somebody asks for it.
        drop(self.shared.open(http2::Sender::is_good));
    }

    /// Keeps nothing any more; requests that are under way go on.
    pub(crate) fn clear(&self) {
        self.idle.clear();
        self.shared.clear();
    }
}
