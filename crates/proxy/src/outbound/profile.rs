//! A ServiceProfile that takes precedence over the policy (data plane 4.1).
//!
//! Part of a target's snapshot: made once per version of the profile, used by the fourth stage.

use super::{Http, backends::Spread};
use crate::{
    direction::Direction,
    exchange::{Retried, Retrying},
    process::{discovery::Versioned, retry_budget::Budget},
    profile::{RouteRetries, Routes},
};
use std::{rc::Rc, sync::Arc};
use weft_model::{
    Meta, Profile,
    policy::outbound::{Distribution, TcpRoute},
};

/// A profile that is followed.
pub(super) struct Profiled {
    /// Its name and the target's port, as requests carry it.
    pub(super) canonical: Rc<str>,
    pub(super) routes: Routes,
    pub(super) backends: Distribution,
    /// What is no HTTP goes there as well, if the profile names targets.
    pub(super) bytes: Option<TcpRoute>,
}

impl Profiled {
    /// `None` if the policy is followed.
    pub(super) fn new(
        profile: &Arc<Versioned<Option<Profile>>>,
        port: u16,
        budget: Option<Arc<Budget>>,
    ) -> Option<Self> {
        let asked = profile.value.as_ref()?;
        let name = asked.followed(port)?;
        let backends = asked.distribution(&name);
        let meta = Meta::default_named("profile");
        let bytes = TcpRoute { meta, backends: backends.clone(), filters: vec![] };
        Some(Self {
            canonical: Rc::from(name.to_string()),
            backends,
            bytes: (!asked.targets.is_empty()).then_some(bytes),
            routes: Routes::new(profile, name, Direction::Outbound, budget),
        })
    }
}

/// A route of the profile on behalf of its requests' retries.
pub(super) struct Tried {
    pub(super) spread: Rc<Spread<Http>>,
    pub(super) retries: RouteRetries,
}

impl Retrying for Tried {
    fn is_ready(&self) -> bool {
        self.spread.is_ready()
    }

    fn afford(&self) -> bool {
        self.retries.afford()
    }

    /// The budget has counted it.
    fn count(&self, _: Retried) {}
}
