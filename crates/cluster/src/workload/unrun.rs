//! Workloads that nobody runs from their manifest.

use k8s_openapi::{api::core::v1::PodTemplateSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Serialize};

/// Their kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Unrun {
    ReplicationController,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
}

/// One of them, as far as its pods depend on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    pub kind: Unrun,
    pub metadata: ObjectMeta,
    pub template: PodTemplateSpec,
    /// How many there are, where it says so.
    pub replicas: Option<i32>,
    /// The number of a StatefulSet's first pod.
    pub first: i32,
}

/// A time in minutes, by which a CronJob names a Job.
pub(super) const MINUTES: &str = "00000000";

impl Unrun {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReplicationController => "ReplicationController",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
        }
    }
}

/// The CronJob that has started a Job, whose name is the CronJob's and the time.
pub(crate) fn cron_job_of(job: &str) -> Option<&str> {
    let (cron_job, time) = job.rsplit_once('-')?;
    (time.len() >= MINUTES.len() && time.bytes().all(|b| b.is_ascii_digit())).then_some(cron_job)
}
