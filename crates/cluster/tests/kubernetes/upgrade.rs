//! What is read of an installation that exists, ours or Linkerd's, and what of it holds on.

use serde_json::{Value, json};
use std::time::Duration;
use weft_cluster::{
    install::{
        Author, By, Installation, Material, NotStored, Pair, Replaced, Source, control_plane, objects, stored, text,
    },
    k8s::ByteString,
    values::{Values, carried},
    yaml,
};

fn linkerds() -> Vec<Value> {
    let overrides = include_str!("testdata/linkerd-overrides.yaml");
    // As an API server shows a Secret.
    let encoded = json!(ByteString(overrides.as_bytes().to_vec()));
    objects(&include_str!("testdata/linkerd.yaml").replace("OVERRIDES", encoded.as_str().unwrap())).unwrap()
}

fn without(objects: &[Value], name: &str) -> Vec<Value> {
    objects.iter().filter(|object| object["metadata"]["name"] != name).cloned().collect()
}

#[tokio::test]
async fn an_installation_of_linkerds_is_carried_on_with_what_weft_can_be_given() {
    let objects = linkerds();
    let stored = stored(Source::Manifests(&objects), "linkerd", Replaced::default()).await.unwrap();
    assert_eq!((stored.by, stored.version, stored.issuer_since), (Author::Linkerd, None, None));
    // What has been replaced since holds, not what was given once.
    assert_eq!(stored.anchors_pem, "anchors that have been replaced\n");
    assert_eq!(stored.issuer.unwrap().certificate, "issuer that has been renewed\n");
    assert_eq!(stored.proxy_injector.unwrap().key, "injector key\n");
    assert_eq!(
        (stored.trust_domain.as_str(), stored.api_server_ports.as_deref()),
        ("cluster.local", Some("443,16443"))
    );
    let (kept, left_out) = carried(stored.given);
    Values::from_layers([kept.clone()]).unwrap();
    let told: String = left_out.iter().map(|problem| format!("{problem}\n")).collect();
    insta::assert_snapshot!(format!("{}---\n{told}", yaml::text(&kept)));
}

#[tokio::test]
async fn what_an_installation_of_ours_stores_is_read_again() {
    let pair = |name: &str| Pair { certificate: format!("{name} certificate\n"), key: format!("{name} key\n") };
    let material = Material {
        anchors_pem: "anchors\n".to_owned(),
        issuer: pair("issuer"),
        issuer_since: Some("2026-11-26T08:00:00Z".parse().unwrap()),
        proxy_injector: pair("injector"),
        ..Material::default()
    };
    let given = json!({"identityTrustDomain": "trust.example", "controllerReplicas": 2, "linkerdVersion": "v1",
        "identityTrustAnchorsPEM": "anchors\n", "identity": {"issuer": {"issuanceLifetime": "1h", "tls": {"crtPEM": "a", "keyPEM": "b"}}}});
    let values = Values::from_layers([given.clone()]).unwrap();
    let rendered = control_plane(Installation {
        values: &values,
        namespace: "mesh",
        by: By::Cli,
        material: &material,
        overrides: &yaml::text(&given),
    });
    let saved = objects(&text(&rendered)).unwrap();
    let stored = stored(Source::Manifests(&saved), "mesh", Replaced::default()).await.unwrap();
    assert_eq!((stored.by, stored.version.as_deref()), (Author::Weft, Some("v1")));
    assert_eq!(stored.issuer_since, material.issuer_since);
    assert_eq!(stored.leaf, Duration::from_secs(60 * 60 + 20), "what is in force, with 20 s for clocks");
    // The version is another one from now on, and certificates are what the objects hold.
    assert_eq!(
        stored.given,
        json!({"identityTrustDomain": "trust.example", "controllerReplicas": 2, "identity": {"issuer": {"issuanceLifetime": "1h"}}})
    );
    assert_eq!(stored.trust_domain, "trust.example");
    assert_eq!(stored.anchors_pem, "anchors\n");
    assert_eq!(stored.issuer.unwrap().certificate, "a", "what was given");
    assert_eq!(stored.proxy_injector.unwrap(), pair("injector"));
}

#[tokio::test]
async fn what_is_missing_or_broken_is_named() {
    let all = linkerds();
    let told = async |objects: &[Value], namespace: &str| {
        stored(Source::Manifests(objects), namespace, Replaced::default()).await.unwrap_err().to_string()
    };
    assert!(
        told(&all, "mesh")
            .await
            .contains("there is no control plane: the namespace mesh has no ConfigMap linkerd-config")
    );
    let helms = without(&all, "linkerd-config-overrides");
    let said = told(&helms, "linkerd").await;
    assert!(
        said.starts_with("the Secret linkerd-config-overrides of the namespace linkerd: it is not there"),
        "{said}"
    );
    let mut undated = all.clone();
    let issuer = undated.iter_mut().find(|object| object["metadata"]["name"] == "linkerd-identity-issuer").unwrap();
    issuer["metadata"]["annotations"] = json!({"weft/issuer-since": "yesterday"});
    let said = told(&undated, "linkerd").await;
    assert!(said.contains("the annotation weft/issuer-since of the Secret linkerd-identity-issuer"), "{said}");
    let rootless = without(&all, "linkerd-identity-trust-roots");
    assert!(
        told(&rootless, "linkerd")
            .await
            .contains("the ConfigMap linkerd-identity-trust-roots of the namespace linkerd: it has no key")
    );
    let mut half = all.clone();
    for object in &mut half {
        if object["metadata"]["name"] == "linkerd-identity-issuer" {
            object["stringData"] = json!({"crt.pem": "certificate"});
        }
    }
    assert!(told(&half, "linkerd").await.contains("the key key.pem of the Secret linkerd-identity-issuer"));
    let mut garbled = all.clone();
    for object in &mut garbled {
        if object["metadata"]["name"] == "linkerd-config-overrides" {
            object["data"] = json!({});
            object["stringData"] = json!({"linkerd-config-overrides": "{"});
        }
    }
    assert!(told(&garbled, "linkerd").await.contains("the Secret linkerd-config-overrides of the namespace linkerd: "));
    assert!(matches!(objects("{"), Err(NotStored::Unreadable { .. })));
    let without_issuer = without(&all, "linkerd-identity-issuer");
    assert!(stored(Source::Manifests(&without_issuer), "linkerd", Replaced::default()).await.unwrap().issuer.is_none());
}
