//! Whether all of an installation is there, and ready.

use super::{
    Check, Run, asked,
    identity::{Looked, in_the_way},
    none,
    remedy::{Failed, Installer, describe, few, mended},
    table,
};
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr, ops::ControlFlow, time::SystemTime};
use tokio::sync::OnceCell;
use weft_cluster::{
    install::{self, By, CONFIG, Installation, Material},
    k8s::api::core::v1::{Namespace, Pod},
    kubernetes::{Cluster, Error, Resource},
    label,
    values::Values,
};
use weft_model::decide::cidr::Cidr;

const DEPLOYMENT: Resource = Resource::new("apps", "v1", "Deployment", "deployments");
const SERVICE_NETWORK: Resource = Resource::new("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs");
const EXTENSION: &str = "linkerd.io/extension";
const POLICY: &str = "policy.linkerd.io";
const COMPONENTS: [&str; 3] = ["destination", "identity", "proxy-injector"];
const KINDS: [(&Check, Resource, bool); 9] = [
    (&table::NAMESPACE, Resource::new("", "v1", "Namespace", "namespaces"), false),
    (&table::ROLES, Resource::new("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles"), false),
    (
        &table::BINDINGS,
        Resource::new("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings"),
        false,
    ),
    (&table::ACCOUNTS, Resource::new("", "v1", "ServiceAccount", "serviceaccounts"), true),
    (&table::SERVICES, Resource::new("", "v1", "Service", "services"), true),
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
pub(super) async fn exists(
    run: &mut Run<'_>,
    cluster: &Cluster,
    namespace: &str,
    now: SystemTime,
) -> ControlFlow<(), Values> {
    let values = run.found(&table::VALUES, values(cluster, namespace).await)?;
    let at = Looked { cluster, namespace, values: &values, now };
    run.line(&table::REPLICAS, async || blamed(replicas(cluster, namespace).await, at).await).await?;
    run.line(&table::SCHEDULABLE, async || schedulable(cluster, namespace).await).await?;
    run.line(&table::READY, async || blamed(ready(cluster, namespace).await, at).await).await?;
    run.line(&table::NODE_NETWORKS, async || nodes(cluster, &values).await).await?;
    run.line(&table::POD_NETWORKS, async || pods(cluster, &values).await).await?;
    run.line(&table::SERVICE_NETWORKS, async || services(cluster, &values).await).await?;
    ControlFlow::Continue(values)
}

/// Nobody is ready without a certificate: where none can be given, that is what is to be mended.
async fn blamed(asked: Result<(), Failed>, at: Looked<'_>) -> Result<(), Failed> {
    let Err(failed) = asked else { return Ok(()) };
    match in_the_way(at).await {
        Some(cause) => Err(Failed { why: format!("{}; {}", cause.why, failed.why), ..cause }),
        None => Err(failed),
    }
}

async fn values(cluster: &Cluster, namespace: &str) -> Result<Values, Failed> {
    let of = format!("the ConfigMap {CONFIG} of the namespace {namespace}");
    let data = cluster.config_map(namespace, CONFIG).await?;
    let Some(data) = data else {
        let missing = Failed::from(format!("there is no ConfigMap {CONFIG} in the namespace {namespace}"));
        let refused = match install::not_installed(cluster, namespace).await {
            Ok(()) => install::rooted(cluster, namespace, "").await,
            refused => refused,
        };
        return Err(missing.instead_of(&table::VALUES.remedy, namespace, &refused, |other| {
            format!("weft check -L {}, where a control plane is", other.namespace)
        }));
    };
    // It is there, so that an installation would be refused: what was given is written anew.
    let unread = |why: String| Failed::upgraded(why, "");
    let values = data.get("values").ok_or_else(|| unread(format!("{of} has no key `values`")))?;
    Values::from_yaml(values).map_err(|problems| unread(format!("{of}: {problems}")))
}

async fn replicas(cluster: &Cluster, namespace: &str) -> Result<(), Failed> {
    let mut wrong = vec![];
    for component in COMPONENTS {
        let name = format!("linkerd-{component}");
        let found = cluster.object(DEPLOYMENT, Some(namespace), &name).await?;
        let Some(found) = found else {
            return Err(Failed::upgraded(format!("there is no Deployment {name}"), ""));
        };
        let wanted = found["spec"]["replicas"].as_i64().unwrap_or(1);
        let ready = found["status"]["readyReplicas"].as_i64().unwrap_or(0);
        if wanted == 0 {
            let scaled = format!("kubectl -n {namespace} scale deployment {name} --replicas=1");
            wrong.push((format!("the Deployment {name} asks for no pods"), scaled));
        }
        if ready < wanted {
            let why = format!("of the Deployment {name} {ready} of {wanted} replicas are ready");
            let pods = format!("kubectl -n {namespace} describe pods -l {}={component}", label::COMPONENT);
            wrong.push((why, pods));
        }
    }
    mended(wrong)
}

/// Pods of the control plane.
async fn own(cluster: &Cluster, namespace: &str) -> Result<Vec<Pod>, Error> {
    cluster.pods(Some(namespace), label::COMPONENT).await
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

/// Those of the addresses and networks that are in none of the cluster's, and what takes them in: the networks around them that are
/// known, or some of the usual size.
fn outside(values: &Values, found: &[(String, String)], around: &[String]) -> Result<(), Failed> {
    let given = values.cluster_networks.split(',').map(str::trim).filter(|network| !network.is_empty());
    let mut all: Vec<String> = given.map(str::to_owned).collect();
    let known: Vec<Cidr> = all.iter().filter_map(|network| network.parse().ok()).collect();
    let around: Vec<Cidr> = around.iter().filter_map(|network| network.parse().ok()).collect();
    let is_within = |one: Cidr| known.iter().any(|k| k.contains(one.addr()) && k.prefix_len() <= one.prefix_len());
    let mut wrong = vec![];
    for (of, network) in found {
        let address = network.parse::<IpAddr>().ok();
        let one = network.parse().ok().or_else(|| Cidr::new(address?, if address?.is_ipv4() { 32 } else { 128 }));
        let Some(one) = one.filter(|one| !is_within(*one)) else { continue };
        wrong.push(format!("{of} has {network}"));
        let usual = || Cidr::new(one.addr(), if one.addr().is_ipv4() { 16 } else { 64 });
        let wider = address.and_then(|_| around.iter().find(|a| a.contains(one.addr())).copied().or_else(usual));
        let taken_in = wider.unwrap_or(one).to_string();
        if !all.contains(&taken_in) {
            all.push(taken_in);
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failed::upgraded(few(&wrong), &format!("--set 'clusterNetworks={}'", all.join("\\,"))))
}

/// Those that nodes give to their pods.
async fn of_nodes(cluster: &Cluster) -> Result<Vec<(String, String)>, Error> {
    let networks = cluster.nodes().await?.into_iter().flat_map(|node| {
        let name = format!("node {}", node.metadata.name.unwrap_or_default());
        let spec = node.spec.unwrap_or_default();
        let all = spec.pod_cidrs.unwrap_or_else(|| spec.pod_cidr.into_iter().collect());
        all.into_iter().map(move |network| (name.clone(), network))
    });
    Ok(networks.collect())
}

async fn nodes(cluster: &Cluster, values: &Values) -> Result<(), Failed> {
    outside(values, &of_nodes(cluster).await?, &[])
}

async fn pods(cluster: &Cluster, values: &Values) -> Result<(), Failed> {
    let pods = cluster.pods(None, "").await?;
    let addresses = pods.into_iter().filter(|pod| pod.spec.as_ref().is_some_and(|s| s.host_network != Some(true)));
    let addresses = addresses.flat_map(|pod| {
        let of = format!("pod {}/{}", pod.metadata.namespace.as_deref().unwrap_or_default(), name(&pod));
        let all = pod.status.and_then(|status| status.pod_ips).unwrap_or_default();
        all.into_iter().map(move |address| (of.clone(), address.ip))
    });
    let around: Vec<String> = of_nodes(cluster).await?.into_iter().map(|(_, network)| network).collect();
    outside(values, &addresses.collect::<Vec<_>>(), &around)
}

async fn services(cluster: &Cluster, values: &Values) -> Result<(), Failed> {
    let services = cluster.services().await?;
    let addresses = services.into_iter().flat_map(|service| {
        let meta = service.metadata;
        let of = format!("Service {}/{}", meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
        let all = service.spec.and_then(|spec| spec.cluster_ips).unwrap_or_default();
        all.into_iter().filter(|ip| ip != "None").map(move |ip| (of.clone(), ip))
    });
    // Older clusters do not tell.
    let told = cluster.objects(SERVICE_NETWORK, "").await?;
    let around = told.iter().flat_map(|network| network["spec"]["cidrs"].as_array().into_iter().flatten());
    let around: Vec<String> = around.filter_map(Value::as_str).map(str::to_owned).collect();
    outside(values, &addresses.collect::<Vec<_>>(), &around)
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
                if cluster.object(resource, within, name).await?.is_none() {
                    wrong.push(format!("there is no {} {name}", resource.kind));
                }
            }
            none::<Failed>(wrong)
        })
        .await?;
        if resource.kind == "ServiceAccount" {
            defined(run, cluster, namespace, &table::DEFINITIONS).await?;
        }
        if resource.kind == "ValidatingWebhookConfiguration" {
            run.line(&table::CONFIGURED, async || asked::as_installed(cluster, &objects).await).await?;
        }
    }
    run.line(&table::RUN_AS_ROOT, async || install::root_where_it_has_to_be(cluster, values).await).await
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
            let found = cluster.object(DEPLOYMENT, Some(namespace), &name).await?.unwrap_or_default();
            let available = found["status"]["availableReplicas"].as_i64().unwrap_or(0);
            if available <= 1 {
                wrong.push(format!("of the Deployment {name} {available} replicas are available"));
            }
        }
        none::<Failed>(wrong)
    })
    .await
}

