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
    extensions::{GeneralName, GeneralSubtree, NameConstraints},
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
const DEEPEST: usize = 4;

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
    if anchors.contains(leaf) {
        return true;
    }
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return false };
    let above = Above { intermediates: &parsed(intermediates), anchors: &parsed(&anchors), provider, now };
    leaf.is_ca() && above.reaches(&[&leaf])
}

fn parsed<'c>(certificates: &'c [CertificateDer<'_>]) -> Vec<X509Certificate<'c>> {
    certificates
        .iter()
        .filter_map(|der| X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate))
        .collect()
}

/// Who may have signed a CA's certificate.
struct Above<'c> {
    intermediates: &'c [X509Certificate<'c>],
    anchors: &'c [X509Certificate<'c>],
    provider: &'c CryptoProvider,
    now: SystemTime,
}

impl Above<'_> {
    /// Whether a chain, which begins with the leaf, leads to an anchor.
    fn reaches(&self, chain: &[&X509Certificate<'_>]) -> bool {
        let signs = |above: &&X509Certificate<'_>| self.signs(above, chain);
        self.anchors.iter().any(|anchor| signs(&anchor))
            || (chain.len() <= DEEPEST
                && self.intermediates.iter().filter(signs).any(|above| self.reaches(&[chain, &[above]].concat())))
    }

    /// Whether a certificate has signed the last of a chain, and may vouch for the whole of it.
    fn signs(&self, above: &X509Certificate<'_>, chain: &[&X509Certificate<'_>]) -> bool {
        let Some((below, between)) = chain.split_last() else { return false };
        let (Ok(Some(constraints)), Ok(usage), Ok(names)) =
            (above.basic_constraints(), above.key_usage(), above.name_constraints())
        else {
            return false;
        };
        let (key, algorithms) =
            (&above.public_key().subject_public_key.data, self.provider.signature_verification_algorithms);
        let (message, signature) = (below.tbs_certificate.as_ref(), &below.signature_value.data);
        let most = constraints.value.path_len_constraint.and_then(|most| usize::try_from(most).ok());
        constraints.value.ca
            && most.is_none_or(|most| between.len() <= most)
            && usage.is_none_or(|usage| usage.value.key_cert_sign())
            && names.is_none_or(|names| chain.iter().all(|below| admits(names.value, below)))
            && is_for_servers(above)
            && above.subject() == below.issuer()
            && is_valid(above, self.now)
            && algorithms.all.iter().any(|one| one.verify_signature(key, message, signature).is_ok())
    }
}

/// Whether a certificate has no name beyond these.
fn admits(constraints: &NameConstraints<'_>, certificate: &X509Certificate<'_>) -> bool {
    let NameConstraints { permitted_subtrees, excluded_subtrees } = constraints;
    let Ok(names) = certificate.subject_alternative_name() else { return false };
    let mut names = names.iter().flat_map(|names| &names.value.general_names);
    names.all(|name| {
        let within = |trees: &Option<Vec<GeneralSubtree<'_>>>| -> Vec<bool> {
            trees.iter().flatten().filter_map(|tree| is_within(name, &tree.base)).collect()
        };
        let (permitted, excluded) = (within(permitted_subtrees), within(excluded_subtrees));
        !excluded.contains(&true) && (permitted.is_empty() || permitted.contains(&true))
    })
}

/// `None` where the tree is of names of another kind.
fn is_within(name: &GeneralName<'_>, tree: &GeneralName<'_>) -> Option<bool> {
    match (name, tree) {
        (GeneralName::DNSName(name), GeneralName::DNSName(tree)) => {
            let (name, tree) = (name.to_ascii_lowercase(), tree.to_ascii_lowercase());
            let rest = name.strip_suffix(&tree);
            Some(rest.is_some_and(|rest| [rest, &tree].contains(&"") || rest.ends_with('.') || tree.starts_with('.')))
        }
        (GeneralName::IPAddress(ip), GeneralName::IPAddress(tree)) => {
            let (addr, mask) = tree.split_at(tree.len() / 2);
            let is_in = |((ip, addr), mask): ((&u8, &u8), &u8)| ip & mask == addr & mask;
            Some(addr.len() == ip.len() && ip.iter().zip(addr).zip(mask).all(is_in))
        }
        _ => None,
    }
}

