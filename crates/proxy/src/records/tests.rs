//! What is kept, in which order, and what it costs.

use super::{
    record::{Record, What},
    *,
};
use crate::{
    direction::Direction,
    error::{Code, ProxyError},
    exchange::Observe,
};
use weft_model::Meta;

struct Get(&'static str);

impl RequestView for Get {
    fn method(&self) -> &str {
        "GET"
    }
    fn authority(&self) -> Option<&str> {
        Some("web.ns")
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
    fn fields(&self, _: &mut dyn FnMut(&[u8], &[u8])) {}
}

/// Of a worker whom nobody asks for more.
fn kept(capacity: usize) -> Rc<Records> {
    let taps = Taps::new(&weft_telemetry::Registry::new(1, 10));
    Records::new(capacity, Sinks { taps, access_log: None, traces: None })
}

fn scene(direction: Direction) -> Rc<Scene> {
    let addr = |text: &str| text.parse().unwrap();
    let (client, target) = (addr("10.0.0.1:4000"), Some(addr("10.0.0.2:80")));
    Rc::new(Scene { direction, client, target, client_id: None, tls: "true" })
}

fn serve(records: &Rc<Records>, path: &'static str, ended: Result<u16, Code>) {
    let mut follower = records.follow(&scene(Direction::Inbound), &Get(path), Version::Http2);
    match ended {
        Ok(status) => {
            follower.request_body(3);
            follower.response_head(status);
            follower.first_byte();
            follower.response_body(5);
            follower.end(None, None);
        }
        Err(code) => {
            let refused: Result<crate::exchange::Directed<(), ((), Follower)>, _> =
                follower.decided(&Get(path), Err(ProxyError::new(code, "no")));
            assert!(refused.is_err());
        }
    }
}

fn paths(records: &Records, query: &str) -> Vec<String> {
    let found = records.find(&Query::parse(query).unwrap(), 0);
    found.iter().map(|told| serde_json::to_value(told).unwrap()["path"].as_str().unwrap_or("-").to_owned()).collect()
}

#[test]
fn the_newest_come_first_and_the_oldest_go() {
    let records = kept(3);
    for path in ["/1", "/2", "/3", "/4", "/5"] {
        serve(&records, path, Ok(200));
    }
    assert_eq!(paths(&records, ""), ["/5", "/4", "/3"]);
    assert_eq!(paths(&records, "limit=2"), ["/5", "/4"]);
    let none = kept(0);
    serve(&none, "/1", Ok(200));
    assert_eq!(paths(&none, ""), Vec::<String>::new());
}

#[test]
fn every_condition_selects() {
    let records = kept(10);
    serve(&records, "/a", Ok(200));
    serve(&records, "/ab", Err(Code::Unauthorized));
    let mut passage = Passage::new(&records, Direction::Outbound, "[::ffff:10.0.0.7]:9".parse().unwrap());
    passage.protocol("opaque");
    passage.end(Some(ProxyError::new(Code::Failfast, "none")));
    for (query, expected) in [
        ("direction=inbound", &["/ab", "/a"][..]),
        ("direction=outbound", &["-"]),
        ("kind=connection", &["-"]),
        ("kind=request&status=200", &["/a"]),
        ("code=UNAUTHORIZED", &["/ab"]),
        ("status=403&path=/a", &["/ab"]),
        ("path=/ab", &["/ab"]),
        ("client=10.0.0.7", &["-"]),
        ("client=10.0.0.7:8", &[]),
        ("client=10.0.0.1:4000", &["/ab", "/a"]),
        ("target=10.0.0.2", &["/ab", "/a"]),
        ("target=10.0.0.2:81", &[]),
    ] {
        assert_eq!(paths(&records, query), expected, "{query}");
    }
}

#[test]
fn a_record_says_by_whom_it_was_decided_and_how_it_went() {
    let records = kept(10);
    let named = |name: &str| Meta::default_named(name);
    let why =
        Why { parent: named("port"), route: Some(named("all")), rule: Some(1), authorization: Some(named("any")) };
    let mut follower = records.follow(&scene(Direction::Inbound), &Get("/a"), Version::Http11);
    follower.why(&Rc::new(why));
    follower.request_body(3);
    follower.response_head(200);
    follower.response_body(5);
    follower.response_body(6);
    // The client leaves.
    drop(follower);
    let told = records.find(&Query::default(), 7);
    let mut told = serde_json::to_value(&told[0]).unwrap();
    let timings = told.as_object_mut().unwrap().remove("microseconds").unwrap();
    assert!(timings["response_head"].as_u64() <= timings["total"].as_u64(), "{timings}");
    let expected = serde_json::json!({
        "time": "", "worker": 7, "kind": "request", "direction": "inbound", "protocol": "HTTP/1.1",
        "client": "10.0.0.1:4000", "tls": "true", "target": "10.0.0.2:80",
        "method": "GET", "authority": "web.ns", "path": "/a",
        "decided_by": { "parent": "default/port", "route": "default/all", "rule": 1, "authorization": "default/any" },
        "outcome": "unfinished", "status": 200, "request_bytes": 3, "response_bytes": 11,
    });
    assert_eq!(told, expected);
}

#[test]
fn a_full_ring_allocates_nothing_and_a_record_is_small() {
    let records = kept(2);
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..102 {
        if n == 2 {
            seen.clear();
        }
        let scene = scene(Direction::Inbound);
        let record = records.ring.borrow_mut().blank(&scene, What::Connection(""), turn::now());
        seen.insert(std::ptr::from_ref(&*record).addr());
        records.keep(record);
    }
    assert_eq!(seen.len(), 1, "once two are kept, requests work on the same memory");
    assert!(size_of::<Record>() <= 480, "{}", size_of::<Record>());
    assert!(size_of::<Follower>() <= 24 && size_of::<Passage>() <= 80, "{}", size_of::<Passage>());
}

#[test]
fn what_a_burst_left_over_is_freed() {
    let records = kept(0);
    let scene = scene(Direction::Inbound);
    let burst: Vec<_> = (0..1000).map(|_| records.follow(&scene, &Get("/"), Version::Http2)).collect();
    drop(burst);
    assert_eq!(Rc::strong_count(&scene), 1 + ring::MAX_SPARE);
}
