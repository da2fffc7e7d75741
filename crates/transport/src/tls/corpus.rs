//! Certificates that are wrong in one way each, presented by servers and by clients: none is believed, and no byte of the
//! application passes.

use super::{
    test::{dns, expecting, tcp_pair},
    *,
};
use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose as Eku, GeneralSubtree, IsCa, Issuer,
    KeyPair, NameConstraints, PublicKeyData, SanType, date_time_ymd,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NAME: &str = "web.ns.serviceaccount.identity.linkerd.cluster.local";
const SPIFFE: &str = "spiffe://cluster.local/ns/ns/sa/web";

/// More intermediates than any mesh has.
const TOO_MANY: usize = 12;
/// Authorities of one name.
const MAZE: usize = 8;

/// Who must refuse a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refuses {
    Both,
    /// As a client it is fine, or another identity.
    Clients,
    Servers,
}

struct Case {
    what: &'static str,
    refuses: Refuses,
    /// The leaf first.
    chain: Vec<Vec<u8>>,
}

/// Makes leaves for one key.
struct Maker {
    root: Authority,
    key: Key,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

fn params(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    change(&mut params);
    params
}

impl Authority {
    fn root(name: &str) -> Self {
        let params = Self::params(name, |_| {});
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let params = Self::params(name, change);
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    fn params(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
        params(|params| {
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            change(params);
        })
    }

    fn pem(&self) -> String {
        use rustls::pki_types::CertificateDer;
        let der = CertificateDer::from(self.der.clone());
        let lines: Vec<_> =
            base64(&der).as_bytes().chunks(64).map(|l| String::from_utf8(l.to_vec()).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for piece in bytes.chunks(3) {
        let bits = piece.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - piece.len()));
        for digit in 0..4 {
            let at = usize::try_from(bits >> (18 - 6 * digit) & 63).unwrap();
            text.push(if digit <= piece.len() { DIGITS[at] as char } else { '=' });
        }
    }
    text
}

/// A public key of 1024 bits, which nobody can sign with any more.
struct Rsa1024(Vec<u8>);

impl Rsa1024 {
    fn new() -> Self {
        // SEQUENCE { INTEGER modulus, INTEGER 65537 }
        let mut modulus = vec![0x5a; 128];
        modulus[0] = 0xc3;
        modulus[127] = 0x01;
        let mut der = vec![0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00];
        der.extend(modulus);
        der.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
        Self(der)
    }
}

impl PublicKeyData for Rsa1024 {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_RSA_SHA256
    }
}

impl Maker {
    fn leaf(&self, by: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let params = params(|params| {
            params.subject_alt_names = vec![dns(NAME)];
            change(params);
        });
        let key = KeyPair::try_from(self.key.pkcs8().unwrap().as_slice()).unwrap();
        params.signed_by(&key, &by.issuer).unwrap().der().to_vec()
    }

    fn by(&self, authorities: &[&Authority]) -> Vec<Vec<u8>> {
        let mut chain = vec![self.leaf(authorities[0], |_| {})];
        chain.extend(authorities.iter().map(|a| a.der.clone()));
        chain
    }

