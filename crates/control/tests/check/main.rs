//! Every line of `weft check`, true and false.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod broken;
mod fake;
mod world;
