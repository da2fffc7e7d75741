//! The certificate authority: a root and an issuer in the state folder, made on first use.

use crate::Lifetimes;
use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{}: {reason}", path.display())]
    Broken { path: PathBuf, reason: String },
    #[error("cannot make a certificate: {0}")]
    Make(String),
}

/// What people are told of the CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// All roots that are trusted now, PEM.
    pub anchors_pem: String,
    pub root_not_after: SystemTime,
    pub issuer_not_after: SystemTime,
}

/// Makes the CA in `state_dir` if there is none and renews what is due.
///
/// # Errors
/// The folder cannot be read or written, or what is in it is no CA.
pub fn ensure(state_dir: &Path, lifetimes: &Lifetimes, now: SystemTime) -> Result<Status, Error> {
    let _ = (lifetimes, now);
    Err(Error::Broken { path: state_dir.to_owned(), reason: "not built yet".into() })
}

/// Reads the state of the CA without changing it.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn status(state_dir: &Path) -> Result<Status, Error> {
    Err(Error::Broken { path: state_dir.to_owned(), reason: "not built yet".into() })
}
