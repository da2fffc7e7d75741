//! Byte buffers that a connection leases from its worker while it holds bytes, and gives back when it is idle.
//!
//! Below [`super::Io`]. An idle connection thereby holds no buffer at all; memory follows what is in flight.

use std::{cell::RefCell, mem};

/// What a connection reads into at first: a head and a small body.
pub(super) const SMALL: usize = 8 * 1024;
/// What a bulk body is read into.
const LARGE: usize = 64 * 1024;
/// What a head that does not come whole is held in at least, until more of it comes.
const LEAST: usize = 512;
/// How many buffers of each size a worker keeps for reuse.
const KEPT_SMALL: usize = 256;
const KEPT_LARGE: usize = 32;
/// How many head buffers a worker keeps for reuse, and how large one may have become.
const KEPT_OUT: usize = 256;
const KEPT_OUT_CAPACITY: usize = 16 * 1024;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { small: Vec::new(), large: Vec::new(), out: Vec::new() }) };
}

struct Pool {
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
    out: Vec<Vec<u8>>,
}

fn lease(size: usize) -> Box<[u8]> {
    let kept = POOL.with_borrow_mut(|pool| match size {
        SMALL => pool.small.pop(),
        LARGE => pool.large.pop(),
        _ => None,
    });
    kept.unwrap_or_else(|| vec![0; size].into_boxed_slice())
}

fn give_back(data: Box<[u8]>) {
    // While the thread ends the pool may be gone already.
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        match data.len() {
            SMALL if pool.small.len() < KEPT_SMALL => pool.small.push(data),
            LARGE if pool.large.len() < KEPT_LARGE => pool.large.push(data),
            _ => {}
        }
    });
}

/// Bytes that were read and not yet consumed, in one piece. Holds memory only while there are any, or while reading.
#[derive(Default)]
pub(crate) struct ReadBuffer {
    data: Box<[u8]>,
    start: usize,
    end: usize,
    kept: Option<Box<Kept>>,
}

/// What was consumed and may be wanted again.
struct Kept {
    bytes: Vec<u8>,
    limit: usize,
}

impl ReadBuffer {
    pub(crate) fn filled(&self) -> &[u8] {
        self.data.get(self.start..self.end).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes `n` bytes away from the front.
    pub(crate) fn consume(&mut self, n: usize) {
        if self.kept.is_some() {
            self.remember(n);
        }
        self.start = (self.start + n).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// From now on keeps what is consumed, up to `limit` bytes; more, and nothing is kept.
    pub(crate) fn keep(&mut self, limit: usize) {
        self.kept = Some(Box::new(Kept { bytes: Vec::new(), limit }));
    }

    /// Keeps nothing any more.
    pub(crate) fn forget(&mut self) {
        self.kept = None;
    }

    /// Whether all that was consumed since [`Self::keep`] is kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Puts what was kept before the bytes that are unread.
    pub(crate) fn rewind(&mut self) {
        let Some(kept) = self.kept.take().filter(|kept| !kept.bytes.is_empty()) else { return };
        let unread = mem::take(self);
        self.extend(&kept.bytes);
        self.extend(unread.filled());
    }

    fn remember(&mut self, n: usize) {
        let Some(mut kept) = self.kept.take() else { return };
        let bytes = self.filled();
        let bytes = bytes.get(..n).unwrap_or(bytes);
        if kept.bytes.len() + bytes.len() <= kept.limit {
            kept.bytes.extend_from_slice(bytes);
            self.kept = Some(kept);
        }
    }

    /// Room behind the bytes, to read into; at least one byte. Grows up to `limit` bytes in all; `None` when that is reached.
    pub(crate) fn room(&mut self, limit: usize) -> Option<&mut [u8]> {
        if self.end == self.data.len() {
            if self.start > 0 {
                self.data.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else {
                let size = match self.data.len() {
                    0..SMALL => SMALL,
                    SMALL..LARGE => LARGE,
                    large => large.saturating_mul(2),
                };
                if self.len() >= limit {
                    return None;
                }
                self.replace(lease(size));
            }
        }
        self.data.get_mut(self.end..)
    }

    /// Holds little more than the bytes that are there, for they may be all for a while.
    pub(crate) fn shrink(&mut self) {
        let size = (self.len() + self.len() / 4).next_multiple_of(LEAST);
        // What saves less is not worth a copy.
        if 2 * size <= self.data.len() {
            self.replace(vec![0; size].into_boxed_slice());
        }
    }

    /// Moves the bytes into other memory, in which there is room for them.
    fn replace(&mut self, data: Box<[u8]>) {
        let old = mem::replace(&mut self.data, data);
        let bytes = old.get(self.start..self.end).unwrap_or_default();
        if let Some(to) = self.data.get_mut(..bytes.len()) {
            to.copy_from_slice(bytes);
        }
        (self.start, self.end) = (0, bytes.len());
        give_back(old);
    }

    /// Notes that `n` bytes were read into [`Self::room`].
    pub(crate) fn advance(&mut self, n: usize) {
        self.end = (self.end + n).min(self.data.len());
    }

    /// Whether the last read filled all there was: more is likely to wait, so a larger buffer pays.
    pub(crate) fn is_full(&self) -> bool {
        self.end == self.data.len()
    }

    /// Changes an empty buffer for a large one.
    pub(crate) fn enlarge(&mut self) {
        if self.is_empty() && self.data.len() < LARGE {
            give_back(mem::replace(&mut self.data, lease(LARGE)));
        }
    }

    pub(crate) fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(room) = self.room(usize::MAX) else { return };
            let n = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(n);
            if let Some(to) = room.get_mut(..n) {
                to.copy_from_slice(now);
            }
            self.advance(n);
            bytes = later;
        }
    }

    /// Gives the memory back if no bytes are held.
    pub(crate) fn release(&mut self) {
        if self.is_empty() && !self.data.is_empty() {
            give_back(mem::take(&mut self.data));
            self.start = 0;
            self.end = 0;
        }
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        if !self.data.is_empty() {
            give_back(mem::take(&mut self.data));
        }
    }
}

/// What is to be written before anything else: a head, a chunk's size line, trailers.
#[derive(Default)]
pub(crate) struct OutBuffer {
    data: Vec<u8>,
    written: usize,
}

impl OutBuffer {
    /// To append to.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        if self.data.capacity() == 0
            && let Some(kept) = POOL.with_borrow_mut(|pool| pool.out.pop())
        {
            self.data = kept;
        }
        &mut self.data
    }

