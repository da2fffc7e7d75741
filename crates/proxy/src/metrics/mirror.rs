//! Copies of requests that go to mirrors, by what became of them.

use weft_telemetry::{Counter, CounterFamily, Labels, Registry, Shard};

pub(crate) struct Families(CounterFamily);

/// The series of one mirror.
pub(crate) struct Series {
    /// It was answered, whatever with.
    pub(crate) sent: Counter,
    /// There was no endpoint, or no answer in time.
    pub(crate) failed: Counter,
    pub(crate) too_large: Counter,
    /// Too many copies are under way.
    pub(crate) full: Counter,
    /// The request broke off.
    pub(crate) cut: Counter,
}

impl Families {
    pub(crate) fn new(registry: &Registry) -> Self {
        let help = "Copies of requests for RequestMirror filters, by what became of them";
        Self(registry.counter("weft_outbound_mirrored_requests_total", help))
    }

    pub(crate) fn series(&self, shard: Shard, labels: &Labels) -> Series {
        let of = |result: &str| self.0.with(shard, &labels.clone().with("result", result));
        Series { sent: of("sent"), failed: of("failed"), too_large: of("too_large"), full: of("full"), cut: of("cut") }
    }
}
