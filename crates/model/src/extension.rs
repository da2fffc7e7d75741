//! What Linkerd's messages have no words for, told beside a policy: which filters these are, and how both come together again.
//!
//! ```text
//! policy ─┬─► with an Extension in their place ─► Linkerd's message: who knows no more refuses the requests ─┐
//!         └─► Extensions, by a key that stands for the content ─► our own message ────────────────────────┴─► extended ─► policy
//! ```
//! The key is of the content: whichever of both comes first, an old one never completes a new one.

use crate::{
    ClientPolicy,
    policy::{
        outbound::{ClientProtocol, Distribution, OutboundRule},
        route::{Extension, Filter, Rule},
    },
};
use std::collections::BTreeMap;

/// Filters by the keys that stand for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extensions(pub BTreeMap<String, Vec<Filter>>);

impl Filter {
    /// Whether Linkerd's messages have no words for it.
    pub fn is_beyond_linkerd(&self) -> bool {
        match self {
            Self::Rewrite(_) | Self::Mirror(_) => true,
            Self::RequestHeaders(_)
            | Self::ResponseHeaders(_)
            | Self::Redirect(_)
            | Self::Extension(_)
            | Self::HttpFailure { .. }
            | Self::GrpcFailure { .. }
            | Self::Forbidden
            | Self::Invalid(_) => false,
        }
    }
}

impl ClientPolicy {
    /// The filters of each rule of requests, and of each of its backends.
    pub fn filters(&self) -> Vec<&[Filter]> {
        fn of<'p, M>(rules: &'p [Rule<M, OutboundRule>], all: &mut Vec<&'p [Filter]>) {
            for Rule { matches: _, filters, does } in rules {
                all.push(filters);
                all.extend(does.backends.iter().map(|backend| backend.filters.as_slice()));
            }
        }
        let mut all = vec![];
        match &self.protocol {
            ClientProtocol::Detect { http1, http2, .. } => {
                http1.routes.iter().chain(&http2.routes).for_each(|route| of(&route.rules, &mut all));
            }
            ClientProtocol::Http1(routes) | ClientProtocol::Http2(routes) => {
                routes.routes.iter().for_each(|route| of(&route.rules, &mut all));
            }
            ClientProtocol::Grpc { routes, .. } => routes.iter().for_each(|route| of(&route.rules, &mut all)),
            ClientProtocol::Opaque(_) | ClientProtocol::Tls(_) => {}
        }
        all
    }

    /// The keys of what is told beside it.
    pub fn wants(&self) -> impl Iterator<Item = &str> {
        self.filters().into_iter().flatten().filter_map(|filter| match filter {
            Filter::Extension(Extension { key, .. }) => Some(key.as_str()),
            _ => None,
        })
    }

    /// With what was told beside it; what was not stays as it is.
    #[must_use]
    pub fn extended(mut self, told: &Extensions) -> Self {
        self.change_filters(&mut |filters| told.put_into(filters));
        self
    }

    /// Changes the lists of [`ClientPolicy::filters`], in their order.
    pub fn change_filters(&mut self, change: &mut impl FnMut(&mut Vec<Filter>)) {
        fn of<M>(rules: &mut [Rule<M, OutboundRule>], change: &mut impl FnMut(&mut Vec<Filter>)) {
            for Rule { matches: _, filters, does } in rules {
                change(filters);
                let (first, random): (&mut [_], &mut [_]) = match &mut does.backends {
                    Distribution::Empty => (&mut [], &mut []),
                    Distribution::FirstAvailable(all) => (all, &mut []),
                    Distribution::RandomAvailable(all) => (&mut [], all),
                };
                let all = first.iter_mut().chain(random.iter_mut().map(|(backend, _)| backend));
                all.for_each(|backend| change(&mut backend.filters));
            }
        }
        match &mut self.protocol {
            ClientProtocol::Detect { http1, http2, .. } => {
                http1.routes.iter_mut().chain(&mut http2.routes).for_each(|route| of(&mut route.rules, change));
            }
            ClientProtocol::Http1(routes) | ClientProtocol::Http2(routes) => {
                routes.routes.iter_mut().for_each(|route| of(&mut route.rules, change));
            }
            ClientProtocol::Grpc { routes, .. } => routes.iter_mut().for_each(|route| of(&mut route.rules, change)),
            ClientProtocol::Opaque(_) | ClientProtocol::Tls(_) => {}
        }
    }
}

impl Extensions {
    fn put_into(&self, filters: &mut Vec<Filter>) {
        let known = |filter: &Filter| match filter {
            Filter::Extension(Extension { key, .. }) => self.0.get(key),
            _ => None,
        };
        if !filters.iter().any(|filter| known(filter).is_some()) {
            return;
        }
        *filters = std::mem::take(filters)
            .into_iter()
            .flat_map(|filter| match known(&filter) {
                Some(told) => told.clone(),
                None => vec![filter],
            })
            .collect();
    }
}
