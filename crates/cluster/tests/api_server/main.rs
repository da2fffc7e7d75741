//! The index fed by an API server: whatever happens between them, it ends at what the objects say.
//!
//! `cases` hold on the fake and on a real API server (`real`); `trouble` is what only the fake makes to order.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod cases;
mod commands;
mod examples;
mod kept;
mod lab;
mod real;
mod rows;
mod statuses;
mod trouble;
