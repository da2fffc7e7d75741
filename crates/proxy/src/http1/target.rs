//! What a request line asks for: the form of its target, and its parts.
//!
//! Pure. Paths are compared and forwarded as they came: rewriting them here would let router and server disagree.

use super::{HeadError, fields::Span};
use weft_model::decide::host::host_port;

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

#[cfg(test)]
mod tests {
    use super::*;

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
