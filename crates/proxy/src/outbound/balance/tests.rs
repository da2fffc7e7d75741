//! Balancers on a clock that the test moves.

use super::*;
use crate::{
    error::Code,
    metrics::balancer::{Families, Kind},
    process::discovery::{EndpointSet, Watched},
};
use std::{cell::Cell, net::SocketAddr, time::Duration};
use tokio::task::LocalSet;
use weft_model::{decide::breaker::Outcome, policy::outbound::Breaker};
use weft_telemetry::{Registry, Shard};

/// Revives when told to, and counts how often it was asked.
#[derive(Clone, Default)]
struct Wire {
    up: Rc<Cell<bool>>,
    asked: Rc<Cell<u32>>,
    /// Nothing can be connected to anybody.
    stuck: Rc<Cell<bool>>,
    retired: Rc<Cell<bool>>,
}

impl Connections for Wire {
    async fn revive(&self) -> Result<bool, ProxyError> {
        self.asked.set(self.asked.get() + 1);
        if self.stuck.get() {
            return Err(ProxyError::new(Code::DescriptorLimit, "too many open files"));
        }
        if self.up.get() { Ok(true) } else { Err(refused()) }
    }
    fn retire(&self) {
        self.retired.set(true);
    }
}

fn refused() -> ProxyError {
    ProxyError::new(Code::ConnectFailed, "connection refused")
}

fn set(hosts: &[u8]) -> EndpointSet {
    let addrs = hosts.iter().map(|h| SocketAddr::from(([10, 0, 0, *h], 80)));
    EndpointSet { state: EndpointState::Known, map: addrs.map(|a| (a, Endpoint::plain(a))).collect() }
}

struct Test {
    balancer: Rc<Balancer<Wire>>,
    series: Rc<Series>,
    watch: Arc<EndpointsWatch>,
    wire: Wire,
    registry: Registry,
}

impl Test {
    fn new(hosts: &[u8]) -> Self {
        Self::of(hosts, None, &Arc::default())
    }

    fn of(hosts: &[u8], breaker: Option<Breaker>, shared: &Arc<Shared>) -> Self {
        let watch = Arc::new(EndpointsWatch {
            target: "web.emojivoto.svc.cluster.local:80".parse().unwrap(),
            endpoints: Arc::new(Watched::new(set(hosts))),
        });
        let settings = Settings {
            load: Load { default_rtt: Duration::from_millis(30), decay: Duration::from_secs(10), penalty: None },
            queue: QueueLimits { waiting: if breaker.is_some() { 2 } else { 1 }, failfast: Duration::from_secs(3) },
            backoff: Backoff { min: Duration::from_millis(100), max: Duration::from_secs(60), jitter: 0.0 },
            rules: breaker.as_ref().and_then(Rules::new),
            shared: Arc::clone(shared),
        };
        let wire = Wire::default();
        let made = wire.clone();
        let balancer = Balancer::new(settings, Arc::clone(&watch), Box::new(move |_| made.clone()));
        let registry = Registry::new(1, 100);
        let families = Families::new(&registry, Kind::Http);
        let labels = Labels::new().with("parent", "p");
        let failfast = Duration::from_secs(3);
        let series = balancer.series(&labels, || families.series(Shard::worker(0), labels.clone(), failfast));
        Self { balancer, series, watch, wire, registry }
    }

    async fn next(&self) -> Result<Picked<Wire>, ProxyError> {
        self.balancer.next(&self.series).await
    }

    /// The code that refuses the next request, or the last byte of the address that it goes to.
    async fn asks(&self) -> Result<String, Code> {
        self.next().await.map(|picked| picked.member.endpoint.addr.to_string()).map_err(|error| error.code)
    }

