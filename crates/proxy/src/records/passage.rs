//! Follows one accepted connection. An open one holds no record: it is made when the connection has ended.

use super::{
    Records, Scene, Why,
    record::{Outcome, What},
};
use crate::{direction::Direction, error::ProxyError};
use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use weft_model::{Endpoint, Identity};
use weft_transport::copy::Side;

/// One accepted connection. What is known when it is dropped is what is recorded.
pub(crate) struct Passage {
    records: Rc<Records>,
    scene: Rc<Scene>,
    began: Instant,
    protocol: &'static str,
    forwarded: Option<Box<Forwarded>>,
    failure: Option<Box<ProxyError>>,
    outcome: Outcome,
}

/// What is known of a connection whose bytes are forwarded.
#[derive(Default)]
pub(crate) struct Forwarded {
    pub(crate) why: Option<Rc<Why>>,
    endpoint: Option<(SocketAddr, Option<Identity>)>,
    decided: Option<Duration>,
    /// From the client and to it.
    bytes: (u64, u64),
}

impl Forwarded {
    /// The connection onwards stands.
    pub(crate) fn opened(&mut self, why: Rc<Why>, endpoint: Option<&Endpoint>, since: Duration) {
        self.why = Some(why);
        self.endpoint = endpoint.map(|e| (e.addr, e.tls.as_ref().map(|tls| tls.identity.clone())));
        self.decided = Some(since);
    }

    /// Bytes have passed. Side A is the client's.
    pub(crate) fn count(&mut self, from: Side, bytes: usize) {
        match from {
            Side::A => self.bytes.0 += bytes as u64,
            Side::B => self.bytes.1 += bytes as u64,
        }
    }
}

impl Passage {
    pub(crate) fn new(records: &Rc<Records>, direction: Direction, client: SocketAddr) -> Self {
        Self {
            records: Rc::clone(records),
            scene: Rc::new(Scene { direction, client, target: None, client_id: None, tls: "" }),
            began: Instant::now(),
            protocol: "",
            forwarded: None,
            failure: None,
            outcome: Outcome::Left,
        }
    }

    /// Where the client wants to go, as far as is known.
    pub(crate) fn target(&self) -> Option<SocketAddr> {
        self.scene.target
    }

    /// Who the client is and where it wants to go, as far as is known. Requests of the connection share it.
    pub(crate) fn scene(&mut self, change: impl FnOnce(&mut Scene)) -> &Rc<Scene> {
        change(Rc::make_mut(&mut self.scene));
        &self.scene
    }

    pub(crate) fn protocol(&mut self, protocol: &'static str) {
        self.protocol = protocol;
    }

    /// What there is to say of a connection whose bytes are forwarded.
    pub(crate) fn forwarded(&mut self) -> &mut Forwarded {
        self.forwarded.get_or_insert_default()
    }

    /// Time since it was accepted.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn end(mut self, failure: Option<ProxyError>) {
        self.outcome = if failure.is_some() { Outcome::Failed } else { Outcome::Ended };
        self.failure = failure.map(Box::new);
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let what = What::Connection(self.protocol);
        let mut record = self.records.ring.borrow_mut().blank(&self.scene, what, self.began);
        record.nameless();
        if let Some(forwarded) = self.forwarded.take() {
            let Forwarded { why, endpoint, decided, bytes } = *forwarded;
            record.why = why;
            if let Some((addr, identity)) = endpoint {
                (record.endpoint, record.server_id) = (Some(addr), identity);
            }
            record.decided = decided;
            (record.request_bytes, record.response_bytes) = bytes;
        }
        record.failure = self.failure.take().map(|error| *error);
        record.outcome = self.outcome;
        record.total = record.elapsed();
        self.records.keep(record);
    }
}
