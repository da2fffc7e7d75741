//! Handshakes between real sockets, with certificates of a small authority.

use super::*;
use crate::stream::Stream;
use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType, date_time_ymd};
use std::time::{Duration, SystemTime};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weft_model::{DnsName, Identity, endpoint::ServerTls, names::TRANSPORT_ALPN};

const SERVER: &str = "server.ns.serviceaccount.identity.linkerd.cluster.local";
const CLIENT: &str = "client.ns.serviceaccount.identity.linkerd.cluster.local";

pub(crate) struct Ca {
    issuer: rcgen::Issuer<'static, KeyPair>,
    der: Vec<u8>,
    pub(crate) pem: String,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let (params, key) = Self::params(name);
        let certificate = params.self_signed(&key).unwrap();
        Self { der: certificate.der().to_vec(), pem: certificate.pem(), issuer: rcgen::Issuer::new(params, key) }
    }

    /// An authority below this one.
    fn intermediate(&self, name: &str) -> Self {
        let (params, key) = Self::params(name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self { der: certificate.der().to_vec(), pem: certificate.pem(), issuer: rcgen::Issuer::new(params, key) }
    }

    fn params(name: &str) -> (CertificateParams, KeyPair) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        (params, KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap())
    }

    pub(super) fn certify(&self, key: &Key, names: Vec<SanType>, years: (i32, i32)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let key = KeyPair::try_from(key.pkcs8().unwrap().as_slice()).unwrap();
        params.signed_by(&key, &self.issuer).unwrap().der().to_vec()
    }

    /// A store that trusts this authority, with a certificate of it.
    pub(crate) fn store(&self, name: &str) -> Store {
        let store = self.uncertified(name);
        let key = Key::generate().unwrap();
        store.set_certificate(&key, &self.certify(&key, vec![dns(name)], VALID), &[]).unwrap();
        store
    }

    fn uncertified(&self, name: &str) -> Store {
        Store::new(&self.pem, name.parse().unwrap(), name.parse().unwrap()).unwrap()
    }
}

pub(super) const VALID: (i32, i32) = (2000, 2100);

pub(super) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

pub(crate) fn expecting(name: &str) -> ServerTls {
    ServerTls { identity: name.parse().unwrap(), server_name: name.parse().unwrap_or_else(|_| "sni".parse().unwrap()) }
}

