//! The record layer against rustls's own, in both roles: every cipher, every cut, key changes, and what must be refused.

use super::{
    test::{Ca, VALID, dns, expecting, tcp_pair},
    *,
};
use crate::Stream;
use bytes::Bytes;
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, NamedGroup, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs::ALL_CIPHER_SUITES},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject},
    version::TLS13,
};
use std::{io, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

const NAME: &str = "server.test";

/// What rustls does where nothing is changed, but for what a test sets.
struct Theirs {
    ca: Ca,
    suite: CipherSuite,
    fragment: Option<usize>,
}

impl Theirs {
    fn new() -> Self {
        Self { ca: Ca::new("root"), suite: CipherSuite::TLS13_AES_128_GCM_SHA256, fragment: None }
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        let suites = ALL_CIPHER_SUITES.iter().copied().filter(|suite| suite.suite() == self.suite);
        Arc::new(CryptoProvider {
            cipher_suites: suites.collect(),
            ..(*verify::provider(KeyExchange::default())).clone()
        })
    }

    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.pem.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(self.provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.max_fragment_size = self.fragment;
        config.into()
    }

    /// It sends tickets, since that is rustls's default.
    fn server(&self) -> Arc<ServerConfig> {
        let key = Key::generate().unwrap();
        let leaf = self.ca.certify(&key, vec![dns(NAME)], VALID);
        let mut config = ServerConfig::builder_with_provider(self.provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.into()], PrivatePkcs8KeyDer::from(key.pkcs8().unwrap().to_vec()).into())
            .unwrap();
        config.max_fragment_size = self.fragment;
        config.into()
    }

    /// A connection between rustls and us, over `link`.
    async fn connect(&self, ours_accepts: bool, link: (TcpStream, TcpStream)) -> (TlsStream<TcpStream>, Stream) {
        let store = self.ca.store(NAME);
        let (theirs, ours) = link;
        if ours_accepts {
            let connector = TlsConnector::from(self.client());
            let connecting = connector.connect(NAME.try_into().unwrap(), theirs);
            let (theirs, ours) = tokio::join!(connecting, store.accept(ours, Bytes::new(), false));
            (theirs.unwrap().into(), ours.unwrap().0)
        } else {
            let (theirs, expect) = (TlsAcceptor::from(self.server()).accept(theirs), expecting(NAME));
            let (theirs, ours) = tokio::join!(theirs, store.connect(ours, &expect, false));
            (theirs.unwrap().into(), ours.unwrap().0)
        }
    }
}

