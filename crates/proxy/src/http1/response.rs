//! The head of a response: read from the endpoint and written to the client; and the proxy's own replies.
//!
//! Offsets only; the bytes stay in the endpoint's read buffer until the head is written.

use super::{
    HeadError,
    fields::{self, Field, Kind, Options, write_line},
    framing::{self, Asked, Body},
    limits::{MAX_FIELDS, MAX_HEAD},
    request::Lines,
};
use crate::{
    error::ProxyError,
    exchange::{Fields, HeaderChanges},
    protocol::Version,
};
use std::mem::MaybeUninit;
use weft_model::names;
use weft_transport::detect;

/// A checked head. Offsets are relative to the front of the buffer it was parsed from.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    /// How many bytes it takes, the empty line included.
    pub(crate) len: usize,
    pub(crate) version: Version,
    pub(crate) status: u16,
    pub(crate) body: Body,
    fields: Vec<Field>,
    options: Options,
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self {
            len: 0,
            version: Version::Http11,
            status: 0,
            body: Body::Empty,
            fields: Vec::new(),
            options: Options::default(),
        }
    }
}

/// What differs between the response that came and the one that goes out, besides hop-by-hop headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewrite<'a> {
    /// The client's.
    pub(crate) version: Version,
    pub(crate) framing: Reframe,
    /// `connection: close`
    pub(crate) close: bool,
    /// `connection: keep-alive`, for an HTTP/1.0 client that asked.
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    pub(crate) strip_mesh: bool,
    /// What a policy changes.
    pub(crate) changes: Option<&'a HeaderChanges>,
}

/// How the body's framing changes on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reframe {
    /// As it came.
    Keep,
    /// Chunks are added to a body that ends with the connection, so that the client's connection may live on.
    AddChunks,
    /// Chunks are taken away for an HTTP/1.0 client; a body ends with the connection.
    RemoveChunks,
    /// No framing headers at all: 204, 1xx, CONNECT.
    Bare,
}

