//! The profile of a name that inbound requests were sent to, from `GetProfile`.

use super::Watched;
use crate::process::control::{Counted, Event, Failed, Following, follow};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use weft_model::{NameAddr, Profile};
use weft_wire::destination::Client;

/// When the control plane said that there is no such profile, it is asked again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// The version before the first answer.
const UNANSWERED: u64 = 1;

/// The profile of a name, kept up to date as long as somebody holds it.
pub struct ProfileWatch {
    pub name: NameAddr,
    /// `None` until the first answer, and where there is no profile.
    pub profile: Arc<Watched<Option<Profile>>>,
    /// Until then a request waits for the first answer.
    patience: Instant,
}

impl ProfileWatch {
    pub(super) fn new(name: NameAddr, patience: Duration) -> Self {
        Self { name, profile: Arc::new(Watched::new(None)), patience: Instant::now() + patience }
    }

    /// What the watching task writes to: it must not hold the watch itself, or that would never be idle.
    pub(super) fn published(&self) -> Arc<Watched<Option<Profile>>> {
        self.profile.clone()
    }

    /// Waits for the first answer, but not for long: it decides only what is counted.
    pub async fn answered(&self) {
        if self.profile.version() == UNANSWERED && Instant::now() < self.patience {
            // Late is as good as never. Boxed: it happens once per name.
            let _ = Box::pin(tokio::time::timeout_at(self.patience, self.profile.changed(UNANSWERED))).await;
        }
    }
}

/// Publishes the profile of `path`. What was known stays when it cannot be asked for.
pub(super) async fn watch(
    profile: Arc<Watched<Option<Profile>>>,
    path: String,
    client: Client<Counted>,
    context: String,
    following: Following,
) {
    let open = || {
        let (mut client, path, context) = (client.clone(), path.clone(), context.clone());
        async move { client.get_profile(&path, &context).await }
    };
    follow(Following { absent: Some(ASK_AGAIN), ..following }, open, |event| match event {
        Event::Message { value, .. } => drop(profile.set_if_changed(Some(value))),
        Event::Invalid(reason) => {
            tracing::warn!(name = path, reason, "What cannot be used of a profile is left out");
        }
        Event::Failed(Failed { error, .. }) => {
            tracing::debug!(name = path, %error, "There is no profile");
            if profile.version() == UNANSWERED {
                profile.set(None);
            }
        }
    })
    .await;
}
