//! Whether an observer asked to see a request.

use super::route::RequestView;
use crate::tap::{AddrMatch, Labels, Match, TextMatch};
use std::net::SocketAddr;

/// A request and where it goes.
pub struct Passing<'a> {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub scheme: &'a str,
    pub request: &'a dyn RequestView,
    pub destination_labels: &'a Labels,
    pub route_labels: &'a Labels,
}

/// Whether `wanted` holds for `passing`. As deep as `wanted` is nested, which who decodes it bounds.
pub fn matches(wanted: &Match, passing: &Passing<'_>) -> bool {
    let Passing { source, destination, scheme, request, destination_labels, route_labels } = passing;
    match wanted {
        Match::All(all) => all.iter().all(|wanted| matches(wanted, passing)),
        Match::Any(any) => any.iter().any(|wanted| matches(wanted, passing)),
        Match::Not(wanted) => !matches(wanted, passing),
        Match::Source(wanted) => addr(wanted, *source),
        Match::Destination(wanted) => addr(wanted, *destination),
        Match::Scheme(wanted) => wanted.eq_ignore_ascii_case(scheme),
        Match::Method(wanted) => wanted == request.method(),
        Match::Authority(wanted) => text(wanted, request.authority().unwrap_or_default()),
        Match::Path(wanted) => text(wanted, request.path()),
        Match::DestinationLabel(name, value) => destination_labels.get(name) == Some(value),
        Match::RouteLabel(name, value) => route_labels.get(name) == Some(value),
    }
}

fn addr(wanted: &AddrMatch, addr: SocketAddr) -> bool {
    match wanted {
        AddrMatch::Network(network) => network.contains(addr.ip()),
        AddrMatch::Ports(ports) => ports.contains(&addr.port()),
    }
}

fn text(wanted: &TextMatch, text: &str) -> bool {
    match wanted {
        TextMatch::Exact(exact) => text == exact,
        TextMatch::Prefix(prefix) => text.starts_with(prefix.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Get;

    impl RequestView for Get {
        fn method(&self) -> &str {
            "GET"
        }
        fn authority(&self) -> Option<&str> {
            Some("web.ns:80")
        }
        fn path(&self) -> &str {
            "/a/b"
        }
        fn query(&self) -> Option<&str> {
            None
        }
        fn header(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            false
        }
        fn fields(&self, _: &mut dyn FnMut(&[u8], &[u8])) {}
    }

    #[test]
    fn the_table() {
        let (labels, none) = (Labels::from([("pod".to_owned(), "web-1".to_owned())]), Labels::new());
        let passing = Passing {
            source: "[::ffff:10.0.0.1]:4000".parse().unwrap(),
            destination: "10.0.1.2:80".parse().unwrap(),
            scheme: "http",
            request: &Get,
            destination_labels: &labels,
            route_labels: &none,
        };
        let exact = |text: &str| TextMatch::Exact(text.to_owned());
        let prefix = |text: &str| TextMatch::Prefix(text.to_owned());
        let network = |text: &str| AddrMatch::Network(text.parse().unwrap());
        let yes = || Match::Method("GET".to_owned());
        let no = || Match::Method("get".to_owned());
        for (wanted, expected) in [
            (yes(), true),
            (no(), false),
            (Match::All(vec![]), true),
            (Match::Any(vec![]), false),
            (Match::All(vec![yes(), no()]), false),
            (Match::Any(vec![no(), yes()]), true),
            (Match::Not(Box::new(no())), true),
            (Match::Source(network("10.0.0.0/24")), true),
            (Match::Destination(network("10.0.0.0/24")), false),
            (Match::Destination(AddrMatch::Ports(80..=90)), true),
            (Match::Source(AddrMatch::Ports(80..=90)), false),
            (Match::Scheme("HTTP".to_owned()), true),
            (Match::Scheme("https".to_owned()), false),
            (Match::Authority(exact("web.ns:80")), true),
            (Match::Authority(exact("web.ns")), false),
            (Match::Authority(prefix("web.")), true),
            (Match::Path(exact("/a")), false),
            (Match::Path(prefix("/a")), true),
            (Match::DestinationLabel("pod".to_owned(), "web-1".to_owned()), true),
            (Match::DestinationLabel("pod".to_owned(), "web-2".to_owned()), false),
            (Match::RouteLabel("pod".to_owned(), "web-1".to_owned()), false),
        ] {
            assert_eq!(matches(&wanted, &passing), expected, "{wanted:?}");
        }
    }
}
