//! Who is believed: chains, validity, and names compared exactly.

use super::{AnchorsError, CertificateError, error::Mismatch};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms,
        aws_lc_rs::{self, cipher_suite, kx_group},
        verify_tls13_signature,
    },
    pki_types::{
        CertificateDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
    server::{
        ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use weft_model::Identity;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The most intermediates of a chain. Where all of them bear one name, each more multiplies what the search for a path costs.
const MAX_INTERMEDIATES: usize = 4;

/// How the two sides of a handshake agree on keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyExchange {
    /// X25519MLKEM768 first: what is recorded today stays secret when quantum computers come. The default.
    #[default]
    PostQuantum,
    /// Without it, for about half of what a handshake costs.
    Classical,
}

/// The algorithms of the mesh, most wanted first.
pub(super) fn provider(exchange: KeyExchange) -> Arc<CryptoProvider> {
    let mut kx_groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    if exchange == KeyExchange::PostQuantum {
        kx_groups.insert(0, kx_group::X25519MLKEM768);
    }
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups,
        ..aws_lc_rs::default_provider()
    })
}

/// What handshakes are made with, for whoever looks at a running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Most wanted first, with commas.
    pub suites: String,
    /// Key exchanges, most wanted first, with commas.
    pub groups: String,
    pub random: String,
    pub keys: String,
    /// The crypto library is a validated module.
    pub fips: bool,
}

pub fn info(exchange: KeyExchange) -> Info {
    let provider = provider(exchange);
    let suites: Vec<_> = provider.cipher_suites.iter().map(|suite| format!("{:?}", suite.suite())).collect();
    let groups: Vec<_> = provider.kx_groups.iter().map(|group| format!("{:?}", group.name())).collect();
    Info {
        suites: suites.join(","),
        groups: groups.join(","),
        random: format!("{:?}", provider.secure_random),
        keys: format!("{:?}", provider.key_provider),
        fips: provider.fips(),
    }
}

/// Whether these are trust anchors that a [`super::Store`] takes.
///
/// # Errors
/// They are no certificates, or none at all.
pub fn check_anchors(pem: &str) -> Result<(), AnchorsError> {
    anchors(pem).map(drop)
}

/// Reads trust anchors; whatever stands around the certificates is skipped, as are other kinds of PEM blocks.
pub(super) fn anchors(pem: &str) -> Result<RootCertStore, AnchorsError> {
    let mut roots = RootCertStore::empty();
    for (index, der) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        let der = der.map_err(|e| AnchorsError::Pem(no_pem(&e)))?;
        roots.add(der).map_err(|e| AnchorsError::Certificate { index, reason: e.to_string() })?;
    }
    if roots.is_empty() { Err(AnchorsError::Empty) } else { Ok(roots) }
}

/// In words; the library shows bytes as numbers.
fn no_pem(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("there is no end of {:?}", String::from_utf8_lossy(end_marker))
        }
        pem::Error::IllegalSectionStart { line } => format!("{:?} begins nothing", String::from_utf8_lossy(line)),
        error => error.to_string(),
    }
}

/// Clients need no certificate, but one that is presented must chain to the anchors. The anchors' names are not sent:
/// a workload has one certificate to choose from.
pub(super) fn clients(
    anchors: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(anchors, provider.clone())
        .clear_root_hint_subjects()
        .allow_unauthenticated()
        .build()?;
    Ok(Arc::new(Bounded(verifier)))
}

/// Looks at no chain that is too long.
#[derive(Debug)]
struct Bounded(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Bounded {
    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_length(intermediates)?;
        self.0.verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn check_length(intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(Error::General(format!("the chain has more than {MAX_INTERMEDIATES} intermediates")));
    }
    Ok(())
}

/// Checks that a workload can present `chain` (leaf first) as `identity`, and says until when.
pub(super) fn own_certificate(
    anchors: &RootCertStore,
    provider: &CryptoProvider,
    identity: &Identity,
    chain: &[CertificateDer<'_>],
) -> Result<SystemTime, CertificateError> {
    let (leaf, intermediates) =
        chain.split_first().ok_or_else(|| CertificateError::Parse("there is no certificate".to_owned()))?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|e| CertificateError::Parse(e.to_string()))?;
    chain_to(anchors, provider.signature_verification_algorithms, leaf, intermediates, UnixTime::now())?;
    let names = names(&parsed);
    if !names.iter().any(|name| name.is(identity)) {
        return Err(CertificateError::Identity { expected: identity.clone(), presented: texts(&names) });
    }
    not_after(&parsed).ok_or(CertificateError::Expired)
}

/// What a verified peer's certificate says.
#[derive(Default)]
pub(super) struct Presented {
    /// Its first DNS or URI name.
    pub(super) identity: Option<Identity>,
    pub(super) expires: Option<SystemTime>,
    /// It has neither DNS nor URI names: nobody in the mesh is called like that.
    pub(super) nameless: bool,
}

/// Reads the certificate of a peer that has been verified.
pub(super) fn presented(leaf: &CertificateDer<'_>) -> Presented {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else { return Presented::default() };
    let names = names(&parsed);
    let identity = match names.first() {
        // A name that only looks like the other kind is no identity.
        Some(Name::Dns(name)) => name.parse().ok().map(Identity::Dns),
        Some(Name::Uri(uri)) => uri.parse().ok().filter(|id| matches!(id, Identity::Uri(_))),
        None => None,
    };
    Presented { identity, expires: not_after(&parsed), nameless: names.is_empty() }
}

/// `None` for what was over before 1970, or is beyond what the clock can say.
fn not_after(certificate: &X509Certificate<'_>) -> Option<SystemTime> {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn chain_to(
    anchors: &RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<(), Error> {
    check_length(intermediates)?;
    let parsed = ParsedCertificate::try_from(leaf)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, anchors, intermediates, now, algorithms.all)
}

#[derive(Debug, PartialEq, Eq)]
enum Name<'a> {
    Dns(&'a str),
    Uri(&'a str),
}

impl Name<'_> {
    /// Exactly, byte by byte: no wildcards, no letter case.
    fn is(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Self::Dns(name), Identity::Dns(expected)) => *name == expected.as_str(),
            (Self::Uri(uri), Identity::Uri(expected)) => *uri == &**expected,
            _ => false,
        }
    }
}

