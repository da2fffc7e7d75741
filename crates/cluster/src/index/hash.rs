//! Versions: the hash of an answer's content.

use std::fmt::{self, Debug, Write};

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

struct Fnv1a(u64);

impl Write for Fnv1a {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = fold(self.0, text.as_bytes());
        Ok(())
    }
}

fn fold(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// Not for secrets, nor against somebody who searches for collisions: it only tells versions apart.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    fold(OFFSET, bytes)
}

/// Of the content as its `Debug` form shows it, which is complete and the same in every process of one build.
pub(super) fn of(content: &impl Debug) -> u64 {
    let mut hash = Fnv1a(OFFSET);
    // Writing into a number does not fail.
    let _ = write!(hash, "{content:?}");
    hash.0
}
