//! `weft prune`: what earlier versions have left in a cluster, for `kubectl delete -f -`.

use super::{
    meant::{Folder, cluster_to_change},
    print_objects,
    upgrade::Next,
};
use crate::{args::Prune, print};
use anyhow::bail;
use std::process::ExitCode;
use weft_cluster::install::{self, Author, By, Material, Source};

pub(crate) async fn run(folder: &Folder, args: Prune) -> anyhow::Result<ExitCode> {
    let cluster = cluster_to_change(folder, &args.to).await?;
    let namespace = args.to.linkerd_namespace.as_str();
    let (next, _) = Next::read(Source::Cluster(&cluster), namespace, vec![]).await?;
    if next.stored.by == Author::Linkerd {
        bail!(
            "the control plane in the namespace {namespace} is Linkerd's, and all of it would be taken for left-overs; run \
             `weft upgrade | kubectl apply -f -` first"
        );
    }
    // What another version has made, this one may not know: it would be taken for left over.
    let own = args.expected_version.as_deref().unwrap_or(env!("CARGO_PKG_VERSION"));
    let found = next.stored.version.as_deref().unwrap_or_default();
    if found != own {
        bail!(
            "the control plane in the namespace {namespace} is of version {found}, and what belongs to it is known to that version alone, \
             not to {own}; run `weft upgrade -L {namespace} --crds | kubectl apply -f -` and `weft upgrade -L {namespace} | kubectl apply -f -` \
             first, or use the weft of the control plane's version; where the version was given by `--control-plane-version`, give it as \
             `--expected-version`"
        );
    }
    // Names do not depend on certificates.
    let mut rendered = next.rendered(namespace, &Material::default());
    rendered.extend(install::crds(&next.of_definitions(Some(&cluster)).await?, namespace, By::Cli));
    let left = install::left(&cluster, namespace, &rendered).await?;
    if !left.definitions.is_empty() {
        print::error(&format!(
            "weft: with a definition all objects of its kind are deleted, so these are left to you: {}",
            left.definitions.join(", ")
        ));
    }
    if left.objects.is_empty() {
        print::error("weft: there is nothing to prune");
    }
    print_objects(&left.objects, args.output)?;
    Ok(ExitCode::SUCCESS)
}