    /// A number of the family, with `labels` besides those of parent and backend.
    fn metric(&self, family: &str, labels: &str) -> f64 {
        let text = self.registry.encode();
        let series = format!("outbound_http_balancer_{family}{{{labels}parent=\"p\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)).expect(&series).parse().unwrap()
    }

    fn endpoints(&self) -> (f64, f64) {
        let state = |state: &str| self.metric("endpoints", &format!("endpoint_state=\"{state}\","));
        (state("ready"), state("pending"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_the_first_endpoint() {
    let test = Test::new(&[]);
    let (picked, ()) = tokio::join!(test.asks(), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(test.metric("queue_length", ""), 1.0);
        test.watch.endpoints.set(set(&[1]));
    });
    assert_eq!(picked, Ok("10.0.0.1:80".into()));
    assert_eq!((test.metric("queue_length", ""), test.metric("queue_requests_total", "")), (0.0, 1.0));
    assert_eq!(test.metric("queue_latency_seconds_sum", ""), 2.0);
    assert_eq!((test.endpoints(), test.metric("p2c_endpoints", "")), ((1.0, 0.0), 1.0));
}

#[tokio::test(start_paused = true)]
async fn requests_fail_at_once_after_the_timeout_until_an_endpoint_is_ready() {
    let test = Test::new(&[]);
    let start = Instant::now();
    let (first, second) = tokio::join!(test.asks(), test.asks());
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    assert_eq!(first, Err(Code::Failfast));
    assert_eq!(second, Err(Code::LoadShed), "one may wait");
    assert_eq!(test.asks().await, Err(Code::Failfast));
    assert_eq!(start.elapsed(), Duration::from_secs(3), "at once");
    let gate = || (test.metric("queue_gate_open_total", ""), test.metric("queue_gate_shut_total", ""));
    assert_eq!(gate(), (1.0, 1.0));
    assert_eq!(test.metric("queue_gate_open_time_seconds", ""), 0.0);
    assert!(test.metric("queue_gate_shut_time_seconds", "") > 1.7e9);
    assert_eq!(test.metric("queue_gate_timeout_seconds", ""), 3.0);
    test.watch.endpoints.set(set(&[1]));
    assert!(test.asks().await.is_ok());
    assert_eq!(gate(), (2.0, 1.0));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_for_all_workers_together() {
    let shared = Arc::default();
    let (one, two) = (Test::of(&[], None, &shared), Test::of(&[], None, &shared));
    let (first, second) = tokio::join!(one.asks(), two.asks());
    assert_eq!((first, second), (Err(Code::Failfast), Err(Code::LoadShed)));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_not_sent_elsewhere_before_the_endpoints_are_known() {
    let test = Test::new(&[]);
    test.watch.endpoints.set(EndpointSet::default());
    assert!(test.balancer.is_available(), "they may come");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!test.balancer.is_available());
    test.watch.endpoints.set(set(&[1]));
    assert!(test.balancer.is_available());
    test.watch.endpoints.set(set(&[]));
    assert!(!test.balancer.is_available(), "there are none");
}

#[tokio::test(start_paused = true)]
async fn what_failed_comes_back_by_itself() {
    LocalSet::new()
        .run_until(async {
            let test = Test::new(&[1]);
            let member = test.next().await.ok().unwrap().member;
            test.balancer.failed(&member, &refused());
            test.balancer.failed(&member, &refused());
            assert_eq!(test.endpoints(), (0.0, 1.0));
            let error = test.next().await.err().unwrap();
            assert_eq!(
                error.to_string(),
                "no endpoint of web.emojivoto.svc.cluster.local:80 is ready: connection refused [FAILFAST]"
            );
            assert_eq!(test.wire.asked.get(), 4, "after 100, 300, 700 and 1500 ms; one task, however many noticed");
            test.wire.up.set(true);
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(test.asks().await.is_ok());
            test.watch.endpoints.set(set(&[2]));
            assert_eq!(test.asks().await, Ok("10.0.0.2:80".into()));
            assert!(test.wire.retired.get());
            for (op, n) in [("Reset", 1.0), ("Add", 1.0), ("Remove", 1.0)] {
                assert_eq!(test.metric("p2c_updates_total", &format!("op=\"{op}\",")), n, "{op}");
            }
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_by_a_request_where_nothing_can_be_found_out() {
    LocalSet::new()
        .run_until(async {
            let test = Test::new(&[1]);
            let member = test.next().await.ok().unwrap().member;
            test.wire.stuck.set(true);
            test.balancer.failed(&member, &refused());
            let start = Instant::now();
            assert!(test.asks().await.is_ok());
            assert_eq!((start.elapsed(), test.wire.asked.get()), (Duration::from_millis(100), 1));
        })
        .await;
}

/// Of an endpoint that has left nothing is told any more.
#[tokio::test(start_paused = true)]
async fn where_all_have_left_there_are_no_endpoints() {
    LocalSet::new()
        .run_until(async {
            for breaker in [None, breaker()] {
                let shuts = breaker.is_some();
                let test = Test::of(&[1], breaker, &Arc::default());
                if shuts {
                    for _ in 0..3 {
                        fail(&test).await;
                    }
                    test.balancer.for_each(|_| ());
                } else {
                    let member = test.next().await.ok().unwrap().member;
                    test.balancer.failed(&member, &refused());
                }
                assert_eq!(test.endpoints(), (0.0, 1.0));
                test.watch.endpoints.set(set(&[]));
                // At first after a wait.
                for _ in 0..2 {
                    let error = test.next().await.err().unwrap();
                    assert_eq!(
                        error.to_string(),
                        "web.emojivoto.svc.cluster.local:80 has no endpoints [FAILFAST]",
                        "{shuts}"
                    );
                }
            }
        })
        .await;
}

fn breaker() -> Option<Breaker> {
    let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(60), jitter: 0.0 };
    Some(Breaker::Consecutive { max_failures: 3, backoff })
}

async fn fail(test: &Test) {
    test.next().await.ok().unwrap().ticket.unwrap().finish(Outcome::Failure);
}

#[tokio::test(start_paused = true)]
async fn who_fails_is_left_out_by_all_workers_and_one_request_tries_it_again() {
    LocalSet::new()
        .run_until(async {
            let shared = Arc::default();
            let (one, two) = (Test::of(&[1], breaker(), &shared), Test::of(&[1], breaker(), &shared));
            fail(&one).await;
            fail(&two).await;
            fail(&one).await;
            let start = Instant::now();
            // Both wait; one of them is the probe, and the other waits on until it has succeeded.
            let (picked, refused, other) = match tokio::join!(one.next(), two.next()) {
                (Ok(picked), Err(refused)) => (picked, refused, &two),
                (Err(refused), Ok(picked)) => (picked, refused, &one),
                (one, two) => panic!("{} {}", one.is_ok(), two.is_ok()),
            };
            assert_eq!((refused.code, start.elapsed().as_secs()), (Code::BreakerShut, 3));
            assert_eq!(other.endpoints(), (0.0, 1.0));
            picked.ticket.unwrap().finish(Outcome::Success);
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(other.next().await.is_ok());
            assert_eq!((one.endpoints(), two.endpoints()), ((1.0, 0.0), (1.0, 0.0)));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn others_are_used_while_one_is_left_out() {
    LocalSet::new()
        .run_until(async {
            let test = Test::of(&[1, 2], breaker(), &Arc::default());
            let mut failures = 0;
            while failures < 3 {
                let mut picked = test.next().await.ok().unwrap();
                let fails = picked.member.endpoint.addr.to_string() == "10.0.0.1:80";
                failures += u32::from(fails);
                picked.ticket.as_mut().unwrap().finish(if fails { Outcome::Failure } else { Outcome::Success });
            }
            for _ in 0..20 {
                assert_eq!(test.asks().await, Ok("10.0.0.2:80".into()));
            }
            assert_eq!(test.endpoints(), (1.0, 1.0));
        })
        .await;
}
