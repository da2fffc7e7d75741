//! From a manifest to programs, and what a change of it touches.

use super::*;
use crate::{Object, manifest};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Namespace};
use std::{path::Path, time::Duration};
use weft_model::policy::inbound::DefaultPolicy;

const EMOJIVOTO: &str = include_str!("../manifest/testdata/emojivoto.yaml");

fn read(text: &str) -> (Namespace, Deployment) {
    let loaded = manifest::load_text(Path::new("m.yaml"), text);
    assert_eq!(loaded.problems, []);
    let (mut namespace, mut deployment) = (None, None);
    for located in loaded.objects {
        match located.object {
            Object::Namespace(o) => namespace = Some(*o),
            Object::Deployment(o) => deployment = Some(*o),
            _ => {}
        }
    }
    (namespace.unwrap(), deployment.unwrap())
}

fn made(text: &str) -> Template {
    let (namespace, deployment) = read(text);
    template(&deployment, Some(&namespace), "linkerd")
}

#[test]
fn a_deployment_becomes_programs() {
    let template = made(EMOJIVOTO);
    assert_eq!(template.service_account, "web");
    assert_eq!(template.program.argv, ["weft-demo", "web", "--port", "8080"]);
    assert_eq!(template.program.env[1], ("ADDR".to_owned(), ":8080".to_owned()));
    assert_eq!(template.inbound_ports(), [8080, 9990]);
    assert_eq!(template.program.grace, Duration::from_secs(30));
    let probe = template.program.readiness.clone().unwrap();
    assert_eq!((probe.period, probe.timeout), (Duration::from_secs(1), Duration::from_secs(1)));
    assert!(matches!(probe.action, ProbeAction::HttpGet { port: 8080, ref path, .. } if path == "/ready"));
    assert!(template.mesh.injected);
    assert!(template.mesh.opaque_ports.contains(9990, []) && !template.mesh.opaque_ports.contains(5432, []));
    // From its namespace.
    assert_eq!(template.mesh.default_policy, Some(DefaultPolicy::AllAuthenticated));
}

#[test]
fn names_are_stable_and_follow_the_template() {
    let template = made(EMOJIVOTO);
    let pods = template.pods();
    assert_eq!(pods.len(), 2);
    assert_eq!(pods, made(EMOJIVOTO).pods());
    assert!(pods[0].name.starts_with(&format!("web-{}-", template.hash)), "{}", pods[0].name);
    assert!(pods.iter().all(|p| p.name.len() <= 63));
    let long = "w".repeat(60);
    let (_, mut deployment) = read(EMOJIVOTO);
    deployment.metadata.name = Some(long);
    assert!(super::template(&deployment, None, "linkerd").pods().iter().all(|p| p.name.len() <= 63));
}

#[test]
fn only_what_changed_is_touched() {
    let before = made(EMOJIVOTO).pods();
    let after = |from: &str, to: &str| {
        assert!(EMOJIVOTO.contains(from), "{from}");
        changes(&before, &made(&EMOJIVOTO.replace(from, to)).pods())
    };
    let counts = |c: Changes| (c.start.len(), c.stop.len(), c.keep.len());
    assert_eq!(counts(after("replicas: 2", "replicas: 3")), (1, 0, 2));
    assert_eq!(counts(after("replicas: 2", "replicas: 1")), (0, 1, 1));
    assert_eq!(counts(after("value: \"8080\"", "value: \"8081\"")), (2, 2, 0));
    // The control plane tells a running proxy about policies and opaque ports; redirection is made once.
    assert_eq!(counts(after("all-authenticated", "deny")), (0, 0, 2));
    let skip = "config.linkerd.io/default-inbound-policy: deny\n    config.linkerd.io/skip-inbound-ports: \"99\"";
    assert_eq!(counts(after("config.linkerd.io/default-inbound-policy: all-authenticated", skip)), (2, 2, 0));
    // The Deployment's own labels are nobody's business.
    assert_eq!(counts(after("app.kubernetes.io/name: web", "app.kubernetes.io/name: other")), (0, 0, 2));
}

#[test]
fn disabled_pods_are_not_of_the_mesh() {
    let template = made(&EMOJIVOTO.replace("config.linkerd.io/opaque-ports: \"9990\"", "linkerd.io/inject: disabled"));
    assert!(!template.mesh.injected);
    assert!(!template.labels.contains_key("linkerd.io/control-plane-ns"));
}

#[test]
fn pods_say_what_the_index_needs() {
    let template = made(EMOJIVOTO);
    let status = Status { ips: vec!["10.1.0.1".parse().unwrap()], running: true, ready: true, terminating: false };
    insta::assert_json_snapshot!(template.pod("web-1", &status));
}
