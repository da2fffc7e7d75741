//! Bytes of all reviews that are being read or decided: bounded, and none is kept out by those that come slowly.
//!
//! Room is taken as bytes arrive. Where there is none, the review that has been coming the longest gives its own: one that an API server
//! sends is there within a moment.

use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use tokio_util::sync::CancellationToken;

pub(crate) struct Room {
    limit: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    bytes: usize,
    next: u64,
    /// Those that are being read, the oldest first.
    coming: BTreeMap<u64, Coming>,
}

struct Coming {
    bytes: usize,
    ended: CancellationToken,
}

/// What one review takes up.
pub(crate) struct Share {
    room: Arc<Room>,
    id: u64,
    ended: CancellationToken,
    /// Of a review that has arrived.
    bytes: usize,
}

/// There is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Crowded;

impl Room {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, held: Mutex::default() }
    }

    /// For a review that begins to come.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        let mut held = self.held.lock();
        held.next += 1;
        let (id, ended) = (held.next, CancellationToken::new());
        held.coming.insert(id, Coming { bytes: 0, ended: ended.clone() });
        Share { room: self.clone(), id, ended, bytes: 0 }
    }
}

impl Share {
    /// Resolves when another review has been given this one's room.
    pub(crate) async fn is_taken(&self) {
        self.ended.cancelled().await;
    }

    /// For so many more bytes.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Crowded> {
        let mut held = self.room.held.lock();
        while held.bytes.saturating_add(bytes) > self.room.limit {
            let longest = held.coming.first_entry().filter(|oldest| *oldest.key() != self.id).ok_or(Crowded)?;
            let Coming { bytes: freed, ended } = longest.remove();
            held.bytes -= freed;
            ended.cancel();
        }
        held.coming.get_mut(&self.id).ok_or(Crowded)?.bytes += bytes;
        held.bytes += bytes;
        Ok(())
    }

    /// Nobody takes its room any more.
    pub(crate) fn arrived(&mut self) -> Result<(), Crowded> {
        let all = self.room.held.lock().coming.remove(&self.id).ok_or(Crowded)?;
        self.bytes = all.bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.room.held.lock();
        let coming = held.coming.remove(&self.id).map_or(0, |coming| coming.bytes);
        held.bytes -= coming + self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_slowly_gives_way_and_what_is_decided_does_not() {
        let room = Arc::new(Room::new(10));
        let held = || room.held.lock().bytes;
        let (mut slow, mut second, mut third) = (room.share(), room.share(), room.share());
        slow.grow(6).unwrap();
        second.grow(4).unwrap();
        third.grow(1).unwrap();
        assert!(slow.ended.is_cancelled() && !second.ended.is_cancelled());
        assert_eq!((slow.grow(1), slow.arrived(), held()), (Err(Crowded), Err(Crowded), 5));
        drop(slow);
        assert_eq!(held(), 5, "it was given away once");
        second.arrived().unwrap();
        assert_eq!(third.grow(6), Err(Crowded), "what has arrived keeps its room");
        drop(second);
        assert_eq!((third.grow(6), held()), (Ok(()), 7));
        drop(third);
        assert_eq!(held(), 0);
    }
}
