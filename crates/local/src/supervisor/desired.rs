//! From objects to pods: looks at what should run and what runs, and starts and stops what differs.
//!
//! Takes no input: a wake-up only makes it look at the present state again.

use super::{context::Shared, endpoints, manifests::Manifests, names::Zone, plan::ServiceNumbers, pod::Pod};
use crate::{Error, HostService, client::Run, status};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
    sync::Arc,
};
use weft_cluster::{
    Key, Kind, Object,
    k8s::api::core::v1::{Namespace, Service},
    manifest::{self, Ignored, Loaded, Problem},
    object::DEFAULT_NAMESPACE,
    workload::{Template, changes, template},
};

/// What should run and what does.
#[derive(Debug)]
pub(crate) struct Desired {
    context: Shared,
    host_services: Vec<HostService>,
    zone: super::dns::Current,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    manifests: Manifests,
    /// Of the options, which stay, and of `weft run`.
    given: Vec<Object>,
    added: BTreeMap<Key, Object>,
    services: ServiceNumbers,
    templates: BTreeMap<Key, Arc<Template>>,
    pods: BTreeMap<Key, Vec<Pod>>,
    zone_version: Option<u64>,
}

impl Desired {
    pub(crate) fn new(
        context: Shared,
        manifests: Manifests,
        given: Vec<Object>,
        host_services: Vec<HostService>,
        zone: super::dns::Current,
    ) -> Self {
        let inner = Inner { manifests, given, ..Inner::default() };
        Self { context, host_services, zone, inner: Mutex::new(inner) }
    }

    /// Puts a new reading of the manifests in force.
    pub(crate) fn take(&self, loaded: Loaded) {
        for problem in self.inner.lock().manifests.take(loaded) {
            tracing::warn!("{problem}");
        }
        self.reconcile();
    }

    /// Adds a program.
    pub(crate) fn add(&self, run: &Run) -> Result<(), Error> {
        let objects = objects_of(run)?;
        self.find(run)?;
        let mut inner = self.inner.lock();
        let from_files: HashSet<Key> = inner.manifests.in_force().iter().map(|l| l.object.key()).collect();
        if let Some(taken) = objects.iter().map(Object::key).find(|key| from_files.contains(key)) {
            return Err(Error::Refused(format!("{taken} is in a manifest; take another name")));
        }
        inner.added.extend(objects.into_iter().map(|o| (o.key(), o)));
        drop(inner);
        self.reconcile();
        Ok(())
    }

    /// Refuses a program that is certain not to be there. One that programs may not see or start shows when it is started.
    fn find(&self, run: &Run) -> Result<(), Error> {
        let Some(program) = run.command.first() else { return Ok(()) };
        let own = run.env.iter().rev().find_map(|(name, value)| (name == "PATH").then_some(value.as_str()));
        let path = own.unwrap_or(&self.context.path);
        let folder = run.working_dir.as_ref().map(|dir| self.context.working_dir.join(dir));
        let folder = folder.unwrap_or_else(|| self.context.working_dir.clone());
        if is_there(program, path, &folder) {
            return Ok(());
        }
        let place = if program.contains('/') { folder.display().to_string() } else { format!("PATH ({path})") };
        Err(Error::Refused(format!("there is no program {program:?} in {place}")))
    }

