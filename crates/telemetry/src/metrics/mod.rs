//! Counters, gauges and histograms that cost one relaxed atomic operation.
//!
//! ```text
//! Registry ─► family (name, help, type) ─► series (labels) ─► one cell per shard ◄── handle held by a worker
//!                                                     merged on scrape ─► text
//! ```
//! A shard belongs to one worker thread, so that no two threads write to one cell. Handles are looked up once per
//! connection, route or endpoint, never per request. The number of series is capped: over the cap a family counts
//! into one series with `overflow="true"`.

mod cell;
mod encode;
mod labels;
pub mod registry;

pub use cell::{Counter, Gauge, Histogram, Level};
pub use encode::Sample;
pub use labels::Labels;
pub use registry::{CounterFamily, GaugeFamily, HistogramFamily, LevelFamily, Registry};
