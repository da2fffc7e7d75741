//! The profile of a name that inbound requests were sent to, from `GetProfile`.

use super::{Watched, cache::Turn};
use crate::process::control::{Counted, Event, Failed, Following, follow};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use weft_model::{NameAddr, Profile};
use weft_wire::destination::Client;

/// When the control plane said that there is no such profile, it is asked again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// So long a name keeps its place, however many others are asked for: what clients make up costs the control plane no more streams
/// than that allows.
const STAYS: Duration = Duration::from_secs(10);
/// The version before the first answer.
const UNANSWERED: u64 = 1;

/// The profile of a name, kept up to date as long as somebody holds it.
pub struct ProfileWatch {
    pub name: NameAddr,
    /// `None` until the first answer, and where there is no profile.
    pub profile: Arc<Watched<Option<Profile>>>,
    since: Instant,
    /// Until then a request waits for the first answer.
    patience: Instant,
}

/// Why the profile of a name is not watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwatched {
    /// It is none of those that are looked up.
    Outside,
    /// There is no room for it now.
    Full,
}

impl ProfileWatch {
    pub(super) fn new(name: NameAddr, patience: Duration) -> Self {
        let since = Instant::now();
        Self { name, profile: Arc::new(Watched::new(None)), since, patience: since + patience }
    }

    /// Whether requests are counted by it.
    pub fn has_routes(&self) -> bool {
        self.profile.load().value.as_ref().is_some_and(|profile| profile.name.is_some() && !profile.routes.is_empty())
    }

    /// Gives way to another name, even if somebody holds it, unless it has just come.
    pub(super) fn gives_way(watch: &Arc<Self>) -> Option<Turn> {
        let stays = watch.since.elapsed() < STAYS;
        match (watch.has_routes(), stays) {
            (false, false) => Some(Turn::First),
            (false, true) => Some(Turn::Soon),
            (true, false) => Some(Turn::Last),
            (true, true) => None,
        }
    }

    /// Whether it is kept up to date. One that has given way is to be asked for anew.
    pub fn is_kept(&self) -> bool {
        // The watching task holds the other one.
        Arc::strong_count(&self.profile) > 1
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

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::{
        policy::route::Pattern,
        profile::{ProfileRoute, RequestMatch},
    };

    /// What clients make up gives way to what is there, and neither within its first seconds.
    #[tokio::test(start_paused = true)]
    async fn names_without_routes_give_way_first_and_none_that_has_just_come() {
        let route = ProfileRoute {
            matches: RequestMatch::All(vec![RequestMatch::Path(Pattern::new("/a").unwrap())]),
            response_classes: vec![],
            labels: std::collections::BTreeMap::new(),
            retryable: false,
            timeout: None,
        };
        let named = Profile { name: Some("web.ns".parse().unwrap()), ..Profile::default() };
        for (answer, at_first, turn) in [
            (None, Some(Turn::Soon), Turn::First),
            (Some(named.clone()), Some(Turn::Soon), Turn::First),
            (Some(Profile { routes: vec![route], ..named }), None, Turn::Last),
        ] {
            let watch = Arc::new(ProfileWatch::new("web.ns:80".parse().unwrap(), Duration::ZERO));
            let task = watch.published();
            task.set(answer);
            assert_eq!((ProfileWatch::gives_way(&watch), watch.is_kept()), (at_first, true));
            tokio::time::advance(STAYS).await;
            assert_eq!(ProfileWatch::gives_way(&watch), Some(turn));
            drop(task);
            assert!(!watch.is_kept(), "nobody tells it anything any more");
        }
    }
}
