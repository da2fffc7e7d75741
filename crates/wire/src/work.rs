//! Whether a pod's work is done: `weft.workload.Work`, our own service, for pods that run to an end.
//!
//! The messages in `gen/` were made from `proto/weft/workload.proto` as those of [`crate::trust`].

use crate::{
    Error, GrpcServer, Incoming, Outgoing, Transport,
    error::Invalid,
    stream::{incoming, outgoing},
};
use proto::{work_client::WorkClient, work_server::WorkServer};
use std::future::Future;
use tonic::{Request, Response, Status, async_trait};

#[expect(unreachable_pub, clippy::allow_attributes, reason = "generated")]
mod proto {
    include!("gen/weft.workload.rs");
}

/// What a proxy asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkSpec {
    /// Who asks, as the injector told the proxy: JSON.
    pub workload: String,
    /// Of the pod.
    pub uid: String,
}

/// How far a pod's work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// All containers but the proxy's have ended, and none will be started again.
    pub done: bool,
}

/// Asks a Work service.
#[derive(Clone, Debug)]
pub struct Client<T>(WorkClient<T>);

impl<T: Transport> Client<T> {
    pub fn new(transport: T) -> Self {
        Self(WorkClient::new(transport))
    }

    /// How far the work is, and each change of that. UNIMPLEMENTED is a control plane that has no such service.
    pub async fn watch(&mut self, spec: &WorkSpec) -> Result<Incoming<Progress>, Error> {
        Ok(incoming(self.0.watch(encode_spec(spec.clone())).await?.into_inner(), decode))
    }
}

/// A Work service. The connection's extensions and the metadata are in the request.
pub trait Works: Send + Sync + 'static {
    fn watch(&self, spec: Request<WorkSpec>) -> impl Future<Output = Result<Outgoing<Progress>, Status>> + Send;
}

/// Serves `service` as gRPC.
pub fn server(service: impl Works) -> impl GrpcServer {
    WorkServer::new(Adapter(service))
}

struct Adapter<S>(S);

#[async_trait]
impl<S: Works> proto::work_server::Work for Adapter<S> {
    type WatchStream = Outgoing<proto::Progress>;

    async fn watch(&self, request: Request<proto::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(outgoing(self.0.watch(request.map(decode_spec)).await?, encode)))
    }
}

pub(crate) fn decode_spec(proto::WatchRequest { workload, uid }: proto::WatchRequest) -> WorkSpec {
    WorkSpec { workload, uid }
}

pub(crate) fn encode_spec(WorkSpec { workload, uid }: WorkSpec) -> proto::WatchRequest {
    proto::WatchRequest { workload, uid }
}

/// Every message says something.
pub(crate) fn decode(progress: proto::Progress) -> Result<Progress, Invalid> {
    let proto::Progress { done } = progress;
    Ok(Progress { done })
}

pub(crate) fn encode(progress: &Progress) -> Result<proto::Progress, Invalid> {
    let Progress { done } = *progress;
    Ok(proto::Progress { done })
}
