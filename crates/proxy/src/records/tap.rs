//! Observers: who asked to see requests as they pass, and what they are told (data plane 7.1).
//!
//! While nobody observes a request looks at one number. Events wait in a bounded queue per observer; what does not fit is
//! counted and lost, so that a slow observer slows nobody.

use super::record::{Record, Scene};
use crate::{direction::Direction, error::ProxyError, exchange::Fields};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::{
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use weft_model::{
    Endpoint,
    decide::{
        route::RequestView,
        tap::{Passing, matches},
    },
    tap::{End, Event, Labels, Observation, Step, StreamId},
};
use weft_telemetry::{Counter, Registry, Shard};

/// Events that wait for one observer.
const MAX_EVENTS: usize = 400;
/// Observers at once.
pub(crate) const MAX_OBSERVERS: usize = 64;

/// How a stream is reset in HTTP/2's words: by a failure, and by who no longer wants it.
const INTERNAL_ERROR: u32 = 2;
const CANCEL: u32 = 8;

/// All observers of the process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Taps(Arc<Inner>);

struct Inner {
    /// How many observers there are.
    active: AtomicUsize,
    observers: ArcSwap<Vec<Arc<Observer>>>,
    /// Held while the observers change.
    changing: Mutex<()>,
    /// Names this process in stream ids.
    base: u32,
    next: AtomicU64,
    lost: Counter,
}

struct Observer {
    observation: Observation,
    /// Requests that may still be shown.
    left: AtomicU32,
    events: mpsc::Sender<Event>,
}

/// What an observer is told. Ends when the last of its requests has ended; dropping it ends the observation.
pub(crate) struct Observing {
    taps: Taps,
    /// Weak, so that the events end with the last request.
    observer: Weak<Observer>,
    events: mpsc::Receiver<Event>,
}

/// A request that somebody observes.
pub(super) struct Tapped {
    taps: Taps,
    observers: SmallVec<[Arc<Observer>; 1]>,
    /// Each event begins as this one.
    about: Event,
    began: Instant,
    fields: weft_model::tap::Fields,
    headers: bool,
    responded: Option<Instant>,
    response_bytes: u64,
    ended: bool,
}

impl Taps {
    pub(crate) fn new(registry: &Registry) -> Self {
        let lost = registry.counter("weft_proxy_tap_events_dropped_total", "Events for observers that were too slow");
        Self(Arc::new(Inner {
            active: AtomicUsize::new(0),
            observers: ArcSwap::default(),
            changing: Mutex::new(()),
            base: fastrand::u32(..),
            next: AtomicU64::new(0),
            lost: lost.with(Shard::ADMIN, &weft_telemetry::Labels::new()),
        }))
    }

    /// Begins to observe; `None` if there are too many observers.
    pub(crate) fn observe(&self, observation: Observation) -> Option<Observing> {
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let left = AtomicU32::new(observation.limit);
        let observer = Arc::new(Observer { observation, left, events: sender });
        let weak = Arc::downgrade(&observer);
        let added = self.change(|all| {
            let room = all.len() < MAX_OBSERVERS;
            if room {
                all.push(observer);
            }
            room
        });
        added.then(|| Observing { taps: self.clone(), observer: weak, events })
    }

    pub(super) fn is_active(&self) -> bool {
        self.0.active.load(Relaxed) > 0
    }

    /// Tells those who asked for it of a request that goes to `endpoint`, or nowhere.
    pub(super) fn tap(
        &self,
        record: &Record,
        request: &dyn RequestView,
        endpoint: Option<&Endpoint>,
    ) -> Option<Tapped> {
        let scene = &record.scene;
        let destination = endpoint.map(|endpoint| endpoint.addr).or(scene.target)?;
        let destination_labels = destination_labels(scene, endpoint);
        let route_labels = route_labels(record);
        let passing = Passing {
            source: scene.client,
            destination,
            scheme: SCHEME,
            request,
            destination_labels: &destination_labels,
            route_labels: &route_labels,
        };
        let all = self.0.observers.load();
        let wants = |observer: &&Arc<Observer>| matches(&observer.observation.matches, &passing);
        let observers: SmallVec<[_; 1]> = all.iter().filter(wants).filter(|o| self.take(o)).cloned().collect();
        if observers.is_empty() {
            return None;
        }
        let headers = observers.iter().any(|observer| observer.observation.headers);
        let mut fields = vec![];
        if headers {
            request.fields(&mut |name, value| fields.push(field(name, value)));
        }
        let step = Step::Request {
            method: request.method().to_owned(),
            scheme: SCHEME.to_owned(),
            authority: request.authority().unwrap_or_default().to_owned(),
            path: request.path().to_owned(),
            fields: vec![],
        };
        let id = StreamId { base: self.0.base, stream: self.0.next.fetch_add(1, Relaxed) };
        let about = Event {
            outbound: scene.direction == Direction::Outbound,
            source: scene.client,
            source_labels: source_labels(scene),
            destination,
            destination_labels,
            route_labels,
            id,
            step,
        };
        let mut tapped = Tapped {
            taps: self.clone(),
            observers,
            about,
            began: record.began,
            fields,
            headers,
            responded: None,
            response_bytes: 0,
            ended: false,
        };
        let step = tapped.about.step.clone();
        tapped.tell(step);
        Some(tapped)
    }

    /// Takes one of the requests that `observer` may be shown.
    fn take(&self, observer: &Arc<Observer>) -> bool {
        let taken = observer.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        if taken == Ok(1) {
            self.remove(&Arc::downgrade(observer));
        }
        taken.is_ok()
    }

    /// Gives one back that came to nothing.
    fn give_back(&self, observer: Arc<Observer>) {
        if observer.left.fetch_add(1, Relaxed) > 0 {
            return;
        }
        // It had been removed with its last one. Who stops observing closes before it is removed for good, and who takes the last
        // one does so before that, too: either is seen here, or removes it after this.
        self.change(|all| {
            let wants = observer.left.load(Relaxed) > 0 && !observer.events.is_closed();
            if wants && all.len() < MAX_OBSERVERS && !all.iter().any(|other| Arc::ptr_eq(other, &observer)) {
                all.push(observer);
            }
        });
    }

    fn remove(&self, observer: &Weak<Observer>) {
        self.change(|all| all.retain(|other| !std::ptr::eq(Arc::as_ptr(other), observer.as_ptr())));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Arc<Observer>>) -> T) -> T {
        let _changing = self.0.changing.lock();
        let mut all = Vec::clone(&self.0.observers.load());
        let changed = change(&mut all);
        self.0.active.store(all.len(), Relaxed);
        self.0.observers.store(Arc::new(all));
        changed
    }
}

