//! The examples of `docs/traffic.md`, all of them together, do what the page says.

use super::documented::{Page, outbound};
use std::time::Duration;
use weft_cluster::index::{Answer, Question, Target};
use weft_model::{
    Profile,
    policy::{
        outbound::{ClientProtocol, Distribution, HttpRoutes, OutboundRule},
        route::{Filter, HttpMatch, Rule},
    },
};

fn http(protocol: ClientProtocol) -> HttpRoutes {
    match protocol {
        ClientProtocol::Detect { http1, .. } => http1,
        other => panic!("{other:?}"),
    }
}

/// The backends of a rule with the weight of each.
fn shares(does: &OutboundRule) -> Vec<(String, u32)> {
    match &does.backends {
        Distribution::RandomAvailable(all) => {
            all.iter().map(|(b, weight)| (b.backend.meta.name().to_owned(), *weight)).collect()
        }
        Distribution::FirstAvailable(all) => all.iter().map(|b| (b.backend.meta.name().to_owned(), 1)).collect(),
        Distribution::Empty => vec![],
    }
}

#[test]
fn the_examples_of_traffic_are_carried_out() {
    let index = Page::read("traffic.md").index();
    let rules = |from: &str, name: &str| -> Vec<Rule<HttpMatch, OutboundRule>> {
        let routes = http(outbound(&index, from, &format!("{name}.shop.svc.cluster.local:80")).protocol);
        routes.routes.into_iter().flat_map(|route| route.rules).collect()
    };
    let to = |name: &str, weight| (name.to_owned(), weight);
    assert_eq!(shares(&rules("edge", "web")[0].does), [to("web", 90), to("web-next", 10)]);

    let books = rules("shop", "books");
    assert_eq!((books.len(), books[0].matches.len()), (3, 2));
    assert_eq!(
        books.iter().map(|r| shares(&r.does)[0].0.clone()).collect::<Vec<_>>(),
        ["books-next", "books-next", "books"]
    );
    assert_eq!((rules("edge", "books").len(), rules("tools", "books").len()), (4, 3), "a namespace's own come first");
    assert_eq!(shares(&rules("edge", "books")[0].does), [to("books-next", 1)]);

    let authors = rules("shop", "authors");
    let of = |wanted: fn(&Filter) -> bool| authors.iter().flat_map(|r| &r.filters).filter(|f| wanted(f)).count();
    assert_eq!(of(|f| matches!(f, Filter::Redirect(r) if r.status == Some(301))), 1);
    assert_eq!(of(|f| matches!(f, Filter::RequestHeaders(_) | Filter::ResponseHeaders(_))), 2);

    let secs = |n| Some(Duration::from_secs(n));
    let reports = rules("shop", "web-next");
    let timeouts = |i: usize| reports[i].does.timeouts;
    assert_eq!((timeouts(0).request, timeouts(0).response, timeouts(0).idle), (secs(30), secs(10), None));
    assert_eq!((timeouts(1).request, timeouts(1).response, timeouts(1).idle), (secs(3), secs(1), secs(60)));

    let reads = rules("shop", "books-next");
    let retries = reads.iter().map(|r| r.does.retry.as_ref().map(|retry| retry.max_retries)).collect::<Vec<_>>();
    assert_eq!(retries, [Some(2), None], "writes are sent once");

    let ClientProtocol::Http2(prices) = outbound(&index, "shop", "prices-next.shop.svc.cluster.local:8080").protocol
    else {
        panic!()
    };
    assert!(prices.breaker.is_some());
    let ClientProtocol::Opaque(Some(db)) = outbound(&index, "shop", "db.shop.svc.cluster.local:5432").protocol else {
        panic!()
    };
    assert!(matches!(db.backends, Distribution::RandomAvailable(shares) if shares.len() == 2));

    let weather = http(outbound(&index, "shop", "198.51.100.1:80").protocol);
    assert_eq!(weather.routes.iter().map(|r| r.meta.name()).collect::<Vec<_>>(), ["weather", "http-egress-deny"]);
    for (from, to, name) in [
        ("shop", "203.0.113.1:443", "partner"),
        ("shop", "203.0.113.7:443", "internet"),
        ("shop", "198.51.100.1:443", "internet"),
        ("other", "198.51.100.1:443", "egress-fallback"),
    ] {
        assert_eq!(outbound(&index, from, to).meta.name(), name, "{from} {to}");
    }
}

#[test]
fn the_examples_of_profiles_are_carried_out() {
    let index = Page::read("reference/kinds/serviceprofile.md").index();
    let profile = |name: &str| -> Profile {
        let target = Target::Name(format!("{name}.shop.svc.cluster.local:80").parse().unwrap());
        match index.answer(&Question::Profile { from: "shop".to_owned(), target }).answer.unwrap() {
            Answer::Profile(profile) => profile,
            other => panic!("{other:?}"),
        }
    };
    let books = profile("books").routes;
    assert_eq!((books.len(), books[0].retryable, books[0].timeout), (2, true, Some(Duration::from_millis(250))));
    assert_eq!(profile("web").targets.iter().map(|t| t.weight).collect::<Vec<_>>(), [9000, 1000]);
}
