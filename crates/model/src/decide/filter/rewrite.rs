//! What a request asks for once its URI is rewritten: what the policy names is replaced, and the query stays.

use crate::{
    decide::route::RequestView,
    policy::route::{Filter, PathReplacement, Rewrite},
};

/// What filters in this order rewrite; of each part the last word counts.
pub fn rewriting<'f>(filters: impl IntoIterator<Item = &'f Filter>) -> Option<Rewrite> {
    let mut all: Option<Rewrite> = None;
    for filter in filters {
        let Filter::Rewrite(Rewrite { host, path }) = filter else { continue };
        let all = all.get_or_insert_default();
        all.host = host.clone().or(all.host.take());
        all.path = path.clone().or(all.path.take());
    }
    all
}

/// Path and query that the request goes on with, where they are others. `prefix` is the one by which the rule matched; `None` if it
/// matched otherwise.
///
/// # Errors
/// The request has no path, or its rule no prefix, to be replaced.
pub fn rewritten(
    rewrite: &Rewrite,
    request: &dyn RequestView,
    prefix: Option<&str>,
) -> Result<Option<String>, &'static str> {
    let Some(path) = &rewrite.path else { return Ok(None) };
    // `OPTIONS *` and CONNECT.
    if request.method() == "CONNECT" || !request.path().starts_with('/') {
        return Err("the route rewrites paths, and the request has none");
    }
    let path = replaced(path, request.path(), prefix);
    let path = path.ok_or("the route rewrites a path prefix, and the rule matched otherwise")?;
    Ok(Some(with_query(path, request.query())))
}

/// `path` with what the policy says in its place, or in that of its prefix; `None` if there is no such prefix.
pub(super) fn replaced(by: &PathReplacement, path: &str, prefix: Option<&str>) -> Option<String> {
    Some(match by {
        PathReplacement::Full(new) => rooted(new),
        PathReplacement::Prefix(new) => {
            let prefix = prefix?;
            let rest = path.strip_prefix(prefix.strip_suffix('/').unwrap_or(prefix))?;
            if rest.is_empty() { rooted(new) } else { rooted(&[new.trim_end_matches('/'), rest].concat()) }
        }
    })
}

pub(super) fn with_query(path: String, query: Option<&str>) -> String {
    match query {
        Some(query) => [&path, "?", query].concat(),
        None => path,
    }
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { ["/", path].concat() }
}
