//! Whether a server lets a request in: the route that it follows, then who may use it (data plane 3.6).
//!
//! The proxy's inbound side and its admin server decide by this, and so does everything that explains or simulates them.

use super::{
    authorize::{Client, ClientTls, permit},
    path::{MAX_READ, is_plain, readings},
    route::{RequestView, find, find_grpc, find_read, names_the_path},
};
use crate::{
    Meta,
    names::header::CLIENT_ID,
    policy::{
        inbound::{Authorization, ServerPolicy, ServerProtocol},
        route::{Filter, HttpMatch, Rule},
    },
};
use std::sync::LazyLock;

/// What a server says to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Admission<'p> {
    Permitted {
        route: &'p Meta,
        /// Those of the rule; empty where they are of gRPC, and in the default route.
        matches: &'p [HttpMatch],
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
///
/// A path that servers may read in several ways is let in only if it would be in each: else `//admin` or `/x/../admin` would
/// follow another route here than it is served by there; one that is longer than [`MAX_READ`] as well follows none. A path that an `Exact`
/// match names is meant as it is written there, as that of a probe. In [`CLIENT_ID`] routes see what the client has proved, as the server
/// does, and never what it wrote there.
pub fn admit<'p>(policy: &'p ServerPolicy, client: &Client<'_>, request: &dyn RequestView) -> Admission<'p> {
    in_every_reading(policy, client, request, |_, refused| refused).unwrap_or_else(|refused| refused)
}

/// What could let in a request that is denied: the authorizations of the route that it follows, then the server's. Nothing if it is let in,
/// or follows no route. For who explains a refusal.
pub fn considered<'p>(
    policy: &'p ServerPolicy,
    client: &Client<'_>,
    request: &dyn RequestView,
) -> Vec<&'p Authorization> {
    let of = |served: &Served<'_>, _: Admission<'p>| {
        let followed = follow(&policy.protocol, served);
        followed.map(|f| f.authorizations.iter().chain(&policy.authorizations).collect()).unwrap_or_default()
    };
    in_every_reading(policy, client, request, of).err().unwrap_or_default()
}

/// What is said to the request as it is written, if it is let in in every reading; else what `refused` makes of the first that is not.
fn in_every_reading<'p, R>(
    policy: &'p ServerPolicy,
    client: &Client<'_>,
    request: &dyn RequestView,
    refused: impl Fn(&Served<'_>, Admission<'p>) -> R,
) -> Result<Admission<'p>, R> {
    let written = Served { request, client, path: None };
    let admission = admit_served(policy, &written);
    let Admission::Permitted { matches, .. } = admission else { return Err(refused(&written, admission)) };
    // Without routes no path is looked at.
    if !policy.protocol.has_routes() || is_plain(request.path()) || names_the_path(matches, &written) {
        return Ok(admission);
    }
    if request.path().len() > MAX_READ {
        return Err(refused(&written, Admission::NoRoute));
    }
    for reading in readings(request.path()) {
        let served = Served { path: Some(&reading.path), ..written };
        match admit_served(policy, &served) {
            Admission::Permitted { .. } => {}
            // A route may be written with the escapes of its requests.
            Admission::NoRoute if !reading.other_segments => {}
            other => return Err(refused(&served, other)),
        }
    }
    Ok(admission)
}

/// A request as its server gets it.
#[derive(Clone, Copy)]
struct Served<'a> {
    request: &'a dyn RequestView,
    client: &'a Client<'a>,
    /// In another reading than it was written.
    path: Option<&'a str>,
}

impl RequestView for Served<'_> {
    fn method(&self) -> &str {
        self.request.method()
    }

    fn authority(&self) -> Option<&str> {
        self.request.authority()
    }

    fn path(&self) -> &str {
        self.path.unwrap_or_else(|| self.request.path())
    }

    fn query(&self) -> Option<&str> {
        self.request.query()
    }

    fn header(&self, name: &str, wanted: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        match self.client.tls {
            _ if name != CLIENT_ID => self.request.header(name, wanted),
            ClientTls::Identity(id) => wanted(id.as_str().as_bytes()),
            ClientTls::None | ClientTls::Unauthenticated => false,
        }
    }

    fn fields(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.request.fields(visit);
    }

    fn is_upgrade(&self) -> bool {
        self.request.is_upgrade()
    }
}

fn admit_served<'p>(policy: &'p ServerPolicy, request: &Served<'_>) -> Admission<'p> {
    let Some(Followed { route, matches, filters, authorizations }) = follow(&policy.protocol, request) else {
        return Admission::NoRoute;
    };
    match permit(authorizations.iter().chain(&policy.authorizations), request.client) {
        Some(by) => Admission::Permitted { route, matches, filters, by },
        None => Admission::Denied { route },
    }
}

