//! Whether a cluster is ready for what is to be installed.

use super::{
    By, CONFIG, ISSUER, Installation, Material, Release, config, control_plane,
    crd::{ROUTES, is_ours},
    crds, helm_release, remains, unheeded,
};
use crate::{
    inject::{TRUST_ROOTS, TRUST_ROOTS_KEY},
    k8s::api::core::v1::Node,
    kubernetes::{Cluster, Error, Resource},
    label,
    policy::GROUP,
    values::Values,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// Definitions of the Gateway API, in whose kinds routes are written: its own project's to install, unless we are asked to.
const GATEWAY_API: [&str; 2] = ["httproutes.gateway.networking.k8s.io", "grpcroutes.gateway.networking.k8s.io"];
/// The Prometheus operator's definition of PodMonitors.
const PODMONITORS: &str = "podmonitors.monitoring.coreos.com";
/// The ports of the API server where its Service names none.
const API_SERVER_PORTS: &str = "443,6443";

/// Kinds of the mesh's own that an installation has objects of.
const POLICIES: [Resource; 2] = [
    Resource::new(GROUP, "v1beta3", "Server", "servers"),
    Resource::new(GROUP, "v1beta1", "ServerAuthorization", "serverauthorizations"),
];
/// How long the API server may take to serve a kind that is defined, …
const SERVED: Duration = Duration::from_secs(10);
/// … and how often it is asked.
const BETWEEN: Duration = Duration::from_millis(100);

/// Why it is not.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    #[error(transparent)]
    Cluster(#[from] Error),
    #[error(
        "a control plane is installed in the namespace {namespace} already, says its ConfigMap {CONFIG}, and a cluster has one; change it \
         by {}, or, if none runs there any more, `kubectl -n {namespace} delete configmap {CONFIG} {TRUST_ROOTS}`",
        said(&carried_on(.namespace, .release.as_ref()))
    )]
    Installed { namespace: String, release: Option<Release> },
    #[error(
        "{} to a control plane in the namespace {of}, says the label {}, and would be overwritten; that control plane is meant by -L {of}; \
         if it is gone, say so by {}",
        belong(.0), label::CONTROL_NAMESPACE, said(&labelled(.0, .1)), of = .0.first().map_or("", |first| first.of.as_str())
    )]
    Others(Vec<Owned>, String),
    #[error(
        "an installation has left its trust anchors in the namespace {namespace}, in the ConfigMap {TRUST_ROOTS}, but no ConfigMap {CONFIG}: \
         no proxy that runs would believe others; keep them by {}, or, if no pod of that mesh is left, `kubectl -n {namespace} delete \
         configmap {TRUST_ROOTS}`",
        said(&kept(.namespace, *.values_are_left))
    )]
    Rooted {
        namespace: String,
        /// The values that were given are there, too.
        values_are_left: bool,
    },
    #[error(
        "the Gateway API's definition {name} {wrong}; install it by\n\n    kubectl apply --server-side -f \
         https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.4.1/standard-install.yaml\n\n\
         or let weft bring it, by --set installGatewayAPI=true"
    )]
    GatewayApi { name: &'static str, wrong: &'static str },
    #[error(
        "the Gateway API's definitions {} stand in the cluster already and are not weft's, which are of another version or channel; leave \
         them to who has brought them, by --set {}",
        .0.join(", "), .1.iter().map(|value| format!("{value}=false")).collect::<Vec<_>>().join(",")
    )]
    GatewayApiOfOthers(Vec<&'static str>, BTreeSet<&'static str>),
    #[error(
        "the definition {name} of version {version} is missing; run `weft install --crds | kubectl apply -f -` first"
    )]
    Undefined { name: String, version: String },
    #[error(
        "PodMonitors are asked for, and the definition {PODMONITORS} {0}; install the Prometheus operator first, or set \
         podMonitor.enabled to false"
    )]
    NoPodMonitors(&'static str),
    #[error(
        "on nodes that run Docker ({}) linkerd-init has to be root; give --set proxyInit.runAsRoot=true",
        first(.0)
    )]
    NoRoot(Vec<String>),
    #[error("{} objects that this version of weft does not carry out ({}{}): nothing that they say would hold; delete them first", .0.len(), first(.0), if .0.len() > NAMED { ", …" } else { "" })]
    Unheeded(Vec<String>),
}

/// An object of another control plane's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    kind: &'static str,
    /// Empty of an object without one.
    namespace: String,
    name: String,
    /// The namespace of that control plane.
    of: String,
}

