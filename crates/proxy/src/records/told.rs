//! A record as others read it.

use super::record::{Outcome, Record, What};
use crate::protocol::Version;
use serde::Serialize;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use weft_model::Meta;

/// Characters of a failure's text that are shown.
const MAX_MESSAGE: usize = 512;

/// One record, without anything of the worker's.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Told {
    /// RFC 3339, set by who shows it.
    pub(crate) time: String,
    #[serde(skip)]
    pub(crate) began: Instant,
    worker: usize,
    kind: &'static str,
    direction: &'static str,
    protocol: &'static str,
    client: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    tls: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<SocketAddr>,
    #[serde(skip_serializing_if = "String::is_empty")]
    method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    authority: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<By>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_id: Option<String>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    request_bytes: u64,
    response_bytes: u64,
    microseconds: Timings,
}

/// The objects behind a decision, each as `kind/namespace/name`.
#[derive(Clone, Debug, Serialize)]
struct By {
    /// Inbound the server, outbound the service.
    parent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization: Option<String>,
}

/// Microseconds since the head had come, or the connection was accepted.
#[derive(Clone, Debug, Serialize)]
struct Timings {
    #[serde(skip_serializing_if = "Option::is_none")]
    decided: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_head: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte: Option<u64>,
    total: u64,
}

impl Told {
    pub(super) fn new(record: &Record, worker: usize) -> Self {
        let scene = &record.scene;
        let (kind, protocol) = match record.what {
            What::Request(Version::Http10) => ("request", "HTTP/1.0"),
            What::Request(Version::Http11) => ("request", "HTTP/1.1"),
            What::Request(Version::Http2) => ("request", "HTTP/2"),
            What::Connection(protocol) => ("connection", protocol),
        };
        Self {
            time: String::new(),
            began: record.began,
            worker,
            kind,
            direction: scene.direction.as_str(),
            protocol,
            client: scene.client,
            client_id: scene.client_id.as_ref().map(ToString::to_string),
            tls: scene.tls,
            target: scene.target,
            method: record.method.shown(),
            authority: record.authority.shown(),
            path: record.path.shown(),
            decided_by: record.why.as_ref().map(|why| By {
                parent: object(&why.parent),
                route: why.route.as_ref().map(object),
                rule: why.rule,
                authorization: why.authorization.as_ref().map(object),
            }),
            endpoint: record.endpoint,
            server_id: record.server_id.as_ref().map(ToString::to_string),
            outcome: match record.outcome {
                Outcome::Ended => "ended",
                Outcome::Failed => "failed",
                Outcome::Left => "unfinished",
                Outcome::Repeated => "repeated",
            },
            status: record.status,
            grpc_status: record.grpc_status,
            code: record.failure.as_ref().map(|error| error.code.as_str()),
            message: record.failure.as_ref().map(|error| error.message.chars().take(MAX_MESSAGE).collect()),
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            microseconds: Timings {
                decided: record.decided.map(micros),
                response_head: record.head.map(micros),
                first_byte: record.first_byte.map(micros),
                total: micros(record.total),
            },
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn object(meta: &Meta) -> String {
    let (kind, namespace, name) = (meta.kind(), meta.namespace(), meta.name());
    if namespace.is_empty() { format!("{kind}/{name}") } else { format!("{kind}/{namespace}/{name}") }
}
