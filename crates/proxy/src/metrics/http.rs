//! Requests and responses of one endpoint, of one route and client, or of one route of a ServiceProfile.

use super::{counter, latency};
use crate::{error::ProxyError, exchange::Observe, process::in_flight::Permit, turn};
use std::{cell::RefCell, rc::Rc, time::Instant};
use weft_model::{
    decide::{breaker::GRPC_FAILURES, profile},
    profile::ResponseClass,
};
use weft_telemetry::{Counter, CounterFamily, Histogram, HistogramFamily, Labels, Registry, Shard};

/// Handles that a series keeps by status. A server that makes up statuses is looked up in the registry each time beyond that.
const MAX_HELD: usize = 64;

#[derive(Clone)]
pub(crate) struct Families {
    requests: CounterFamily,
    responses: CounterFamily,
    /// What each try of a request costs is not measured apart.
    latency: Option<HistogramFamily>,
}

/// The series that share a set of labels.
pub(crate) struct Series {
    families: Families,
    shard: Shard,
    labels: Labels,
    requests: Counter,
    responses: RefCell<Vec<(Outcome, Counter)>>,
    latencies: RefCell<Vec<(u16, Histogram)>>,
}

/// The labels that a response adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    status: u16,
    grpc: Option<u16>,
    error: Option<&'static str>,
    pub(crate) failure: bool,
}

/// Follows one request.
pub(crate) struct Recorder {
    series: Rc<Series>,
    /// Given back when the head of the response comes.
    permit: Option<Permit>,
    /// What a profile calls a failure.
    classes: Option<Rc<[ResponseClass]>>,
    start: Instant,
    status: Option<u16>,
    first_byte: bool,
    ended: bool,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            requests: counter(registry, "request_total", "Requests"),
            responses: counter(registry, "response_total", "Responses that have ended"),
            latency: Some(latency(
                registry,
                "response_latency_ms",
                "Milliseconds from a request to the first byte of its response's body",
            )),
        }
    }

    /// Of profile routes, as applications see them: whatever was tried counts once.
    pub(super) fn routes(registry: &Registry) -> Self {
        Self {
            requests: counter(registry, "route_request_total", "Requests of a ServiceProfile's route"),
            responses: counter(registry, "route_response_total", "Responses of a ServiceProfile's route"),
            latency: Some(latency(
                registry,
                "route_response_latency_ms",
                "Milliseconds from a request of a ServiceProfile's route to the first byte of its response's body",
            )),
        }
    }

    /// Of profile routes, each try by itself.
    pub(super) fn routes_actual(registry: &Registry) -> Self {
        Self {
            requests: counter(registry, "route_actual_request_total", "Tries of requests of a ServiceProfile's route"),
            responses: counter(
                registry,
                "route_actual_response_total",
                "Responses to tries of a ServiceProfile's route",
            ),
            latency: None,
        }
    }

    pub(crate) fn series(&self, shard: Shard, labels: Labels) -> Rc<Series> {
        Rc::new(Series {
            families: self.clone(),
            shard,
            requests: self.requests.with(shard, &labels),
            labels,
            responses: RefCell::default(),
            latencies: RefCell::default(),
        })
    }
}

impl Series {
    /// A request is sent. `start` is when its head came; `counted` says that this stands in for an attempt that was counted.
    pub(crate) fn begin(self: &Rc<Self>, start: Instant, permit: Permit, counted: bool) -> Recorder {
        let mut recorder = self.follow(start, None, counted);
        recorder.permit = Some(permit);
        recorder
    }

    /// A request begins of which something else keeps the record.
    pub(crate) fn count(&self) {
        self.requests.inc();
    }

    /// The same where something else holds the permit. `classes` say what a failure is.
    pub(crate) fn follow(
        self: &Rc<Self>,
        start: Instant,
        classes: Option<Rc<[ResponseClass]>>,
        counted: bool,
    ) -> Recorder {
        if !counted {
            self.count();
        }
        let series = Rc::clone(self);
        Recorder { series, permit: None, classes, start, status: None, first_byte: false, ended: false }
    }

