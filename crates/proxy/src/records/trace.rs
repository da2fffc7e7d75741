//! Trace context: new span ids on the way, and the spans of sampled requests for the collector (data plane 7.3).
//!
//! Without a collector headers pass untouched. No trace begins here. Spans wait in a bounded queue for the admin thread, which
//! sends them; what does not fit is counted and lost.

use super::record::Record;
use crate::{error::ProxyError, exchange::Edits};
use std::{
    rc::Rc,
    time::{Duration, SystemTime},
};
use tokio::sync::mpsc;
use weft_model::{
    decide::route::RequestView,
    trace::{Context, Span, SpanKind, Value, propagate},
};
use weft_telemetry::{Counter, Labels, Registry, Shard};

/// Spans that wait to be sent.
const MAX_WAITING: usize = 100;
/// Bytes of a text of a client that a span holds.
const MAX_TEXT: usize = 1024;

/// Takes spans for the collector. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Traces {
    spans: mpsc::Sender<Span>,
    lost: Counter,
}

/// A sampled request: the span of what was received, and of what was sent.
pub(super) struct Traced {
    traces: Traces,
    context: Context,
    server: [u8; 8],
    client: [u8; 8],
    received: SystemTime,
    sent: SystemTime,
    name: String,
    attributes: Vec<(String, Value)>,
}

impl Traces {
    /// Where workers leave spans, and where they come out.
    pub(crate) fn new(registry: &Registry) -> (Self, mpsc::Receiver<Span>) {
        let (spans, waiting) = mpsc::channel(MAX_WAITING);
        let lost =
            registry.counter("weft_proxy_trace_spans_dropped_total", "Spans for which the collector was too slow");
        (Self { spans, lost: lost.with(Shard::ADMIN, &Labels::new()) }, waiting)
    }

    /// Notes in `edits` that this proxy now sends the request. `Some` if its spans are wanted.
    pub(super) fn pass(&self, record: &Record, request: &dyn RequestView, edits: &mut Edits) -> Option<Traced> {
        let (context, format) = propagate::find(request)?;
        let (server, client) = (new_id(), new_id());
        for (name, value) in propagate::headers(&context, format, client, server) {
            edits.set.push((name, Rc::from(value)));
        }
        if !context.sampled {
            return None;
        }
        let authority = request.authority().unwrap_or_default();
        let url = match request.query() {
            Some(query) => format!("http://{authority}{}?{query}", request.path()),
            None => format!("http://{authority}{}", request.path()),
        };
        let mut attributes = vec![
            text("direction", record.scene.direction.as_str()),
            text("http.request.method", request.method()),
            text("url.full", &url),
            text("url.path", request.path()),
            text("server.address", authority),
        ];
        request.header("user-agent", &mut |value| {
            attributes.push(text("user_agent.original", &String::from_utf8_lossy(value)));
            true
        });
        let sent = SystemTime::now();
        let received = sent.checked_sub(record.elapsed()).unwrap_or(sent);
        let name = cut(request.path());
        Some(Traced { traces: self.clone(), context, server, client, received, sent, name, attributes })
    }
}

impl Traced {
    pub(super) fn end(mut self, status: Option<u16>, error: Option<&ProxyError>) {
        if let Some(status) = status {
            self.attributes.push(("http.response.status_code".to_owned(), Value::Number(status.into())));
        }
        let failure = match (error, status) {
            (Some(error), _) => Some(cut(&error.to_string())),
            (None, Some(status)) if status >= 500 => Some(format!("status {status}")),
            (None, Some(_)) => None,
            (None, None) => Some("the client left".to_owned()),
        };
        let Self { traces, context, server, client, received, sent, name, attributes } = self;
        let end = nanos(SystemTime::now());
        let span = |kind, id, parent, start| Span {
            trace: context.trace,
            id,
            parent,
            kind,
            name: name.clone(),
            start: nanos(start),
            end,
            attributes: attributes.clone(),
            failure: failure.clone(),
        };
        let received = span(SpanKind::Server, server, context.parent, received);
        let sent = span(SpanKind::Client, client, server, sent);
        for span in [received, sent] {
            if traces.spans.try_send(span).is_err() {
                traces.lost.inc();
            }
        }
    }
}

/// Not of zeros.
fn new_id() -> [u8; 8] {
    fastrand::u64(1..).to_be_bytes()
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn text(key: &str, value: &str) -> (String, Value) {
    (key.to_owned(), Value::Text(cut(value)))
}

fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default().to_owned()
}
