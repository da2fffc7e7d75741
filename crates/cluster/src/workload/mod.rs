//! What should run: from a Deployment to programs and pods, and from there to what must be started and stopped.
//!
//! Only for objects that [`crate::manifest`] let through; what it refuses is not looked for here.

mod expand;
mod probe;

pub use expand::expand;
pub use probe::{Probe, ProbeAction};

use crate::annotation::{PortList, PortRanges};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod},
};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};
use weft_model::policy::inbound::DefaultPolicy;

/// The pods of one Deployment: all alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pub namespace: String,
    pub deployment: String,
    pub replicas: u32,
    /// Of everything that only a restart can change.
    pub hash: String,
    pub labels: BTreeMap<String, String>,
    /// The pod's own, and those of the mesh that it inherits from its namespace.
    pub annotations: BTreeMap<String, String>,
    pub service_account: String,
    pub program: Program,
    pub mesh: Mesh,
}

/// What runs in a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub container: String,
    /// Variables are expanded.
    pub argv: Vec<String>,
    /// Variables are expanded.
    pub env: Vec<(String, String)>,
    pub working_dir: Option<String>,
    pub ports: Vec<Port>,
    pub readiness: Option<Probe>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: Option<String>,
    pub number: u16,
}

/// What the mesh does with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// Whether it gets a proxy.
    pub injected: bool,
    pub opaque_ports: PortList,
    pub skip_inbound: PortRanges,
    pub skip_outbound: PortRanges,
    /// `None` is the control plane's default.
    pub default_policy: Option<DefaultPolicy>,
}

/// A pod that should run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Desired {
    pub name: String,
    pub template_hash: String,
}

/// What leads from the pods that run to those that should.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub start: Vec<Desired>,
    pub stop: Vec<Desired>,
    pub keep: Vec<Desired>,
}

/// What is known of a running pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub ips: Vec<IpAddr>,
    /// Its program runs.
    pub running: bool,
    /// It may get traffic.
    pub ready: bool,
    /// It is about to stop.
    pub terminating: bool,
}

/// The pods of `deployment`, with what they inherit from `namespace`.
pub fn template(deployment: &Deployment, namespace: Option<&Namespace>, control_namespace: &str) -> Template {
    let _ = (deployment, namespace, control_namespace);
    Template {
        namespace: String::new(),
        deployment: String::new(),
        replicas: 0,
        hash: String::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        service_account: String::new(),
        program: Program {
            container: String::new(),
            argv: vec![],
            env: vec![],
            working_dir: None,
            ports: vec![],
            readiness: None,
            grace: Duration::from_secs(30),
        },
        mesh: Mesh {
            injected: true,
            opaque_ports: PortList::default(),
            skip_inbound: PortRanges::default(),
            skip_outbound: PortRanges::default(),
            default_policy: None,
        },
    }
}

impl Template {
    /// Names are stable: the same template and replica number give the same name.
    pub fn pods(&self) -> Vec<Desired> {
        vec![]
    }

    /// The Pod object of one replica, as the index wants it.
    pub fn pod(&self, name: &str, status: &Status) -> Pod {
        let _ = (name, status);
        Pod::default()
    }
}

/// Which pods to start and stop so that `desired` run.
pub fn changes(running: &[Desired], desired: &[Desired]) -> Changes {
    let _ = (running, desired);
    Changes::default()
}
