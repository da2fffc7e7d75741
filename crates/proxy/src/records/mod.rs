//! Decision records: what was decided for each request and connection, by which objects, and how it went.
//!
//! ```text
//! direct ─► Follower (one per request) ─┬─► ring of this worker ◄── Ask ── /explain (admin thread)
//! serve  ─► Passage (one per connection)┘
//!              └─► sinks, if somebody asked for them: observers (tap server), access log (its thread), traces (admin thread)
//! ```
//! A worker writes its own ring and nobody else touches it: who wants to read sends the worker a question, so that the request
//! path takes no lock. What a record names was resolved before (handles of snapshots and connections); texts of the request
//! are cut to a fixed length. What the admin server refuses is sent to a worker to be kept. A record is written whole when its request or connection has ended. Nothing here decides.

mod access_log;
mod follower;
mod passage;
mod query;
mod readers;
mod record;
mod refused;
mod ring;
mod tap;
mod text;
mod told;
mod trace;

pub(crate) use access_log::AccessLog;
pub(crate) use follower::Follower;
pub(crate) use passage::{Forwarded, Passage};
pub(crate) use query::Query;
pub(crate) use readers::Readers;
pub(crate) use record::{Scene, Why};
pub(crate) use refused::Refused;
pub(crate) use tap::{MAX_OBSERVERS, Taps};
pub(crate) use told::Told;
pub(crate) use trace::Traces;

use crate::{error::ProxyError, protocol::Version, turn};
use record::{Outcome, Record, What};
use ring::Ring;
use std::{cell::RefCell, rc::Rc};
use weft_model::decide::route::RequestView;

/// The records of one worker.
pub(crate) struct Records {
    ring: RefCell<Ring>,
    sinks: Sinks,
}

/// Who is told more than the records keep. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sinks {
    pub(crate) taps: Taps,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) traces: Option<Traces>,
}

impl Records {
    /// Keeps the last `capacity` records.
    pub(crate) fn new(capacity: usize, sinks: Sinks) -> Rc<Self> {
        Rc::new(Self { ring: RefCell::new(Ring::new(capacity)), sinks })
    }

    /// Follows a request whose head has come.
    pub(crate) fn follow(self: &Rc<Self>, scene: &Rc<Scene>, request: &dyn RequestView, version: Version) -> Follower {
        let mut record = self.ring.borrow_mut().blank(scene, What::Request(version), turn::now());
        record.method.set(request.method());
        record.authority.set(request.authority().unwrap_or_default());
        record.path.set(path(request));
        Follower::new(Rc::clone(self), record, request, version)
    }

    /// Keeps a refusal of something of which nothing is known but the connection.
    pub(crate) fn malformed(&self, scene: &Rc<Scene>, version: Version, error: &ProxyError) {
        let mut record = self.ring.borrow_mut().blank(scene, What::Request(version), turn::now());
        record.nameless();
        record.status = Some(error.code.status());
        record.failure = Some(error.clone());
        record.outcome = Outcome::Failed;
        self.keep(record);
    }

    fn keep(&self, record: Box<Record>) {
        self.ring.borrow_mut().push(record);
    }

    /// The newest records that `query` asks for, the newest first.
    fn find(&self, query: &Query, worker: usize) -> Vec<Told> {
        let ring = self.ring.borrow();
        ring.newest().filter(|record| query.matches(record)).take(query.limit).map(|r| Told::new(r, worker)).collect()
    }
}

/// What a request names besides its authority: a CONNECT nothing, which routes see at the root.
fn path(request: &dyn RequestView) -> &str {
    if request.method() == "CONNECT" { "" } else { request.path() }
}

#[cfg(test)]
mod tests;
