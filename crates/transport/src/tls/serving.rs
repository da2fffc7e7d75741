//! TLS for servers that are asked from outside the mesh, such as webhooks: a certificate of a file, and nobody is asked for one.

use super::{CertificateError, TlsError, handshake, verify};
use crate::Stream;
use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::{
    ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier, verify_server_name},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, ParsedCertificate},
    version::TLS13,
};
use std::{sync::Arc, time::SystemTime};
use tokio::net::TcpStream;
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    time::ASN1Time,
};

/// What is offered to clients: HTTP in both framings.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The certificate in force; a handshake uses the one that was when it began.
#[derive(Debug)]
pub struct Serving(ArcSwap<ServerConfig>);

impl Serving {
    /// `chain_pem` begins with the server's certificate; the key is in PKCS#8, SEC 1 or PKCS#1.
    ///
    /// # Errors
    /// They cannot be read, or the key is not the certificate's.
    pub fn new(chain_pem: &str, key_pem: &str) -> Result<Self, CertificateError> {
        config(chain_pem, key_pem).map(|config| Self(ArcSwap::new(config)))
    }

    /// Presents another certificate in handshakes that begin from now on.
    ///
    /// # Errors
    /// As [`Serving::new`]; the present one stays.
    pub fn set(&self, chain_pem: &str, key_pem: &str) -> Result<(), CertificateError> {
        config(chain_pem, key_pem).map(|config| self.0.store(config))
    }

    /// Whether a client that asks for `host` and trusts `anchors_pem` alone takes the certificate: one such as the API server, which
    /// is written in Go. There a CA's certificate may be a server's, and one that is trusted itself needs nobody else's word.
    ///
    /// # Errors
    /// Why not.
    pub fn vouched(anchors_pem: &str, chain_pem: &str, host: &str, now: SystemTime) -> Result<(), String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let anchors = verify::anchors(anchors_pem).map_err(|e| text(&e))?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect();
        let chain = chain.map_err(|e| text(&e))?;
        let (leaf, intermediates) = chain.split_first().ok_or("there is no certificate in it")?;
        let host = ServerName::try_from(host).map_err(|e| text(&e))?;
        let provider = verify::provider(verify::KeyExchange::default());
        if stands_alone(leaf, intermediates, anchors_pem, &provider, now) {
            return is_for(leaf, &host, now);
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(anchors), provider).build().map_err(|e| text(&e))?;
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        verifier.verify_server_cert(leaf, intermediates, &host, &[], now).map(drop).map_err(|e| text(&e))
    }

    /// Terminates TLS. There is no time limit in here: the caller's timeout drops the future.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub async fn accept(&self, tcp: TcpStream) -> Result<Stream, TlsError> {
        let config = self.0.load_full();
        handshake::accept(config, tcp, Bytes::new()).await.map(|(stream, _)| stream)
    }
}

/// The most certificates between a leaf and its anchor.
const DEEPEST: u32 = 4;

/// Whether a certificate is one of the anchors, or a CA's below one: chains of the library's end in what is no CA's.
fn stands_alone(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors_pem: &str,
    provider: &CryptoProvider,
    now: SystemTime,
) -> bool {
    let anchors = CertificateDer::pem_slice_iter(anchors_pem.as_bytes()).filter_map(Result::ok);
    let anchors: Vec<CertificateDer<'_>> = anchors.collect();
    anchors.contains(leaf) || Above { intermediates, anchors: &anchors, provider, now }.reaches(leaf, 0)
}

/// Who may have signed a CA's certificate.
struct Above<'c> {
    intermediates: &'c [CertificateDer<'c>],
    anchors: &'c [CertificateDer<'c>],
    provider: &'c CryptoProvider,
    now: SystemTime,
}

