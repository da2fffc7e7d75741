//! Leaves: what a request may ask for, and the certificate that it gets (control plane 7.2, 7.3).

use super::{life::Life, make};
use crate::Lifetimes;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use std::time::SystemTime;
use weft_model::Identity;
use x509_parser::pem::Pem;

/// Bytes of a request: one name and one key have a few hundred.
const MAX_CSR_BYTES: usize = 16 << 10;
/// An uncompressed point of P-256.
const P256_POINT_BYTES: usize = 65;

/// A signed certificate, DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub certificate: Vec<u8>,
    /// From the issuer on, without the root.
    pub intermediates: Vec<Vec<u8>>,
    pub not_after: SystemTime,
}

/// Why a request is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no request, or its signature is wrong.
    #[error("the certificate signing request is not valid: {0}")]
    Malformed(String),
    /// It asks for something else than the identity.
    #[error("the certificate signing request is refused: {0}")]
    NotAllowed(String),
    /// The issuer is out of its time.
    #[error("the issuer's certificate is not valid now: check the clock, and by `weft check` when it ended")]
    Expired,
    #[error("signing failed: {0}")]
    Failed(String),
}

/// A request that asks for nothing but the certificate of an identity, by who has the key.
pub struct Asked(CertificateSigningRequestParams);

impl Asked {
    /// Reads a request (DER).
    ///
    /// # Errors
    /// It asks for something else.
    pub fn read(identity: &Identity, csr: &[u8]) -> Result<Self, Refused> {
        let request = parse(csr)?;
        allowed(&request, identity)?;
        Ok(Self(request))
    }
}

pub(super) struct Signer {
    issuer: rcgen::Issuer<'static, KeyPair>,
    chain: Vec<Vec<u8>>,
    not_after: SystemTime,
    due: SystemTime,
    lifetimes: Lifetimes,
}

impl Signer {
    /// `chain_pem` is the issuer's certificate and those between it and the root; `key_pem` its key in PKCS#8 or SEC 1.
    ///
    /// # Errors
    /// A predicate of the issuer, for people.
    pub(super) fn new(chain_pem: &str, key_pem: &str, lifetimes: &Lifetimes) -> Result<Self, String> {
        let blocks = |pem: &str, label: &str| -> Result<Vec<Vec<u8>>, String> {
            let blocks: Result<Vec<_>, _> = Pem::iter_from_buffer(pem.as_bytes()).collect();
            let blocks = blocks.map_err(|e| format!("is no PEM: {e}"))?;
            Ok(blocks.into_iter().filter(|b| b.label.ends_with(label)).map(|b| b.contents).collect())
        };
        let chain = blocks(chain_pem, "CERTIFICATE")?;
        let issuer = chain.first().ok_or("has no certificate")?;
        let keys = blocks(key_pem, "PRIVATE KEY")?;
        let key = keys.first().ok_or("has no private key")?;
        let key = KeyPair::try_from(key.as_slice()).map_err(|e| format!("has a key that cannot be read: {e}"))?;
        if key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err("has a key that is not ECDSA P-256".to_owned());
        }
        let mut lives = vec![];
        for (index, der) in chain.iter().enumerate() {
            let (_, certificate) = x509_parser::parse_x509_certificate(der)
                .map_err(|e| format!("has a certificate that cannot be read: {e}"))?;
            if !certificate.is_ca() {
                return Err(format!("has a certificate that is of no authority: {}", certificate.subject()));
            }
            if index == 0 && certificate.public_key().raw != key.subject_public_key_info() {
                return Err("has a key that is not its certificate's".to_owned());
            }
            lives.push(Life::of(&certificate));
        }
        let not_after = lives.iter().map(|life| life.end).min().ok_or("has no certificate")?;
        let due = lives.iter().map(Life::due).fold(not_after, SystemTime::min);
        let issuer = rcgen::Issuer::from_ca_cert_der(&issuer.as_slice().into(), key)
            .map_err(|e| format!("has a certificate that cannot be used: {e}"))?;
        Ok(Self { issuer, chain, not_after, due, lifetimes: *lifetimes })
    }

    /// The earliest end in the chain.
    pub(super) fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// When somebody should see to the first successor in the chain.
    pub(super) fn due(&self) -> SystemTime {
        self.due
    }

    pub(super) fn sign(&self, Asked(request): Asked, now: SystemTime) -> Result<Leaf, Refused> {
        if now >= self.not_after {
            return Err(Refused::Expired);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = request.params.distinguished_name;
        params.subject_alt_names = request.params.subject_alt_names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(make::serial().map_err(|e| Refused::Failed(e.to_string()))?);
        // A leaf that outlived its issuer would be refused by peers while its holder thinks it valid.
        let not_after = (now + self.lifetimes.leaf + self.lifetimes.skew).min(self.not_after);
        params.not_before = (now - self.lifetimes.skew).into();
        params.not_after = not_after.into();
        let leaf = params.signed_by(&request.public_key, &self.issuer).map_err(|e| Refused::Failed(e.to_string()))?;
        Ok(Leaf { certificate: leaf.der().to_vec(), intermediates: self.chain.clone(), not_after })
    }
}

fn parse(csr: &[u8]) -> Result<CertificateSigningRequestParams, Refused> {
    if csr.len() > MAX_CSR_BYTES {
        return Err(Refused::Malformed(format!("it has more than {MAX_CSR_BYTES} bytes")));
    }
    // The signature is checked in there: the sender has the key.
    CertificateSigningRequestParams::from_der(&csr.into()).map_err(|e| Refused::Malformed(e.to_string()))
}

fn allowed(request: &CertificateSigningRequestParams, identity: &Identity) -> Result<(), Refused> {
    let refuse = |text: String| Err(Refused::NotAllowed(text));
    if request.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256
        || request.public_key.der_bytes().len() != P256_POINT_BYTES
    {
        return refuse("the key is not ECDSA P-256".to_owned());
    }
    if request.params.is_ca != IsCa::NoCa && request.params.is_ca != IsCa::ExplicitNoCa {
        return refuse("it asks for a certificate authority".to_owned());
    }
    match request.params.subject_alt_names.as_slice() {
        [SanType::DnsName(name)] if name.as_str() == identity.as_str() => {}
        [SanType::DnsName(name)] => return refuse(format!("it names {}, not {identity}", name.as_str())),
        names => return refuse(format!("it has {} alternative names, and one DNS name is allowed", names.len())),
    }
    let mut subject = request.params.distinguished_name.iter();
    match (subject.next(), subject.next()) {
        (None, _) => Ok(()),
        (Some((DnType::CommonName, value)), None) if is_text(value, identity.as_str()) => Ok(()),
        _ => refuse(format!("its subject is something else than the common name {identity}")),
    }
}

/// Empty is allowed as well.
fn is_text(value: &DnValue, expected: &str) -> bool {
    let text = match value {
        DnValue::PrintableString(text) => text.as_str(),
        DnValue::Utf8String(text) => text.as_str(),
        DnValue::Ia5String(text) => text.as_str(),
        _ => return false,
    };
    text.is_empty() || text == expected
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}
