//! The head of a request: read from the client, shown to routing, and written to the endpoint with edits.
//!
//! Offsets only; the bytes stay in the client's read buffer until the head is written.

use super::{
    HeadError,
    fields::{self, Field, Kind, Options, Span, write_line},
    framing::{self, Asked, Body},
    limits::{MAX_FIELDS, MAX_HEAD},
    target::{self, Form, Target},
};
use crate::{exchange::Edits, protocol::Version};
use std::mem::MaybeUninit;
use weft_model::decide::{field::reads_as, host::host_port, route::RequestView};

/// A checked head. Offsets are relative to the front of the buffer it was parsed from.
#[derive(Debug)]
pub(crate) struct RequestHead {
    /// How many bytes it takes, the empty line included.
    pub(crate) len: usize,
    pub(crate) version: Version,
    pub(crate) body: Body,
    pub(crate) target: Target,
    pub(crate) expects_continue: bool,
    method: Span,
    fields: Vec<Field>,
    options: Options,
    /// The authority for routing: the target's, else the `host` header's.
    authority: Option<Span>,
    upgrade: bool,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self {
            len: 0,
            version: Version::Http11,
            body: Body::Empty,
            target: Target::default(),
            expects_continue: false,
            method: Span::default(),
            fields: Vec::new(),
            options: Options::default(),
            authority: None,
            upgrade: false,
        }
    }
}

impl RequestHead {
    /// Parses the head at the front of `buf`; `false` if more bytes are needed.
    pub(crate) fn parse(&mut self, buf: &[u8]) -> Result<bool, HeadError> {
        let mut headers = [MaybeUninit::uninit(); MAX_FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        let len = match parsed.parse_with_uninit_headers(buf, &mut headers) {
            Ok(httparse::Status::Complete(len)) if len <= MAX_HEAD => len,
            Ok(httparse::Status::Partial) if buf.len() < MAX_HEAD => return Ok(false),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
            Err(_) => return Err(HeadError::Malformed("malformed request head")),
        };
        let (Some(method), Some(path), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(HeadError::Malformed("malformed request line"));
        };
        if !buf.get(..len).unwrap_or_default().ends_with(b"\r\n\r\n") {
            return Err(HeadError::Malformed("the head does not end with CR LF"));
        }
        self.len = len;
        self.method = Span::within(buf, method.as_bytes());
        if self.method.start() != 0 {
            return Err(HeadError::Malformed("empty lines before the request line"));
        }
        self.version = if version == 0 { Version::Http10 } else { Version::Http11 };
        self.target = target::parse(method, path, Span::within(buf, path.as_bytes()).start())?;
        self.options = fields::collect(buf, parsed.headers, &mut self.fields)?;
        // Without headers nothing else has seen the end of the request line.
        if self.target.whole.end() + b" HTTP/1.1\r\n".len() > len
            || buf.get(self.line_end() - 2..self.line_end()) != Some(b"\r\n")
        {
            return Err(HeadError::Malformed("the request line does not end with CR LF"));
        }
        if method == "CONNECT" && self.version == Version::Http10 {
            return Err(HeadError::Malformed("CONNECT in HTTP/1.0"));
        }
        self.body = framing::request(buf, &self.fields, self.version, method == "CONNECT")?;
        self.find_authority(buf)?;
        self.find_expectations(buf);
        Ok(true)
    }

    fn find_authority(&mut self, buf: &[u8]) -> Result<(), HeadError> {
        let mut hosts = self.fields.iter().filter(|field| field.kind == Kind::Host);
        let host = hosts.next().map(|field| field.value);
        if hosts.next().is_some() {
            return Err(HeadError::Malformed("more than one host header"));
        }
        if host.is_none() && self.version == Version::Http11 {
            return Err(HeadError::Malformed("no host header"));
        }
        if let Some(host) = host
            && host_port(host.of(buf)).is_none()
        {
            return Err(HeadError::Malformed("invalid host header"));
        }
        // RFC 9112 §3.2.2: the target's authority wins.
        self.authority = self.target.authority.or(host).filter(|authority| !authority.of(buf).is_empty());
        Ok(())
    }

    fn find_expectations(&mut self, buf: &[u8]) {
        self.expects_continue = false;
        let (mut asks, mut hides) = (false, false);
        for field in &self.fields {
            match field.kind {
                Kind::Expect => {
                    self.expects_continue |= field.value.of(buf).eq_ignore_ascii_case(b"100-continue");
                }
                Kind::Upgrade => {
                    asks = true;
                    hides |= field.value.of(buf).split(|byte| *byte == b',').any(is_http2);
                }
                _ => {}
            }
        }
        // Where a body ends that is not there yet the client alone would know; of a stated length everybody does.
        let ends = matches!(self.body, Body::Empty | Body::Length(_));
        let allowed = self.options.upgrade && self.version == Version::Http11 && ends;
        self.upgrade = asks && !hides && allowed;
    }

    pub(crate) fn is_connect(&self) -> bool {
        self.target.form == Form::Authority
    }

    /// Whether the client asks to leave HTTP: with `upgrade`, or by CONNECT.
    pub(crate) fn is_upgrade(&self) -> bool {
        self.upgrade || self.is_connect()
    }

    pub(crate) fn asked(&self, buf: &[u8]) -> Asked {
        Asked { head: self.method.of(buf) == b"HEAD", connect: self.is_connect() }
    }

    /// Whether doing it twice is as good as once (RFC 9110 §9.2.2).
    pub(crate) fn is_idempotent(&self, buf: &[u8]) -> bool {
        matches!(self.method.of(buf), b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
    }

    /// Whether the client allows another request on its connection.
    pub(crate) fn keeps_alive(&self) -> bool {
        match self.version {
            Version::Http10 => self.options.keep_alive && !self.options.close,
            _ => !self.options.close,
        }
    }

    pub(crate) fn view<'a>(&'a self, buf: &'a [u8]) -> View<'a> {
        View { head: self, buf }
    }

    /// The headers that go on, besides framing.
    pub(crate) fn forwarded<'a>(&'a self, buf: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let end_to_end =
            |field: &&Field| !field.hop && !matches!(field.kind, Kind::ContentLength | Kind::TransferEncoding);
        self.fields.iter().filter(end_to_end).map(|field| (field.name.of(buf), field.value.of(buf)))
    }

    pub(crate) fn method<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        self.method.of(buf)
    }

