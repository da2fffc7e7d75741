//! The hosts that a request may ask for where nobody has said which: one for all those between which no route tells a difference.

use super::{Request, told::Verdict};
use std::collections::BTreeSet;
use weft_model::{
    decide::{
        host::host_port,
        route::{HOST, RequestView},
    },
    policy::{
        inbound::ServerProtocol,
        outbound::ClientProtocol,
        route::{GrpcRoute, HeaderMatch, HostMatch, HttpRoute, ValueMatch},
    },
};

/// What routes look for: in the host, and in the header of that name.
#[derive(Default)]
pub(super) struct Looked<'p> {
    hosts: Vec<&'p HostMatch>,
    headers: Vec<&'p ValueMatch>,
}

/// For each of a policy's protocols.
pub(super) trait Named {
    fn named(&self) -> Looked<'_>;
}

impl Named for ServerProtocol {
    fn named(&self) -> Looked<'_> {
        match self {
            Self::Detect { routes, .. } | Self::Http1 { routes, .. } | Self::Http2 { routes, .. } => of_http(routes),
            Self::Grpc { routes } => of_grpc(routes),
            Self::Opaque | Self::Tls => Looked::default(),
        }
    }
}

impl Named for ClientProtocol {
    fn named(&self) -> Looked<'_> {
        match self {
            Self::Detect { http1: routes, .. } | Self::Http1(routes) | Self::Http2(routes) => of_http(&routes.routes),
            Self::Grpc { routes, .. } => of_grpc(routes),
            // Connections are told apart by the name in their TLS.
            Self::Opaque(_) | Self::Tls(_) => Looked::default(),
        }
    }
}

fn of_http<D>(routes: &[HttpRoute<D>]) -> Looked<'_> {
    let matches = routes.iter().flat_map(|route| &route.rules).flat_map(|rule| &rule.matches);
    looked(routes.iter().flat_map(|route| &route.hosts), matches.flat_map(|m| &m.headers))
}

fn of_grpc<D>(routes: &[GrpcRoute<D>]) -> Looked<'_> {
    let matches = routes.iter().flat_map(|route| &route.rules).flat_map(|rule| &rule.matches);
    looked(routes.iter().flat_map(|route| &route.hosts), matches.flat_map(|m| &m.headers))
}

fn looked<'p>(
    hosts: impl Iterator<Item = &'p HostMatch>,
    headers: impl Iterator<Item = &'p HeaderMatch>,
) -> Looked<'p> {
    let headers = headers.filter(|header| header.name == HOST).map(|header| &header.value);
    Looked { hosts: hosts.collect(), headers: headers.collect() }
}

/// The request as it is, where it says its host or no route looks at that. Else for a host that no route names, which is as good as none;
/// for each that one names; and for one below each `*.`, as which `*` itself will do, being no name that a route could have.
pub(super) fn each(request: &Request, protocol: &impl Named) -> Vec<Request> {
    let Looked { hosts, headers } = if request.authority().is_some() { Looked::default() } else { protocol.named() };
    let in_headers = headers.into_iter().filter_map(|value| match value {
        // What is no host no request asks for.
        ValueMatch::Exact(host) => String::from_utf8(host.clone()).ok().filter(|_| host_port(host).is_some()),
        ValueMatch::Regex(_) => None,
    });
    let named: BTreeSet<String> = hosts.into_iter().map(text).chain(in_headers).collect();
    let asked = named.into_iter().filter(|host| !host.is_empty()).map(|host| request.clone().named(host));
    std::iter::once(request.clone()).chain(asked).collect()
}

/// Why nothing can be told, where routes look at the host by a regular expression: nobody knows which hosts there are between them.
pub(super) fn by_pattern(request: &Request, protocol: &impl Named) -> Option<String> {
    let looked =
        request.authority().is_none() && protocol.named().headers.iter().any(|v| matches!(v, ValueMatch::Regex(_)));
    looked.then(|| {
        "routes look at the host that the request asks for by a regular expression; say which it is (--host)".to_owned()
    })
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
