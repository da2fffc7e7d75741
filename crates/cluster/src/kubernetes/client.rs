//! How to reach the API server.

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use kube::Client;

const CONNECT: Duration = Duration::from_secs(5);

/// Why the API server cannot be reached at all, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {reason}", path.display())]
    Kubeconfig { path: PathBuf, reason: String },
    #[error("this is no pod of a cluster: {0}; outside of one name the cluster by --kubeconfig")]
    NoPod(String),
    #[error("no cluster is configured: {0}; name one by --kubeconfig FILE or $KUBECONFIG")]
    NoCluster(String),
    #[error("API server: {0}")]
    Request(String),
    /// Such an object, or such a kind, does not exist.
    #[error("API server: not found")]
    Missing,
}

/// A client of the API server of `kubeconfig`, or of the cluster that this process is a pod of. Nothing is asked yet.
///
/// # Errors
/// The file, or what is mounted into a pod, cannot be read.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    match kubeconfig {
        None => client(kube::Config::incluster().map_err(|e| Error::NoPod(e.to_string()))?),
        Some(_) => connect_as_user(kubeconfig, None).await,
    }
}

/// A client as people have it: of `kubeconfig`, else of the files of `$KUBECONFIG`, else of the usual file; the file's present
/// context, unless one is named.
///
/// # Errors
/// No file, or nothing in it, says how to reach a cluster.
pub async fn connect_as_user(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Client, Error> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = match kubeconfig {
        None => kube::Config::from_kubeconfig(&options).await.map_err(|e| Error::NoCluster(e.to_string()))?,
        Some(path) => {
            let failed = |e: KubeconfigError| Error::Kubeconfig { path: path.to_owned(), reason: e.to_string() };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            kube::Config::from_custom_kubeconfig(file, &options).await.map_err(failed)?
        }
    };
    client(config)
}

/// The context that [`connect_as_user`] takes where nothing is named; `None` where no kubeconfig names one.
pub fn present_context() -> Option<String> {
    Kubeconfig::read().ok()?.current_context.filter(|context| !context.is_empty())
}

fn client(mut config: kube::Config) -> Result<Client, Error> {
    config.connect_timeout = Some(CONNECT);
    // Who asks tries again in its own way, and counts it.
    config.default_retry = false;
    Client::try_from(config).map_err(|e| Error::Request(e.to_string()))
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Request(reason(&error))
    }
}

/// An error of the client in a few words; its own say most of it twice.
pub(crate) fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}
