//! `weft uninstall`: what of a mesh is in a cluster, for `kubectl delete -f -`.

use super::{
    meant::{Folder, cluster_to_change},
    print_objects,
};
use crate::{args::Uninstall, print};
use std::process::ExitCode;
use weft_cluster::install::{Remains, helm_release, remains, users};

/// The end of the names of its definitions.
const GATEWAY_API: &str = ".gateway.networking.k8s.io";

pub(crate) async fn run(folder: &Folder, args: Uninstall) -> anyhow::Result<ExitCode> {
    let cluster = cluster_to_change(folder, &args.to).await?;
    let namespace = args.to.linkerd_namespace.as_str();
    if let Some(release) = helm_release(&cluster, namespace).await? {
        print::error(&format!(
            "weft: the control plane in the namespace {namespace} is Helm's, which keeps account of it; take it away by \
             `helm uninstall -n {namespace} {}`",
            release.name
        ));
        return Ok(ExitCode::FAILURE);
    }
    if !args.force {
        let users = users(&cluster, namespace).await?;
        if !users.is_empty() {
            let text = users.join("\n  * ");
            print::error(&format!(
                "weft: the mesh is in use, and its pods would lose their control plane:\n  * {text}\n\
                 take the annotation linkerd.io/inject away and restart them first, or use --force"
            ));
            return Ok(ExitCode::FAILURE);
        }
    }
    let Remains { objects, others } = remains(&cluster, namespace).await?;
    if !others.is_empty() {
        print::error(&format!(
            "weft: the definitions of kinds stay: a control plane in the namespace {} has them too",
            others.join(", ")
        ));
    }
    if objects.is_empty() {
        // Linkerd's says success where nothing was done.
        print::error(&format!("weft: there is nothing of a mesh in the namespace {namespace}"));
        return Ok(ExitCode::FAILURE);
    }
    if objects.iter().any(|object| object["metadata"]["name"].as_str().is_some_and(|name| name.ends_with(GATEWAY_API)))
    {
        print::error(
            "weft: with the definitions of the Gateway API goes every route of the cluster, other implementations' too; a definition \
             stays whose label linkerd.io/control-plane-ns is taken away before",
        );
    }
    print_objects(&objects, args.output)?;
    Ok(ExitCode::SUCCESS)
}
