//! The policy of one inbound port, from `InboundServerPolicies.WatchPort`.

use super::{InboundSettings, Watched, fallback};
use crate::process::control::{Event, Following, follow};
use std::{ops::ControlFlow, sync::Arc, time::Duration};
use tonic::transport::Channel;
use weft_model::ServerPolicy;
use weft_wire::inbound::Client;

/// How a port is served: the default policy until the control plane has answered.
pub struct PortPolicy {
    pub port: u16,
    pub policy: Arc<Watched<ServerPolicy>>,
    detect_timeout: Duration,
}

/// What the watching task writes to.
pub(super) struct Published {
    policy: Arc<Watched<ServerPolicy>>,
    detect_timeout: Duration,
}

impl PortPolicy {
    pub(super) fn new(port: u16, settings: &InboundSettings) -> Self {
        let policy = Arc::new(Watched::new(fallback::server_policy(port, settings)));
        Self { port, policy, detect_timeout: settings.detect_timeout }
    }

    pub(super) fn published(&self) -> Published {
        Published { policy: self.policy.clone(), detect_timeout: self.detect_timeout }
    }
}

/// Publishes the policy of `port`. What was published last stays in force while the control plane is away.
pub(super) async fn watch(
    published: Published,
    port: u16,
    client: Client<Channel>,
    workload: String,
    following: Following,
) {
    let open = || {
        let (mut client, workload) = (client.clone(), workload.clone());
        async move { client.watch_port(&workload, port).await }
    };
    follow(following, open, |event| {
        match event {
            Event::Message { value, .. } => {
                if published.policy.set_if_changed(value) {
                    tracing::debug!(port, "Inbound policy changed");
                }
            }
            Event::Invalid(reason) => {
                tracing::warn!(port, reason, "The inbound policy is invalid: the port refuses everything");
                published.policy.set_if_changed(fallback::invalid_server_policy(&reason, published.detect_timeout));
            }
            Event::Failed(error) if error.is_final() => {
                tracing::warn!(port, %error, "The inbound policy is refused: the present one stays");
                return ControlFlow::Break(());
            }
            Event::Failed(error) => tracing::debug!(port, %error, "The stream of the inbound policy is lost"),
        }
        ControlFlow::Continue(None)
    })
    .await;
}
