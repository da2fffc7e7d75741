//! A CA that others make and renew: the issuer of a Secret and the roots of a ConfigMap, both mounted as files.
//!
//! What is read is tried before it is used: a leaf that it signs must be one that proxies would take.

use super::{
    Ca, Error, Status,
    life::Life,
    sign::{Asked, Signer},
};
use crate::{Lifetimes, digest::sha256};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use weft_model::Identity;
use weft_transport::tls::{Key, Store};
use x509_parser::pem::Pem;

/// Bytes of a file: a bundle of many roots.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The names of the issuer's files, by the Secret's type.
const FILES: [(&str, &str); 2] = [("crt.pem", "key.pem"), ("tls.crt", "tls.key")];

/// The files.
#[derive(Clone, Debug)]
pub(crate) struct Mounted {
    /// The folder of the issuer.
    pub(crate) issuer: PathBuf,
    /// The file of the roots.
    pub(crate) trust_roots: PathBuf,
    /// Whose certificate is made for a trial.
    pub(crate) identity: Identity,
}

impl Mounted {
    /// Reads and tries the CA.
    ///
    /// # Errors
    /// The file, and what is wrong with it.
    pub(crate) fn read(&self, lifetimes: &Lifetimes, now: SystemTime) -> Result<Ca, Error> {
        let broken = |path: &Path, reason: String| Error::Broken { path: path.to_owned(), reason };
        let [first, second] = FILES;
        let (certificate, key) = if self.issuer.join(first.0).exists() { first } else { second };
        let (certificate, key) = (self.issuer.join(certificate), self.issuer.join(key));
        let (chain_pem, key_pem) = (text(&certificate)?, text(&key)?);
        let anchors_pem = text(&self.trust_roots)?;
        let signer = Signer::new(&chain_pem, &key_pem, lifetimes)
            .map_err(|reason| broken(&certificate, format!("the issuer {reason}")))?;
        let roots = lives(&anchors_pem).map_err(|reason| broken(&self.trust_roots, reason))?;
        let status = Status {
            issuer_not_after: signer.not_after(),
            due: roots.iter().map(Life::due).fold(signer.due(), SystemTime::min),
            issuer_sha256: sha256(chain_pem.as_bytes()),
            anchors_pem,
            root_not_after: first_end(&roots).map_err(|reason| broken(&self.trust_roots, reason))?,
        };
        let ca = Ca { status, signer: Arc::new(signer) };
        tried(&ca.status.anchors_pem, &ca.signer, &self.identity, now)
            .map_err(|reason| broken(&certificate, reason))?;
        Ok(ca)
    }
}

/// The same of texts that nobody has mounted yet.
pub(super) fn tried_texts(
    anchors_pem: &str,
    chain_pem: &str,
    key_pem: &str,
    identity: &Identity,
    lifetimes: &Lifetimes,
    now: SystemTime,
) -> Result<(), String> {
    let signer = Signer::new(chain_pem, key_pem, lifetimes).map_err(|reason| format!("the issuer {reason}"))?;
    tried(anchors_pem, &signer, identity, now)
}

/// Makes a leaf and looks at it as a proxy does.
fn tried(anchors_pem: &str, signer: &Signer, identity: &Identity, now: SystemTime) -> Result<(), String> {
    let Identity::Dns(name) = identity else { return Err(format!("{identity} is no DNS name")) };
    let store =
        Store::new(anchors_pem, name.clone(), identity.clone()).map_err(|e| format!("the trust anchors: {e}"))?;
    let key = Key::generate().map_err(|e| e.to_string())?;
    let csr = key.csr(identity).map_err(|e| e.to_string())?;
    let asked = Asked::read(identity, &csr).map_err(|e| e.to_string())?;
    let leaf = signer.sign(asked, now).map_err(|e| e.to_string())?;
    store
        .set_certificate(&key, &leaf.certificate, &leaf.intermediates)
        .map_err(|e| format!("proxies would refuse what this issuer signs: {e}"))
}

fn text(path: &Path) -> Result<String, Error> {
    let io = |error| Error::Io { path: path.to_owned(), error };
    let mut text = String::new();
    File::open(path).map_err(io)?.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(io)?;
    Ok(text)
}

/// The earliest end of the certificates of a text.
pub(super) fn earliest(anchors_pem: &str) -> Result<SystemTime, String> {
    first_end(&lives(anchors_pem)?)
}

/// When the first certificate of a text begins to be valid.
pub(super) fn begin(chain_pem: &str) -> Option<SystemTime> {
    lives(chain_pem).ok()?.first().map(|life| life.begin)
}

fn first_end(roots: &[Life]) -> Result<SystemTime, String> {
    roots.iter().map(|root| root.end).min().ok_or_else(|| "there is no trust anchor in it".to_owned())
}

fn lives(anchors_pem: &str) -> Result<Vec<Life>, String> {
    let blocks = Pem::iter_from_buffer(anchors_pem.as_bytes()).map(|block| {
        let block = block.map_err(|e| format!("the trust anchors are no PEM: {e}"))?;
        let root = block.parse_x509().map_err(|e| format!("a trust anchor cannot be read: {e}"))?;
        Ok(Life::of(&root))
    });
    blocks.collect()
}
