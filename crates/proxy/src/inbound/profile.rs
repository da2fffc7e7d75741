//! The ServiceProfile of the name that a request was sent to, by whose routes its response is counted and judged (data plane
//! 3.6). Nothing else is decided by it here.
//!
//! Names come from clients, so only those of the configured suffixes are looked up, and a worker keeps [`MAX_SPELLINGS`] at most. Those
//! that have no routes give way first: names that are made up shall keep no other from being counted.

use super::{SWEEP, Wiring};
use crate::{
    direction::Direction,
    exchange::Course,
    process::discovery::{Discovery, ProfileWatch, Unwatched, Versioned},
    profile::{Following, Routes},
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use weft_model::{NameAddr, Profile, decide::route::RequestView, names::header};

/// Spellings of names that a worker keeps.
const MAX_SPELLINGS: usize = 256;
/// Where an authority without a port leads.
const DEFAULT_PORT: u16 = 80;

/// The profiles that a worker has asked for, by the text in which clients name them.
#[derive(Default)]
pub(super) struct Profiles(RefCell<HashMap<Rc<str>, Rc<Named>>>);

/// What a connection's last request was sent to.
#[derive(Default)]
pub(super) struct Last(RefCell<Option<Asked>>);

/// The text in which a client names a target, and its profile if that is looked up.
type Asked = (Rc<str>, Option<Rc<Named>>);

type Answer = Arc<Versioned<Option<Profile>>>;

/// One profile.
struct Named {
    watch: Arc<ProfileWatch>,
    current: RefCell<Current>,
    used: Cell<Instant>,
}

/// The newest answer, and its routes if there is a profile.
type Current = (Answer, Option<Rc<Routes>>);

/// Counts a request whose head came at `start` by the route that it follows. Waits for the first answer about its name, until
/// that has taken too long.
pub(super) async fn follow(
    wiring: &Wiring,
    profiles: &Profiles,
    last: &Last,
    request: &dyn RequestView,
    start: std::time::Instant,
    course: &Course,
) -> Option<Following> {
    let named = profiles.find(wiring, last, request)?;
    named.watch.answered().await;
    let routes = named.routes()?;
    routes.find(request, &wiring.metrics).map(|route| route.follow(start, course))
}

impl Profiles {
    fn find(&self, wiring: &Wiring, last: &Last, request: &dyn RequestView) -> Option<Rc<Named>> {
        let mut found = None;
        request.header(header::DST_CANONICAL, &mut |value| {
            found = std::str::from_utf8(value).ok().map(|text| self.named(wiring, last, text));
            true
        });
        found.unwrap_or_else(|| self.named(wiring, last, request.authority()?))
    }

    fn named(&self, wiring: &Wiring, last: &Last, text: &str) -> Option<Rc<Named>> {
        if let Some((_, named)) = last.0.borrow().as_ref().filter(|(known, _)| **known == *text)
            && named.as_ref().is_none_or(|named| named.watch.is_kept())
        {
            return named.clone();
        }
        let named = self.get(&wiring.context.discovery, text);
        *last.0.borrow_mut() = match &named {
            Ok(named) => Some((Rc::from(text), Some(Rc::clone(named)))),
            Err(Unwatched::Outside) => Some((Rc::from(text), None)),
            // There may be room at the next request.
            Err(Unwatched::Full) => None,
        };
        named.ok()
    }

    fn get(&self, discovery: &Discovery, text: &str) -> Result<Rc<Named>, Unwatched> {
        let mut all = self.0.borrow_mut();
        let now = Instant::now();
        if let Some(known) = all.get(text).filter(|known| known.watch.is_kept()) {
            known.used.set(now);
            return Ok(Rc::clone(known));
        }
        let watch = discovery.profile(&name(text).ok_or(Unwatched::Outside)?)?;
        let newest = watch.profile.snapshot();
        let current = RefCell::new((Arc::clone(&newest), Named::make(&watch, &newest)));
        let named = Rc::new(Named { watch, current, used: Cell::new(now) });
        if all.len() >= MAX_SPELLINGS && !all.contains_key(text) {
            let first = all.iter().min_by_key(|(_, named)| (named.watch.has_routes(), named.used.get()));
            if let Some(first) = first.map(|(text, _)| Rc::clone(text)) {
                all.remove(&first);
            }
        }
        all.insert(Rc::from(text), Rc::clone(&named));
        Ok(named)
    }

    /// Forgets what no connection has used for `idle`, or is not watched any more, and says what is in use.
    pub(super) fn expire(&self, discovery: &Discovery, now: Instant, idle: Duration) {
        self.0.borrow_mut().retain(|_, named| {
            if Rc::strong_count(named) > 1 {
                named.used.set(now);
            }
            let unused = now.duration_since(named.used.get());
            // A sweep may be late.
            if unused < 2 * SWEEP {
                discovery.renew_profile(&named.watch.name);
            }
            unused < idle && named.watch.is_kept()
        });
    }
}

impl Named {
    fn routes(&self) -> Option<Rc<Routes>> {
        let mut current = self.current.borrow_mut();
        if current.0.version != self.watch.profile.version() {
            let newest = self.watch.profile.snapshot();
            *current = (Arc::clone(&newest), Self::make(&self.watch, &newest));
        }
        current.1.clone()
    }

    /// Series bear the name that the profile has for the service.
    fn make(watch: &ProfileWatch, newest: &Answer) -> Option<Rc<Routes>> {
        let name = newest.value.as_ref()?.name.clone()?;
        let name = NameAddr { name, port: watch.name.port };
        Some(Rc::new(Routes::new(newest, name, Direction::Inbound, None)))
    }
}

/// The name in `l5d-dst-canonical` or an authority; an address has none.
fn name(text: &str) -> Option<NameAddr> {
    let name = match text.parse() {
        Ok(name) => name,
        Err(_) => NameAddr { name: text.parse().ok()?, port: DEFAULT_PORT },
    };
    name.name.as_str().parse::<std::net::IpAddr>().is_err().then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_names_or_none() {
        let named = |text| name(text).map(|name| name.to_string());
        assert_eq!(named("Web.ns.svc:8080").as_deref(), Some("web.ns.svc:8080"));
        assert_eq!(named("web.ns.").as_deref(), Some("web.ns:80"));
        for none in ["10.0.0.1", "10.0.0.1:80", "[::1]:80", "[::1]", "", ":80", "web:0", "we b"] {
            assert_eq!(named(none), None, "{none}");
        }
    }
}
