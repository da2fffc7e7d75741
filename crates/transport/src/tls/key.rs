//! The private key of a workload, and the request to have it certified.
//!
//! The key is held once, in the memory of the crypto library, which clears it when it is freed; every copy that leaves it clears
//! itself when dropped.

use super::KeyError;
use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use rcgen::PublicKeyData;
use rustls::{
    Error, SignatureAlgorithm, SignatureScheme,
    pki_types::SubjectPublicKeyInfoDer,
    sign::{Signer, SigningKey},
};
use std::{fmt, sync::Arc};
use weft_model::Identity;
use zeroize::Zeroizing;

/// An ECDSA P-256 key. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Key(Arc<Pair>);

struct Pair {
    pair: EcdsaKeyPair,
    /// The public half as certificates carry it.
    public: Vec<u8>,
}

const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;

impl Key {
    /// A new key from the operating system's random numbers.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let pair =
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|e| KeyError::Generate(e.to_string()))?;
        Self::new(pair)
    }

    /// Reads a key in PKCS#8 (DER).
    ///
    /// # Errors
    /// It is not a P-256 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .map_err(|e| KeyError::Invalid(e.to_string()))?;
        Self::new(pair)
    }

    fn new(pair: EcdsaKeyPair) -> Result<Self, KeyError> {
        let public = pair.public_key().as_der().map_err(|e| KeyError::Invalid(e.to_string()))?.as_ref().to_vec();
        Ok(Self(Arc::new(Pair { pair, public })))
    }

    /// A copy of the key in PKCS#8 (DER), to be kept in a file that nobody else can read.
    ///
    /// # Errors
    /// The crypto library has no memory.
    pub fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let document = self.0.pair.to_pkcs8v1().map_err(|e| KeyError::Invalid(e.to_string()))?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
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
        Ok(params.serialize_request(&*self.0).map_err(failed)?.der().to_vec())
    }

    pub(super) fn signing(&self) -> Arc<dyn SigningKey> {
        Arc::new(self.clone())
    }
}

impl Pair {
    fn signature(&self, message: &[u8]) -> Option<Vec<u8>> {
        Some(self.pair.sign(&SystemRandom::new(), message).ok()?.as_ref().to_vec())
    }
}

/// For handshakes.
impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SCHEME).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.0.public.as_slice().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.signature(message).ok_or_else(|| Error::General("signing failed".to_owned()))
    }

    fn scheme(&self) -> SignatureScheme {
        SCHEME
    }
}

/// For requests.
impl PublicKeyData for Pair {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Pair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signature(message).ok_or(rcgen::Error::RemoteKeyError)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(P-256)")
    }
}
