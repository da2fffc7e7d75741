//! Whoever follows endpoints ends at the newest set, however far behind it reads: against the index, and against who read every step.

use crate::{
    hub::{Asker, Hub},
    serve::Caller,
    services,
};
use futures_util::FutureExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use weft_cluster::{
    Event, Index, Key, Kind, Object,
    index::{Answer, Platform, Question, Settings},
};
use weft_model::{Endpoint, EndpointUpdate};
use weft_telemetry::Registry;
use weft_wire::{Incoming, destination::Client};

const WEB: &str = "web.ns.svc.cluster.local:80";
/// The last is in no zone, and on some nodes there is nobody.
const NODES: [&str; 4] = ["n0", "n1", "n2", "n3"];
const ZONES: [&str; 2] = ["east", "west"];

/// What happens, to one of a few objects.
#[derive(Clone, Debug)]
enum Step {
    /// The slice names pods, each on a node; those of the second kind say for which zone they are.
    Slice(Vec<(u8, u8)>, bool),
    Pod {
        pod: u8,
        plain: bool,
    },
    NoPod(u8),
    Service {
        node_only: bool,
    },
    NoService,
    Zone {
        node: u8,
        zone: u8,
    },
    /// A client begins to follow.
    Ask {
        node: u8,
    },
    /// A client reads so many messages.
    Read {
        client: u8,
        messages: u8,
    },
}

struct Reader {
    node: &'static str,
    stream: Incoming<EndpointUpdate>,
    held: BTreeMap<SocketAddr, Endpoint>,
}

