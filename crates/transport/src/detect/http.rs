//! Recognises an HTTP request.
//!
//! In doubt it is HTTP: a lenient server behind must not see as HTTP what the proxy carried past its HTTP policy. The
//! codec is strict and refuses what is odd.

use super::{Http, MAX_BYTES};

/// The first line of the HTTP/2 preface; no HTTP/1 request begins like that.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// The longest method that is waited for.
const MAX_METHOD: usize = 64;
/// How the version of a request begins, in any case: some servers take it in small letters.
const VERSION: &[u8] = b"HTTP/";

/// Looks for an HTTP/2 preface or an HTTP/1 request line at the beginning of `bytes`.
///
/// It decides at the first byte that no request line can have there, at `HTTP/`, or at the end of the line.
pub fn http(bytes: &[u8]) -> Http {
    if bytes.starts_with(PREFACE) {
        return Http::Http2;
    }
    if PREFACE.starts_with(bytes) {
        return Http::NeedMore;
    }
    let full = bytes.len() >= MAX_BYTES;
    // Empty lines before a request are to be skipped (RFC 9112 2.2), and some servers skip blanks.
    let begin = bytes.iter().position(|b| !is_blank(*b) && *b != b'\n').unwrap_or(bytes.len());
    let line = bytes.get(begin..).unwrap_or_default();
    if line.is_empty() {
        return if full { Http::NotHttp } else { Http::NeedMore };
    }
    let method = line.iter().take_while(|b| is_token(**b)).count();
    let Some((blank, rest)) = line.get(method..).and_then(<[u8]>::split_first) else {
        return if method > MAX_METHOD { Http::NotHttp } else { Http::NeedMore };
    };
    if method == 0 || method > MAX_METHOD || !is_blank(*blank) {
        return Http::NotHttp;
    }
    let end = rest.iter().position(|b| *b == b'\n');
    let rest = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
    if rest.iter().any(|b| matches!(b, 0..=8 | 14..=31 | 127)) {
        return Http::NotHttp;
    }
    // The version is the last word: `HTTP/` after a blank.
    let mut text = rest;
    while let Some(at) = text.iter().position(|b| is_blank(*b)) {
        text = text.get(at + 1..).unwrap_or_default();
        if text.get(..VERSION.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(VERSION)) {
            return Http::Http1;
        }
    }
    if end.is_some() {
        // HTTP/0.9 has no version, and this method alone.
        if line.starts_with(b"GET") && method == 3 && rest.starts_with(b"/") { Http::Http1 } else { Http::NotHttp }
    } else if full {
        // A target longer than all that is looked at. The codec answers that it is too long.
        if rest.starts_with(b"/") { Http::Http1 } else { Http::NotHttp }
    } else {
        Http::NeedMore
    }
}

/// What servers take for a blank between words, at least one of them.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer, and after how many bytes it comes; before, there must be none.
    fn decided(bytes: &[u8]) -> (Http, usize) {
        for end in 0..=bytes.len() {
            let answer = http(&bytes[..end]);
            if answer != Http::NeedMore {
                for later in end..=bytes.len() {
                    assert_eq!(http(&bytes[..later]), answer, "{:?}", String::from_utf8_lossy(bytes));
                }
                return (answer, end);
            }
        }
        (Http::NeedMore, bytes.len())
    }

    #[test]
    fn http2() {
        assert_eq!(decided(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), (Http::Http2, 14));
        assert_eq!(decided(b"PRI * HTTP/1.0\r\n\r\n").0, Http::Http1);
    }

    #[test]
    fn http1() {
        for request in [
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\n",
            "get /x?y=z HTTP/1.0\n",
            "POST http://a/b HTTP/1.1\r\n",
            "CONNECT a:443 HTTP/1.1\r\n",
            "OPTIONS * HTTP/1.1\r\n",
            "VERSION-CONTROL /a HTTP/1.1\r\n",
            "GET /\u{e9} HTTP/1.1\r\n",
            // Odd ones, which a lenient server might take.
            "GET  / HTTP/1.1\r\n",
            "GET\t/\tHTTP/1.1\r\n",
            "GET /a b HTTP/1.1\r\n",
            "GET / HTTP/1.2\r\n",
            "GET / HTTP/9\r\n",
            " \tGET / HTTP/1.1\r\n",
            "GET\u{b}/\u{c}HTTP/1.1\r\n",
            "GET / HTTP/1.1\rhost: a\r\n",
            "GET /a\rb HTTP/1.1\r\n",
            "GET HTTP/1.1\r\n",
        ] {
            let (answer, at) = decided(request.as_bytes());
            if request.starts_with("GET HTTP/") {
                assert_eq!(answer, Http::NotHttp, "a request without a target: {request:?}");
            } else {
                assert_eq!(answer, Http::Http1, "{request:?}");
                assert_eq!(at, request.find("HTTP/").unwrap() + 5, "{request:?}");
            }
        }
    }

    /// Servers that still take them must not be reached past the policy for HTTP.
    #[test]
    fn versions_in_small_letters_and_none_at_all() {
        assert_eq!(decided(b"GET / http/1.1\r\n"), (Http::Http1, 11));
        assert_eq!(decided(b"GET /a\r\n"), (Http::Http1, 8));
    }

    #[test]
    fn others() {
        for (bytes, at) in [
            (&b"\x16\x03\x01"[..], 1),
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", 1),
            (b"*1\r\n$4\r\nPING\r\n", 4),
            (b"PING\r\n", 6),
            (b"SET foo bar\r\n", 13),
            (b"EHLO mail.example.com\r\n", 23),
            (b"CONNECT {\"verbose\":false}\r\n", 27),
            (b"SSH-2.0-OpenSSH_9.2\r\n", 21),
            (b"a1 LOGIN user pass\r\n", 20),
            (b"{\"json\":1}", 1),
            (b"GET /\x00 HTTP/1.1\r\n", 6),
            (b"get /key\r\n", 10),
            (b"GET key\r\n", 9),
            (b"GETS /key\r\n", 11),
            (b"G{T / HTTP/1.1\r\n", 2),
        ] {
            assert_eq!(decided(bytes), (Http::NotHttp, at), "{:?}", String::from_utf8_lossy(bytes));
        }
        let long = vec![b'A'; 100];
        assert_eq!(decided(&long), (Http::NotHttp, MAX_METHOD + 1));
    }

    #[test]
    fn it_ends_at_the_bound() {
        let long = |begin: &[u8], fill: u8| {
            let mut bytes = begin.to_vec();
            bytes.resize(MAX_BYTES, fill);
            decided(&bytes)
        };
        assert_eq!(long(b"GET /", b'a'), (Http::Http1, MAX_BYTES));
        assert_eq!(long(b"GET ", b'a'), (Http::NotHttp, MAX_BYTES));
        assert_eq!(long(b"", b'\n'), (Http::NotHttp, MAX_BYTES));
    }
}
