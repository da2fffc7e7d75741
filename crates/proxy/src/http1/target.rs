//! What a request line asks for: the form of its target, and whether an authority is one.
//!
//! Pure. Paths are compared and forwarded as they came: rewriting them here would let router and server disagree.

use super::{HeadError, fields::Span};

/// RFC 9112 §3.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    #[default]
    Origin,
    Absolute,
    /// `OPTIONS *`
    Asterisk,
    /// `CONNECT host:port`
    Authority,
}

/// The parts of a target.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Target {
    pub(crate) whole: Span,
    pub(crate) form: Form,
    pub(crate) authority: Option<Span>,
    /// Without the query; empty for `CONNECT`, and for `http://host`.
    pub(crate) path: Span,
    pub(crate) query: Option<Span>,
}

/// Takes `target`, which begins at `at`, apart.
pub(crate) fn parse(method: &str, target: &str, at: usize) -> Result<Target, HeadError> {
    const INVALID: HeadError = HeadError::Malformed("invalid request target");
    // A fragment is never sent; servers disagree on what it means.
    if target.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte == b'#') {
        return Err(INVALID);
    }
    let whole = Span::new(at, at + target.len());
    if method == "CONNECT" {
        return match host_port(target.as_bytes()) {
            Some((host, Some(_))) if !host.is_empty() => {
                Ok(Target { whole, form: Form::Authority, authority: Some(whole), ..Target::default() })
            }
            _ => Err(HeadError::Malformed("CONNECT needs host and port")),
        };
    }
    if target.starts_with('/') {
        let (path, query) = path_and_query(target, at);
        return Ok(Target { whole, form: Form::Origin, authority: None, path, query });
    }
    if target == "*" && method == "OPTIONS" {
        return Ok(Target { whole, form: Form::Asterisk, authority: None, path: whole, query: None });
    }
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .ok_or(INVALID)?;
    let rest = target.get(scheme.len()..).unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if host_port(authority.as_bytes()).is_none_or(|(host, _)| host.is_empty()) {
        return Err(INVALID);
    }
    let at_authority = at + scheme.len();
    let (path, query) = path_and_query(path, at_authority + end);
    let authority = Some(Span::new(at_authority, at_authority + end));
    Ok(Target { whole, form: Form::Absolute, authority, path, query })
}

fn path_and_query(text: &str, at: usize) -> (Span, Option<Span>) {
    let end = at + text.len();
    match text.find('?') {
        Some(mark) => (Span::new(at, at + mark), Some(Span::new(at + mark + 1, end))),
        None => (Span::new(at, end), None),
    }
}

/// What the name of a host may consist of (RFC 3986 3.2.2, without the comma), as a table: each request has one.
static REG_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        let is = byte as u8;
        table[byte] = is.is_ascii_alphanumeric() || matches!(is, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&');
        table[byte] |= matches!(is, b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=');
        byte += 1;
    }
    table
};

/// Host and port of an authority; `None` if it is none. User information is refused.
pub(crate) fn host_port(authority: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let (host, port) = if authority.first() == Some(&b'[') {
        let end = authority.iter().position(|byte| *byte == b']')? + 1;
        let (host, rest) = authority.split_at_checked(end)?;
        let inside = host.get(1..end - 1)?;
        if inside.is_empty()
            || !inside
                .iter()
                .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b'%' | b'a'..=b'z' | b'A'..=b'Z'))
        {
            return None;
        }
        (host, rest)
    } else {
        let end = authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len());
        let (host, rest) = authority.split_at_checked(end)?;
        if !host.iter().all(|byte| REG_NAME.get(usize::from(*byte)) == Some(&true)) {
            return None;
        }
        (host, rest)
    };
    match port.split_first() {
        None => Some((host, None)),
        Some((b':', [])) => Some((host, None)),
        Some((b':', digits)) if digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) => {
            let port = digits.iter().fold(0_u32, |n, digit| n * 10 + u32::from(digit - b'0'));
            Some((host, Some(u16::try_from(port).ok()?)))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        let valid: &[(&str, &str, Option<u16>)] = &[
            ("a", "a", None),
            ("a:", "a", None),
            ("web.emojivoto.svc.cluster.local:80", "web.emojivoto.svc.cluster.local", Some(80)),
            ("10.0.0.1:65535", "10.0.0.1", Some(65535)),
            ("[::1]:8080", "[::1]", Some(8080)),
            ("[fe80::1%25eth0]", "[fe80::1%25eth0]", None),
            ("", "", None),
        ];
        for (text, host, port) in valid {
            assert_eq!(host_port(text.as_bytes()), Some((host.as_bytes(), *port)), "{text}");
        }
        for text in [
            "a:65536", "a:x", "a:+1", "a@b", "a/b", "a,b", "a b", "[::1", "[]", "[::1]x", "a:1:2", "a\\b", "é",
            "a:000080",
        ] {
            assert_eq!(host_port(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn forms() {
        let parts = |method: &str, text: &str| {
            let target = parse(method, text, 0).ok()?;
            let of = |span: Span| span.text(text.as_bytes()).to_owned();
            Some((target.form, target.authority.map(of), of(target.path), target.query.map(of)))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parts("GET", "/a/b?c=d?e"), Some((Form::Origin, None, "/a/b".into(), some("c=d?e"))));
        assert_eq!(parts("GET", "//evil/x"), Some((Form::Origin, None, "//evil/x".into(), None)));
        assert_eq!(parts("GET", "http://h:1/p?"), Some((Form::Absolute, some("h:1"), "/p".into(), some(""))));
        assert_eq!(parts("GET", "HTTP://h?q"), Some((Form::Absolute, some("h"), "".into(), some("q"))));
        assert_eq!(parts("OPTIONS", "*"), Some((Form::Asterisk, None, "*".into(), None)));
        assert_eq!(parts("CONNECT", "h:443"), Some((Form::Authority, some("h:443"), "".into(), None)));
        for (method, text) in [
            ("GET", "*"),
            ("GET", "h:443"),
            ("GET", "x/y"),
            ("GET", ""),
            ("GET", "/a#b"),
            ("GET", "/a\u{7f}"),
            ("GET", "http:///x"),
            ("GET", "http://u@h/"),
            ("GET", "ftp://h/"),
            ("CONNECT", "/"),
            ("CONNECT", "h"),
            ("CONNECT", ":443"),
            ("CONNECT", "http://h:443"),
        ] {
            assert_eq!(parts(method, text), None, "{method} {text}");
        }
    }
}
