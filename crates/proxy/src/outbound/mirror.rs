//! Copies of requests, for backends whose answers nobody waits for.
//!
//! ```text
//! request ─► endpoint          the original, as if there was no mirror
//!    └─ copy (body ≤ 64 KiB) ─► once it is whole, a task of its own ─► endpoint of the mirror ─► what it answers is thrown away
//! ```
//! Bounded by the process: places for copies, the bytes of each and of its answer, and the time it takes. What finds no place, or is too large, is not sent,
//! and counted.

use super::{Http, backends::Spread, endpoint::Lease};
use crate::{
    error::ProxyError,
    exchange::{self, BodyCopy, Carrier, Course, NotWhole},
    filter::{Changes, Rewritten},
    metrics::mirror::Series,
    process::in_flight::{InFlight, Permit},
    protocol::Version,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, request, uri};
use std::{rc::Rc, sync::Arc, time::Duration};
use weft_model::{
    decide::{
        field::is_of_mesh,
        filter::{hits, is_of_the_hop},
        route::RequestView,
    },
    policy::route::Ratio,
};

/// Bytes of a body that is copied.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// Copies of the process that are taken or under way.
pub(crate) const MAX_COPIES: usize = 256;
/// How long the body may take to come, and then the rest, connection, answer and all.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a share of a rule's requests is sent to as well.
pub(super) struct Mirror<C> {
    to: Rc<Spread<C>>,
    share: Ratio,
    places: Arc<InFlight>,
    series: Rc<Series>,
}

/// What the original goes on with.
#[derive(Clone, Copy)]
pub(super) struct Changed<'a> {
    pub(super) headers: &'a Changes,
    pub(super) rewritten: &'a Rewritten,
}

/// A request without its body.
struct Head {
    parts: request::Parts,
    version: Version,
}

impl<C> Mirror<C> {
    pub(super) fn new(to: Spread<C>, share: Ratio, places: &Arc<InFlight>, series: Series) -> Self {
        Self { to: Rc::new(to), share, places: Arc::clone(places), series: Rc::new(series) }
    }
}

impl Mirror<Http> {
    /// Takes a copy of a request, if it is of the share. Leaving HTTP is not copied.
    fn take(&self, request: &dyn RequestView, version: Version, changed: Changed<'_>) -> Option<BodyCopy> {
        if request.is_upgrade()
            || request.method() == "CONNECT"
            || !hits(self.share, &mut |below| fastrand::u32(..below))
        {
            return None;
        }
        let Ok(place) = self.places.admit() else {
            self.series.full.inc();
            return None;
        };
        let Some(parts) = copied(request, version, changed) else {
            self.series.failed.inc();
            return None;
        };
        let (head, to, series) = (Head { parts, version }, Rc::clone(&self.to), Rc::clone(&self.series));
        Some(BodyCopy::new(MAX_BODY, move |body| match body {
            Ok(body) => drop(tokio::task::spawn_local(send(place, head, body, to, series))),
            Err(NotWhole::TooLarge) => series.too_large.inc(),
            Err(NotWhole::Cut) => series.cut.inc(),
        }))
    }
}

/// Has the request copied for those of `mirrors` whose share it is. Once: later attempts are of the same request.
pub(super) fn take(
    mirrors: &[Mirror<Http>],
    request: &dyn RequestView,
    version: Version,
    changed: Changed<'_>,
    course: &Course,
) {
    if mirrors.is_empty() || course.is_copied() {
        return;
    }
    course.copy(mirrors.iter().filter_map(|mirror| mirror.take(request, version, changed)).collect(), TIMEOUT);
}

async fn send(_place: Permit, head: Head, body: Bytes, to: Rc<Spread<Http>>, series: Rc<Series>) {
    match tokio::time::timeout(TIMEOUT, sent(head, body, &to)).await {
        Ok(Ok(())) => series.sent.inc(),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the copy of a request was not answered");
            series.failed.inc();
        }
        Err(_) => series.failed.inc(),
    }
}

async fn sent(Head { mut parts, version }: Head, body: Bytes, to: &Spread<Http>) -> Result<(), ProxyError> {
    let chosen = to.choose(true)?;
    let member = to.next(chosen).await?.member;
    let carrier = member.connections.carrier(version, false);
    if let Some(authority) = member.connections.authority_override() {
        exchange::replace_authority(&mut parts, &authority);
    }
    let lease = match Lease::new(Rc::clone(&member), carrier).await {
        Ok(lease) => lease,
        Err(error) => {
            to.failed(chosen, &member, &error);
            return Err(error);
        }
    };
    match carrier {
        Carrier::Http1 => exchange::send_http1(&lease, parts, &body).await,
        Carrier::Http2 => exchange::send_http2(&lease, parts, body, version).await,
    }
}

/// The head with what a policy changes of it, and without what concerns one hop or is a word between proxies; `None` if it cannot be
/// sent.
fn copied(request: &dyn RequestView, version: Version, changed: Changed<'_>) -> Option<request::Parts> {
    let Changed { headers: changes, rewritten } = changed;
    let mut headers = HeaderMap::new();
    let mut hop: Vec<Vec<u8>> = vec![];
    request.fields(&mut |name, value| {
        if name.eq_ignore_ascii_case(b"connection") {
            hop.extend(value.split(|byte| *byte == b',').map(|option| option.trim_ascii().to_ascii_lowercase()));
        }
    });
    request.fields(&mut |name, value| {
        let lower = name.to_ascii_lowercase();
        // What gRPC asks of its servers is no matter of the connection.
        let is_grpcs = version == Version::Http2 && lower == b"te" && value == b"trailers";
        let is_ours =
            is_of_mesh(&lower) || std::str::from_utf8(&lower).is_ok_and(is_of_the_hop) || hop.contains(&lower);
        if (is_grpcs || !is_ours)
            && let Ok(name) = HeaderName::from_bytes(&lower)
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            headers.append(name, value);
        }
    });
    changes.apply(&mut headers);
    headers.remove(header::HOST);
    let mut uri = uri::Parts::default();
    uri.path_and_query = Some(match &rewritten.target {
        Some(target) => target.clone(),
        None => match request.query() {
            Some(query) => [request.path(), "?", query].concat().try_into().ok()?,
            None => request.path().try_into().ok()?,
        },
    });
    if let Some(authority) = rewritten.authority.as_deref().or_else(|| request.authority()) {
        uri.authority = Some(authority.parse().ok()?);
        uri.scheme = Some(uri::Scheme::HTTP);
    }
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = request.method().parse().ok()?;
    parts.uri = Uri::from_parts(uri).ok()?;
    parts.headers = headers;
    Some(parts)
}
