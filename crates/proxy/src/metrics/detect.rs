//! What detection of outbound connections found out (data plane 6.4).

use super::http::held;
use std::{cell::RefCell, time::Duration};
use weft_telemetry::{Counter, CounterFamily, Histogram, HistogramFamily, Labels, Registry, Shard};

/// Seconds.
const DETECT_DURATION: &[f64] = &[0.001, 0.1];

/// How detection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detection {
    NotHttp,
    Http1,
    Http2,
    ReadTimeout,
    /// The connection broke or ended before.
    Error,
}

#[derive(Clone)]
pub(crate) struct DetectFamilies {
    results: CounterFamily,
    duration: HistogramFamily,
}

/// The series of detection for one parent.
pub(crate) struct Detected {
    families: DetectFamilies,
    shard: Shard,
    parent: Labels,
    results: RefCell<Vec<(Detection, Counter)>>,
    duration: Histogram,
}

impl DetectFamilies {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            results: registry.counter("outbound_tcp_detect_http_results_total", "What detection found out"),
            duration: registry.histogram(
                "outbound_tcp_detect_http_duration_seconds",
                "How long detection took",
                DETECT_DURATION,
            ),
        }
    }

    pub(crate) fn series(&self, shard: Shard, parent: Labels) -> Detected {
        let duration = self.duration.with(shard, &parent);
        Detected { families: self.clone(), shard, parent, results: RefCell::default(), duration }
    }
}

impl Detection {
    fn as_str(self) -> &'static str {
        match self {
            Self::NotHttp => "not_http",
            Self::Http1 => "http/1",
            Self::Http2 => "http/2",
            Self::ReadTimeout => "read_timeout",
            Self::Error => "error",
        }
    }
}

impl Detected {
    pub(crate) fn note(&self, detection: Detection, time: Duration) {
        let look_up = || {
            let labels = Labels::new().with("result", detection.as_str()).join(&self.parent);
            self.families.results.with(self.shard, &labels)
        };
        held(&self.results, detection, look_up, Counter::inc);
        self.duration.observe(time.as_secs_f64());
    }
}
