//! Header lines as offsets into the buffer they were read into, and which of them concern this hop only.
//!
//! Requests, responses and trailers share it. It must not decide framing; see [`super::framing`].

use super::{HeadError, limits::MAX_FIELDS};

/// A range of the buffer, relative to the first byte of the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        // Heads are far smaller than 4 GiB; what is not fits no span and reads as empty.
        Self { start: u32::try_from(start).unwrap_or(u32::MAX), end: u32::try_from(end).unwrap_or(u32::MAX) }
    }

    /// Where `part` lies in `whole`, of which it must be a slice.
    pub(crate) fn within(whole: &[u8], part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        Self::new(start, start.saturating_add(part.len()))
    }

    pub(crate) fn of(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// As text; empty if it is none. Heads are checked for that when they are read.
    pub(crate) fn text(self, buf: &[u8]) -> &str {
        std::str::from_utf8(self.of(buf)).unwrap_or_default()
    }

    pub(crate) fn start(self) -> usize {
        self.start as usize
    }

    pub(crate) fn end(self) -> usize {
        self.end as usize
    }
}

/// One header line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: Span,
    pub(crate) value: Span,
    pub(crate) kind: Kind,
    /// Concerns this hop only: neither forwarded nor shown to routing.
    pub(crate) hop: bool,
}

/// The names that the codec itself acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Other,
    Connection,
    KeepAlive,
    ProxyConnection,
    Upgrade,
    Te,
    TransferEncoding,
    ContentLength,
    Host,
    Expect,
}

impl Kind {
    fn of(name: &[u8]) -> Self {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is(b"te") => Self::Te,
            4 if is(b"host") => Self::Host,
            6 if is(b"expect") => Self::Expect,
            7 if is(b"upgrade") => Self::Upgrade,
            10 if is(b"connection") => Self::Connection,
            10 if is(b"keep-alive") => Self::KeepAlive,
            14 if is(b"content-length") => Self::ContentLength,
            16 if is(b"proxy-connection") => Self::ProxyConnection,
            17 if is(b"transfer-encoding") => Self::TransferEncoding,
            _ => Self::Other,
        }
    }
}

/// What `connection` asks for. What old clients say in `proxy-connection` is left out: they say it to any proxy, knowing none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
}

/// Names that `connection` cannot take away: who is asked, how a message ends, who is known to ask.
fn protected(name: &[u8]) -> bool {
    let starts = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    starts(b"l5d-") || starts(b"x-forwarded-") || name.eq_ignore_ascii_case(b"forwarded")
}

/// Notes `headers` (parsed from `buf`) in `fields`, checks that each line ends with CR LF, and marks what concerns this hop.
pub(crate) fn collect(
    buf: &[u8],
    headers: &[httparse::Header<'_>],
    fields: &mut Vec<Field>,
) -> Result<Options, HeadError> {
    fields.clear();
    if headers.len() > MAX_FIELDS {
        return Err(HeadError::TooLarge);
    }
    let mut nominating = false;
    for header in headers {
        let name = Span::within(buf, header.name.as_bytes());
        let value = Span::within(buf, header.value);
        // The parser takes a bare LF for a line's end; other servers do not.
        if name.start() < 2 || buf.get(name.start() - 2..name.start()) != Some(b"\r\n") {
            return Err(HeadError::Malformed("a header line does not end with CR LF"));
        }
        let kind = Kind::of(header.name.as_bytes());
        nominating |= kind == Kind::Connection;
        let hop = match kind {
            Kind::Connection | Kind::KeepAlive | Kind::ProxyConnection | Kind::Upgrade => true,
            Kind::Te => !header.value.eq_ignore_ascii_case(b"trailers"),
            _ => false,
        };
        fields.push(Field { name, value, kind, hop });
    }
    let mut options = Options::default();
    if nominating {
        nominate(buf, fields, &mut options);
    }
    Ok(options)
}

/// Reads `connection` and marks the headers that it names.
fn nominate(buf: &[u8], fields: &mut [Field], options: &mut Options) {
    for index in 0..fields.len() {
        let Some(field) = fields.get(index).filter(|field| field.kind == Kind::Connection) else { continue };
        for option in field.value.of(buf).split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            if option.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else if !option.is_empty() && !protected(option) {
                for named in fields.iter_mut().filter(|field| field.kind == Kind::Other) {
                    named.hop |= named.name.of(buf).eq_ignore_ascii_case(option);
                }
            }
        }
    }
}

/// Appends a header line.
pub(crate) fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop_names(head: &str) -> Vec<String> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut headers);
        assert!(request.parse(head.as_bytes()).unwrap().is_complete());
        let mut fields = Vec::new();
        collect(head.as_bytes(), request.headers, &mut fields).unwrap();
        let hop = fields.iter().filter(|field| field.hop);
        hop.map(|field| field.name.text(head.as_bytes()).to_ascii_lowercase()).collect()
    }

    #[test]
    fn nominated_headers_go_but_not_those_that_the_mesh_or_framing_needs() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Mine, l5d-client-id, content-length ,host,x-forwarded-for, \
                    transfer-encoding, te\r\nx-mine: 1\r\nL5d-Client-Id: x\r\nContent-Length: 0\r\nx-forwarded-for: y\r\n\
                    TE: trailers\r\nProxy-Connection: close\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nother: 1\r\n\r\n";
        assert_eq!(hop_names(head), ["connection", "x-mine", "proxy-connection", "keep-alive", "upgrade"]);
    }

    #[test]
    fn te_is_forwarded_only_for_trailers() {
        assert_eq!(hop_names("GET / HTTP/1.1\r\nTE: trailers\r\n\r\n"), [] as [&str; 0]);
        assert_eq!(hop_names("GET / HTTP/1.1\r\nTE: gzip, trailers\r\n\r\n"), ["te"]);
    }
}
