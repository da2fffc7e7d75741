//! The access log: one line per inbound request, when its response begins, or when its client leaves before (data plane 7.2).
//!
//! Lines are made on the request path and written by a thread of their own. What does not fit into its queue is counted and
//! lost: a reader of standard error that stands still holds up nobody.

use super::{path, record::Scene};
use crate::{config::AccessLogFormat, protocol::Version};
use serde::Serialize;
use std::{
    fmt::Write as _,
    io::{self, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use weft_model::{Identity, decide::route::RequestView};
use weft_telemetry::{Counter, Labels, Registry, Shard};

/// Lines that wait to be written.
const MAX_WAITING: usize = 4096;
/// Bytes of each text of a client that are written.
const MAX_TEXT: usize = 2048;

/// Takes lines. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AccessLog {
    format: AccessLogFormat,
    lines: SyncSender<String>,
    lost: Counter,
}

/// A request whose response has not begun.
#[derive(Debug)]
pub(super) struct Line {
    /// By the clock itself: most requests are decided within one turn, of which [`crate::turn`] has one time.
    began: Instant,
    /// Since then, until it was handed on.
    processing: Option<Duration>,
    timestamp: jiff::Timestamp,
    method: String,
    uri: String,
    version: &'static str,
    host: String,
    user_agent: String,
    trace_id: String,
    request_bytes: String,
    response_bytes: String,
}

/// The keys of the JSON form, in Linkerd's order. Numbers of nanoseconds are texts there too.
#[derive(Serialize)]
struct Json<'a> {
    #[serde(rename = "client.addr")]
    client_addr: String,
    #[serde(rename = "client.id")]
    client_id: &'a str,
    host: &'a str,
    method: &'a str,
    processing_ns: String,
    request_bytes: &'a str,
    response_bytes: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    timestamp: String,
    total_ns: String,
    trace_id: &'a str,
    uri: &'a str,
    user_agent: &'a str,
    version: &'a str,
}

/// How long a request took.
#[derive(Clone, Copy, Debug)]
struct Took {
    /// Until the head of the response, or the end without one.
    total: Duration,
    /// Until it was handed on: what the proxy itself needed. All of it, if it was answered here.
    processing: Duration,
}

impl AccessLog {
    /// Starts the thread that writes to `out`. It ends when nobody can write lines any more.
    pub(crate) fn start(
        format: AccessLogFormat,
        mut out: Box<dyn Write + Send>,
        registry: &Registry,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (lines, waiting) = sync_channel(MAX_WAITING);
        let lost =
            registry.counter("weft_proxy_access_log_dropped_total", "Lines that standard error was too slow for");
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || write(&waiting, &mut *out))?;
        Ok((Self { format, lines, lost: lost.with(Shard::ADMIN, &Labels::new()) }, thread))
    }

    /// `status` is `None` if no response has begun.
    pub(super) fn write(&self, line: &Line, scene: &Scene, status: Option<u16>) {
        let total = line.began.elapsed();
        let took = Took { total, processing: line.processing.unwrap_or(total) };
        let mut text = match self.format {
            AccessLogFormat::Apache => line.apache(scene, status),
            AccessLogFormat::Json => line.json(scene, status, took),
        };
        text.push('\n');
        if self.lines.try_send(text).is_err() {
            self.lost.inc();
        }
    }
}

fn write(waiting: &Receiver<String>, out: &mut dyn Write) {
    while let Ok(line) = waiting.recv() {
        // Nobody is left who could be told.
        let _ = out.write_all(line.as_bytes());
        while let Ok(line) = waiting.try_recv() {
            let _ = out.write_all(line.as_bytes());
        }
        let _ = out.flush();
    }
}

impl Line {
    pub(super) fn new(request: &dyn RequestView, version: Version, timestamp: jiff::Timestamp) -> Self {
        let header = |name| {
            let mut text = String::new();
            request.header(name, &mut |value| {
                text = cut(&String::from_utf8_lossy(value));
                true
            });
            text
        };
        let authority = cut(request.authority().unwrap_or_default());
        let path = path(request);
        let mut uri = match version {
            _ if path.is_empty() => authority.clone(),
            Version::Http2 => format!("http://{authority}"),
            Version::Http10 | Version::Http11 => String::new(),
        };
        uri.push_str(&cut(path));
        if let Some(query) = request.query() {
            // Writing to a string cannot fail.
            let _ = write!(uri, "?{}", cut(query));
        }
        let trace = ["x-b3-traceid", "x-request-id", "x-amzn-trace-id"].map(header);
        Self {
            began: Instant::now(),
            processing: None,
            timestamp,
            method: cut(request.method()),
            uri,
            version: match version {
                Version::Http10 => "HTTP/1.0",
                Version::Http11 => "HTTP/1.1",
                Version::Http2 => "HTTP/2.0",
            },
            host: authority,
            user_agent: header("user-agent"),
            trace_id: trace.into_iter().find(|id| !id.is_empty()).unwrap_or_default(),
            request_bytes: header("content-length"),
            response_bytes: String::new(),
        }
    }

