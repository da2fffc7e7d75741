//! What ports were seen to speak, remembered for the whole process.
//!
//! Asked once per connection whose protocol must be found out, never per request. It outlives what discovery holds of a target, is
//! bounded, and forgets a port whose policy names another object: an address that is used again starts anew.

use crate::direction::Direction;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use weft_model::{
    Meta,
    decide::server_first::{Spoken, learn},
};
use weft_telemetry::{Labels, Registry, metrics::Sample};

/// The most ports that are remembered; over it, those that were not asked for lately are forgotten.
const MAX_PORTS: usize = 8192;
/// What was not seen again for so long is forgotten.
const KEPT: Duration = Duration::from_secs(3600);
/// How old a memory is until seeing it again is worth a write.
const FRESH: Duration = Duration::from_secs(60);

/// The memory. Shared by all workers.
#[derive(Default)]
pub struct SpokenPorts(Mutex<Generations>);

type Port = (Direction, SocketAddr);

/// Two halves: when the young one is full it becomes the old one, and what is asked for moves to the young one.
#[derive(Default)]
struct Generations {
    young: HashMap<Port, Memory>,
    old: HashMap<Port, Memory>,
}

struct Memory {
    /// The object behind the port then.
    object: Meta,
    spoken: Spoken,
    seen: Instant,
}

impl SpokenPorts {
    /// Exported as a gauge, so that the bound is seen to be reached.
    pub(super) fn register(self: &Arc<Self>, registry: &Registry) {
        let ports = self.clone();
        registry.collector(move |out| {
            let held = ports.0.lock();
            for direction in [Direction::Inbound, Direction::Outbound] {
                for spoken in [Spoken::Http, Spoken::ClientFirst, Spoken::ServerFirst] {
                    let all = held.young.iter().chain(&held.old);
                    let count = all.filter(|((d, _), m)| *d == direction && m.spoken == spoken).count();
                    let labels = Labels::new().with("direction", direction.as_str()).with("protocol", spoken.as_str());
                    out.push(
                        Sample::gauge("weft_proxy_learned_ports", "Ports whose protocol was learned", count)
                            .labels(labels),
                    );
                }
            }
        });
    }

    /// What `port` spoke, as far as is remembered, while `object` was behind it.
    pub fn known(&self, direction: Direction, port: SocketAddr, object: &Meta, now: Instant) -> Option<Spoken> {
        self.0.lock().known((direction, port), object, now)
    }

    /// Remembers what was seen.
    pub fn saw(&self, direction: Direction, port: SocketAddr, object: &Meta, seen: Spoken, now: Instant) {
        let port = (direction, port);
        let mut held = self.0.lock();
        let known = held.known(port, object, now);
        let spoken = learn(known, seen);
        // What is held to be HTTP is only confirmed by HTTP.
        let confirmed = spoken == seen;
        match held.young.get_mut(&port) {
            Some(memory) if known == Some(spoken) => {
                if confirmed && now.saturating_duration_since(memory.seen) >= FRESH {
                    memory.seen = now;
                }
            }
            _ => held.insert(port, Memory { object: object.clone(), spoken, seen: now }),
        }
    }

    /// A request to `port` was answered with something that is not HTTP.
    pub fn not_http(&self, direction: Direction, port: SocketAddr, object: &Meta, now: Instant) {
        let mut held = self.0.lock();
        if held.known((direction, port), object, now) == Some(Spoken::Http) {
            held.young.remove(&(direction, port));
        }
    }
}

impl Generations {
    fn known(&mut self, port: Port, object: &Meta, now: Instant) -> Option<Spoken> {
        if let Some(memory) = self.old.remove(&port) {
            self.insert(port, memory);
        }
        let memory = self.young.get(&port)?;
        let holds = memory.object == *object && now.saturating_duration_since(memory.seen) < KEPT;
        holds.then_some(memory.spoken)
    }

    fn insert(&mut self, port: Port, memory: Memory) {
        if self.young.len() >= MAX_PORTS / 2 && !self.young.contains_key(&port) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(port, memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(n: usize) -> SocketAddr {
        SocketAddr::from((
            [10, 0, u8::try_from(n >> 8 & 255).unwrap(), u8::try_from(n & 255).unwrap()],
            80 + u16::try_from(n >> 16).unwrap(),
        ))
    }

    #[test]
    fn what_was_seen_is_remembered_per_direction_and_object() {
        let (ports, now) = (SpokenPorts::default(), Instant::now());
        let (web, db) = (Meta::default_named("web"), Meta::default_named("db"));
        let known = |direction, object| ports.known(direction, port(1), object, now);
        ports.saw(Direction::Outbound, port(1), &web, Spoken::Http, now);
        assert_eq!(known(Direction::Outbound, &web), Some(Spoken::Http));
        assert_eq!(known(Direction::Inbound, &web), None);
        assert_eq!(known(Direction::Outbound, &db), None, "another object is behind the address now");
        ports.saw(Direction::Outbound, port(1), &web, Spoken::ServerFirst, now);
        assert_eq!(known(Direction::Outbound, &web), Some(Spoken::Http), "HTTP stays");
        ports.saw(Direction::Outbound, port(1), &db, Spoken::ServerFirst, now);
        assert_eq!(known(Direction::Outbound, &db), Some(Spoken::ServerFirst));
        ports.not_http(Direction::Outbound, port(1), &db, now);
        assert_eq!(known(Direction::Outbound, &db), Some(Spoken::ServerFirst), "nobody held it to be HTTP");
        ports.saw(Direction::Outbound, port(1), &db, Spoken::Http, now);
        ports.not_http(Direction::Inbound, port(1), &db, now);
        assert_eq!(known(Direction::Outbound, &db), Some(Spoken::Http));
        ports.not_http(Direction::Outbound, port(1), &db, now);
        assert_eq!(known(Direction::Outbound, &db), None, "its answer was something else");
    }

    #[test]
    fn what_is_not_seen_again_is_forgotten() {
        let (ports, start) = (SpokenPorts::default(), Instant::now());
        let web = Meta::default_named("web");
        let at = |s| start + Duration::from_secs(s);
        let known = |now| ports.known(Direction::Outbound, port(1), &web, now);
        ports.saw(Direction::Outbound, port(1), &web, Spoken::Http, at(0));
        ports.saw(Direction::Outbound, port(1), &web, Spoken::Http, at(1800));
        assert_eq!(known(at(3700)), Some(Spoken::Http));
        ports.saw(Direction::Outbound, port(1), &web, Spoken::ServerFirst, at(5000));
        assert_eq!(known(at(5401)), None, "only HTTP confirms HTTP");
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_asked_for() {
        let (ports, now) = (SpokenPorts::default(), Instant::now());
        let web = Meta::default_named("web");
        ports.saw(Direction::Outbound, port(0), &web, Spoken::Http, now);
        for n in 1..5 * MAX_PORTS {
            ports.saw(Direction::Outbound, port(n), &web, Spoken::ClientFirst, now);
            if n % 1000 == 0 {
                assert_eq!(ports.known(Direction::Outbound, port(0), &web, now), Some(Spoken::Http));
            }
            let held = ports.0.lock();
            assert!(held.young.len() + held.old.len() <= MAX_PORTS);
        }
        assert_eq!(ports.known(Direction::Outbound, port(1), &web, now), None);
    }
}
