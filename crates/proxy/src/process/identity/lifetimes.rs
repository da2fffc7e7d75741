//! Ends connections with the certificates that they were opened with: in order at first, by force after a grace.
//!
//! An HTTP/1 connection closes after the exchange that is running or comes next, HTTP/2 sends GOAWAY, bytes go on; whoever is left
//! after the grace is cut off. A connection that this proxy dialled is left before its server ends it.

use crate::process::worker::WallClock;
use std::time::{Duration, SystemTime};
use tokio::time::sleep;
use weft_model::decide::lifetime::{self, Lifespan};
use weft_telemetry::{CounterFamily, Labels, Registry, Shard, metrics::Sample};
use weft_transport::{Stream, lifetime::Lifetimes as Open};

/// The clock is looked at no less often, since it may be set. What is due is never later than this.
const LOOK: Duration = Duration::from_secs(1);
/// And no more often, however many certificates end.
const REST: Duration = Duration::from_millis(10);

/// The connections of the process that end by themselves. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lifetimes {
    open: Open,
    clock: WallClock,
    grace: Duration,
    ended: CounterFamily,
}

impl Lifetimes {
    pub(crate) fn new(clock: WallClock, grace: Duration, registry: &Registry) -> Self {
        let open = Open::default();
        let counted = open.clone();
        registry.collector(move |out| {
            out.push(Sample::gauge(
                "weft_identity_bound_connections",
                "Open connections that end with a certificate",
                counted.open_now(),
            ));
        });
        let ended = registry.counter(
            "weft_identity_expired_connections_total",
            "Connections whose certificate was over: asked to end, and cut off after the grace",
        );
        Self { open, clock, grace, ended }
    }

    /// Bounds a connection that a client with a certificate has opened.
    pub(crate) fn accepted(&self, stream: &mut Stream) {
        if let Some(expires) = stream.expires() {
            self.bound(stream, lifetime::accepted(expires, self.grace));
        }
    }

    /// Bounds a connection that this proxy has opened to another.
    pub(crate) fn dialled(&self, stream: &mut Stream) {
        if let Some(expires) = stream.expires() {
            self.bound(stream, lifetime::dialled((self.clock)(), expires, self.grace));
        }
    }

    fn bound(&self, stream: &mut Stream, Lifespan { ask, cut }: Lifespan) {
        stream.bound(self.open.open(ask, cut));
    }

    /// Ends what is due, for ever.
    pub(crate) async fn run(self) {
        let count = |how: &str, n: u64| {
            if n > 0 {
                self.ended.pinned(Shard::ADMIN, &Labels::new().with("how", how)).add(n);
            }
        };
        loop {
            let now = (self.clock)();
            let done = self.open.advance(now);
            count("asked", done.asked);
            count("cut", done.cut);
            if done.cut > 0 {
                tracing::info!(connections = done.cut, "Cut off connections whose certificate is over");
            }
            sleep(wait(now, done.next)).await;
        }
    }
}

fn wait(now: SystemTime, next: Option<SystemTime>) -> Duration {
    let until = next.map_or(LOOK, |next| next.duration_since(now).unwrap_or_default());
    until.clamp(REST, LOOK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_looked_at_in_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        for (next, expected) in
            [(None, LOOK), (Some(0), REST), (Some(50), Duration::from_millis(50)), (Some(5000), LOOK)]
        {
            assert_eq!(wait(now, next.map(|ms| now + Duration::from_millis(ms))), expected, "{next:?}");
        }
    }
}
