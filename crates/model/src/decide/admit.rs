//! Whether a server lets a request in: the route that it follows, then who may use it (data plane 3.6).
//!
//! The proxy's inbound side and its admin server decide by this, and so does everything that explains or simulates them.

use super::{
    authorize::{Client, permit},
    route::{RequestView, find, find_grpc},
};
use crate::{
    Meta,
    policy::{
        inbound::{Authorization, ServerPolicy, ServerProtocol},
        route::Filter,
    },
};
use std::sync::LazyLock;

/// What a server says to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Admission<'p> {
    Permitted {
        route: &'p Meta,
        /// What is to be done with the request, in this order.
        filters: &'p [Filter],
        /// The object that lets it in.
        by: &'p Meta,
    },
    /// The route lets this client in nowhere.
    Denied { route: &'p Meta },
    /// The request fits no route.
    NoRoute,
}

/// The route of a server that has none: every request follows it.
static DEFAULT_ROUTE: LazyLock<Meta> = LazyLock::new(|| Meta::default_named("default"));

/// What `policy` says to `request` of `client`.
pub fn admit<'p>(policy: &'p ServerPolicy, client: &Client<'_>, request: &dyn RequestView) -> Admission<'p> {
    let Some((route, filters, of_route)) = follow(&policy.protocol, request) else { return Admission::NoRoute };
    match permit(of_route.iter().chain(&policy.authorizations), client) {
        Some(by) => Admission::Permitted { route, filters, by },
        None => Admission::Denied { route },
    }
}

/// The route, its filters and its own authorizations.
fn follow<'p>(
    protocol: &'p ServerProtocol,
    request: &dyn RequestView,
) -> Option<(&'p Meta, &'p [Filter], &'p [Authorization])> {
    match protocol {
        ServerProtocol::Detect { routes, .. }
        | ServerProtocol::Http1 { routes, .. }
        | ServerProtocol::Http2 { routes, .. }
            if !routes.is_empty() =>
        {
            let (route, rule) = find(routes, request)?;
            Some((&route.meta, &rule.filters, &rule.does.authorizations))
        }
        ServerProtocol::Grpc { routes } if !routes.is_empty() => {
            let (route, rule) = find_grpc(routes, request)?;
            Some((&route.meta, &rule.filters, &rule.does.authorizations))
        }
        // Also a port that was served as HTTP and has become opaque: the server's authorizations hold.
        _ => Some((&DEFAULT_ROUTE, &[], &[])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decide::authorize::ClientTls,
        policy::{
            inbound::{DefaultPolicy, InboundRule},
            route::{HttpMatch, HttpRoute, PathMatch, Rule},
        },
    };

    struct Get(&'static str);

    impl RequestView for Get {
        fn method(&self) -> &str {
            "GET"
        }
        fn authority(&self) -> Option<&str> {
            None
        }
        fn path(&self) -> &str {
            self.0
        }
        fn query(&self) -> Option<&str> {
            None
        }
        fn header(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            false
        }
    }

    #[test]
    fn a_route_lets_in_besides_the_server() {
        let route = |name: &str, prefix: &str, authorizations| {
            let matches = vec![HttpMatch { path: Some(PathMatch::Prefix(prefix.into())), ..HttpMatch::default() }];
            let rule = Rule { matches, filters: vec![], does: InboundRule { authorizations } };
            HttpRoute { meta: Meta::default_named(name), hosts: vec![], rules: vec![rule] }
        };
        let anybody = DefaultPolicy::AllUnauthenticated.authorizations(&[]);
        let routes = vec![route("open", "/open", anybody), route("closed", "/closed", vec![])];
        let policy = |routes: Vec<_>| ServerPolicy {
            meta: Meta::default_named("server"),
            protocol: ServerProtocol::Http1 { routes, rate_limit: None },
            authorizations: DefaultPolicy::AllAuthenticated.authorizations(&[]),
        };
        let id = "web.ns.serviceaccount.identity.linkerd.cluster.local".parse().unwrap();
        let with_routes = policy(routes);
        let without = policy(vec![]);
        for (policy, path, tls, expected) in [
            (&with_routes, "/open", ClientTls::None, Some("all-unauthenticated")),
            (&with_routes, "/closed", ClientTls::None, None),
            (&with_routes, "/closed", ClientTls::Identity(&id), Some("all-authenticated")),
            (&without, "/", ClientTls::None, None),
            (&without, "/", ClientTls::Identity(&id), Some("all-authenticated")),
        ] {
            let client = Client { addr: "10.0.0.1".parse().unwrap(), tls };
            let by = match admit(policy, &client, &Get(path)) {
                Admission::Permitted { by, .. } => Some(by.name()),
                Admission::Denied { .. } => None,
                Admission::NoRoute => panic!("{path}"),
            };
            assert_eq!(by, expected, "{path} {tls:?}");
        }
        let client = Client { addr: "127.0.0.1".parse().unwrap(), tls: ClientTls::None };
        assert_eq!(admit(&with_routes, &client, &Get("/other")), Admission::NoRoute);
    }
}
