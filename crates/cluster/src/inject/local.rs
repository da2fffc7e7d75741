//! The environment of a proxy: what `weft-proxy`, or Linkerd's proxy, must know of its workload.
//!
//! Pure; who starts the proxy passes addresses, files and anchors.

use crate::workload::Mesh;
use serde_json::json;
use std::{net::IpAddr, path::Path};
use weft_model::{
    Identity,
    decide::cidr::Cidr,
    names::{port, service_account},
    policy::inbound::DefaultPolicy,
};

/// The workload and its surroundings.
#[derive(Clone, Debug)]
pub struct Injection<'a> {
    pub namespace: &'a str,
    pub pod: &'a str,
    pub service_account: &'a str,
    /// Empty if there are no nodes.
    pub node: &'a str,
    pub pod_ips: &'a [IpAddr],
    /// Ports that the program declares, and those of its HTTP probes.
    pub inbound_ports: &'a [u16],
    pub mesh: &'a Mesh,
    pub control: &'a ControlPlane,
    /// PEM.
    pub trust_anchors: &'a str,
    pub identity_dir: &'a Path,
    pub token_file: &'a Path,
}

/// What all proxies of a mesh are told alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPlane {
    /// `host:port`, an address or a name.
    pub identity_addr: String,
    pub destination_addr: String,
    pub policy_addr: String,
    pub namespace: String,
    pub trust_domain: String,
    pub cluster_domain: String,
    pub cluster_networks: Vec<Cidr>,
    pub default_policy: DefaultPolicy,
    pub ipv6: bool,
}

/// The variables in the order of the documentation, each name once.
pub fn proxy_env(injection: &Injection<'_>) -> Vec<(String, String)> {
    let Injection { namespace, pod, service_account, node, mesh, control, .. } = *injection;
    let any = if control.ipv6 { "[::]" } else { "0.0.0.0" };
    let outbound = format!("127.0.0.1:{}", port::OUTBOUND);
    let outbounds = if control.ipv6 { format!("{outbound},[::1]:{}", port::OUTBOUND) } else { outbound };
    let identity = |account: &str, namespace: &str| {
        Identity::service_account_name(account, namespace, &control.namespace, &control.trust_domain)
    };
    let destination = identity(service_account::DESTINATION, &control.namespace);
    let networks = list(&control.cluster_networks);
    let policy = mesh.default_policy.unwrap_or(control.default_policy);
    // Names of ports are resolved by the control plane; before its first answer only numbers are known.
    let opaque = mesh.opaque_ports.numbers.to_string();

    [
        ("INBOUND_LISTEN_ADDR", format!("{any}:{}", port::INBOUND)),
        ("OUTBOUND_LISTEN_ADDRS", outbounds),
        ("CONTROL_LISTEN_ADDR", format!("{any}:{}", port::CONTROL)),
        ("ADMIN_LISTEN_ADDR", format!("{any}:{}", port::ADMIN)),
        ("INBOUND_IPS", list(injection.pod_ips)),
        ("INBOUND_PORTS", list(injection.inbound_ports)),
        ("INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", opaque),
        ("INBOUND_DEFAULT_POLICY", policy.as_str().to_owned()),
        ("POLICY_CLUSTER_NETWORKS", networks.clone()),
        ("POLICY_SVC_ADDR", control.policy_addr.clone()),
        ("POLICY_SVC_NAME", destination.clone()),
        ("POLICY_WORKLOAD", json!({ "ns": namespace, "pod": pod }).to_string()),
        ("DESTINATION_SVC_ADDR", control.destination_addr.clone()),
        ("DESTINATION_SVC_NAME", destination),
        ("DESTINATION_CONTEXT", json!({ "ns": namespace, "nodeName": node, "pod": pod }).to_string()),
        ("DESTINATION_PROFILE_SUFFIXES", format!("svc.{}.", control.cluster_domain)),
        ("DESTINATION_PROFILE_NETWORKS", networks),
        ("CONTROL_STREAM_INITIAL_TIMEOUT", "3s".to_owned()),
        ("CONTROL_STREAM_IDLE_TIMEOUT", "5m".to_owned()),
        ("CONTROL_STREAM_LIFETIME", "1h".to_owned()),
        ("INBOUND_CONNECT_TIMEOUT", "100ms".to_owned()),
        ("OUTBOUND_CONNECT_TIMEOUT", "1000ms".to_owned()),
        ("INBOUND_DISCOVERY_IDLE_TIMEOUT", "90s".to_owned()),
        ("OUTBOUND_DISCOVERY_IDLE_TIMEOUT", "5s".to_owned()),
        ("INBOUND_ACCEPT_KEEPALIVE", "10000ms".to_owned()),
        ("OUTBOUND_CONNECT_KEEPALIVE", "10000ms".to_owned()),
        ("INBOUND_ACCEPT_USER_TIMEOUT", "30s".to_owned()),
        ("OUTBOUND_CONNECT_USER_TIMEOUT", "30s".to_owned()),
        ("INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL", "10s".to_owned()),
        ("INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT", "3s".to_owned()),
        ("OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL", "10s".to_owned()),
        ("OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT", "3s".to_owned()),
        ("IDENTITY_DIR", injection.identity_dir.display().to_string()),
        ("IDENTITY_TRUST_ANCHORS", injection.trust_anchors.to_owned()),
        ("IDENTITY_TOKEN_FILE", injection.token_file.display().to_string()),
        ("IDENTITY_SVC_ADDR", control.identity_addr.clone()),
        ("IDENTITY_SVC_NAME", identity(service_account::IDENTITY, &control.namespace)),
        ("IDENTITY_LOCAL_NAME", identity(service_account, namespace)),
    ]
    .map(|(name, value)| (format!("LINKERD2_PROXY_{name}"), value))
    .into()
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn env(ipv6: bool, annotations: &[(&str, &str)]) -> String {
        let annotations: BTreeMap<String, String> =
            annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let control = ControlPlane {
            identity_addr: "linkerd-identity-headless.linkerd.svc.cluster.local.:8080".to_owned(),
            destination_addr: "linkerd-dst-headless.linkerd.svc.cluster.local.:8086".to_owned(),
            policy_addr: "linkerd-policy.linkerd.svc.cluster.local.:8090".to_owned(),
            namespace: "linkerd".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            cluster_networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            default_policy: DefaultPolicy::AllUnauthenticated,
            ipv6,
        };
        let injection = Injection {
            namespace: "emojivoto",
            pod: "web-6d5f-x2x4z",
            service_account: "web",
            node: "",
            pod_ips: &["10.1.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            inbound_ports: &[8080, 9990],
            mesh: &Mesh::from_annotations(&annotations),
            control: &control,
            trust_anchors: "-----BEGIN CERTIFICATE-----\nMII…\n-----END CERTIFICATE-----\n",
            identity_dir: Path::new("/run/weft/identity"),
            token_file: Path::new("/run/weft/token"),
        };
        proxy_env(&injection).into_iter().map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    #[test]
    fn the_environment_is_linkerds() {
        insta::assert_snapshot!("ipv4", env(false, &[]));
        let annotations = [
            ("config.linkerd.io/opaque-ports", "9990,4000-4002,grpc"),
            ("config.linkerd.io/default-inbound-policy", "deny"),
        ];
        insta::assert_snapshot!("dual-stack-annotated", env(true, &annotations));
    }

    #[test]
    fn every_name_stands_once() {
        let env = env(true, &[]);
        let mut names: Vec<&str> = env.lines().filter_map(|l| l.split_once("=")).map(|(n, _)| n).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