impl NotReady {
    /// The commands that mend it, where it is known which.
    pub fn remedy(&self) -> Option<String> {
        let commands = match self {
            Self::Installed { namespace, release } => carried_on(namespace, release.as_ref()),
            Self::Others(all, namespace) => labelled(all, namespace),
            Self::Rooted { namespace, values_are_left } => kept(namespace, *values_are_left),
            Self::Cluster(_)
            | Self::GatewayApi { .. }
            | Self::GatewayApiOfOthers(..)
            | Self::Undefined { .. }
            | Self::NoPodMonitors(_)
            | Self::NoRoot(_)
            | Self::Unheeded(_) => return None,
        };
        Some(commands.join(" && "))
    }
}

/// What makes an installation anew, whoever's it is.
fn carried_on(namespace: &str, release: Option<&Release>) -> Vec<String> {
    match release {
        Some(release) => vec![release.upgrade_crds(namespace), release.upgrade(namespace, "")],
        None => ["--crds ", ""].map(|crds| format!("weft upgrade -L {namespace} {crds}| kubectl apply -f -")).to_vec(),
    }
}

/// What makes an installation anew that has lost its ConfigMap: without the values that were given, by anchors and issuer alone.
fn kept(namespace: &str, values_are_left: bool) -> Vec<String> {
    if values_are_left {
        return carried_on(namespace, None);
    }
    let save = |what: &str, key: &str, file: &str| {
        let decode = if what.starts_with("secret") { "| base64 -d " } else { "" };
        format!(
            "kubectl -n {namespace} get {what} -o jsonpath='{{.data.{}}}' {decode}> {file}",
            key.replace('.', "\\.")
        )
    };
    let issuer = format!("secret {ISSUER}");
    vec![
        save(&format!("configmap {TRUST_ROOTS}"), TRUST_ROOTS_KEY, "root.crt"),
        save(&issuer, "crt.pem", "issuer.crt"),
        save(&issuer, "key.pem", "issuer.key"),
        format!(
            "weft install -L {namespace} --identity-trust-anchors-file root.crt --identity-issuer-certificate-file issuer.crt \
             --identity-issuer-key-file issuer.key | kubectl apply -f -"
        ),
    ]
}

fn belong(all: &[Owned]) -> String {
    let named: Vec<String> = all.iter().map(|one| format!("the {} {}", one.kind, one.name)).collect();
    let verb = if all.len() == 1 { "belongs" } else { "belong" };
    format!("{} {verb}", named.join(", "))
}

/// What makes objects this control plane's, one command for all of a kind.
fn labelled(all: &[Owned], namespace: &str) -> Vec<String> {
    let of_a_kind = all.chunk_by(|one, other| (one.kind, &one.namespace) == (other.kind, &other.namespace));
    let commands = of_a_kind.filter_map(|together| {
        let Owned { kind, namespace: within, .. } = together.first()?;
        let names: Vec<&str> = together.iter().map(|one| one.name.as_str()).collect();
        let within = if within.is_empty() { String::new() } else { format!("-n {within} ") };
        let label = label::CONTROL_NAMESPACE;
        Some(format!("kubectl {within}label {kind} {} {label}={namespace} --overwrite", names.join(" ")))
    });
    commands.collect()
}

fn said(commands: &[String]) -> String {
    commands.iter().map(|command| format!("`{command}`")).collect::<Vec<_>>().join(" and ")
}

/// So many objects are named.
const NAMED: usize = 5;