    /// Makes what runs what should run, as far as that is possible now.
    pub(crate) fn reconcile(&self) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let objects = inner.objects();
        inner.tell(&self.context, &objects);
        let namespaces: BTreeMap<&str, &Namespace> = objects
            .iter()
            .filter_map(|o| match o {
                Object::Namespace(n) => Some((n.metadata.name.as_deref()?, &**n)),
                _ => None,
            })
            .collect();
        let control = &self.context.settings.control_namespace;
        inner.templates = objects
            .iter()
            .filter_map(|object| match object {
                Object::Deployment(deployment) => {
                    let key = object.key();
                    let namespace = namespaces.get(key.namespace.as_str()).copied();
                    Some((key, Arc::new(template(deployment, namespace, control))))
                }
                _ => None,
            })
            .collect();
        let keys: BTreeSet<Key> = inner.templates.keys().chain(inner.pods.keys()).cloned().collect();
        for key in keys {
            let template = inner.templates.get(&key).cloned();
            let pods = inner.pods.entry(key).or_default();
            pods.retain(|pod| !pod.has_ended());
            roll(&self.context, template.as_ref(), pods);
        }
        inner.pods.retain(|_, pods| !pods.is_empty());
        self.name(inner);
    }

    /// Puts the names in force that follow from the objects.
    fn name(&self, inner: &mut Inner) {
        let version = self.context.store.version();
        if inner.zone_version != Some(version) {
            let objects = self.context.store.objects();
            let domain = &self.context.settings.cluster_domain;
            *self.zone.write() = Arc::new(Zone::new(&objects, &self.host_services, self.context.plan, domain));
            inner.zone_version = Some(version);
        }
    }

    /// All pods, those that end as well.
    pub(crate) fn pods(&self) -> Vec<Pod> {
        self.inner.lock().pods.values().flatten().cloned().collect()
    }

    pub(crate) fn problems(&self) -> (Vec<Problem>, Vec<Ignored>) {
        let inner = self.inner.lock();
        (inner.manifests.last().problems.clone(), inner.manifests.last().ignored.clone())
    }

    pub(crate) fn workloads(&self) -> Vec<status::Workload> {
        let inner = self.inner.lock();
        let keys: BTreeSet<&Key> = inner.templates.keys().chain(inner.pods.keys()).collect();
        let mut workloads: Vec<status::Workload> = keys
            .into_iter()
            .map(|key| {
                let mut pods: Vec<status::Pod> = inner.pods.get(key).into_iter().flatten().map(Pod::status).collect();
                pods.sort_by(|a, b| a.name.cmp(&b.name));
                status::Workload {
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                    replicas: inner.templates.get(key).map_or(0, |t| t.replicas),
                    ready: u32::try_from(pods.iter().filter(|p| p.ready).count()).unwrap_or(u32::MAX),
                    pods,
                }
            })
            .collect();
        workloads.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        workloads
    }

    pub(crate) fn services(&self) -> Vec<status::Service> {
        let of = |service: &Service| status::Service {
            namespace: service.metadata.namespace.clone().unwrap_or_default(),
            name: service.metadata.name.clone().unwrap_or_default(),
            cluster_ips: endpoints::cluster_ips(service),
            ports: service
                .spec
                .iter()
                .flat_map(|s| s.ports.iter().flatten())
                .filter_map(|p| u16::try_from(p.port).ok())
                .collect(),
        };
        let objects = self.context.store.objects();
        let services = objects.iter().filter_map(|o| match o {
            Object::Service(service) => Some(of(service)),
            _ => None,
        });
        services.collect()
    }
}

/// Starts what is missing and stops what is too much. Old pods stay until all new ones are ready.
fn roll(context: &Shared, template: Option<&Arc<Template>>, pods: &mut Vec<Pod>) {
    let wanted = template.map(|t| t.pods()).unwrap_or_default();
    let running: Vec<_> = pods.iter().filter(|p| !p.is_stopping()).map(Pod::desired).collect();
    let changes = changes(&running, &wanted);
    if let Some(template) = template {
        pods.iter().filter(|p| changes.keep.contains(&p.desired())).for_each(|p| p.update(context, template));
        for desired in &changes.start {
            // One of this name that still ends goes first; its end wakes us.
            if !pods.iter().any(|p| p.desired().name == desired.name) {
                pods.push(Pod::start(context, template.clone(), desired));
            }
        }
    }
    let ready = |d: &weft_cluster::workload::Desired| pods.iter().any(|p| p.desired() == *d && p.is_ready());
    let replaced = wanted.iter().all(ready);
    for pod in pods.iter() {
        let desired = pod.desired();
        let outdated = template.is_some_and(|t| t.hash != desired.template_hash);
        if changes.stop.contains(&desired) && (replaced || !outdated) {
            pod.stop();
        }
    }
}

