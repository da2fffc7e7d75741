//! What the filters of a rule do to a request: let it go on with other headers, or answer it instead of the server (data plane
//! 3.6, 4.4).
//!
//! Header changes are composed once, when a policy comes; only [`answer`] is asked per request. Neither looks at framing: who
//! compiles the changes has refused those that would break it ([`is_protected`]).

mod redirect;
mod rewrite;

pub use rewrite::{rewriting, rewritten};

use super::{field::is_of_mesh, route::RequestView};
use crate::policy::route::{Extension, Filter, HeaderEdits, Ratio};
use std::borrow::Cow;

/// What is answered instead of sending the request on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'p> {
    Redirect {
        status: u16,
        location: String,
    },
    HttpFailure {
        status: u16,
        message: &'p str,
    },
    GrpcFailure {
        code: u16,
        message: &'p str,
    },
    Forbidden,
    /// The policy cannot be followed for this request.
    Invalid(Cow<'p, str>),
}

/// What becomes of all values of one header: filters in a row add up to one of these per name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderChange {
    /// Lower-case.
    pub name: String,
    /// The values that came are dropped.
    pub replaces: bool,
    /// These are put behind what is left.
    pub values: Vec<Vec<u8>>,
}

/// A request whose rule is found.
pub struct Matched<'a> {
    pub request: &'a dyn RequestView,
    /// The path prefix by which the rule matched; `None` if it matched otherwise.
    pub prefix: Option<&'a str>,
    /// Where a request without authority was going.
    pub default_authority: &'a dyn std::fmt::Display,
}

/// Names of headers that concern one connection or frame a message.
const OF_THE_HOP: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// What the first filter that answers says; `None` lets the request go on. `draw(n)` is a random number below `n`.
pub fn answer<'p>(
    filters: &'p [Filter],
    matched: &Matched<'_>,
    mut draw: impl FnMut(u32) -> u32,
) -> Option<Answer<'p>> {
    filters.iter().find_map(|filter| match filter {
        Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) | Filter::Rewrite(_) | Filter::Mirror(_) => None,
        Filter::Extension(Extension { key: _, wants }) => {
            let why = format!("the route wants a {wants}, and this proxy was not told which");
            Some(Answer::Invalid(Cow::Owned(why)))
        }
        Filter::Redirect(redirect) => redirect::answer(redirect, matched),
        Filter::HttpFailure { status, message, ratio } => {
            hits(*ratio, &mut draw).then_some(Answer::HttpFailure { status: *status, message })
        }
        Filter::GrpcFailure { code, message, ratio } => {
            hits(*ratio, &mut draw).then_some(Answer::GrpcFailure { code: *code, message })
        }
        Filter::Forbidden => Some(Answer::Forbidden),
        Filter::Invalid(why) => Some(Answer::Invalid(Cow::Borrowed(why))),
    })
}

/// Whether a request is of the share. `draw` as for [`answer`].
pub fn hits(ratio: Ratio, draw: &mut impl FnMut(u32) -> u32) -> bool {
    let Ratio { numerator, denominator } = ratio;
    numerator >= denominator || (numerator > 0 && draw(denominator) < numerator)
}

/// What filters in this order change in the headers of a request, one change per name.
pub fn request_changes<'f>(filters: impl IntoIterator<Item = &'f Filter>) -> Vec<HeaderChange> {
    changes(filters.into_iter().filter_map(|filter| match filter {
        Filter::RequestHeaders(edits) => Some(edits),
        _ => None,
    }))
}

/// The same for a response.
pub fn response_changes<'f>(filters: impl IntoIterator<Item = &'f Filter>) -> Vec<HeaderChange> {
    changes(filters.into_iter().filter_map(|filter| match filter {
        Filter::ResponseHeaders(edits) => Some(edits),
        _ => None,
    }))
}

fn changes<'f>(all: impl Iterator<Item = &'f HeaderEdits>) -> Vec<HeaderChange> {
    let mut changes: Vec<HeaderChange> = vec![];
    let mut of = |name: &str, then: &dyn Fn(&mut HeaderChange)| match changes.iter_mut().find(|c| c.name == name) {
        Some(change) => then(change),
        None => {
            let mut change = HeaderChange { name: name.to_owned(), replaces: false, values: vec![] };
            then(&mut change);
            changes.push(change);
        }
    };
    for HeaderEdits { add, set, remove } in all {
        for (name, value) in add {
            of(name, &|change| change.values.push(trimmed(value)));
        }
        for (name, value) in set {
            of(name, &|change| (change.replaces, change.values) = (true, vec![trimmed(value)]));
        }
        for name in remove {
            of(name, &|change| (change.replaces, change.values) = (true, vec![]));
        }
    }
    changes
}

/// Blanks around a value are not part of it, and HTTP/2 allows none.
fn trimmed(value: &[u8]) -> Vec<u8> {
    value.trim_ascii().to_vec()
}

/// Whether a header concerns one connection, or frames a message. `name` is lower-case.
pub fn is_of_the_hop(name: &str) -> bool {
    OF_THE_HOP.contains(&name)
}

/// Whether no policy may change this header: it frames a message, concerns one connection, says who is asked, or is a word
/// between proxies. `name` is lower-case.
pub fn is_protected(name: &str) -> bool {
    is_of_mesh(name.as_bytes()) || name.starts_with(':') || is_of_the_hop(name)
}

#[cfg(test)]
mod tests;
