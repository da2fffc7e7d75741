//! What should run: from a Deployment to programs and pods, and from there to what must be started and stopped.
//!
//! ```text
//! Deployment, Namespace ─► template ─► pods (desired) ─┬─► changes (start, stop, keep)
//!                                                      └─► pod (the object that the index gets)
//! any workload, Namespace ─► standing ─► pods (of which `can` asks), and what nobody knows of them
//! ```
//!
//! Only for objects that [`crate::manifest`] let through; what it refuses is not looked for here.

mod expand;
mod mesh;
mod probe;
mod standing;
mod template;
mod unrun;

pub use expand::expand;
pub use mesh::Mesh;
pub(crate) use mesh::{inherit, inherited, opaque_ports};
pub use probe::{Probe, ProbeAction};
pub(crate) use standing::{Others, Standing, Unsure, standing};
pub(crate) use template::CONTROL_NAMESPACE_LABEL;
pub use template::{Port, Program, Template, template};
pub(crate) use unrun::cron_job_of;
pub use unrun::{Unrun, Workload};

use std::net::IpAddr;

/// A pod that should run, or runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// The first is the main one.
    pub ips: Vec<IpAddr>,
    /// Its program runs.
    pub running: bool,
    /// It may get traffic.
    pub ready: bool,
    /// It is about to stop.
    pub terminating: bool,
}

/// Which pods of one Deployment to start and stop so that `desired` run. What is in both is not touched.
pub fn changes(running: &[Desired], desired: &[Desired]) -> Changes {
    let (keep, stop) = running.iter().cloned().partition(|pod| desired.contains(pod));
    let start = desired.iter().filter(|pod| !running.contains(pod)).cloned().collect();
    Changes { start, stop, keep }
}

#[cfg(test)]
mod tests;
