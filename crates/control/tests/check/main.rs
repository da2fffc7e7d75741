//! Every line of `weft check`, true and false: against the fake API server, and against a real one wherever that can be made to fail.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod broken;
mod fake;
mod real;
mod world;
