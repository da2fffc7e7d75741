//! The hosts that a request may ask for where nobody has said which: one for all those between which no route tells a difference.

use super::{Request, told::Verdict};
use std::collections::BTreeSet;
use weft_model::{
    decide::route::RequestView,
    policy::{
        inbound::ServerProtocol,
        outbound::ClientProtocol,
        route::{GrpcRoute, HostMatch, HttpRoute},
    },
};

/// What routes look for; for each of a policy's protocols.
pub(super) trait Named {
    fn named(&self) -> Vec<&HostMatch>;
}

impl Named for ServerProtocol {
    fn named(&self) -> Vec<&HostMatch> {
        match self {
            Self::Detect { routes, .. } | Self::Http1 { routes, .. } | Self::Http2 { routes, .. } => of_http(routes),
            Self::Grpc { routes } => of_grpc(routes),
            Self::Opaque | Self::Tls => vec![],
        }
    }
}

impl Named for ClientProtocol {
    fn named(&self) -> Vec<&HostMatch> {
        match self {
            Self::Detect { http1: routes, .. } | Self::Http1(routes) | Self::Http2(routes) => of_http(&routes.routes),
            Self::Grpc { routes, .. } => of_grpc(routes),
            // Connections are told apart by the name in their TLS.
            Self::Opaque(_) | Self::Tls(_) => vec![],
        }
    }
}

fn of_http<D>(routes: &[HttpRoute<D>]) -> Vec<&HostMatch> {
    routes.iter().flat_map(|route| &route.hosts).collect()
}

fn of_grpc<D>(routes: &[GrpcRoute<D>]) -> Vec<&HostMatch> {
    routes.iter().flat_map(|route| &route.hosts).collect()
}

/// The request as it is, where it says its host or no route looks at that. Else for a host that no route names, which is as good as none;
/// for each that one names; and for one below each `*.`, as which `*` itself will do, being no name that a route could have.
pub(super) fn each(request: &Request, protocol: &impl Named) -> Vec<Request> {
    let named = if request.authority().is_some() { vec![] } else { protocol.named() };
    let named: BTreeSet<String> = named.into_iter().map(text).collect();
    let asked = named.into_iter().map(|host| request.clone().named(host));
    std::iter::once(request.clone()).chain(asked).collect()
}

fn text(host: &HostMatch) -> String {
    match host {
        HostMatch::Exact(name) => name.clone(),
        HostMatch::Suffix(labels) => {
            let labels = std::iter::once("*").chain(labels.iter().rev().map(String::as_str));
            labels.collect::<Vec<_>>().join(".")
        }
    }
}

/// Why nothing can be told, where some hosts are allowed and others denied.
pub(super) fn differ<'r>(verdicts: impl IntoIterator<Item = (&'r Request, Verdict)> + Clone) -> Option<String> {
    let first = |wanted: Verdict| {
        let (request, _) = verdicts.clone().into_iter().find(|(_, verdict)| *verdict == wanted)?;
        Some(request.authority().unwrap_or("one that no route names"))
    };
    let (allowed, denied) = (first(Verdict::Allowed)?, first(Verdict::Denied)?);
    Some(format!(
        "it depends on the host that the request asks for: {allowed} is allowed and {denied} is denied; say which it is (--host)"
    ))
}
