//! The environment of a proxy: what `weft-proxy`, or Linkerd's proxy, must know of its workload.
//!
//! Pure; who starts the proxy passes addresses, files and anchors.

use crate::workload::Mesh;
use std::{net::IpAddr, path::Path};
use weft_model::decide::cidr::Cidr;

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
    pub ipv6: bool,
}

/// The variables in the order of the documentation, each name once.
pub fn proxy_env(injection: &Injection<'_>) -> Vec<(String, String)> {
    let _ = injection;
    vec![]
}
