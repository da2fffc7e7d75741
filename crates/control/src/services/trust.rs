//! The anchors in force, to whoever asks: they are no secret.

use super::destination::ended;
use crate::authority::Authority;
use futures_util::stream;
use std::sync::Arc;
use tonic::{Request, Status};
use weft_wire::{Outgoing, trust};

pub(crate) struct TrustBundles(Arc<Authority>);

impl TrustBundles {
    pub(crate) fn new(authority: Arc<Authority>) -> Self {
        Self(authority)
    }
}

impl trust::TrustBundles for TrustBundles {
    async fn watch(&self, _: Request<()>) -> Result<Outgoing<trust::TrustBundle>, Status> {
        let mut anchors = self.0.anchors();
        anchors.mark_changed();
        Ok(Box::pin(stream::unfold(Some(anchors), |anchors| async move {
            let mut anchors = anchors?;
            if anchors.changed().await.is_err() {
                return Some((Err(ended()), None));
            }
            let pem = anchors.borrow_and_update().clone();
            let version = super::certify::sha256(pem.as_bytes());
            Some((Ok(trust::TrustBundle { pem, version }), Some(anchors)))
        })))
    }
}
