//! Watches of an API server that feed an index, and what a test asks of such a server.

use super::kept::kept;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{
    Level, Metadata,
    field::{Field, Visit},
    span,
};
use weft_cluster::{
    Event, Index, Key, Kind, Object,
    external_workload::{Change, Slices},
    index::{Answer, Place, Platform, Question, Settings, WorkloadKind},
    kubernetes::{self, Client},
    policy::status::Statuses,
};
use weft_telemetry::Registry;
use weft_testkit::api_server::{FakeApi, GATEWAY_HTTP_ROUTE};

/// What a case asks of an API server.
pub(crate) trait ApiServer {
    async fn client(&self) -> Client;
    /// Creates or replaces an object, with its status, and says which version of it is there then. One that says when it was created
    /// is younger than those that were written before, also where the server has a clock of its own. One that says its `apiVersion` is
    /// new, and is written in that version; others in the usual one of their kind.
    async fn written(&self, object: Value) -> String;
    /// It is written alike; what is not there need not go.
    async fn remove_it(&self, object: &Value);
    async fn write(&self, object: Value) {
        self.written(object).await;
    }
    /// One of the namespace of the cases.
    async fn remove(&self, kind: &str, name: &str) {
        self.remove_it(&json!({"kind": kind, "metadata": {"namespace": NAMESPACE, "name": name}})).await;
    }
    /// Those of the namespace of the cases.
    async fn all_of(&self, kind: &str) -> Vec<Value>;
    /// Makes the mesh's own kinds known.
    async fn define_kinds(&self);
    /// A token of the ServiceAccount `web` for an audience.
    async fn token_for(&self, audience: &str) -> String;
}

impl ApiServer for FakeApi {
    async fn client(&self) -> Client {
        // A file for each server: they run at the same time.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("fake-{}.kubeconfig", COUNT.fetch_add(1, Relaxed));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, self.kubeconfig()).unwrap();
        kubernetes::connect(Some(&path)).await.unwrap()
    }

    async fn written(&self, object: Value) -> String {
        let named = |what: &str| object["metadata"][what].as_str().unwrap_or("default").to_owned();
        let (kind, namespace, name) = (kind_of(&object).to_owned(), named("namespace"), named("name"));
        self.put(kept(object));
        self.get(&kind, &namespace, &name).unwrap()["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
    }

    async fn remove_it(&self, object: &Value) {
        let named = |of: &str| object["metadata"][of].as_str().unwrap_or_default();
        self.delete(kind_of(object), named("namespace"), named("name"));
    }

    async fn all_of(&self, kind: &str) -> Vec<Value> {
        self.all(kind)
    }

    async fn define_kinds(&self) {
        self.define("Server", &["v1beta3", "v1beta2"]);
        self.define("ServerAuthorization", &["v1beta1"]);
        self.define("MeshTLSAuthentication", &["v1alpha1"]);
        self.define("ExternalWorkload", &["v1beta1", "v1alpha1"]);
    }

    async fn token_for(&self, audience: &str) -> String {
        let token = format!("web's for {audience}");
        self.token(&token, "system:serviceaccount:ns:web", &[audience]);
        token
    }
}

/// As the fake calls it.
fn kind_of(object: &Value) -> &str {
    let of_gateway_api = object["apiVersion"].as_str().is_some_and(|of| of.starts_with("gateway."));
    match object["kind"].as_str().unwrap() {
        "HTTPRoute" if of_gateway_api => GATEWAY_HTTP_ROUTE,
        kind => kind,
    }
}

/// The namespace of the cases.
pub(crate) const NAMESPACE: &str = "ns";

/// Longer than anything here takes, shorter than anybody's patience.
pub(crate) const LONG: Duration = Duration::from_secs(60);
const KINDS: [Kind; 8] = [
    Kind::Pod,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Node,
    Kind::Server,
    Kind::ServerAuthorization,
    Kind::MeshTlsAuthentication,
    Kind::ExternalWorkload,
];

pub(crate) struct Lab<'a, A> {
    pub(crate) api: &'a A,
    registry: Registry,
    pub(crate) fed: Arc<Mutex<Fed>>,
    changes: watch::Receiver<u64>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

pub(crate) struct Fed {
    pub(crate) index: Index,
    pub(crate) slices: Slices,
    pub(crate) statuses: Statuses,
    pub(crate) objects: BTreeMap<Key, Object>,
    pub(crate) batches: Vec<usize>,
    pub(crate) synced: usize,
    /// Every answer about the endpoints that there was.
    pub(crate) answers: BTreeSet<Vec<String>>,
}

pub(crate) fn settings() -> Settings {
    Settings { platform: Platform::Kubernetes, ..Settings::default() }
}

impl<'a, A: ApiServer> Lab<'a, A> {
    /// Nothing is known yet.
    pub(crate) async fn start(api: &'a A) -> Self {
        Self::watching(api, &KINDS, settings()).await
    }