impl ResponseHead {
    /// Parses the head at the front of `buf`; `false` if more bytes are needed.
    pub(crate) fn parse(&mut self, buf: &[u8], asked: Asked) -> Result<bool, HeadError> {
        let mut headers = [MaybeUninit::uninit(); MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let len = match config.parse_response_with_uninit_headers(&mut parsed, buf, &mut headers) {
            Ok(httparse::Status::Complete(len)) if len <= MAX_HEAD => len,
            Ok(httparse::Status::Partial) if buf.len() < MAX_HEAD => return Ok(false),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
            Err(_) => return Err(HeadError::Malformed("malformed response head")),
        };
        let (Some(version), Some(status)) = (parsed.version, parsed.code) else {
            return Err(HeadError::Malformed("malformed status line"));
        };
        if !(100..=999).contains(&status) {
            return Err(HeadError::Malformed("invalid status"));
        }
        if !buf.get(..len).unwrap_or_default().ends_with(b"\r\n\r\n") || !buf.starts_with(b"HTTP/1.") {
            return Err(HeadError::Malformed("the head does not end with CR LF"));
        }
        self.len = len;
        self.status = status;
        self.version = if version == 0 { Version::Http10 } else { Version::Http11 };
        self.options = fields::collect(buf, parsed.headers, &mut self.fields)?;
        if buf.get(self.line_end() - 2..self.line_end()) != Some(b"\r\n") {
            return Err(HeadError::Malformed("the status line does not end with CR LF"));
        }
        self.body = framing::response(buf, &self.fields, self.version, status, asked)?;
        Ok(true)
    }

    pub(crate) fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..=199)
    }

    /// Whether the endpoint allows another exchange on its connection.
    pub(crate) fn keeps_alive(&self) -> bool {
        if self.body == Body::UntilClose || self.status == 101 {
            return false;
        }
        match self.version {
            Version::Http10 => self.options.keep_alive && !self.options.close,
            _ => !self.options.close,
        }
    }

    /// The headers that go on, besides framing.
    pub(crate) fn forwarded<'a>(&'a self, buf: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let end_to_end = |field: &&Field| !field.hop && field.kind != Kind::TransferEncoding;
        self.fields.iter().filter(end_to_end).map(|field| (field.name.of(buf), field.value.of(buf)))
    }

    /// Whether the endpoint says that it closes its connection behind the response.
    pub(crate) fn says_close(&self) -> bool {
        self.options.close
    }

    /// Whether the server's proxy asks that the application's connection is closed.
    pub(crate) fn asks_to_close(&self, buf: &[u8]) -> bool {
        self.fields.iter().any(|field| {
            field.name.of(buf).eq_ignore_ascii_case(names::header::PROXY_CONNECTION.as_bytes())
                && field.value.of(buf).eq_ignore_ascii_case(b"close")
        })
    }

    /// A status of gRPC that the head itself carries.
    pub(crate) fn grpc_status(&self, buf: &[u8]) -> Option<u16> {
        let field = self.fields.iter().find(|field| is_grpc_status(field.name.of(buf)))?;
        field.value.text(buf).parse().ok()
    }

    fn line_end(&self) -> usize {
        self.fields.first().map_or(self.len - 2, |field| field.name.start())
    }

    /// Appends the head that goes to the client.
    pub(crate) fn write(&self, buf: &[u8], rewrite: Rewrite<'_>, out: &mut Vec<u8>) {
        let status_line = buf.get(..self.line_end()).unwrap_or_default();
        if rewrite.version == Version::Http11 && self.version == Version::Http10 {
            out.extend_from_slice(b"HTTP/1.1");
            out.extend_from_slice(status_line.get(b"HTTP/1.0".len()..).unwrap_or_default());
        } else {
            out.extend_from_slice(status_line);
        }
        let mut lines = Lines { buf, from: self.line_end() };
        for (index, field) in self.fields.iter().enumerate() {
            let framing = match rewrite.framing {
                Reframe::Keep | Reframe::AddChunks => false,
                Reframe::RemoveChunks => field.kind == Kind::TransferEncoding,
                Reframe::Bare => matches!(field.kind, Kind::TransferEncoding | Kind::ContentLength),
            };
            let name = field.name.of(buf);
            let dropped = (rewrite.strip_mesh && of_the_mesh(name)) || rewrite.changes.is_some_and(|c| c.drops(name));
            if field.hop || framing || dropped {
                let end = self.fields.get(index + 1).map_or(self.len - 2, |next| next.name.start());
                lines.leave_out(out, field.name.start(), end);
            }
        }
        lines.finish(out, self.len - 2);
        for (name, value) in rewrite.changes.into_iter().flat_map(HeaderChanges::added) {
            write_line(out, name.as_str().as_bytes(), value.as_bytes());
        }
        if rewrite.framing == Reframe::AddChunks {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if rewrite.upgrade {
            out.extend_from_slice(b"connection: upgrade\r\n");
            for field in self.fields.iter().filter(|field| field.kind == Kind::Upgrade) {
                write_line(out, b"upgrade", field.value.of(buf));
            }
        } else if rewrite.close {
            out.extend_from_slice(b"connection: close\r\n");
        } else if rewrite.keep_alive {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// A response as it came, for those who only look.
pub(crate) struct View<'a> {
    pub(crate) head: &'a ResponseHead,
    pub(crate) buf: &'a [u8],
}

impl Fields for View<'_> {
    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.head.fields.iter().for_each(|field| visit(field.name.of(self.buf), field.value.of(self.buf)));
    }
}

/// Whether what was read from a server cannot begin a response of HTTP.
pub(crate) fn is_other(buf: &[u8]) -> bool {
    detect::server(buf) == detect::Server::Other
}

/// Response headers between proxies, which no application sees.
fn of_the_mesh(name: &[u8]) -> bool {
    match name.len() {
        14 => name.eq_ignore_ascii_case(b"l5d-orig-proto"),
        15 => name.eq_ignore_ascii_case(b"l5d-proxy-error"),
        20 => name.eq_ignore_ascii_case(b"l5d-proxy-connection"),
        _ => false,
    }
}

pub(super) fn is_grpc_status(name: &[u8]) -> bool {
    name.len() == 11 && name.eq_ignore_ascii_case(b"grpc-status")
}

/// Appends the first line of a response that did not come as one of HTTP/1.
pub(crate) fn write_status(out: &mut Vec<u8>, version: Version, status: u16) {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    out.extend_from_slice(if version == Version::Http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends the proxy's own reply to a failure (data plane 3.8).
pub(crate) fn write_failure(out: &mut Vec<u8>, error: &ProxyError, version: Version, close: bool, informational: bool) {
    let status = error.status();
    write_status(out, version, status);
    // Neither has a body to be told the length of (RFC 9110 8.6).
    if !matches!(status, 204 | 304) {
        out.extend_from_slice(b"content-length: 0\r\n");
    }
    if let Some(location) = error.location() {
        write_line(out, b"location", location.as_bytes());
    }
    if informational {
        write_line(out, names::header::PROXY_ERROR.as_bytes(), error.header().as_bytes());
        if close {
            out.extend_from_slice(b"l5d-proxy-connection: close\r\n");
        }
    }
    if close {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}
