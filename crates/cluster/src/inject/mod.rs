//! From an object to one whose pods have a proxy: pure functions for the webhook and for `weft inject` and `weft uninject`.
//!
//! ```text
//! object ─► subject ─► report (asked for? possible?) ─► settings (values ◄ namespace ◄ pod) ─► sidecar ─► patch + object
//!                                                         table of annotations                environment
//! ```
//!
//! Done twice it is done once: a pod that has a proxy is left as it is. [`local`] is the neighbour without Kubernetes: the
//! environment of a proxy that a supervisor starts.

mod documents;
mod environment;
mod foretold;
mod local;
mod missed;
mod opaque;
mod patch;
mod reference;
mod report;
mod settings;
mod sidecar;
mod subject;
mod table;
mod told;
mod uninject;

pub use documents::{Change, Changed, Format, Unchanged, change};
pub use local::{ControlPlane, Injection, proxy_env};
pub use missed::Bare;
pub use patch::{Op, Operation, apply};
pub use reference::reference;
pub use report::{At, Report, Skip};
pub use settings::{Refusal, Warning};
pub use table::overridden;
pub use told::{injected, uninjected};
pub use uninject::uninject;

pub(crate) use crate::annotation::REQUIRE_IDENTITY_PORTS;
pub(crate) use foretold::{Foretold, foretell};
pub(crate) use report::is_of_a_mesh;
pub(crate) use settings::Settings;
pub(crate) use sidecar::{Anchors, Sidecar, mount, requirements};
pub(crate) use table::{TABLE, is_known};

use crate::{
    annotation::{PortList, PortRanges},
    index::{is_tcp, runs_to_an_end},
    label,
    object::{self, is_label_text},
    policy::client,
    values::{Ports, Values},
};
use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ServicePort, VolumeMount},
    apimachinery::pkg::util::intstr::IntOrString,
};
use patch::{Patch, Place};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use subject::{Pods, Subject, What};
use table::PROXY_PORTS;
use weft_model::names::annotation as names;

pub type Annotations = BTreeMap<String, String>;

/// Names of containers.
pub const PROXY: &str = "linkerd-proxy";
pub const INIT: &str = "linkerd-init";
pub const DEBUG: &str = "linkerd-debug";
/// The ConfigMap with the trust anchors, in the control plane's namespace.
pub const TRUST_ROOTS: &str = "linkerd-identity-trust-roots";
pub const TRUST_ROOTS_KEY: &str = "ca-bundle.crt";
/// The variable of a proxy's container that has its anchors, PEM.
pub const TRUST_ANCHORS: &str = "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS";

/// Annotations that are written, and never read.
pub const CREATED_BY: &str = "linkerd.io/created-by";
pub const PROXY_VERSION: &str = "linkerd.io/proxy-version";
pub const TRUST_ROOT_SHA256: &str = "linkerd.io/trust-root-sha256";

/// Where a token of a ServiceAccount is mounted.
const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The installation whose proxies are injected.
#[derive(Clone, Copy, Debug)]
pub struct Mesh<'a> {
    pub values: &'a Values,
    /// The control plane's namespace.
    pub namespace: &'a str,
    /// The trust anchors, as the ConfigMap has them.
    pub anchors_pem: &'a str,
    /// SHA-256 of that text, in lower-case hexadecimal digits.
    pub anchors_sha256: &'a str,
}

/// The namespace of an object that is admitted, and the workload that a pod belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    pub namespace: &'a str,
    pub namespace_annotations: &'a Annotations,
    pub owner: Option<Owner<'a>>,
}

/// The workload at the top: a Deployment, not its ReplicaSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// In lower case, such as `deployment`.
    pub kind: &'a str,
    pub name: &'a str,
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The object afterwards.
    pub object: Value,
    /// What leads to it; empty if nothing changes.
    pub patch: Vec<Operation>,
    pub report: Report,
    pub warnings: Vec<Warning>,
}

impl Outcome {
    fn new(patch: Patch, report: Report, warnings: Vec<Warning>) -> Self {
        Self { object: patch.object, patch: patch.operations, report, warnings }
    }
}