    pub(crate) fn latency(&self, status: u16, millis: f64) {
        let Some(family) = &self.families.latency else { return };
        let look_up = || family.with(self.shard, &self.labels.clone().with("status_code", status));
        held(&self.latencies, status, look_up, |latency| latency.observe(millis));
    }

    pub(crate) fn response(&self, outcome: Outcome) {
        let look_up = || self.families.responses.with(self.shard, &outcome.labels(&self.labels));
        held(&self.responses, outcome, look_up, Counter::inc);
    }
}

/// Does something with the handle under `key`: held, or looked up and held as long as there is room.
pub(super) fn held<K: PartialEq, H>(
    handles: &RefCell<Vec<(K, H)>>,
    key: K,
    look_up: impl FnOnce() -> H,
    with: impl FnOnce(&H),
) {
    let mut handles = handles.borrow_mut();
    if let Some((_, handle)) = handles.iter().find(|(k, _)| *k == key) {
        return with(handle);
    }
    let handle = look_up();
    with(&handle);
    if handles.len() < MAX_HELD {
        handles.push((key, handle));
    }
}

impl Outcome {
    /// A response failed if it broke off, or the profile's classes say so, or else its gRPC status, or else its HTTP status.
    pub(crate) fn new(status: u16, grpc: Option<u16>, error: Option<&'static str>, classes: &[ResponseClass]) -> Self {
        let by_status = || match grpc {
            Some(code) => GRPC_FAILURES.contains(&code),
            None => status >= 500,
        };
        let failure = error.is_some() || profile::is_failure(classes, status).unwrap_or_else(by_status);
        Self { status, grpc, error, failure }
    }

    fn labels(&self, base: &Labels) -> Labels {
        let mut labels = base
            .clone()
            .with("status_code", self.status)
            .with("classification", if self.failure { "failure" } else { "success" });
        if let Some(grpc) = self.grpc {
            labels = labels.with("grpc_status", grpc);
        }
        if let Some(error) = self.error {
            labels = labels.with("error", error);
        }
        labels
    }
}

impl Recorder {
    /// What a failure is, other than by status.
    pub(crate) fn classed(mut self, classes: Option<Rc<[ResponseClass]>>) -> Self {
        self.classes = classes;
        self
    }

    fn finish(&mut self, grpc: Option<u16>, error: Option<&'static str>) {
        if self.ended {
            return;
        }
        self.ended = true;
        let Some(status) = self.status else { return };
        self.note_first_byte(status);
        self.series.response(Outcome::new(status, grpc, error, self.classes.as_deref().unwrap_or_default()));
    }

    fn note_first_byte(&mut self, status: u16) {
        if !self.first_byte {
            self.first_byte = true;
            self.series.latency(status, turn::since(self.start).as_secs_f64() * 1e3);
        }
    }
}

impl Observe for Recorder {
    fn response_head(&mut self, status: u16) {
        self.status = Some(status);
        self.permit = None;
    }

    fn first_byte(&mut self) {
        if let Some(status) = self.status {
            self.note_first_byte(status);
        }
    }

    fn end(&mut self, grpc_status: Option<u16>, error: Option<&ProxyError>) {
        self.finish(grpc_status, error.map(|e| e.code.as_str()));
    }
}

