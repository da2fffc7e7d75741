//! The last scrapes of each proxy: enough to tell rates, bounded in time and number.

use crate::exposition::{Exposition, Sample};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Whose metrics they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proxy {
    pub namespace: String,
    /// The workload's bare name.
    pub workload: String,
    pub pod: String,
    /// The identity in its certificate; empty if it has none.
    pub identity: String,
}

/// A series of one proxy: first and last value in the window.
#[derive(Clone, Copy, Debug)]
pub struct Series<'w> {
    pub proxy: &'w Proxy,
    pub sample: &'w Sample,
    /// What a counter grew by within the window; a restart counts from zero.
    pub increase: f64,
    /// The seconds in which it did.
    pub seconds: f64,
}

/// Scrapes of the last while.
#[derive(Debug)]
pub struct Window {
    length: Duration,
    proxies: BTreeMap<Proxy, VecDeque<(Duration, Exposition)>>,
}

/// Most proxies that are kept, and most scrapes of each.
pub const MAX_PROXIES: usize = 2_000;
pub const MAX_SCRAPES: usize = 120;

impl Window {
    pub fn new(length: Duration) -> Self {
        Self { length, proxies: BTreeMap::new() }
    }

    /// Adds a scrape made at `now` (since any fixed moment). `false` if there are too many proxies.
    pub fn add(&mut self, proxy: Proxy, now: Duration, scrape: Exposition) -> bool {
        if !self.proxies.contains_key(&proxy) && self.proxies.len() >= MAX_PROXIES {
            return false;
        }
        let scrapes = self.proxies.entry(proxy).or_default();
        scrapes.push_back((now, scrape));
        let oldest = now.saturating_sub(self.length);
        // One scrape before the window stays, so that the whole window has a beginning.
        while scrapes.len() > MAX_SCRAPES || scrapes.get(1).is_some_and(|(at, _)| *at <= oldest) {
            scrapes.pop_front();
        }
        true
    }

    /// Forgets proxies that are gone.
    pub fn retain(&mut self, mut keep: impl FnMut(&Proxy) -> bool) {
        self.proxies.retain(|proxy, _| keep(proxy));
    }

    /// Every series of the newest scrapes whose name `wanted` accepts.
    pub fn series(&self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = Series<'_>> {
        self.proxies.iter().flat_map(move |(proxy, scrapes)| {
            let (first, last) = (scrapes.front(), scrapes.back());
            let before: BTreeMap<_, _> = first
                .filter(|_| scrapes.len() > 1)
                .into_iter()
                .flat_map(|(_, e)| &e.samples)
                .filter(|s| wanted(&s.name))
                .map(|s| ((&s.name, &s.labels), s.value))
                .collect();
            let seconds = match (first, last) {
                (Some((from, _)), Some((to, _))) => to.saturating_sub(*from).as_secs_f64(),
                _ => 0.0,
            };
            let kept: Vec<_> = last
                .into_iter()
                .flat_map(|(_, e)| &e.samples)
                .filter(|s| wanted(&s.name))
                .map(|sample| {
                    let before = before.get(&(&sample.name, &sample.labels)).copied().unwrap_or(0.0);
                    let increase = if sample.value >= before { sample.value - before } else { sample.value };
                    Series { proxy, sample, increase, seconds }
                })
                .collect();
            kept
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::parse;

    fn proxy() -> Proxy {
        Proxy { namespace: "n".into(), workload: "w".into(), pod: "w-1".into(), identity: String::new() }
    }

    #[test]
    fn counters_grow_and_restart() {
        let mut window = Window::new(Duration::from_secs(10));
        for (at, value) in [(0, 5), (5, 7), (10, 9), (15, 12)] {
            assert!(window.add(proxy(), Duration::from_secs(at), parse(&format!("a {value}\nother 1"))));
        }
        let series: Vec<_> = window.series(|n| n == "a").map(|s| (s.increase, s.seconds)).collect();
        assert_eq!(series, [(5.0, 10.0)]);
        window.add(proxy(), Duration::from_secs(20), parse("a 2"));
        assert_eq!(window.series(|n| n == "a").next().unwrap().increase, 2.0);
    }

    #[test]
    fn scrapes_are_bounded() {
        let mut window = Window::new(Duration::from_secs(1_000_000));
        for at in 0..1000 {
            window.add(proxy(), Duration::from_secs(at), parse("a 1"));
        }
        assert_eq!(window.proxies[&proxy()].len(), MAX_SCRAPES);
    }
}