/// Two sockets with a relay between them that passes bytes on in pieces of `piece`, each in a segment of its own.
async fn cut(piece: usize) -> (TcpStream, TcpStream) {
    let ((a, mut near), (mut far, b)) = (tcp_pair().await, tcp_pair().await);
    for tcp in [&near, &far] {
        tcp.set_nodelay(true).unwrap();
    }
    tokio::spawn(async move {
        let ((mut nr, mut nw), (mut fr, mut fw)) = (near.split(), far.split());
        let pass = async |from: &mut tokio::net::tcp::ReadHalf<'_>, to: &mut tokio::net::tcp::WriteHalf<'_>| {
            let mut buffer = vec![0; 4096];
            while let Ok(n @ 1..) = from.read(&mut buffer).await {
                for piece in buffer[..n].chunks(piece) {
                    to.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
            let _ = to.shutdown().await;
        };
        tokio::join!(pass(&mut nr, &mut fw), pass(&mut fr, &mut nw));
    });
    (a, b)
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| u8::try_from((i * 31 + i / 253) % 256).unwrap()).collect()
}

async fn write_end(mut to: impl tokio::io::AsyncWrite + Unpin, bytes: &[u8]) {
    to.write_all(bytes).await.unwrap();
    to.shutdown().await.unwrap();
}

/// Reads to the end in pieces of `piece`, small ones too.
async fn read_end(mut from: impl tokio::io::AsyncRead + Unpin, piece: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; piece];
    loop {
        match from.read(&mut buffer).await.unwrap() {
            0 => return all,
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

async fn both_ways(theirs: TlsStream<TcpStream>, ours: Stream, bytes: usize, piece: usize) {
    let (up, down) = (pattern(bytes), pattern(bytes / 2 + 1));
    let ((tr, tw), (or, ow)) = (tokio::io::split(theirs), tokio::io::split(ours));
    let ((), got_up, (), got_down) =
        tokio::join!(write_end(tw, &up), read_end(or, piece), write_end(ow, &down), read_end(tr, 10_000));
    assert!(got_up == up && got_down == down);
}

#[tokio::test]
async fn every_cipher_in_both_roles() {
    for suite in [
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ] {
        for ours_accepts in [true, false] {
            let theirs = Theirs { suite, ..Theirs::new() };
            let (theirs, ours) = theirs.connect(ours_accepts, tcp_pair().await).await;
            let session = theirs.get_ref().1;
            assert_eq!(session.negotiated_cipher_suite().unwrap().suite(), suite);
            let group = session.negotiated_key_exchange_group().unwrap().name();
            assert_eq!(group, NamedGroup::X25519MLKEM768, "post-quantum first");
            both_ways(theirs, ours, 3_000_000, 100_000).await;
        }
    }
}

#[tokio::test]
async fn every_cut_and_every_size() {
    for ours_accepts in [true, false] {
        for (piece, bytes) in [(1, 3_000), (3, 20_000), (1_000, 200_000)] {
            for read in [1, 7, 16_384, 100_000] {
                let (theirs, ours) = Theirs::new().connect(ours_accepts, cut(piece).await).await;
                both_ways(theirs, ours, bytes, read).await;
            }
        }
        let small = Theirs { fragment: Some(40), ..Theirs::new() };
        let (theirs, ours) = small.connect(ours_accepts, tcp_pair().await).await;
        both_ways(theirs, ours, 50_000, 1_000).await;
    }
}

#[tokio::test]
async fn vectored_writes_share_records() {
    let (mut theirs, mut ours) = Theirs::new().connect(true, tcp_pair().await).await;
    let all = pattern(70_000);
    let mut bounds = vec![0, 0, 5, 5, 300, 16_000, 16_384, 16_390, 60_000, 60_001, 70_000];
    bounds.sort_unstable();
    let mut at = 0;
    let mut writes = 0;
    while at < all.len() {
        let slices: Vec<_> = bounds
            .windows(2)
            .filter(|w| w[1] > at || w[0] == w[1])
            .map(|w| io::IoSlice::new(&all[w[0].max(at).min(w[1])..w[1]]))
            .collect();
        let n = ours.write_vectored(&slices).await.unwrap();
        assert!(n > 0);
        (at, writes) = (at + n, writes + 1);
    }
    ours.flush().await.unwrap();
    assert_eq!(writes, 2, "64 KiB at once");
    let mut got = vec![0; all.len()];
    theirs.read_exact(&mut got).await.unwrap();
    assert!(got == all);
    assert_eq!(ours.write_vectored(&[io::IoSlice::new(b"")]).await.unwrap(), 0);
}

#[tokio::test]
async fn their_keys_change() {
    for ours_accepts in [true, false] {
        let (mut theirs, mut ours) = Theirs::new().connect(ours_accepts, tcp_pair().await).await;
        for _ in 0..20 {
            match &mut theirs {
                TlsStream::Client(stream) => stream.get_mut().1.refresh_traffic_keys().unwrap(),
                TlsStream::Server(stream) => stream.get_mut().1.refresh_traffic_keys().unwrap(),
            }
            // rustls asks for ours to be changed as well: it must be, before the next data.
            for _ in 0..2 {
                theirs.write_all(&pattern(20_000)).await.unwrap();
                theirs.flush().await.unwrap();
                let mut got = vec![0; 20_000];
                ours.read_exact(&mut got).await.unwrap();
                assert!(got == pattern(20_000));
                ours.write_all(&pattern(20_000)).await.unwrap();
                ours.flush().await.unwrap();
                theirs.read_exact(&mut got).await.unwrap();
                assert!(got == pattern(20_000));
            }
        }
    }
}

#[tokio::test]
async fn our_keys_change_before_they_wear_out() {
    for ours_accepts in [true, false] {
        let (theirs, mut ours) = Theirs::new().connect(ours_accepts, tcp_pair().await).await;
        ours.session().unwrap().control().wear_out_after(3);
        both_ways(theirs, ours, 1_000_000, 50_000).await;
    }
}

#[tokio::test]
async fn ends_in_either_order() {
    for ours_accepts in [true, false] {
        let (mut theirs, mut ours) = Theirs::new().connect(ours_accepts, tcp_pair().await).await;
        ours.write_all(b"bye").await.unwrap();
        ours.shutdown().await.unwrap();
        assert_eq!(ours.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"bye");
        theirs.write_all(b"one more").await.unwrap();
        theirs.shutdown().await.unwrap();
        got.clear();
        ours.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"one more");
        assert_eq!(ours.read(&mut [0; 9]).await.unwrap(), 0, "an end stays one");
    }
}

/// A client that sends its last flight, its data and its end in one write.
#[tokio::test]
async fn data_in_the_flight_of_the_handshake() {
    for split in [1, 300, usize::MAX] {
        let theirs = Theirs::new();
        let (near, far) = tcp_pair().await;
        let config = theirs.client();
        let client = tokio::task::spawn_blocking(move || {
            use std::io::{Read, Write};
            let mut tcp = near.into_std().unwrap();
            tcp.set_nonblocking(false).unwrap();
            tcp.set_nodelay(true).unwrap();
            let mut client = ClientConnection::new(config, NAME.try_into().unwrap()).unwrap();
            while client.is_handshaking() {
                while client.wants_write() && client.is_handshaking() {
                    client.write_tls(&mut tcp).unwrap();
                }
                if client.is_handshaking() {
                    client.read_tls(&mut tcp).unwrap();
                    client.process_new_packets().unwrap();
                }
            }
            client.writer().write_all(&pattern(30_000)).unwrap();
            client.send_close_notify();
            let mut flight = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut flight).unwrap();
            }
            for piece in flight.chunks(split.min(flight.len()).max(flight.len() / 50)) {
                tcp.write_all(piece).unwrap();
            }
            // The answer comes after its end.
            while client.read_tls(&mut tcp).unwrap() > 0 {
                client.process_new_packets().unwrap();
            }
            let mut answer = Vec::new();
            client.reader().read_to_end(&mut answer).unwrap();
            answer
        });
        let (mut ours, _) = theirs.ca.store(NAME).accept(far, Bytes::new(), false).await.unwrap();
        let mut got = Vec::new();
        ours.read_to_end(&mut got).await.unwrap();
        assert!(got == pattern(30_000), "{}", got.len());
        ours.write_all(b"answer").await.unwrap();
        ours.shutdown().await.unwrap();
        assert_eq!(client.await.unwrap(), b"answer");
    }
}

