//! Who keeps a place of a listener, and for how long.

use super::lab::{Lab, channel, channel_to, identity, patiently, token};
use crate::{
    seats::Seats,
    serve::{Front, Listener, bind},
};
use futures_util::stream;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, service::Routes};
use weft_telemetry::{Labels, Registry, Shard};
use weft_transport::tls::Store;
use weft_wire::{Incoming, Outgoing, trust};

/// Waits until the metrics have this.
async fn shows(lab: &Lab, line: &str) {
    patiently(async {
        while !lab.admin("/metrics").await.1.contains(line) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_shows_no_certificate_and_asks_nothing_goes() {
    let lab = Lab::new("strangers", vec![token("web")]).await;
    let (member, stranger) = (lab.member("web").await, lab.stranger("web"));
    let to = async |store: &Store| channel(store, lab.addresses.identity, "linkerd-identity").await.unwrap();
    let known = to(&member).await;
    let mut watch = trust::Client::new(to(&stranger).await).watch().await.unwrap();
    let silent = to(&stranger).await;
    shows(&lab, "weft_control_connections_ended_total{listener=\"identity\",reason=\"idle\"} 1\n").await;
    // It counts until it is closed.
    shows(&lab, "weft_control_connections{listener=\"identity\"} 2\n").await;
    watch.next().await.unwrap().unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(100), watch.next()).await.is_err(), "it is being answered");
    drop((known, silent));
}

/// Says one bundle, and nothing more for ever.
struct Anchors;

impl trust::TrustBundles for Anchors {
    async fn watch(&self, _: Request<()>) -> Result<Outgoing<trust::TrustBundle>, Status> {
        let bundle = trust::TrustBundle { pem: "anchors".to_owned(), version: "1".to_owned() };
        Ok(Box::pin(stream::StreamExt::chain(stream::iter([Ok(bundle)]), stream::pending())))
    }
}

async fn watch(store: &Store, addr: SocketAddr) -> Incoming<trust::TrustBundle> {
    let channel = channel_to(store, addr, &identity("web").to_string()).await.unwrap();
    let mut bundles = patiently(trust::Client::new(channel).watch()).await.unwrap();
    patiently(bundles.next()).await.unwrap().unwrap();
    bundles
}

#[tokio::test]
async fn a_full_listener_lets_go_of_who_is_at_rest_and_of_strangers() {
    let lab = Lab::new("full", vec![token("web"), token("voting")]).await;
    let (registry, stop) = (Registry::new(0, 100), CancellationToken::new());
    let (socket, addr) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let front = Front::Mutual(lab.member("web").await);
    let mut listener = Listener::new("test", socket, front, Routes::new(trust::server(Anchors)), &registry);
    let ended = registry.counter("ended_total", "").with(Shard::ADMIN, &Labels::new());
    listener.seats = Arc::new(Seats::new(4, 4, ended));
    let serving = tokio::spawn(listener.serve(stop.clone()));
    let (member, stranger) = (lab.member("voting").await, lab.stranger("voting"));
    let mut known = watch(&member, addr).await;
    // More than there are places, of which one is being answered.
    let mut others = vec![watch(&stranger, addr).await];
    let mut silent = vec![];
    for _ in 0..10 {
        silent.push(channel_to(&stranger, addr, &identity("web").to_string()).await.unwrap());
    }
    others.push(watch(&member, addr).await);
    others.push(watch(&stranger, addr).await);
    assert!(tokio::time::timeout(Duration::from_millis(100), known.next()).await.is_err(), "its call goes on");
    assert!(patiently(others[0].next()).await.is_none_or(|end| end.is_err()), "a stranger's does not");
    let metrics = registry.encode();
    assert!(metrics.contains("ended_total 10\n"), "{metrics}");
    stop.cancel();
    drop((known, others, silent));
    patiently(serving).await.unwrap();
}
