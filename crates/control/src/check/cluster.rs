//! Whether the cluster is fit for a mesh.

use super::{Run, none, table, text};
use std::ops::ControlFlow;
use weft_cluster::{
    install::gateway_api,
    kubernetes::{Cluster, Resource},
};

/// Linkerd's minimum.
const MINIMUM: (u32, u32) = (1, 31);
const NAMESPACE: Resource = Resource::new("", "v1", "Namespace", "namespaces");

pub(super) async fn fit(run: &mut Run<'_>, cluster: &Cluster) -> ControlFlow<()> {
    let version = run.found(&table::ANSWERS, cluster.version().await.map_err(text))?;
    run.noted(&table::MINIMUM, recent(&version))?;
    run.line(&table::GATEWAY_API, async || gateway_api(cluster).await.map_err(|e| e.to_string())).await
}

fn recent(version: &str) -> Result<(), String> {
    let mut numbers = version.trim_start_matches('v').split('.').map(|n| n.parse::<u32>());
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Err(format!("the API server's version {version} is not understood"));
    };
    if (major, minor) < MINIMUM {
        return Err(format!("the API server is {version}, older than v{}.{}", MINIMUM.0, MINIMUM.1));
    }
    Ok(())
}

pub(super) async fn free(run: &mut Run<'_>, cluster: &Cluster, namespace: &str) -> ControlFlow<()> {
    run.line(&table::FREE, async || {
        let found = cluster.object(NAMESPACE, None, namespace).await.map_err(text)?;
        none(found.map(|_| format!("the namespace {namespace} exists")).into_iter().collect())
    })
    .await
}
