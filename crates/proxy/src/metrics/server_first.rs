//! Sessions that were opened before the client had said anything, by what became of them.

use super::counter;
use crate::direction::Direction;
use weft_telemetry::{CounterFamily, Labels, Registry, Shard};

pub(crate) struct Family {
    sessions: CounterFamily,
    shard: Shard,
    direction: Direction,
}

/// What became of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server spoke first.
    Server,
    /// The client spoke, and not HTTP, or ended without a word: the session carries it.
    Client,
    /// The client spoke HTTP: closed unused.
    Http,
    /// The server spoke HTTP unasked: closed unused.
    HttpServer,
    /// It could not be opened.
    Failed,
    /// The server ended it without a word.
    Ended,
    /// It was of no use: the client has broken off, or the process ends.
    Idle,
    /// Asked for by a client's proxy on a port of HTTP.
    Refused,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Http => "http",
            Self::HttpServer => "http_server",
            Self::Failed => "failed",
            Self::Ended => "ended",
            Self::Idle => "idle",
            Self::Refused => "refused",
        }
    }
}

impl Family {
    pub(crate) fn new(registry: &Registry, shard: Shard, direction: Direction) -> Self {
        let sessions = counter(
            registry,
            "weft_proxy_server_first_total",
            "Sessions opened while the client was silent, by what became of them",
        );
        Self { sessions, shard, direction }
    }

    /// Rare, so its series are looked up each time.
    pub(crate) fn count(&self, outcome: Outcome) {
        let labels = Labels::new().with("direction", self.direction.as_str()).with("outcome", outcome.label());
        self.sessions.pinned(self.shard, &labels).inc();
    }
}
