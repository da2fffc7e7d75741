//! One record, as the worker keeps it.

use super::text::Text;
use crate::{direction::Direction, error::ProxyError, protocol::Version, turn};
use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use weft_model::{Identity, Meta};

/// Bytes of each text that are kept.
pub(super) const METHOD: usize = 16;
pub(super) const AUTHORITY: usize = 64;
pub(super) const PATH: usize = 96;

/// What is the same for all requests of one accepted connection.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) direction: Direction,
    pub(crate) client: SocketAddr,
    /// Where the client dialled; `None` while that is not known.
    pub(crate) target: Option<SocketAddr>,
    /// What the client has proved.
    pub(crate) client_id: Option<Identity>,
    /// Linkerd's word for the connection's TLS.
    pub(crate) tls: &'static str,
}

/// By which objects something was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Why {
    /// Inbound the server, outbound the service.
    pub(crate) parent: Meta,
    pub(crate) route: Option<Meta>,
    /// The rule's place in its route.
    pub(crate) rule: Option<usize>,
    pub(crate) authorization: Option<Meta>,
}

/// What was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Request(Version),
    /// Linkerd's word for its protocol; empty while that is not known.
    Connection(&'static str),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// To its end.
    Ended,
    /// By a failure of the mesh, or one that the mesh noticed.
    Failed,
    /// Before its end: the client left, or the connection was cut off.
    Left,
    /// Without an answer: another attempt has been made in its stead, which has a record of its own.
    Repeated,
}

pub(super) struct Record {
    pub(super) scene: Rc<Scene>,
    pub(super) what: What,
    pub(super) began: Instant,
    pub(super) why: Option<Rc<Why>>,
    pub(super) method: Text<METHOD>,
    pub(super) authority: Text<AUTHORITY>,
    pub(super) path: Text<PATH>,
    pub(super) endpoint: Option<SocketAddr>,
    /// What the server has proved.
    pub(super) server_id: Option<Identity>,
    /// From the beginning.
    pub(super) decided: Option<Duration>,
    pub(super) head: Option<Duration>,
    pub(super) first_byte: Option<Duration>,
    pub(super) total: Duration,
    pub(super) status: Option<u16>,
    pub(super) grpc_status: Option<u16>,
    pub(super) failure: Option<ProxyError>,
    pub(super) outcome: Outcome,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
}

impl Record {
    pub(super) fn new(scene: &Rc<Scene>, what: What, began: Instant) -> Self {
        Self {
            scene: Rc::clone(scene),
            what,
            began,
            why: None,
            method: Text::default(),
            authority: Text::default(),
            path: Text::default(),
            endpoint: None,
            server_id: None,
            decided: None,
            head: None,
            first_byte: None,
            total: Duration::ZERO,
            status: None,
            grpc_status: None,
            failure: None,
            outcome: Outcome::Left,
            request_bytes: 0,
            response_bytes: 0,
        }
    }

    /// Makes an old record a new one; the texts are written by who begins it.
    pub(super) fn renew(&mut self, scene: &Rc<Scene>, what: What, began: Instant) {
        let Self {
            scene: old,
            what: of,
            began: at,
            why,
            method: _,
            authority: _,
            path: _,
            endpoint,
            server_id,
            decided,
            head,
            first_byte,
            total,
            status,
            grpc_status,
            failure,
            outcome,
            request_bytes,
            response_bytes,
        } = self;
        (*old, *of, *at) = (Rc::clone(scene), what, began);
        (*why, *endpoint, *server_id, *failure) = (None, None, None, None);
        (*decided, *head, *first_byte, *total) = (None, None, None, Duration::ZERO);
        (*status, *grpc_status, *outcome) = (None, None, Outcome::Left);
        (*request_bytes, *response_bytes) = (0, 0);
    }

    /// Takes the names away that an old request had.
    pub(super) fn nameless(&mut self) {
        self.method.set("");
        self.authority.set("");
        self.path.set("");
    }

    /// Time since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        turn::since(self.began)
    }
}
