//! A rule's filters as both directions carry them out: what is answered per request, and the header changes made beforehand.
//!
//! The decisions are [`weft_model::decide::filter`]'s; here they meet failures, edits and chance.

use crate::{
    error::{Code, ProxyError},
    exchange::{Edits, HeaderChanges},
};
use http::{HeaderMap, uri::PathAndQuery};
use std::{fmt::Display, rc::Rc};
use weft_model::{
    decide::{
        filter::{Matched, answer, request_changes, response_changes, rewriting, rewritten},
        route::{RequestView, matched_prefix},
    },
    policy::route::{Filter, HttpMatch, Rewrite},
};

/// The changes of a rule, or of a rule and one of its backends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    request: Option<Rc<HeaderChanges>>,
    response: Option<Rc<HeaderChanges>>,
    rewrite: Option<Rc<Rewrites>>,
}

/// What a request goes on with, where it is another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rewritten {
    pub(crate) authority: Option<Rc<str>>,
    pub(crate) target: Option<PathAndQuery>,
}

#[derive(Debug)]
struct Rewrites {
    rewrite: Rewrite,
    host: Option<Rc<str>>,
}

impl Changes {
    /// A request meets the rule's filters first, a response those of the backend.
    pub(crate) fn new(rule: &[Filter], backend: &[Filter]) -> Self {
        Self {
            request: HeaderChanges::new(request_changes(rule.iter().chain(backend))),
            response: HeaderChanges::new(response_changes(backend.iter().chain(rule))),
            rewrite: rewriting(rule.iter().chain(backend)).map(Rewrites::new),
        }
    }

    pub(crate) fn edit(&self, edits: Edits) -> Edits {
        Edits { request: self.request.clone(), response: self.response.clone(), ..edits }
    }

    /// What a policy changes in the headers of a request.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        if let Some(changes) = &self.request {
            changes.apply(headers);
        }
    }

    /// What `request` goes on with. `matches` as for [`permit`].
    ///
    /// # Errors
    /// It cannot be rewritten as the policy wants it.
    pub(crate) fn rewrite(&self, request: &dyn RequestView, matches: &[HttpMatch]) -> Result<Rewritten, ProxyError> {
        let Some(Rewrites { rewrite, host }) = self.rewrite.as_deref() else { return Ok(Rewritten::default()) };
        let refused = |why: &str| ProxyError::new(Code::PolicyUnsupported, why);
        let target = rewritten(rewrite, request, matched_prefix(matches, request)).map_err(refused)?;
        let target = target.map(PathAndQuery::try_from).transpose();
        let target = target.map_err(|_| ProxyError::new(Code::BadRequest, "the request target cannot be rewritten"))?;
        Ok(Rewritten { authority: host.clone(), target })
    }
}

impl Rewrites {
    fn new(rewrite: Rewrite) -> Rc<Self> {
        let host = rewrite.host.as_deref().map(Rc::from);
        Rc::new(Self { rewrite, host })
    }
}

/// Whether `filters` let the request go on. `matches` are those of its rule, empty where they are of gRPC; `to` is where a
/// request without authority was going. What fails a share of the requests is drawn only for the `first` attempt of one.
///
/// # Errors
/// What is answered instead.
pub(crate) fn permit(
    filters: &[Filter],
    request: &dyn RequestView,
    matches: &[HttpMatch],
    to: &dyn Display,
    first: bool,
) -> Result<(), ProxyError> {
    if filters.is_empty() {
        return Ok(());
    }
    let redirects = filters.iter().any(|filter| matches!(filter, Filter::Redirect(_)));
    let prefix = if redirects { matched_prefix(matches, request) } else { None };
    let matched = Matched { request, prefix, default_authority: to };
    // The highest number that can be drawn hits nothing but what fails them all.
    match answer(filters, &matched, |below| if first { fastrand::u32(..below) } else { below.saturating_sub(1) }) {
        None => Ok(()),
        Some(answer) => Err(answer.into()),
    }
}

/// For who carries out no filters.
///
/// # Errors
/// There are some: `refusal`, or what is wrong with the policy.
pub(crate) fn none(filters: &[Filter], refusal: &str) -> Result<(), ProxyError> {
    match filters.first() {
        None => Ok(()),
        Some(Filter::Invalid(why)) => Err(ProxyError::new(Code::PolicyUnsupported, why)),
        Some(_) => Err(ProxyError::new(Code::PolicyUnsupported, refusal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::HeadView;
    use weft_model::policy::route::Ratio;

    /// Else a request that is attempted twice would fail twice as often.
    #[test]
    fn what_fails_a_share_is_drawn_once_per_request() {
        let (head, ()) = http::Request::get("http://app/").body(()).unwrap().into_parts();
        let fails = |numerator, first| {
            let ratio = Ratio { numerator, denominator: 1000 };
            let filters = [Filter::HttpFailure { status: 500, message: String::new(), ratio }];
            (0..100).filter(|_| permit(&filters, &HeadView(&head), &[], &"app", first).is_err()).count()
        };
        assert!(fails(999, true) > 50);
        assert_eq!(fails(999, false), 0);
        assert_eq!((fails(1000, true), fails(1000, false)), (100, 100), "all of them");
    }
}
