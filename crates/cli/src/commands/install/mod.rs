//! `weft install`: objects on standard output, for `kubectl apply -f -`.

pub(super) mod layers;
#[cfg(test)]
mod tests;

use super::{
    meant::{Folder, cluster_to_change},
    print_objects,
};
use crate::{args::Install, print};
use anyhow::anyhow;
use serde_json::json;
use std::{process::ExitCode, time::SystemTime};
use weft_cluster::{
    install::{self, By, Installation},
    kubernetes::Cluster,
    values::Values,
    yaml,
};

pub(crate) async fn run(folder: &Folder, args: Install) -> anyhow::Result<ExitCode> {
    let given = layers::given(&args.given, &args.only, &args.options, &args.proxy)?;
    // What is impossible is told before anybody is asked.
    let values = read(&given)?;
    let cluster = if args.ignore_cluster { None } else { Some(cluster_to_change(folder, &args.to).await?) };
    let namespace = args.to.linkerd_namespace.as_str();
    let objects = if args.crds {
        if let Some(cluster) = &cluster {
            install::ready_for_crds(cluster, &values, namespace).await?;
        }
        install::crds(&values, namespace, By::Cli)
    } else {
        let mut all = vec![];
        if let Some(cluster) = &cluster {
            install::ready_for_control_plane(cluster, &values, namespace).await?;
            warn_of_ipv6(cluster, &values).await?;
            all.push(api_server_ports(&install::api_server_ports(cluster).await?));
        }
        all.extend(given.iter().cloned());
        let values = read(&all)?;
        let material = weft_control::ca::material(&values, namespace, SystemTime::now())?;
        install::control_plane(Installation {
            values: &values,
            namespace,
            by: By::Cli,
            material: &material,
            overrides: &yaml::text(&Values::given(given)),
        })
    };
    print_objects(&objects, args.output)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn api_server_ports(ports: &str) -> serde_json::Value {
    json!({ "proxyInit": { "kubeAPIServerPorts": ports } })
}

pub(super) async fn warn_of_ipv6(cluster: &Cluster, values: &Values) -> anyhow::Result<()> {
    if values.disable_ipv6 && has_ipv6(cluster).await? {
        print::error(
            "weft: pods of this cluster have IPv6 addresses, and without --set disableIPv6=false what they send and receive over \
             IPv6 goes past their proxies",
        );
    }
    Ok(())
}

async fn has_ipv6(cluster: &Cluster) -> anyhow::Result<bool> {
    let nodes = cluster.nodes().await?;
    let networks = nodes.into_iter().filter_map(|node| node.spec).flat_map(|spec| spec.pod_cidrs.unwrap_or_default());
    Ok(networks.into_iter().any(|network| network.contains(':')))
}

pub(super) fn read(layers: &[serde_json::Value]) -> anyhow::Result<Values> {
    Values::from_layers(layers.iter().cloned()).map_err(|problems| anyhow!("{problems}"))
}
