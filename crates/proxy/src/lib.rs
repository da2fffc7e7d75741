//! `weft-proxy`: the data plane.
//!
//! ```text
//! app ─► OUTBOUND  accept → discover → detect → route → retry → balance → connect ─► peer
//! app ◄─ INBOUND   forward ← limit ← authorize ← route ← detect ← tls ← accept    ◄─ peer
//! ```
//! The folders stand in the order in which a packet meets them. [`process`] starts everything and holds what is one per
//! process; the rest runs on worker threads, each with its own pools, load estimates and metric shards.

#![forbid(unsafe_code)]

mod answers;
mod carry;
pub mod config;
pub mod direction;
pub mod error;
mod exchange;
mod filter;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http1;
mod http2;
mod inbound;
mod metrics;
mod outbound;
mod parting;
mod pool;
mod prefix;
pub mod process;
mod profile;
mod protocol;
mod records;
mod server_first;
mod turn;

pub use config::Config;
pub use process::{Handle, Options, start};
