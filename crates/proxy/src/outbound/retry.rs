//! Fifth stage, per request: the timeouts and retries that its rule, and the request itself, ask for (data plane 4.10, 4.11).
//!
//! Resolved once per rule; the exchange carries them out, over as many attempts as it takes. It must not choose endpoints: each
//! attempt comes through [`super::route`] again.

use super::{Http, Wiring, backends::Spread};
use crate::{
    exchange::{Course, Retried, Retries, Retrying},
    metrics::retry::Counters,
};
use std::{rc::Rc, time::Instant};
use weft_model::{
    Meta,
    decide::{
        retry::RetryTerms,
        route::RequestView,
        terms::{self, Terms},
    },
    policy::outbound::OutboundRule,
};

/// What a rule asks for besides its backends.
pub(super) struct Asked {
    terms: Terms,
    retry: Option<Rc<RetryTerms>>,
    /// The application may ask for more.
    by_headers: bool,
    route: Rc<Route>,
}

/// A route on behalf of its requests' retries.
struct Route {
    spread: Rc<Spread<Http>>,
    counters: Counters,
}

impl Asked {
    /// `parent` and `route` name the rule; `grpc` says that it is one of a gRPC route.
    pub(super) fn new(
        wiring: &Wiring,
        (parent, route): (&Meta, &Meta),
        grpc: bool,
        rule: &OutboundRule,
        spread: &Rc<Spread<Http>>,
    ) -> Self {
        let terms = Terms::of(rule);
        let counters = wiring.metrics.retry(grpc, parent, route);
        Self {
            retry: terms.retry.clone().map(Rc::new),
            terms,
            by_headers: rule.allow_l5d_headers,
            route: Rc::new(Route { spread: Rc::clone(spread), counters }),
        }
    }

    /// Tells `course` what is asked of a request whose head came at `began`.
    pub(super) fn agree(&self, request: &dyn RequestView, began: Instant, course: &Course) {
        if course.is_agreed() {
            return;
        }
        let retries = |terms| Retries { terms, route: Rc::clone(&self.route) as Rc<dyn Retrying> };
        if self.by_headers
            && let Some(Terms { timeouts, retry }) = self.terms.asked_by(request)
        {
            course.agree(began, timeouts, retry.map(Rc::new).map(retries));
        } else if !self.terms.is_empty() {
            course.agree(began, self.terms.timeouts, self.retry.clone().map(retries));
        }
    }

    /// What the application asked by, which does not go on.
    pub(super) fn removed(&self) -> &'static [&'static str] {
        if self.by_headers { terms::HEADERS } else { &[] }
    }
}

impl Retrying for Route {
    fn is_ready(&self) -> bool {
        self.spread.is_ready()
    }

    fn count(&self, event: Retried) {
        self.counters.count(event);
    }
}