/// Whether each extension is installed once. Of several namespaces that one is meant in which its pods are, else the oldest.
pub(super) async fn extensions(run: &mut Run<'_>, cluster: &Cluster) -> ControlFlow<()> {
    run.line(&table::EXTENSIONS, async || {
        let mut namespaces = BTreeMap::<String, Vec<Namespace>>::new();
        for namespace in cluster.namespaces(EXTENSION).await? {
            let labels = namespace.metadata.labels.as_ref();
            let of = labels.and_then(|labels| labels.get(EXTENSION).cloned()).unwrap_or_default();
            namespaces.entry(of).or_default().push(namespace);
        }
        namespaces.retain(|_, of| of.len() > 1);
        let mut wrong = vec![];
        for (of, mut all) in namespaces {
            let pods = cluster.pods(None, &format!("{EXTENSION}={of}")).await?;
            let has_pods = |one: &Namespace| pods.iter().any(|pod| pod.metadata.namespace == one.metadata.name);
            all.sort_by_key(|one| {
                let created = one.metadata.creation_timestamp.as_ref().map(|time| time.0);
                (!has_pods(one), created, one.metadata.name.clone())
            });
            let names: Vec<String> = all.into_iter().filter_map(|one| one.metadata.name).collect();
            let [kept, others @ ..] = names.as_slice() else { continue };
            let command = format!("kubectl label namespace {} {EXTENSION}-", others.join(" "));
            wrong.push((
                format!("the namespaces {} have the extension {of}, as {kept} alone should", names.join(", ")),
                command,
            ));
        }
        mended(wrong)
    })
    .await
}

