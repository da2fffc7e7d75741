//! Trust anchors that change while the proxy runs: `weft.identity.TrustBundle/Watch` on the identity service's address.

use crate::process::control::{Counted, Event, Failed, Following, follow};
use std::time::Duration;
use weft_telemetry::{CounterFamily, Labels, Registry, Shard};
use weft_transport::tls::Store;
use weft_wire::{Verdict, trust::Client};

/// A control plane that has no such service (Linkerd's) is asked again after this long: it may be replaced by ours.
const ASK_AGAIN: Duration = Duration::from_secs(300);

/// Puts each bundle into `store`. Until one comes, the environment's anchors stay.
pub(in crate::process) async fn follow_anchors(
    channel: Counted,
    store: Store,
    following: Following,
    registry: Registry,
) {
    let updates =
        registry.counter("weft_identity_trust_updates_total", "Trust bundles received from the control plane");
    let client = Client::new(channel);
    let open = || {
        let mut client = client.clone();
        async move { client.watch().await }
    };
    let following = Following { absent: Some(ASK_AGAIN), ..following };
    let mut version = None;
    follow(following, open, |event| {
        match event {
            // A stream that was opened again begins with what is in force already.
            Event::Message { value, .. } if version.as_ref() == Some(&value.version) => {}
            Event::Message { value, .. } => match store.set_anchors(&value.pem) {
                Ok(()) => {
                    tracing::info!(version = value.version, "Trust anchors are in force");
                    count(&updates, "success");
                    version = Some(value.version);
                }
                Err(error) => {
                    tracing::warn!(%error, "A trust bundle is refused: the present anchors stay");
                    count(&updates, "error");
                }
            },
            Event::Invalid(reason) => {
                tracing::warn!(reason, "A trust bundle cannot be used: the present anchors stay");
                count(&updates, "error");
            }
            Event::Failed(Failed { verdict: Verdict::Unserved, .. }) => {
                tracing::debug!("The control plane sends no trust bundles");
            }
            Event::Failed(Failed { error, .. }) => tracing::debug!(%error, "The stream of trust bundles is lost"),
        }
    })
    .await;
}

fn count(updates: &CounterFamily, result: &str) {
    updates.pinned(Shard::ADMIN, &Labels::new().with("result", result)).inc();
}
