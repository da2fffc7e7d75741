//! What an idle mTLS connection costs. A process of its own, since it looks at the whole process's memory.
#![expect(clippy::unwrap_used, reason = "a test")]

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weft_model::endpoint::ServerTls;
use weft_transport::{
    Stream,
    tls::{Key, Store},
};

const NAME: &str = "server.test";
const PAIRS: usize = 300;
/// At each side, beside the kernel's part: keys, what derives the next ones, the peer's certificates.
const MAX_BYTES: usize = 6 * 1024;

#[tokio::test]
async fn an_idle_connection_is_small() {
    let store = store();
    let mut held = pairs(&store, 20).await;
    let before = resident();
    held.extend(pairs(&store, PAIRS).await);
    let each = resident().saturating_sub(before) / (2 * PAIRS);
    assert!(each <= MAX_BYTES, "{each} bytes at each side");
    drop(held);
}

/// Connections that have carried some bytes and are idle now.
async fn pairs(store: &Store, n: usize) -> Vec<(Stream, Stream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = ServerTls { identity: NAME.parse().unwrap(), server_name: NAME.parse().unwrap() };
    let mut all = Vec::new();
    for _ in 0..n {
        let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (connected, accepted) = tokio::join!(
            store.connect(client.unwrap(), &server, false),
            store.accept(accepted.unwrap().0, Bytes::new(), false)
        );
        let ((mut a, _), (mut b, _)) = (connected.unwrap(), accepted.unwrap());
        for _ in 0..2 {
            a.write_all(&[7; 10_000]).await.unwrap();
            a.flush().await.unwrap();
            b.read_exact(&mut [0; 10_000]).await.unwrap();
            (a, b) = (b, a);
        }
        all.push((a, b));
    }
    all
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn store() -> Store {
    let key = Key::generate().unwrap();
    let pair = rcgen::KeyPair::try_from(key.pkcs8().unwrap().as_slice()).unwrap();
    let mut params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    let root_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut root = rcgen::CertificateParams::default();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let anchor = root.self_signed(&root_key).unwrap();
    let leaf = params.signed_by(&pair, &rcgen::Issuer::new(root, root_key)).unwrap();
    let store = Store::new(&anchor.pem(), NAME.parse().unwrap(), NAME.parse().unwrap()).unwrap();
    store.set_certificate(&key, leaf.der(), &[]).unwrap();
    store
}
