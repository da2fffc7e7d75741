//! The policy of one inbound port, from `InboundServerPolicies.WatchPort`.

use super::{InboundSettings, MAX_PORTS, Watched, cache::Turn, fallback};
use crate::process::{
    control::{Counted, Event, Failed, Following, follow},
    rate_limit::{Clock, Limiter},
};
use arc_swap::ArcSwapOption;
use std::{sync::Arc, time::Duration};
use weft_model::{Meta, ServerPolicy};
use weft_wire::{Verdict, inbound::Client};

/// How a port is served: the default policy until the control plane has answered.
pub struct PortPolicy {
    pub port: u16,
    pub policy: Arc<Watched<ServerPolicy>>,
    /// Of the policy's rate limit; it lives as long as the limit stays the same.
    limiter: Arc<ArcSwapOption<Limiter>>,
    /// Which policy holds where there is no other.
    default: Meta,
    detect_timeout: Duration,
    clock: Clock,
}

/// What the watching task writes to.
pub(super) struct Published {
    policy: Arc<Watched<ServerPolicy>>,
    limiter: Arc<ArcSwapOption<Limiter>>,
    detect_timeout: Duration,
    clock: Clock,
}

impl PortPolicy {
    pub(in crate::process) fn new(port: u16, settings: &InboundSettings) -> Self {
        Self::with(port, fallback::server_policy(port, settings), settings)
    }

    /// A port of which nothing can be asked any more: refuses everything, since its policy may be stricter than the default.
    pub(super) fn refusing(port: u16, settings: &InboundSettings) -> Self {
        let reason = format!("more than {MAX_PORTS} ports are in use");
        Self::with(port, fallback::invalid_server_policy(&reason, settings.detect_timeout), settings)
    }

    fn with(port: u16, policy: ServerPolicy, settings: &InboundSettings) -> Self {
        Self {
            port,
            policy: Arc::new(Watched::new(policy)),
            limiter: Arc::default(),
            default: Meta::default_named(settings.default_policy.as_str()),
            detect_timeout: settings.detect_timeout,
            clock: settings.clock.clone(),
        }
    }

    /// Gives way to another port if nobody uses it, and what holds now would hold as well if it were watched anew.
    pub(super) fn gives_way(port: &Arc<Self>) -> Option<Turn> {
        let unused = Arc::strong_count(port) == 1;
        (unused && port.policy.load().value.meta == port.default).then_some(Turn::First)
    }

    /// The buckets of the policy's rate limit. Ask after the policy: they are there before it.
    pub fn limiter(&self) -> Option<Arc<Limiter>> {
        self.limiter.load_full()
    }

    pub(super) fn published(&self) -> Published {
        Published {
            policy: self.policy.clone(),
            limiter: self.limiter.clone(),
            detect_timeout: self.detect_timeout,
            clock: self.clock.clone(),
        }
    }
}

impl Published {
    /// Says whether anything changed.
    fn publish(&self, policy: ServerPolicy) -> bool {
        let wanted = policy.protocol.rate_limit();
        if self.limiter.load().as_ref().map(|limiter| limiter.limit()) != wanted {
            self.limiter.store(wanted.map(|limit| Arc::new(Limiter::new(limit.clone(), (self.clock)()))));
        }
        self.policy.set_if_changed(policy)
    }
}

/// Publishes the policy of `port`. What was published last stays in force while the control plane is away, or says that there is
/// none: the default policy may let more in.
pub(super) async fn watch(
    published: Published,
    port: u16,
    client: Client<Counted>,
    workload: String,
    following: Following,
) {
    let open = || {
        let (mut client, workload) = (client.clone(), workload.clone());
        async move { client.watch_port(&workload, port).await }
    };
    follow(following, open, |event| match event {
        Event::Message { value, .. } => {
            if published.publish(value) {
                tracing::debug!(port, "Inbound policy changed");
            }
        }
        Event::Invalid(reason) => {
            tracing::warn!(port, reason, "The inbound policy is invalid: the port refuses everything");
            published.publish(fallback::invalid_server_policy(&reason, published.detect_timeout));
        }
        Event::Failed(Failed { error, verdict: Verdict::Refused, again: false, .. }) => {
            tracing::warn!(port, %error, "The inbound policy is refused: the present one stays for now");
        }
        Event::Failed(Failed { error, .. }) => {
            tracing::debug!(port, %error, "The stream of the inbound policy is lost");
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::policy::{
        inbound::{DefaultPolicy, ServerProtocol},
        route::Filter,
    };

    #[test]
    fn a_port_that_cannot_be_watched_lets_nobody_in() {
        let default_policy = DefaultPolicy::AllUnauthenticated;
        let settings = InboundSettings {
            idle: Duration::from_secs(1),
            default_policy,
            authorizations: default_policy.authorizations(&[]),
            opaque_ports: crate::config::PortSet(vec![80..=80]),
            detect_timeout: Duration::from_secs(1),
            eager: std::collections::BTreeSet::new(),
            admin_port: 4191,
            clock: crate::process::rate_limit::clock(),
        };
        let policy = |port: PortPolicy| port.policy.snapshot().value.clone();
        assert!(!policy(PortPolicy::new(80, &settings)).authorizations.is_empty());
        let refusing = policy(PortPolicy::refusing(80, &settings));
        assert!(refusing.authorizations.is_empty(), "{refusing:?}");
        let ServerProtocol::Detect { routes, .. } = refusing.protocol else { panic!() };
        assert!(matches!(routes[0].rules[0].filters[..], [Filter::Invalid(_)]), "{routes:?}");
    }
}
