//! The routes of one version of a ServiceProfile as both directions count them, and what they ask for (data plane 4.10, 6.1).
//!
//! Which route a request follows and what is a failure is [`weft_model::decide::profile`]'s; series are made when the first
//! request follows a route.

use crate::{
    direction::Direction,
    error::ProxyError,
    exchange::{Course, Followed, Observe, Retries, Retrying},
    metrics::{
        Metrics,
        http::{Outcome, Recorder, Series},
        labels,
    },
    process::{discovery::Versioned, retry_budget::Budget},
    turn,
};
use std::{
    cell::{Cell, OnceCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use weft_model::{
    NameAddr, Profile,
    decide::{profile, retry::RetryTerms, route::RequestView},
    policy::outbound::Timeouts,
    profile::{ProfileRoute, ResponseClass},
};
use weft_telemetry::{Counter, Labels};

/// The routes of a profile and what was counted of them.
pub(crate) struct Routes {
    profile: Arc<Versioned<Option<Profile>>>,
    name: NameAddr,
    direction: Direction,
    budget: Option<Arc<Budget>>,
    /// In the profile's order; outbound the default route is behind them.
    made: Box<[OnceCell<Route>]>,
}

/// One route.
pub(crate) struct Route {
    classes: Option<Rc<[ResponseClass]>>,
    /// As the client sees requests.
    seen: Rc<Series>,
    /// Each try; on the server's side there is only one.
    actual: Option<Rc<Series>>,
    /// How long the client waits for the head of a response. Only the client's side cares, as for what follows.
    timeout: Option<Duration>,
    retries: Option<RouteRetries>,
    /// What was made of `retries` for the exchanges.
    made: OnceCell<Rc<dyn Retrying>>,
}

/// What a route knows of sending its requests again.
#[derive(Clone)]
pub(crate) struct RouteRetries {
    terms: Rc<RetryTerms>,
    budget: Arc<Budget>,
    retryable: Counter,
    skipped: Counter,
}

/// A request on its route over all its attempts, of which the last one is what the client sees.
pub(crate) struct Seen {
    series: Rc<Series>,
    classes: Option<Rc<[ResponseClass]>>,
    budget: Option<Arc<Budget>>,
    start: Instant,
    last: Cell<Option<Last>>,
}

#[derive(Clone, Copy, Default)]
struct Last {
    status: u16,
    /// Until the first byte.
    millis: Option<f64>,
    grpc: Option<u16>,
    error: Option<&'static str>,
}

/// An attempt of a request on its route, until something carries it.
pub(crate) struct Following {
    classes: Option<Rc<[ResponseClass]>>,
    seen: Option<Rc<Seen>>,
    actual: Option<Recorder>,
}

/// The metrics of an attempt: of what it is sent to and, if it follows one, of its profile's route.
pub(crate) struct Record {
    endpoint: Recorder,
    actual: Option<Box<Recorder>>,
    seen: Option<Rc<Seen>>,
}

impl Routes {
    /// `budget` is what requests may be sent again by.
    pub(crate) fn new(
        profile: &Arc<Versioned<Option<Profile>>>,
        name: NameAddr,
        direction: Direction,
        budget: Option<Arc<Budget>>,
    ) -> Self {
        let routes = profile.value.as_ref().map_or(0, |profile| profile.routes.len());
        let made = routes + usize::from(direction == Direction::Outbound);
        let made = (0..made).map(|_| OnceCell::new()).collect();
        Self { profile: Arc::clone(profile), name, direction, budget, made }
    }

    /// The route that `request` follows, if it is counted.
    pub(crate) fn find(&self, request: &dyn RequestView, metrics: &Metrics) -> Option<&Route> {
        let routes = self.profile.value.as_ref().map(|profile| profile.routes.as_slice()).unwrap_or_default();
        let place = profile::find(routes, request).unwrap_or(routes.len());
        Some(self.made.get(place)?.get_or_init(|| self.make(routes.get(place), metrics)))
    }

    fn make(&self, route: Option<&ProfileRoute>, metrics: &Metrics) -> Route {
        let none = BTreeMap::new();
        let labels = Labels::new()
            .with("direction", self.direction.as_str())
            .join(&labels::profile_route(&self.name, route.map_or(&none, |route| &route.labels)));
        let tries = self.direction == Direction::Outbound;
        let asked = route.filter(|_| tries);
        let counter = |labels: &Labels| metrics.counter(&metrics.routes_retryable, labels);
        let budget = self.budget.clone().filter(|_| asked.is_some_and(|route| route.retryable));
        let terms = asked.map(|route| Rc::new(profile::retry_terms(route)));
        Route {
            classes: route.filter(|r| !r.response_classes.is_empty()).map(|r| r.response_classes.as_slice().into()),
            timeout: asked.and_then(|route| route.timeout),
            retries: budget.zip(terms).map(|(budget, terms)| RouteRetries {
                terms,
                budget,
                retryable: counter(&labels),
                skipped: counter(&labels.clone().with("skipped", "no_budget")),
            }),
            made: OnceCell::new(),
            actual: tries.then(|| metrics.routes_actual.series(metrics.shard, labels.clone())),
            seen: metrics.routes.series(metrics.shard, labels),
        }
    }
}

impl Route {
    /// Tells `course` what the route asks of a request whose head came at `began`. `retrying` makes what answers for its
    /// retries, once.
    pub(crate) fn agree(
        &self,
        began: Instant,
        course: &Course,
        retrying: impl FnOnce(RouteRetries) -> Rc<dyn Retrying>,
    ) {
        let retries = self.retries.as_ref().map(|retries| {
            let route = Rc::clone(self.made.get_or_init(|| retrying(retries.clone())));
            Retries { terms: Rc::clone(&retries.terms), route }
        });
        if retries.is_some() || self.timeout.is_some() {
            course.agree_all(began, Timeouts::default(), self.timeout, retries);
        }
    }

    /// An attempt of a request, whose head came at `began`, follows it.
    pub(crate) fn follow(&self, began: Instant, course: &Course) -> Following {
        let seen = course.follow(|| {
            self.seen.count();
            let budget = self.retries.as_ref().map(|retries| Arc::clone(&retries.budget));
            let (series, classes) = (Rc::clone(&self.seen), self.classes.clone());
            Seen { series, classes, budget, start: began, last: Cell::default() }
        });
        let counted = course.is_counted();
        let actual = self.actual.as_ref().map(|series| series.follow(began, self.classes.clone(), counted));
        Following { classes: self.classes.clone(), seen, actual }
    }
}

impl RouteRetries {
    /// Takes one retry out of the budget; false if that is spent.
    pub(crate) fn afford(&self) -> bool {
        self.retryable.inc();
        let affords = self.budget.withdraw();
        if !affords {
            self.skipped.inc();
        }
        affords
    }
}

impl Following {
    /// The attempt is not sent.
    pub(crate) fn failed(mut self, error: &ProxyError) {
        if let Some(actual) = &mut self.actual {
            actual.response_head(error.status());
            actual.end(None, Some(error));
        }
    }
}

impl Seen {
    fn tell(&self, change: impl FnOnce(&mut Last)) {
        let mut last = self.last.get().unwrap_or_default();
        change(&mut last);
        self.last.set(Some(last));
    }

    fn outcome(&self, Last { status, millis: _, grpc, error }: Last) -> Outcome {
        Outcome::new(status, grpc, error, self.classes.as_deref().unwrap_or_default())
    }

    fn ended(&self, grpc: Option<u16>, error: Option<&ProxyError>) {
        self.tell(|last| (last.grpc, last.error) = (grpc, error.map(|error| error.code.as_str())));
        if let (Some(budget), Some(last)) = (&self.budget, self.last.get())
            && !self.outcome(last).failure
        {
            budget.deposit();
        }
    }

    fn millis(&self) -> f64 {
        turn::since(self.start).as_secs_f64() * 1e3
    }
}

impl Followed for Seen {
    fn given_up(&self, error: &ProxyError) {
        self.last.set(Some(Last { status: error.status(), millis: Some(self.millis()), ..Last::default() }));
        self.ended(None, Some(error));
    }
}

impl Drop for Seen {
    /// The request is over; a client that left before its end saw what had been answered until then.
    fn drop(&mut self) {
        let Some(last) = self.last.get() else { return };
        self.series.latency(last.status, last.millis.unwrap_or_else(|| self.millis()));
        self.series.response(self.outcome(last));
    }
}

impl Record {
    pub(crate) fn new(endpoint: Recorder, following: Option<Following>) -> Self {
        match following {
            None => Self { endpoint, actual: None, seen: None },
            Some(Following { classes, seen, actual }) => {
                Self { endpoint: endpoint.classed(classes), actual: actual.map(Box::new), seen }
            }
        }
    }

    fn all(&mut self, mut tell: impl FnMut(&mut Recorder)) {
        tell(&mut self.endpoint);
        self.actual.as_deref_mut().into_iter().for_each(tell);
    }
}

impl Observe for Record {
    fn response_head(&mut self, status: u16) {
        self.all(|recorder| recorder.response_head(status));
        if let Some(seen) = &self.seen {
            // Another attempt begins anew.
            seen.last.set(Some(Last { status, ..Last::default() }));
        }
    }

    fn first_byte(&mut self) {
        self.all(Recorder::first_byte);
        if let Some(seen) = &self.seen {
            let millis = seen.millis();
            seen.tell(|last| last.millis = last.millis.or(Some(millis)));
        }
    }

    fn end(&mut self, grpc_status: Option<u16>, error: Option<&ProxyError>) {
        self.all(|recorder| recorder.end(grpc_status, error));
        if let Some(seen) = &self.seen {
            seen.ended(grpc_status, error);
        }
    }
}
