//! From the metrics of the proxies to what a person reads.
//!
//! ```text
//! proxy /metrics ─► exposition (samples) ─► window (bounded, per proxy) ─► edges ─► table | JSON
//! ```
//! It stands above the proxies and asks them only over HTTP. It must not know how a proxy is reached: whoever runs it
//! gives a connection ([`scrape`]).

#![forbid(unsafe_code)]

pub mod edges;
pub mod exposition;
pub mod scrape;
pub mod table;
pub mod window;

pub use edges::{Edge, Edges};
pub use window::{Proxy, Window};
