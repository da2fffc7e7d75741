//! The key and its signing request: `key.p8` and `csr.der` in the identity folder, made here when they are missing.

use std::{fs, io, io::Write, os::unix::fs::OpenOptionsExt, path::Path};
use weft_model::Identity;
use weft_transport::tls::{Key, KeyError};
use zeroize::Zeroizing;

const KEY: &str = "key.p8";
const CSR: &str = "csr.der";
/// Larger files are not what they claim to be.
const MAX_BYTES: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(in crate::process) enum KeysError {
    #[error("{path} cannot be read: {source}")]
    Read { path: String, source: io::Error },
    #[error("{path}: {source}")]
    Key { path: String, source: KeyError },
}

/// The key and the DER request to certify it. A new key is stored if the folder can be written; else it lives as long as
/// the process.
pub(in crate::process) fn load_or_make(dir: &Path, identity: &Identity) -> Result<(Key, Vec<u8>), KeysError> {
    let at = |name: &str| dir.join(name).display().to_string();
    if let Some(der) = read(dir, KEY)? {
        let wrong = |source| KeysError::Key { path: at(KEY), source };
        let key = Key::from_pkcs8(&der).map_err(wrong)?;
        let csr = match read(dir, CSR)? {
            Some(csr) => csr.to_vec(),
            None => key.csr(identity).map_err(wrong)?,
        };
        return Ok((key, csr));
    }
    let wrong = |source| KeysError::Key { path: at(KEY), source };
    let key = Key::generate().map_err(wrong)?;
    let csr = key.csr(identity).map_err(wrong)?;
    // The request first: a key without its request is completed at the next start, a request without its key would not be.
    let pkcs8 = key.pkcs8().map_err(wrong)?;
    match store(dir, CSR, &csr).and_then(|()| store(dir, KEY, &pkcs8)) {
        Ok(()) => tracing::debug!(dir = %dir.display(), "Made a key"),
        Err(error) => {
            tracing::info!(dir = %dir.display(), %error, "The new key is not stored: it lives in memory only")
        }
    }
    Ok((key, csr))
}

/// What is read may be a key: the memory is cleared afterwards.
fn read(dir: &Path, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeysError> {
    let path = dir.join(name);
    let failed = |source| KeysError::Read { path: path.display().to_string(), source };
    match fs::metadata(&path) {
        Ok(meta) if meta.len() > MAX_BYTES => Err(failed(io::Error::other("it is too large"))),
        Ok(_) => fs::read(&path).map(|bytes| Some(Zeroizing::new(bytes))).map_err(failed),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

/// Readable by nobody else at any moment, and whole or not there at all.
fn store(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = dir.join(format!(".{name}.{}", std::process::id()));
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let stored = written.and_then(|()| fs::rename(&new, dir.join(name)));
    if stored.is_err() {
        // Nothing more can be done about a file that cannot be removed either.
        let _ = fs::remove_file(&new);
    }
    stored
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::PermissionsExt, path::PathBuf};

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("weft-keys-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn identity() -> Identity {
        "web.ns.serviceaccount.identity.linkerd.cluster.local".parse().unwrap()
    }

    #[test]
    fn a_new_key_is_kept_for_the_next_start() {
        let dir = Dir::new("new");
        let (first, csr) = load_or_make(&dir.0, &identity()).unwrap();
        for name in [KEY, CSR] {
            assert_eq!(fs::metadata(dir.0.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 2);
        let (second, same_csr) = load_or_make(&dir.0, &identity()).unwrap();
        assert_eq!((first.pkcs8().unwrap(), csr), (second.pkcs8().unwrap(), same_csr));
        fs::remove_file(dir.0.join(CSR)).unwrap();
        let (third, csr) = load_or_make(&dir.0, &identity()).unwrap();
        assert_eq!(first.pkcs8().unwrap(), third.pkcs8().unwrap());
        assert!(!csr.is_empty());
    }

    #[test]
    fn a_folder_that_is_not_there_is_no_failure_but_a_broken_key_is() {
        let dir = Dir::new("broken");
        assert!(load_or_make(&dir.0.join("none"), &identity()).is_ok());
        fs::write(dir.0.join(KEY), b"no key").unwrap();
        assert!(matches!(load_or_make(&dir.0, &identity()), Err(KeysError::Key { .. })));
    }
}
