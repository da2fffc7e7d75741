//! Who gets a certificate, and what happens when certificates grow old.

use super::lab::{Lab, channel, hasty, identity, patiently, secret, service, token};
use tokio_stream::StreamExt;
use tonic::Code;
use weft_cluster::Kind;
use weft_transport::tls::Key;
use weft_wire::Error;

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (Code, String) {
    match result {
        Err(Error::Rpc(status)) => (status.code(), status.message().to_owned()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_is_worth_its_own_identity() {
    let lab = Lab::new("tokens", vec![token("web"), token("voting")]).await;
    let (store, key) = (lab.stranger("web"), Key::generate().unwrap());
    // White space around a token is no part of it: files end in a newline.
    let certificate = lab.certify(&store, &key, "web", &format!("{}\n", secret("web"))).await.unwrap();
    let intermediates: Vec<Vec<u8>> = certificate.intermediates.iter().map(|i| i.to_vec()).collect();
    store.set_certificate(&key, &certificate.leaf, &intermediates).unwrap();

    let (code, text) = refusal(lab.certify(&store, &key, "web", "guessed").await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(text.contains("token"), "{text}");
    let (code, text) = refusal(lab.certify(&store, &key, "web", &secret("voting")).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(text.contains("voting"), "{text}");

    // A request for one identity with a CSR of another.
    let channel = channel(&store, lab.addresses.identity, "linkerd-identity").await.unwrap();
    let mut client = weft_wire::identity::Client::new(channel);
    let csr = key.csr(&identity("voting")).unwrap();
    let (code, _) = refusal(client.certify(&identity("web"), secret("web").into(), csr.into()).await);
    assert_eq!(code, Code::FailedPrecondition);
    let (code, _) = refusal(client.certify(&identity("web"), secret("web").into(), "no csr".into()).await);
    assert_eq!(code, Code::InvalidArgument);

    // The workload is gone, and its token with it.
    lab.delete(Kind::Token, "emojivoto", &crate::token_sha256(secret("web").as_bytes()));
    patiently(async {
        while lab.certify(&store, &key, "web", &secret("web")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn certificates_and_anchors_are_renewed_without_a_gap() {
    let mut lab = Lab::unsynced("renew", |config| config.lifetimes = hasty());
    lab.serve_events();
    lab.apply(token("web"));
    lab.apply(service("web", "10.96.0.1", 80));
    lab.ready().await;
    let first = lab.anchors();
    let store = lab.stranger("web");
    let identity_channel = channel(&store, lab.addresses.identity, "linkerd-identity").await.unwrap();
    let mut bundles = weft_wire::trust::Client::new(identity_channel).watch().await.unwrap();
    let mut texts = vec![];
    // Old, old and new, new: the proxy that follows the bundle can always connect and always gets a certificate.
    while texts.last().is_none_or(|last: &String| last.contains(&first)) {
        let bundle = patiently(bundles.next()).await.unwrap().unwrap();
        // A proxy keeps its certificate fresh; here each round begins without one.
        let store = lab.stranger("web");
        store.set_anchors(&bundle.pem).unwrap();
        let key = Key::generate().unwrap();
        let certificate = lab.certify(&store, &key, "web", &secret("web")).await.unwrap();
        let intermediates: Vec<Vec<u8>> = certificate.intermediates.iter().map(|i| i.to_vec()).collect();
        store.set_certificate(&key, &certificate.leaf, &intermediates).unwrap();
        let mut destination = lab.destination(&store).await;
        drop(destination.get("web.emojivoto.svc.cluster.local:80", "").await.unwrap());
        texts.push(bundle.pem);
    }
    let counts: Vec<usize> = texts.iter().map(|t| t.matches("BEGIN CERTIFICATE").count()).collect();
    assert_eq!(counts.first(), Some(&1));
    assert!(counts.contains(&2), "{counts:?}");
    assert_eq!(counts.last(), Some(&1));
    assert!(lab.admin("/metrics").await.1.contains("weft_ca_not_after_seconds{certificate=\"root\"}"));
}

#[tokio::test]
async fn who_slept_too_long_gets_a_new_certificate() {
    let mut lab = Lab::unsynced("slept", |config| config.lifetimes = hasty());
    lab.serve_events();
    lab.apply(token("web"));
    lab.ready().await;
    let store = lab.member("web").await;
    // Validity is counted in whole seconds, the last one included.
    let end = store.expiry().unwrap() + std::time::Duration::from_secs(1);
    patiently(tokio::time::sleep(end.duration_since(std::time::SystemTime::now()).unwrap())).await;
    let key = Key::generate().unwrap();
    lab.certify(&store, &key, "web", &secret("web")).await.unwrap();
}
