//! Connections that anybody may open: none is kept out by those that say nothing.
//!
//! ```text
//! comes ─► waits for its first request (FIRST) ─► asks ─► is decided ─► rests (IDLE) ─► is told to go ─► gone
//! ```
//! Beyond a number, whoever comes tells the one to go that has been at rest the longest; beyond a higher one, that one is cut off. A
//! connection of which something is being decided is neither: that ends by itself, or is of somebody who is known.

use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use weft_telemetry::Counter;

/// Whoever has come has asked for something by then.
const FIRST: Duration = Duration::from_secs(15);
/// Longer than API servers keep a connection for which they have no use (90 s), so that they are the ones who end it.
const IDLE: Duration = Duration::from_secs(120);
/// How long who is told to go may take, once nothing of it is open.
const FAREWELL: Duration = Duration::from_secs(1);

pub(crate) struct Seats {
    /// As many stay, …
    limit: usize,
    /// … and the others up to this many may be on their way out.
    most: usize,
    taken: Mutex<Taken>,
    freed: Notify,
    ended: Counter,
}

#[derive(Default)]
struct Taken {
    next: u64,
    seats: HashMap<u64, State>,
}

struct State {
    /// When it last came, asked or was answered, …
    since: Instant,
    /// … and the same as a number, of which no two are equal.
    order: u64,
    has_asked: bool,
    /// Requests that are being read or decided, …
    open: usize,
    /// … and of these, those that are being decided.
    decided: usize,
    farewell: CancellationToken,
    cut: CancellationToken,
}

/// Held by a connection; dropping it makes room.
pub(crate) struct Seat {
    id: u64,
    seats: Arc<Seats>,
    farewell: CancellationToken,
    cut: CancellationToken,
}

/// A request that is read, …
pub(crate) struct Open(Arc<Seat>);
/// … and decided.
pub(crate) struct Decided(Arc<Seat>);

impl Seats {
    /// `ended` counts those that had to go.
    pub(crate) fn new(limit: usize, most: usize, ended: Counter) -> Self {
        Self { limit, most, taken: Mutex::default(), freed: Notify::new(), ended }
    }