impl Inner {
    /// Everything that was given, each key once; Services with their addresses.
    fn objects(&mut self) -> Vec<Object> {
        let files = self.manifests.in_force().iter().map(|l| l.object.clone());
        let mut objects: BTreeMap<Key, Object> = BTreeMap::new();
        for object in self.added.values().cloned().chain(self.given.iter().cloned()).chain(files) {
            objects.insert(object.key(), object);
        }
        objects.into_values().collect()
    }

    /// Tells the control plane what was given, and takes back what is not given any more.
    fn tell(&mut self, context: &Shared, objects: &[Object]) {
        let mut names = HashSet::new();
        let mut told = Vec::with_capacity(objects.len());
        for object in objects {
            let mut object = object.clone();
            if let Object::Service(service) = &mut object {
                let key = object_key(service);
                names.insert(key.clone());
                give_addresses(service, context, &mut self.services, &key);
            }
            told.push(with_namespace(object));
        }
        self.services.keep(&names);
        context.store.replace(told, |key| !matches!(key.kind, Kind::Pod | Kind::Token));
    }
}

fn object_key(service: &Service) -> (String, String) {
    let namespace = service.metadata.namespace.clone().filter(|n| !n.is_empty());
    (namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.into()), service.metadata.name.clone().unwrap_or_default())
}

/// The namespace that an object is in is written into it, as Kubernetes does.
fn with_namespace(mut object: Object) -> Object {
    let Key { kind, namespace, .. } = object.key();
    if let Some(metadata) = object.metadata_mut().filter(|_| kind.is_namespaced()) {
        metadata.namespace = Some(namespace);
    }
    object
}

/// Gives a Service its cluster IPs, unless it is headless or names its own.
fn give_addresses(service: &mut Service, context: &Shared, numbers: &mut ServiceNumbers, key: &(String, String)) {
    let families = [endpoints::has_family(service, false), endpoints::has_family(service, true)];
    let Some(spec) = service.spec.as_mut() else { return };
    let own = spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty());
    if own || spec.type_.as_deref() == Some("ExternalName") {
        return;
    }
    let Some(number) = numbers.of(&key.0, &key.1) else { return };
    let ips = context.plan.both(number);
    let of_family = |ip: &&std::net::IpAddr| if ip.is_ipv6() { families[1] } else { families[0] };
    let ips: Vec<String> = ips.iter().filter(of_family).map(ToString::to_string).collect();
    spec.ip_families = Some(ips.iter().map(|ip| if ip.contains(':') { "IPv6" } else { "IPv4" }.to_owned()).collect());
    spec.cluster_ip = ips.first().cloned();
    spec.cluster_ips = Some(ips);
}

/// The Deployment and Service that `weft run` stands for, under the same rules as manifests: names become paths and identities.
fn objects_of(run: &Run) -> Result<Vec<Object>, Error> {
    use serde_json::json;
    let labels = json!({ "app": run.name });
    let mut container = json!({
        "name": run.name,
        "image": "none",
        "command": run.command,
        "env": run.env.iter().map(|(n, v)| json!({ "name": n, "value": v })).collect::<Vec<_>>(),
    });
    if let Some(dir) = &run.working_dir {
        container["workingDir"] = json!(dir);
    }
    if let Some(port) = run.port {
        container["ports"] = json!([{ "containerPort": port }]);
        container["readinessProbe"] = json!({ "tcpSocket": { "port": port }, "periodSeconds": 2 });
    }
    let metadata = json!({ "name": run.name, "namespace": run.namespace });
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": run.replicas,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
        },
    });
    let mut text = deployment.to_string();
    if let Some(port) = run.port {
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": { "selector": labels, "ports": [{ "port": port }] },
        });
        text = format!("{text}\n---\n{service}");
    }
    let loaded = manifest::load_text(Path::new("weft run"), &text);
    match loaded.problems.first() {
        Some(Problem { field, message, remedy, .. }) => {
            Err(Error::Refused(format!("{}: {message}; {remedy}", in_words_of_run(field))))
        }
        None => Ok(loaded.objects.into_iter().map(|located| located.object).collect()),
    }
}

