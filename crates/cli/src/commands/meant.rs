//! Which mesh a command means: what the command line names, else the mesh that runs in the state folder, else the cluster of the
//! kubeconfig.
//!
//! Where both are there the one that is taken is named, and what changes a cluster wants to be told which.

use crate::{
    args::{ToCluster, ToMesh},
    print,
};
use anyhow::bail;
use std::path::PathBuf;
use weft_cluster::kubernetes::{Cluster, present_context};
use weft_local::Client;

/// A state folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    /// `None`: the usual one.
    pub(crate) path: Option<PathBuf>,
    /// Whether the command line names it, and with it the mesh in it.
    pub(crate) named: bool,
}

/// Where the mesh is.
pub(super) enum Meant {
    Local(Client),
    Cluster,
}

/// What the command line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Local,
    Cluster,
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chosen {
    Local,
    Cluster,
    /// There is neither.
    Nowhere,
}

fn chosen(said: Said, runs: bool, configured: bool) -> Chosen {
    match (said, runs, configured) {
        (Said::Local, ..) | (Said::Nothing, true, _) => Chosen::Local,
        (Said::Cluster, ..) | (Said::Nothing, false, true) => Chosen::Cluster,
        (Said::Nothing, false, false) => Chosen::Nowhere,
    }
}

fn said(folder: &Folder, local: bool, to: &ToCluster) -> anyhow::Result<Said> {
    let is_cluster = to.kubeconfig.is_some() || to.context.is_some();
    match (local || folder.named, is_cluster) {
        (true, true) => {
            bail!(
                "--state names a mesh of this machine, and --kubeconfig or --context a cluster: leave out what is not meant"
            )
        }
        (true, false) => Ok(Said::Local),
        (false, true) => Ok(Said::Cluster),
        (false, false) => Ok(Said::Nothing),
    }
}

/// Of commands that ask either.
pub(super) async fn mesh(folder: &Folder, of: &ToMesh) -> anyhow::Result<Meant> {
    let said = said(folder, of.local, &of.to)?;
    let client = Client::new(folder.path.clone());
    let runs = match &client {
        Ok(client) if said == Said::Nothing => client.runs().await,
        _ => false,
    };
    let context = if said == Said::Nothing { present_context() } else { None };
    match chosen(said, runs, context.is_some()) {
        Chosen::Local => {
            let client = client?;
            if let Some(context) = context {
                let folder = client.state_dir().display();
                print::error(&format!(
                    "weft: the mesh in {folder} is meant; the cluster of the kubeconfig is named by --context {context}"
                ));
            }
            Ok(Meant::Local(client))
        }
        // Why there is no cluster is said by who connects.
        Chosen::Cluster | Chosen::Nowhere => Ok(Meant::Cluster),
    }
}

/// Of commands that make sense nowhere but in a cluster, and change nothing.
pub(super) async fn cluster_alone(folder: &Folder, to: &ToCluster) -> anyhow::Result<()> {
    if said(folder, false, to)? == Said::Nothing
        && let Some((running, context)) = both(folder).await
    {
        print::error(&format!(
            "weft: the cluster of the context {context} is meant, not the mesh in {}",
            running.state_dir().display()
        ));
    }
    Ok(())
}

/// The cluster for which objects are printed, to be applied or deleted there.
pub(super) async fn cluster_to_change(folder: &Folder, to: &ToCluster) -> anyhow::Result<Cluster> {
    if to.kubeconfig.is_none()
        && to.context.is_none()
        && let Some((running, context)) = both(folder).await
    {
        bail!(
            "a mesh runs in {}, and the kubeconfig has the cluster of the context {context}: say that the cluster is to be changed, by \
             --context {context} or --kubeconfig FILE",
            running.state_dir().display()
        );
    }
    super::cluster(to).await
}

/// The mesh that runs and the context of the cluster that is configured, if there are both.
async fn both(folder: &Folder) -> Option<(Client, String)> {
    let client = Client::new(folder.path.clone()).ok()?;
    let context = present_context()?;
    client.runs().await.then_some((client, context))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_comes_before_what_runs_and_that_before_what_is_configured() {
        for (runs, configured) in [(false, false), (false, true), (true, false), (true, true)] {
            assert_eq!(chosen(Said::Local, runs, configured), Chosen::Local);
            assert_eq!(chosen(Said::Cluster, runs, configured), Chosen::Cluster);
        }
        assert_eq!(chosen(Said::Nothing, true, true), Chosen::Local);
        assert_eq!(chosen(Said::Nothing, true, false), Chosen::Local);
        assert_eq!(chosen(Said::Nothing, false, true), Chosen::Cluster);
        assert_eq!(chosen(Said::Nothing, false, false), Chosen::Nowhere);
    }
}
