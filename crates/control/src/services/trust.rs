//! The anchors in force, to whoever asks: they are no secret.

use super::stream::ended;
use crate::{authority::Authority, digest::sha256};
use futures_util::stream;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};
use weft_wire::{Outgoing, trust};

pub(crate) struct TrustBundles {
    authority: Arc<Authority>,
    stop: CancellationToken,
}

impl TrustBundles {
    pub(crate) fn new(authority: Arc<Authority>, stop: CancellationToken) -> Self {
        Self { authority, stop }
    }
}

impl trust::TrustBundles for TrustBundles {
    async fn watch(&self, _: Request<()>) -> Result<Outgoing<trust::TrustBundle>, Status> {
        let mut anchors = self.authority.anchors();
        anchors.mark_changed();
        Ok(Box::pin(stream::unfold(Some((anchors, self.stop.clone())), |state| async move {
            let (mut anchors, stop) = state?;
            let Some(Ok(())) = stop.run_until_cancelled(anchors.changed()).await else {
                return Some((Err(ended()), None));
            };
            let pem = anchors.borrow_and_update().clone();
            let version = sha256(pem.as_bytes());
            Some((Ok(trust::TrustBundle { pem, version }), Some((anchors, stop))))
        })))
    }
}