impl Above<'_> {
    /// Whether a chain leads from a certificate to an anchor; `between` are those from it to the leaf.
    fn reaches(&self, below: &CertificateDer<'_>, between: u32) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(below) else { return false };
        let signs = |above: &&CertificateDer<'_>| self.signs(above, &certificate, between);
        certificate.is_ca()
            && (self.anchors.iter().any(|anchor| signs(&anchor))
                || (between < DEEPEST
                    && self.intermediates.iter().filter(signs).any(|above| self.reaches(above, between + 1))))
    }

    fn signs(&self, above: &CertificateDer<'_>, certificate: &X509Certificate<'_>, between: u32) -> bool {
        let Ok((_, above)) = X509Certificate::from_der(above) else { return false };
        let Ok(Some(constraints)) = above.basic_constraints() else { return false };
        let (key, algorithms) =
            (&above.public_key().subject_public_key.data, self.provider.signature_verification_algorithms);
        let (message, signature) = (certificate.tbs_certificate.as_ref(), &certificate.signature_value.data);
        constraints.value.ca
            && constraints.value.path_len_constraint.is_none_or(|most| between <= most)
            && above.subject() == certificate.issuer()
            && is_valid(&above, self.now)
            && algorithms.all.iter().any(|one| one.verify_signature(key, message, signature).is_ok())
    }
}

/// Whether a certificate itself fits, whoever has signed it.
fn is_for(leaf: &CertificateDer<'_>, host: &ServerName<'_>, now: SystemTime) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let parsed = ParsedCertificate::try_from(leaf).map_err(|e| text(&e))?;
    verify_server_name(&parsed, host).map_err(|e| text(&e))?;
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|e| text(&e))?;
    if !is_valid(&certificate, now) {
        return Err("it is not valid yet, or has expired".to_owned());
    }
    match certificate.extended_key_usage().map_err(|e| text(&e))? {
        Some(usage) if !usage.value.any && !usage.value.server_auth => Err("it is not for servers".to_owned()),
        _ => Ok(()),
    }
}

fn is_valid(certificate: &X509Certificate<'_>, now: SystemTime) -> bool {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(seconds).ok().and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    now.is_some_and(|now| certificate.validity().is_valid_at(now))
}

