//! Whether the cluster is fit for a mesh.

use super::{Check, Failed, Run, none, table};
use std::{
    ops::ControlFlow,
    time::{Duration, SystemTime},
};
use weft_cluster::{
    install::{self, By, Installation, Material, NotReady, gateway_api, not_installed, quoted},
    k8s::api::core::v1::Node,
    kubernetes::{Cluster, Resource},
    values::Values,
};

/// Linkerd's minimum.
const MINIMUM: (u32, u32) = (1, 31);
const NAMESPACE: Resource = Resource::new("", "v1", "Namespace", "namespaces");

pub(super) async fn fit(run: &mut Run<'_>, cluster: &Cluster) -> ControlFlow<()> {
    let version = run.found(&table::ANSWERS, cluster.version().await)?;
    run.noted(&table::MINIMUM, recent(&version))?;
    run.line(&table::GATEWAY_API, async || gateway_api(cluster, &Values::default()).await).await
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

/// What an installation makes in the control plane's namespace.
const MADE: [(&Check, Resource); 5] = [
    (&table::CREATE_ACCOUNTS, Resource::new("", "v1", "ServiceAccount", "serviceaccounts")),
    (&table::CREATE_SERVICES, Resource::new("", "v1", "Service", "services")),
    (&table::CREATE_DEPLOYMENTS, Resource::new("apps", "v1", "Deployment", "deployments")),
    (&table::CREATE_CONFIG_MAPS, Resource::new("", "v1", "ConfigMap", "configmaps")),
    (&table::CREATE_SECRETS, SECRET),
];
const SECRET: Resource = Resource::new("", "v1", "Secret", "secrets");
/// Linkerd's: a node says every five minutes that it lives.
const SKEW: Duration = Duration::from_secs(5 * 60 + 10);

/// Whether somebody may install here, and the clocks agree.
pub(super) async fn open(run: &mut Run<'_>, cluster: &Cluster, namespace: &str, now: SystemTime) -> ControlFlow<()> {
    let installed = not_installed(cluster, namespace).await;
    let is_meshed = matches!(installed, Err(NotReady::Installed { .. } | NotReady::Others(..)));
    run.noted(&table::NO_MESH, installed)?;
    if !is_meshed {
        run.line(&table::FREE, async || {
            let found = cluster.object(NAMESPACE, None, namespace).await?;
            none::<Failed>(found.map(|_| format!("the namespace {namespace} exists")).into_iter().collect())
        })
        .await?;
    }
    let account = cluster.user().await.ok().flatten();
    let given = |failed: Failed| match &account {
        Some(account) => failed.or_mended_by(rights(account)),
        None => failed,
    };
    run.line(&table::CLUSTER_OBJECTS, async || {
        without_namespace(cluster, namespace).await.map_err(|why| given(why.into()))
    })
    .await?;
    for (check, resource) in MADE {
        run.line(check, async || may(cluster, "create", resource, namespace).await.map_err(given)).await?;
    }
    run.line(&table::READ_SECRETS, async || may(cluster, "get", SECRET, namespace).await.map_err(given)).await?;
    run.line(&table::CLOCK, async || {
        let nodes = cluster.nodes().await?;
        none::<Failed>(nodes.iter().filter_map(|node| skewed(node, now)).collect())
    })
    .await
}

/// What an account lacks that may not install.
fn rights(account: &str) -> String {
    let who = match account.strip_prefix("system:serviceaccount:") {
        Some(account) => format!("--serviceaccount={account}"),
        None => format!("--user={}", quoted(account)),
    };
    format!(
        "kubectl create clusterrolebinding weft-install --clusterrole=cluster-admin {who}, typed by a cluster's administrator"
    )
}

async fn without_namespace(cluster: &Cluster, namespace: &str) -> Result<(), String> {
    let (values, material) = (Values::default(), Material::default());
    let by = By::Cli;
    let installation = Installation { values: &values, namespace, by, material: &material, overrides: "" };
    let mut objects = install::crds(&values, namespace, by);
    objects.extend(install::control_plane(installation));
    let mut wrong = vec![];
    for object in objects.iter().filter(|object| object["metadata"]["namespace"].is_null()) {
        if let Err(error) = cluster.would_create(object).await {
            let name = |of: &serde_json::Value| of.as_str().unwrap_or_default().to_owned();
            wrong.push(format!(
                "cannot create {} {}: {error}",
                name(&object["kind"]),
                name(&object["metadata"]["name"])
            ));
        }
    }
    none(wrong)
}

async fn may(cluster: &Cluster, verb: &str, of: Resource, namespace: &str) -> Result<(), Failed> {
    match cluster.may(verb, of, Some(namespace)).await? {
        true => Ok(()),
        false => Err(format!("this account may not {verb} {} in the namespace {namespace}", of.plural).into()),
    }
}

fn skewed(node: &Node, now: SystemTime) -> Option<String> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True")?;
    let told = SystemTime::from(ready.last_heartbeat_time.as_ref()?.0);
    let off = now.duration_since(told).unwrap_or_else(|later| later.duration());
    let name = node.metadata.name.as_deref().unwrap_or_default();
    (off > SKEW).then(|| format!("the clock of node {name} and this machine's are up to {} s apart", off.as_secs()))
}
