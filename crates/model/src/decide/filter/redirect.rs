//! Where a redirect leads: the request's own URI with the parts replaced that the policy names.

use super::{
    Answer, Matched,
    rewrite::{replaced, with_query},
};
use crate::{
    decide::host::split,
    policy::route::{PathReplacement, Redirect},
};
use std::{borrow::Cow, fmt::Write};

const DEFAULT_STATUS: u16 = 301;
/// Requests reach the proxies without TLS of their own.
const HTTP: &str = "http";

/// `None` if it would lead to where the request was going anyway, unless a status is all that it names: that is answered each time, as
/// the Gateway API wants.
pub(super) fn answer(redirect: &Redirect, matched: &Matched<'_>) -> Option<Answer<'static>> {
    let Redirect { scheme, host, path, port, status } = redirect;
    let own =
        matched.request.authority().map_or_else(|| Cow::Owned(matched.default_authority.to_string()), Cow::Borrowed);
    let scheme = scheme.as_deref().unwrap_or(HTTP);
    let authority = authority(&own, scheme, host.as_deref(), *port);
    let Some(target) = target(path.as_ref(), matched) else {
        return Some(Answer::Invalid("a redirect replaces a path prefix, and the rule matched otherwise".into()));
    };
    let location = location(scheme, &authority, &target);
    let unmoved = self::location(HTTP, &own, &own_target(matched));
    let status_alone = status.is_some() && redirect == &Redirect { status: *status, ..Redirect::default() };
    (location != unmoved || status_alone)
        .then(|| Answer::Redirect { status: status.unwrap_or(DEFAULT_STATUS), location })
}

/// Without a port of its own, a redirect to another scheme leads to that scheme's port, and one to another host to the same
/// port. A port that the scheme implies is left out once anything of the authority changes.
fn authority<'a>(own: &'a str, scheme: &str, host: Option<&'a str>, port: Option<u16>) -> Cow<'a, str> {
    let (own_host, own_port) = split(own);
    let kept = own_port.filter(|_| scheme == HTTP);
    if host.is_none() && port.is_none() && kept == own_port {
        return Cow::Borrowed(own);
    }
    let host = host.unwrap_or(own_host);
    match port.or(kept).filter(|port| !implies(scheme, *port)) {
        Some(port) => Cow::Owned(format!("{host}:{port}")),
        None => Cow::Borrowed(host),
    }
}

fn implies(scheme: &str, port: u16) -> bool {
    matches!((scheme, port), (HTTP, 80) | ("https", 443))
}

/// Path and query; `None` if a prefix is to be replaced and there is none.
fn target(path: Option<&PathReplacement>, matched: &Matched<'_>) -> Option<String> {
    Some(match path {
        None => own_target(matched),
        // It may bring a query; the request's is dropped, as Linkerd does.
        Some(full @ PathReplacement::Full(_)) => replaced(full, matched.request.path(), None)?,
        Some(prefix @ PathReplacement::Prefix(_)) => {
            with_query(replaced(prefix, matched.request.path(), matched.prefix)?, matched.request.query())
        }
    })
}

fn own_target(matched: &Matched<'_>) -> String {
    // `OPTIONS *` and CONNECT have no path.
    let path = Some(matched.request.path()).filter(|path| path.starts_with('/')).unwrap_or("/");
    with_query(path.to_owned(), matched.request.query())
}

/// Whatever the policy or the client wrote, it is a URI and a header value: other bytes are escaped.
fn location(scheme: &str, authority: &str, target: &str) -> String {
    let mut location = String::with_capacity(scheme.len() + 3 + authority.len() + target.len());
    for text in [scheme, "://", authority, target] {
        for byte in text.bytes() {
            if byte.is_ascii_graphic() {
                location.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(location, "%{byte:02X}");
            }
        }
    }
    location
}
