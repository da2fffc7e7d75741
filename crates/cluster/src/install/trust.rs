//! What proxies that run were started with: their anchors, and their version.

use super::running;
use crate::{
    inject::{PROXY, PROXY_VERSION, TRUST_ANCHORS},
    k8s::api::core::v1::Pod,
    kubernetes::{Cluster, Error},
    object,
};
use std::collections::BTreeMap;

/// Proxies that trust the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusting {
    /// PEM; `None` if it is what the ConfigMap of the control plane says.
    pub anchors_pem: Option<String>,
    /// `NAMESPACE/NAME` of each.
    pub pods: Vec<String>,
}

/// All proxies of the mesh that run, by what they trust.
#[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
pub async fn trusting(cluster: &Cluster, namespace: &str) -> Result<Vec<Trusting>, Error> {
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for pod in running::pods(cluster, namespace, None).await? {
        if let Some(anchors_pem) = anchors(&pod) {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let name = format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name));
            found.entry(anchors_pem).or_default().push(name);
        }
    }
    Ok(found.into_iter().map(|(anchors_pem, pods)| Trusting { anchors_pem, pods }).collect())
}

/// How many proxies there are of each version; in one namespace, or in all.
#[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
pub async fn proxy_versions(
    cluster: &Cluster,
    namespace: &str,
    of: Option<&str>,
) -> Result<BTreeMap<String, usize>, Error> {
    let mut versions = BTreeMap::new();
    for pod in running::pods(cluster, namespace, of).await? {
        if let Some(version) = pod.metadata.annotations.and_then(|mut annotations| annotations.remove(PROXY_VERSION)) {
            *versions.entry(version).or_default() += 1;
        }
    }
    Ok(versions)
}

/// Of the pod's proxy, if it has one.
fn anchors(pod: &Pod) -> Option<Option<String>> {
    let spec = pod.spec.as_ref()?;
    let proxy = object::containers(spec).find(|c| c.name == PROXY)?;
    let variable = proxy.env.iter().flatten().find(|variable| variable.name == TRUST_ANCHORS)?;
    Some(variable.value.clone())
}
