//! The life of roots, issuers and leaves, with time given in.

use super::*;
use weft_transport::tls::Key;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder that goes away with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("weft-ca-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn lifetimes() -> Lifetimes {
    Lifetimes { root: 100 * DAY, issuer: 10 * DAY, leaf: DAY, announce: DAY, skew: Duration::from_secs(20) }
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + 20_000 * DAY
}

fn identity() -> Identity {
    "web.emojivoto.serviceaccount.identity.linkerd.cluster.local".parse().unwrap()
}

fn roots(ca: &Ca) -> Vec<&str> {
    ca.status().anchors_pem.split_inclusive("-----END CERTIFICATE-----\n").collect()
}

/// Whether a leaf of `ca` chains to `anchors` at `now`, checked as peers do.
fn trusted(leaf: &Leaf, anchors: &str, now: SystemTime) -> bool {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let seconds = i64::try_from(now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let at = x509_parser::time::ASN1Time::from_timestamp(seconds).unwrap();
    let (_, issuer) = X509Certificate::from_der(&leaf.intermediates[0]).unwrap();
    let (_, certificate) = X509Certificate::from_der(&leaf.certificate).unwrap();
    let by_root = x509_parser::pem::Pem::iter_from_buffer(anchors.as_bytes()).any(|pem| {
        let pem = pem.unwrap();
        let root = pem.parse_x509().unwrap();
        root.validity().is_valid_at(at) && issuer.verify_signature(Some(root.public_key())).is_ok()
    });
    by_root
        && issuer.validity().is_valid_at(at)
        && certificate.validity().is_valid_at(at)
        && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

#[test]
fn a_restart_keeps_the_authority() {
    let dir = Dir::new("restart");
    let first = ensure(&dir.0, &lifetimes(), start()).unwrap();
    let again = ensure(&dir.0, &lifetimes(), start() + DAY).unwrap();
    assert_eq!(first.status(), again.status());
    assert_eq!(&status(&dir.0).unwrap(), first.status());
}

#[test]
fn only_the_owner_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new("rights");
    ensure(&dir.0, &lifetimes(), start()).unwrap();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir.0.join("ca")), 0o700);
    assert_eq!(mode(dir.0.join("ca/ca.json")), 0o600);
}

#[test]
fn what_is_broken_is_not_replaced() {
    let dir = Dir::new("broken");
    ensure(&dir.0, &lifetimes(), start()).unwrap();
    std::fs::write(dir.0.join("ca/ca.json"), "{").unwrap();
    let error = ensure(&dir.0, &lifetimes(), start()).unwrap_err();
    assert!(error.to_string().contains("ca.json"), "{error}");
}

#[test]
fn the_issuer_renews_itself_and_roots_overlap() {
    let dir = Dir::new("life");
    let key = Key::generate().unwrap();
    let csr = key.csr(&identity()).unwrap();
    let mut now = start();
    let mut held: Vec<(Leaf, SystemTime)> = vec![];
    let mut issuers: Vec<SystemTime> = vec![];
    let mut bundles: Vec<(String, SystemTime)> = vec![];
    // More than two lives of a root, looked at every six hours.
    for _ in 0..4 * 250 {
        let ca = ensure(&dir.0, &lifetimes(), now).unwrap();
        assert!(ca.status().issuer_not_after > now + DAY, "the issuer outlives what it signs");
        assert!(roots(&ca).len() <= 2);
        let leaf = ca.sign(&identity(), &csr, now).unwrap();
        held.push((leaf, now));
        // Every leaf that is not over is trusted by whoever has the newest bundle.
        held.retain(|(leaf, _)| leaf.not_after > now);
        // Checking signatures is slow where nothing is optimized: the oldest and the newest stand for all.
        for (leaf, made) in held.first().into_iter().chain(held.last()) {
            assert!(trusted(leaf, &ca.status().anchors_pem, now), "a leaf made {:?} ago", now.duration_since(*made));
        }
        // And the newest leaf by whoever has had no new bundle for less than the announcement.
        if let Some((old, _)) = bundles.iter().rev().find(|(_, at)| now.duration_since(*at).unwrap() >= DAY / 2) {
            assert!(trusted(&held.last().unwrap().0, old, now));
        }
        bundles.push((ca.status().anchors_pem.clone(), now));
        issuers.push(ca.status().issuer_not_after);
        now += DAY / 4;
    }
    issuers.dedup();
    let mut distinct: Vec<_> = bundles.into_iter().map(|(pem, _)| pem).collect();
    distinct.dedup();
    assert!(issuers.len() >= 33, "{} issuers in 250 days", issuers.len());
    assert!(distinct.len() >= 7, "{} bundles: old, both, new, both, …", distinct.len());
}

