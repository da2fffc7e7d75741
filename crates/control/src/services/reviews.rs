//! What the API server is asked about tokens: so many at a time and a second, and about none again that it has just refused.
//!
//! ```text
//! token ─► refused a moment ago? ─► turn: of its identity, of all, by the pace ─► TokenReview
//! ```
//! Whose a token is only the API server knows; until then a request has the name that it claims. Turns and places go by these names, so
//! that a flood of tokens that prove nothing keeps out those who claim the same name, and delays others by a moment. A flood that claims
//! many names fills the places of all: it is told so, and who asks again gets a place sooner or later.

use crate::digest::token_sha256;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weft_cluster::kubernetes::{Account, NoAccount};
use weft_model::Identity;
use weft_telemetry::{Counter, CounterFamily, Labels, Registry, Shard};

/// Reviews at a time, …
const AT_ONCE: usize = 32;
/// … and of those who claim one identity.
const OF_ONE: usize = 4;
/// Linkerd's: at once, …
const BURST: u32 = 200;
/// … and then one per this time, a hundred a second.
const PACE: Duration = Duration::from_millis(10);
/// Requests that wait for their turn: what the pace comes to within their patience.
const MAX_WAITING: usize = 1_000;
/// Of these so many may claim one identity.
const MAX_WAITING_OF_ONE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(10);
/// A token may become valid: the API servers of a cluster do not learn all at the same moment.
const REMEMBERED: Duration = Duration::from_secs(5);
/// More than can be refused within that time.
const MAX_REMEMBERED: usize = 10_000;

pub(super) struct Reviews {
    all: Arc<Semaphore>,
    /// Of identities that somebody claims now.
    claimed: Mutex<HashMap<Identity, Claimed>>,
    pace: Mutex<Pace>,
    refused: Mutex<Refused>,
    outcomes: Outcomes,
}

/// Why nobody was asked, or what was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotReviewed {
    NoAccount(NoAccount),
    Crowded,
}

struct Claimed {
    turns: Arc<Semaphore>,
    requests: usize,
}

/// A request's place; dropping it makes room.
struct Place<'a> {
    reviews: &'a Reviews,
    identity: &'a Identity,
}

struct Outcomes {
    asked: Counter,
    remembered: Counter,
    crowded: Counter,
}

impl Reviews {
    pub(super) fn new(registry: &Registry) -> Self {
        let help = "Tokens, by whether the API server was asked, has just refused it, or too many waited.";
        let family: CounterFamily = registry.counter("weft_control_token_reviews_total", help);
        let outcome = |name: &str| family.with(Shard::ADMIN, &Labels::new().with("outcome", name));
        Self {
            all: Arc::new(Semaphore::new(AT_ONCE)),
            claimed: Mutex::default(),
            pace: Mutex::new(Pace::default()),
            refused: Mutex::default(),
            outcomes: Outcomes {
                asked: outcome("asked"),
                remembered: outcome("remembered"),
                crowded: outcome("crowded"),
            },
        }
    }

    /// Asks when it is this one's turn.
    pub(super) async fn account(
        &self,
        identity: &Identity,
        token: &str,
        ask: impl Future<Output = Result<Account, NoAccount>>,
    ) -> Result<Account, NotReviewed> {
        let name = token_sha256(token.as_bytes());
        if let Some(refusal) = self.refused.lock().of(&name, Instant::now()) {
            self.outcomes.remembered.inc();
            return Err(NotReviewed::NoAccount(refusal));
        }
        let place = self.place(identity).ok_or_else(|| self.crowded())?;
        let turn = tokio::time::timeout(PATIENCE, self.turn(&place)).await;
        let Ok(Some(_turn)) = turn else { return Err(self.crowded()) };
        // Others with the same token were before it.
        if let Some(refusal) = self.refused.lock().of(&name, Instant::now()) {
            self.outcomes.remembered.inc();
            return Err(NotReviewed::NoAccount(refusal));
        }
        self.outcomes.asked.inc();
        let answer = ask.await;
        if let Err(refusal) = &answer
            && !matches!(refusal, NoAccount::Unavailable(_))
        {
            self.refused.lock().remember(name, refusal.clone(), Instant::now());
        }
        answer.map_err(NotReviewed::NoAccount)
    }

    fn crowded(&self) -> NotReviewed {
        self.outcomes.crowded.inc();
        NotReviewed::Crowded
    }

