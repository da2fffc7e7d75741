//! A certificate authority of one test: root, issuer, leaves, and leaves that are wrong.

mod wrong;

pub use wrong::{Refuses, Wrong};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, RsaKeySize,
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use weft_model::Identity;
use weft_wire::identity::Certificate;

/// Signs what it is asked to sign. Cheap to clone.
#[derive(Clone)]
pub struct Ca(Arc<Inner>);

struct Inner {
    anchors_pem: String,
    anchor_der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    issuer_der: Vec<u8>,
    /// Its certificate and key.
    issuer_pem: (String, String),
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Issued {
    pub key_pkcs8: Vec<u8>,
    pub certificate: Certificate,
}

/// How far back certificates are valid, for clocks that differ.
const BACKDATED: Duration = Duration::from_secs(60);

impl Ca {
    pub fn new() -> Result<Self> {
        Self::shaped(|_| {})
    }

    /// One whose own certificates are valid from then to then.
    pub fn valid(begin: SystemTime, end: SystemTime) -> Result<Self> {
        Self::shaped(|params| (params.not_before, params.not_after) = (begin.into(), end.into()))
    }

    /// One whose root has a key of RSA.
    pub fn below_rsa(bits: RsaKeySize) -> Result<Self> {
        Self::below(KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, bits)?, |_| {})
    }

    fn shaped(shape: impl Fn(&mut CertificateParams)) -> Result<Self> {
        Self::below(KeyPair::generate()?, shape)
    }

    fn below(root_key: KeyPair, shape: impl Fn(&mut CertificateParams)) -> Result<Self> {
        let mut root_params = authority("root.linkerd.cluster.local");
        shape(&mut root_params);
        let root = root_params.self_signed(&root_key)?;
        let root_issuer = Issuer::new(root_params, root_key);

        let issuer_key = KeyPair::generate()?;
        let mut issuer_params = authority("identity.linkerd.cluster.local");
        shape(&mut issuer_params);
        let issuer = issuer_params.signed_by(&issuer_key, &root_issuer)?;
        Ok(Self(Arc::new(Inner {
            anchors_pem: root.pem(),
            anchor_der: root.der().to_vec(),
            issuer_der: issuer.der().to_vec(),
            issuer_pem: (issuer.pem(), issuer_key.serialize_pem()),
            issuer: Issuer::new(issuer_params, issuer_key),
        })))
    }

    /// The root in PEM.
    pub fn anchors_pem(&self) -> &str {
        &self.0.anchors_pem
    }

    /// The certificate and the key of the issuer in PEM, for a control plane that signs itself.
    pub fn issuer_pem(&self) -> (&str, &str) {
        let (certificate, key) = &self.0.issuer_pem;
        (certificate, key)
    }

    /// The issuer's key as `openssl ecparam -genkey` writes it: SEC 1, with the curve before it and in it.
    pub fn issuer_sec1(&self) -> Result<String> {
        const NUMBER: [u8; 5] = [2, 1, 1, 4, 32];
        /// The name of P-256.
        const CURVE: [u8; 10] = [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
        let key = self.0.issuer.key();
        let pkcs8 = key.serialize_der();
        let at = pkcs8.windows(NUMBER.len()).position(|bytes| bytes == NUMBER).context("finding the number")?;
        let number = pkcs8.get(at + NUMBER.len()..at + NUMBER.len() + 32).context("reading the number")?;
        let mut sec1 = vec![0x30, 0x77];
        sec1.extend(NUMBER);
        sec1.extend(number);
        sec1.extend([0xa0, 10]);
        sec1.extend(CURVE);
        sec1.extend([0xa1, 68, 3, 66, 0]);
        sec1.extend(key.der_bytes());
        let block =
            |label: &str, der: &[u8]| format!("-----BEGIN {label}-----\n{}-----END {label}-----\n", base64(der));
        Ok(block("EC PARAMETERS", &CURVE) + &block("EC PRIVATE KEY", &sec1))
    }

    /// The root in DER.
    pub fn anchor_der(&self) -> &[u8] {
        &self.0.anchor_der
    }

    /// Certifies the key and the names of a request (DER), whoever asks.
    pub fn certify(&self, csr: &[u8], lifetime: Duration) -> Result<Certificate> {
        let mut csr = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).context("reading the request")?;
        csr.params.use_authority_key_identifier_extension = true;
        let valid_until = validity(&mut csr.params, lifetime);
        let leaf = csr.signed_by(&self.0.issuer).context("signing")?;
        Ok(self.certificate(leaf.der().to_vec(), valid_until))
    }

    /// A key of its own with a certificate for `identity`, for a peer that the test plays itself.
    pub fn issue(&self, identity: &Identity, lifetime: Duration) -> Result<Issued> {
        self.issue_all(std::slice::from_ref(identity), lifetime)
    }

    /// The same for several names, in this order.
    pub fn issue_all(&self, identities: &[Identity], lifetime: Duration) -> Result<Issued> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        for identity in identities {
            let name = identity.as_str().try_into().context("naming the leaf")?;
            params.subject_alt_names.push(match identity {
                Identity::Dns(_) => rcgen::SanType::DnsName(name),
                Identity::Uri(_) => rcgen::SanType::URI(name),
            });
        }
        // What the SPIFFE standard asks of a leaf.
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let valid_until = validity(&mut params, lifetime);
        let leaf = params.signed_by(&key, &self.0.issuer)?;
        let certificate = self.certificate(leaf.der().to_vec(), valid_until);
        Ok(Issued { key_pkcs8: key.serialize_der(), certificate })
    }

    fn certificate(&self, leaf: Vec<u8>, valid_until: SystemTime) -> Certificate {
        Certificate { leaf: leaf.into(), intermediates: vec![self.0.issuer_der.clone().into()], valid_until }
    }
}

/// In lines of 64 characters.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (index, three) in bytes.chunks(3).enumerate() {
        let number = (0..3).fold(0_usize, |number, at| number << 8 | usize::from(three.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let letter = LETTERS.get(number >> (18 - 6 * at) & 63).copied().map_or('=', char::from);
            text.push(if at <= three.len() { letter } else { '=' });
        }
        if index % 16 == 15 {
            text.push('\n');
        }
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Sets from when to when, and returns the latter.
fn validity(params: &mut CertificateParams, lifetime: Duration) -> SystemTime {
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + lifetime).into();
    now + lifetime
}
