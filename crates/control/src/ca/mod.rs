//! The certificate authority: roots and an issuer in the state folder, made on first use, renewed by themselves.
//!
//! ```text
//! state (file) ─► schedule (pure: what is due) ─► make (certificates) ─► state (file) ─► Signer, anchors
//! ```
//!
//! A root is renewed with overlap: the new one is announced beside the old, then signs the issuer, and the old one goes when
//! no leaf below it can be valid any more. Time is always an argument.

mod kept;
mod life;
mod make;
mod material;
mod mounted;
mod schedule;
mod sign;
mod state;

pub use kept::{believed, kept};
pub use material::{material, tried};
pub(crate) use mounted::Mounted;
pub use sign::{Asked, Leaf, Refused};

use crate::{Lifetimes, digest::sha256};
use sign::Signer;
use state::{Folder, State};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use weft_model::Identity;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{}: {reason}", path.display())]
    Broken { path: PathBuf, reason: String },
    #[error("cannot make a certificate: {0}")]
    Make(String),
    /// What an installation was given.
    #[error("{0}")]
    Given(String),
}

/// What people are told of the CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// All roots that are trusted now, PEM.
    pub anchors_pem: String,
    /// Of the root that signed the issuer.
    pub root_not_after: SystemTime,
    pub issuer_not_after: SystemTime,
    /// When somebody should see to the successor of one of them; where the mesh itself does, their end.
    pub due: SystemTime,
    /// Of the issuer's certificate and those below the root, in hexadecimal digits: tells two issuers apart.
    pub issuer_sha256: String,
}

/// The CA as it stands at some moment. It never changes: a renewal makes another one.
#[derive(Clone, Debug)]
pub struct Ca {
    status: Status,
    signer: Arc<Signer>,
}

/// Makes the CA in `state_dir` if there is none and renews what is due.
///
/// # Errors
/// The folder cannot be read or written, or what is in it is no CA.
pub fn ensure(state_dir: &Path, lifetimes: &Lifetimes, now: SystemTime) -> Result<Ca, Error> {
    let folder = Folder::new(state_dir);
    // Held while deciding and writing, so that two processes never make two.
    let _lock = folder.lock()?;
    let mut state = folder.read()?.unwrap_or_default();
    let mut changed = false;
    // Each step makes the next one possible; from nothing to the steady state there are two.
    for _ in 0..schedule::MAX_STEPS {
        let Some(step) = schedule::due(&state, lifetimes, now) else { break };
        make::step(&mut state, step, lifetimes, now)?;
        changed = true;
    }
    if changed {
        folder.write(&state)?;
    }
    Ca::new(&state, &folder, lifetimes)
}

/// Reads the state of the CA without changing it.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn status(state_dir: &Path) -> Result<Status, Error> {
    let folder = Folder::new(state_dir);
    let state = folder.read()?.ok_or_else(|| folder.broken("there is no certificate authority yet"))?;
    summary(&state, &folder)
}

impl Ca {
    fn new(state: &State, folder: &Folder, lifetimes: &Lifetimes) -> Result<Self, Error> {
        let (issuer, _) = state.signing().ok_or_else(|| folder.broken("there is no issuer"))?;
        let signer = Signer::new(&issuer.pair.certificate_pem, &issuer.pair.key_pem, lifetimes)
            .map_err(|reason| folder.broken(format!("the issuer {reason}")))?;
        Ok(Self { status: summary(state, folder)?, signer: Arc::new(signer) })
    }

    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Signs a certificate for the key of `csr` (DER), if the request asks for exactly `identity`.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn sign(&self, identity: &Identity, csr: &[u8], now: SystemTime) -> Result<Leaf, Refused> {
        self.sign_asked(Asked::read(identity, csr)?, now)
    }

    /// The same for what was read before.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn sign_asked(&self, asked: Asked, now: SystemTime) -> Result<Leaf, Refused> {
        self.signer.sign(asked, now)
    }
}

/// When to look again: often enough for the shortest lifetime, and never so rarely that a suspended or changed clock matters.
pub(crate) fn interval(lifetimes: &Lifetimes) -> Duration {
    let shortest = lifetimes.leaf.min(lifetimes.issuer).min(lifetimes.root);
    (shortest / 50).clamp(Duration::from_millis(20), Duration::from_secs(10))
}

fn summary(state: &State, folder: &Folder) -> Result<Status, Error> {
    let (issuer, root) = state.signing().ok_or_else(|| folder.broken("the issuer or its root is missing"))?;
    Ok(Status {
        issuer_sha256: sha256(issuer.pair.certificate_pem.as_bytes()),
        anchors_pem: state.roots.iter().map(|r| r.pair.certificate_pem.as_str()).collect(),
        root_not_after: root.pair.not_after(),
        issuer_not_after: issuer.pair.not_after(),
        due: issuer.pair.not_after(),
    })
}

#[cfg(test)]
mod tests;
