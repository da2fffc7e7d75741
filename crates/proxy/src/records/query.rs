//! What `/explain` can be asked: the text of a query → checked conditions; pure.

use super::record::{Record, What};
use crate::{direction::Direction, error::Code};
use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

/// How many records are shown when the query does not say, and at most.
const LIMIT: usize = 20;
pub(super) const MAX_LIMIT: usize = 500;
/// The longest query that is read, in bytes.
const MAX_QUERY: usize = 4096;

/// Conditions that must all hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    direction: Option<Direction>,
    kind: Option<Kind>,
    code: Option<Code>,
    client: Option<Addr>,
    target: Option<Addr>,
    /// The beginning of the path.
    path: Option<String>,
    status: Option<u16>,
    pub(super) limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Request,
    Connection,
}

/// An address, with a port or with any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addr {
    Ip(IpAddr),
    Socket(SocketAddr),
}

/// Why a query is not answered, as a sentence for who asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("the query is longer than {MAX_QUERY} bytes")]
    TooLong,
    #[error("unknown parameter {0:?}: there are direction, kind, code, client, target, path, status and limit")]
    Unknown(String),
    #[error("{0} is given twice")]
    Twice(&'static str),
    #[error("{name}={value:?} is not {expected}")]
    Value { name: &'static str, value: String, expected: &'static str },
}

impl Default for Query {
    fn default() -> Self {
        Self {
            direction: None,
            kind: None,
            code: None,
            client: None,
            target: None,
            path: None,
            status: None,
            limit: LIMIT,
        }
    }
}

impl Query {
    /// Reads what stands behind the `?` of a URI.
    ///
    /// # Errors
    /// A parameter is unknown, given twice, or has a value that it cannot have.
    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > MAX_QUERY {
            return Err(Invalid::TooLong);
        }
        let mut query = Self::default();
        let mut limit = None;
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            match &*decode(name) {
                "direction" => once("direction", &mut query.direction, &value, "inbound or outbound", direction)?,
                "kind" => once("kind", &mut query.kind, &value, "request or connection", kind)?,
                "code" => once("code", &mut query.code, &value, "a code of docs/reference/errors.md", Code::named)?,
                "client" => once("client", &mut query.client, &value, "ip or ip:port", addr)?,
                "target" => once("target", &mut query.target, &value, "ip or ip:port", addr)?,
                "path" => once("path", &mut query.path, &value, "the beginning of a path", path)?,
                "status" => once("status", &mut query.status, &value, "an HTTP status", status)?,
                "limit" => once("limit", &mut limit, &value, "a number from 1 to 500", up_to_max)?,
                other => return Err(Invalid::Unknown(other.chars().take(64).collect())),
            }
        }
        query.limit = limit.unwrap_or(LIMIT);
        Ok(query)
    }

    pub(super) fn matches(&self, record: &Record) -> bool {
        let Self { direction, kind, code, client, target, path, status, limit: _ } = self;
        let is = |what: &What| match what {
            What::Request(_) => Kind::Request,
            What::Connection(_) => Kind::Connection,
        };
        direction.is_none_or(|wanted| record.scene.direction == wanted)
            && kind.is_none_or(|wanted| is(&record.what) == wanted)
            && code.is_none_or(|wanted| record.failure.as_ref().is_some_and(|error| error.code == wanted))
            && client.is_none_or(|wanted| wanted.is(record.scene.client))
            && target.is_none_or(|wanted| {
                record.scene.target.is_some_and(|addr| wanted.is(addr))
                    || record.endpoint.is_some_and(|addr| wanted.is(addr))
            })
            && path.as_deref().is_none_or(|wanted| record.path.as_str().starts_with(wanted))
            && status.is_none_or(|wanted| record.status == Some(wanted))
    }
}

impl Addr {
    fn is(self, addr: SocketAddr) -> bool {
        let ip = addr.ip().to_canonical();
        match self {
            Self::Ip(wanted) => ip == wanted,
            Self::Socket(wanted) => (ip, addr.port()) == (wanted.ip(), wanted.port()),
        }
    }
}

fn once<T>(
    name: &'static str,
    to: &mut Option<T>,
    value: &str,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<(), Invalid> {
    let invalid = || Invalid::Value { name, value: value.chars().take(64).collect(), expected };
    let parsed = parse(value).ok_or_else(invalid)?;
    if to.replace(parsed).is_some() { Err(Invalid::Twice(name)) } else { Ok(()) }
}

fn direction(text: &str) -> Option<Direction> {
    [Direction::Inbound, Direction::Outbound].into_iter().find(|direction| direction.as_str() == text)
}

fn kind(text: &str) -> Option<Kind> {
    match text {
        "request" => Some(Kind::Request),
        "connection" => Some(Kind::Connection),
        _ => None,
    }
}

fn addr(text: &str) -> Option<Addr> {
    let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let socket = text.parse().ok().map(|addr| Addr::Socket(canonical(addr)));
    socket.or_else(|| text.parse::<IpAddr>().ok().map(|ip| Addr::Ip(ip.to_canonical())))
}

/// No more of it can be asked for than is kept.
fn path(text: &str) -> Option<String> {
    (text.starts_with('/') || text == "*").then(|| text[..text.floor_char_boundary(super::record::PATH)].to_owned())
}

fn status(text: &str) -> Option<u16> {
    text.parse().ok().filter(|status| (100..1000).contains(status))
}

fn up_to_max(text: &str) -> Option<usize> {
    text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit))
}

/// Percent-decoding; what is no encoding stays as it is.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return text.into();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        let encoded = behind.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, encoded) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(*first),
        }
    }
    String::from_utf8_lossy(&out).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_checked_word_by_word() {
        assert_eq!(Query::parse(""), Ok(Query::default()));
        let all = "direction=inbound&kind=request&code=UNAUTHORIZED&client=10.0.0.1&target=%5B%3A%3A1%5D:80&path=/a%20b\
                   &status=403&limit=7";
        let query = Query::parse(all).unwrap();
        let expected = Query {
            direction: Some(Direction::Inbound),
            kind: Some(Kind::Request),
            code: Some(Code::Unauthorized),
            client: Some(Addr::Ip("10.0.0.1".parse().unwrap())),
            target: Some(Addr::Socket("[::1]:80".parse().unwrap())),
            path: Some("/a b".to_owned()),
            status: Some(403),
            limit: 7,
        };
        assert_eq!(query, expected);
        for (bad, text) in [
            ("x=1", "unknown parameter \"x\": there are direction, kind, code, client, target, path, status and limit"),
            ("direction", "direction=\"\" is not inbound or outbound"),
            ("code=unauthorized", "code=\"unauthorized\" is not a code of docs/reference/errors.md"),
            ("client=web", "client=\"web\" is not ip or ip:port"),
            ("path=a", "path=\"a\" is not the beginning of a path"),
            ("status=42", "status=\"42\" is not an HTTP status"),
            ("limit=0", "limit=\"0\" is not a number from 1 to 500"),
            ("limit=501", "limit=\"501\" is not a number from 1 to 500"),
            ("status=403&status=403", "status is given twice"),
        ] {
            assert_eq!(Query::parse(bad).map_err(|e| e.to_string()), Err(text.to_owned()), "{bad}");
        }
        assert_eq!(Query::parse(&"&".repeat(5000)), Err(Invalid::TooLong));
    }
}
