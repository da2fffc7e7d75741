//! HTTP/2: the frame gate, and what glues the `h2` crate to sockets, timers and drain.
//!
//! ```text
//! socket ─► Guarded (frame gate: lengths, streams, budgets ─► GOAWAY) ─► h2 ─► server: one local task per stream
//!                                                                         └──► client: Sender, one connection per endpoint
//! ```
//! Knows frames, connections and streams; what a request means and where it goes is `exchange`'s.

pub(crate) mod budget;
pub(crate) mod client;
mod frame;
pub(crate) mod gate;
pub(crate) mod guarded;
pub(crate) mod pings;
mod room;
pub(crate) mod server;
pub(crate) mod settings;
mod size;
mod window;

#[cfg(test)]
mod gate_tests;

pub(crate) use client::{Sender, connect};
pub(crate) use room::Room;
pub(crate) use settings::{ClientSettings, MAX_HEADER_LIST_SIZE, ServerSettings};
pub(crate) use size::{fields_fit, request_fits, trailers_fit};
