//! A webhook over real TLS.

use super::lab::patiently;
use crate::webhook::{Certificate, Room, Verdict, Webhook};
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use weft_telemetry::Registry;
use weft_testkit::folder::Folder;
use weft_transport::tls::connect_unverified;

struct Lab {
    addr: SocketAddr,
    dir: Folder,
    registry: Registry,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

pub(super) fn pair() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["hook.linkerd.svc".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

impl Lab {
    async fn start(name: &str) -> Self {
        Self::with_room(name, None).await
    }

    /// With another bound than the usual one.
    async fn with_room(name: &str, room: Option<usize>) -> Self {
        let dir = Folder::new(&format!("webhook-{name}")).unwrap();
        write(&dir, &pair());
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = socket.local_addr().unwrap();
        let registry = Registry::new(0, 100);
        let decide = |request: Value| async move {
            match request["name"].as_str() {
                Some("broken") => Err("cannot say".to_owned()),
                Some("bad") => Ok(Verdict { refused: Some((400, "bad name".to_owned())), ..Verdict::default() }),
                _ => Ok(Verdict { patch: vec![json!({"op": "add"})], ..Verdict::default() }),
            }
        };
        let mut webhook = Webhook::new("test", socket, Certificate::in_folder(&dir), decide, &registry).unwrap();
        if let Some(room) = room {
            webhook.room = Arc::new(Room::new(room));
        }
        let stop = CancellationToken::new();
        let task = tokio::spawn(webhook.serve(stop.clone()));
        Self { addr, dir, registry, stop, task }
    }

    /// Status and body.
    async fn post(&self, body: &str) -> (u16, String) {
        self.post_of(body.len(), body).await
    }

    /// Says that the body has `length` bytes.
    async fn post_of(&self, length: usize, body: &str) -> (u16, String) {
        post_of(self.addr, length, body).await
    }
}

/// Status and body.
pub(super) async fn post(addr: SocketAddr, body: &str) -> (u16, String) {
    post_of(addr, body.len(), body).await
}

async fn post_of(addr: SocketAddr, length: usize, body: &str) -> (u16, String) {
    patiently(async {
        let tcp = TcpStream::connect(addr).await.unwrap();
        let mut stream = connect_unverified(tcp, addr.ip()).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    })
    .await
}

pub(super) fn write(dir: &std::path::Path, (chain, key): &(String, String)) {
    std::fs::write(dir.join("tls.crt"), chain).unwrap();
    std::fs::write(dir.join("tls.key"), key).unwrap();
}

fn review(name: &str) -> String {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u1", "name": name}})
        .to_string()
}

#[tokio::test]
async fn reviews_are_answered_and_nobody_comes_in_undecided() {
    let lab = Lab::start("answers").await;
    let (status, body) = lab.post(&review("good")).await;
    let response = serde_json::from_str::<Value>(&body).unwrap()["response"].clone();
    assert_eq!((status, &response["uid"], &response["allowed"]), (200, &json!("u1"), &json!(true)));
    let (status, body) = lab.post(&review("bad")).await;
    let response = serde_json::from_str::<Value>(&body).unwrap()["response"].clone();
    assert_eq!(
        (status, &response["allowed"], &response["status"]["message"]),
        (200, &json!(false), &json!("bad name"))
    );
    // Nobody comes in undecided.
    let (status, body) = lab.post(&review("broken")).await;
    let response = serde_json::from_str::<Value>(&body).unwrap()["response"].clone();
    let expected = json!({"uid": "u1", "allowed": false, "status": {"code": 500, "message": "cannot say"}});
    assert_eq!((status, response), (200, expected));
    for malformed in ["", "{}", "[]", "nonsense", r#"{"apiVersion":"admission.k8s.io/v1beta1","request":{"uid":"u"}}"#]
    {
        assert_eq!(lab.post(malformed).await.0, 400, "{malformed}");
    }
    // All that was sent is read, so that the answer arrives.
    let mut large = review("good");
    large += &" ".repeat((10 << 20) + 1 - large.len());
    assert_eq!(lab.post_of(11 << 20, &large).await.0, 413);
    lab.stop.cancel();
    patiently(lab.task).await.unwrap();
}

#[tokio::test]
async fn certificates_of_webhooks_are_renewed_without_a_lost_review() {
    let lab = Lab::start("renewed").await;
    // One file is new and the other old: the present certificate stays.
    let new = pair();
    std::fs::write(lab.dir.join("tls.crt"), &new.0).unwrap();
    patiently(async {
        while !lab.registry.encode().contains("weft_webhook_certificates_kept_total{webhook=\"test\"} 1\n") {
            assert_eq!(lab.post(&review("good")).await.0, 200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    std::fs::write(lab.dir.join("tls.key"), &new.1).unwrap();
    patiently(async {
        while !lab.registry.encode().contains("weft_webhook_certificates_total{webhook=\"test\"} 1\n") {
            assert_eq!(lab.post(&review("good")).await.0, 200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(lab.post(&review("good")).await.0, 200);
}

#[tokio::test]
async fn reviews_have_a_bounded_room_together() {
    let lab = Lab::with_room("room", Some(1_000)).await;
    let long = |length: usize| format!("{:length$}", review("good"));
    for _ in 0..3 {
        assert_eq!(lab.post(&long(900)).await.0, 200, "what is decided gives its room back");
        assert_eq!(lab.post(&long(1_001)).await.0, 503);
    }
    let metrics = lab.registry.encode();
    assert!(metrics.contains("weft_webhook_crowded_total{webhook=\"test\"} 3\n"), "{metrics}");
}

/// More sessions than there are seats, none of which says anything.
#[tokio::test]
async fn who_says_nothing_keeps_nobody_out() {
    let lab = Lab::start("silent").await;
    let mut silent = vec![];
    for _ in 0..300 {
        let tcp = TcpStream::connect(lab.addr).await.unwrap();
        silent.push(patiently(connect_unverified(tcp, lab.addr.ip())).await.unwrap());
    }
    assert_eq!(lab.post(&review("good")).await.0, 200);
    drop(silent);
    // Nor do those that have not even begun with TLS.
    let mut mute = vec![];
    for _ in 0..600 {
        mute.push(TcpStream::connect(lab.addr).await.unwrap());
    }
    assert_eq!(lab.post(&review("good")).await.0, 200);
    let metrics = lab.registry.encode();
    assert!(!metrics.contains("weft_webhook_ended_total{webhook=\"test\"} 0\n"), "{metrics}");
    lab.stop.cancel();
    patiently(lab.task).await.unwrap();
}

#[tokio::test]
async fn a_review_that_comes_slowly_gives_way() {
    let lab = Lab::with_room("slow", Some(1_000)).await;
    let long = |length: usize| format!("{:length$}", review("good"));
    let (addr, most) = (lab.addr, long(900));
    // Nearly all of it, and then nothing.
    let slow = tokio::spawn(async move { post_of(addr, 950, &most).await });
    patiently(async {
        while !slow.is_finished() {
            assert_eq!(lab.post(&long(500)).await.0, 200);
        }
    })
    .await;
    let (status, told) = slow.await.unwrap();
    assert_eq!((status, told.as_str()), (503, "too many reviews at once; ask again\n"));
}
