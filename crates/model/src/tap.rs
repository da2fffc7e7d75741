//! Watching requests as they pass: which ones somebody asks to see, and what is told of each.

use crate::decide::cidr::Cidr;
use std::{collections::BTreeMap, net::SocketAddr, ops::RangeInclusive, time::Duration};

/// What an observer asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// How many requests are shown; more than none.
    pub limit: u32,
    pub matches: Match,
    /// Whether header fields are shown.
    pub headers: bool,
}

/// Which requests; decided by [`crate::decide::tap::matches`].
#[derive(Clone, Debug, PartialEq)]
pub enum Match {
    All(Vec<Match>),
    Any(Vec<Match>),
    Not(Box<Match>),
    Source(AddrMatch),
    Destination(AddrMatch),
    Scheme(String),
    Method(String),
    Authority(TextMatch),
    Path(TextMatch),
    DestinationLabel(String, String),
    RouteLabel(String, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddrMatch {
    Network(Cidr),
    Ports(RangeInclusive<u16>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextMatch {
    Exact(String),
    Prefix(String),
}

pub type Labels = BTreeMap<String, String>;
/// Header fields, names and values.
pub type Fields = Vec<(String, Vec<u8>)>;

/// One step of a request that is watched.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub outbound: bool,
    pub source: SocketAddr,
    pub source_labels: Labels,
    pub destination: SocketAddr,
    pub destination_labels: Labels,
    pub route_labels: Labels,
    pub id: StreamId,
    pub step: Step,
}

/// Names one request among all that a process has ever shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    /// Of the process.
    pub base: u32,
    pub stream: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Request {
        method: String,
        scheme: String,
        authority: String,
        path: String,
        fields: Fields,
    },
    Response {
        since_request: Duration,
        status: u16,
        fields: Fields,
    },
    /// `fields` are the trailers.
    End {
        since_request: Duration,
        since_response: Duration,
        response_bytes: u64,
        end: Option<End>,
        fields: Fields,
    },
}

/// How a response ended, where there is more to say than that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Grpc(u32),
    /// By the code of HTTP/2.
    Reset(u32),
}
