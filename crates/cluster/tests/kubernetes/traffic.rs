//! The examples of `docs/traffic.md`: each is taken, and all of them together do what the page says.

use super::policies::examples;
use weft_cluster::index::{Answer, Index, Question, Settings, Target};
use weft_model::{ClientPolicy, Profile, policy::outbound::ClientProtocol};

fn outbound(index: &Index, from: &str, target: &str) -> ClientPolicy {
    let target = target.parse().map_or_else(|_| Target::Name(target.parse().unwrap()), Target::Addr);
    match index.answer(&Question::Outbound { from: from.to_owned(), target }).answer.unwrap() {
        Answer::Outbound(policy) => policy,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_examples_of_traffic_are_carried_out() {
    let mut index = Index::new(Settings::default());
    assert!(examples("traffic.md", include_str!("../../../../docs/traffic.md"), &mut index) > 3);
    let ClientProtocol::Detect { http1, .. } = outbound(&index, "emojivoto", "web.emojivoto.svc:80").protocol else {
        panic!()
    };
    let does = &http1.routes[0].rules[0].does;
    assert_eq!(does.retry.as_ref().map(|retry| retry.max_retries), Some(2));
    assert_eq!(does.timeouts.request, Some(std::time::Duration::from_secs(2)), "the route's");
    let ClientProtocol::Grpc { routes, breaker } = outbound(&index, "emojivoto", "voting.emojivoto.svc:8080").protocol
    else {
        panic!()
    };
    assert!(breaker.is_some());
    assert_eq!(routes[0].meta.name(), "voting");
    let ClientProtocol::Detect { http1: weather, .. } = outbound(&index, "emojivoto", "198.51.100.1:80").protocol
    else {
        panic!()
    };
    assert_eq!(weather.routes.iter().map(|r| r.meta.name()).collect::<Vec<_>>(), ["weather", "http-egress-deny"]);
    assert!(http1.routes.iter().map(|route| route.rules.len()).eq([3]));
    let shares = http1.routes[0].rules[2].does.backends.iter().map(|b| b.backend.meta.name()).collect::<Vec<_>>();
    assert_eq!(shares, ["web", "web-next"]);
    for (from, to, name) in [
        ("emojivoto", "203.0.113.1:443", "partner"),
        ("emojivoto", "203.0.113.7:443", "internet"),
        ("emojivoto", "198.51.100.1:443", "internet"),
        ("other", "198.51.100.1:443", "egress-fallback"),
    ] {
        assert_eq!(outbound(&index, from, to).meta.name(), name, "{from} {to}");
    }
    let emoji = "kind: Service\napiVersion: v1\nmetadata: { name: emoji, namespace: emojivoto }\nspec: { selector: { app: emoji }, ports: [{ port: 80 }] }\n";
    examples("emoji", &format!("```yaml\n{emoji}```"), &mut index);
    let target = Target::Name("emoji.emojivoto.svc.cluster.local:80".parse().unwrap());
    let answer = index.answer(&Question::Profile { from: "web".to_owned(), target }).answer.unwrap();
    let Answer::Profile(Profile { routes, .. }) = answer else { panic!() };
    assert!(routes[0].retryable);
}
