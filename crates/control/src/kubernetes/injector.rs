//! `weft control-plane proxy-injector`: the webhook that gives pods their proxy.
//!
//! It decides nothing: `cluster::inject` does, from the object, its namespace and the values of the installation.

use super::{Common, Running};
use crate::{
    Error,
    digest::sha256,
    process::Process,
    webhook::{Certificate, Verdict, Webhook},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Semaphore;
use weft_cluster::{
    Event, Kind, Object,
    inject::{self, Annotations, Around, Mesh, Outcome, Owner, Refusal, Skip},
    k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    kubernetes::{self, About, Lookup, Recorder},
    values::Values,
};
use weft_telemetry::{Counter, CounterFamily, Labels, Shard};

const COMPONENT: &str = "linkerd-proxy-injector";
/// Bytes of the values or the anchors.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Events under way; more are news that nobody could read.
const MAX_EVENTS: usize = 32;
/// Characters of an annotation that metrics show.
const MAX_LABEL: usize = 64;

#[derive(Clone, Debug)]
pub struct ProxyInjector {
    pub addr: SocketAddr,
    /// The folder with tls.crt and tls.key.
    pub tls: PathBuf,
    /// The file with the installation's values.
    pub values: PathBuf,
    pub trust_roots: PathBuf,
}

pub(super) async fn start(common: Common, options: ProxyInjector) -> Result<Running, Error> {
    let client = kubernetes::connect(common.kubeconfig.as_deref()).await?;
    let mut process = Process::new();
    let (registry, stop) = (process.registry.clone(), process.stop.clone());
    let counter = |name, help| registry.counter(name, help);
    let injector = Arc::new(Injector {
        control_namespace: common.control_namespace,
        files: Files {
            values: options.values,
            trust_roots: options.trust_roots,
            state: Mutex::default(),
            kept: counter("weft_injector_values_kept_total", "Times that new values or anchors could not be used.")
                .with(Shard::ADMIN, &Labels::new()),
        },
        namespaces: Mutex::default(),
        lookup: Lookup::new(client.clone()),
        recorder: Recorder::new(client.clone(), COMPONENT, common.instance),
        events: Arc::new(Semaphore::new(MAX_EVENTS)),
        requests: counter("proxy_inject_admission_requests_total", "Admissions asked for."),
        responses: counter("proxy_inject_admission_responses_total", "Admissions answered."),
    });
    let timeout = injector.files.current()?.values.proxy_injector.timeout_seconds;
    process.drain = u64::try_from(timeout).map_or(super::REVIEW, Duration::from_secs);

    let unsynced = Mutex::new(Some(process.readiness.task("watches")));
    let sink: kubernetes::Sink = Arc::new({
        let injector = injector.clone();
        move |events| {
            if injector.take_in(events) {
                drop(unsynced.lock().take());
            }
        }
    });
    process.spawn({
        let (registry, stop) = (registry.clone(), stop.clone());
        async move { kubernetes::watch(client, &[Kind::Namespace], &registry, sink, stop).await }
    });

    let (socket, addr) = Process::bind("webhook", options.addr)?;
    let admin = process.admin(common.admin)?;
    let certificate = Certificate::in_folder(&options.tls);
    let decide = move |request| {
        let injector = injector.clone();
        async move { injector.decide(request).await }
    };
    let webhook = Webhook::new("proxy-injector", socket, certificate, decide, &registry)?;
    process.spawn(webhook.serve(stop));
    Ok(Running { addresses: vec![("webhook", addr), ("admin", admin)], process })
}

struct Injector {
    control_namespace: String,
    files: Files,
    namespaces: Mutex<HashMap<String, Annotations>>,
    lookup: Lookup,
    recorder: Recorder,
    events: Arc<Semaphore>,
    requests: CounterFamily,
    responses: CounterFamily,
}

/// Mounted files, read for each admission and parsed when they change.
struct Files {
    values: PathBuf,
    trust_roots: PathBuf,
    state: Mutex<Reading>,
    kept: Counter,
}

#[derive(Default)]
struct Reading {
    parsed: Option<Arc<Parsed>>,
    /// Why they could not be read, as it stands in the log.
    told: Option<String>,
}

/// What the files said.
struct Parsed {
    values_text: String,
    anchors_pem: String,
    values: Values,
    anchors_sha256: String,
}

impl Files {
    /// What holds. Files that cannot be read, or say something impossible, leave in force what they said before: a mistake in them stops
    /// no pod of the cluster.
    fn current(&self) -> Result<Arc<Parsed>, Error> {
        let read = self.parse();
        let mut state = self.state.lock();
        match (read, state.parsed.clone()) {
            (Ok(parsed), _) => {
                state.told = None;
                state.parsed = Some(parsed.clone());
                Ok(parsed)
            }
            (Err(error), None) => Err(error),
            (Err(error), Some(before)) => {
                let text = error.to_string();
                if state.told.as_ref() != Some(&text) {
                    self.kept.inc();
                    tracing::error!(error = text, "the values before it stay");
                    state.told = Some(text);
                }
                Ok(before)
            }
        }
    }

    fn parse(&self) -> Result<Arc<Parsed>, Error> {
        let (values_text, anchors_pem) = (text(&self.values)?, text(&self.trust_roots)?);
        let before = self.state.lock().parsed.clone();
        if let Some(before) = before.filter(|b| b.values_text == values_text && b.anchors_pem == anchors_pem) {
            return Ok(before);
        }
        if !anchors_pem.contains("-----BEGIN CERTIFICATE-----") {
            let reason = "there is no certificate in it".to_owned();
            return Err(Error::Values { path: self.trust_roots.clone(), reason });
        }
        let values = Values::from_yaml(&values_text).map_err(|problems| {
            let reason = problems.to_string();
            Error::Values { path: self.values.clone(), reason }
        })?;
        let anchors_sha256 = sha256(anchors_pem.as_bytes());
        Ok(Arc::new(Parsed { values_text, anchors_pem, values, anchors_sha256 }))
    }
}

/// The annotations of a namespace that concern the mesh; the rest is not kept.
fn ours(mut annotations: Annotations) -> Annotations {
    annotations.retain(|key, _| key.contains("linkerd.io/") || key.starts_with("resource.opentelemetry.io/"));
    annotations
}

fn text(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text));
    read.map(|_| text).map_err(|error| Error::Io { what: path.display().to_string(), error })
}

