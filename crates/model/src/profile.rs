//! What a destination profile says of an address.

use crate::{
    DnsName, Endpoint, Meta, NameAddr,
    policy::{
        outbound::{Backend, BackendKind, Distribution, Load, Queue, RouteBackend},
        route::Pattern,
    },
};
use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

/// The answer to GetProfile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// The service's name, if the address is a service's.
    pub name: Option<DnsName>,
    /// The server speaks something else than HTTP, or speaks first: forward bytes.
    pub opaque: bool,
    /// The single endpoint behind the address, if it is a pod's.
    pub endpoint: Option<Endpoint>,
    /// The first that matches is followed, and what matches none asks for nothing. Routes and targets take precedence over
    /// policy routes.
    pub routes: Vec<ProfileRoute>,
    pub retry_budget: Option<RetryBudget>,
    /// Requests go to these by weight instead; empty is the target itself.
    pub targets: Vec<WeightedTarget>,
    /// The Service and its port, for people.
    pub parent: Option<Meta>,
    /// The ServiceProfile that routes and targets come from, for people.
    pub origin: Option<Meta>,
}

/// One route of a ServiceProfile.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileRoute {
    pub matches: RequestMatch,
    /// The first that matches says whether the response is a failure; a response that matches none is judged by its status.
    pub response_classes: Vec<ResponseClass>,
    /// Labels of its metrics, without the `rt_` prefix.
    pub labels: BTreeMap<String, String>,
    pub retryable: bool,
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RequestMatch {
    All(Vec<RequestMatch>),
    Any(Vec<RequestMatch>),
    Not(Box<RequestMatch>),
    Path(Pattern),
    Method(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ResponseClass {
    pub matches: ResponseMatch,
    pub failure: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ResponseMatch {
    All(Vec<ResponseMatch>),
    Any(Vec<ResponseMatch>),
    Not(Box<ResponseMatch>),
    Status(RangeInclusive<u16>),
}

/// How many retries there may be beside first attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Retries per first attempt, 0 to 1000.
    pub ratio: f32,
    pub min_retries_per_second: u32,
    /// How long an attempt counts: 1 to 60 s.
    pub ttl: Duration,
}

impl RetryBudget {
    /// Where nobody says otherwise.
    pub const LINKERD: Self = Self { ratio: 0.2, min_retries_per_second: 10, ttl: Duration::from_secs(10) };
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedTarget {
    /// The path to ask the Destination service for: `name:port`.
    pub target: NameAddr,
    /// Above 0.
    pub weight: u32,
}

/// The proxy's own settings win over it.
const QUEUE: Queue = Queue { capacity: 100, failfast: Duration::from_secs(3) };

impl Profile {
    /// The name by which requests to `port` follow this profile and not the policy: it has one, and routes or targets.
    pub fn followed(&self, port: u16) -> Option<NameAddr> {
        let name = self.name.clone().filter(|_| !self.routes.is_empty() || !self.targets.is_empty())?;
        Some(NameAddr { name, port })
    }

    /// How what follows this profile spreads: by weight over the targets, else over the endpoints of `name` itself.
    pub fn distribution(&self, name: &NameAddr) -> Distribution {
        let to = |target: &NameAddr| {
            let kind = BackendKind::Balance { target: target.clone(), load: Load::LINKERD };
            RouteBackend {
                backend: Backend { meta: Meta::default_named("profile"), kind, queue: QUEUE },
                filters: vec![],
            }
        };
        if self.targets.is_empty() {
            return Distribution::FirstAvailable(vec![to(name)]);
        }
        Distribution::RandomAvailable(
            self.targets.iter().map(|WeightedTarget { target, weight }| (to(target), *weight)).collect(),
        )
    }
}
