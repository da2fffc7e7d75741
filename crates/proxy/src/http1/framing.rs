//! How long a body is: the one decision on which a hop must never disagree with its neighbours.
//!
//! Pure, stricter than RFC 9112 §6 where leniency would be guessing: what is ambiguous is refused, never repaired.

use super::{
    HeadError,
    fields::{Field, Kind},
};
use crate::protocol::Version;

/// How a body ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Body {
    #[default]
    Empty,
    Length(u64),
    Chunked,
    /// Responses only: when the connection closes.
    UntilClose,
}

/// The framing headers of one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Declared {
    Nothing,
    Length(u64),
    Chunked,
}

fn declared(buf: &[u8], fields: &[Field], version: Version) -> Result<Declared, HeadError> {
    let mut declared = Declared::Nothing;
    for field in fields {
        match field.kind {
            Kind::ContentLength => {
                if declared != Declared::Nothing {
                    return Err(HeadError::Malformed("more than one header frames the body"));
                }
                declared = Declared::Length(length(field.value.of(buf))?);
            }
            Kind::TransferEncoding => {
                if declared != Declared::Nothing {
                    return Err(HeadError::Malformed("more than one header frames the body"));
                }
                if version == Version::Http10 {
                    return Err(HeadError::Malformed("transfer-encoding in HTTP/1.0"));
                }
                if !field.value.of(buf).eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::Malformed("transfer-encoding is not chunked"));
                }
                declared = Declared::Chunked;
            }
            _ => {}
        }
    }
    Ok(declared)
}

/// A decimal number and nothing else: no sign, no list, no white space.
fn length(value: &[u8]) -> Result<u64, HeadError> {
    const INVALID: HeadError = HeadError::Malformed("content-length is not a number");
    if value.is_empty() || value.len() > 18 {
        return Err(INVALID);
    }
    value.iter().try_fold(0_u64, |n, byte| match byte {
        b'0'..=b'9' => Ok(n * 10 + u64::from(byte - b'0')),
        _ => Err(INVALID),
    })
}

/// The body of a request.
pub(crate) fn request(buf: &[u8], fields: &[Field], version: Version, is_connect: bool) -> Result<Body, HeadError> {
    match declared(buf, fields, version)? {
        Declared::Nothing | Declared::Length(0) => Ok(Body::Empty),
        _ if is_connect => Err(HeadError::Malformed("CONNECT with a body")),
        Declared::Length(n) => Ok(Body::Length(n)),
        Declared::Chunked => Ok(Body::Chunked),
    }
}

/// What of the request decides how its response ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) head: bool,
    pub(crate) connect: bool,
}

/// The body of a response.
pub(crate) fn response(
    buf: &[u8],
    fields: &[Field],
    version: Version,
    status: u16,
    asked: Asked,
) -> Result<Body, HeadError> {
    let declared = declared(buf, fields, version)?;
    if asked.head || matches!(status, 100..=199 | 204 | 304) || (asked.connect && matches!(status, 200..=299)) {
        return Ok(Body::Empty);
    }
    Ok(match declared {
        Declared::Length(0) => Body::Empty,
        Declared::Length(n) => Body::Length(n),
        Declared::Chunked => Body::Chunked,
        Declared::Nothing => Body::UntilClose,
    })
}
