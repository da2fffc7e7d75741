//! Trust anchors that change without a restart: `weft.identity.TrustBundle`, our own service.
//!
//! The messages in `gen/` were made from `proto/weft/identity.proto` by `tonic_prost_build::configure().build_transport(false)` over
//! `protox::compile`, in a crate outside of the workspace.

use crate::{
    Error, GrpcServer, Incoming, Outgoing, Transport,
    error::Invalid,
    stream::{incoming, outgoing},
};
use proto::{trust_bundle_client::TrustBundleClient, trust_bundle_server::TrustBundleServer};
use std::future::Future;
use tonic::{Request, Response, Status, async_trait};

#[expect(unreachable_pub, clippy::allow_attributes, reason = "generated")]
mod proto {
    include!("gen/weft.identity.rs");
}

/// The trust anchors in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    /// Certificates in PEM, at least one.
    pub pem: String,
    /// Names this content: the same text is the same bundle.
    pub version: String,
}

/// Asks a TrustBundle service.
#[derive(Clone, Debug)]
pub struct Client<T>(TrustBundleClient<T>);

impl<T: Transport> Client<T> {
    pub fn new(transport: T) -> Self {
        Self(TrustBundleClient::new(transport))
    }

    /// The bundle in force, and each that follows it. UNIMPLEMENTED is a control plane that has no such service.
    pub async fn watch(&mut self) -> Result<Incoming<TrustBundle>, Error> {
        Ok(incoming(self.0.watch(proto::WatchRequest {}).await?.into_inner(), decode))
    }
}

/// A TrustBundle service. The connection's extensions and the metadata are in the request.
pub trait TrustBundles: Send + Sync + 'static {
    fn watch(&self, request: Request<()>) -> impl Future<Output = Result<Outgoing<TrustBundle>, Status>> + Send;
}

/// Serves `service` as gRPC.
pub fn server(service: impl TrustBundles) -> impl GrpcServer {
    TrustBundleServer::new(Adapter(service))
}

struct Adapter<S>(S);

#[async_trait]
impl<S: TrustBundles> proto::trust_bundle_server::TrustBundle for Adapter<S> {
    type WatchStream = Outgoing<proto::Bundle>;

    async fn watch(&self, request: Request<proto::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let bundles = self.0.watch(request.map(|proto::WatchRequest {}| ())).await?;
        Ok(Response::new(outgoing(bundles, encode)))
    }
}

pub(crate) fn decode(bundle: proto::Bundle) -> Result<TrustBundle, Invalid> {
    let proto::Bundle { pem, version } = bundle;
    if pem.is_empty() {
        return Err(Invalid::missing("pem"));
    }
    Ok(TrustBundle { pem, version })
}

pub(crate) fn encode(bundle: &TrustBundle) -> Result<proto::Bundle, Invalid> {
    let TrustBundle { pem, version } = bundle.clone();
    if pem.is_empty() {
        return Err(Invalid::missing("pem"));
    }
    Ok(proto::Bundle { pem, version })
}
