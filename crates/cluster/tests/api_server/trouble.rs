//! What goes wrong between the API server and a watch.

use super::{
    cases::{compare, web},
    lab::{Fed, Heard, LONG, Lab, pod, server, slice},
};
use serde_json::json;
use std::time::Duration;
use weft_cluster::Kind;
use weft_testkit::api_server::{Failure, FakeApi};

async fn fake() -> FakeApi {
    let api = FakeApi::start().await.unwrap();
    web(&api).await;
    api
}

#[tokio::test]
async fn a_watch_that_is_cut_goes_on_where_it_was() {
    let api = fake().await;
    let lab = Lab::synced(&api).await;
    lab.api.hold(true);
    lab.api.put(pod("b", "10.1.0.2"));
    lab.api.delete("Pod", "ns", "a");
    lab.api.cut();
    lab.api.hold(false);
    lab.until("both changes", |fed| fed.has(Kind::Pod, "b") && !fed.has(Kind::Pod, "a")).await;
    assert_eq!(lab.metric("weft_kubernetes_lists_total", "Pod"), 1);
}

#[tokio::test]
async fn after_a_gap_everything_is_listed_and_what_is_gone_is_gone() {
    let api = fake().await;
    let lab = Lab::synced(&api).await;
    lab.api.hold(true);
    lab.api.delete("Pod", "ns", "a");
    lab.api.put(pod("b", "10.1.0.2"));
    lab.api.compact();
    lab.api.hold(false);
    lab.until("both changes", |fed| fed.has(Kind::Pod, "b") && !fed.has(Kind::Pod, "a")).await;
    assert!(lab.metric("weft_kubernetes_lists_total", "Pod") >= 2);
    assert_eq!(lab.fed.lock().addresses(), Vec::<String>::new());
    assert_eq!(lab.fed.lock().synced, 1, "it is told once");
}

#[tokio::test]
async fn a_version_that_is_refused_is_given_up() {
    // With 410 at once, with anything else after some attempts.
    for code in [410, 504] {
        let api = fake().await;
        let lab = Lab::synced(&api).await;
        lab.api.hold(true);
        lab.api.put(pod("b", "10.1.0.2"));
        lab.api.fail(Some(Failure::Watches(code)));
        lab.api.cut();
        lab.until("found by a list", |fed| fed.has(Kind::Pod, "b")).await;
        assert!(lab.metric("weft_kubernetes_lists_total", "Pod") >= 2);
        lab.api.fail(None);
        lab.api.hold(false);
        lab.api.put(pod("c", "10.1.0.3"));
        lab.until("watched again", |fed| fed.has(Kind::Pod, "c")).await;
    }
}

