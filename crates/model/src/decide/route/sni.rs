//! Which route a TLS connection follows, by the server name that its ClientHello asks for.

use super::hosts_fit;
use crate::policy::outbound::TlsRoute;

/// The route for `sni`: an exact name, then the longest suffix, then a route without names; of equal ones the first.
pub fn find_tls<'r>(routes: &'r [TlsRoute], sni: &str) -> Option<&'r TlsRoute> {
    routes
        .iter()
        .filter_map(|route| Some((hosts_fit(&route.snis, || Some(sni))?, route)))
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, route)| route)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Meta,
        policy::{
            outbound::{Distribution, TcpRoute},
            route::HostMatch,
        },
    };

    fn route(name: &str, snis: &[&str]) -> TlsRoute {
        let sni = |text: &&str| match text.strip_prefix("*.") {
            Some(suffix) => HostMatch::Suffix(suffix.rsplit('.').map(str::to_owned).collect()),
            None => HostMatch::Exact((*text).to_owned()),
        };
        let route = TcpRoute { meta: Meta::default_named(name), backends: Distribution::Empty, filters: vec![] };
        TlsRoute { snis: snis.iter().map(sni).collect(), route }
    }

    #[test]
    fn exact_then_the_longest_suffix_then_the_order() {
        let routes = [
            route("any", &[]),
            route("short", &["*.example.com"]),
            route("long", &["other.test", "*.db.example.com"]),
            route("again", &["*.db.example.com"]),
            route("exact", &["a.db.example.com"]),
        ];
        let found = |sni: &str| find_tls(&routes, sni).map(|r| r.route.meta.name());
        assert_eq!(found("a.db.example.com"), Some("exact"));
        assert_eq!(found("A.DB.example.com"), Some("exact"), "names have no case");
        assert_eq!(found("b.db.example.com"), Some("long"));
        assert_eq!(found("x.y.db.example.com"), Some("long"));
        assert_eq!(found("db.example.com"), Some("short"), "the star stands for one label at least");
        assert_eq!(found("other.test"), Some("long"));
        assert_eq!(found("nowhere.test"), Some("any"));
        assert_eq!(find_tls(&routes[1..], "nowhere.test").map(|r| r.route.meta.name()), None);
    }
}
