//! Retries of a route.

use super::counter;
use crate::exchange::Retried;
use std::cell::OnceCell;
use weft_telemetry::{Counter, CounterFamily, Labels, Registry, Shard};

/// The families of HTTP routes, or of gRPC routes.
#[derive(Clone)]
pub(super) struct Families {
    requests: CounterFamily,
    successes: CounterFamily,
    limit_exceeded: CounterFamily,
    overflow: CounterFamily,
}

/// The counters of one route, made by its first retry.
pub(crate) struct Counters {
    families: Families,
    shard: Shard,
    labels: Labels,
    made: OnceCell<[Counter; 4]>,
}

impl Families {
    pub(super) fn http(registry: &Registry) -> Self {
        Self {
            requests: counter(registry, "outbound_http_route_retry_requests_total", REQUESTS),
            successes: counter(registry, "outbound_http_route_retry_successes_total", SUCCESSES),
            limit_exceeded: counter(registry, "outbound_http_route_retry_limit_exceeded_total", LIMIT_EXCEEDED),
            overflow: counter(registry, "outbound_http_route_retry_overflow_total", OVERFLOW),
        }
    }

    pub(super) fn grpc(registry: &Registry) -> Self {
        Self {
            requests: counter(registry, "outbound_grpc_route_retry_requests_total", REQUESTS),
            successes: counter(registry, "outbound_grpc_route_retry_successes_total", SUCCESSES),
            limit_exceeded: counter(registry, "outbound_grpc_route_retry_limit_exceeded_total", LIMIT_EXCEEDED),
            overflow: counter(registry, "outbound_grpc_route_retry_overflow_total", OVERFLOW),
        }
    }

    pub(super) fn counters(&self, shard: Shard, labels: Labels) -> Counters {
        Counters { families: self.clone(), shard, labels, made: OnceCell::new() }
    }
}

const REQUESTS: &str = "Requests that were sent once more";
const SUCCESSES: &str = "Retries that brought an answer that needs no other";
const LIMIT_EXCEEDED: &str = "Requests that were not sent once more because all retries had been made";
const OVERFLOW: &str = "Requests that were not sent once more because no backend was ready";

impl Counters {
    pub(crate) fn count(&self, event: Retried) {
        let [requests, successes, limit_exceeded, overflow] = self.made.get_or_init(|| {
            let Families { requests, successes, limit_exceeded, overflow } = &self.families;
            [requests, successes, limit_exceeded, overflow].map(|family| family.with(self.shard, &self.labels))
        });
        let counter = match event {
            Retried::Requested => requests,
            Retried::Succeeded => successes,
            Retried::LimitExceeded => limit_exceeded,
            Retried::Overflow => overflow,
        };
        counter.inc();
    }
}
