//! Whether all of an installation is there, and ready.

use super::{
    Check, Run, none,
    remedy::{Failed, describe, mended},
    table, text,
};
use serde_json::Value;
use std::{collections::BTreeMap, ops::ControlFlow};
use weft_cluster::{
    install::{self, By, CONFIG, Installation, Material},
    k8s::api::core::v1::{Node, Pod},
    kubernetes::{Cluster, Resource},
    label,
    values::Values,
};
use weft_model::decide::cidr::Cidr;

const DEPLOYMENT: Resource = Resource::new("apps", "v1", "Deployment", "deployments");
const EXTENSION: &str = "linkerd.io/extension";
const POLICY: &str = "policy.linkerd.io";
const COMPONENTS: [&str; 3] = ["destination", "identity", "proxy-injector"];
const KINDS: [(&Check, Resource, bool); 8] = [
    (&table::NAMESPACE, Resource::new("", "v1", "Namespace", "namespaces"), false),
    (&table::ROLES, Resource::new("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles"), false),
    (
        &table::BINDINGS,
        Resource::new("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings"),
        false,
    ),
    (&table::ACCOUNTS, Resource::new("", "v1", "ServiceAccount", "serviceaccounts"), true),
    (
        &table::MUTATING,
        Resource::new(
            "admissionregistration.k8s.io",
            "v1",
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
        ),
        false,
    ),
    (
        &table::VALIDATING,
        Resource::new(
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
        ),
        false,
    ),
    (&table::SERVERS, Resource::new(POLICY, "v1beta3", "Server", "servers"), true),
    (
        &table::SERVER_AUTHORIZATIONS,
        Resource::new(POLICY, "v1beta1", "ServerAuthorization", "serverauthorizations"),
        true,
    ),
];

/// The control plane, and the values that it is installed with.
pub(super) async fn exists(run: &mut Run<'_>, cluster: &Cluster, namespace: &str) -> ControlFlow<(), Values> {
    let values = run.found(&table::VALUES, values(cluster, namespace).await)?;
    run.line(&table::REPLICAS, async || replicas(cluster, namespace).await).await?;
    run.line(&table::SCHEDULABLE, async || schedulable(cluster, namespace).await).await?;
    run.line(&table::READY, async || ready(cluster, namespace).await).await?;
    run.line(&table::NODE_NETWORKS, async || nodes(cluster, &values).await).await?;
    run.line(&table::POD_NETWORKS, async || pods(cluster, &values).await).await?;
    run.line(&table::SERVICE_NETWORKS, async || services(cluster, &values).await).await?;
    ControlFlow::Continue(values)
}

async fn values(cluster: &Cluster, namespace: &str) -> Result<Values, Failed> {
    let of = format!("the ConfigMap {CONFIG} of the namespace {namespace}");
    let data = cluster.config_map(namespace, CONFIG).await.map_err(text)?;
    let data = data.ok_or_else(|| format!("there is no ConfigMap {CONFIG} in the namespace {namespace}"))?;
    // It is there, so that an installation would be refused: what was given is written anew.
    let unread = |why: String| Failed::upgraded(why, "");
    let values = data.get("values").ok_or_else(|| unread(format!("{of} has no key `values`")))?;
    Values::from_yaml(values).map_err(|problems| unread(format!("{of}: {problems}")))
}

async fn replicas(cluster: &Cluster, namespace: &str) -> Result<(), Failed> {
    let mut wrong = vec![];
    for component in COMPONENTS {
        let name = format!("linkerd-{component}");
        let found = cluster.object(DEPLOYMENT, Some(namespace), &name).await.map_err(text)?;
        let Some(found) = found else {
            return Err(Failed::upgraded(format!("there is no Deployment {name}"), ""));
        };
        let wanted = found["spec"]["replicas"].as_i64().unwrap_or(1);
        let ready = found["status"]["readyReplicas"].as_i64().unwrap_or(0);
        if ready < wanted {
            let why = format!("of the Deployment {name} {ready} of {wanted} replicas are ready");
            let pods = format!("kubectl -n {namespace} describe pods -l {}={component}", label::COMPONENT);
            wrong.push((why, pods));
        }
    }
    mended(wrong)
}

/// Pods of the control plane.
async fn own(cluster: &Cluster, namespace: &str) -> Result<Vec<Pod>, String> {
    cluster.pods(Some(namespace), label::COMPONENT).await.map_err(text)
}

