//! What holds for the whole mesh.

use serde::{Deserialize, Serialize};
use weft_model::{
    ProtocolHint,
    decide::cidr::Cidr,
    names,
    policy::inbound::{DefaultPolicy, InvalidDefaultPolicy},
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub control_namespace: String,
    pub trust_domain: String,
    pub cluster_domain: String,
    pub cluster_networks: Vec<Cidr>,
    /// The namespace whose EgressNetworks count where a client's own has none.
    #[serde(default = "egress_namespace")]
    pub egress_namespace: String,
    /// From where HTTP probes are let in.
    pub probe_networks: Vec<Cidr>,
    /// From where the proxies' admin servers are asked by the mesh itself, which has no identity there.
    #[serde(default)]
    pub scrape_networks: Vec<Cidr>,
    pub default_policy: DefaultPolicyName,
    /// Ports that are opaque unless an annotation says otherwise.
    pub opaque_ports: Vec<u16>,
    /// Where the objects come from, which decides what they mean.
    #[serde(default)]
    pub platform: Platform,
    /// Whether clients are sent to IPv6 addresses.
    #[serde(default = "yes")]
    pub ipv6: bool,
    /// How HTTP/1 is carried to a meshed endpoint whose port is not opaque. On HTTP/2 by default (`docs/adr/0003-default-hint.md`).
    pub hint: ProtocolHint,
    /// Whether endpoints in a client's own zone have ten times the weight of others.
    #[serde(default)]
    pub zone_weights: bool,
    /// Whether applications ask for retries and timeouts by headers of their requests (data plane 4.9).
    #[serde(default)]
    pub request_headers: bool,
}

/// Where the objects come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// Manifests on disk: nobody writes EndpointSlices, so a Service's selector says which pods are behind it; and what a
    /// namespace's annotations say holds for its pods and Services at once.
    #[default]
    Manifests,
    /// An API server: EndpointSlices say what is behind a Service, and annotations hold where they stand: injection has
    /// copied those of the namespace.
    Kubernetes,
}

/// A default policy by its name, for configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DefaultPolicyName(pub DefaultPolicy);

/// The private networks, as Linkerd's chart has them.
const CLUSTER_NETWORKS: [&str; 5] = ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8"];

impl Default for Settings {
    fn default() -> Self {
        Self {
            control_namespace: names::CONTROL_NAMESPACE.to_owned(),
            trust_domain: names::CLUSTER_DOMAIN.to_owned(),
            cluster_domain: names::CLUSTER_DOMAIN.to_owned(),
            cluster_networks: CLUSTER_NETWORKS.iter().filter_map(|n| n.parse().ok()).collect(),
            egress_namespace: egress_namespace(),
            probe_networks: vec![Cidr::ALL_V4, Cidr::ALL_V6],
            scrape_networks: vec![],
            default_policy: DefaultPolicyName(DefaultPolicy::AllUnauthenticated),
            opaque_ports: names::DEFAULT_OPAQUE_PORTS.to_vec(),
            platform: Platform::Manifests,
            ipv6: true,
            hint: ProtocolHint::H2,
            zone_weights: false,
            request_headers: false,
        }
    }
}

fn egress_namespace() -> String {
    names::EGRESS_NAMESPACE.to_owned()
}

fn yes() -> bool {
    true
}

impl TryFrom<String> for DefaultPolicyName {
    type Error = InvalidDefaultPolicy;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<DefaultPolicyName> for String {
    fn from(name: DefaultPolicyName) -> Self {
        name.0.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_networks_are_read() {
        assert_eq!(Settings::default().cluster_networks.len(), CLUSTER_NETWORKS.len());
    }
}