/// The webhook's: a Pod or a Service that is created.
pub fn admit(object: &Value, around: Around<'_>, mesh: Mesh<'_>) -> Result<Outcome, Vec<Refusal>> {
    let subject = Subject::read(object).map_err(|refusal| vec![refusal])?;
    let mut report = Report::of(&subject);
    let mut patch = Patch::new(object.clone());
    let mut warnings = vec![];
    match &subject.what {
        // Its proxies are part of it.
        What::Pods(_) if subject.is_of_the_control_plane() => report.skipped.push(Skip::Unsupported),
        What::Pods(pods) => {
            report.decide(pods, around.namespace_annotations.get(names::INJECT).map(String::as_str));
            let opaque = opaque::of_pod(pods, around.namespace_annotations, &mesh.values.proxy.opaque_ports);
            let ports = serving(&pods.spec).flat_map(|c| c.ports.iter().flatten());
            warnings.extend(opaque::unnamed(&pods.annotations, ports.filter_map(|p| p.name.clone())));
            if report.is_injected() {
                admit_pod(&mut patch, pods, &opaque, around, mesh, &mut warnings)?;
            } else {
                warnings.extend(report.skipped.iter().filter_map(|s| bad_mode(*s)));
                if report.skipped.contains(&Skip::NotAsked) {
                    let above =
                        settings::Namespace { name: around.namespace, annotations: around.namespace_annotations };
                    warnings.extend(settings::unasked(&pods.annotations, above));
                }
                patch.add_entries(&format!("{}/metadata/annotations", pods.at), opaque);
            }
        }
        What::Service(spec) => {
            let own = &subject.annotations;
            let above = settings::Namespace { name: around.namespace, annotations: around.namespace_annotations };
            opaque::check(own, Some(above))?;
            own.keys().for_each(|key| settings::unread(key, settings::On::Own, &mut warnings));
            // Of a Service the index would heed only what can be read.
            warnings.extend(client::mistakes(own, client::On::Service).iter().map(|mistake| Warning {
                key: client::annotation_of(mistake).to_owned(),
                message: format!("{}; {}", mistake.message, mistake.remedy),
            }));
            let target = |p: &ServicePort| match &p.target_port {
                Some(IntOrString::String(name)) => Some(name.clone()),
                _ => None,
            };
            let names = spec.ports.iter().flatten().flat_map(|p| [p.name.clone(), target(p)]).flatten();
            warnings.extend(opaque::unnamed(own, names));
            let opaque = opaque::of_service(own, spec, around.namespace_annotations, &mesh.values.proxy.opaque_ports);
            report.annotated = opaque.is_some();
            patch.add_entries("/metadata/annotations", opaque);
        }
        What::Namespace | What::Other => {}
    }
    Ok(Outcome::new(patch, report, warnings))
}

fn bad_mode(skip: Skip) -> Option<Warning> {
    let wrong = matches!(skip, Skip::InvalidAtWorkload | Skip::InvalidAtNamespace);
    wrong.then(|| Warning { key: names::INJECT.to_owned(), message: format!("no proxy: {}", skip.explained()) })
}