#[tokio::test]
async fn a_watch_that_is_forbidden_is_tried_less_and_less_and_told_once() {
    let heard = Heard::default();
    // Where there is one alone, a thread that has none decides for all what is logged.
    let _other = tracing::Dispatch::new(Heard::default());
    let _heard = tracing::subscriber::set_default(heard.clone());
    let api = fake().await;
    let lab = Lab::synced(&api).await;
    lab.api.fail(Some(Failure::WatchesOf("pods", 403)));
    lab.api.cut();
    lab.until_metric("weft_kubernetes_lists_total", "Pod", |lists| lists >= 2).await;
    // The list is no reason to ask as often as at first.
    let before = lab.metric("weft_kubernetes_failures_total", "Pod");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let since = lab.metric("weft_kubernetes_failures_total", "Pod") - before;
    assert!(since <= 2, "{since} times");
    lab.api.put(pod("b", "10.1.0.2"));
    lab.until("it is listed all the same", |fed| fed.has(Kind::Pod, "b")).await;
    lab.api.fail(None);
    let again = "API server answers again";
    tokio::time::timeout(LONG, async {
        while heard.of("Pod").last().map(String::as_str) != Some(again) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(heard.of("Pod"), ["watch failed; what is known stays", "listing anew", again]);
}

#[tokio::test]
async fn a_list_is_handed_on_whole_or_not_at_all() {
    let api = fake().await;
    let lab = Lab::synced(&api).await;
    lab.api.hold(true);
    many(&api);
    lab.api.fail(Some(Failure::SecondPage));
    lab.api.compact();
    lab.api.hold(false);
    lab.api.asked(|r| r.path == "/api/v1/pods" && r.query.contains("continue=")).await.unwrap();
    lab.until_metric("weft_kubernetes_failures_total", "Pod", |n| n > 0).await;
    assert_eq!(lab.metric("weft_kubernetes_objects", "Pod"), 1);
    lab.api.fail(None);
    lab.until("listed", |fed| fed.has(Kind::Pod, "p599")).await;
    let fed = lab.end().await;
    assert!(fed.batches.iter().any(|objects| *objects > 600), "alone or with what belongs to it: {:?}", fed.batches);
}

#[tokio::test]
async fn the_first_list_is_held_by_nobody_and_tells_nobody_before_its_end() {
    let api = fake().await;
    many(&api);
    api.fail(Some(Failure::SecondPage));
    let lab = Lab::start(&api).await;
    lab.until_metric("weft_kubernetes_failures_total", "Pod", |n| n > 0).await;
    assert_eq!((lab.metric("weft_kubernetes_objects", "Pod"), lab.fed.lock().synced), (500, 0));
    api.delete("Pod", "ns", "p001");
    lab.api.fail(None);
    lab.until("synced", |fed| fed.synced == 1).await;
    let fed = lab.end().await;
    assert!(fed.has(Kind::Pod, "p599") && !fed.has(Kind::Pod, "p001"), "what is gone meanwhile is gone");
    assert!(fed.batches.iter().all(|objects| *objects <= 500), "{:?}", fed.batches);
}

/// More than a page of them.
fn many(api: &FakeApi) {
    for i in 0..600 {
        api.put(pod(&format!("p{i:03}"), "10.2.0.1"));
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_quarantined_alone() {
    let api = fake().await;
    let mut broken = pod("broken", "10.1.0.9");
    broken["spec"]["containers"] = json!("none");
    api.put(broken.clone());
    let lab = Lab::synced(&api).await;
    assert!(lab.has(Kind::Pod, "a") && !lab.has(Kind::Pod, "broken"));
    assert_eq!(lab.metric("weft_kubernetes_quarantined", "Pod"), 1);
    // An object that was right before has no effect any more, and the endpoint that is that pod goes.
    broken["metadata"]["name"] = "a".into();
    lab.api.put(broken.clone());
    lab.until("a is out", |fed| !fed.has(Kind::Pod, "a")).await;
    assert_eq!(lab.fed.lock().addresses(), Vec::<String>::new());
    lab.api.put(pod("a", "10.1.0.1"));
    lab.until("a is back", |fed| fed.addresses() == ["10.1.0.1:8080"]).await;
    lab.until_metric("weft_kubernetes_quarantined", "Pod", |n| n == 1).await;
    lab.api.delete("Pod", "ns", "broken");
    lab.until_metric("weft_kubernetes_quarantined", "Pod", |n| n == 0).await;
    assert_eq!(lab.metric("weft_kubernetes_lists_total", "Pod"), 1, "no list was needed");
}

#[tokio::test]
async fn what_is_known_stays_while_the_server_is_away() {
    let api = fake().await;
    let lab = Lab::synced(&api).await;
    for failure in [Failure::Close, Failure::Status(503), Failure::Status(403)] {
        let before = lab.metric("weft_kubernetes_failures_total", "Pod");
        lab.api.fail(Some(failure));
        lab.api.cut();
        lab.until_metric("weft_kubernetes_failures_total", "Pod", |n| n >= before + 2).await;
        assert_eq!(lab.fed.lock().addresses(), ["10.1.0.1:8080"]);
        lab.api.fail(None);
    }
    lab.api.delete("Pod", "ns", "a");
    lab.until("the change is seen", |fed| fed.addresses().is_empty()).await;
}

/// A rollout ends while the watch of one kind is away: what the other says of it alone would leave no endpoint.
#[tokio::test]
async fn pods_and_their_endpoints_come_back_together() {
    for (plural, away, other) in [("pods", "Pod", "EndpointSlice"), ("endpointslices", "EndpointSlice", "Pod")] {
        let api = fake().await;
        let lab = Lab::synced(&api).await;
        lab.until("the endpoint", |fed| fed.addresses() == ["10.1.0.1:8080"]).await;
        lab.fed.lock().answers.clear();
        lab.api.fail(Some(Failure::Of(plural, 503)));
        lab.api.cut();
        lab.until_metric("weft_kubernetes_failures_total", away, |n| n >= 2).await;
        let before = lab.metric("weft_kubernetes_events_total", other);
        lab.api.put(pod("b", "10.1.0.2"));
        lab.api.put(slice("web-1", &[("b", "10.1.0.2")]));
        lab.api.delete("Pod", "ns", "a");
        lab.until_metric("weft_kubernetes_events_total", other, |n| n > before).await;
        assert_eq!(lab.fed.lock().addresses(), ["10.1.0.1:8080"], "{plural}");
        lab.api.fail(None);
        lab.until("the new pod", |fed| fed.addresses() == ["10.1.0.2:8080"]).await;
        assert!(!lab.fed.lock().answers.contains(&vec![]), "{plural}: there was a moment without endpoints");
        // From then on each is told at once again.
        lab.api.put(slice("web-1", &[("b", "10.1.0.2"), ("c", "10.1.0.3")]));
        lab.api.put(pod("c", "10.1.0.3"));
        lab.until("another pod", |fed| fed.addresses().len() == 2).await;
    }
}

/// Whether a watch is still alive that has said nothing for as long as another was away nobody knows.
#[tokio::test]
async fn who_comes_back_has_the_others_begin_anew() {
    let api = fake().await;
    let lab = Lab::synced(&api).await;
    lab.api.fail(Some(Failure::Of("pods", 503)));
    lab.api.cut();
    lab.until_metric("weft_kubernetes_failures_total", "Pod", |n| n >= 8).await;
    let is_of_nodes =
        |r: &weft_testkit::api_server::Request| r.path == "/api/v1/nodes" && r.query.contains("watch=true");
    let watches = || lab.api.requests().iter().filter(|r| is_of_nodes(r)).count();
    let before = watches();
    lab.api.fail(None);
    // Of itself it would not end before its 50 s are over.
    let anew = lab.api.asked(|_| watches() > before);
    tokio::time::timeout(Duration::from_secs(30), anew).await.expect("the watch of nodes begins anew").unwrap();
}

/// Its list is allowed and its watch is not: that is no outage, from which anybody would come back.
#[tokio::test]
async fn a_kind_that_cannot_be_watched_disturbs_no_other() {
    let api = fake().await;
    api.fail(Some(Failure::WatchesOf("nodes", 403)));
    let lab = Lab::synced(&api).await;
    lab.until_metric("weft_kubernetes_failures_total", "Node", |n| n >= 7).await;
    assert!(lab.metric("weft_kubernetes_lists_total", "Node") >= 2, "it was listed in between");
    let is_of_pods = |r: &weft_testkit::api_server::Request| r.path == "/api/v1/pods" && r.query.contains("watch=true");
    assert_eq!(lab.api.requests().iter().filter(|r| is_of_pods(r)).count(), 1);
    api.fail(None);
    api.put(pod("b", "10.1.0.2"));
    lab.until("told at once", |fed| fed.has(Kind::Pod, "b")).await;
}

/// Its definition is there, and its objects may be: to say that there are none would open what they close.
#[tokio::test]
async fn a_kind_that_is_defined_and_not_served_yet_is_waited_for() {
    let api = fake().await;
    api.put(server("web", "deny"));
    api.fail(Some(Failure::Of("servers", 404)));
    let lab = Lab::start(&api).await;
    lab.until_metric("weft_kubernetes_failures_total", "Server", |n| n >= 2).await;
    assert_eq!(lab.fed.lock().synced, 0);
    lab.api.fail(None);
    lab.until("synced", |fed| fed.synced == 1).await;
    assert_eq!(lab.fed.lock().served().0, "web");
}

#[tokio::test]
async fn nothing_is_synced_before_every_kind_is_listed() {
    let api = fake().await;
    api.fail(Some(Failure::Status(403)));
    let lab = Lab::start(&api).await;
    lab.until_metric("weft_kubernetes_failures_total", "Node", |n| n >= 1).await;
    assert_eq!(lab.fed.lock().synced, 0);
    lab.api.fail(None);
    lab.until("synced", |fed| fed.synced == 1).await;
}

/// Random changes with every kind of trouble between: in the end only the objects count.
#[tokio::test]
async fn any_history_ends_at_the_objects() {
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    let api = fake().await;
    let lab = Lab::synced(&api).await;
    for step in 0..400 {
        let name = ["a", "b", "c"][usize::try_from(next(3)).unwrap()];
        let ip = format!("10.1.0.{}", 1 + next(3));
        match next(16) {
            0..5 => lab.api.put(pod(name, &ip)),
            5..8 => lab.api.delete("Pod", "ns", name),
            8..11 => lab.api.put(slice(&format!("web-{}", next(2)), &[(name, &ip)])),
            11 => lab.api.delete("EndpointSlice", "ns", "web-1"),
            12 => lab.api.compact(),
            13 => lab.api.cut(),
            14 => lab.api.hold(next(2) == 0),
            _ => tokio::time::sleep(Duration::from_millis(next(4))).await,
        }
        if step % 100 == 99 {
            lab.api.hold(false);
            let mark = format!("mark-{step}");
            for object in [pod(&mark, "10.9.0.9"), slice(&mark, &[])] {
                lab.api.put(object);
            }
            let seen = |fed: &Fed| fed.has(Kind::Pod, &mark) && fed.has(Kind::EndpointSlice, &mark);
            lab.until("all was seen", seen).await;
            compare(&lab).await;
        }
    }
}

#[tokio::test]
async fn the_newest_version_that_is_served_counts() {
    let api = fake().await;
    api.define("Server", &["v1beta1"]);
    api.put(server("web", "deny"));
    let lab = Lab::synced(&api).await;
    assert_eq!(lab.fed.lock().served().0, "web");
    let asked = |version: &'static str| {
        move |r: &weft_testkit::api_server::Request| {
            r.path == format!("/apis/policy.linkerd.io/{version}/servers") && r.query.contains("watch=true")
        }
    };
    api.asked(asked("v1beta1")).await.unwrap();
    api.define("Server", &["v1beta3", "v1beta1"]);
    api.asked(asked("v1beta3")).await.unwrap();
    api.put(server("web2", "deny"));
    api.delete("Server", "ns", "web");
    lab.until("the newer one", |fed| fed.served().0 == "web2").await;
}

#[tokio::test]
async fn a_definition_that_goes_takes_its_objects_and_a_slip_does_not() {
    let api = fake().await;
    api.put(server("web", "deny"));
    let lab = Lab::synced(&api).await;
    api.define("Server", &[]);
    lab.until_metric("weft_kubernetes_failures_total", "Server", |n| n > 0).await;
    assert_eq!(lab.fed.lock().served().0, "web", "what it closed stays closed");
    lab.until("no Server", |fed| fed.served().0 == "all-unauthenticated").await;
    api.define("Server", &["v1beta3"]);
    lab.until("again", |fed| fed.served().0 == "web").await;
}

#[tokio::test]
async fn a_kind_of_kubernetes_itself_does_not_go() {
    let api = fake().await;
    let lab = Lab::synced(&api).await;
    api.define("Pod", &[]);
    lab.until_metric("weft_kubernetes_failures_total", "Pod", |n| n > 6).await;
    assert!(lab.has(Kind::Pod, "a"));
}

#[tokio::test]
async fn a_policy_that_cannot_be_carried_out_is_quarantined_alone() {
    let api = fake().await;
    for (name, access) in [("good", "deny"), ("bad", "everybody")] {
        api.put(server(name, access));
    }
    let lab = Lab::synced(&api).await;
    assert!(lab.has(Kind::Server, "good") && !lab.has(Kind::Server, "bad"));
    assert_eq!(lab.metric("weft_kubernetes_quarantined", "Server"), 1);
    api.put(server("good", "everybody"));
    lab.until("it is out", |fed| fed.served().0 == "all-unauthenticated").await;
    lab.until_metric("weft_kubernetes_quarantined", "Server", |n| n == 2).await;
    api.put(server("bad", "deny"));
    lab.until("it is in order now", |fed| fed.served().0 == "bad").await;
    lab.until_metric("weft_kubernetes_quarantined", "Server", |n| n == 1).await;
}