    fn place<'a>(&'a self, identity: &'a Identity) -> Option<Place<'a>> {
        let mut claimed = self.claimed.lock();
        let of_all: usize = claimed.values().map(|of| of.requests).sum();
        if of_all >= MAX_WAITING || claimed.get(identity).is_some_and(|of| of.requests >= MAX_WAITING_OF_ONE) {
            return None;
        }
        let new = || Claimed { turns: Arc::new(Semaphore::new(OF_ONE)), requests: 0 };
        claimed.entry(identity.clone()).or_insert_with(new).requests += 1;
        Some(Place { reviews: self, identity })
    }

    /// `None` never comes: nobody closes a semaphore here.
    async fn turn(&self, place: &Place<'_>) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let turns = self.claimed.lock().get(place.identity)?.turns.clone();
        let own = turns.acquire_owned().await.ok()?;
        let all = self.all.clone().acquire_owned().await.ok()?;
        let wait = self.pace.lock().next(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Some((own, all))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut claimed = self.reviews.claimed.lock();
        let Some(of) = claimed.get_mut(self.identity) else { return };
        of.requests -= 1;
        if of.requests == 0 {
            claimed.remove(self.identity);
        }
    }
}

/// When the next one may be asked.
#[derive(Default)]
struct Pace(Option<Instant>);

impl Pace {
    /// How long whoever comes at `now` waits.
    fn next(&mut self, now: Instant) -> Duration {
        // One that would come at this time would find the burst used up.
        let full = now + BURST * PACE;
        let after = self.0.map_or(now, |last| last.max(now)) + PACE;
        self.0 = Some(after);
        after.saturating_duration_since(full)
    }
}

/// Tokens by their hashes: whoever reads this memory has none.
#[derive(Default)]
struct Refused(HashMap<String, (NoAccount, Instant)>);

impl Refused {
    fn of(&self, name: &str, now: Instant) -> Option<NoAccount> {
        let (refusal, until) = self.0.get(name)?;
        (now < *until).then(|| refusal.clone())
    }

    fn remember(&mut self, name: String, refusal: NoAccount, now: Instant) {
        if self.0.len() >= MAX_REMEMBERED {
            self.0.retain(|_, (_, until)| now < *until);
        }
        if self.0.len() < MAX_REMEMBERED {
            self.0.insert(name, (refusal, now + REMEMBERED));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_asked_at_once_and_then_a_hundred_a_second() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert!((0..BURST).all(|_| pace.next(now) == Duration::ZERO));
        assert_eq!([pace.next(now), pace.next(now)], [PACE, 2 * PACE]);
        // Who waits long enough has the whole burst again, and no more than that.
        let later = now + 10 * BURST * PACE;
        assert!((0..BURST).all(|_| pace.next(later) == Duration::ZERO));
        assert_eq!(pace.next(later), PACE);
    }

    #[test]
    fn who_claims_one_name_leaves_places_to_others() {
        let reviews = Reviews::new(&Registry::new(1, 100));
        let name = |name: String| -> Identity {
            format!("{name}.ns.serviceaccount.identity.linkerd.cluster.local").parse().unwrap()
        };
        let (one, others): (_, Vec<_>) = (name("one".into()), (0..20).map(|n| name(format!("other{n}"))).collect());
        let held: Vec<_> = (0..2 * MAX_WAITING).map_while(|_| reviews.place(&one)).collect();
        assert_eq!(held.len(), MAX_WAITING_OF_ONE);
        let of_others: Vec<_> = others.iter().filter_map(|other| reviews.place(other)).collect();
        assert_eq!(of_others.len(), others.len());
        drop(held);
        assert!(reviews.place(&one).is_some());
    }

    #[test]
    fn what_was_refused_is_remembered_for_a_moment() {
        let (mut refused, now) = (Refused::default(), Instant::now());
        for token in 0..MAX_REMEMBERED {
            refused.remember(token.to_string(), NoAccount::Unauthenticated, now);
        }
        refused.remember("one more".to_owned(), NoAccount::Audience, now);
        assert_eq!(refused.of("one more", now), None, "there is a bound");
        assert_eq!(refused.of("7", now + REMEMBERED / 2), Some(NoAccount::Unauthenticated));
        assert_eq!(refused.of("7", now + REMEMBERED), None);
        refused.remember("one more".to_owned(), NoAccount::Audience, now + REMEMBERED);
        assert_eq!((refused.0.len(), refused.of("one more", now + REMEMBERED)), (1, Some(NoAccount::Audience)));
    }
}
