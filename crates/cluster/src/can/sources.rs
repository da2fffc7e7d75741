//! From objects, wherever they come from, to the index that answers.

use crate::{
    Event, Index, Key, Object,
    index::{DefaultPolicyName, Platform, Settings},
    install,
    values::Values,
    workload::{Standing, standing},
};
use k8s_openapi::api::core::v1::Namespace;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use weft_model::{policy::inbound::DefaultPolicy, ports::PortRanges};

/// Of manifests that nobody runs yet: each workload is the pods that stand for its own, which have no addresses.
pub fn of_manifests(objects: impl IntoIterator<Item = Object>, settings: Settings) -> Index {
    let (mut pods, objects): (Vec<Object>, Vec<Object>) =
        objects.into_iter().partition(|object| matches!(object, Object::Pod(_)));
    let namespaces: BTreeMap<String, Namespace> = objects
        .iter()
        .filter_map(|object| match object {
            Object::Namespace(namespace) => Some((object.key().name, (**namespace).clone())),
            _ => None,
        })
        .collect();
    // What has a name of its own keeps it.
    pods.extend(objects.iter().cloned());
    let (values, control) = (Values::default(), settings.control_namespace.clone());
    let mut index = Index::foretelling(settings);
    let mut taken = BTreeSet::new();
    for object in &pods {
        let Key { kind, namespace, .. } = object.key();
        for Standing { mut pod, unsure } in standing(object, namespaces.get(&namespace), &values, &control) {
            let name = pod.metadata.name.get_or_insert_default();
            if !taken.insert((namespace.clone(), name.clone())) {
                *name = format!("{name}-{}", kind.as_str().to_lowercase());
                taken.insert((namespace.clone(), name.clone()));
            }
            index.stand(pod, unsure);
        }
    }
    for object in objects {
        index.apply(Event::Apply(object));
    }
    index
}

/// Of what a supervisor holds, or an API server.
pub fn of_objects(objects: impl IntoIterator<Item = Object>, settings: Settings) -> Index {
    let mut index = Index::new(settings);
    for object in objects {
        index.apply(Event::Apply(object));
    }
    index
}

/// What holds for the whole mesh of a cluster, by the values that its installation tells.
pub fn settings_of(values: &Value, control_namespace: &str) -> Settings {
    let default = Settings::default();
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let networks = |text: String| text.split(',').filter_map(|net| net.trim().parse().ok()).collect();
    let numbers = |text: &str| text.parse::<PortRanges>().unwrap_or_default().numbers();
    let probes = values["policyController"]["probeNetworks"].as_array();
    let default_policy: Option<DefaultPolicy> =
        text(&values["proxy"]["defaultInboundPolicy"]).and_then(|name| name.parse().ok());
    Settings {
        control_namespace: control_namespace.to_owned(),
        trust_domain: install::trust_domain(values),
        cluster_domain: text(&values["clusterDomain"]).unwrap_or(default.cluster_domain),
        cluster_networks: text(&values["clusterNetworks"]).map_or(default.cluster_networks, networks),
        egress_namespace: default.egress_namespace,
        probe_networks: probes
            .map_or(default.probe_networks, |all| all.iter().filter_map(|net| net.as_str()?.parse().ok()).collect()),
        scrape_networks: vec![],
        default_policy: default_policy.map_or(default.default_policy, DefaultPolicyName),
        opaque_ports: values["proxy"]["opaquePorts"].as_str().map_or(default.opaque_ports, numbers),
        platform: Platform::Kubernetes,
        ipv6: !values["disableIPv6"].as_bool().unwrap_or(true),
        hint: default.hint,
        zone_weights: default.zone_weights,
        request_headers: default.request_headers,
    }
}