fn config(chain_pem: &str, key_pem: &str) -> Result<Arc<ServerConfig>, CertificateError> {
    let parse = |e: rustls::pki_types::pem::Error| CertificateError::Parse(e.to_string());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect();
    let chain: Vec<CertificateDer<'static>> = chain.map_err(parse)?;
    if chain.is_empty() {
        return Err(CertificateError::Parse("there is no certificate in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| CertificateError::Key)?;
    let builder = ServerConfig::builder_with_provider(verify::provider(verify::KeyExchange::default()))
        .with_protocol_versions(&[&TLS13])?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => CertificateError::Key,
        other => other.into(),
    })?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.enable_secret_extraction = true;
    config.alpn_protocols = ALPN.iter().map(|p| p.to_vec()).collect();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["hook.ns.svc".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn who_vouches_for_itself_is_taken_for_its_name() {
        let ((one, _), (other, _)) = (pair(), pair());
        let now = SystemTime::now();
        assert_eq!(Serving::vouched(&one, &one, "hook.ns.svc", now), Ok(()));
        assert!(Serving::vouched(&other, &one, "hook.ns.svc", now).is_err());
        assert!(Serving::vouched(&one, &one, "other.ns.svc", now).is_err());
        assert!(Serving::vouched("", &one, "hook.ns.svc", now).is_err());
        assert!(Serving::vouched(&one, "", "hook.ns.svc", now).is_err());
    }

    /// openssl makes such certificates where it is told nothing else.
    #[test]
    fn a_certificate_of_a_ca_is_a_servers_as_for_the_api_server() {
        let now = SystemTime::now();
        let authority = |name: &str, change: &dyn Fn(&mut rcgen::CertificateParams)| {
            let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            change(&mut params);
            (params, rcgen::KeyPair::generate().unwrap())
        };
        let alone = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
            let (params, key) = authority("hook.ns.svc", change);
            let pem = params.self_signed(&key).unwrap().pem();
            Serving::vouched(&format!("{}{pem}", pair().0), &pem, "hook.ns.svc", now)
        };
        assert_eq!(alone(&|_| {}), Ok(()));
        let hour = std::time::Duration::from_secs(3600);
        assert!(alone(&|params| params.not_after = (now - hour).into()).unwrap_err().contains("expired"));
        assert!(alone(&|params| params.not_before = (now + hour).into()).unwrap_err().contains("not valid yet"));
        assert!(alone(&|params| params.subject_alt_names.clear()).is_err());
        let usage = |usage: rcgen::ExtendedKeyUsagePurpose| {
            alone(&move |params| params.extended_key_usages = vec![usage.clone()])
        };
        assert_eq!(usage(rcgen::ExtendedKeyUsagePurpose::ServerAuth), Ok(()));
        assert!(usage(rcgen::ExtendedKeyUsagePurpose::ClientAuth).unwrap_err().contains("not for servers"));
        // And below another, if that has signed it.
        let (root, root_key) = authority("root", &|_| {});
        let (other, other_key) = authority("root", &|_| {});
        let (ended, ended_key) = authority("root", &|params| params.not_after = (now - hour).into());
        let (params, key) = authority("hook.ns.svc", &|_| {});
        for (issuer, issuer_key, is_taken) in [(root, root_key, true), (ended, ended_key, false)] {
            let anchor = issuer.self_signed(&issuer_key).unwrap().pem();
            let issuer = rcgen::Issuer::from_ca_cert_pem(&anchor, issuer_key).unwrap();
            let leaf = params.signed_by(&key, &issuer).unwrap().pem();
            assert_eq!(Serving::vouched(&anchor, &leaf, "hook.ns.svc", now).is_ok(), is_taken);
            let other = other.self_signed(&other_key).unwrap().pem();
            assert!(Serving::vouched(&other, &leaf, "hook.ns.svc", now).is_err());
        }
    }

    #[test]
    fn a_certificate_of_a_ca_is_taken_below_what_comes_with_it() {
        let now = SystemTime::now();
        let hour = std::time::Duration::from_secs(3600);
        let params = |name: &str, most: Option<u8>| {
            let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let constraints = most.map_or(rcgen::BasicConstraints::Unconstrained, rcgen::BasicConstraints::Constrained);
            params.is_ca = rcgen::IsCa::Ca(constraints);
            params
        };
        let taken = |most: Option<u8>, ends: SystemTime, comes_with_it: bool| {
            let key = || rcgen::KeyPair::generate().unwrap();
            let (root_key, between_key) = (key(), key());
            let anchor = params("root", most).self_signed(&root_key).unwrap().pem();
            let root = rcgen::Issuer::from_ca_cert_pem(&anchor, root_key).unwrap();
            let mut between = params("between", None);
            between.not_after = ends.into();
            let between = between.signed_by(&between_key, &root).unwrap().pem();
            let issuer = rcgen::Issuer::from_ca_cert_pem(&between, between_key).unwrap();
            let leaf = params("hook.ns.svc", None).signed_by(&key(), &issuer).unwrap().pem();
            let chain = if comes_with_it { leaf + &between } else { leaf };
            assert!(Serving::vouched(&pair().0, &chain, "hook.ns.svc", now).is_err());
            Serving::vouched(&anchor, &chain, "hook.ns.svc", now)
        };
        assert_eq!(taken(None, now + hour, true), Ok(()));
        assert_eq!(taken(Some(1), now + hour, true), Ok(()));
        assert!(taken(Some(0), now + hour, true).is_err());
        assert!(taken(None, now - hour, true).is_err());
        assert!(taken(None, now + hour, false).is_err());
    }

    #[test]
    fn certificates_are_replaced_whole_or_not() {
        let ((chain, key), (other, _)) = (pair(), pair());
        assert_eq!(Serving::new(&other, &key).unwrap_err(), CertificateError::Key);
        assert_eq!(Serving::new(&chain, "").unwrap_err(), CertificateError::Key);
        assert!(matches!(Serving::new("", &key), Err(CertificateError::Parse(_))));
        let serving = Serving::new(&chain, &key).unwrap();
        let before = Arc::as_ptr(&serving.0.load());
        assert!(serving.set(&other, &key).is_err());
        assert_eq!(Arc::as_ptr(&serving.0.load()), before);
        let (chain, key) = pair();
        serving.set(&chain, &key).unwrap();
        assert_ne!(Arc::as_ptr(&serving.0.load()), before);
    }
}
