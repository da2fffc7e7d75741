//! Frames as far as the gate looks into them: heads, found wherever the bytes are cut, and the first bytes of some payloads.
//!
//! Pure. What is allowed is the gate's.

use super::gate::Violation;
use h2::Reason;

pub(super) const HEAD: usize = 9;
/// Where in a head the kind stands.
pub(super) const KIND: usize = 3;
/// One setting.
pub(super) const SETTING: usize = 6;

#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// Finds the heads of frames, with the first bytes of those payloads that are asked for.
pub(super) struct Walker<const N: usize> {
    /// Bytes to skip before the next head.
    pub(super) skip: u32,
    pub(super) held: [u8; N],
    pub(super) filled: usize,
}

pub(super) mod kind {
    pub(in crate::http2) const DATA: u8 = 0;
    pub(in crate::http2) const HEADERS: u8 = 1;
    pub(in crate::http2) const PRIORITY: u8 = 2;
    pub(in crate::http2) const RST_STREAM: u8 = 3;
    pub(in crate::http2) const SETTINGS: u8 = 4;
    pub(in crate::http2) const PUSH_PROMISE: u8 = 5;
    pub(in crate::http2) const PING: u8 = 6;
    pub(in crate::http2) const GOAWAY: u8 = 7;
    pub(in crate::http2) const WINDOW_UPDATE: u8 = 8;
    pub(in crate::http2) const CONTINUATION: u8 = 9;
    /// One that nobody has defined: `h2` ignores it.
    pub(in crate::http2) const NONE: u8 = 0xff;
}

pub(super) mod flag {
    pub(in crate::http2) const ACK: u8 = 0x1;
    pub(in crate::http2) const END_STREAM: u8 = 0x1;
    pub(in crate::http2) const END_HEADERS: u8 = 0x4;
    pub(in crate::http2) const PADDED: u8 = 0x8;
    pub(in crate::http2) const PRIORITY: u8 = 0x20;
}

impl Head {
    pub(super) fn parse<const N: usize>(held: &[u8; N]) -> Self {
        let Some([l0, l1, l2, kind, flags, s0, s1, s2, s3]) = held.first_chunk::<HEAD>().copied() else {
            return Self { length: 0, kind: 0, flags: 0, stream: 0 };
        };
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }

    /// Where in the payload of a HEADERS frame the first field begins.
    pub(super) fn first_field(self) -> usize {
        let padding = if self.flags & flag::PADDED != 0 { 1 } else { 0 };
        padding + if self.flags & flag::PRIORITY != 0 { 5 } else { 0 }
    }
}

impl<const N: usize> Walker<N> {
    pub(super) fn after(skip: u32) -> Self {
        Self { skip, held: [0; N], filled: 0 }
    }

    /// Goes on in `bytes` at `at` until `wanted` bytes of a frame are held; the position behind them.
    pub(super) fn head(&mut self, bytes: &[u8], at: usize, wanted: usize) -> Option<usize> {
        let rest = bytes.get(at..)?;
        let skipped = rest.len().min(self.skip as usize);
        self.skip -= skipped as u32;
        let (from, rest) = (at + skipped, rest.get(skipped..)?);
        let taken = rest.len().min(wanted.saturating_sub(self.filled));
        self.held.get_mut(self.filled..self.filled + taken)?.copy_from_slice(rest.get(..taken)?);
        self.filled += taken;
        (self.filled >= wanted).then_some(from + taken)
    }

    /// The frame held goes on for `length` bytes.
    pub(super) fn next(&mut self, length: u32) {
        self.filled = 0;
        self.skip = length;
    }
}

/// `h2` calls a window that is too large a protocol error.
pub(super) fn check_setting(setting: &[u8]) -> Result<(), Violation> {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    match setting {
        [i0, i1, (0x80..), ..] if u16::from_be_bytes([*i0, *i1]) == INITIAL_WINDOW_SIZE => {
            Err(Violation { code: Reason::FLOW_CONTROL_ERROR, what: "initial window is too large" })
        }
        _ => Ok(()),
    }
}

/// Whether an encoded field is a pseudo-header, as far as its first bytes tell: one of the static table's, or a name that is
/// spelt out. (Whether an entry of the dynamic table is one, only a decoder knows.)
pub(super) fn is_pseudo(field: &[u8]) -> bool {
    const LAST_PSEUDO: u8 = 14;
    let (index, literal) = match field.first() {
        Some(first) if first & 0x80 != 0 => (first & 0x7f, false),
        Some(first) if first & 0x40 != 0 => (first & 0x3f, true),
        // A change of the table's size stands before the first field.
        Some(first) if first & 0x20 != 0 => return false,
        Some(first) => (first & 0x0f, true),
        None => return false,
    };
    match (index, literal, field) {
        (0, true, [_, length, name, ..]) => {
            // In Huffman's code the colon has seven bits.
            if length & 0x80 == 0 { *name == b':' } else { name >> 1 == 0x5c }
        }
        _ => (1..=LAST_PSEUDO).contains(&index),
    }
}
