//! Whether the work of pods that run to an end is done.

use super::{ask, stream::whole};
use crate::hub::Hub;
use std::sync::Arc;
use tonic::{Request, Status};
use weft_cluster::index::{Answer, Question, WorkloadKind};
use weft_wire::{
    Outgoing,
    work::{Progress, WorkSpec, Works},
};

pub(crate) struct PodWorks(Arc<Hub>);

impl PodWorks {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self(hub)
    }
}

impl Works for PodWorks {
    async fn watch(&self, request: Request<WorkSpec>) -> Result<Outgoing<Progress>, Status> {
        let asker = ask::require_identity(&request)?;
        let WorkSpec { workload, uid } = request.into_inner();
        let ask::Workload { namespace, of, name: pod } = ask::Workload::read(&workload)?;
        if of != WorkloadKind::Pod {
            return Err(Status::not_found("only a pod runs to an end"));
        }
        let uid = ask::uid(uid)?;
        let subscription = self.0.subscribe(Question::Work { namespace, pod, uid }, asker).await?;
        whole(subscription, |answer| match answer {
            Answer::Work { done } => Some(Progress { done: *done }),
            _ => None,
        })
        .await
    }
}