    /// Objects of these kinds are known.
    pub(crate) async fn of(api: &'a A, kinds: &[Kind]) -> Self {
        Self::with(api, kinds, settings()).await
    }

    /// And the mesh has these settings.
    pub(crate) async fn with(api: &'a A, kinds: &[Kind], settings: Settings) -> Self {
        let lab = Self::watching(api, kinds, settings).await;
        lab.until("synced", |fed| fed.synced > 0).await;
        lab
    }

    async fn watching(api: &'a A, kinds: &[Kind], settings: Settings) -> Self {
        let client = api.client().await;
        let fed = Fed {
            index: Index::new(settings.clone()),
            slices: Slices::default(),
            statuses: Statuses::new(settings),
            objects: BTreeMap::new(),
            batches: vec![],
            synced: 0,
            answers: BTreeSet::new(),
        };
        let (fed, (wake, changes)) = (Arc::new(Mutex::new(fed)), watch::channel(0));
        let (registry, stop) = (Registry::new(0, 100), CancellationToken::new());
        let sink: kubernetes::Sink = Arc::new({
            let fed = fed.clone();
            move |events| {
                fed.lock().take_in(events);
                wake.send_modify(|n| *n += 1);
            }
        });
        let task = tokio::spawn({
            let (registry, stop, kinds) = (registry.clone(), stop.clone(), kinds.to_vec());
            async move { kubernetes::watch(client, &kinds, &registry, sink, stop).await }
        });
        Self { api, registry, fed, changes, stop, task }
    }

    pub(crate) async fn synced(api: &'a A) -> Self {
        let lab = Self::start(api).await;
        lab.until("synced", |fed| fed.synced > 0).await;
        lab
    }

    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Fed) -> bool) {
        let mut changes = self.changes.clone();
        let waiting = async {
            while !is(&self.fed.lock()) {
                changes.changed().await.expect("the watches run");
            }
        };
        assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "{what}: {:?}", self.fed.lock().objects.keys());
    }

    pub(crate) fn has(&self, kind: Kind, name: &str) -> bool {
        self.fed.lock().has(kind, name)
    }

    pub(crate) fn metric(&self, name: &str, kind: &str) -> u64 {
        let text = self.registry.encode();
        let start = format!("{name}{{kind=\"{kind}\"}} ");
        // A series begins with its first event.
        text.lines().find_map(|l| l.strip_prefix(&start)).map_or(0, |line| line.parse().unwrap())
    }

    /// Waits for a metric, which follows the event a little later.
    pub(crate) async fn until_metric(&self, name: &str, kind: &str, is: impl Fn(u64) -> bool) {
        let waiting = async {
            while !is(self.metric(name, kind)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "{name} {kind}: {}", self.metric(name, kind));
    }

    /// What would be written of slices.
    pub(crate) fn planned(&self) -> Vec<Change> {
        self.fed.lock().slices.wanted().into_values().flatten().collect()
    }

    pub(crate) async fn end(self) -> Fed {
        self.stop.cancel();
        self.task.await.unwrap();
        Arc::into_inner(self.fed).expect("nobody feeds any more").into_inner()
    }
}

