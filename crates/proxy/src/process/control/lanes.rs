//! The channels to one service: another one where the others have as many open streams as a server may allow.
//!
//! Watches do not end, and the client below waits without a word once it has as many of them as the server's settings allow: one
//! question too many, and none would be answered any more. It must not decide where to connect.

use super::link::Link;
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};
use tonic::transport::Channel;

/// Streams that are open on one channel at most. No server should allow fewer (RFC 9113, 6.5.2); Linkerd's proxy before its control
/// plane allows 200, ours 1,000.
const STREAMS: usize = 100;

/// As many as are needed. Their number is bounded by that of the watches: 10,000 targets need 100 for each kind of question.
pub(super) struct Lanes {
    open: Box<dyn Fn() -> (Channel, Link) + Send + Sync>,
    lanes: Mutex<Vec<Lane>>,
}

/// One channel, which connects when it is used.
#[derive(Clone)]
pub(super) struct Lane {
    pub(super) channel: Channel,
    pub(super) link: Link,
    streams: Arc<AtomicUsize>,
}

/// A stream on a channel, open as long as this lives.
pub(super) struct Place(Arc<AtomicUsize>);

impl Lanes {
    /// With one channel, so that what it shows is there before it is used.
    pub(super) fn new(open: impl Fn() -> (Channel, Link) + Send + Sync + 'static) -> Self {
        let first = Lane::of(open());
        Self { open: Box::new(open), lanes: Mutex::new(vec![first]) }
    }

    /// The first channel that has room, or a new one. Of those behind it the ones that nobody uses are closed.
    pub(super) fn enter(&self) -> (Lane, Place) {
        let mut lanes = self.lanes.lock();
        let at = lanes.iter().position(|lane| lane.streams.load(Relaxed) < STREAMS);
        let lane = match at.and_then(|at| lanes.get(at)) {
            Some(lane) => lane.clone(),
            None => {
                let lane = Lane::of((self.open)());
                lanes.push(lane.clone());
                lane
            }
        };
        lane.streams.fetch_add(1, Relaxed);
        let mut first = true;
        lanes.retain(|lane| std::mem::take(&mut first) || lane.streams.load(Relaxed) > 0);
        let place = Place(lane.streams.clone());
        (lane, place)
    }
}

impl Lane {
    fn of((channel, link): (Channel, Link)) -> Self {
        Self { channel, link, streams: Arc::default() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Client, Links},
        *,
    };
    use std::time::Duration;
    use tonic::transport::Endpoint;
    use weft_telemetry::Registry;

    #[tokio::test]
    async fn another_channel_is_opened_where_the_others_are_full_and_closed_when_nobody_uses_it() {
        let links = Links::new(&Registry::new(1, 100), Duration::from_secs(1));
        let opened = Arc::new(AtomicUsize::new(0));
        let count = opened.clone();
        let lanes = Lanes::new(move || {
            count.fetch_add(1, Relaxed);
            (Endpoint::from_static("http://127.0.0.1:1").connect_lazy(), links.link(Client::Policy, "policy:1"))
        });
        let state = || {
            let streams: Vec<_> = lanes.lanes.lock().iter().map(|lane| lane.streams.load(Relaxed)).collect();
            (opened.load(Relaxed), streams)
        };
        let mut places: Vec<_> = (0..STREAMS).map(|_| lanes.enter().1).collect();
        assert_eq!(state(), (1, vec![STREAMS]));
        let mut second: Vec<_> = (0..2).map(|_| lanes.enter().1).collect();
        assert_eq!(state(), (2, vec![STREAMS, 2]));
        // While the first is full the second stays, used or not; a place that becomes free on the first is taken there.
        second.clear();
        second.push(lanes.enter().1);
        assert_eq!(state(), (2, vec![STREAMS, 1]));
        places.pop();
        places.push(lanes.enter().1);
        assert_eq!(state(), (2, vec![STREAMS, 1]));
        second.clear();
        places.clear();
        assert_eq!(state(), (2, vec![0, 0]));
        let _one = lanes.enter();
        assert_eq!(state(), (2, vec![1]));
    }
}