impl Injector {
    /// Follows the namespaces; says whether all are known from now on.
    fn take_in(&self, events: Vec<Event>) -> bool {
        let mut namespaces = self.namespaces.lock();
        let mut synced = false;
        for event in events {
            match event {
                Event::Apply(Object::Namespace(namespace)) => {
                    let ObjectMeta { name, annotations, .. } = namespace.metadata;
                    namespaces.insert(name.unwrap_or_default(), ours(annotations.unwrap_or_default()));
                }
                Event::Apply(_) | Event::Refused(_) => {}
                Event::Delete(key) => drop(namespaces.remove(&key.name)),
                Event::Synced => synced = true,
            }
        }
        synced
    }

    async fn decide(&self, request: Value) -> Result<Verdict, String> {
        if request["operation"] != "CREATE" {
            return Ok(Verdict::default());
        }
        let (namespace, object) = (request["namespace"].as_str().unwrap_or_default(), &request["object"]);
        let annotations = self.annotations_of(namespace).await?;
        let is_pod = object["kind"] == "Pod";
        let metadata: ObjectMeta = serde_json::from_value(object["metadata"].clone()).unwrap_or_default();
        let about = if is_pod { self.lookup.owner(namespace, &metadata).await } else { None };
        let kind = about.as_ref().map(|a| a.kind.to_lowercase());
        let owner = about.as_ref().zip(kind.as_deref()).map(|(about, kind)| Owner { kind, name: &about.name });

        let files = self.files.current().map_err(|e| e.to_string())?;
        let mesh = Mesh {
            values: &files.values,
            namespace: &self.control_namespace,
            anchors_pem: &files.anchors_pem,
            anchors_sha256: &files.anchors_sha256,
        };
        let around = Around { namespace, namespace_annotations: &annotations, owner };
        let outcome = inject::admit(object, around, mesh);
        let own = object["kind"].as_str().unwrap_or_default().to_lowercase();
        self.count(namespace, kind.as_deref().unwrap_or(&own), &outcome);
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(refusals) => {
                let texts: Vec<String> = refusals.iter().map(|r| format!("{}: {}", r.field, r.message)).collect();
                let text = texts.join("; ");
                tracing::info!(namespace, text, "refused");
                return Ok(Verdict { refused: Some((400, text)), ..Verdict::default() });
            }
        };
        // What is only tried leaves nothing behind.
        if is_pod && request["dryRun"] != true {
            let itself = || {
                let (api_version, kind) = ("v1".to_owned(), "Pod".to_owned());
                metadata.name.clone().map(|name| About { api_version, kind, namespace: namespace.to_owned(), name })
            };
            self.tell(about.or_else(itself), &outcome);
        }
        let patch = outcome.patch.iter().map(|operation| json!(operation)).collect();
        let warnings = outcome.warnings.iter().map(|w| format!("{}: {}", w.key, w.message)).collect();
        Ok(Verdict { refused: None, patch, warnings })
    }

    async fn annotations_of(&self, namespace: &str) -> Result<Annotations, String> {
        let known = self.namespaces.lock().get(namespace).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        // It was made a moment ago; without what it says nothing can be decided.
        let found = self.lookup.annotations_of_namespace(namespace).await.map_err(|e| e.to_string())?;
        found.map(ours).ok_or_else(|| format!("there is no namespace {namespace}"))
    }

    fn count(&self, namespace: &str, kind: &str, outcome: &Result<Outcome, Vec<Refusal>>) {
        let mut labels = Labels::new().with("owner_kind", kind).with("namespace", namespace);
        let report = outcome.as_ref().map(|outcome| &outcome.report);
        let at = report.ok().and_then(|report| report.at).map(|at| at.as_str()).unwrap_or_default();
        labels = labels.with("annotation_at", at);
        let annotations = outcome.as_ref().ok().and_then(|o| o.object["metadata"]["annotations"].as_object());
        let annotations: Annotations = annotations
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.chars().take(MAX_LABEL).collect())))
            .collect();
        for (name, value) in inject::overridden(&annotations) {
            labels = labels.with(&name, value);
        }
        self.requests.with(Shard::ADMIN, &labels).inc();
        let (skip, reason) = match report {
            Ok(report) => {
                let reasons: Vec<&str> = report.skipped.iter().map(|s| s.as_str()).collect();
                (!report.is_injected(), reasons.join(","))
            }
            Err(_) => (true, "invalid_annotation".to_owned()),
        };
        self.responses.with(Shard::ADMIN, &labels.with("skip", skip).with("skip_reason", reason)).inc();
    }

    /// Tells the people of the workload, or of a pod that has none, what became of it. Whoever asked for nothing is told nothing.
    fn tell(&self, about: Option<About>, outcome: &Outcome) {
        let Some(about) = about else { return };
        let skipped = &outcome.report.skipped;
        let mut events = vec![];
        if outcome.report.is_injected() {
            events.push((false, "Injected", "Linkerd sidecar proxy injected".to_owned()));
        } else if skipped.as_slice() != [Skip::NotAsked] {
            let reasons: Vec<&str> = skipped.iter().map(|s| s.explained()).collect();
            let text = format!("Linkerd sidecar proxy injection skipped: {}", reasons.join("; "));
            events.push((false, "InjectionSkipped", text));
        }
        events.extend(outcome.warnings.iter().map(|w| (true, "InjectionWarning", format!("{}: {}", w.key, w.message))));
        let Ok(permit) = self.events.clone().try_acquire_owned() else { return };
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            for (warning, reason, text) in events {
                recorder.record(&about, warning, reason, &text).await;
            }
            drop(permit);
        });
    }
}
