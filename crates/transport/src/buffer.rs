//! Buffers that are held only while bytes are in them, and grow with the traffic.
//!
//! They are leased from a pool of the thread, so an idle connection holds none. Used by `copy` and by TLS sessions.

use std::cell::RefCell;

const KIB: usize = 1024;
/// Room for the heads and tags of the TLS records that carry a size's worth of bytes.
const RECORDS: usize = 512;
/// From a few bytes here and there to a bulk transfer.
const SIZES: [usize; 4] = [4 * KIB + RECORDS, 16 * KIB + RECORDS, 64 * KIB + RECORDS, 256 * KIB + RECORDS];
/// How many free buffers of each size a thread keeps: 1.5 MiB at most.
const KEPT: [usize; 4] = [32, 16, 6, 3];

thread_local! {
    static POOL: RefCell<[Vec<Box<[u8]>>; 4]> = const { RefCell::new([const { Vec::new() }; 4]) };
}

/// How large the next buffer of one direction shall be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(usize);

impl Size {
    /// The largest that sealed records are collected in: a connection that stalls holds no more.
    pub(crate) const RECORDS: Self = Self(2);

    /// The smallest that holds `n` bytes, or the largest.
    pub(crate) fn of(n: usize) -> Self {
        Self(SIZES.iter().position(|size| *size >= n).unwrap_or(SIZES.len() - 1))
    }

    pub(crate) fn bytes(self) -> usize {
        SIZES.get(self.0).copied().unwrap_or_default()
    }

    /// Learns from how far the last buffer was filled.
    pub(crate) fn adapt(&mut self, filled: usize) {
        if filled >= self.bytes() - RECORDS {
            self.0 = (self.0 + 1).min(SIZES.len() - 1);
        } else if filled < self.bytes() / 8 {
            self.0 = self.0.saturating_sub(1);
        }
    }
}

/// Bytes on their way: those between `start` and `end` are held.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// Absent while there is nothing to hold.
    lease: Option<Lease>,
    start: usize,
    end: usize,
}

#[derive(Debug)]
struct Lease {
    size: Size,
    bytes: Box<[u8]>,
}

impl Buffer {
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How far it is filled, with what was taken since the last [`Buffer::release`].
    pub(crate) fn filled(&self) -> usize {
        self.end
    }

    /// Room behind what is held, leased if there is none yet. Empty when the buffer is full.
    pub(crate) fn room(&mut self, size: Size) -> &mut [u8] {
        let lease = self.lease.get_or_insert_with(|| Lease::new(size));
        lease.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// As [`Buffer::room`], without what is meant for records: content in whole records is read and written best.
    pub(crate) fn content_room(&mut self, size: Size) -> &mut [u8] {
        let room = self.room(size);
        let content = room.len().saturating_sub(RECORDS);
        room.get_mut(..content).unwrap_or_default()
    }

    /// Moves what is held to the front of a buffer of at least `size`.
    pub(crate) fn make_room(&mut self, size: Size) {
        match &mut self.lease {
            Some(lease) if lease.size >= size => {
                if self.start > 0 {
                    lease.bytes.copy_within(self.start..self.end, 0);
                }
            }
            lease => {
                let mut larger = Lease::new(size);
                if let Some(held) = lease.as_ref().and_then(|lease| lease.bytes.get(self.start..self.end))
                    && let Some(front) = larger.bytes.get_mut(..held.len())
                {
                    front.copy_from_slice(held);
                }
                *lease = Some(larger);
            }
        }
        self.end -= self.start;
        self.start = 0;
    }

    pub(crate) fn added(&mut self, n: usize) {
        self.end += n;
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.lease.as_ref().and_then(|lease| lease.bytes.get(self.start..self.end)).unwrap_or_default()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.lease.as_mut().and_then(|lease| lease.bytes.get_mut(self.start..self.end)).unwrap_or_default()
    }

    pub(crate) fn taken(&mut self, n: usize) {
        self.start += n;
    }

    /// Gives the room back; what was held must have been taken.
    pub(crate) fn release(&mut self) {
        debug_assert!(self.is_empty());
        (self.start, self.end) = (0, 0);
        self.lease = None;
    }

    #[cfg(test)]
    pub(crate) fn is_released(&self) -> bool {
        self.lease.is_none()
    }
}

impl Lease {
    fn new(size: Size) -> Self {
        let free = POOL.with_borrow_mut(|pool| pool.get_mut(size.0).and_then(Vec::pop));
        Self { size, bytes: free.unwrap_or_else(|| vec![0; size.bytes()].into_boxed_slice()) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // While the thread ends there is no pool any more: the buffer is freed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if let (Some(free), Some(kept)) = (pool.get_mut(self.size.0), KEPT.get(self.size.0))
                && free.len() < *kept
            {
                free.push(std::mem::take(&mut self.bytes));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_traffic() {
        let mut size = Size::default();
        let mut seen = Vec::new();
        for filled in [10, 4_096, 17_000, 65_536, 262_144, 262_656, 100_000, 10_000, 10_000, 3_000, 300, 300] {
            size.adapt(filled);
            seen.push(size.bytes() / KIB);
        }
        assert_eq!(seen, [4, 16, 64, 256, 256, 256, 256, 64, 64, 16, 4, 4]);
        assert_eq!([0, 4608, 4609, 16_645, 70_000, 1_000_000].map(|n| Size::of(n).0), [0, 0, 1, 1, 3, 3]);
    }

    #[test]
    fn buffers_are_leased_and_kept_within_a_bound() {
        let mut buffers: Vec<Buffer> = (0..100).map(|_| Buffer::default()).collect();
        for buffer in &mut buffers {
            assert_eq!(buffer.room(Size(3)).len(), SIZES[3]);
        }
        drop(buffers);
        POOL.with_borrow(|pool| assert_eq!(pool[3].len(), KEPT[3]));
        let mut again = Buffer::default();
        again.room(Size(3))[..2].copy_from_slice(b"ab");
        again.added(2);
        assert_eq!((again.bytes(), again.filled()), (&b"ab"[..], 2));
        again.taken(1);
        assert_eq!((again.bytes(), again.is_empty()), (&b"b"[..], false));
        again.taken(1);
        again.release();
        POOL.with_borrow(|pool| assert_eq!(pool[3].len(), KEPT[3]));
    }

    #[test]
    fn what_is_held_moves_to_the_front() {
        let mut buffer = Buffer::default();
        buffer.room(Size(0))[..4].copy_from_slice(b"abcd");
        buffer.added(4);
        buffer.taken(1);
        for (size, room) in [(0, 4605), (0, 4605), (1, 16_893), (0, 16_893)] {
            buffer.make_room(Size(size));
            assert_eq!(buffer.bytes(), b"bcd");
            assert_eq!(buffer.room(Size(0)).len(), room);
        }
    }
}