fn admit_pod(
    patch: &mut Patch,
    pods: &Pods,
    opaque: &Option<(String, String)>,
    around: Around<'_>,
    mesh: Mesh<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<(), Vec<Refusal>> {
    let Around { namespace, namespace_annotations, owner } = around;
    let above = settings::Namespace { name: namespace, annotations: namespace_annotations };
    let mut own = pods.annotations.clone();
    // What the Namespace says is read as its word.
    own.extend(opaque.clone().filter(|(key, _)| !namespace_annotations.contains_key(key)));
    let mut settings = settings::overlay(mesh.values, &own, Some(above), warnings)?;
    let mode = own.get(names::INJECT).or_else(|| namespace_annotations.get(names::INJECT));
    settings.values.proxy.is_ingress |= mode.is_some_and(|mode| mode == "ingress");

    let mut annotations = settings::inherited(&own, namespace_annotations);
    annotations.extend(opaque.clone());
    annotations.insert(CREATED_BY.to_owned(), format!("linkerd/proxy-injector {}", mesh.values.linkerd_version));
    let mut labels = labels(namespace, mesh);
    if let Some(Owner { kind, name }) = owner.filter(|owner| owner.kind != "pod") {
        labels.extend(owner_label(format!("{}{kind}", label::PROXY_PREFIX), name, warnings));
    }
    insert(patch, pods, &settings, annotations, labels, mesh, warnings);
    Ok(())
}

/// `weft inject --manual`: the proxies are written into the object. `annotations` are those that options ask for.
pub fn manual(object: &Value, annotations: &Annotations, mesh: Mesh<'_>) -> Result<Outcome, Vec<Refusal>> {
    let subject = Subject::read(object).map_err(|refusal| vec![refusal])?;
    let What::Pods(pods) = &subject.what else { return annotate(object, annotations) };
    not_of_the_control_plane(&subject)?;
    let mut report = Report::of(&subject);
    let mut patch = Patch::new(object.clone());
    let mut warnings = vec![];
    disabled(&mut report, &pods.annotations);
    if report.is_injected() {
        let mut own = pods.annotations.clone();
        own.extend(annotations.clone());
        let mut settings = settings::overlay(mesh.values, &own, None, &mut warnings)?;
        settings.values.proxy.is_ingress |= own.get(names::INJECT).is_some_and(|mode| mode == "ingress");
        // The webhook finds the proxy, and leaves the pods alone.
        let mut annotations: Annotations =
            annotations.iter().filter(|(k, _)| *k != names::INJECT).map(|(k, v)| (k.clone(), v.clone())).collect();
        annotations.insert(CREATED_BY.to_owned(), created_by(mesh.values));
        let mut labels = labels(&subject.namespace, mesh);
        if let Some(label) = &pods.owner_label {
            labels.extend(owner_label(label.clone(), &subject.name, &mut warnings));
        }
        insert(&mut patch, pods, &settings, annotations, labels, mesh, &mut warnings);
    }
    Ok(Outcome::new(patch, report, warnings))
}

/// Who wrote what `weft inject` and `weft install` print.
pub(crate) fn created_by(values: &Values) -> String {
    format!("linkerd/cli {}", values.linkerd_version)
}

/// `weft inject`: the webhook is asked for proxies when the pods are made.
pub fn annotate(object: &Value, annotations: &Annotations) -> Result<Outcome, Vec<Refusal>> {
    let subject = Subject::read(object).map_err(|refusal| vec![refusal])?;
    let mut report = Report::of(&subject);
    let mut patch = Patch::new(object.clone());
    let mut annotations = annotations.clone();
    let mut warnings = vec![];
    match &subject.what {
        What::Pods(pods) => {
            not_of_the_control_plane(&subject)?;
            disabled(&mut report, &pods.annotations);
            if report.is_injected() {
                annotations.entry(names::INJECT.to_owned()).or_insert_with(|| mode(&pods.annotations));
                let mut all = pods.annotations.clone();
                all.extend(annotations.clone());
                // What the webhook would refuse or ignore is told before.
                settings::overlay(&Values::default(), &all, None, &mut warnings)?;
                patch.add_entries(&format!("{}/metadata/annotations", pods.at), annotations);
            }
        }
        What::Namespace => {
            annotations.entry(names::INJECT.to_owned()).or_insert_with(|| mode(&subject.annotations));
            let mut all = subject.annotations.clone();
            all.extend(annotations.clone());
            let above = settings::Namespace { name: &subject.name, annotations: &all };
            settings::overlay(&Values::default(), &Annotations::new(), Some(above), &mut warnings)?;
            report.annotated = true;
            patch.add_entries("/metadata/annotations", annotations);
        }
        What::Service(_) => {
            let opaque = annotations.remove_entry(names::OPAQUE_PORTS);
            let mut all = subject.annotations.clone();
            all.extend(opaque.clone());
            opaque::check(&all, None)?;
            report.annotated = opaque.is_some();
            patch.add_entries("/metadata/annotations", opaque);
        }
        What::Other => {}
    }
    Ok(Outcome::new(patch, report, warnings))
}

/// In which mode pods get a proxy for whom no option names one.
fn mode(own: &Annotations) -> String {
    own.get(names::INJECT).filter(|mode| *mode == "ingress").map_or("enabled", String::as_str).to_owned()
}

/// Its pods have proxies that know which part of it they are.
fn not_of_the_control_plane(subject: &Subject) -> Result<(), Vec<Refusal>> {
    if !subject.is_of_the_control_plane() {
        return Ok(());
    }
    let message = "it belongs to the control plane, which is installed with its proxies: remove it from the manifests";
    Err(vec![Refusal { field: format!("metadata.labels[{}]", label::COMPONENT), message: message.to_owned() }])
}

/// Whether an annotation that configures the mesh can have this value.
pub fn check(key: &str, value: &str) -> Result<(), String> {
    match table::find(key) {
        Some(row) => row.check(value),
        None => Err(format!("there is no annotation {key}")),
    }
}

/// In a manifest only a pod's own word counts.
fn disabled(report: &mut Report, annotations: &Annotations) {
    match annotations.get(names::INJECT).map(String::as_str) {
        Some("disabled") => report.skipped.push(Skip::Disabled),
        _ => report.at = Some(At::Workload),
    }
}

/// What every meshed pod has.
fn labels(namespace: &str, mesh: Mesh<'_>) -> Annotations {
    let mut labels = Annotations::from([(label::CONTROL_NAMESPACE.to_owned(), mesh.namespace.to_owned())]);
    // A manifest may leave open which namespace it is applied to.
    if !namespace.is_empty() {
        labels.insert(label::WORKLOAD_NAMESPACE.to_owned(), namespace.to_owned());
    }
    labels
}

/// The label that says which workload a pod belongs to; none where the API server would refuse the pod for it: workloads may have
/// longer names than labels have values.
fn owner_label(key: String, name: &str, warnings: &mut Vec<Warning>) -> Option<(String, String)> {
    let kind = key.rsplit('/').next().unwrap_or_default();
    if is_label_text(kind) && is_label_text(name) {
        return Some((key, name.to_owned()));
    }
    let message = format!("the pod gets no such label: {name:?} cannot be one, which has at most 63 characters");
    warnings.push(Warning { key, message });
    None
}

/// Writes the proxy and what belongs to it.
fn insert(
    patch: &mut Patch,
    pods: &Pods,
    settings: &Settings,
    mut annotations: Annotations,
    labels: Annotations,
    mesh: Mesh<'_>,
    warnings: &mut Vec<Warning>,
) {
    let values = &settings.values;
    let first = pods.spec.containers.first();
    let sidecar = Sidecar {
        values,
        control_namespace: mesh.namespace,
        component: None,
        anchors: Anchors::Text(mesh.anchors_pem),
        inbound_ports: &inbound_ports(&pods.spec),
        opaque_ports: &opaque_numbers(&values.proxy.opaque_ports, &pods.spec),
        trace_attributes: &settings.trace_attributes,
        ends: runs_to_an_end(pods.spec.restart_policy.as_deref()),
        capabilities: first.and_then(|c| c.security_context.as_ref()).and_then(|s| s.capabilities.as_ref()),
        token_mount: first.and_then(token_mount),
    };
    annotations.insert(PROXY_VERSION.to_owned(), values.proxy.image.version.or(&values.linkerd_version).to_owned());
    annotations.insert(TRUST_ROOT_SHA256.to_owned(), mesh.anchors_sha256.to_owned());
    let at = pods.at;
    patch.add_entries(&format!("{at}/metadata/annotations"), annotations);
    patch.add_entries(&format!("{at}/metadata/labels"), labels);

    let (native, await_ready) = (values.proxy.native_sidecar, values.proxy.await_ready);
    let (inits, containers) = (format!("{at}/spec/initContainers"), format!("{at}/spec/containers"));
    let known: BTreeSet<&str> = pods.spec.volumes.iter().flatten().map(|v| v.name.as_str()).collect();
    for volume in sidecar.volumes() {
        if !volume.get("name").and_then(Value::as_str).is_some_and(|name| known.contains(name)) {
            patch.add_item(&format!("{at}/spec/volumes"), Place::Last, volume);
        }
    }
    // In front of the pod's own init containers the network is the proxy's already.
    patch.add_item(&inits, if native { Place::First(0) } else { Place::Last }, sidecar.init(None));
    if settings.debug && !pods.spec.containers.iter().any(|c| c.name == DEBUG) {
        patch.add_item(&containers, Place::Last, sidecar.debug());
    }
    match (native, await_ready) {
        (true, _) => patch.add_item(&inits, Place::First(1), sidecar.proxy()),
        // The kubelet starts the next container when the hook of this one has ended.
        (false, true) => patch.add_item(&containers, Place::First(0), sidecar.proxy()),
        (false, false) => patch.add_item(&containers, Place::Last, sidecar.proxy()),
    }
    warn_of_uid(&pods.spec, values.proxy.uid, warnings);
    warn_of_ports(&pods.spec, &values.proxy.ports, warnings);
}

/// Who listens first on a port keeps the other from it.
fn warn_of_ports(spec: &PodSpec, ports: &Ports, warnings: &mut Vec<Warning>) {
    let Ports { admin, control, inbound, outbound } = *ports;
    for (key, port) in PROXY_PORTS.into_iter().zip([control, admin, inbound, outbound]) {
        let declares = |c: &&Container| c.ports.iter().flatten().any(|p| p.container_port == i32::from(port));
        if let Some(container) = serving(spec).find(declares) {
            let message = format!(
                "the container {} declares the port {port}, on which the proxy listens: give one of them another",
                container.name
            );
            warnings.push(Warning { key: key.to_owned(), message });
        }
    }
}

/// A program that runs as the proxy's user goes around the proxy unseen.
fn warn_of_uid(spec: &PodSpec, uid: i64, warnings: &mut Vec<Warning>) {
    let of_pod = spec.security_context.as_ref().and_then(|s| s.run_as_user);
    for container in object::containers(spec) {
        let own = container.security_context.as_ref().and_then(|s| s.run_as_user);
        if own.or(of_pod) == Some(uid) {
            let message = format!(
                "the container {} runs as the proxy's user {uid}, so what it connects to is not redirected: give it another \
                 runAsUser, or the proxy another uid",
                container.name
            );
            warnings.push(Warning { key: "config.linkerd.io/proxy-uid".to_owned(), message });
        }
    }
}

fn token_mount(container: &Container) -> Option<&VolumeMount> {
    container.volume_mounts.iter().flatten().find(|m| m.mount_path == SERVICE_ACCOUNT_DIR)
}

/// Containers that serve while the pod runs: native sidecars are among the init containers.
fn serving(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let native = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(native))
}