/// The first flight of a client of the mesh.
pub(crate) fn client_hello(sni: &str, alpn: bool) -> Vec<u8> {
    use rustls::{ClientConfig, ClientConnection};
    let mut config = ClientConfig::builder_with_provider(verify::provider(KeyExchange::default()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verify::Servers::new(
            &verify::provider(verify::KeyExchange::default()),
            verify::Nobody,
        ))
        .with_no_client_auth();
    if alpn {
        config.alpn_protocols = vec![TRANSPORT_ALPN.to_vec()];
    }
    let mut client = ClientConnection::new(config.into(), sni.to_owned().try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

pub(crate) type Connected = Result<(Stream, bool), TlsError>;
pub(crate) type Accepted = Result<(Stream, Peer), TlsError>;

pub(crate) async fn handshake(client: &Store, server: &Store, expect: &ServerTls) -> (Connected, Accepted) {
    offering(client, server, expect, (false, false)).await
}

async fn offering(
    client: &Store,
    server: &Store,
    expect: &ServerTls,
    (client_offers, server_offers): (bool, bool),
) -> (Connected, Accepted) {
    let (a, b) = tcp_pair().await;
    tokio::join!(client.connect(a, expect, client_offers), server.accept(b, Bytes::new(), server_offers))
}

async fn exchange(a: &mut Stream, b: &mut Stream) {
    for _ in 0..2 {
        pass(a, b).await;
        pass(b, a).await;
    }
}

async fn pass(from: &mut Stream, to: &mut Stream) {
    let mut got = [0; 4];
    from.write_all(b"ping").await.unwrap();
    from.flush().await.unwrap();
    to.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"ping");
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let ca = Ca::new("root");
    let (client, server) = (ca.store(CLIENT), ca.store(SERVER));
    let (connected, accepted) = handshake(&client, &server, &expecting(SERVER)).await;
    let ((mut a, transport), (mut b, peer)) = (connected.unwrap(), accepted.unwrap());
    assert!(!transport);
    assert_eq!(peer, Peer { identity: Some(CLIENT.parse().unwrap()), transport: false });
    assert!(a.session().is_some() && b.session().is_some());
    exchange(&mut a, &mut b).await;
}

#[tokio::test]
async fn a_client_may_have_no_certificate() {
    let ca = Ca::new("root");
    let (connected, accepted) = handshake(&ca.uncertified(CLIENT), &ca.store(SERVER), &expecting(SERVER)).await;
    let (mut b, peer) = accepted.unwrap();
    assert_eq!(peer.identity, None);
    exchange(&mut connected.unwrap().0, &mut b).await;
}

#[tokio::test]
async fn a_server_must_have_one() {
    let ca = Ca::new("root");
    let (connected, accepted) = handshake(&ca.store(CLIENT), &ca.uncertified(SERVER), &expecting(SERVER)).await;
    assert!(matches!(accepted, Err(TlsError::NotCertified)));
    assert!(matches!(connected, Err(TlsError::Io(_))), "{connected:?}");
}

/// What the server's application got from a client that writes as soon as it is connected.
async fn received(client: &Store, server: &Store, expect: &ServerTls) -> (TlsError, Vec<u8>) {
    let (a, b) = tcp_pair().await;
    let client = async {
        match client.connect(a, expect, false).await {
            Ok((mut stream, _)) => {
                stream.write_all(b"secret").await.unwrap();
                panic!("the server should have been refused");
            }
            Err(error) => error,
        }
    };
    let server = async {
        let mut bytes = Vec::new();
        if let Ok((mut stream, _)) = server.accept(b, Bytes::new(), false).await {
            let _ = stream.read_to_end(&mut bytes).await;
        }
        bytes
    };
    tokio::join!(client, server)
}

#[tokio::test]
async fn a_server_with_another_identity_gets_nothing() {
    let ca = Ca::new("root");
    let client = ca.store(CLIENT);
    let key = Key::generate().unwrap();
    let cases = [
        (SERVER, vec![dns("other.ns.serviceaccount.identity.linkerd.cluster.local")]),
        // No wildcards, no parents, no children, no letter case, no other kind of name, no dots as wildcards.
        (SERVER, vec![dns("*.ns.serviceaccount.identity.linkerd.cluster.local")]),
        (SERVER, vec![dns("ns.serviceaccount.identity.linkerd.cluster.local")]),
        (SERVER, vec![dns(&format!("x.{SERVER}"))]),
        (SERVER, vec![dns(&SERVER.to_uppercase())]),
        (SERVER, vec![dns(&SERVER.replace('.', "-"))]),
        (SERVER, vec![uri(&format!("spiffe://{SERVER}"))]),
        ("spiffe://td/ns/a/sa/b", vec![uri("spiffe://td/ns/a/sa/bb")]),
        ("spiffe://td/ns/a/sa/b", vec![dns(SERVER)]),
        (SERVER, vec![]),
    ];
    for (expected, names) in cases {
        let text = format!("{names:?}");
        let server = Store::new(&ca.pem, SERVER.parse().unwrap(), SERVER.parse().unwrap()).unwrap();
        server.force_certificate(&key, &[ca.certify(&key, names, VALID)]);
        let (error, bytes) = received(&client, &server, &expecting(expected)).await;
        assert!(matches!(error, TlsError::Identity { .. }), "{text}: {error:?}");
        assert_eq!(error.label(), "identity_mismatch");
        assert_eq!(bytes, b"", "{text}");
    }
}

#[tokio::test]
async fn any_name_of_the_server_counts_and_the_first_of_the_client() {
    let ca = Ca::new("root");
    let id = "spiffe://td/ns/a/sa/b";
    let key = Key::generate().unwrap();
    let names = vec![SanType::IpAddress([10, 0, 0, 1].into()), uri(id), dns(SERVER)];
    let store = Store::new(&ca.pem, SERVER.parse().unwrap(), SERVER.parse().unwrap()).unwrap();
    store.set_certificate(&key, &ca.certify(&key, names, VALID), &[]).unwrap();
    for expected in [id, SERVER] {
        let (connected, accepted) = handshake(&store, &store, &expecting(expected)).await;
        connected.unwrap();
        assert_eq!(accepted.unwrap().1.identity, Some(Identity::Uri(id.into())));
    }
    // A first name that is no identity hides those behind it.
    store.force_certificate(&key, &[ca.certify(&key, vec![dns("*.x"), dns(SERVER)], VALID)]);
    assert_eq!(handshake(&store, &store, &expecting(SERVER)).await.1.unwrap().1.identity, None);
}

#[tokio::test]
async fn servers_that_are_not_believed_get_nothing() {
    let (ca, stranger) = (Ca::new("root"), Ca::new("root"));
    let client = ca.store(CLIENT);
    let key = Key::generate().unwrap();
    for (der, label) in [
        (stranger.certify(&key, vec![dns(SERVER)], VALID), "untrusted"),
        (ca.certify(&key, vec![dns(SERVER)], (2000, 2020)), "expired"),
        (ca.certify(&key, vec![dns(SERVER)], (2090, 2100)), "not_valid_yet"),
    ] {
        let server = ca.uncertified(SERVER);
        server.force_certificate(&key, &[der]);
        let (error, bytes) = received(&client, &server, &expecting(SERVER)).await;
        assert_eq!(error.label(), label, "{error}");
        assert_eq!(bytes, b"");
    }
}

#[tokio::test]
async fn clients_that_are_not_believed_are_refused() {
    let (ca, stranger) = (Ca::new("root"), Ca::new("root"));
    let server = ca.store(SERVER);
    let key = Key::generate().unwrap();
    for (der, label) in [
        (stranger.certify(&key, vec![dns(CLIENT)], VALID), "untrusted"),
        (ca.certify(&key, vec![dns(CLIENT)], (2000, 2020)), "expired"),
        (ca.certify(&key, vec![dns(CLIENT)], (2090, 2100)), "not_valid_yet"),
    ] {
        let client = ca.uncertified(CLIENT);
        client.force_certificate(&key, &[der]);
        let (connected, accepted) = handshake(&client, &server, &expecting(SERVER)).await;
        assert_eq!(accepted.unwrap_err().label(), label);
        // In TLS 1.3 a client learns it when it reads.
        let refused = connected.unwrap().0.read_u8().await.unwrap_err();
        assert_eq!(TlsError::from(refused).label(), "refused");
    }
}

#[tokio::test]
async fn the_transport_header_is_negotiated_by_both() {
    let ca = Ca::new("root");
    let (client, server) = (ca.store(CLIENT), ca.store(SERVER));
    for (offers, agreed) in [((true, true), true), ((true, false), false), ((false, true), false)] {
        let (connected, accepted) = offering(&client, &server, &expecting(SERVER), offers).await;
        assert_eq!(connected.unwrap().1, agreed, "{offers:?}");
        assert_eq!(accepted.unwrap().1.transport, agreed, "{offers:?}");
    }
}

#[tokio::test]
async fn what_detection_has_read_is_part_of_the_handshake() {
    let ca = Ca::new("root");
    let (client, server) = (ca.store(CLIENT), ca.store(SERVER));
    for read in [1, 5, 6, 500, 1460, usize::MAX] {
        let (a, mut b) = tcp_pair().await;
        let expect = expecting(SERVER);
        let accept = async {
            let mut prefix = vec![0; read.min(16 * 1024)];
            if read == usize::MAX {
                // Whatever has come, which may be more than the first segment.
                let n = b.read(&mut prefix).await.unwrap();
                prefix.truncate(n);
            } else {
                b.read_exact(&mut prefix).await.unwrap();
            }
            server.accept(b, prefix.into(), false).await
        };
        let (connected, accepted) = tokio::join!(client.connect(a, &expect, false), accept);
        exchange(&mut connected.unwrap().0, &mut accepted.unwrap().0).await;
    }
}

#[tokio::test]
async fn what_is_not_tls_is_an_error() {
    let ca = Ca::new("root");
    for prefix in [&b""[..], b"GET / HTTP/1.1\r\n"] {
        let (mut a, b) = tcp_pair().await;
        a.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let error = ca.store(SERVER).accept(b, Bytes::from_static(prefix), false).await.unwrap_err();
        assert_eq!(error.label(), "protocol", "{error}");
    }
    let (a, b) = tcp_pair().await;
    drop(a);
    assert_eq!(ca.store(SERVER).accept(b, Bytes::new(), false).await.unwrap_err().label(), "io");
}

#[tokio::test]
async fn anchors_and_certificates_change_while_connections_stay() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let (client, server) = (old.store(CLIENT), old.store(SERVER));
    let (connected, accepted) = handshake(&client, &server, &expecting(SERVER)).await;
    let (mut a, mut b) = (connected.unwrap().0, accepted.unwrap().0);

    // The server is certified by the new authority: refused until it trusts it itself, then unknown to the client.
    let key = Key::generate().unwrap();
    let leaf = new.certify(&key, vec![dns(SERVER)], VALID);
    assert!(matches!(server.set_certificate(&key, &leaf, &[]), Err(CertificateError::Untrusted(_))));
    let both = format!("# comment\r\n{}\n\n{}\n\n", old.pem, new.pem.replace('\n', "\r\n"));
    server.set_anchors(&both).unwrap();
    server.set_certificate(&key, &leaf, &[]).unwrap();
    assert_eq!(handshake(&client, &server, &expecting(SERVER)).await.0.unwrap_err().label(), "untrusted");
    client.set_anchors(&both).unwrap();
    let (connected, accepted) = handshake(&client, &server, &expecting(SERVER)).await;
    exchange(&mut connected.unwrap().0, &mut accepted.unwrap().0).await;
    // The old authority goes: the client's own certificate is still of it.
    server.set_anchors(&new.pem).unwrap();
    assert_eq!(handshake(&client, &server, &expecting(SERVER)).await.1.unwrap_err().label(), "untrusted");

    exchange(&mut a, &mut b).await;
}

#[test]
fn unusable_anchors() {
    let new = |pem: &str| Store::new(pem, "a".parse::<DnsName>().unwrap(), "a".parse().unwrap());
    assert_eq!(new("").unwrap_err(), AnchorsError::Empty);
    let cut = new("-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap_err();
    assert_eq!(cut.to_string(), "the trust anchors are no PEM: there is no end of \"CERTIFICATE\"");
    assert!(matches!(
        new("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap_err(),
        AnchorsError::Certificate { index: 0, .. }
    ));
    let store = Ca::new("root").store(SERVER);
    assert_eq!(store.set_anchors("").unwrap_err(), AnchorsError::Empty);
}

#[test]
fn unusable_certificates_leave_the_present_one() {
    let ca = Ca::new("root");
    let store = ca.store(SERVER);
    let year_2100 = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    assert_eq!(store.expiry(), Some(year_2100));
    let (key, other) = (Key::generate().unwrap(), Key::generate().unwrap());
    let leaf = |names, years| ca.certify(&key, names, years);
    let set = |key, leaf: &[u8]| store.set_certificate(key, leaf, &[]).unwrap_err();
    assert!(matches!(set(&key, b"no certificate"), CertificateError::Parse(_)));
    assert_eq!(set(&other, &leaf(vec![dns(SERVER)], VALID)), CertificateError::Key);
    assert_eq!(set(&key, &leaf(vec![dns(SERVER)], (2000, 2020))), CertificateError::Expired);
    assert_eq!(set(&key, &leaf(vec![dns(SERVER)], (2090, 2100))), CertificateError::NotValidYet);
    assert_eq!(
        set(&key, &leaf(vec![dns(CLIENT)], VALID)),
        CertificateError::Identity { expected: SERVER.parse().unwrap(), presented: vec![CLIENT.to_owned()] }
    );
    assert_eq!(store.expiry(), Some(year_2100));
    assert_eq!(ca.uncertified(SERVER).expiry(), None);
}

#[tokio::test]
async fn intermediates_are_sent() {
    let root = Ca::new("root");
    let issuer = root.intermediate("issuer");
    let below = issuer.intermediate("below");
    let key = Key::generate().unwrap();
    let leaf = below.certify(&key, vec![dns(SERVER)], VALID);
    let server = root.uncertified(SERVER);
    assert!(matches!(
        server.set_certificate(&key, &leaf, std::slice::from_ref(&below.der)),
        Err(CertificateError::Untrusted(_))
    ));
    server.set_certificate(&key, &leaf, &[below.der, issuer.der]).unwrap();
    let (connected, accepted) = handshake(&server, &server, &expecting(SERVER)).await;
    connected.unwrap();
    assert_eq!(accepted.unwrap().1.identity, Some(SERVER.parse().unwrap()));
}

#[test]
fn requests_carry_one_name() {
    use x509_parser::prelude::*;
    let key = Key::generate().unwrap();
    assert_eq!(format!("{key:?}"), "Key(P-256)");
    let again = Key::from_pkcs8(&key.pkcs8().unwrap()).unwrap();
    for (name, common) in [(SERVER, Some(SERVER)), ("spiffe://td/a", None)] {
        let der = again.csr(&name.parse().unwrap()).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
        let info = &request.certification_request_info;
        let subject: Vec<_> = info.subject.iter_common_name().map(|cn| cn.as_str().unwrap()).collect();
        assert_eq!(subject, common.into_iter().collect::<Vec<_>>());
        let extensions: Vec<_> = request.requested_extensions().unwrap().collect();
        let [ParsedExtension::SubjectAlternativeName(san)] = extensions.as_slice() else { panic!("{extensions:?}") };
        assert_eq!(san.general_names.len(), 1);
    }
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    assert!(matches!(Key::from_pkcs8(&p384.serialize_der()), Err(KeyError::Invalid(_))));
    assert!(matches!(Key::from_pkcs8(b""), Err(KeyError::Invalid(_))));
}