/// The rule that a request follows, with the authorizations of its route.
struct Followed<'p> {
    route: &'p Meta,
    matches: &'p [HttpMatch],
    filters: &'p [Filter],
    authorizations: &'p [Authorization],
}

fn follow<'p>(protocol: &'p ServerProtocol, request: &Served<'_>) -> Option<Followed<'p>> {
    match protocol {
        ServerProtocol::Detect { routes, .. }
        | ServerProtocol::Http1 { routes, .. }
        | ServerProtocol::Http2 { routes, .. }
            if !routes.is_empty() =>
        {
            let found = if request.path.is_some() { find_read(routes, request) } else { find(routes, request) };
            let (route, Rule { matches, filters, does }) = found?;
            Some(Followed { route: &route.meta, matches, filters, authorizations: &does.authorizations })
        }
        ServerProtocol::Grpc { routes } if !routes.is_empty() => {
            let (route, Rule { matches: _, filters, does }) = find_grpc(routes, request)?;
            Some(Followed { route: &route.meta, matches: &[], filters, authorizations: &does.authorizations })
        }
        // Also a port that was served as HTTP and has become opaque: the server's authorizations hold.
        _ => Some(Followed { route: &DEFAULT_ROUTE, matches: &[], filters: &[], authorizations: &[] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{
        inbound::{DefaultPolicy, InboundRule},
        route::{HeaderMatch, HttpRoute, PathMatch, ValueMatch},
    };

    /// A path, and who the request says that its client is.
    struct Get<'a>(&'a str, &'static str);

    impl RequestView for Get<'_> {
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
        fn header(&self, name: &str, wanted: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            name == CLIENT_ID && wanted(self.1.as_bytes())
        }
        fn fields(&self, _: &mut dyn FnMut(&[u8], &[u8])) {}
    }

    /// Whatever a server makes of a path, who may not use `/admin` does not get there, and `/public` leads nowhere else.
    #[test]
    fn a_path_is_let_in_only_if_every_reading_is() {
        let route = |name: &str, prefix: &str, default: DefaultPolicy| {
            let matches = vec![HttpMatch { path: Some(PathMatch::Prefix(prefix.into())), ..HttpMatch::default() }];
            let does = InboundRule { authorizations: default.authorizations(&[]) };
            let rule = Rule { matches, filters: vec![], does };
            HttpRoute { meta: Meta::default_named(name), hosts: vec![], rules: vec![rule] }
        };
        let policy = |routes| ServerPolicy {
            meta: Meta::default_named("server"),
            protocol: ServerProtocol::Http1 { routes, rate_limit: None },
            authorizations: vec![],
        };
        let open = route("open", "/", DefaultPolicy::AllUnauthenticated);
        let guarded = policy(vec![open, route("admin", "/admin", DefaultPolicy::AllAuthenticated)]);
        let only_public = policy(vec![route("public", "/public", DefaultPolicy::AllUnauthenticated)]);
        let stranger = Client { addr: "10.0.0.1".parse().unwrap(), tls: ClientTls::None };
        let permitted = |policy: &ServerPolicy, path: &str| {
            matches!(admit(policy, &stranger, &Get(path, "")), Admission::Permitted { .. })
        };
        for path in [
            "/admin",
            "/admin/x",
            "//admin",
            "/./admin",
            "/x/../admin",
            "/%61dmin",
            "/x%2f..%2fadmin",
            "/x/..;/admin",
            "/admin;x",
            "/x\\..\\admin",
            "/%2561dmin",
            "/admin%00",
            "/%2e/admin",
            "/x/%2e%2e/admin",
        ] {
            assert!(!permitted(&guarded, path), "{path}");
        }
        for path in ["/", "/x", "/administrator", "/x//y", "/a%20b", "/a;b=c", "/.well-known/x", "/x/./y", "/ADMIN"] {
            assert!(permitted(&guarded, path), "{path}");
        }
        for path in ["/public/../x", "/public/..%2fx", "/public/..;/x", "/public\\..\\..\\x"] {
            assert!(!permitted(&only_public, path), "{path}");
        }
        for path in ["/public", "/public/a%20b", "/public/a//b", "/public/a;b"] {
            assert!(permitted(&only_public, path), "{path}");
        }
        // Routes are read as requests are, and what one names letter by letter is meant so.
        let named = |path: &str, default| {
            let mut route = route("named", path, default);
            route.rules[0].matches[0].path = Some(PathMatch::Exact(path.into()));
            route
        };
        let closed = || route("closed", "/", DefaultPolicy::AllAuthenticated);
        let open = || route("open", "/", DefaultPolicy::AllUnauthenticated);
        for (path, same) in [
            ("/a%20b", ["/a%20b", "/%61%20b", "/./a%20b", "/a%2520b"]),
            ("/%c3%a9", ["/%c3%a9", "/%C3%A9", "//%c3%A9", "/x/..;/%c3%a9"]),
        ] {
            let guarded = policy(vec![open(), named(path, DefaultPolicy::AllAuthenticated)]);
            let below = policy(vec![open(), route("below", path, DefaultPolicy::AllAuthenticated)]);
            for same in same {
                assert!(!permitted(&guarded, same), "{same} is {path}");
                assert!(!permitted(&below, &format!("{same}/x")), "{same}/x is below {path}");
            }
        }
        for path in ["/a%20b", "/health;full", "/a//b", "/a/../b", "/a%2Fb"] {
            let only = policy(vec![closed(), named(path, DefaultPolicy::AllUnauthenticated)]);
            assert!(permitted(&only, path), "{path}");
            for other in ["/health", "/b", "/a/b", "/a", "/health;other", "//health;full", "/a/.//b"] {
                assert!(!permitted(&only, other), "{other} is let in by {path}");
            }
        }
        let below = policy(vec![closed(), route("below", "/a%20b", DefaultPolicy::AllUnauthenticated)]);
        assert!(permitted(&below, "/a%20b/c") && !permitted(&below, "/a%20b/../c"));
        // What would be long to look at is looked at nowhere, and without routes that matters to nobody.
        let without =
            ServerPolicy { authorizations: DefaultPolicy::AllUnauthenticated.authorizations(&[]), ..policy(vec![]) };
        let long = |unit: &str| format!("/public{}", unit.repeat(MAX_READ / unit.len() + 1));
        assert!(permitted(&only_public, &long("/a")));
        assert_eq!(admit(&only_public, &stranger, &Get(&long("/%61"), "")), Admission::NoRoute);
        assert!(permitted(&without, &long("/%61")) && permitted(&without, "//admin"));
    }

    #[test]
    fn routes_see_who_the_client_is_and_not_who_it_says() {
        const WEB: &str = "web.ns.serviceaccount.identity.linkerd.cluster.local";
        let header = HeaderMatch { name: CLIENT_ID.into(), value: ValueMatch::Exact(WEB.into()) };
        let matches = vec![HttpMatch { headers: vec![header], ..HttpMatch::default() }];
        let does = InboundRule { authorizations: DefaultPolicy::AllUnauthenticated.authorizations(&[]) };
        let rules = vec![Rule { matches, filters: vec![], does }];
        let routes = vec![HttpRoute { meta: Meta::default_named("of-web"), hosts: vec![], rules }];
        let policy = ServerPolicy {
            meta: Meta::default_named("server"),
            protocol: ServerProtocol::Http1 { routes, rate_limit: None },
            authorizations: vec![],
        };
        let (web, other) =
            (WEB.parse().unwrap(), "x.ns.serviceaccount.identity.linkerd.cluster.local".parse().unwrap());
        for (says, tls, permitted) in [
            (WEB, ClientTls::None, false),
            (WEB, ClientTls::Unauthenticated, false),
            (WEB, ClientTls::Identity(&other), false),
            ("other", ClientTls::Identity(&web), true),
        ] {
            let client = Client { addr: "10.0.0.1".parse().unwrap(), tls };
            let admission = admit(&policy, &client, &Get("/", says));
            assert_eq!(matches!(admission, Admission::Permitted { .. }), permitted, "{says} {tls:?}: {admission:?}");
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
            let by = match admit(policy, &client, &Get(path, "")) {
                Admission::Permitted { by, .. } => Some(by.name()),
                Admission::Denied { .. } => None,
                Admission::NoRoute => panic!("{path}"),
            };
            assert_eq!(by, expected, "{path} {tls:?}");
        }
        let client = Client { addr: "127.0.0.1".parse().unwrap(), tls: ClientTls::None };
        assert_eq!(admit(&with_routes, &client, &Get("/other", "")), Admission::NoRoute);
        // What could have let in is what is told of, in the reading that is refused.
        let stranger = Client { addr: "10.0.0.1".parse().unwrap(), tls: ClientTls::None };
        for (path, names) in [
            ("/open", vec![]),
            ("/closed", vec!["all-authenticated"]),
            ("/open/../closed", vec!["all-authenticated"]),
            ("/open/../other", vec![]),
            ("/other", vec![]),
        ] {
            let told: Vec<&str> =
                considered(&with_routes, &stranger, &Get(path, "")).into_iter().map(|a| a.meta.name()).collect();
            assert_eq!(told, names, "{path}");
        }
    }
}
