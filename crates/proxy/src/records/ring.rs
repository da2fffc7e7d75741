//! The last records of a worker. A full ring gives the oldest record's memory to the next one: requests allocate nothing.

use super::record::{Record, Scene, What};
use std::{rc::Rc, time::Instant};

/// Records without use that are kept for the next requests; what a burst left over is freed.
pub(super) const MAX_SPARE: usize = 64;

#[expect(clippy::vec_box, reason = "a record goes from request to ring as a pointer")]
pub(super) struct Ring {
    capacity: usize,
    /// Grows up to the capacity, so that an idle worker holds none.
    kept: Vec<Box<Record>>,
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

    pub(super) fn push(&mut self, record: Box<Record>) {
        if self.kept.len() < self.capacity {
            return self.kept.push(record);
        }
        let unused = match self.kept.get_mut(self.oldest) {
            Some(oldest) => {
                self.oldest = (self.oldest + 1) % self.capacity;
                std::mem::replace(oldest, record)
            }
            // Nothing is kept.
            None => record,
        };
        if self.spare.len() < MAX_SPARE {
            self.spare.push(unused);
        }
    }

    pub(super) fn newest(&self) -> impl Iterator<Item = &Record> {
        let (new, old) = self.kept.split_at(self.oldest);
        new.iter().rev().chain(old.iter().rev()).map(|record| &**record)
    }
}
