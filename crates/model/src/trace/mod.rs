//! Distributed traces: the context that requests carry, and the spans that proxies add.

pub mod propagate;

/// Where a request stands in its trace, as its sender says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub trace: [u8; 16],
    /// The sender's span.
    pub parent: [u8; 8],
    /// Whether spans are to be exported.
    pub sampled: bool,
}

/// One operation of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub trace: [u8; 16],
    pub id: [u8; 8],
    pub parent: [u8; 8],
    pub kind: SpanKind,
    pub name: String,
    /// Nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    pub attributes: Vec<(String, Value)>,
    /// It failed, and why.
    pub failure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// What was received.
    Server,
    /// What was sent.
    Client,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(i64),
}
