//! `l5d-orig-proto`: what an HTTP/1 message was before it was carried on HTTP/2 (data plane 3.7, 4.8).

use crate::protocol::Version;
use http::HeaderMap;
use weft_model::names::header::ORIG_PROTO;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OrigProto {
    pub(super) version: Version,
    /// The request line held a whole URI.
    pub(super) absolute: bool,
}

impl Default for OrigProto {
    fn default() -> Self {
        Self { version: Version::Http11, absolute: false }
    }
}

impl OrigProto {
    /// Takes the header off. Without one, or with one that says nothing known, the message is HTTP/1.1.
    pub(super) fn take(headers: &mut HeaderMap) -> Self {
        headers.remove(ORIG_PROTO).and_then(|value| Self::parse(value.to_str().ok()?)).unwrap_or_default()
    }

    fn parse(text: &str) -> Option<Self> {
        let (version, form) = text.split_once(';').unwrap_or((text, ""));
        let version = match version.trim() {
            "HTTP/1.1" => Version::Http11,
            "HTTP/1.0" => Version::Http10,
            _ => return None,
        };
        Some(Self { version, absolute: form.trim() == "absolute-form" })
    }

    pub(super) fn as_str(self) -> &'static str {
        match (self.version, self.absolute) {
            (Version::Http10, false) => "HTTP/1.0",
            (Version::Http10, true) => "HTTP/1.0; absolute-form",
            (_, false) => "HTTP/1.1",
            (_, true) => "HTTP/1.1; absolute-form",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for version in [Version::Http10, Version::Http11] {
            for absolute in [false, true] {
                let orig = OrigProto { version, absolute };
                assert_eq!(OrigProto::parse(orig.as_str()), Some(orig));
            }
        }
        assert_eq!(OrigProto::parse("HTTP/2.0"), None);
    }
}
