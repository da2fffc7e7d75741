//! What a mesh tells about itself: `weft ps`.

use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};
use weft_cluster::manifest::{Ignored, Problem};

/// Everything, in the order of namespaces and names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    pub state_dir: PathBuf,
    /// Of `weft`; empty if it is older than this field.
    #[serde(default)]
    pub version: String,
    pub workloads: Vec<Workload>,
    pub services: Vec<Service>,
    pub published: Vec<Published>,
    pub control_plane: ControlPlane,
    /// What of the manifests is refused.
    pub problems: Vec<Problem>,
    /// What of the manifests is accepted and not acted on.
    pub ignored: Vec<Ignored>,
    pub egress: Egress,
}

/// A Deployment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Workload {
    pub namespace: String,
    pub name: String,
    pub replicas: u32,
    pub ready: u32,
    pub pods: Vec<Pod>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pod {
    pub name: String,
    pub service_account: String,
    pub ips: Vec<IpAddr>,
    pub phase: Phase,
    pub ready: bool,
    /// Whether it has a proxy; its metrics are at port 4191 of [`crate::Client::dial`].
    pub meshed: bool,
    /// Of the program and of the proxy.
    pub restarts: u32,
    pub proxy_restarts: u32,
    /// What ended or keeps it, if something is wrong.
    pub message: Option<String>,
    pub started: jiff::Timestamp,
    /// As the mesh's process namespace and the host see them.
    pub pid: Option<u32>,
    pub proxy_pid: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Its namespace is made or its proxy starts.
    Pending,
    Running,
    /// Its program ended and is started again after a while.
    Backoff,
    Terminating,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    /// Empty for a headless one.
    pub cluster_ips: Vec<IpAddr>,
    pub ports: Vec<u16>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Published {
    pub listen: SocketAddr,
    pub namespace: String,
    pub service: String,
    pub port: u16,
    /// Since the start: those that got in, and those that did not.
    pub connections: u64,
    pub refused: u64,
    /// Why nobody can get in.
    pub problem: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ControlPlane {
    pub ready: bool,
    pub restarts: u32,
    pub pid: Option<u32>,
    /// Its admin server (plaintext `/metrics`), for [`crate::Client::dial`].
    pub admin: Option<SocketAddr>,
    pub root_expires: Option<jiff::Timestamp>,
    pub issuer_expires: Option<jiff::Timestamp>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Egress {
    pub enabled: bool,
    pub connections: u64,
    pub refused: u64,
    /// Ended because nothing passed for long.
    pub idle: u64,
}