/// Our side of a connection whose further bytes the test itself writes; theirs is told what ours says to it.
async fn exposed() -> (TlsStream<TcpStream>, Stream) {
    let (theirs, mut ours) = Theirs::new().connect(true, tcp_pair().await).await;
    let mut theirs = theirs;
    theirs.write_all(b"good").await.unwrap();
    theirs.flush().await.unwrap();
    ours.read_exact(&mut [0; 4]).await.unwrap();
    (theirs, ours)
}

fn raw(theirs: &mut TlsStream<TcpStream>) -> &mut TcpStream {
    match theirs {
        TlsStream::Client(stream) => stream.get_mut().0,
        TlsStream::Server(stream) => stream.get_mut().0,
    }
}

async fn refused(bytes: &[u8]) -> (rustls::Error, rustls::Error) {
    let (mut theirs, mut ours) = exposed().await;
    raw(&mut theirs).write_all(bytes).await.unwrap();
    let inner = |error: io::Error| error.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap().clone();
    let error = inner(ours.read(&mut [0; 100_000]).await.unwrap_err());
    assert_eq!(inner(ours.read(&mut [0; 1]).await.unwrap_err()), error, "a failure stays one");
    assert_eq!(ours.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    (error, inner(theirs.read(&mut [0; 1]).await.unwrap_err()))
}

#[tokio::test]
async fn what_breaks_the_protocol_is_refused_with_an_alert() {
    use rustls::{AlertDescription as Alert, Error};
    let record = |kind: u8, length: u16| {
        let mut bytes = vec![kind, 3, 3];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.resize(bytes.len() + usize::from(length), 9);
        bytes
    };
    for (bytes, error, alert) in [
        (record(23, 100), Error::DecryptError, Alert::BadRecordMac),
        (record(23, 16), Error::DecryptError, Alert::BadRecordMac),
        (record(23, 16_641), Error::PeerSentOversizedRecord, Alert::RecordOverflow),
        // An alert, a handshake message and a change of ciphers in the clear.
        (
            vec![21, 3, 3, 0, 2, 1, 0],
            Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
            Alert::DecodeError,
        ),
        (record(22, 5), Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType), Alert::DecodeError),
        (
            vec![20, 3, 3, 0, 1, 1],
            Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
            Alert::DecodeError,
        ),
    ] {
        let text = format!("{:?}", &bytes[..5]);
        assert_eq!(refused(&bytes).await, (error, Error::AlertReceived(alert)), "{text}");
    }
}