fn first(all: &[String]) -> String {
    all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// For the definitions of the mesh's own kinds, and those of the Gateway API that are asked for.
///
/// # Errors
/// It is not ready, or does not answer.
pub async fn ready_for_crds(cluster: &Cluster, values: &Values, namespace: &str) -> Result<(), NotReady> {
    not_installed(cluster, namespace).await?;
    gateway_api(cluster, values).await?;
    unclaimed(cluster, namespace, &crds(values, namespace, By::Cli)).await
}

/// Whether the Gateway API's kinds are there, or what is asked for brings them and replaces nothing of others.
///
/// # Errors
/// They are not, or it would; or the API server does not answer.
pub async fn gateway_api(cluster: &Cluster, values: &Values) -> Result<(), NotReady> {
    let (mut of_others, mut by) = (vec![], BTreeSet::new());
    for route in ROUTES.iter().filter(|route| route.is_asked_for(values)) {
        if cluster.definition(route.name).await?.is_some_and(|there| !is_ours(&there)) {
            of_others.push(route.name);
            by.insert(route.value);
        }
    }
    if !of_others.is_empty() {
        return Err(NotReady::GatewayApiOfOthers(of_others, by));
    }
    let is_brought = |name: &str| ROUTES.iter().any(|route| route.name == name && route.is_asked_for(values));
    for name in GATEWAY_API.into_iter().filter(|name| !is_brought(name)) {
        if let Some(wrong) = unserved(cluster, name).await? {
            return Err(NotReady::GatewayApi { name, wrong });
        }
    }
    Ok(())
}

/// Asks for the definitions of the Gateway API that are ours already, as far as nothing is said of them: they go on with the others.
///
/// # Errors
/// The API server does not answer.
pub async fn keep_gateway_api(cluster: &Cluster, values: &mut Values) -> Result<(), Error> {
    let mut there = vec![];
    for route in &ROUTES {
        if cluster.definition(route.name).await?.is_some_and(|definition| is_ours(&definition)) {
            there.push(route.name);
        }
    }
    for (value, given) in [
        ("enableHttpRoutes", &mut values.enable_http_routes),
        ("enableTcpRoutes", &mut values.enable_tcp_routes),
        ("enableTlsRoutes", &mut values.enable_tls_routes),
    ] {
        if ROUTES.iter().filter(|route| route.value == value).all(|route| there.contains(&route.name)) {
            given.get_or_insert(true);
        }
    }
    Ok(())
}

/// Why a definition of somebody else's, of which objects are made in the version v1, will not take them.
async fn unserved(cluster: &Cluster, name: &str) -> Result<Option<&'static str>, Error> {
    Ok(match cluster.definition(name).await? {
        None => Some("is missing"),
        Some(definition) if !definition.versions.iter().any(|v| v == "v1") => Some("does not serve the version v1"),
        Some(_) => None,
    })
}

/// For the control plane.
///
/// # Errors
/// It is not ready, or does not answer.
pub async fn ready_for_control_plane(cluster: &Cluster, values: &Values, namespace: &str) -> Result<(), NotReady> {
    not_installed(cluster, namespace).await?;
    rooted(cluster, namespace, &values.identity_trust_anchors_pem).await?;
    defined(cluster, values, namespace).await?;
    root_where_it_has_to_be(cluster, values).await?;
    monitored(cluster, values).await?;
    served(cluster).await?;
    heeded(cluster).await
}

/// Whether there are PodMonitors, where values ask for some.
///
/// # Errors
/// There are none, or the API server does not answer.
pub async fn monitored(cluster: &Cluster, values: &Values) -> Result<(), NotReady> {
    if !values.pod_monitor.enabled {
        return Ok(());
    }
    unserved(cluster, PODMONITORS).await?.map_or(Ok(()), |wrong| Err(NotReady::NoPodMonitors(wrong)))
}