#[test]
fn a_clock_that_jumps_does_not_end_the_mesh() {
    let dir = Dir::new("jump");
    let csr = Key::generate().unwrap().csr(&identity()).unwrap();
    // Suspended for a year, then set back by two.
    for now in [start(), start() + 400 * DAY, start() - 330 * DAY] {
        let ca = ensure(&dir.0, &lifetimes(), now).unwrap();
        let leaf = ca.sign(&identity(), &csr, now).unwrap();
        assert!(trusted(&leaf, &ca.status().anchors_pem, now));
    }
}

#[test]
fn leaves_are_as_asked_and_end_before_their_issuer() {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let dir = Dir::new("leaf");
    let ca = ensure(&dir.0, &lifetimes(), start()).unwrap();
    let csr = Key::generate().unwrap().csr(&identity()).unwrap();
    let (a, b) = (ca.sign(&identity(), &csr, start()).unwrap(), ca.sign(&identity(), &csr, start()).unwrap());
    let (_, first) = X509Certificate::from_der(&a.certificate).unwrap();
    let (_, second) = X509Certificate::from_der(&b.certificate).unwrap();
    assert_ne!(first.raw_serial(), second.raw_serial());
    assert!(!first.is_ca());
    let usage = first.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth);
    let late = ca.status().issuer_not_after - Duration::from_secs(60);
    assert_eq!(ca.sign(&identity(), &csr, late).unwrap().not_after, ca.status().issuer_not_after);
    assert_eq!(ca.sign(&identity(), &csr, ca.status().issuer_not_after), Err(Refused::Expired));
}

#[test]
fn requests_for_something_else_are_refused() {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    let dir = Dir::new("refuse");
    let ca = ensure(&dir.0, &lifetimes(), start()).unwrap();
    let name = identity().to_string();
    let request = |edit: &dyn Fn(&mut CertificateParams), key: &KeyPair| {
        let mut params = CertificateParams::new(vec![name.clone()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        edit(&mut params);
        ca.sign(&identity(), params.serialize_request(key).unwrap().der(), start())
    };
    let p256 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    assert!(request(&|_| {}, &p256).is_ok());
    assert!(request(&|p| p.distinguished_name.push(DnType::CommonName, name.as_str()), &p256).is_ok());
    type Edit = fn(&mut CertificateParams);
    let refused: [(&str, Edit); 8] = [
        ("another name", |p| p.subject_alt_names = vec![SanType::DnsName("x.y".try_into().unwrap())]),
        ("two names", |p| p.subject_alt_names.push(SanType::DnsName("x.y".try_into().unwrap()))),
        ("no name", |p| p.subject_alt_names.clear()),
        ("an address", |p| p.subject_alt_names.push(SanType::IpAddress("10.0.0.1".parse().unwrap()))),
        ("a URI", |p| p.subject_alt_names.push(SanType::URI("spiffe://x/y".try_into().unwrap()))),
        ("another common name", |p| p.distinguished_name.push(DnType::CommonName, "x.y")),
        ("an organization", |p| p.distinguished_name.push(DnType::OrganizationName, "x")),
        ("a CA", |p| p.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
    ];
    for (what, edit) in refused {
        assert!(matches!(request(&edit, &p256), Err(Refused::NotAllowed(_))), "{what}");
    }
    assert!(matches!(request(&|_| {}, &p384), Err(Refused::NotAllowed(_))));
    let mut forged = Key::generate().unwrap().csr(&identity()).unwrap();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for bytes in [&forged[..], b"", b"\x30\x03\x02\x01\x00", &vec![0; 20 << 10]] {
        assert!(matches!(ca.sign(&identity(), bytes, start()), Err(Refused::Malformed(_))));
    }
}