/// The flag that a field was made from, and the field.
fn in_words_of_run(field: &str) -> String {
    let flag = match field {
        "metadata.name" | "spec.template.spec.containers[0].name" => "--name",
        "metadata.namespace" => "--namespace",
        "spec.replicas" => "--replicas",
        _ if field.contains("ontainerPort") || field.contains("ports[") => "--port",
        _ if field.contains(".env") => "--env",
        _ => return field.to_owned(),
    };
    format!("{flag} ({field})")
}

/// Whether there is a file of this name where `execvp` would look.
fn is_there(program: &str, path: &str, folder: &Path) -> bool {
    // A relative folder of PATH is one below the program's own.
    let mut folders = std::env::split_paths(path).map(|dir| folder.join(dir));
    if program.contains('/') { folder.join(program).exists() } else { folders.any(|dir| dir.join(program).exists()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_nowhere_is_not_there() {
        for (program, path, folder, there) in [
            ("sh", "/nowhere:/bin", "/", true),
            ("sh", "/nowhere", "/", false),
            ("sh", "bin", "/", true),
            ("./sh", "/nowhere", "/bin", true),
            ("bin/sh", "/nowhere", "/", true),
            ("/bin/sh", "", "/nowhere", true),
            ("/bin/no-such-program", "/bin", "/", false),
            ("no-such-program", "/bin:/usr/bin", "/", false),
        ] {
            assert_eq!(is_there(program, path, Path::new(folder)), there, "{program} {path} {folder}");
        }
    }

    #[test]
    fn an_added_program_is_under_the_rules_of_manifests() {
        let run = |name: &str, namespace: &str, port, replicas| Run {
            namespace: namespace.into(),
            name: name.into(),
            replicas,
            port,
            command: vec!["a \"quoted\": program\n".into(), "{- #\u{1}é}".into()],
            env: vec![("A".into(), "x: 'y'".into())],
            working_dir: Some("/".into()),
        };
        let objects = objects_of(&run("web", "shop", Some(80), 2)).unwrap();
        let [Object::Deployment(deployment), Object::Service(_)] = objects.as_slice() else { panic!("{objects:?}") };
        let container = &deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0];
        assert_eq!(container.command.as_ref().unwrap(), &run("", "", None, 0).command);
        assert_eq!(objects_of(&run("job", "default", None, 1)).unwrap().len(), 1);
        for (bad, part) in [
            (run("../../x", "shop", None, 1), "metadata.name"),
            (run("A b", "shop", None, 1), "metadata.name"),
            (run("a.b", "shop", Some(80), 1), "--name ("),
            (run("a.b", "shop", None, 1), "\"a.b\" is no valid container name; use 1 to 63 lower-case letters"),
            (run("web", "a.b", None, 1), "--namespace (metadata.namespace)"),
            (run("web", "shop", Some(0), 1), "--port ("),
            (run("", "shop", None, 1), "metadata.name"),
            (run("web", "../..", None, 1), "metadata.namespace"),
            (run("web", "shop", Some(0), 1), "containerPort"),
            (run("web", "shop", Some(4143), 1), "port clash"),
            (run("web", "shop", None, 1_000_000), "spec.replicas"),
        ] {
            let refused = objects_of(&bad).unwrap_err().to_string();
            assert!(refused.contains(part), "{bad:?}: {refused}");
        }
    }
}
