//! Places for the connections of a server of the proxy itself: so many in all, and so many of them for one client.

use parking_lot::Mutex;
use std::{collections::HashMap, net::IpAddr, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All places. Cheap to clone.
#[derive(Clone)]
pub(super) struct Places {
    room: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    each: usize,
}

/// Room for one connection that has not come yet.
pub(super) type Room = OwnedSemaphorePermit;

/// The place of one connection; given back when dropped.
pub(super) struct Place {
    _room: Room,
    client: IpAddr,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Places {
    /// `all` in all, `each` for every client but those on this machine.
    pub(super) fn new(all: usize, each: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(all)), taken: Arc::default(), each }
    }

    /// Waits for room. Cancel-safe.
    pub(super) async fn room(&self) -> Option<Room> {
        self.room.clone().acquire_owned().await.ok()
    }

    /// Gives it to a client; `None` if that has as many as it may.
    pub(super) fn take(&self, room: Room, client: IpAddr) -> Option<Place> {
        let client = client.to_canonical();
        {
            let mut taken = self.taken.lock();
            let own = taken.entry(client).or_default();
            if *own >= self.each && !client.is_loopback() {
                return None;
            }
            *own += 1;
        }
        Some(Place { _room: room, client, taken: self.taken.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Some(own) = taken.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.client);
            }
        }
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
        assert!(places.taken.lock().is_empty() && places.room.available_permits() == 4);
    }
}
