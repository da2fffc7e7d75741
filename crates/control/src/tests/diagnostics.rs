//! What people are told of what proxies are told, over a plain connection to the control plane and by an index alike.

use super::{
    kubernetes::{Lab, destination, objects},
    lab::patiently,
};
use crate::diagnostics::{Asking, Row, of_index};
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;
use weft_cluster::{
    Event, Index,
    index::{Platform, Settings, WorkloadKind},
    kubernetes::{Cluster, connect},
};
use weft_testkit::api_server::FakeApi;

const WEB: &str = "web.emojivoto.svc.cluster.local:80";

async fn asking(lab: &Lab, name: &str) -> Asking {
    Asking::new(TcpStream::connect(lab.addr(name)).await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn people_are_told_what_proxies_are_told() {
    let api = FakeApi::start().await.unwrap();
    objects(&api);
    let lab = Lab::start("diagnostics", api, destination).await;
    lab.until("/ready", |status, _| status == 200).await;
    let (destinations, policies) = (asking(&lab, "destination").await, asking(&lab, "policy").await);

    // The same objects, asked for at once.
    let cluster = Cluster::new(connect(Some(&lab.dir.join("kubeconfig"))).await.unwrap());
    let held = cluster.everything(&crate::kubernetes::watched()).await.unwrap();
    let settings = Settings {
        platform: Platform::Kubernetes,
        cluster_networks: vec!["10.0.0.0/8".parse().unwrap()],
        probe_networks: vec!["0.0.0.0/0".parse().unwrap()],
        ipv6: false,
        ..Settings::default()
    };
    let mut index = Index::new(settings);
    held.into_iter().for_each(|object| drop(index.apply(Event::Apply(object))));

    let authorities = [WEB.to_owned(), WEB.to_owned()];
    let rows = patiently(destinations.endpoints(&authorities, "", Duration::from_secs(2))).await.unwrap();
    let [Row { namespace, ip, port, pod, service, labels, weight, .. }] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(
        (namespace.as_str(), ip.to_string().as_str(), *port, pod.as_str(), service.as_str()),
        ("emojivoto", "10.1.0.1", 8080, "web-1", "web.emojivoto")
    );
    assert_eq!((labels["serviceaccount"].as_str(), *weight), ("web", 10_000));
    assert_eq!(of_index::endpoints(&index, &authorities).unwrap(), rows);

    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let profile = destinations.profile("10.1.0.1:8080", "").await.unwrap();
    assert_eq!(json(&profile)["endpoint"]["metric_labels"]["pod"], "web-1", "{profile}");
    assert_eq!(json(&of_index::profile(&index, "10.1.0.1:8080").unwrap()), json(&profile));
    let inbound = policies.inbound("emojivoto", WorkloadKind::Pod, "web-1", 8080).await.unwrap();
    assert_eq!(json(&inbound)["labels"]["name"], "deny", "{inbound}");
    assert_eq!(
        json(&of_index::inbound(&index, "emojivoto", WorkloadKind::Pod, "web-1", 8080).unwrap()),
        json(&inbound)
    );
    let outbound = policies.outbound(WEB, "default:diagnostics").await.unwrap();
    assert!(json(&outbound)["protocol"]["Kind"].is_object(), "{outbound}");
    assert_eq!(json(&of_index::outbound(&index, WEB).unwrap()), json(&outbound));

    let refused = destinations.endpoints(&["nowhere".to_owned()], "", Duration::ZERO).await.unwrap_err();
    assert!(refused.to_string().contains("nowhere"), "{refused}");
    assert!(policies.inbound("emojivoto", WorkloadKind::Pod, "nobody", 8080).await.is_err());
    assert!(of_index::endpoints(&index, &["10.1.0.1:80".to_owned()]).is_err());
}
