//! Counts requests to the control plane under Linkerd's names (data plane 6.1).
//!
//! A response counts when its stream ends: a watch that is open, or that this proxy gives up, has not ended.

use super::lanes::{Lanes, Place};
use crate::{
    exchange::grpc_status,
    metrics::{self, labels},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};
use tonic::{Status, body::Body};
use tower::{Service, ServiceExt};
use weft_model::endpoint::ServerTls;
use weft_telemetry::{CounterFamily, HistogramFamily, Labels, Registry, Shard};

#[derive(Clone)]
pub(in crate::process) struct Families {
    requests: CounterFamily,
    responses: CounterFamily,
    latency: HistogramFamily,
}

/// Channels to one service, whose requests are counted. Cheap to clone.
#[derive(Clone)]
pub(in crate::process) struct Counted {
    lanes: Arc<Lanes>,
    series: Arc<Series>,
}

struct Series {
    families: Families,
    labels: Labels,
}

/// A response's body, which counts the response when it ends.
pub(in crate::process) struct CountedBody {
    body: Body,
    _place: Place,
    series: Arc<Series>,
    start: Instant,
    status: u16,
    grpc: Option<u16>,
    first_byte: bool,
    ended: bool,
}

impl Families {
    pub(in crate::process) fn new(registry: &Registry) -> Self {
        Self {
            requests: registry.counter("control_request_total", "Requests to the control plane"),
            responses: registry.counter("control_response_total", "Responses of the control plane that have ended"),
            latency: metrics::latency(
                registry,
                "control_response_latency_ms",
                "Milliseconds from a request to the control plane to the first byte of its response's body",
            ),
        }
    }

    /// Counts what goes to `addr` over `lanes`; without `tls` the control plane is on this machine.
    pub(super) fn count(&self, lanes: Lanes, addr: &str, tls: Option<&ServerTls>) -> Counted {
        let labels = Labels::new().with("addr", addr).join(&labels::dialled_tls(tls, tls.is_none()));
        Counted { lanes: Arc::new(lanes), series: Arc::new(Series { families: self.clone(), labels }) }
    }
}

impl Service<Request<Body>> for Counted {
    type Response = Response<CountedBody>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    /// Which channel a request goes over is known when it is made: it waits there.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (series, start) = (self.series.clone(), Instant::now());
        series.families.requests.pinned(Shard::ADMIN, &series.labels).inc();
        let (lane, place) = self.lanes.enter();
        Box::pin(async move {
            let response = lane.link.request(lane.channel.oneshot(request));
            let (head, body) = response.await?.into_parts();
            let (status, grpc) = (head.status.as_u16(), grpc_status(&head.headers));
            let mut body =
                CountedBody { body, _place: place, series, start, status, grpc, first_byte: false, ended: false };
            // A head that says how the call ended has nothing behind it that anybody would read.
            if grpc.is_some() {
                body.note_end(false);
            }
            Ok(Response::from_parts(head, body))
        })
    }
}

impl CountedBody {
    fn note_first_byte(&mut self) {
        if !self.first_byte {
            self.first_byte = true;
            let labels = self.series.labels.clone().with("status_code", self.status);
            let millis = self.start.elapsed().as_secs_f64() * 1e3;
            self.series.families.latency.pinned(Shard::ADMIN, &labels).observe(millis);
        }
    }

    fn note_end(&mut self, broken: bool) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.note_first_byte();
        let failed = broken
            || self.status >= 500
            || self.grpc.is_some_and(|code| weft_model::decide::breaker::GRPC_FAILURES.contains(&code));
        let mut labels = self
            .series
            .labels
            .clone()
            .with("status_code", self.status)
            .with("classification", if failed { "failure" } else { "success" });
        if let Some(grpc) = self.grpc {
            labels = labels.with("grpc_status", grpc);
        }
        self.series.families.responses.pinned(Shard::ADMIN, &labels).inc();
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                this.note_first_byte();
                if let Some(trailers) = frame.trailers_ref() {
                    this.grpc = grpc_status(trailers).or(this.grpc);
                    this.note_end(false);
                }
            }
            Some(Err(_)) => this.note_end(true),
            None => this.note_end(false),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
