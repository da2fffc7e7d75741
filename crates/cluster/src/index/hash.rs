//! Versions: the hash of an answer's content.

use std::fmt::{self, Debug, Write};
use weft_model::fnv::{OFFSET, fold};

struct Fnv1a(u64);

impl Write for Fnv1a {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = fold(self.0, text.as_bytes());
        Ok(())
    }
}

/// Of the content as its `Debug` form shows it, which is complete and the same in every process of one build.
pub(super) fn of(content: &impl Debug) -> u64 {
    let mut hash = Fnv1a(OFFSET);
    // Writing into a number does not fail.
    let _ = write!(hash, "{content:?}");
    hash.0
}
