//! Streams: what they say first, what follows, and what happens when one side fails.

use super::lab::{Lab, patiently, pod, service, token};
use tokio_stream::StreamExt;
use tonic::Code;
use weft_cluster::Kind;
use weft_model::{EndpointUpdate, policy::inbound::ServerProtocol};
use weft_wire::{Error, Incoming, outbound::Target};

const WEB: &str = "web.emojivoto.svc.cluster.local:80";
const WORKLOAD: &str = r#"{"ns":"emojivoto","pod":"web-1"}"#;

async fn next<T>(stream: &mut Incoming<T>) -> T {
    patiently(stream.next()).await.expect("a message").expect("a good message")
}

fn code<T>(result: Result<T, Error>) -> Code {
    match result {
        Err(Error::Rpc(status)) => status.code(),
        Err(Error::Invalid(invalid)) => panic!("{invalid}"),
        Ok(_) => Code::Ok,
    }
}

fn addrs(update: &EndpointUpdate) -> String {
    match update {
        EndpointUpdate::Add(endpoints) => {
            format!("+{}", endpoints.iter().map(|e| e.addr.to_string()).collect::<Vec<_>>().join(","))
        }
        EndpointUpdate::Remove(addrs) => {
            format!("-{}", addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
        }
        EndpointUpdate::NoEndpoints { exists } => format!("none exists={exists}"),
    }
}

#[tokio::test]
async fn endpoints_follow_the_objects() {
    let lab = Lab::new("follow", vec![token("web"), service("web", "10.96.0.1", 80)]).await;
    let store = lab.member("web").await;
    let mut stream = lab.destination(&store).await.get(WEB, "").await.unwrap();
    assert_eq!(addrs(&next(&mut stream).await), "none exists=true");
    lab.apply(pod("web", "web-1", "10.1.0.1"));
    assert_eq!(addrs(&next(&mut stream).await), "+10.1.0.1:80");
    lab.apply(pod("web", "web-2", "10.1.0.2"));
    assert_eq!(addrs(&next(&mut stream).await), "+10.1.0.2:80");
    lab.delete(Kind::Pod, "emojivoto", "web-1");
    assert_eq!(addrs(&next(&mut stream).await), "-10.1.0.1:80");
    lab.delete(Kind::Service, "emojivoto", "web");
    assert_eq!(addrs(&next(&mut stream).await), "none exists=false");
    lab.apply(service("web", "10.96.0.1", 80));
    assert_eq!(addrs(&next(&mut stream).await), "+10.1.0.2:80");
    assert!(lab.admin("/metrics").await.1.contains("weft_control_questions 1\n"));
    // The end of the control plane is said, so that clients come back at once.
    lab.stop().await;
    let last = patiently(stream.next()).await;
    assert!(matches!(last, Some(Err(Error::Rpc(_))) | None), "{last:?}");
}

#[tokio::test]
async fn every_question_has_an_answer() {
    let objects = vec![
        token("web"),
        service("web", "10.96.0.1", 80),
        pod("web", "web-1", "10.1.0.1"),
        service("b", "10.96.0.1", 80),
    ];
    let lab = Lab::new("answers", objects).await;
    let store = lab.member("web").await;
    let mut destination = lab.destination(&store).await;
    let get = async |path: &str| code(lab.destination(&store).await.get(path, "").await);
    assert_eq!(get("none.emojivoto.svc.cluster.local:80").await, Code::NotFound);
    assert_eq!(get("example.com:80").await, Code::InvalidArgument);
    assert_eq!(get("10.1.0.1:80").await, Code::InvalidArgument);

    let profile = async |path: &str| code(lab.destination(&store).await.get_profile(path, "").await);
    assert_eq!(profile("10.96.0.1:80").await, Code::FailedPrecondition, "two Services have it");
    assert_eq!(profile("example.com:80").await, Code::InvalidArgument);
    lab.delete(Kind::Service, "emojivoto", "b");
    let mut stream = loop {
        // The deletion is on its way.
        match destination.get_profile("10.96.0.1:80", "").await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(next(&mut stream).await.name.unwrap().as_str(), "web.emojivoto.svc.cluster.local");
    let mut stream = destination.get_profile("10.1.0.1:80", "").await.unwrap();
    assert!(next(&mut stream).await.endpoint.unwrap().tls.is_some());
    let mut stream = destination.get_profile("10.9.9.9:80", "").await.unwrap();
    assert!(next(&mut stream).await.endpoint.unwrap().tls.is_none());

    let mut outbound = weft_wire::outbound::Client::new(lab.policy(&store).await);
    let mut stream = outbound.watch(WORKLOAD, Target::Addr("10.96.0.1:80".parse().unwrap())).await.unwrap();
    assert_eq!(next(&mut stream).await.meta.name(), "web");
    let unknown = outbound.watch(WORKLOAD, Target::Addr("10.9.9.9:80".parse().unwrap())).await;
    assert_eq!(code(unknown), Code::NotFound);
    let mut egress = outbound.watch(WORKLOAD, Target::Addr("203.0.113.1:443".parse().unwrap())).await.unwrap();
    assert_eq!(next(&mut egress).await.meta.name(), "egress-fallback");
    assert_eq!(code(outbound.watch(WORKLOAD, Target::Authority("example.com".to_owned())).await), Code::NotFound);
    // Its Service is gone: the stream ends, and the client looks up again.
    lab.delete(Kind::Service, "emojivoto", "web");
    let ended = patiently(stream.next()).await;
    assert!(matches!(ended, Some(Err(Error::Rpc(status))) if status.code() == Code::NotFound));

    let mut inbound = weft_wire::inbound::Client::new(lab.policy(&store).await);
    let mut stream = inbound.watch_port(WORKLOAD, 80).await.unwrap();
    let policy = next(&mut stream).await;
    assert_eq!(policy.meta.name(), "all-unauthenticated");
    assert!(matches!(policy.protocol, ServerProtocol::Detect { .. }));
    assert_eq!(code(inbound.watch_port("emojivoto:none", 80).await), Code::NotFound);
    assert_eq!(code(inbound.watch_port("nonsense", 80).await), Code::InvalidArgument);
}

#[tokio::test]
async fn only_the_mesh_is_answered() {
    let lab = Lab::new("stranger", vec![token("web"), service("web", "10.96.0.1", 80)]).await;
    let store = lab.stranger("web");
    assert_eq!(code(lab.destination(&store).await.get(WEB, "").await), Code::Unauthenticated);
    assert_eq!(code(lab.destination(&store).await.get_profile(WEB, "").await), Code::Unauthenticated);
    let mut inbound = weft_wire::inbound::Client::new(lab.policy(&store).await);
    assert_eq!(code(inbound.watch_port(WORKLOAD, 80).await), Code::Unauthenticated);
    let mut outbound = weft_wire::outbound::Client::new(lab.policy(&store).await);
    let target = Target::Addr("10.96.0.1:80".parse().unwrap());
    assert_eq!(code(outbound.watch(WORKLOAD, target).await), Code::Unauthenticated);
}

#[tokio::test]
async fn who_connects_too_early_connects_again() {
    let lab = Lab::new("early", vec![token("web"), service("web", "10.96.0.1", 80)]).await;
    let (store, key) = (lab.stranger("web"), weft_transport::tls::Key::generate().unwrap());
    // A channel that lives on, as a proxy's does.
    let mut destination = lab.destination(&store).await;
    assert_eq!(code(destination.get(WEB, "").await), Code::Unauthenticated);
    let certificate = lab.certify(&store, &key, "web", &super::lab::secret("web")).await.unwrap();
    let intermediates: Vec<Vec<u8>> = certificate.intermediates.iter().map(|i| i.to_vec()).collect();
    store.set_certificate(&key, &certificate.leaf, &intermediates).unwrap();
    patiently(async {
        while destination.get(WEB, "").await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_is_guessed_before_the_first_list() {
    let mut lab = Lab::unsynced("unsynced", |_| {});
    let (status, text) = lab.admin("/ready").await;
    assert_eq!((status, text.as_str()), (503, "not ready: events\n"));
    assert_eq!(lab.admin("/live").await.0, 200);
    let key = weft_transport::tls::Key::generate().unwrap();
    let refused = lab.certify(&lab.stranger("web"), &key, "web", "x").await;
    assert_eq!(code(refused), Code::Unavailable);
    lab.serve_events();
    lab.ready().await;
    let refused = lab.certify(&lab.stranger("web"), &key, "web", "x").await;
    assert_eq!(code(refused), Code::FailedPrecondition);
}

#[tokio::test]
async fn what_is_known_stays_while_the_stream_is_away() {
    let objects = vec![token("web"), service("web", "10.96.0.1", 80), pod("web", "web-1", "10.1.0.1")];
    let mut lab = Lab::new("away", objects).await;
    let store = lab.member("web").await;
    let mut stream = lab.destination(&store).await.get(WEB, "").await.unwrap();
    assert_eq!(addrs(&next(&mut stream).await), "+10.1.0.1:80");
    lab.kill_events().await;
    lab.apply(pod("web", "web-2", "10.1.0.2"));
    lab.delete(Kind::Pod, "emojivoto", "web-1");
    let mut again = lab.destination(&store).await.get(WEB, "").await.unwrap();
    assert_eq!(addrs(&next(&mut again).await), "+10.1.0.1:80");
    // What was missed comes with the next list.
    lab.serve_events();
    assert_eq!(addrs(&next(&mut stream).await), "+10.1.0.2:80");
    assert_eq!(addrs(&next(&mut stream).await), "-10.1.0.1:80");
}

#[tokio::test]
async fn who_does_not_read_holds_up_nobody() {
    let lab = Lab::new("slow", vec![token("web"), service("web", "10.96.0.1", 80)]).await;
    let store = lab.member("web").await;
    let mut slow = lab.destination(&store).await.get(WEB, "").await.unwrap();
    let mut quick = lab.destination(&store).await.get(WEB, "").await.unwrap();
    assert_eq!(addrs(&next(&mut quick).await), "none exists=true");
    for round in 1..=200u32 {
        let ip = format!("10.1.{}.{}", round / 200, round % 200 + 1);
        lab.apply(pod("web", "web-1", &ip));
        let mut held = std::collections::BTreeMap::new();
        while !held.contains_key(&format!("{ip}:80").parse().unwrap()) {
            next(&mut quick).await.apply(&mut held);
        }
    }
    // The slow one gets to the same set.
    let mut held = std::collections::BTreeMap::new();
    while !(held.len() == 1 && held.contains_key(&"10.1.1.1:80".parse().unwrap())) {
        next(&mut slow).await.apply(&mut held);
    }
}
