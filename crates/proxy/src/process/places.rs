//! Places for the connections of a server of the proxy itself: so many in all, and so many of them for one client.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// All places. Cheap to clone.
#[derive(Clone)]
pub(super) struct Places {
    room: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
    each: usize,
    /// Of a server whose connections give way: whether that was told.
    gives_way: Option<Arc<AtomicBool>>,
}

/// Room for one connection that has not come yet.
pub(super) type Room = OwnedSemaphorePermit;

/// The place of one connection; given back when dropped.
pub(super) struct Place {
    _room: Room,
    number: u64,
    seat: Arc<Seat>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    seats: HashMap<u64, Arc<Seat>>,
}

struct Seat {
    client: IpAddr,
    used: Mutex<Used>,
    /// It has been given to another one.
    lost: AtomicBool,
    losing: Notify,
}

/// What a connection does with its place.
struct Used {
    /// Requests that are not answered yet.
    open: usize,
    /// When it came, or a request of it began or was answered.
    last: Instant,
}

impl Places {
    /// `all` in all, `each` for every client but those on this machine. Who comes beyond waits, or is not let in.
    pub(super) fn new(all: usize, each: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(all)), taken: Arc::default(), each, gives_way: None }
    }

    /// The same, but who comes gets a place: the connection that has been idle longest gives way to the next one, of that
    /// client if it has as many as it may. The last place is therefore never taken for long.
    pub(super) fn giving_way(all: usize, each: usize) -> Self {
        Self { gives_way: Some(Arc::default()), ..Self::new(all, each) }
    }

    /// Waits for room. Cancel-safe.
    pub(super) async fn room(&self) -> Option<Room> {
        self.room.clone().acquire_owned().await.ok()
    }

    /// Gives it to a client; `None` if that has as many as it may.
    pub(super) fn take(&self, room: Room, client: IpAddr) -> Option<Place> {
        let client = client.to_canonical();
        let seat = Seat {
            client,
            used: Mutex::new(Used { open: 0, last: Instant::now() }),
            lost: AtomicBool::new(false),
            losing: Notify::new(),
        };
        let seat = Arc::new(seat);
        let mut taken = self.taken.lock();
        let own = taken.held().filter(|held| held.client == client).count();
        let over = own >= self.each && !client.is_loopback();
        match &self.gives_way {
            None if over => return None,
            None => {}
            Some(told) => {
                let full = self.room.available_permits() == 0;
                let loser = taken.held().filter(|held| full || (over && held.client == client)).min_by_key(|held| {
                    let used = held.used.lock();
                    (used.open > 0, used.last)
                });
                if let Some(loser) = loser {
                    loser.lose();
                    if full && !told.swap(true, Relaxed) {
                        tracing::warn!(
                            %client,
                            "All places for connections are taken: who has been idle longest gives way from now on"
                        );
                    }
                }
            }
        }
        let number = taken.next;
        taken.next += 1;
        taken.seats.insert(number, seat.clone());
        drop(taken);
        Some(Place { _room: room, number, seat, taken: self.taken.clone() })
    }
}

impl Taken {
    /// Those who have not lost their places yet.
    fn held(&self) -> impl Iterator<Item = &Arc<Seat>> {
        self.seats.values().filter(|seat| !seat.lost.load(Relaxed))
    }
}

impl Seat {
    fn lose(&self) {
        self.lost.store(true, Relaxed);
        self.losing.notify_one();
    }
}

impl Place {
    /// A request has begun.
    pub(super) fn begin(&self) {
        let mut used = self.seat.used.lock();
        used.open += 1;
        used.last = Instant::now();
    }

    /// One that had begun is answered.
    pub(super) fn end(&self) {
        let mut used = self.seat.used.lock();
        used.open -= 1;
        used.last = Instant::now();
    }

    /// Resolves when another one is to have it. For one waiter; cancel-safe.
    pub(super) async fn lost(&self) {
        self.seat.losing.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.lock().seats.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn one_client_does_not_take_all_places() {
        let places = Places::new(4, 2);
        let (one, two) = (Ipv4Addr::new(10, 0, 0, 1), IpAddr::from([10, 0, 0, 2]));
        let mut held = vec![];
        // However its address is written.
        for client in [IpAddr::V4(one), IpAddr::V6(one.to_ipv6_mapped())] {
            held.push(places.take(places.room().await.unwrap(), client).unwrap());
        }
        assert!(places.take(places.room().await.unwrap(), one.into()).is_none());
        held.push(places.take(places.room().await.unwrap(), two).unwrap());
        held.remove(0);
        held.push(places.take(places.room().await.unwrap(), one.into()).unwrap());
        held.push(places.take(places.room().await.unwrap(), Ipv4Addr::LOCALHOST.into()).unwrap());
        assert_eq!(places.room.available_permits(), 0);
        drop(held);
        assert!(places.taken.lock().seats.is_empty() && places.room.available_permits() == 4);
    }

    #[tokio::test]
    async fn who_has_been_idle_longest_gives_way() {
        let places = Places::giving_way(4, 2);
        let client = |n| IpAddr::from([10, 0, 0, n]);
        let take = async |n| places.take(places.room().await.unwrap(), client(n)).unwrap();
        let lost = |place: &Place| place.seat.lost.load(Relaxed);
        // Of one that has as many as it may it is its own.
        let first = take(1).await;
        let [second, third] = [take(2).await, take(2).await];
        assert!(![&first, &second, &third].into_iter().any(lost));
        drop(third);
        // A request makes it younger, and one that is not answered comes last.
        first.begin();
        first.end();
        second.begin();
        let third = take(3).await;
        assert!(![&first, &second, &third].into_iter().any(lost));
        let fourth = take(4).await;
        assert_eq!([&first, &second, &third, &fourth].map(lost), [true, false, false, false]);
        first.lost().await;
        drop(first);
        // Whoever asks all the time gives way where nobody else is.
        for place in [&third, &fourth] {
            place.begin();
        }
        let fifth = take(5).await;
        assert_eq!([&second, &third, &fourth, &fifth].map(lost), [true, false, false, false]);
        drop(second);
        let sixth = take(6).await;
        assert_eq!([&third, &fourth, &fifth, &sixth].map(lost), [false, false, true, false]);
    }

    #[tokio::test]
    async fn of_a_client_with_all_it_may_have_its_own_gives_way() {
        let places = Places::giving_way(8, 2);
        let take = async |n| places.take(places.room().await.unwrap(), IpAddr::from([10, 0, 0, n])).unwrap();
        let [another, first, second, third] = [take(1).await, take(2).await, take(2).await, take(2).await];
        let lost = [&another, &first, &second, &third].map(|place| place.seat.lost.load(Relaxed));
        assert_eq!(lost, [false, true, false, false]);
    }
}
