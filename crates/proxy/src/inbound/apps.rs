//! Before forward: what a worker keeps for the addresses of the application to which requests go, so that its connections share it.
//!
//! Whoever connects chooses the address. Who is let in nowhere adds none that is kept, and there are no more than [`MAX_APPS`].

use super::{Wiring, forward::App};
use std::{cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc, time::Duration};
use tokio::time::Instant;
use weft_telemetry::{Gauge, Labels};

/// Addresses that a worker keeps, which is more than ports are watched. Connections to further ones share nothing, as long as all
/// of these are in use.
const MAX_APPS: usize = 512;

/// The addresses that a worker keeps.
pub(super) struct Apps {
    kept: RefCell<HashMap<SocketAddr, Rc<App>>>,
    count: Gauge,
}

impl Apps {
    pub(super) fn new(wiring: &Wiring) -> Self {
        let context = &wiring.context;
        let help = "Addresses of the application that workers keep, with the connections to them";
        let count = context.registry.gauge("weft_proxy_inbound_apps", help).pinned(context.shard, &Labels::new());
        Self { kept: RefCell::default(), count }
    }

    /// The application at `addr`: the one that is kept, or a new one, which is kept if that is asked for and there is room.
    pub(super) fn get(&self, wiring: &Wiring, addr: SocketAddr, keep: bool) -> Rc<App> {
        let mut kept = self.kept.borrow_mut();
        if let Some(app) = kept.get(&addr) {
            app.used.set(Instant::now());
            return Rc::clone(app);
        }
        let app = App::new(wiring, addr);
        if keep && has_room(&mut kept) {
            kept.insert(addr, Rc::clone(&app));
            self.counted(kept.len());
        }
        app
    }

    /// Closes idle connections that have been so for too long, and forgets what no connection has used for `idle`.
    pub(super) fn expire(&self, now: Instant, idle: Duration) {
        let mut kept = self.kept.borrow_mut();
        kept.retain(|_, app| {
            if is_used(app) {
                app.used.set(now);
            }
            app.expire(now);
            now.duration_since(app.used.get()) < idle
        });
        self.counted(kept.len());
    }

    fn counted(&self, kept: usize) {
        self.count.set(i64::try_from(kept).unwrap_or(i64::MAX));
    }
}

/// Whether another one may be kept. Of too many the one gives way that nobody has used for the longest time.
fn has_room(kept: &mut HashMap<SocketAddr, Rc<App>>) -> bool {
    if kept.len() < MAX_APPS {
        return true;
    }
    let idle = kept.iter().filter(|(_, app)| !is_used(app));
    let oldest = idle.min_by_key(|(_, app)| app.used.get()).map(|(addr, _)| *addr);
    oldest.is_some_and(|addr| kept.remove(&addr).is_some())
}

fn is_used(app: &Rc<App>) -> bool {
    Rc::strong_count(app) > 1
}