/// A definition is there a moment before its kind is, and kubectl applies no object of a kind that is not.
async fn served(cluster: &Cluster) -> Result<(), NotReady> {
    let since = Instant::now();
    for kind in POLICIES {
        while !cluster.serves(kind).await? {
            if since.elapsed() > SERVED {
                let name = format!("{}.{}", kind.plural, kind.group);
                return Err(NotReady::Undefined { name, version: kind.version.to_owned() });
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }
    Ok(())
}

/// Whether `linkerd-init` is root where it has to be.
///
/// # Errors
/// It is not, on nodes that are named; or the API server does not answer.
pub async fn root_where_it_has_to_be(cluster: &Cluster, values: &Values) -> Result<(), NotReady> {
    if values.proxy_init.run_as_root {
        return Ok(());
    }
    let runs_docker = |node: &Node| {
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        info.is_some_and(|info| info.container_runtime_version.starts_with("docker:"))
    };
    let nodes = cluster.nodes().await?.into_iter().filter(runs_docker);
    let names: Vec<String> = nodes.filter_map(|node| node.metadata.name).collect();
    if names.is_empty() { Ok(()) } else { Err(NotReady::NoRoot(names)) }
}

/// Whether all objects of the mesh's kinds that are there already will hold.
///
/// # Errors
/// They will not, or the API server does not answer.
pub async fn heeded(cluster: &Cluster) -> Result<(), NotReady> {
    match unheeded(cluster).await? {
        all if all.is_empty() => Ok(()),
        all => Err(NotReady::Unheeded(all)),
    }
}

/// Whether the mesh's own kinds are there, in every version.
///
/// # Errors
/// They are not, or the API server does not answer.
pub async fn defined(cluster: &Cluster, values: &Values, namespace: &str) -> Result<(), NotReady> {
    for wanted in crds(values, namespace, By::Cli) {
        let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
        let versions = wanted["spec"]["versions"].as_array().into_iter().flatten().filter(|v| v["served"] == true);
        let found = cluster.definition(name).await?;
        for version in versions.filter_map(|v| v["name"].as_str()) {
            if !found.as_ref().is_some_and(|found| found.versions.iter().any(|v| v == version)) {
                return Err(NotReady::Undefined { name: name.to_owned(), version: version.to_owned() });
            }
        }
    }
    Ok(())
}

/// The value of `proxyInit.kubeAPIServerPorts`: by these the control plane reaches the API server without its proxies.
///
/// # Errors
/// The API server does not answer.
pub async fn api_server_ports(cluster: &Cluster) -> Result<String, Error> {
    let ports = cluster.api_server_ports().await?;
    if ports.is_empty() {
        return Ok(API_SERVER_PORTS.to_owned());
    }
    Ok(ports.iter().map(u16::to_string).collect::<Vec<_>>().join(","))
}

/// Whether no control plane is in the cluster: neither its configuration, in whichever namespace, nor what an installation would take
/// from another one's.
///
/// # Errors
/// There is one, or the API server does not answer.
pub async fn not_installed(cluster: &Cluster, namespace: &str) -> Result<(), NotReady> {
    let mut installed = remains::control_planes(cluster).await?;
    // Of several the one that is meant is named.
    installed.sort_by_key(|of| of != namespace);
    if let Some(of) = installed.into_iter().next() {
        let release = helm_release(cluster, &of).await?;
        return Err(NotReady::Installed { namespace: of, release });
    }
    let (values, material) = (Values::default(), Material::default());
    let by = By::Cli;
    let mut rendered = crds(&values, namespace, by);
    rendered.extend(control_plane(Installation { values: &values, namespace, by, material: &material, overrides: "" }));
    unclaimed(cluster, namespace, &rendered).await
}

/// Whether there are no anchors of an installation, or `anchors`, PEM, are the same: whoever replaces them shuts out all who run. Those
/// that somebody else brings have no label of an installation.
///
/// # Errors
/// There are others, or the API server does not answer.
pub async fn rooted(cluster: &Cluster, namespace: &str, anchors: &str) -> Result<(), NotReady> {
    let Some(found) = cluster.object(remains::CONFIG_MAP, Some(namespace), TRUST_ROOTS).await? else { return Ok(()) };
    let there = found["data"][TRUST_ROOTS_KEY].as_str().unwrap_or_default();
    if found["metadata"]["labels"][label::CONTROL_NAMESPACE].is_null() || there.trim() == anchors.trim() {
        return Ok(());
    }
    let values_are_left = cluster.secret(namespace, config::OVERRIDES).await?.is_some();
    Err(NotReady::Rooted { namespace: namespace.to_owned(), values_are_left })
}

/// Whether none of what is rendered for a namespace belongs to a control plane of another: whoever applies it would take it from that.
///
/// # Errors
/// What does, all of it, or the API server does not answer.
pub async fn unclaimed(cluster: &Cluster, namespace: &str, rendered: &[Value]) -> Result<(), NotReady> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut owned = vec![];
    for kind in remains::KINDS {
        for found in cluster.objects(kind, label::CONTROL_NAMESPACE).await? {
            let (metadata, of) = (&found["metadata"], &found["metadata"]["labels"][label::CONTROL_NAMESPACE]);
            let is_same = |wanted: &Value| {
                let (name, namespace) = (&wanted["metadata"]["name"], &wanted["metadata"]["namespace"]);
                wanted["kind"] == kind.kind && *name == metadata["name"] && *namespace == metadata["namespace"]
            };
            if of != namespace && rendered.iter().any(is_same) {
                let (within, name, of) = (text(&metadata["namespace"]), text(&metadata["name"]), text(of));
                owned.push(Owned { kind: kind.kind, namespace: within, name, of });
            }
        }
    }
    if owned.is_empty() { Ok(()) } else { Err(NotReady::Others(owned, namespace.to_owned())) }
}
