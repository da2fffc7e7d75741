//! What a destination profile says of an address.

use crate::{DnsName, Endpoint, policy::route::Pattern};
use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

/// The answer to GetProfile, as far as a proxy acts on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// The service's name, if the address is a service's.
    pub name: Option<DnsName>,
    /// The server speaks something else than HTTP, or speaks first: forward bytes.
    pub opaque: bool,
    /// The single endpoint behind the address, if it is a pod's.
    pub endpoint: Option<Endpoint>,
    /// The first that matches is followed. Routes and targets take precedence over policy routes.
    pub routes: Vec<ProfileRoute>,
    pub retry_budget: Option<RetryBudget>,
    /// Requests go to these by weight instead; empty is the target itself.
    pub targets: Vec<WeightedTarget>,
}

/// One route of a ServiceProfile.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileRoute {
    pub matches: RequestMatch,
    /// The first that matches says whether the response is a failure; a response that matches none is none.
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedTarget {
    /// The path to ask the Destination service for: `name:port`.
    pub target: crate::NameAddr,
    /// Above 0.
    pub weight: u32,
}

impl Profile {
    /// Whether it has routes or targets, which take precedence over policy routes.
    pub fn has_routes(&self) -> bool {
        !self.routes.is_empty() || !self.targets.is_empty()
    }
}
