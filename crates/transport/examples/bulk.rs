//! How fast bytes go through two proxies' worth of copying: source → (plain, TLS) → (TLS, plain) → sink, on loopback.
//!
//! `cargo run --release -p weft-transport --example bulk [-- SECONDS [plain]]`. CPU time is what to compare: the
//! rate depends on what else the machine does.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use weft_model::endpoint::ServerTls;
use weft_transport::{
    Stream, copy,
    socket::{self, ConnectOptions},
    tls::{Key, Store},
};

const NAME: &str = "server.test";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().and_then(|s| s.parse().ok()).unwrap_or(3);
    let tls = arguments.next().as_deref() != Some("plain");
    let store = store();

    let sink = TcpListener::bind("127.0.0.1:0").unwrap();
    let to_sink = sink.local_addr().unwrap();
    let (server, server_cpu) = proxy(tls.then(|| store.clone()), None, to_sink);
    let (client, client_cpu) = proxy(None, tls.then_some(store), server);

    let received = Arc::new(AtomicU64::new(0));
    let counting = received.clone();
    std::thread::spawn(move || {
        let (mut tcp, _) = sink.accept().unwrap();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match tcp.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(n) => counting.fetch_add(n as u64, Relaxed),
            };
        }
    });
    std::thread::spawn(move || {
        let mut tcp = TcpStream::connect(client).unwrap();
        let buffer = vec![7; 1 << 17];
        while tcp.write_all(&buffer).is_ok() {}
    });
    std::thread::sleep(Duration::from_millis(300));
    let read = || (received.load(Relaxed), client_cpu.load(Relaxed), server_cpu.load(Relaxed), Instant::now());
    let begin = read();
    std::thread::sleep(Duration::from_secs(seconds));
    let end = read();
    let bytes = end.0 - begin.0;
    let per_gib = |ns: u64| ns as f64 / 1e6 / (bytes as f64 / f64::from(1 << 30));
    println!(
        "{:.2} Gbit/s; CPU ms per GiB: client {:.0}, server {:.0}, both {:.0}",
        bytes as f64 * 8.0 / (end.3 - begin.3).as_secs_f64() / 1e9,
        per_gib(end.1 - begin.1),
        per_gib(end.2 - begin.2),
        per_gib(end.1 - begin.1 + end.2 - begin.2),
    );
}

/// One connection from `accept` (TLS with a store) to `to` (TLS with a store), on a thread whose CPU time is sampled.
fn proxy(accept: Option<Store>, connect: Option<Store>, to: SocketAddr) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = socket::listen("127.0.0.1:0".parse().unwrap(), 16).unwrap();
    let address = listener.local_addr().unwrap();
    let cpu = Arc::new(AtomicU64::new(0));
    let sampled = cpu.clone();
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            tokio::task::LocalSet::new()
                .run_until(async {
                    tokio::task::spawn_local(async move {
                        loop {
                            let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
                            sampled.store(stat.split(' ').next().unwrap().parse().unwrap(), Relaxed);
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    });
                    let (tcp, _) = tokio::net::TcpListener::from_std(listener).unwrap().accept().await.unwrap();
                    let mut a = match accept {
                        Some(store) => store.accept(tcp, bytes::Bytes::new(), false).await.unwrap().0,
                        None => Stream::tcp(tcp),
                    };
                    let tcp = socket::connect(to, &ConnectOptions::default()).await.unwrap();
                    let server = ServerTls { identity: NAME.parse().unwrap(), server_name: NAME.parse().unwrap() };
                    let mut b = match connect {
                        Some(store) => store.connect(tcp, &server, false).await.unwrap().0,
                        None => Stream::tcp(tcp),
                    };
                    copy::duplex(&mut a, &mut b, |_, _| {}).await;
                })
                .await;
        });
    });
    (address, cpu)
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