/// The DNS and URI names in the order in which they stand in the certificate.
fn names<'a>(certificate: &'a X509Certificate<'_>) -> Vec<Name<'a>> {
    let Ok(Some(san)) = certificate.subject_alternative_name() else { return Vec::new() };
    san.value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(Name::Dns(name)),
            GeneralName::URI(uri) => Some(Name::Uri(uri)),
            _ => None,
        })
        .collect()
}

fn texts(names: &[Name<'_>]) -> Vec<String> {
    // What a stranger wrote ends up in logs: few and short.
    names.iter().take(8).map(|(Name::Dns(text) | Name::Uri(text))| text.chars().take(256).collect()).collect()
}

/// Which servers' certificates are believed.
pub(super) trait Believes: std::fmt::Debug + Send + Sync {
    /// # Errors
    /// This one is not.
    fn believes(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        algorithms: WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<(), Error>;
}

/// The server that chains to the anchors and carries one name.
#[derive(Debug)]
pub(super) struct ServerIdentity {
    pub(super) anchors: Arc<RootCertStore>,
    pub(super) expected: Identity,
}

/// Nobody: the place holder in a configuration that has not been told whom to expect.
#[derive(Debug)]
pub(super) struct Nobody;

/// Anybody, whatever the certificate says: for probes alone.
#[derive(Debug)]
pub(super) struct Anybody;

/// For a client that believes anybody and is nobody: nothing may go over it that is not meant for whoever answers.
pub(super) fn unproven(exchange: KeyExchange) -> Result<ClientConfig, Error> {
    let provider = provider(exchange);
    let anybody = Servers::new(&provider, Anybody);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(anybody)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

impl Believes for ServerIdentity {
    fn believes(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        algorithms: WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<(), Error> {
        chain_to(&self.anchors, algorithms, leaf, intermediates, now)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| rustls::CertificateError::BadEncoding)?;
        let names = names(&parsed);
        if names.iter().any(|name| name.is(&self.expected)) {
            return Ok(());
        }
        Err(Mismatch { expected: self.expected.clone(), presented: texts(&names) }.into())
    }
}

impl Believes for Nobody {
    fn believes(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: WebPkiSupportedAlgorithms,
        _: UnixTime,
    ) -> Result<(), Error> {
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }
}

impl Believes for Anybody {
    fn believes(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: WebPkiSupportedAlgorithms,
        _: UnixTime,
    ) -> Result<(), Error> {
        Ok(())
    }
}

/// Believes a server that holds the key of a certificate that is believed, in TLS 1.3 alone.
#[derive(Debug)]
pub(super) struct Servers<B> {
    believed: B,
    algorithms: WebPkiSupportedAlgorithms,
}

impl<B: Believes + 'static> Servers<B> {
    pub(super) fn new(provider: &CryptoProvider, believed: B) -> Arc<Self> {
        Arc::new(Self { believed, algorithms: provider.signature_verification_algorithms })
    }
}

impl<B: Believes> ServerCertVerifier for Servers<B> {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // The SNI only chooses among the server's certificates; the identity is what counts.
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.believed.believes(leaf, intermediates, self.algorithms, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{NamedGroup, SupportedCipherSuite};

    #[test]
    fn only_tls13() {
        let provider = provider(KeyExchange::default());
        assert!(provider.cipher_suites.iter().all(|suite| matches!(suite, SupportedCipherSuite::Tls13(_))));
        assert_eq!(provider.kx_groups.first().map(|group| group.name()), Some(NamedGroup::X25519MLKEM768));
    }
}
