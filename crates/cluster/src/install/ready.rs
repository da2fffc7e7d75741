//! Whether a cluster is ready for what is to be installed.

use super::{By, CONFIG, Installation, Material, control_plane, crds, remains, unheeded};
use crate::{
    kubernetes::{Cluster, Error, Resource},
    label,
    policy::GROUP,
    values::Values,
};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Definitions of the Gateway API, in whose kinds routes are written. They are their own project's to install.
const GATEWAY_API: [&str; 2] = ["httproutes.gateway.networking.k8s.io", "grpcroutes.gateway.networking.k8s.io"];
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
        "a control plane is installed in the namespace {0} already, says its ConfigMap {CONFIG}, and a cluster has one; change it by \
         `weft upgrade -L {0} --crds | kubectl apply -f -` and `weft upgrade -L {0} | kubectl apply -f -`, or, if none runs there any \
         more, `kubectl -n {0} delete configmap {CONFIG}`"
    )]
    Installed(String),
    #[error(
        "the {kind} {name} belongs to a control plane in the namespace {of}, says its label {label}, and would be overwritten; install \
         into that namespace by -L {of}, or, if that control plane is gone, say so by \
         `kubectl label {kind} {name} {label}={namespace} --overwrite`",
        label = label::CONTROL_NAMESPACE
    )]
    Others { kind: &'static str, name: String, of: String, namespace: String },
    #[error(
        "the Gateway API's definition {name} {wrong}; install it by\n\n    kubectl apply --server-side -f \
         https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.4.1/standard-install.yaml\n"
    )]
    GatewayApi { name: &'static str, wrong: &'static str },
    #[error(
        "the definition {name} of version {version} is missing; run `weft install --crds | kubectl apply -f -` first"
    )]
    Undefined { name: String, version: String },
    #[error("{} objects that this version of weft does not carry out ({}{}): nothing that they say would hold; delete them first", .0.len(), first(.0), if .0.len() > NAMED { ", …" } else { "" })]
    Unheeded(Vec<String>),
}

/// So many objects are named.
const NAMED: usize = 5;

fn first(all: &[String]) -> String {
    all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// For the definitions of the mesh's own kinds.
///
/// # Errors
/// It is not ready, or does not answer.
pub async fn ready_for_crds(cluster: &Cluster, namespace: &str) -> Result<(), NotReady> {
    not_installed(cluster, namespace).await?;
    gateway_api(cluster).await
}

/// Whether the Gateway API's kinds are there.
///
/// # Errors
/// They are not, or the API server does not answer.
pub async fn gateway_api(cluster: &Cluster) -> Result<(), NotReady> {
    for name in GATEWAY_API {
        let wrong = match cluster.definition(name).await? {
            None => "is missing",
            Some(definition) if !definition.versions.iter().any(|v| v == "v1") => "does not serve the version v1",
            Some(_) => continue,
        };
        return Err(NotReady::GatewayApi { name, wrong });
    }
    Ok(())
}

/// For the control plane.
///
/// # Errors
/// It is not ready, or does not answer.
pub async fn ready_for_control_plane(cluster: &Cluster, values: &Values, namespace: &str) -> Result<(), NotReady> {
    not_installed(cluster, namespace).await?;
    defined(cluster, values, namespace).await?;
    served(cluster).await?;
    heeded(cluster).await
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
        let versions = wanted["spec"]["versions"].as_array().into_iter().flatten();
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
        return Err(NotReady::Installed(of));
    }
    let (values, material) = (Values::default(), Material::default());
    let by = By::Cli;
    let mut rendered = crds(&values, namespace, by);
    rendered.extend(control_plane(Installation { values: &values, namespace, by, material: &material, overrides: "" }));
    for kind in remains::KINDS {
        for found in cluster.objects(kind, label::CONTROL_NAMESPACE).await? {
            let (metadata, of) = (&found["metadata"], &found["metadata"]["labels"][label::CONTROL_NAMESPACE]);
            let is_same = |wanted: &Value| {
                let (name, namespace) = (&wanted["metadata"]["name"], &wanted["metadata"]["namespace"]);
                wanted["kind"] == kind.kind && *name == metadata["name"] && *namespace == metadata["namespace"]
            };
            if of != namespace && rendered.iter().any(is_same) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let (name, of) = (text(&metadata["name"]), text(of));
                return Err(NotReady::Others { kind: kind.kind, name, of, namespace: namespace.to_owned() });
            }
        }
    }
    Ok(())
}