    pub(crate) fn pending(&self) -> &[u8] {
        self.data.get(self.written..).unwrap_or_default()
    }

    /// Notes that `n` pending bytes were written. They are kept for [`Self::rewind`].
    pub(crate) fn wrote(&mut self, n: usize) {
        self.written = (self.written + n).min(self.data.len());
    }

    pub(crate) fn nothing_written(&self) -> bool {
        self.written == 0
    }

    /// Nothing of it was seen by the peer: all is to be written again, elsewhere.
    pub(crate) fn rewind(&mut self) {
        self.written = 0;
    }

    /// Forgets what was written and gives the memory back.
    pub(crate) fn release(&mut self) {
        self.written = 0;
        if self.data.capacity() == 0 {
            return;
        }
        let mut data = mem::take(&mut self.data);
        if data.capacity() > KEPT_OUT_CAPACITY {
            return;
        }
        data.clear();
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.out.len() < KEPT_OUT {
                pool.out.push(data);
            }
        });
    }

    /// Forgets what was written, for something new to be appended.
    pub(crate) fn clear(&mut self) {
        self.data.clear();
        self.written = 0;
    }
}

impl Drop for OutBuffer {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_in_order_while_the_buffer_grows_and_is_consumed() {
        let mut buffer = ReadBuffer::default();
        let text: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        buffer.extend(&text[..50_000]);
        assert_eq!(buffer.filled(), &text[..50_000]);
        buffer.consume(49_000);
        buffer.extend(&text[50_000..]);
        assert_eq!(buffer.filled(), &text[49_000..]);
        buffer.consume(51_000);
        assert!(buffer.is_empty());
        buffer.release();
        assert!(buffer.data.is_empty(), "an idle connection holds no memory");
    }

    #[test]
    fn what_was_consumed_comes_back_in_front() {
        let mut buffer = ReadBuffer::default();
        let text: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        buffer.keep(60_000);
        for part in text.chunks(7_000) {
            buffer.extend(part);
            let n = buffer.len().min(4_000);
            buffer.consume(n);
        }
        assert!(buffer.is_kept());
        buffer.rewind();
        assert_eq!(buffer.filled(), text);
        buffer.rewind();
        assert_eq!(buffer.filled(), text, "nothing is kept any more");
        buffer.keep(10);
        buffer.consume(10);
        assert!(buffer.is_kept());
        buffer.consume(1);
        assert!(!buffer.is_kept());
        buffer.rewind();
        assert_eq!(buffer.filled(), &text[11..]);
    }

    #[test]
    fn a_limit_ends_growth() {
        let mut buffer = ReadBuffer::default();
        let mut held = 0;
        while let Some(room) = buffer.room(20_000) {
            held += room.len();
            let n = room.len();
            buffer.advance(n);
        }
        assert!((20_000..=LARGE).contains(&held), "{held}");
        assert_eq!(buffer.len(), held);
    }

    #[test]
    fn what_stands_still_holds_little() {
        let mut buffer = ReadBuffer::default();
        let text: Vec<u8> = (0..60_000_u32).map(|n| (n % 251) as u8).collect();
        buffer.extend(&text[..1]);
        buffer.consume(1);
        let (mut at, mut moves) = (1, 0);
        while at < text.len() {
            // A byte at a time, as slowly as can be.
            let held = buffer.data.len();
            buffer.extend(&text[at..=at]);
            at += 1;
            moves += usize::from(buffer.data.len() != held);
            buffer.shrink();
            assert!(buffer.data.len() <= (3 * buffer.len()).clamp(2 * LEAST, LARGE), "{at}: {}", buffer.data.len());
        }
        assert_eq!(buffer.filled(), &text[1..]);
        assert!(moves < 40, "{moves}: whoever sends single bytes makes nobody copy much");
        buffer.consume(text.len());
        buffer.shrink();
        buffer.release();
        assert!(buffer.data.is_empty());
    }

    #[test]
    fn what_was_written_can_be_written_again() {
        let mut out = OutBuffer::default();
        out.bytes().extend_from_slice(b"head");
        assert!(out.nothing_written());
        out.wrote(3);
        assert_eq!(out.pending(), b"d");
        out.rewind();
        assert_eq!(out.pending(), b"head");
        out.clear();
        assert!(out.pending().is_empty());
    }
}
