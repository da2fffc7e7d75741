//! Connections that fail before there is a request, and limits.

use super::{Fault, Saw, Sees, call, end, fault, forwarded, get};
use crate::mesh::{Mesh, naming};
use bytes::Bytes;
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use weft_model::{Endpoint, ProtocolHint, endpoint::ServerTls};
use weft_proxy::{
    direction::Direction::{Inbound, Outbound},
    error::Code,
};
use weft_testkit::{
    control,
    http1::{Origin, Reply},
    http2,
};
use weft_transport::tls::{Key, Store};
use weft_wire::transport_header::{PREFACE, TransportHeader};

const QUICK: super::Env = &[("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "2s")];

pub(super) fn faults() -> Vec<Fault> {
    let slow = |name, inject| fault(name, Code::DetectTimeout, Inbound, Sees::End, inject).app(QUICK);
    let header = |name, code, inject| fault(name, code, Inbound, Sees::End, inject);
    vec![
        slow("silence on a detected port", |m| {
            Box::pin(async move {
                // The application is as silent: it is connected and says nothing.
                let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                end(m.app.connect_inbound(silent.local_addr().unwrap()).await, "").await
            })
        }),
        slow("half a ClientHello", |m| {
            Box::pin(async move { end(m.app.connect_inbound(super::nobody()).await, [22, 3, 1, 2, 0, 1]).await })
        }),
        slow("half a transport header", |m| Box::pin(async move { direct(m, PREFACE, false).await })),
        header("a transport header that ends early", Code::BadRequest, |m| {
            Box::pin(async move { direct(m, PREFACE, true).await })
        }),
        header("something else than a transport header", Code::BadRequest, |m| {
            Box::pin(async move { direct(m, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n and more", false).await })
        }),
        header("a transport header that is too long", Code::BadRequest, |m| {
            Box::pin(async move { direct(m, &[&PREFACE[..], &[0xff; 4]].concat(), false).await })
        }),
        header("a transport header that names the proxy itself", Code::Loop, |m| {
            Box::pin(async move {
                let port = m.app.addrs().inbound.port();
                direct(m, &TransportHeader { port, name: None, protocol: None }.encode(), false).await
            })
        }),
        header("a direct connection without the mesh", Code::Unauthorized, |m| {
            Box::pin(async move { end(TcpStream::connect(m.app.addrs().inbound).await.unwrap(), "GET").await })
        }),
        header("an address that is not this workload's", Code::Loop, |m| {
            Box::pin(async move {
                match m.app.connect_inbound_from(Ipv4Addr::LOCALHOST.into(), super::nobody()).await {
                    Ok(tcp) => end(tcp, "x").await,
                    Err(_) => Saw::End,
                }
            })
        })
        .app(&[("LINKERD2_PROXY_INBOUND_IPS", "10.9.9.9")]),
        fault("loopback from the outbound side", Code::Loop, Outbound, Sees::End, |m| {
            Box::pin(async move { super::dial(&m.web, super::nobody(), "x").await })
        }),
        header("a handshake that does not fit", Code::TlsFailed, |m| {
            Box::pin(async move {
                let hello = crate::inbound::client_hello(m.app.identity().as_str());
                end(m.app.connect_inbound(super::nobody()).await, hello).await
            })
        }),
        fault("a control plane that does not answer", Code::DiscoveryTimeout, Outbound, Sees::End, |m| {
            Box::pin(async move {
                let known = m.service(&[]);
                m.control.stall(control::Service::Outbound, true);
                super::dial(&m.web, known.addr, "x").await
            })
        })
        .web(&[("WEFT_PROXY_DISCOVERY_TIMEOUT", "200ms")]),
        fault("more requests in flight than the client's proxy allows", Code::LoadShed, Outbound, Sees::Reply, |m| {
            Box::pin(async move {
                let hanging = Origin::start(|_| Reply::Hang).await.unwrap();
                let known = forwarded(m, Endpoint::plain(hanging.addr()));
                let mut first = m.connect(&known).await;
                first.write_all(b"GET / HTTP/1.1\r\nhost: app.ns\r\n\r\n").await.unwrap();
                hanging.saw(|seen| seen.requests.len() == 1).await.unwrap();
                get(m.connect(&known).await).await
            })
        })
        .web(&[("LINKERD2_PROXY_OUTBOUND_MAX_IN_FLIGHT", "1")])
        .early(),
        fault("more requests in flight than the server's proxy allows", Code::LoadShed, Inbound, Sees::Reply, |m| {
            Box::pin(async move {
                let hanging = Origin::start(|_| Reply::Hang).await.unwrap();
                let mut first = m.app.connect_inbound(hanging.addr()).await;
                first.write_all(b"GET / HTTP/1.1\r\nhost: app.ns\r\n\r\n").await.unwrap();
                hanging.saw(|seen| seen.requests.len() == 1).await.unwrap();
                get(m.app.connect_inbound(hanging.addr()).await).await
            })
        })
        .app(&[("LINKERD2_PROXY_INBOUND_MAX_IN_FLIGHT", "1")]),
        fault("more requests that wait than allowed", Code::LoadShed, Outbound, Sees::Reply, |m| {
            Box::pin(async move {
                let known = m.service(&[]);
                let (first, second) = (m.connect(&known).await, m.connect(&known).await);
                // One of them waits; the other is answered at once.
                tokio::select! {
                    saw = call(first, crate::mesh::get()) => saw,
                    saw = call(second, crate::mesh::get()) => saw,
                }
            })
        })
        .web(&[
            ("LINKERD2_PROXY_OUTBOUND_HTTP_QUEUE_CAPACITY", "1"),
            ("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "60s"),
        ]),
        fault(
            "as many connections to an endpoint as there may be, all full",
            Code::EndpointFull,
            Outbound,
            Sees::Reply,
            |m| {
                Box::pin(async move {
                    let (addr, mut engaged) = engaging().await;
                    let known = forwarded(m, Endpoint::plain(addr));
                    let client = http2::Client::over(m.connect(&known).await).await.unwrap();
                    let mut asking = JoinSet::new();
                    for n in 1.. {
                        let mut client = client.clone();
                        asking.spawn(async move { super::answer(&mut client, crate::mesh::get()).await });
                        // Until one is told that there is no room for it.
                        tokio::select! {
                            answered = asking.join_next() => return answered.unwrap().unwrap(),
                            all = engaged.wait_for(|all| *all >= n) => drop(all.unwrap()),
                        }
                    }
                    unreachable!("connections are bounded")
                })
            },
        )
        .web(&[("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "200ms")]),
    ]
}

/// A server that allows one request at once on a connection, and answers none. How many it has.
async fn engaging() -> (SocketAddr, watch::Receiver<usize>) {
    weft_transport::socket::raise_open_files().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (count, engaged) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                let mut server = builder.max_concurrent_streams(1).handshake::<_, Bytes>(tcp).await.unwrap();
                let mut held = vec![];
                while let Some(Ok(request)) = server.accept().await {
                    held.push(request);
                    count.send_modify(|count| *count += 1);
                }
            });
        }
    });
    (addr, engaged)
}

/// A direct connection of `web` to `app`'s proxy that begins so, and ends its side there if `ends`.
async fn direct(mesh: &Mesh, bytes: &[u8], ends: bool) -> Saw {
    let (client, server) = (mesh.web.identity(), mesh.app.identity());
    let issued = mesh.control.ca().issue(&client, Duration::from_secs(60)).unwrap();
    let store = Store::new(mesh.control.ca().anchors_pem(), client.as_str().parse().unwrap(), client).unwrap();
    let intermediates: Vec<_> = issued.certificate.intermediates.iter().map(|der| der.to_vec()).collect();
    let key = Key::from_pkcs8(&issued.key_pkcs8).unwrap();
    store.set_certificate(&key, &issued.certificate.leaf, &intermediates).unwrap();
    let server = ServerTls { server_name: server.as_str().parse().unwrap(), identity: server };
    let tcp = TcpStream::connect(mesh.app.addrs().inbound).await.unwrap();
    let (mut stream, takes_header) = store.connect(tcp, &server, true).await.unwrap();
    assert!(takes_header);
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    if ends {
        let _ = stream.shutdown().await;
    }
    let mut heard = vec![];
    while matches!(stream.read_buf(&mut heard).await, Ok(n) if n > 0) {}
    Saw::End
}

#[tokio::test]
async fn a_meshed_client_is_told_by_the_servers_proxy() {
    // What the table cannot say: between proxies the text travels, and the application is shown none of it.
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    let gone = super::nobody();
    let known = mesh.service(&[mesh.endpoint(gone, ProtocolHint::H2)]);
    let saw = call(mesh.connect(&known).await, crate::mesh::get()).await;
    assert_eq!(saw, Saw::Reply { status: 502, grpc: None, text: None });
    assert!(origin.seen().requests.is_empty());
}
