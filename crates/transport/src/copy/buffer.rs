//! Buffers that are held only while bytes are in them, and grow with the traffic.
//!
//! They are leased from a pool of the thread, so an idle connection holds none.

use std::cell::RefCell;

const KIB: usize = 1024;
/// From a few bytes here and there to a bulk transfer.
const SIZES: [usize; 4] = [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB];
/// How many free buffers of each size a thread keeps: 1.5 MiB at most.
const KEPT: [usize; 4] = [32, 16, 6, 3];

thread_local! {
    static POOL: RefCell<[Vec<Box<[u8]>>; 4]> = const { RefCell::new([const { Vec::new() }; 4]) };
}

/// How large the next buffer of one direction shall be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size(usize);

impl Size {
    /// Learns from how far the last buffer was filled.
    pub(super) fn adapt(&mut self, filled: usize) {
        let size = SIZES.get(self.0).copied().unwrap_or_default();
        if filled >= size {
            self.0 = (self.0 + 1).min(SIZES.len() - 1);
        } else if filled < size / 8 {
            self.0 = self.0.saturating_sub(1);
        }
    }
}

/// Bytes on their way from one connection to the other.
#[derive(Debug, Default)]
pub(super) struct Buffer {
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
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn filled(&self) -> usize {
        self.end
    }

    /// Room behind what is held, leased if there is none yet. Empty when the buffer is full.
    pub(super) fn room(&mut self, size: Size) -> &mut [u8] {
        let lease = self.lease.get_or_insert_with(|| Lease { size, bytes: take(size) });
        lease.bytes.get_mut(self.end..).unwrap_or_default()
    }

    pub(super) fn has_room(&self) -> bool {
        self.lease.as_ref().is_none_or(|lease| self.end < lease.bytes.len())
    }

    pub(super) fn added(&mut self, n: usize) {
        self.end += n;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.lease.as_ref().and_then(|lease| lease.bytes.get(self.start..self.end)).unwrap_or_default()
    }

    pub(super) fn taken(&mut self, n: usize) {
        self.start += n;
    }

    #[cfg(test)]
    pub(super) fn is_released(&self) -> bool {
        self.lease.is_none()
    }

    /// Gives the room back; what was held must have been taken.
    pub(super) fn release(&mut self) {
        debug_assert!(self.is_empty());
        (self.start, self.end) = (0, 0);
        self.lease = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        give(self.size, std::mem::take(&mut self.bytes));
    }
}

fn take(size: Size) -> Box<[u8]> {
    POOL.with_borrow_mut(|pool| pool.get_mut(size.0).and_then(Vec::pop))
        .unwrap_or_else(|| vec![0; SIZES.get(size.0).copied().unwrap_or_default()].into_boxed_slice())
}

fn give(size: Size, bytes: Box<[u8]>) {
    if bytes.is_empty() {
        return;
    }
    // While the thread ends there is no pool any more: the buffer is freed.
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if let (Some(free), Some(kept)) = (pool.get_mut(size.0), KEPT.get(size.0))
            && free.len() < *kept
        {
            free.push(bytes);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_traffic() {
        let mut size = Size::default();
        let mut seen = Vec::new();
        for filled in [10, 4096, 16_384, 65_536, 262_144, 262_144, 100_000, 10_000, 10_000, 3_000, 300, 300] {
            size.adapt(filled);
            seen.push(SIZES[size.0] / KIB);
        }
        assert_eq!(seen, [4, 16, 64, 256, 256, 256, 256, 64, 64, 16, 4, 4]);
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
}
