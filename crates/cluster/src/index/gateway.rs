//! Gateways to other clusters, as multicluster's mirrors write them: endpoints without a pod, behind which a gateway forwards what is
//! asked of it by a Service's name in its own cluster (control plane 3.5, 6.2).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use weft_model::{DnsName, Endpoint, Identity, ProtocolHint, endpoint::ServerTls};

const REMOTE_SERVICE: &str = "mirror.linkerd.io/remote-svc-fq-name";
const GATEWAY_IDENTITY: &str = "mirror.linkerd.io/remote-gateway-identity";
/// A label.
const CLUSTER: &str = "mirror.linkerd.io/cluster-name";

/// What an EndpointSlice says of its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gateway {
    cluster: Option<String>,
    /// By which it is asked.
    service: Option<DnsName>,
    /// What it proves.
    tls: Option<ServerTls>,
}

impl Gateway {
    /// `None` of a slice of another sort.
    ///
    /// # Errors
    /// A name is none, and why: what is meant for a gateway would go there in plaintext, or under another name.
    pub(crate) fn of(meta: &ObjectMeta) -> Result<Option<Self>, String> {
        let name = |key: &str| -> Result<Option<DnsName>, String> {
            let text = meta.annotations.as_ref().and_then(|all| all.get(key)).filter(|text| !text.is_empty());
            let name = text.map(|text| text.parse()).transpose();
            name.map_err(|error| format!("metadata.annotations[{key}]: {error}; give a DNS name, or remove it"))
        };
        let (service, identity) = (name(REMOTE_SERVICE)?, name(GATEWAY_IDENTITY)?);
        let tls = identity.map(|name| ServerTls { identity: Identity::Dns(name.clone()), server_name: name });
        let cluster = meta.labels.as_ref().and_then(|labels| labels.get(CLUSTER)).cloned();
        let is_gateway = service.is_some() || tls.is_some();
        Ok(is_gateway.then_some(Self { cluster, service, tls }))
    }

    /// `plain` with what is known of it; it is asked for this port of the Service.
    pub(super) fn endpoint(&self, plain: &Endpoint, port: u16) -> Endpoint {
        let Self { cluster, service, tls } = self;
        let mut labels: BTreeMap<String, String> = plain.labels.clone();
        labels.extend(cluster.iter().map(|cluster| ("target_cluster".to_owned(), cluster.clone())));
        let parts = service.iter().flat_map(|service| service.as_str().split('.')).map(str::to_owned);
        labels.extend(["target_service", "target_service_namespace"].map(str::to_owned).into_iter().zip(parts));
        Endpoint {
            authority_override: service.as_ref().map(|service| format!("{service}:{port}")),
            tls: tls.clone(),
            hint: if tls.is_some() { ProtocolHint::H2 } else { ProtocolHint::Unknown },
            labels,
            ..plain.clone()
        }
    }
}
