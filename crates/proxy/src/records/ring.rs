//! The last records of a worker. A full ring gives the oldest record's memory to the next one: requests allocate nothing.

use super::record::{Record, Scene, What};
use std::{rc::Rc, time::Instant};

/// Records without use that are kept for the next requests; what a burst left over is freed.
pub(super) const MAX_SPARE: usize = 64;

#[expect(clippy::vec_box, reason = "a record goes through its request as a pointer")]
pub(super) struct Ring {
    capacity: usize,
    /// Grows up to the capacity, so that an idle worker holds none. In one piece, which is written from end to end: far more than
    /// a core's cache holds comes and goes here, and requests work on the few records that are spare.
    kept: Vec<Record>,
    /// The oldest one of a full ring.
    oldest: usize,
    spare: Vec<Box<Record>>,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, kept: vec![], oldest: 0, spare: vec![] }
    }

    pub(super) fn blank(&mut self, scene: &Rc<Scene>, what: What, began: Instant) -> Box<Record> {
        match self.spare.pop() {
            Some(mut record) => {
                record.renew(scene, what, began);
                record
            }
            None => Box::new(Record::new(scene, what, began)),
        }
    }

    pub(super) fn push(&mut self, mut record: Box<Record>) {
        if self.kept.len() < self.capacity {
            return self.kept.push(*record);
        }
        // Nothing is kept if there is no oldest one.
        if let Some(oldest) = self.kept.get_mut(self.oldest) {
            self.oldest = (self.oldest + 1) % self.capacity;
            std::mem::swap(oldest, &mut record);
        }
        if self.spare.len() < MAX_SPARE {
            self.spare.push(record);
        }
    }

    pub(super) fn newest(&self) -> impl Iterator<Item = &Record> {
        let (new, old) = self.kept.split_at(self.oldest);
        new.iter().rev().chain(old.iter().rev())
    }
}