impl Tapped {
    /// The fields behind the body go with the end, as those of the head go with it.
    pub(super) fn trailers(&mut self, fields: &dyn Fields) {
        self.response_fields(fields);
    }

    pub(super) fn response_fields(&mut self, fields: &dyn Fields) {
        if self.headers {
            self.fields.clear();
            fields.each(&mut |name, value| self.fields.push(field(name, value)));
        }
    }

    pub(super) fn response_head(&mut self, status: u16) {
        self.responded = Some(Instant::now());
        self.tell(Step::Response { since_request: self.began.elapsed(), status, fields: vec![] });
    }

    pub(super) fn response_body(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
    }

    /// Another attempt is shown in its stead.
    pub(super) fn forget(mut self) {
        self.ended = true;
        for observer in std::mem::take(&mut self.observers) {
            self.taps.give_back(observer);
        }
    }

    pub(super) fn end(&mut self, grpc_status: Option<u16>, error: Option<&ProxyError>) {
        let end = match (grpc_status, error) {
            (Some(status), _) => Some(End::Grpc(status.into())),
            (None, Some(_)) => Some(End::Reset(INTERNAL_ERROR)),
            (None, None) => None,
        };
        self.tell_end(end);
    }

    fn tell_end(&mut self, end: Option<End>) {
        self.ended = true;
        self.tell(Step::End {
            since_request: self.began.elapsed(),
            since_response: self.responded.map_or(Duration::ZERO, |at| at.elapsed()),
            response_bytes: self.response_bytes,
            end,
            fields: vec![],
        });
    }

    fn tell(&mut self, step: Step) {
        let fields = std::mem::take(&mut self.fields);
        for observer in &self.observers {
            let fields = if observer.observation.headers { fields.clone() } else { vec![] };
            let event = Event { step: with(step.clone(), fields), ..self.about.clone() };
            if observer.events.try_send(event).is_err() {
                self.taps.0.lost.inc();
            }
        }
    }
}

impl Drop for Tapped {
    /// The client left.
    fn drop(&mut self) {
        if !self.ended {
            self.tell_end(Some(End::Reset(CANCEL)));
        }
    }
}

impl tokio_stream::Stream for Observing {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_recv(cx)
    }
}

impl Drop for Observing {
    fn drop(&mut self) {
        self.events.close();
        self.taps.remove(&self.observer);
    }
}

/// Requests come in plaintext, or in TLS that a proxy has ended.
const SCHEME: &str = "http";

fn with(step: Step, all: weft_model::tap::Fields) -> Step {
    match step {
        Step::Request { method, scheme, authority, path, .. } => {
            Step::Request { method, scheme, authority, path, fields: all }
        }
        Step::Response { since_request, status, .. } => Step::Response { since_request, status, fields: all },
        Step::End { since_request, since_response, response_bytes, end, .. } => {
            Step::End { since_request, since_response, response_bytes, end, fields: all }
        }
    }
}

fn field(name: &[u8], value: &[u8]) -> (String, Vec<u8>) {
    (String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec())
}

fn source_labels(scene: &Rc<Scene>) -> Labels {
    let id = scene.client_id.as_ref().map(|id| ("client_id".to_owned(), id.to_string()));
    [("tls".to_owned(), scene.tls.to_owned())].into_iter().chain(id).collect()
}

fn destination_labels(scene: &Scene, endpoint: Option<&Endpoint>) -> Labels {
    let mut labels = endpoint.map(|endpoint| endpoint.labels.clone()).unwrap_or_default();
    let tls = match endpoint {
        Some(endpoint) if endpoint.tls.is_some() => "true",
        Some(_) => "not_provided_by_service_discovery",
        None if scene.direction == Direction::Inbound => "loopback",
        None => return labels,
    };
    labels.insert("tls".to_owned(), tls.to_owned());
    if let Some(tls) = endpoint.and_then(|endpoint| endpoint.tls.as_ref()) {
        labels.insert("server_id".to_owned(), tls.identity.to_string());
    }
    labels
}

fn route_labels(record: &Record) -> Labels {
    let route = record.why.as_ref().and_then(|why| why.route.as_ref());
    let labels = route.map(|route| [("group", route.group()), ("kind", route.kind()), ("route", route.name())]);
    labels.into_iter().flatten().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