    /// It is handed on; how long that took.
    pub(super) fn handed_on(&mut self) -> Duration {
        *self.processing.insert(self.began.elapsed())
    }

    /// How long the server says its response is.
    pub(super) fn response_bytes(&mut self, value: &[u8]) {
        self.response_bytes = cut(&String::from_utf8_lossy(value));
    }

    fn apache(&self, scene: &Scene, status: Option<u16>) -> String {
        let Self { timestamp, method, uri, version, .. } = self;
        let id = scene.client_id.as_ref().map_or("-", Identity::as_str);
        let status = status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        format!("{} {id} - [{timestamp:.9}] \"{} {} {version}\" {status}", scene.client, plain(method), plain(uri))
    }

    fn json(&self, scene: &Scene, status: Option<u16>, took: Took) -> String {
        let json = Json {
            client_addr: scene.client.to_string(),
            client_id: scene.client_id.as_ref().map_or("-", Identity::as_str),
            host: &self.host,
            method: &self.method,
            processing_ns: took.processing.as_nanos().to_string(),
            request_bytes: &self.request_bytes,
            response_bytes: &self.response_bytes,
            status,
            timestamp: format!("{:.9}", self.timestamp),
            total_ns: took.total.as_nanos().to_string(),
            trace_id: &self.trace_id,
            uri: &self.uri,
            user_agent: &self.user_agent,
            version: self.version,
        };
        serde_json::to_string(&json).unwrap_or_default()
    }
}

fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default().to_owned()
}

/// What a client sends neither ends its quotes nor its line.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            other => out.extend(other.escape_default()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::direction::Direction;

    struct Ask;

    impl RequestView for Ask {
        fn method(&self) -> &str {
            "GET"
        }
        fn authority(&self) -> Option<&str> {
            Some("webapp:7000")
        }
        fn path(&self) -> &str {
            "/a\"b"
        }
        fn query(&self) -> Option<&str> {
            Some("q=1")
        }
        fn header(&self, name: &str, wanted: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            match name {
                "user-agent" => wanted(b"curl\n"),
                "content-length" => wanted(b"7"),
                "x-request-id" => wanted(b"r-1"),
                _ => false,
            }
        }
        fn fields(&self, _: &mut dyn FnMut(&[u8], &[u8])) {}
    }

    fn line(version: Version) -> (Line, Scene) {
        let at = "2026-11-25T20:28:20.071809491Z".parse().unwrap();
        let scene = Scene {
            direction: Direction::Inbound,
            client: "10.42.0.63:51160".parse().unwrap(),
            target: None,
            client_id: "web.ns.serviceaccount.identity.linkerd.cluster.local".parse().ok(),
            tls: "true",
        };
        (Line::new(&Ask, version, at), scene)
    }

    #[test]
    fn apache_is_one_line_whatever_the_client_sends() {
        let (line, mut scene) = line(Version::Http2);
        assert_eq!(
            line.apache(&scene, Some(200)),
            "10.42.0.63:51160 web.ns.serviceaccount.identity.linkerd.cluster.local - [2026-11-25T20:28:20.071809491Z] \
             \"GET http://webapp:7000/a\\\"b?q=1 HTTP/2.0\" 200"
        );
        scene.client_id = None;
        let (line, _) = self::line(Version::Http11);
        assert!(line.apache(&scene, Some(503)).ends_with("\"GET /a\\\"b?q=1 HTTP/1.1\" 503"));
        assert!(line.apache(&scene, None).ends_with("HTTP/1.1\" -"), "no answer");
        assert!(line.apache(&scene, Some(503)).starts_with("10.42.0.63:51160 - - ["));
        assert_eq!(plain("a\r\nb\u{e9}"), "a\\r\\nb\\u{e9}");
    }

    #[test]
    fn json_has_linkerds_keys() {
        let (mut line, scene) = line(Version::Http11);
        line.response_bytes(b"19627");
        let took = Took { total: Duration::from_nanos(14_441_135), processing: Duration::from_nanos(39_826) };
        let json: serde_json::Value = serde_json::from_str(&line.json(&scene, Some(200), took)).unwrap();
        let expected = serde_json::json!({
            "client.addr": "10.42.0.63:51160",
            "client.id": "web.ns.serviceaccount.identity.linkerd.cluster.local",
            "host": "webapp:7000", "method": "GET", "processing_ns": "39826", "request_bytes": "7",
            "response_bytes": "19627", "status": 200, "timestamp": "2026-11-25T20:28:20.071809491Z",
            "total_ns": "14441135", "trace_id": "r-1", "uri": "/a\"b?q=1", "user_agent": "curl\n",
            "version": "HTTP/1.1",
        });
        assert_eq!(json, expected);
    }
}
