//! How to reach the API server.

use kube::config::{KubeConfigOptions, Kubeconfig};
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
    #[error("API server: {0}")]
    Request(String),
}

/// A client of the API server of `kubeconfig`, or of the cluster that this process is a pod of. Nothing is asked yet.
///
/// # Errors
/// The file, or what is mounted into a pod, cannot be read.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    let mut config = match kubeconfig {
        None => kube::Config::incluster().map_err(|e| Error::NoPod(e.to_string()))?,
        Some(path) => {
            let failed =
                |e: kube::config::KubeconfigError| Error::Kubeconfig { path: path.to_owned(), reason: e.to_string() };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?
        }
    };
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
pub(super) fn reason(error: &kube::Error) -> String {
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