/// A relay that turns over one bit of the record after the handshake.
#[tokio::test]
async fn a_bit_turned_over_delivers_nothing() {
    for at in [5, 20, 104, 105, 120] {
        let ((a, mut near), (mut far, b)) = (tcp_pair().await, tcp_pair().await);
        let (turn, mut turned) = tokio::sync::oneshot::channel::<()>();
        tokio::spawn(async move {
            let ((mut nr, mut nw), (mut fr, mut fw)) = (near.split(), far.split());
            let up = async {
                let mut buffer = vec![0; 4096];
                while let Ok(n @ 1..) = nr.read(&mut buffer).await {
                    if turned.try_recv().is_ok() {
                        buffer[at] ^= 0x10;
                    }
                    let _ = fw.write_all(&buffer[..n]).await;
                }
            };
            tokio::join!(up, tokio::io::copy(&mut fr, &mut nw)).1.ok();
        });
        let (mut theirs, mut ours) = Theirs::new().connect(true, (a, b)).await;
        theirs.write_all(b"good").await.unwrap();
        theirs.flush().await.unwrap();
        ours.read_exact(&mut [0; 4]).await.unwrap();
        turn.send(()).unwrap();
        theirs.write_all(&[7; 100]).await.unwrap();
        theirs.flush().await.unwrap();
        for size in [3, 1000] {
            let error = ours.read(&mut vec![0; size]).await.unwrap_err();
            assert!(error.to_string().contains("decrypt"), "{at}: {error}");
        }
    }
}

#[tokio::test]
async fn a_flood_of_key_updates_ends() {
    let (mut theirs, mut ours) = exposed().await;
    for _ in 0..40 {
        let TlsStream::Client(stream) = &mut theirs else { panic!("ours accepts") };
        stream.get_mut().1.refresh_traffic_keys().unwrap();
        // Each asks for an answer, which rustls waits for: write them out one by one.
        theirs.flush().await.unwrap();
    }
    let error = ours.read(&mut [0; 10]).await.unwrap_err();
    assert!(error.to_string().contains("TooManyKeyUpdateRequests"), "{error}");
}

#[tokio::test]
async fn an_idle_session_holds_no_buffer() {
    let (mut theirs, mut ours) = exposed().await;
    for n in [1, 100_000] {
        theirs.write_all(&pattern(n)).await.unwrap();
        theirs.flush().await.unwrap();
        ours.read_exact(&mut vec![0; n]).await.unwrap();
        ours.write_all(&pattern(n)).await.unwrap();
        ours.flush().await.unwrap();
        theirs.read_exact(&mut vec![0; n]).await.unwrap();
        assert!(ours.session().unwrap().is_released());
    }
    assert!(size_of::<Session>() <= 1024, "{}", size_of::<Session>());
}