fn condition<'p>(pod: &'p Pod, name: &str) -> Option<(&'p str, &'p str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|c| c.type_ == name)?;
    Some((found.status.as_str(), found.message.as_deref().unwrap_or_default()))
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

async fn schedulable(cluster: &Cluster, namespace: &str) -> Result<(), Failed> {
    let pods = own(cluster, namespace).await?;
    let wrong = pods.iter().filter_map(|pod| match condition(pod, "PodScheduled")? {
        ("False", message) => Some((format!("pod {}: {message}", name(pod)), describe(pod))),
        _ => None,
    });
    mended(wrong.collect())
}

async fn ready(cluster: &Cluster, namespace: &str) -> Result<(), Failed> {
    let pods = own(cluster, namespace).await?;
    let mut wrong = vec![];
    for component in COMPONENTS {
        let component_of = |pod: &Pod| pod.metadata.labels.as_ref()?.get(label::COMPONENT).cloned();
        let mut of = pods.iter().filter(|pod| component_of(pod).as_deref() == Some(component)).peekable();
        if of.peek().is_none() {
            let deployment = format!("kubectl -n {namespace} describe deployment linkerd-{component}");
            wrong.push((format!("there is no pod of {component}"), deployment));
        }
        let unready = of.filter(|pod| condition(pod, "Ready").is_none_or(|(status, _)| status != "True"));
        wrong.extend(unready.map(|pod| {
            let why = condition(pod, "Ready").map(|(_, message)| message).unwrap_or_default();
            (format!("pod {} is not ready: {why}", name(pod)), describe(pod))
        }));
    }
    mended(wrong)
}

/// Those of the addresses that are in none of the cluster's networks.
fn outside(values: &Values, networks: impl Iterator<Item = (String, String)>) -> Result<(), String> {
    let known: Vec<Cidr> = values.cluster_networks.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let is_within = |network: &str| match network.parse::<Cidr>() {
        Ok(network) => known.iter().any(|k| k.contains(network.addr()) && k.prefix_len() <= network.prefix_len()),
        Err(_) => network.parse().is_ok_and(|address| known.iter().any(|k| k.contains(address))),
    };
    let wrong = networks.filter(|(_, network)| !is_within(network)).map(|(of, network)| format!("{of} has {network}"));
    // A few tell it all.
    none(wrong.take(5).collect())
}

async fn nodes(cluster: &Cluster, values: &Values) -> Result<(), Failed> {
    let nodes = cluster.nodes().await.map_err(text)?;
    let networks = nodes.into_iter().flat_map(|node| {
        let name = format!("node {}", node.metadata.name.unwrap_or_default());
        let spec = node.spec.unwrap_or_default();
        let all = spec.pod_cidrs.unwrap_or_else(|| spec.pod_cidr.into_iter().collect());
        all.into_iter().map(move |network| (name.clone(), network))
    });
    let networks: Vec<(String, String)> = networks.collect();
    outside(values, networks.iter().cloned()).map_err(|why| {
        // All that there are, once: what lies within another does no harm.
        let mut all: Vec<&str> = values.cluster_networks.split(',').map(str::trim).collect();
        for (_, network) in &networks {
            if !all.contains(&network.as_str()) {
                all.push(network);
            }
        }
        let options = format!("--set 'clusterNetworks={}'", all.join("\\,"));
        Failed::upgraded(why, &options)
    })
}

async fn pods(cluster: &Cluster, values: &Values) -> Result<(), String> {
    let pods = cluster.pods(None, "").await.map_err(text)?;
    let addresses = pods.into_iter().filter(|pod| pod.spec.as_ref().is_some_and(|s| s.host_network != Some(true)));
    let addresses = addresses.flat_map(|pod| {
        let of = format!("pod {}/{}", pod.metadata.namespace.as_deref().unwrap_or_default(), name(&pod));
        let all = pod.status.and_then(|status| status.pod_ips).unwrap_or_default();
        all.into_iter().map(move |address| (of.clone(), address.ip))
    });
    outside(values, addresses)
}