/// Whether a certificate itself fits, whoever has signed it.
fn is_for(leaf: &CertificateDer<'_>, host: &ServerName<'_>, now: SystemTime) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let parsed = ParsedCertificate::try_from(leaf).map_err(|e| text(&e))?;
    verify_server_name(&parsed, host).map_err(|e| text(&e))?;
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|e| text(&e))?;
    match () {
        () if !is_valid(&certificate, now) => Err("it is not valid yet, or has expired".to_owned()),
        () if !is_for_servers(&certificate) => Err("it is not for servers".to_owned()),
        () => Ok(()),
    }
}

fn is_for_servers(certificate: &X509Certificate<'_>) -> bool {
    let usage = certificate.extended_key_usage();
    usage.is_ok_and(|usage| usage.is_none_or(|usage| usage.value.any || usage.value.server_auth))
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
        use rcgen::{
            BasicConstraints, CertificateParams, CidrSubnet, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
            KeyPair, KeyUsagePurpose, NameConstraints,
        };
        let now = SystemTime::now();
        let hour = std::time::Duration::from_secs(3600);
        let params = |name: &str, change: &dyn Fn(&mut CertificateParams)| {
            let mut params = CertificateParams::new(vec![name.to_owned(), "10.1.2.3".to_owned()]).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            change(&mut params);
            params
        };
        let chain = |of_root: &dyn Fn(&mut CertificateParams), of_between: &dyn Fn(&mut CertificateParams)| {
            let [root_key, between_key, key] = [(); 3].map(|()| KeyPair::generate().unwrap());
            let anchor = params("root.svc", of_root).self_signed(&root_key).unwrap().pem();
            let root = Issuer::from_ca_cert_pem(&anchor, root_key).unwrap();
            let between = params("between.svc", of_between).signed_by(&between_key, &root).unwrap().pem();
            let issuer = Issuer::from_ca_cert_pem(&between, between_key).unwrap();
            let leaf = params("hook.ns.svc", &|_| {}).signed_by(&key, &issuer).unwrap().pem();
            (anchor, format!("{leaf}{between}"), leaf)
        };
        let vouched = |anchor: &str, chain: &str| Serving::vouched(anchor, chain, "hook.ns.svc", now);
        let (anchor, whole, leaf) = chain(&|_| {}, &|_| {});
        assert_eq!(vouched(&anchor, &whole), Ok(()));
        assert!(vouched(&anchor, &leaf).is_err(), "who has signed it does not come with it");
        assert!(vouched(&pair().0, &whole).is_err());
        let names = |permitted: &[&str], excluded: &[&str]| {
            let trees = |names: &[&str]| names.iter().map(|name| GeneralSubtree::DnsName((*name).to_owned())).collect();
            Some(NameConstraints { permitted_subtrees: trees(permitted), excluded_subtrees: trees(excluded) })
        };
        let network = |second: u8| {
            let tree = GeneralSubtree::IpAddress(CidrSubnet::V4([10, second, 0, 0], [255, 255, 0, 0]));
            Some(NameConstraints { permitted_subtrees: vec![tree], excluded_subtrees: vec![] })
        };
        let may_be = |change: &dyn Fn(&mut CertificateParams)| {
            let [of_root, of_between] = [chain(change, &|_| {}), chain(&|_| {}, change)];
            [of_root, of_between].map(|(anchor, whole, _)| vouched(&anchor, &whole).is_ok())
        };
        assert_eq!(may_be(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(1))), [true; 2]);
        assert_eq!(may_be(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))), [false, true]);
        assert_eq!(may_be(&|p| p.not_after = (now - hour).into()), [false; 2]);
        assert_eq!(may_be(&|p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]), [true; 2]);
        assert_eq!(may_be(&|p| p.key_usages = vec![KeyUsagePurpose::CrlSign]), [false; 2]);
        assert_eq!(may_be(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]), [true; 2]);
        assert_eq!(may_be(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]), [true; 2]);
        assert_eq!(may_be(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]), [false; 2]);
        assert_eq!(may_be(&|p| p.name_constraints = names(&["SVC"], &["other.svc"])), [true; 2]);
        assert_eq!(may_be(&|p| p.name_constraints = names(&["other", ".svc"], &[])), [true; 2]);
        assert_eq!(may_be(&|p| p.name_constraints = names(&["hook.ns.svc"], &[])), [false, true]);
        assert_eq!(may_be(&|p| p.name_constraints = names(&["vc"], &[])), [false; 2]);
        assert_eq!(may_be(&|p| p.name_constraints = names(&["svc"], &["ns.svc"])), [false; 2]);
        assert_eq!(may_be(&|p| p.name_constraints = network(1)), [true; 2]);
        assert_eq!(may_be(&|p| p.name_constraints = network(2)), [false; 2]);
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