    fn cases(&self) -> Vec<Case> {
        use Refuses::{Both, Clients, Servers};
        let case = |what, refuses, chain| Case { what, refuses, chain };
        let changed = |what, refuses, change: fn(&mut CertificateParams)| {
            case(what, refuses, vec![self.leaf(&self.root, change)])
        };
        let stranger = Authority::root("root");
        let below_stranger = stranger.below("issuer", |_| {});
        let constrained = |permitted: bool, subtree: GeneralSubtree| {
            let constraints = NameConstraints {
                permitted_subtrees: if permitted { vec![subtree.clone()] } else { vec![] },
                excluded_subtrees: if permitted { vec![] } else { vec![subtree] },
            };
            self.root.below("constrained", |params| params.name_constraints = Some(constraints))
        };
        let elsewhere = constrained(true, GeneralSubtree::DnsName("example.org".into()));
        let excluded = constrained(false, GeneralSubtree::DnsName("cluster.local".into()));
        let no_path = self.root.below("no path", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
        let beyond = no_path.below("beyond", |_| {});
        let no_authority = self.root.below("no authority", |params| params.is_ca = IsCa::ExplicitNoCa);
        let over = self.root.below("over", |params| params.not_after = date_time_ymd(2020, 1, 1));
        let mut row = vec![self.root.below("1", |_| {})];
        for n in 2..=TOO_MANY {
            let next = row[n - 2].below(&n.to_string(), |_| {});
            row.push(next);
        }
        let row: Vec<_> = row.iter().rev().collect();

        // Each could have signed each (RUSTSEC-2023-0053): a search without bound takes for ever.
        let same: Vec<_> = (0..MAZE).map(|_| stranger.below("same", |_| {})).collect();
        let mut maze = vec![self.leaf(&same[0], |_| {})];
        for (a, by) in same.iter().flat_map(|a| same.iter().map(move |by| (a, by))).take(MAZE * 4) {
            let key = KeyPair::try_from(a.issuer.key().serialize_der().as_slice()).unwrap();
            let below = Authority::params("same", |_| {}).signed_by(&key, &by.issuer).unwrap();
            maze.push(below.der().to_vec());
        }
        let mut wrong_kind = self.leaf(&self.root, |_| {});
        // id-ecPublicKey, of which the last arc becomes another.
        let kind = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
        let at = wrong_kind.windows(kind.len()).position(|part| part == kind).unwrap();
        wrong_kind[at + kind.len() - 1] = 0x7f;

        let other_key = KeyPair::generate().unwrap();
        let for_another =
            params(|p| p.subject_alt_names = vec![dns(NAME)]).signed_by(&other_key, &self.root.issuer).unwrap();
        let weak =
            params(|p| p.subject_alt_names = vec![dns(NAME)]).signed_by(&Rsa1024::new(), &self.root.issuer).unwrap();
        let own_key = KeyPair::try_from(self.key.pkcs8().unwrap().as_slice()).unwrap();
        let self_signed = params(|p| p.subject_alt_names = vec![dns(NAME)]).self_signed(&own_key).unwrap();
        let mut cut_off = self.leaf(&self.root, |_| {});
        cut_off.truncate(cut_off.len() - 1);
        let mut forged = self.leaf(&self.root, |_| {});
        *forged.last_mut().unwrap() ^= 1;

        vec![
            changed("expired", Both, |p| p.not_after = date_time_ymd(2020, 1, 1)),
            changed("not yet valid", Both, |p| p.not_before = date_time_ymd(2090, 1, 1)),
            changed("no name", Both, |p| p.subject_alt_names = vec![]),
            changed("an address for a name", Both, |p| {
                p.subject_alt_names = vec![SanType::IpAddress([10, 0, 0, 1].into())];
            }),
            changed("a common name alone", Both, |p| {
                p.subject_alt_names = vec![];
                p.distinguished_name.push(rcgen::DnType::CommonName, NAME);
            }),
            changed("another name", Clients, |p| p.subject_alt_names = vec![dns(&NAME.replace("web", "app"))]),
            changed("a name of the other kind", Clients, |p| {
                p.subject_alt_names = vec![SanType::URI(SPIFFE.try_into().unwrap())];
            }),
            changed("an authority's", Both, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            changed("for clients only", Clients, |p| p.extended_key_usages = vec![Eku::ClientAuth]),
            changed("for servers only", Servers, |p| p.extended_key_usages = vec![Eku::ServerAuth]),
            changed("for code only", Both, |p| p.extended_key_usages = vec![Eku::CodeSigning]),
            changed("with an unknown critical extension", Both, |p| {
                let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
                extension.set_criticality(true);
                p.custom_extensions = vec![extension];
            }),
            case("self-signed", Both, vec![self_signed.der().to_vec()]),
            case("of another root with the same name", Both, vec![self.leaf(&stranger, |_| {})]),
            case("of another root, which is sent along", Both, self.by(&[&below_stranger, &stranger])),
            case("for another key", Both, vec![for_another.der().to_vec()]),
            case("for a weak key", Both, vec![weak.der().to_vec()]),
            case("with a forged signature", Both, vec![forged]),
            case("cut off", Both, vec![cut_off]),
            case("no certificate", Both, vec![b"no certificate".to_vec()]),
            case("with a chain that is too long", Both, self.by(&row)),
            case("with a maze of authorities of one name", Both, maze.clone()),
            case("with a maze as large as a chain may be", Both, maze.into_iter().take(5).collect()),
            changed("with thousands of names of others", Clients, |p| {
                p.subject_alt_names = (0..1000).map(|n| dns(&format!("n{n}.example.org"))).collect();
            }),
            changed("larger than a handshake may be", Both, |p| {
                p.subject_alt_names = (0..4000).map(|n| dns(&format!("{n:0>40}.example.org"))).collect();
            }),
            case("of another kind of key than it says", Both, vec![wrong_kind]),
            case("below an authority for other names", Both, self.by(&[&elsewhere])),
            case("below an authority that must not name it", Both, self.by(&[&excluded])),
            case("beyond the allowed depth", Both, self.by(&[&beyond, &no_path])),
            case("below somebody who is no authority", Both, self.by(&[&no_authority])),
            case("below an authority that is over", Both, self.by(&[&over])),
            case("without its intermediate", Both, vec![self.by(&[&self.root.below("x", |_| {})]).remove(0)]),
        ]
    }

    /// Who presents `chain`, with this key.
    fn presents(&self, chain: &[Vec<u8>]) -> Store {
        let store = self.believes();
        store.force_certificate(&self.key, chain);
        store
    }

    fn believes(&self) -> Store {
        Store::new(&self.root.pem(), NAME.parse().unwrap(), NAME.parse().unwrap()).unwrap()
    }

    /// A workload with nothing wrong.
    fn good(&self) -> Store {
        self.presents(&[self.leaf(&self.root, |_| {})])
    }
}

fn maker() -> Maker {
    Maker { root: Authority::root("root"), key: Key::generate().unwrap() }
}

/// What the server's application got of a client that writes as soon as it may, and what each side says of the other.
async fn meet(client: &Store, server: &Store) -> (Result<(), TlsError>, Result<(), TlsError>, Vec<u8>) {
    let (a, b) = tcp_pair().await;
    let expected = expecting(NAME);
    let client = async {
        let (mut stream, _) = client.connect(a, &expected, false).await?;
        // Refused clients learn it when they write or read.
        let _ = stream.write_all(b"secret").await;
        let _ = stream.shutdown().await;
        stream.read(&mut [0]).await.map(drop).map_err(TlsError::from)
    };
    let server = async {
        let mut bytes = Vec::new();
        match server.accept(b, Bytes::new(), false).await {
            Ok((mut stream, _)) => {
                let _ = stream.read_to_end(&mut bytes).await;
                let _ = stream.shutdown().await;
                (Ok(()), bytes)
            }
            Err(error) => (Err(error), bytes),
        }
    };
    let (client, (server, bytes)) = tokio::join!(client, server);
    (client, server, bytes)
}

#[tokio::test]
async fn no_wrong_certificate_of_a_server_is_believed() {
    let maker = maker();
    let client = maker.good();
    assert_eq!(meet(&client, &maker.good()).await.2, b"secret", "with nothing wrong");
    for Case { what, refuses, chain } in maker.cases() {
        let (client, _, bytes) = meet(&client, &maker.presents(&chain)).await;
        if refuses == Refuses::Servers {
            client.unwrap_or_else(|e| panic!("{what}: {e}"));
            continue;
        }
        let error = client.expect_err(what);
        assert!(!matches!(error, TlsError::Io(_) | TlsError::Refused(_)), "{what}: the client itself refuses: {error}");
        assert_eq!(bytes, b"", "{what}");
    }
}

/// Certificates that could each have signed each are many paths to search: whoever has none of ours must not make us search them
/// for long (RUSTSEC-2023-0053).
#[tokio::test]
async fn a_maze_of_certificates_costs_little() {
    let maker = maker();
    let server = maker.good();
    // The same process time for both, so that a busy machine is no failure; twenty-five good ones for each.
    let cost = async |client: &Store| {
        let before = cpu();
        for _ in 0..3 {
            let _ = meet(client, &server).await;
        }
        cpu() - before
    };
    let good = maker.good();
    let _warm = cost(&good).await;
    let ordinary = cost(&good).await;
    let mazes = maker.cases().into_iter().filter(|case| case.what.contains("maze"));
    for Case { what, chain, .. } in mazes {
        let spent = cost(&maker.presents(&chain)).await;
        assert!(spent <= 25 * ordinary, "{what}: {spent} ns, {ordinary} with nothing wrong");
    }
}

/// Nanoseconds that this thread has run.
fn cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn no_wrong_certificate_of_a_client_is_believed() {
    let maker = maker();
    let server = maker.good();
    for Case { what, refuses, chain } in maker.cases() {
        let (client, accepted, bytes) = meet(&maker.presents(&chain), &server).await;
        if refuses == Refuses::Clients {
            accepted.unwrap_or_else(|e| panic!("{what}: {e}"));
            continue;
        }
        accepted.expect_err(what);
        assert!(client.is_err(), "{what}: the client learns it");
        assert_eq!(bytes, b"", "{what}");
    }
}

/// A workload does not put into force what its peers would refuse.
#[test]
fn no_wrong_certificate_is_put_into_force() {
    let maker = maker();
    for Case { what, refuses, chain } in maker.cases() {
        let (leaf, intermediates) = chain.split_first().unwrap();
        let taken = maker.believes().set_certificate(&maker.key, leaf, intermediates);
        assert_eq!(taken.is_ok(), refuses == Refuses::Servers, "{what}: {taken:?}");
    }
}
