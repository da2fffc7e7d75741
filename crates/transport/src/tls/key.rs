//! The private key of a workload, and the request to have it certified.

use super::KeyError;
use rustls::{crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer, sign::SigningKey};
use std::{fmt, sync::Arc};
use weft_model::Identity;

/// An ECDSA P-256 key. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Key(Arc<Inner>);

struct Inner {
    pkcs8: Vec<u8>,
    pair: rcgen::KeyPair,
    signing: Arc<dyn SigningKey>,
}

impl Key {
    /// A new key from the operating system's random numbers.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|e| KeyError::Generate(e.to_string()))?;
        Self::from_pkcs8(&pair.serialize_der())
    }

    /// Reads a key in PKCS#8 (DER).
    ///
    /// # Errors
    /// It is not a P-256 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pkcs8 = PrivatePkcs8KeyDer::from(der);
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|e| KeyError::Invalid(e.to_string()))?;
        let signing =
            aws_lc_rs::sign::any_ecdsa_type(&pkcs8.clone_key().into()).map_err(|e| KeyError::Invalid(e.to_string()))?;
        Ok(Self(Arc::new(Inner { pkcs8: der.to_vec(), pair, signing })))
    }

    /// The key in PKCS#8 (DER), to be kept in a file that nobody else can read.
    pub fn pkcs8(&self) -> &[u8] {
        &self.0.pkcs8
    }

    /// A certificate signing request (DER) with exactly one name: DNS identities also as common name.
    ///
    /// # Errors
    /// Signing fails.
    pub fn csr(&self, identity: &Identity) -> Result<Vec<u8>, KeyError> {
        let failed = |e: rcgen::Error| KeyError::Request(e.to_string());
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = match identity {
            Identity::Dns(name) => {
                params.distinguished_name.push(rcgen::DnType::CommonName, name.as_str());
                rcgen::SanType::DnsName(name.as_str().try_into().map_err(failed)?)
            }
            Identity::Uri(uri) => rcgen::SanType::URI(uri.to_string().try_into().map_err(failed)?),
        };
        params.subject_alt_names = vec![name];
        Ok(params.serialize_request(&self.0.pair).map_err(failed)?.der().to_vec())
    }

    pub(super) fn signing(&self) -> Arc<dyn SigningKey> {
        self.0.signing.clone()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(P-256)")
    }
}