impl Fed {
    fn take_in(&mut self, events: Vec<Event>) {
        self.batches.push(events.len());
        for event in events {
            match &event {
                Event::Apply(object) => drop(self.objects.insert(object.key(), object.clone())),
                Event::Delete(key) => drop(self.objects.remove(key)),
                Event::Refused(refused) => drop(self.objects.remove(&refused.key)),
                Event::Synced => self.synced += 1,
            }
            self.slices.apply(&event);
            self.statuses.apply(&event);
            self.index.apply(event);
        }
        self.answers.insert(self.addresses());
    }

    pub(crate) fn has(&self, kind: Kind, name: &str) -> bool {
        self.objects.keys().any(|k| k.kind == kind && k.name == name)
    }

    /// Whether these versions of objects are those that are known.
    pub(crate) fn has_versions(&self, versions: &[String]) -> bool {
        let known = self.objects.values().map(|object| {
            // Its kind is the name of its only field.
            let Ok(Value::Object(of_kind)) = serde_json::to_value(object) else { return Value::Null };
            of_kind.into_values().next().unwrap_or_default()["metadata"]["resourceVersion"].clone()
        });
        let known: BTreeSet<String> = known.filter_map(|version| version.as_str().map(str::to_owned)).collect();
        versions.iter().all(|version| known.contains(version))
    }

    /// Whether a pod is known with its address.
    pub(crate) fn addressed(&self, pod: &str) -> bool {
        self.objects.values().any(|object| match object {
            Object::Pod(o) => {
                o.metadata.name.as_deref() == Some(pod) && o.status.as_ref().is_some_and(|s| s.pod_ip.is_some())
            }
            _ => false,
        })
    }

    /// By what object port 8080 of pod `a` is served, and how many may call it.
    pub(crate) fn served(&self) -> (String, usize) {
        let question =
            Question::Inbound { namespace: NAMESPACE.into(), of: WorkloadKind::Pod, name: "a".into(), port: 8080 };
        match self.index.answer(&question).answer {
            Ok(Answer::Inbound(policy)) => (policy.meta.name().to_owned(), policy.authorizations.len()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        let question = Question::Destination("web.ns.svc.cluster.local:80".parse().unwrap());
        match self.index.answer(&question).answer {
            Ok(Answer::Destination(set)) => set.seen_from(&Place::default()).keys().map(ToString::to_string).collect(),
            _ => vec![],
        }
    }
}

pub(crate) fn service() -> Value {
    json!({"kind": "Service", "metadata": {"name": "web", "namespace": "ns"},
        "spec": {"clusterIP": "10.96.77.1", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}})
}

pub(crate) fn pod(name: &str, ip: &str) -> Value {
    json!({"kind": "Pod",
        "metadata": {"name": name, "namespace": "ns", "labels": {"app": "web", "linkerd.io/control-plane-ns": "linkerd"}},
        "spec": {"serviceAccountName": "web", "containers": [{"name": "web", "image": "web"}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}})
}

pub(crate) fn slice(name: &str, pods: &[(&str, &str)]) -> Value {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|(pod, ip)| {
            json!({"addresses": [ip], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "namespace": "ns", "name": pod}})
        })
        .collect();
    json!({"kind": "EndpointSlice", "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080}], "endpoints": endpoints})
}

pub(crate) fn server(name: &str, access: &str) -> Value {
    json!({"kind": "Server", "metadata": {"name": name, "namespace": "ns"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "port": 8080, "accessPolicy": access}})
}

/// What is logged of a kind, except for whom it is that looks for the cause.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<BTreeMap<&'static str, String>>>>);

impl Heard {
    pub(crate) fn of(&self, kind: &str) -> Vec<String> {
        let of_kind = |said: &&BTreeMap<_, _>| said.get("kind").is_some_and(|of| of == kind);
        self.0.lock().iter().filter(of_kind).map(|said| said["message"].clone()).collect()
    }
}

impl tracing::Subscriber for Heard {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Said(BTreeMap<&'static str, String>);
        impl Visit for Said {
            fn record_str(&mut self, field: &Field, value: &str) {
                self.0.insert(field.name(), value.to_owned());
            }
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0.insert(field.name(), format!("{value:?}"));
            }
        }
        let mut said = Said(BTreeMap::new());
        event.record(&mut said);
        self.0.lock().push(said.0);
    }

    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