impl Drop for Recorder {
    /// The client left before the end: what the server had answered until then counts.
    fn drop(&mut self) {
        self.finish(None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::Code, process::in_flight::InFlight};

    fn scrape(requests: impl FnOnce(&Rc<Series>)) -> Vec<String> {
        let registry = Registry::new(1, 100);
        let families = Families::new(&registry);
        let series = families.series(Shard::worker(0), Labels::new().with("direction", "outbound"));
        requests(&series);
        let text = registry.encode();
        text.lines()
            .filter(|l| l.starts_with("re") && !l.contains("bucket") && !l.contains("_sum"))
            .map(str::to_owned)
            .collect()
    }

    fn permit() -> Permit {
        InFlight::new(1).admit().unwrap()
    }

    #[test]
    fn requests_are_in_flight_until_their_head() {
        let in_flight = InFlight::new(2);
        let registry = Registry::new(1, 100);
        let series = Families::new(&registry).series(Shard::worker(0), Labels::new());
        let mut first = series.begin(Instant::now(), in_flight.admit().unwrap(), false);
        let _second = in_flight.admit().unwrap();
        assert_eq!(in_flight.admit().err().map(|e| e.code), Some(Code::LoadShed));
        first.response_head(200);
        assert!(in_flight.admit().is_ok(), "the body does not count");
    }

    #[test]
    fn a_response_counts_once_with_its_class() {
        let lines = scrape(|series| {
            for (status, grpc) in
                [(200, None), (503, None), (404, None), (200, Some(0)), (200, Some(13)), (200, Some(5))]
            {
                let mut recorder = series.begin(Instant::now(), permit(), false);
                recorder.response_head(status);
                recorder.first_byte();
                recorder.end(grpc, None);
            }
        });
        assert_eq!(
            lines,
            [
                r#"request_total{direction="outbound"} 6"#,
                r#"response_latency_ms_count{direction="outbound",status_code="200"} 4"#,
                r#"response_latency_ms_count{direction="outbound",status_code="404"} 1"#,
                r#"response_latency_ms_count{direction="outbound",status_code="503"} 1"#,
                r#"response_total{direction="outbound",status_code="200",classification="failure",grpc_status="13"} 1"#,
                r#"response_total{direction="outbound",status_code="200",classification="success"} 1"#,
                r#"response_total{direction="outbound",status_code="200",classification="success",grpc_status="0"} 1"#,
                r#"response_total{direction="outbound",status_code="200",classification="success",grpc_status="5"} 1"#,
                r#"response_total{direction="outbound",status_code="404",classification="success"} 1"#,
                r#"response_total{direction="outbound",status_code="503",classification="failure"} 1"#,
            ]
        );
    }

    #[test]
    fn a_broken_response_is_a_failure_and_one_without_a_head_is_none() {
        let lines = scrape(|series| {
            let mut broken = series.begin(Instant::now(), permit(), false);
            broken.response_head(200);
            broken.end(None, Some(&ProxyError::new(Code::UpstreamProtocol, "reset")));
            drop(series.begin(Instant::now(), permit(), false));
        });
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(
            lines[2],
            r#"response_total{direction="outbound",status_code="200",classification="failure",error="UPSTREAM_PROTOCOL"} 1"#
        );
    }

    #[test]
    fn a_profile_says_what_a_failure_is() {
        use weft_model::profile::ResponseMatch;
        let class = |status, failure| ResponseClass { matches: ResponseMatch::Status(status..=status), failure };
        let classes: Rc<[ResponseClass]> = Rc::new([class(404, true), class(503, false)]);
        let lines = scrape(|series| {
            for status in [404, 503, 500] {
                let mut recorder = series.follow(Instant::now(), Some(classes.clone()), false);
                recorder.response_head(status);
                recorder.end(None, None);
            }
        });
        let classified: Vec<_> = lines.iter().filter(|l| l.contains("classification")).collect();
        let expected = [("404", "failure"), ("500", "failure"), ("503", "success")];
        for (line, (status, class)) in classified.iter().zip(expected) {
            assert!(line.contains(status) && line.contains(class), "{line}");
        }
        assert_eq!(classified.len(), 3);
    }

    #[test]
    fn made_up_statuses_do_not_grow_what_is_held() {
        scrape(|series| {
            for status in 100..999 {
                let mut recorder = series.begin(Instant::now(), permit(), false);
                recorder.response_head(status);
                recorder.end(None, None);
            }
            assert_eq!(series.responses.borrow().len(), MAX_HELD);
            assert_eq!(series.latencies.borrow().len(), MAX_HELD);
        });
    }
}