/// The ports that are declared, and those of HTTP probes, in the order of their texts.
fn inbound_ports(spec: &PodSpec) -> String {
    let declared = serving(spec).flat_map(|c| c.ports.iter().flatten()).map(|p| p.container_port);
    let probes = serving(spec).flat_map(|c| [&c.liveness_probe, &c.readiness_probe]).flatten();
    let probed = probes.filter_map(|p| match p.http_get.as_ref()?.port {
        IntOrString::Int(port) => Some(port),
        IntOrString::String(_) => None,
    });
    let ports: BTreeSet<String> = declared.chain(probed).map(|p| p.to_string()).collect();
    ports.into_iter().collect::<Vec<_>>().join(",")
}

/// The opaque ports as the proxy reads them: a name is that of every port of the pod that has it, as the index takes it.
fn opaque_numbers(text: &str, spec: &PodSpec) -> String {
    match text.parse::<PortList>() {
        Ok(list) if !list.names.is_empty() => {
            let containers = object::containers(spec);
            let ports = containers.flat_map(|c| c.ports.iter().flatten()).filter(|p| is_tcp(p.protocol.as_deref()));
            let named = ports.filter(|p| p.name.as_ref().is_some_and(|name| list.names.contains(name)));
            let named: BTreeSet<i32> = named.map(|p| p.container_port).collect();
            let numbers = (!list.numbers.is_empty()).then(|| list.numbers.to_string());
            numbers.into_iter().chain(named.iter().map(i32::to_string)).collect::<Vec<_>>().join(",")
        }
        _ => text.to_owned(),
    }
}

/// Whether a list of ports from the values has the port.
fn has(list: &str, port: i32) -> bool {
    let ranges = list.parse::<PortList>().map(|l| l.numbers).unwrap_or_else(|_| PortRanges::default());
    u16::try_from(port).is_ok_and(|port| ranges.contains(port))
}
