//! What a process tells about itself: metrics, logs, readiness, build.
//!
//! Every binary of the mesh uses it. It renders text and keeps numbers; the server that shows them is each binary's own.

#![forbid(unsafe_code)]

pub mod build;
pub mod logs;
pub mod metrics;
pub mod process;
pub mod readiness;

pub use build::{BuildInfo, build_info};
pub use logs::{Format, LogHandle};
pub use metrics::{
    Counter, CounterFamily, Gauge, GaugeFamily, Histogram, HistogramFamily, Labels, Level, LevelFamily, Registry,
    registry::Shard,
};
pub use readiness::{Readiness, Task};