async fn services(cluster: &Cluster, values: &Values) -> Result<(), String> {
    let services = cluster.services().await.map_err(text)?;
    let addresses = services.into_iter().flat_map(|service| {
        let meta = service.metadata;
        let of = format!("Service {}/{}", meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
        let all = service.spec.and_then(|spec| spec.cluster_ips).unwrap_or_default();
        all.into_iter().filter(|ip| ip != "None").map(move |ip| (of.clone(), ip))
    });
    outside(values, addresses)
}

/// Each object that is rendered.
pub(super) async fn complete(
    run: &mut Run<'_>,
    cluster: &Cluster,
    namespace: &str,
    values: &Values,
) -> ControlFlow<()> {
    let material = Material::default();
    let installation = Installation { values, namespace, by: By::Cli, material: &material, overrides: "" };
    let objects = install::control_plane(installation);
    for (check, resource, is_namespaced) in KINDS {
        let names: Vec<&str> = of_kind(&objects, resource.kind).collect();
        let within = is_namespaced.then_some(namespace);
        run.line(check, async || {
            let mut wrong = vec![];
            for name in &names {
                if cluster.object(resource, within, name).await.map_err(text)?.is_none() {
                    wrong.push(format!("there is no {} {name}", resource.kind));
                }
            }
            none(wrong)
        })
        .await?;
        if resource.kind == "ServiceAccount" {
            defined(run, cluster, namespace, &table::DEFINITIONS).await?;
        }
    }
    run.line(&table::RUN_AS_ROOT, async || {
        let nodes = cluster.nodes().await.map_err(text)?;
        let runtime =
            |node: &Node| node.status.as_ref()?.node_info.as_ref().map(|i| i.container_runtime_version.clone());
        let wrong = nodes.iter().filter(|node| runtime(node).is_some_and(|r| r.starts_with("docker:")));
        let wrong = wrong.filter(|_| !values.proxy_init.run_as_root);
        let name = |node: &Node| node.metadata.name.clone().unwrap_or_default();
        none(wrong.map(|node| format!("node {} runs Docker, where linkerd-init has to be root", name(node))).collect())
    })
    .await
}

/// Of a highly available installation: whether one may go away.
pub(super) async fn several(run: &mut Run<'_>, cluster: &Cluster, namespace: &str, values: &Values) -> ControlFlow<()> {
    if !values.high_availability {
        return ControlFlow::Continue(());
    }
    run.line(&table::SEVERAL, async || {
        let mut wrong = vec![];
        for component in COMPONENTS {
            let name = format!("linkerd-{component}");
            let found = cluster.object(DEPLOYMENT, Some(namespace), &name).await.map_err(text)?.unwrap_or_default();
            let available = found["status"]["availableReplicas"].as_i64().unwrap_or(0);
            if available <= 1 {
                wrong.push(format!("of the Deployment {name} {available} replicas are available"));
            }
        }
        none(wrong)
    })
    .await
}

/// Whether each extension is installed once.
pub(super) async fn extensions(run: &mut Run<'_>, cluster: &Cluster) -> ControlFlow<()> {
    run.line(&table::EXTENSIONS, async || {
        let mut namespaces = BTreeMap::<String, Vec<String>>::new();
        for namespace in cluster.namespaces(EXTENSION).await.map_err(text)? {
            let of = namespace.metadata.labels.and_then(|mut labels| labels.remove(EXTENSION)).unwrap_or_default();
            namespaces.entry(of).or_default().extend(namespace.metadata.name);
        }
        let several = namespaces.into_iter().filter(|(_, names)| names.len() > 1);
        mended(
            several
                .map(|(of, names)| {
                    // Which of them is meant its owner knows.
                    let others = names.get(1..).unwrap_or_default().join(" ");
                    let command = format!("kubectl label namespace {others} {EXTENSION}-");
                    (format!("the namespaces {} have the extension {of}", names.join(", ")), command)
                })
                .collect(),
        )
    })
    .await
}

fn of_kind<'o>(objects: &'o [Value], kind: &'o str) -> impl Iterator<Item = &'o str> {
    objects.iter().filter(move |object| object["kind"] == kind).filter_map(|object| object["metadata"]["name"].as_str())
}

pub(super) async fn defined(
    run: &mut Run<'_>,
    cluster: &Cluster,
    namespace: &str,
    check: &'static Check,
) -> ControlFlow<()> {
    run.line(check, async || install::defined(cluster, &Values::default(), namespace).await.map_err(|e| e.to_string()))
        .await
}

pub(super) fn version(run: &mut Run<'_>, values: &Values, wanted: &str) -> ControlFlow<()> {
    let found = &*values.linkerd_version;
    let wrong = (found != wanted).then(|| format!("the control plane is {found}, this command {wanted}"));
    run.noted(&table::SAME_VERSION, none(wrong.into_iter().collect()))
}
