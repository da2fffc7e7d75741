//! Pods that were to get a proxy and have none, as a metric that names them: nobody else would notice that their requests are in the
//! clear. `weft check --proxy` names them by the same rule.

use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use weft_cluster::{Event, Key, Kind, Object, inject::Bare};
use weft_model::names::annotation::INJECT;
use weft_telemetry::{Labels, Registry, metrics::Sample};

/// Pods that are named; the count is of all.
const MAX_NAMED: usize = 100;

/// What has been seen.
pub(super) struct Missed {
    control_namespace: String,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// What namespaces say about proxies; those that say nothing are not kept.
    said: HashMap<String, String>,
    /// Pods without a proxy, by namespace and name.
    bare: BTreeMap<(String, String), Bare>,
}

impl Missed {
    pub(super) fn new(control_namespace: &str, registry: &Registry) -> Arc<Self> {
        let missed =
            Arc::new(Self { control_namespace: control_namespace.to_owned(), seen: Mutex::new(Seen::default()) });
        let watched = missed.clone();
        registry.collector(move |samples| samples.extend(watched.samples()));
        missed
    }

    /// Takes in what concerns it; the events are others' as well.
    pub(super) fn see(&self, events: &[Event]) {
        let mut seen = self.seen.lock();
        for event in events {
            match event {
                Event::Apply(Object::Namespace(namespace)) => {
                    let meta = &namespace.metadata;
                    let (name, said) = (meta.name.clone().unwrap_or_default(), meta.annotations.as_ref());
                    match said.and_then(|annotations| annotations.get(INJECT)) {
                        Some(said) => drop(seen.said.insert(name, said.clone())),
                        None => drop(seen.said.remove(&name)),
                    }
                }
                Event::Apply(object @ Object::Pod(pod)) => {
                    let Key { namespace, name, .. } = object.key();
                    match Bare::of(pod).filter(|_| namespace != self.control_namespace) {
                        Some(bare) => drop(seen.bare.insert((namespace, name), bare)),
                        None => drop(seen.bare.remove(&(namespace, name))),
                    }
                }
                Event::Delete(Key { kind: Kind::Namespace, name, .. }) => drop(seen.said.remove(name)),
                Event::Delete(Key { kind: Kind::Pod, namespace, name }) => {
                    seen.bare.remove(&(namespace.clone(), name.clone()));
                }
                Event::Apply(_) | Event::Refused(_) | Event::Delete(_) | Event::Synced => {}
            }
        }
    }

    fn samples(&self) -> Vec<Sample> {
        let seen = self.seen.lock();
        let missed = seen.bare.iter().filter(|((namespace, _), bare)| {
            let said = seen.said.get(namespace);
            bare.was_to_get_one(said.map(String::as_str))
        });
        let mut samples = vec![];
        let mut count = 0_u32;
        for ((namespace, name), _) in missed {
            count = count.saturating_add(1);
            if samples.len() < MAX_NAMED {
                let labels = Labels::new().with("namespace", namespace).with("pod", name);
                let help = "Pods that were to get a proxy and have none, the first hundred of them.";
                samples.push(Sample::level("weft_control_unmeshed_pod", help, 1.0).labels(labels));
            }
        }
        let help = "How many pods were to get a proxy and have none.";
        samples.push(Sample::level("weft_control_unmeshed_pods", help, f64::from(count)));
        samples
    }
}