fn of_kind<'o>(objects: &'o [Value], kind: &'o str) -> impl Iterator<Item = &'o str> {
    objects.iter().filter(move |object| object["kind"] == kind).filter_map(|object| object["metadata"]["name"].as_str())
}

/// The definitions alone, after the first half of an installation.
pub(super) async fn first_half(run: &mut Run<'_>, cluster: &Cluster, namespace: &str) -> ControlFlow<()> {
    // Asked where something is missing, and once however often that is looked for.
    let refused = OnceCell::new();
    run.line(&table::DEFINED, async || {
        let Err(missing) = install::defined(cluster, &Values::default(), namespace).await else { return Ok(()) };
        let refused = refused.get_or_init(|| install::not_installed(cluster, namespace)).await;
        Err(Failed::from(missing).instead_of(&table::DEFINED.remedy, namespace, refused, Installer::upgrade_crds))
    })
    .await
}

pub(super) async fn defined(
    run: &mut Run<'_>,
    cluster: &Cluster,
    namespace: &str,
    check: &'static Check,
) -> ControlFlow<()> {
    run.line(check, async || install::defined(cluster, &Values::default(), namespace).await).await
}

pub(super) fn version(run: &mut Run<'_>, values: &Values, wanted: &str) -> ControlFlow<()> {
    let found = &*values.linkerd_version;
    let wrong = (found != wanted).then(|| format!("the control plane is {found}, this command {wanted}"));
    run.noted(&table::SAME_VERSION, none::<String>(wrong.into_iter().collect()))
}
