//! Why the control plane could not start or go on.

use crate::ca;
use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("certificate authority: {0}")]
    Ca(#[from] ca::Error),
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
    #[error("{}: {reason}", path.display())]
    Values { path: PathBuf, reason: String },
    #[error("{}: {reason}", path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error(transparent)]
    Kubernetes(#[from] weft_cluster::kubernetes::Error),
    #[error("{what}: {reason}")]
    Identity { what: &'static str, reason: String },
}
