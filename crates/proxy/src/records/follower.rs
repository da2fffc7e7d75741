//! Follows one request from its head to its end, for its record and for those who asked to be told more.

use super::{
    Records, Why,
    access_log::Line,
    record::{Outcome, Record},
    tap::Tapped,
    trace::Traced,
};
use crate::{
    direction::Direction,
    error::ProxyError,
    exchange::{Directed, Fields, Observe},
    protocol::Version,
    turn,
};
use std::{rc::Rc, time::Instant};
use weft_model::{Endpoint, decide::route::RequestView};

/// One request on its way. What is known when it is dropped is what is recorded.
pub(crate) struct Follower {
    records: Rc<Records>,
    /// Until it is recorded.
    record: Option<Box<Record>>,
    /// Only while somebody asks for it.
    more: Option<Box<More>>,
}

/// What more is told than the record.
#[derive(Default)]
struct More {
    endpoint: Option<Endpoint>,
    line: Option<Line>,
    tapped: Option<Tapped>,
    traced: Option<Traced>,
}

impl Follower {
    pub(super) fn new(records: Rc<Records>, record: Box<Record>, request: &dyn RequestView, version: Version) -> Self {
        let logged = records.sinks.access_log.is_some() && record.scene.direction == Direction::Inbound;
        let line = logged.then(|| Line::new(request, version, jiff::Timestamp::now()));
        let more = line.map(|line| Box::new(More { line: Some(line), ..More::default() }));
        Self { records, record: Some(record), more }
    }

    /// When its head had come.
    pub(crate) fn began(&self) -> Instant {
        self.record.as_ref().map_or_else(turn::now, |record| record.began)
    }

    /// By which objects it was decided.
    pub(crate) fn why(&mut self, why: &Rc<Why>) {
        if let Some(record) = &mut self.record {
            record.why = Some(Rc::clone(why));
        }
    }

    /// Where it goes.
    pub(crate) fn endpoint(&mut self, endpoint: &Endpoint) {
        if let Some(record) = &mut self.record {
            record.endpoint = Some(endpoint.addr);
            record.server_id = endpoint.tls.as_ref().map(|tls| tls.identity.clone());
        }
        if self.records.sinks.taps.is_active() {
            self.more.get_or_insert_default().endpoint = Some(endpoint.clone());
        }
    }

    /// Goes on with what was decided; a refusal is its end.
    pub(crate) fn decided<E, R>(
        mut self,
        request: &dyn RequestView,
        decided: Result<Directed<E, R>, ProxyError>,
    ) -> Result<Directed<E, (R, Self)>, ProxyError> {
        match decided {
            Ok(Directed { endpoint, carrier, mut edits, record }) => {
                self.tap(request);
                if let Some(record) = &mut self.record {
                    let line = self.more.as_mut().and_then(|more| more.line.as_mut());
                    record.decided = Some(line.map_or_else(|| record.elapsed(), Line::handed_on));
                    let traces = self.records.sinks.traces.as_ref();
                    if let Some(traced) = traces.and_then(|traces| traces.pass(record, request, &mut edits)) {
                        self.more.get_or_insert_default().traced = Some(traced);
                    }
                }
                Ok(Directed { endpoint, carrier, edits, record: (record, self) })
            }
            Err(error) => Err(self.refused(request, error)),
        }
    }

    /// Ends with a refusal.
    pub(crate) fn refused(mut self, request: &dyn RequestView, error: ProxyError) -> ProxyError {
        self.tap(request);
        self.response_head(error.status());
        self.end(None, Some(&error));
        error
    }

    fn tap(&mut self, request: &dyn RequestView) {
        let taps = &self.records.sinks.taps;
        if !taps.is_active() {
            return;
        }
        let Some(record) = &self.record else { return };
        let endpoint = self.more.as_ref().and_then(|more| more.endpoint.as_ref());
        if let Some(tapped) = taps.tap(record, request, endpoint) {
            self.more.get_or_insert_default().tapped = Some(tapped);
        }
    }

    /// Writes the line of the access log, if it is not written yet.
    fn log(&mut self, status: Option<u16>) {
        let line = self.more.as_mut().and_then(|more| more.line.take());
        if let (Some(line), Some(log), Some(record)) = (line, &self.records.sinks.access_log, &self.record) {
            log.write(&line, &record.scene, status);
        }
    }

