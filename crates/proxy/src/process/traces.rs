//! Spans to the collector: gathered in batches and sent on the admin thread (data plane 7.3).
//!
//! A batch that the collector does not take is lost: a collector that is away must not make the proxy grow.

use crate::config::Traces;
use std::{
    path::Path,
    time::{Duration, SystemTime},
};
use tokio::{sync::mpsc, time::Instant};
use weft_model::trace::{Span, Value};
use weft_telemetry::{Counter, Labels, Registry, Shard};
use weft_wire::{
    Transport,
    otlp::{Client, Export},
};

/// Spans that are sent at once, and how long the first of them waits.
const MAX_BATCH: usize = 1000;
const MAX_DELAY: Duration = Duration::from_secs(10);
/// How long the collector may take for a batch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest file of attributes that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

pub(super) struct Exporter<T> {
    client: Client<T>,
    resource: Vec<(String, Value)>,
    streams: Counter,
    requests: Counter,
    exported: Counter,
    failed: Counter,
}

impl<T: Transport> Exporter<T> {
    pub(super) fn new(transport: T, config: &Traces, registry: &Registry) -> Self {
        let counter = |name, help| registry.counter(name, help).pinned(Shard::ADMIN, &Labels::new());
        Self {
            client: Client::new(transport),
            resource: resource(config, SystemTime::now()),
            streams: counter("opentelemetry_span_export_streams", "Times that sending to the collector began anew"),
            requests: counter("opentelemetry_span_export_requests", "Batches sent to the collector"),
            exported: counter("opentelemetry_span_exports", "Spans sent to the collector"),
            failed: counter("weft_proxy_trace_exports_failed_total", "Batches that the collector did not take"),
        }
    }

    /// Sends what comes until nothing can come any more.
    pub(super) async fn run(mut self, mut spans: mpsc::Receiver<Span>) {
        self.streams.inc();
        while let Some(batch) = next(&mut spans).await {
            self.send(batch).await;
        }
    }

    async fn send(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let export = Export { resource: self.resource.clone(), spans };
        self.requests.inc();
        match tokio::time::timeout(TIMEOUT, self.client.export(&export)).await {
            Ok(Ok(rejected)) => self.exported.add(count.saturating_sub(rejected)),
            Ok(Err(error)) => self.lost(count, &error),
            Err(late) => self.lost(count, &late),
        }
    }

    fn lost(&self, spans: u64, error: &dyn std::fmt::Display) {
        tracing::info!(%error, spans, "The collector takes no spans");
        self.failed.inc();
        self.streams.inc();
    }
}

/// The next batch: full, or as old as it may get. `None` when nothing can come any more.
async fn next(spans: &mut mpsc::Receiver<Span>) -> Option<Vec<Span>> {
    let mut batch = vec![spans.recv().await?];
    let deadline = Instant::now() + MAX_DELAY;
    while batch.len() < MAX_BATCH {
        // Dropping the wait loses nothing.
        match tokio::time::timeout_at(deadline, spans.recv()).await {
            Ok(Some(span)) => batch.push(span),
            Ok(None) | Err(_) => break,
        }
    }
    Some(batch)
}

/// What is said of this process; what comes later replaces what came before.
fn resource(config: &Traces, started: SystemTime) -> Vec<(String, Value)> {
    let Traces { collector: _, service_name, attributes_path, extra_attributes, otel_attributes, hostname } = config;
    let mut all = vec![("process.pid".to_owned(), Value::Number(std::process::id().into()))];
    let started = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let started = i64::try_from(started.as_secs()).unwrap_or_default();
    set(&mut all, "process.start_timestamp", Value::Number(started));
    if let Some(hostname) = hostname {
        set(&mut all, "host.name", Value::Text(hostname.clone()));
    }
    set(&mut all, "service.name", Value::Text(service_name.clone()));
    let file = attributes_path.as_deref().and_then(|path| match read(path) {
        Ok(text) => Some(text),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "The attributes of traces cannot be read");
            None
        }
    });
    for text in [file.as_deref(), extra_attributes.as_deref()].into_iter().flatten() {
        pairs(text, '\n').for_each(|(key, value)| set(&mut all, key, Value::Text(value)));
    }
    for line in otel_attributes.as_deref().unwrap_or_default().lines() {
        pairs(line, ',').for_each(|(key, value)| set(&mut all, key, Value::Text(value)));
    }
    all
}

fn set(all: &mut Vec<(String, Value)>, key: &str, value: Value) {
    match all.iter_mut().find(|(known, _)| known == key) {
        Some((_, old)) => *old = value,
        None => all.push((key.to_owned(), value)),
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// Each `key=value`; the downward API puts values into quotes.
fn pairs(text: &str, separator: char) -> impl Iterator<Item = (&str, String)> {
    let pairs = text.split(separator).filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.trim(), unquoted(value.trim()))).filter(|(key, _)| !key.is_empty())
}

fn unquoted(value: &str) -> String {
    match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        Some(inside) => inside.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ControlAddr, HostPort};

    #[test]
    fn later_sources_win() {
        let path = std::env::temp_dir().join(format!("weft-attributes-{}", std::process::id()));
        std::fs::write(&path, "app=\"web \\\"1\\\"\"\nzone=a\n\nno pair\n=x\nservice.name=of the file\n").unwrap();
        let config = Traces {
            collector: ControlAddr { addr: HostPort::Addr("127.0.0.1:1".parse().unwrap()), identity: None },
            service_name: "linkerd-proxy".to_owned(),
            attributes_path: Some(path.clone()),
            extra_attributes: Some("zone=b\nx=1".to_owned()),
            otel_attributes: Some("x=2,y=3".to_owned()),
            hostname: Some("web-1".to_owned()),
        };
        let made = resource(&config, SystemTime::UNIX_EPOCH + Duration::from_secs(7));
        std::fs::remove_file(path).unwrap();
        let text = |key: &str, value: &str| (key.to_owned(), Value::Text(value.to_owned()));
        let expected = [
            ("process.pid".to_owned(), Value::Number(std::process::id().into())),
            ("process.start_timestamp".to_owned(), Value::Number(7)),
            text("host.name", "web-1"),
            text("service.name", "of the file"),
            text("app", "web \"1\""),
            text("zone", "b"),
            text("x", "2"),
            text("y", "3"),
        ];
        assert_eq!(made, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_full_or_old() {
        let span = || Span {
            trace: [1; 16],
            id: [1; 8],
            parent: [1; 8],
            kind: weft_model::trace::SpanKind::Server,
            name: String::new(),
            start: 0,
            end: 0,
            attributes: vec![],
            failure: None,
        };
        let (sender, mut spans) = mpsc::channel(2 * MAX_BATCH);
        for _ in 0..=MAX_BATCH {
            sender.try_send(span()).unwrap();
        }
        let start = Instant::now();
        assert_eq!(next(&mut spans).await.unwrap().len(), MAX_BATCH);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(next(&mut spans).await.unwrap().len(), 1);
        assert_eq!(start.elapsed(), MAX_DELAY);
        drop(sender);
        assert!(next(&mut spans).await.is_none());
    }
}