    /// Where the request line ends.
    fn line_end(&self) -> usize {
        self.fields.first().map_or(self.len - 2, |field| field.name.start())
    }

    /// Appends the head that goes to the endpoint.
    pub(crate) fn write(&self, buf: &[u8], edits: &Edits, out: &mut Vec<u8>) {
        let host = self.write_line(buf, edits, out);
        let replaces_host = host.is_some();
        if let Some(host) = host {
            write_line(out, b"host", host);
        }
        let mut lines = Lines { buf, from: self.line_end() };
        for (index, field) in self.fields.iter().enumerate() {
            if field.hop || (replaces_host && field.kind == Kind::Host) || edited(edits, field.name.of(buf)) {
                let end = self.fields.get(index + 1).map_or(self.len - 2, |next| next.name.start());
                lines.leave_out(out, field.name.start(), end);
            }
        }
        lines.finish(out, self.len - 2);
        if self.upgrade {
            out.extend_from_slice(b"connection: upgrade\r\n");
            for field in self.fields.iter().filter(|field| field.kind == Kind::Upgrade) {
                write_line(out, b"upgrade", field.value.of(buf));
            }
        }
        for (name, value) in edits.request.iter().flat_map(|changes| changes.added()) {
            write_line(out, name.as_str().as_bytes(), value.as_bytes());
        }
        for (name, value) in &edits.set {
            write_line(out, name.as_bytes(), value.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The request line; the new value of `host` if it changes.
    fn write_line<'a>(&self, buf: &'a [u8], edits: &'a Edits, out: &mut Vec<u8>) -> Option<&'a [u8]> {
        let whole = buf.get(..self.line_end()).unwrap_or_default();
        let replaced = edits.authority.as_deref().map(str::as_bytes);
        let mut from = 0;
        let mut replace = |out: &mut Vec<u8>, start: usize, end: usize, by: &[u8]| {
            out.extend_from_slice(whole.get(from..start).unwrap_or_default());
            out.extend_from_slice(by);
            from = end;
        };
        if let (Some(authority), Some(replaced)) = (self.target.authority, replaced) {
            replace(out, authority.start(), authority.end(), replaced);
        }
        if let Some(target) = &edits.target {
            let path = self.target.path;
            replace(
                out,
                path.start(),
                self.target.query.map_or(path.end(), |query| query.end()),
                target.as_str().as_bytes(),
            );
        }
        out.extend_from_slice(whole.get(from..).unwrap_or_default());
        replaced.or(self.target.authority.map(|authority| authority.of(buf)))
    }
}

/// Whether `upgrade` names HTTP/2, which in the middle of a connection would pass by everything that looks at requests here.
fn is_http2(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default().trim_ascii();
    [b"h2c".as_slice(), b"h2", b"http"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether a field does not go on, because it is removed or replaced, or because the server could take it for one that is.
fn edited(edits: &Edits, name: &[u8]) -> bool {
    edits.remove.iter().chain(edits.remove_asked).any(|other| reads_as(name, other))
        || edits.set.iter().any(|(other, _)| reads_as(name, other))
        || edits.request.as_ref().is_some_and(|changes| changes.drops(name))
}

/// Copies whole runs of lines, leaving some out.
pub(super) struct Lines<'a> {
    pub(super) buf: &'a [u8],
    pub(super) from: usize,
}

impl Lines<'_> {
    pub(super) fn leave_out(&mut self, out: &mut Vec<u8>, start: usize, end: usize) {
        self.finish(out, start);
        self.from = end;
    }

    pub(super) fn finish(&self, out: &mut Vec<u8>, end: usize) {
        out.extend_from_slice(self.buf.get(self.from..end).unwrap_or_default());
    }
}

/// A request as routing sees it: exactly what will be forwarded, before edits.
#[derive(Debug)]
pub(crate) struct View<'a> {
    head: &'a RequestHead,
    buf: &'a [u8],
}

impl RequestView for View<'_> {
    fn method(&self) -> &str {
        self.head.method.text(self.buf)
    }

    fn authority(&self) -> Option<&str> {
        self.head.authority.map(|authority| authority.text(self.buf))
    }

    fn path(&self) -> &str {
        match self.head.target.path.text(self.buf) {
            "" => "/",
            path => path,
        }
    }

    fn query(&self) -> Option<&str> {
        self.head.target.query.map(|query| query.text(self.buf))
    }

    fn header(&self, name: &str, wanted: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let named = |field: &&Field| {
            let own = field.name.of(self.buf);
            !field.hop && own.len() == name.len() && own.eq_ignore_ascii_case(name.as_bytes())
        };
        self.head.fields.iter().filter(named).any(|field| wanted(field.value.of(self.buf)))
    }

    fn is_upgrade(&self) -> bool {
        self.head.is_upgrade()
    }

    fn fields(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.head.fields.iter().for_each(|field| visit(field.name.of(self.buf), field.value.of(self.buf)));
    }
}