    fn keep(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.total = record.elapsed();
            self.records.keep(record);
        }
    }
}

impl Observe for Follower {
    fn request_body(&mut self, bytes: usize) {
        if let Some(record) = &mut self.record {
            record.request_bytes += bytes as u64;
        }
    }

    fn response_fields(&mut self, fields: &dyn Fields) {
        let Some(more) = &mut self.more else { return };
        if let Some(tapped) = &mut more.tapped {
            tapped.response_fields(fields);
        }
        if let Some(line) = &mut more.line {
            fields.each(&mut |name, value| {
                if name.eq_ignore_ascii_case(b"content-length") {
                    line.response_bytes(value);
                }
            });
        }
    }

    fn response_head(&mut self, status: u16) {
        let Some(record) = &mut self.record else { return };
        record.status = Some(status);
        record.head = Some(record.elapsed());
        let Some(more) = &mut self.more else { return };
        if let Some(tapped) = &mut more.tapped {
            tapped.response_head(status);
        }
        self.log(Some(status));
    }

    /// Unless the answer of this attempt follows, nobody is told of it but by its record: the next one is followed.
    fn repeated(&mut self) {
        if let Some(record) = &mut self.record {
            record.outcome = Outcome::Repeated;
        }
    }

    fn first_byte(&mut self) {
        if let Some(record) = &mut self.record {
            record.first_byte = Some(record.elapsed());
        }
    }

    fn response_body(&mut self, bytes: usize) {
        if let Some(record) = &mut self.record {
            record.response_bytes += bytes as u64;
        }
        if let Some(tapped) = self.more.as_mut().and_then(|more| more.tapped.as_mut()) {
            tapped.response_body(bytes);
        }
    }

    fn trailers(&mut self, fields: &dyn Fields) {
        if let Some(tapped) = self.more.as_mut().and_then(|more| more.tapped.as_mut()) {
            tapped.trailers(fields);
        }
    }

    fn end(&mut self, grpc_status: Option<u16>, error: Option<&ProxyError>) {
        let Some(record) = &mut self.record else { return };
        record.grpc_status = grpc_status;
        record.outcome = if error.is_some() { Outcome::Failed } else { Outcome::Ended };
        record.failure = error.cloned();
        if let Some(more) = self.more.take() {
            let More { endpoint: _, line: _, tapped, traced } = *more;
            if let Some(mut tapped) = tapped {
                tapped.end(grpc_status, error);
            }
            if let Some(traced) = traced {
                traced.end(record.status, error);
            }
        }
        self.keep();
    }
}

impl Drop for Follower {
    /// The client left, or another attempt is followed. Who observes is told by the drop of what observes.
    fn drop(&mut self) {
        let repeated = self.record.as_ref().is_some_and(|record| record.outcome == Outcome::Repeated);
        if !repeated {
            self.log(None);
        }
        match self.more.take().map(|more| *more) {
            Some(More { tapped: Some(tapped), .. }) if repeated => tapped.forget(),
            Some(More { traced: Some(traced), .. }) if !repeated => traced.end(None, None),
            _ => {}
        }
        self.keep();
    }
}

impl<A: Observe, B: Observe> Observe for (A, B) {
    fn request_body(&mut self, bytes: usize) {
        self.0.request_body(bytes);
        self.1.request_body(bytes);
    }

    fn response_fields(&mut self, fields: &dyn Fields) {
        self.0.response_fields(fields);
        self.1.response_fields(fields);
    }

    fn response_head(&mut self, status: u16) {
        self.0.response_head(status);
        self.1.response_head(status);
    }

    fn first_byte(&mut self) {
        self.0.first_byte();
        self.1.first_byte();
    }

    fn response_body(&mut self, bytes: usize) {
        self.0.response_body(bytes);
        self.1.response_body(bytes);
    }

    fn not_http(&mut self) {
        self.0.not_http();
        self.1.not_http();
    }

    fn repeated(&mut self) {
        self.0.repeated();
        self.1.repeated();
    }

    fn trailers(&mut self, fields: &dyn Fields) {
        self.0.trailers(fields);
        self.1.trailers(fields);
    }

    fn end(&mut self, grpc_status: Option<u16>, error: Option<&ProxyError>) {
        self.0.end(grpc_status, error);
        self.1.end(grpc_status, error);
    }
}
