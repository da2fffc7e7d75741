//! What the admin server refused. It runs on no worker's thread and has no ring: one of the workers keeps the record for it.

use super::{
    Records,
    record::{AUTHORITY, METHOD, Outcome, PATH, Scene, What, Why},
    text::Text,
};
use crate::{error::ProxyError, protocol::Version};
use std::{net::SocketAddr, rc::Rc, time::Instant};
use weft_model::decide::route::RequestView;

/// A refusal on its way to a ring.
pub(crate) struct Refused {
    scene: Scene,
    what: What,
    at: Instant,
    why: Option<Why>,
    method: Text<METHOD>,
    authority: Text<AUTHORITY>,
    path: Text<PATH>,
    error: ProxyError,
}

impl Refused {
    /// A connection of which no more became.
    pub(crate) fn connection(scene: Scene, error: ProxyError) -> Self {
        let (method, authority, path) = (Text::default(), Text::default(), Text::default());
        Self { scene, what: What::Connection(""), at: Instant::now(), why: None, method, authority, path, error }
    }

    /// A request, and by which objects it was refused.
    pub(crate) fn request(
        scene: Scene,
        request: &dyn RequestView,
        version: Version,
        why: Option<Why>,
        error: ProxyError,
    ) -> Self {
        let mut refused = Self { what: What::Request(version), why, ..Self::connection(scene, error) };
        refused.method.set(request.method());
        refused.authority.set(request.authority().unwrap_or_default());
        refused.path.set(super::path(request));
        refused
    }
}

impl Records {
    pub(super) fn refused(&self, refused: Refused) {
        let Refused { scene, what, at, why, method, authority, path, error } = refused;
        let mut record = self.ring.borrow_mut().blank(&Rc::new(scene), what, at);
        (record.method, record.authority, record.path) = (method, authority, path);
        record.why = why.map(Rc::new);
        record.status = matches!(what, What::Request(_)).then(|| error.code.status());
        record.failure = Some(error);
        record.outcome = Outcome::Failed;
        self.keep(record);
    }
}

impl Scene {
    /// A client of the inbound side's.
    pub(crate) fn client(client: SocketAddr) -> Self {
        let direction = crate::direction::Direction::Inbound;
        Self { direction, client, target: None, client_id: None, tls: "" }
    }
}
