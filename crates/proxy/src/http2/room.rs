//! Who waits for room on the connections to one endpoint while all of them are full: one after the other, in the order in which
//! they came.
//!
//! Connections tell it when there may be room, and the first in line looks. Holds no timer; knows nothing of pools.

use std::rc::Rc;
use tokio::sync::{Notify, Semaphore};

#[derive(Debug)]
pub(crate) struct Room {
    /// Who is first in line has it. No lock: whoever has it does nothing but wait, and gives it up when he goes.
    line: Semaphore,
    freed: Notify,
}

impl Room {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self { line: Semaphore::new(1), freed: Notify::new() })
    }

    /// Whether anybody waits: who comes now stands behind him.
    pub(crate) fn is_awaited(&self) -> bool {
        self.line.available_permits() == 0
    }

    /// There may be room.
    pub(crate) fn tell(&self) {
        if self.is_awaited() {
            // Kept for the first in line, if he is not waiting yet.
            self.freed.notify_one();
        }
    }

    /// Waits for its turn, and from then on until there is room, as `look` finds.
    pub(crate) async fn wait(&self, look: impl Fn() -> bool) {
        // It is never closed.
        let _first = self.line.acquire().await;
        while !look() {
            self.freed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use tokio::task::{LocalSet, spawn_local, yield_now};

    #[tokio::test]
    async fn who_came_first_is_first_and_who_goes_holds_up_nobody() {
        let test = async {
            let (room, places, taken) = (Room::new(), Rc::new(Cell::new(0)), Rc::new(RefCell::new(vec![])));
            let wait = |name| {
                let (room, places, taken) = (Rc::clone(&room), Rc::clone(&places), Rc::clone(&taken));
                spawn_local(async move {
                    room.wait(|| places.get() > 0).await;
                    places.set(places.get() - 1);
                    taken.borrow_mut().push(name);
                })
            };
            assert!(!room.is_awaited());
            let waiting: Vec<_> = ["a", "b", "c", "d"].map(wait).into();
            yield_now().await;
            assert!(room.is_awaited());
            room.tell();
            yield_now().await;
            assert!(taken.borrow().is_empty(), "there is none");
            // The first goes when it has been told, before it looks.
            places.set(2);
            room.tell();
            for gone in [&waiting[0], &waiting[2]] {
                gone.abort();
            }
            while taken.borrow().len() < 2 {
                yield_now().await;
            }
            assert_eq!(*taken.borrow(), ["b", "d"]);
            assert!(!room.is_awaited());
        };
        let local = LocalSet::new();
        let patience = std::time::Duration::from_secs(60);
        tokio::time::timeout(patience, local.run_until(test)).await.expect("nobody is forgotten");
    }
}
