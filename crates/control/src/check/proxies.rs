//! Whether pods have the proxies that they should have, and these are ready.

use super::{
    Failed, Run,
    remedy::{describe, edit, few, mended, restart},
    table,
};
use std::{collections::BTreeMap, ops::ControlFlow};
use weft_cluster::{
    inject::{Bare, PROXY},
    install::running,
    k8s::api::core::v1::{ContainerStatus, Pod},
    kubernetes::{Cluster, Error, Resource},
    label, object,
};
use weft_model::names::annotation::INJECT;

const NAMESPACE: Resource = Resource::new("", "v1", "Namespace", "namespaces");

pub(super) async fn of_the_control_plane(
    run: &mut Run<'_>,
    cluster: &Cluster,
    namespace: &str,
    version: &str,
) -> ControlFlow<()> {
    run.line(&table::PROXIES, async || {
        let pods = cluster.pods(Some(namespace), label::COMPONENT).await?;
        let wrong = pods.iter().filter_map(|pod| Some((unready(pod).or_else(|| without(pod))?, describe(pod))));
        mended(wrong.collect())
    })
    .await?;
    run.line(&table::PROXIES_VERSION, async || {
        let others = others(cluster, namespace, Some(namespace), version).await?;
        let whys: Vec<String> = others.into_iter().map(|(_, why)| why).collect();
        if whys.is_empty() { Ok(()) } else { Err(Failed::from(few(&whys))) }
    })
    .await
}

/// How the pods of a mesh are made anew.
pub(super) struct Restarts(BTreeMap<String, String>);

impl Restarts {
    pub(super) fn of(&self, pod: &str) -> String {
        // It may have gone since.
        self.0.get(pod).cloned().unwrap_or_else(|| match pod.split_once('/') {
            Some((namespace, name)) => format!("kubectl -n {namespace} get pod {name}"),
            None => "kubectl get pods --all-namespaces".to_owned(),
        })
    }
}

/// Asked only where somebody wants it.
pub(super) async fn restarts(
    cluster: &Cluster,
    control_namespace: &str,
    of: Option<&str>,
    wanted: bool,
) -> Result<Restarts, Error> {
    if !wanted {
        return Ok(Restarts(BTreeMap::new()));
    }
    let labels = format!("{}={control_namespace}", label::CONTROL_NAMESPACE);
    let pods = cluster.pods(of, &labels).await?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let key = |pod: &Pod| format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name));
    Ok(Restarts(pods.iter().map(|pod| (key(pod), restart(pod))).collect()))
}

/// Pods with proxies of another version, and what is told of them.
async fn others(
    cluster: &Cluster,
    namespace: &str,
    of: Option<&str>,
    version: &str,
) -> Result<Vec<(String, String)>, Error> {
    let pods = running(cluster, namespace, of).await?;
    // What ends is on its way to the version that is wanted.
    let wrong = pods.iter().filter(|pod| pod.status != "Terminating" && (of.is_some() || pod.namespace != namespace));
    let wrong = wrong.filter_map(|pod| {
        let found = pod.version.as_deref().filter(|found| *found != version)?;
        let pod = format!("{}/{}", pod.namespace, pod.name);
        let told = format!("the proxy of pod {pod} is {found}, not {version}");
        Some((pod, told))
    });
    Ok(wrong.collect())
}

/// Of one namespace, or of all.
pub(super) async fn of_pods(
    run: &mut Run<'_>,
    cluster: &Cluster,
    control_namespace: &str,
    of: Option<&str>,
    version: &str,
) -> ControlFlow<()> {
    run.line(&table::DATA_NAMESPACE, async || {
        let Some(name) = of else { return Ok(()) };
        let found = cluster.object(NAMESPACE, None, name).await?;
        found.map(drop).ok_or_else(|| Failed::from(format!("there is no namespace {name}")))
    })
    .await?;
    run.line(&table::DATA_PROXIES, async || {
        let labels = format!("{}={control_namespace}", label::CONTROL_NAMESPACE);
        let pods = cluster.pods(of, &labels).await?;
        let wrong = pods.iter().filter(|pod| runs(pod)).filter_map(|pod| Some((unready(pod)?, describe(pod))));
        mended(wrong.collect())
    })
    .await?;
    run.line(&table::UNMESHED, async || {
        let namespaces = cluster.namespaces("").await?.into_iter();
        let said: BTreeMap<String, String> = namespaces
            .filter_map(|namespace| Some((namespace.metadata.name?, namespace.metadata.annotations?.remove(INJECT)?)))
            .collect();
        let pods = cluster.pods(of, "").await?;
        let missed = pods.iter().filter_map(|pod| {
            let of = pod.metadata.namespace.clone().unwrap_or_default();
            let said = said.get(&of).map(String::as_str);
            let namesake = Bare::behind_a_namesake(pod).filter(|_| of != control_namespace);
            if namesake.is_some_and(|bare| bare.was_to_get_one(said)) {
                let why = format!("{} has a container {PROXY} that is not the mesh's, and so no proxy", named(pod));
                return Some((why, edit(pod)));
            }
            let bare = Bare::of(pod).filter(|_| of != control_namespace)?;
            if bare.is_misspelt(said) {
                let why = "its annotation linkerd.io/inject is none of enabled, ingress and disabled";
                return Some((format!("{}: {why}", without(pod)?), edit(pod)));
            }
            bare.was_to_get_one(said).then(|| Some((without(pod)?, restart(pod))))?
        });
        mended(missed.collect())
    })
    .await?;
    run.line(&table::DATA_VERSION, async || {
        let others = others(cluster, control_namespace, of, version).await?;
        let restarts = restarts(cluster, control_namespace, of, !others.is_empty()).await?;
        mended(others.into_iter().map(|(pod, why)| (why, restarts.of(&pod))).collect())
    })
    .await
}

fn runs(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

fn named(pod: &Pod) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("pod {}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name))
}

fn without(pod: &Pod) -> Option<String> {
    let spec = pod.spec.iter();
    let mut names = spec.flat_map(object::containers).map(|c| &c.name);
    (!names.any(|name| name == PROXY)).then(|| format!("{} has no proxy", named(pod)))
}

fn unready(pod: &Pod) -> Option<String> {
    let statuses = |of: Option<&Vec<ContainerStatus>>| of.cloned().unwrap_or_default();
    let status = pod.status.as_ref();
    let mut all = statuses(status.and_then(|s| s.container_statuses.as_ref()));
    all.extend(statuses(status.and_then(|s| s.init_container_statuses.as_ref())));
    let is_ready = all.iter().any(|container| container.name == PROXY && container.ready);
    (!is_ready && without(pod).is_none()).then(|| format!("the proxy of {} is not ready", named(pod)))
}
