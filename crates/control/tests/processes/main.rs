//! The processes of the control plane against an API server: `cases` hold of the fake one and, in `real`, of a real one alike.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod admission;
mod cases;
mod lab;
mod real;