impl Reader {
    /// The next message, if there is one without waiting.
    fn read(&mut self) -> bool {
        let Some(next) = tokio::task::unconstrained(self.stream.next()).now_or_never() else { return false };
        next.unwrap().unwrap().apply(&mut self.held);
        true
    }
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Box<T> {
    Box::new(serde_json::from_value(value).unwrap())
}

fn ip(pod: u8) -> String {
    format!("10.1.0.{}", pod + 1)
}

fn event(step: &Step) -> Option<Event> {
    let object = match step {
        Step::Slice(pods, hinted) => {
            let endpoint = |(pod, node): &(u8, u8)| {
                let zone = ZONES.get(usize::from(*node)).copied();
                let hints = zone.filter(|_| *hinted).map(|zone| json!({"forZones": [{"name": zone}]}));
                json!({"addresses": [ip(*pod)], "nodeName": NODES[usize::from(*node)], "zone": zone, "hints": hints,
                    "targetRef": {"kind": "Pod", "namespace": "ns", "name": format!("p{pod}")}})
            };
            Object::EndpointSlice(typed(json!({"addressType": "IPv4", "ports": [{"name": "", "port": 8080}],
                "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
                "metadata": {"name": "web-x", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}}})))
        }
        Step::Pod { pod, plain } => {
            let mesh = if *plain { json!({}) } else { json!({"linkerd.io/control-plane-ns": "linkerd"}) };
            Object::Pod(typed(json!({"metadata": {"name": format!("p{pod}"), "namespace": "ns", "labels": mesh},
                "spec": {"serviceAccountName": "web", "containers": []},
                "status": {"phase": "Running", "podIP": ip(*pod), "podIPs": [{"ip": ip(*pod)}]}})))
        }
        Step::Service { node_only } => {
            let policy = if *node_only { "Local" } else { "Cluster" };
            Object::Service(typed(json!({"metadata": {"name": "web", "namespace": "ns"},
                "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}], "internalTrafficPolicy": policy}})))
        }
        Step::Zone { node, zone } => {
            let labels = json!({"topology.kubernetes.io/zone": ZONES[usize::from(*zone)]});
            Object::Node(typed(json!({"metadata": {"name": NODES[usize::from(*node)], "labels": labels}})))
        }
        Step::NoPod(pod) => return Some(Event::Delete(Key::new(Kind::Pod, "ns", format!("p{pod}")))),
        Step::NoService => return Some(Event::Delete(Key::new(Kind::Service, "ns", "web"))),
        Step::Ask { .. } | Step::Read { .. } => return None,
    };
    Some(Event::Apply(object))
}

fn step() -> impl Strategy<Value = Step> {
    let slice = (prop::collection::vec((0..6u8, 0..3u8), 0..6), prop::bool::weighted(0.3));
    prop_oneof![
        6 => slice.prop_map(|(pods, hinted)| Step::Slice(pods, hinted)),
        4 => (0..6u8, any::<bool>()).prop_map(|(pod, plain)| Step::Pod { pod, plain }),
        1 => (0..6u8).prop_map(Step::NoPod),
        2 => any::<bool>().prop_map(|node_only| Step::Service { node_only }),
        1 => Just(Step::NoService),
        2 => (0..3u8, 0..2u8).prop_map(|(node, zone)| Step::Zone { node, zone }),
        4 => (0..4u8).prop_map(|node| Step::Ask { node }),
        8 => (0..8u8, 0..4u8).prop_map(|(client, messages)| Step::Read { client, messages }),
    ]
}

async fn ask(hub: &Arc<Hub>, node: &'static str) -> Option<Reader> {
    let service = services::destination(hub).map_request(|mut request: http::Request<tonic::body::Body>| {
        let (connection, farewell) = (CancellationToken::new(), CancellationToken::new());
        request.extensions_mut().insert(Caller { peer: None, connection, farewell });
        request
    });
    let context = json!({"ns": "ns", "nodeName": node, "pod": "client"}).to_string();
    // There may be no such Service.
    let stream = Client::new(service).get(WEB, &context).await.ok()?;
    Some(Reader { node, stream, held: BTreeMap::new() })
}

/// What a client on `node` should hold.
fn right(index: &Index, node: &str) -> BTreeMap<SocketAddr, Endpoint> {
    match index.answer(&Question::Destination(WEB.parse().unwrap())).answer {
        Ok(Answer::Destination(endpoints)) => endpoints.seen_from(&index.place(node)),
        _ => BTreeMap::new(),
    }
}

async fn follow(steps: &[Step]) -> Result<(), TestCaseError> {
    let settings = Settings { platform: Platform::Kubernetes, ..Settings::default() };
    let hub = Arc::new(Hub::new(settings.clone(), &Registry::new(0, 100), CancellationToken::new()));
    let mut index = Index::new(settings);
    // Everything may be there from the start, so that there is much to follow.
    let first = (0..6).map(|pod| Step::Pod { pod, plain: false }).chain([Step::Service { node_only: false }]);
    for event in first.filter_map(|step| event(&step)).chain([Event::Synced]) {
        index.apply(event.clone());
        hub.apply([event]);
    }
    let mut readers: Vec<Reader> = vec![];
    // Of each node one that reads every step at once.
    let mut quick: Vec<Reader> = vec![];
    for node in NODES {
        quick.extend(ask(&hub, node).await);
    }
    for step in steps {
        match step {
            Step::Ask { node } => readers.extend(ask(&hub, NODES[usize::from(*node)]).await),
            Step::Read { client, messages } => {
                if let Some(reader) = readers.get_mut(usize::from(*client)) {
                    let _ = (0..*messages).take_while(|_| reader.read()).count();
                }
            }
            change => {
                let event = event(change).unwrap();
                index.apply(event.clone());
                hub.apply([event]);
            }
        }
        for reader in &mut quick {
            while reader.read() {}
            prop_assert_eq!(&reader.held, &right(&index, reader.node), "at {}, who reads at once", reader.node);
        }
    }
    for reader in &mut readers {
        while reader.read() {}
        prop_assert_eq!(&reader.held, &right(&index, reader.node), "at {}, who lagged behind", reader.node);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_lags_behind_ends_at_the_newest_set(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(follow(&steps))?;
    }
}

/// Of what is the same for several streams there is one.
#[tokio::test]
async fn streams_share_their_steps() {
    use crate::{hub::Subscription, steps::Way};
    use weft_cluster::index::Place;
    let settings = Settings { platform: Platform::Kubernetes, ..Settings::default() };
    let hub = Arc::new(Hub::new(settings, &Registry::new(0, 100), CancellationToken::new()));
    let apply = |step: Step| hub.apply([event(&step).unwrap()]);
    hub.apply([Event::Synced]);
    apply(Step::Service { node_only: false });
    (0..3).for_each(|pod| apply(Step::Pod { pod, plain: false }));
    apply(Step::Slice(vec![(0, 2)], false));
    let question = Question::Destination(WEB.parse().unwrap());
    let mut subscription: Subscription = hub.subscribe(question, Asker::default()).await.unwrap();
    let mut seen = vec![];
    for pods in [&[(0, 2), (1, 2)][..], &[(1, 2), (2, 2)], &[(1, 0), (2, 1)]] {
        seen.push(subscription.next().await.unwrap());
        apply(Step::Slice(pods.to_vec(), false));
    }
    let newest = subscription.next().await.unwrap();
    let Ok(Answer::Destination(endpoints)) = &newest.versioned.answer else { panic!() };
    let in_zone = |zone: &str| Place { node: "n0".to_owned(), zone: Some(zone.to_owned()) };
    let (nowhere, east, west) = (Place::default(), in_zone("east"), in_zone("west"));
    let way = |place: &Place, held: Option<usize>| -> Way {
        newest.steps.to(endpoints, place, held.map(|i| (&seen[i].versioned, place))).unwrap()
    };
    let same = |a: &Way, b: &Way| Arc::ptr_eq(a, b);
    let elsewhere = Place { node: "n3".to_owned(), ..east.clone() };
    assert!(same(&way(&east, Some(2)), &way(&elsewhere, Some(2))), "the node makes no difference");
    assert!(same(&way(&east, None), &way(&east, None)));
    for (a, b) in [
        (way(&east, Some(2)), way(&west, Some(2))),
        (way(&east, Some(2)), way(&east, Some(1))),
        (way(&nowhere, None), way(&east, None)),
    ] {
        assert!(!same(&a, &b));
    }
    // Who had the first version is told what is new since then, and what is gone, in one step each.
    assert_eq!((way(&east, Some(0)).len(), way(&east, Some(1)).len()), (2, 2));
}