    /// Waits only while something is being decided of each.
    pub(crate) async fn take(self: &Arc<Self>) -> Seat {
        loop {
            if let Some(seat) = self.try_take() {
                return seat;
            }
            self.freed.notified().await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Seat> {
        let mut taken = self.taken.lock();
        if taken.seats.len() >= self.most {
            let longest = taken.longest_at_rest(|_| true)?;
            let state = taken.seats.remove(&longest)?;
            state.farewell.cancel();
            state.cut.cancel();
            self.ended.inc();
        } else if taken.seats.len() >= self.limit
            && let Some(longest) = taken.longest_at_rest(|state| !state.farewell.is_cancelled())
            && let Some(state) = taken.seats.get(&longest)
        {
            state.farewell.cancel();
            self.ended.inc();
        }
        let id = taken.number();
        let (farewell, cut) = (CancellationToken::new(), CancellationToken::new());
        let state = State {
            since: Instant::now(),
            order: id,
            has_asked: false,
            open: 0,
            decided: 0,
            farewell: farewell.clone(),
            cut: cut.clone(),
        };
        taken.seats.insert(id, state);
        Some(Seat { id, seats: self.clone(), farewell, cut })
    }
}

impl Taken {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn longest_at_rest(&self, is: impl Fn(&State) -> bool) -> Option<u64> {
        let at_rest = self.seats.iter().filter(|(_, state)| state.decided == 0 && is(state));
        at_rest.min_by_key(|(_, state)| state.order).map(|(id, _)| *id)
    }
}

impl Seat {
    /// A request has come.
    pub(crate) fn asks(self: &Arc<Self>) -> Open {
        self.change(|state| {
            state.has_asked = true;
            state.open += 1;
        });
        Open(self.clone())
    }

    /// All of it has.
    pub(crate) fn decides(self: &Arc<Self>) -> Decided {
        self.change(|state| state.decided += 1);
        Decided(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut taken = self.seats.taken.lock();
        let order = taken.number();
        // Who was cut off has no seat any more.
        if let Some(state) = taken.seats.get_mut(&self.id) {
            (state.since, state.order) = (Instant::now(), order);
            change(state);
        }
    }

    /// Resolves when others want the place.
    pub(crate) async fn is_told_to_go(&self) {
        self.farewell.cancelled().await;
    }

    /// Resolves when they have it.
    pub(crate) async fn is_cut_off(&self) {
        self.cut.cancelled().await;
    }

    /// Resolves when it has asked for nothing too long.
    pub(crate) async fn is_idle(&self) {
        self.rests(|state| if state.has_asked { IDLE } else { FIRST }).await;
    }

    /// Resolves when who was told to go stays without a reason.
    pub(crate) async fn lingers(&self) {
        tokio::time::sleep(FAREWELL).await;
        self.rests(|_| FAREWELL).await;
    }

    async fn rests(&self, time: impl Fn(&State) -> Duration) {
        loop {
            let until = {
                let taken = self.seats.taken.lock();
                let Some(state) = taken.seats.get(&self.id) else { return };
                let until = state.since + time(state);
                match (state.open, until <= Instant::now()) {
                    (0, true) => return,
                    (0, false) => until,
                    (_, _) => Instant::now() + FAREWELL,
                }
            };
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.change(|state| state.open -= 1);
    }
}

impl Drop for Decided {
    fn drop(&mut self) {
        self.0.change(|state| state.decided -= 1);
        self.0.seats.freed.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.lock().seats.remove(&self.id);
        self.seats.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_telemetry::{Labels, Registry, Shard};

    fn seats(limit: usize) -> Arc<Seats> {
        let ended = Registry::new(0, 10).counter("ended_total", "").with(Shard::ADMIN, &Labels::new());
        Arc::new(Seats::new(limit, 2 * limit, ended))
    }

    async fn comes(seats: &Arc<Seats>) -> Arc<Seat> {
        Arc::new(seats.take().await)
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_at_rest_the_longest_makes_room_and_nobody_whose_review_is_decided() {
        let seats = seats(2);
        let [first, second] = [comes(&seats).await, comes(&seats).await];
        let deciding = (first.asks(), first.decides());
        let third = comes(&seats).await;
        assert!(second.farewell.is_cancelled() && !first.farewell.is_cancelled(), "the first is being decided");
        drop(deciding);
        // The third has asked for nothing since, the first was answered a moment ago.
        let fourth = comes(&seats).await;
        assert!(third.farewell.is_cancelled() && !first.farewell.is_cancelled());
        // As many more are on their way out: the fifth does not wait for them.
        let fifth = comes(&seats).await;
        assert!(second.cut.is_cancelled() && !third.cut.is_cancelled());
        let all = [&first, &third, &fourth, &fifth].map(|seat| (seat.asks(), seat.decides()));
        let waits = tokio::time::timeout(IDLE, seats.take()).await;
        assert!(waits.is_err(), "everybody is being decided");
        drop(all);
        comes(&seats).await;
        assert!(first.cut.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_for_nothing_is_idle_sooner_than_who_has_asked() {
        let seats = seats(2);
        let (start, silent) = (Instant::now(), comes(&seats).await);
        silent.is_idle().await;
        assert!(start.elapsed() >= FIRST && start.elapsed() < IDLE);
        let (start, asker) = (Instant::now(), comes(&seats).await);
        let open = asker.asks();
        assert!(tokio::time::timeout(2 * IDLE, asker.is_idle()).await.is_err(), "a request is open");
        assert!(tokio::time::timeout(2 * IDLE, asker.lingers()).await.is_err(), "a request is open");
        drop(open);
        let answered = start.elapsed();
        asker.is_idle().await;
        assert!(start.elapsed() - answered >= IDLE);
    }
}
