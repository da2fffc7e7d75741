//! Certify: who holds a workload's token gets that workload's certificate (control plane 7.2).

use super::{holders::Holders, limit::Limit};
use crate::{
    authority::Authority,
    ca::{Asked, Refused},
};
use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};
use tonic::{Request, Status};
use weft_cluster::index::Settings;
use weft_model::Identity;
use weft_telemetry::{CounterFamily, Labels, Registry, Shard};
use weft_wire::identity::{self, Certificate, CertifyRequest};

/// Bytes of a token: a Kubernetes token has about a thousand.
const MAX_TOKEN_BYTES: usize = 16 << 10;

pub(crate) struct Identities {
    holders: Holders,
    authority: Arc<Authority>,
    settings: Settings,
    limit: Limit,
    outcomes: CounterFamily,
}

impl Identities {
    pub(crate) fn new(holders: Holders, authority: Arc<Authority>, settings: Settings, registry: &Registry) -> Self {
        let outcomes = registry.counter("weft_control_certify_total", "Requests for a certificate, by their outcome.");
        Self { holders, authority, settings, limit: Limit::default(), outcomes }
    }

    async fn answer(&self, request: CertifyRequest) -> Result<Certificate, Status> {
        let CertifyRequest { identity, token, csr } = request;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Status::invalid_argument("the token is too long"));
        }
        // What costs this process alone comes before what costs the API server.
        let refused = |e: Refused| match e {
            Refused::Malformed(_) => Status::invalid_argument(e.to_string()),
            Refused::NotAllowed(_) => Status::failed_precondition(e.to_string()),
            Refused::Expired => Status::unavailable(e.to_string()),
            Refused::Failed(_) => Status::internal(e.to_string()),
        };
        let asked = Asked::read(&identity, &csr).map_err(refused)?;
        let exhausted = || Status::resource_exhausted(format!("too many certificates for {identity}; try again later"));
        // Only what the identity itself was given counts, so that nobody else can use it up.
        if self.limit.is_spent(&identity, now()) {
            return Err(exhausted());
        }
        let holder = self.holders.of(&token, &identity).await?;
        let (control, domain) = (&self.settings.control_namespace, &self.settings.trust_domain);
        let proven = Identity::of_service_account(&holder.account, &holder.namespace, control, domain)
            .map_err(|e| Status::failed_precondition(e.to_string()))?;
        if proven != identity {
            return Err(Status::failed_precondition(format!("the token proves {proven}, not {identity}")));
        }
        if !self.limit.allows(&identity, now()) {
            return Err(exhausted());
        }
        let leaf = self.authority.ca().sign_asked(asked, SystemTime::now()).map_err(refused)?;
        tracing::info!(%identity, pod = holder.pod, "certificate issued");
        self.holders.issued(&holder, &identity, leaf.not_after);
        Ok(Certificate {
            leaf: leaf.certificate.into(),
            intermediates: leaf.intermediates.into_iter().map(Into::into).collect(),
            valid_until: leaf.not_after,
        })
    }
}

/// By the clock that a test may hold.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl identity::Identity for Identities {
    async fn certify(&self, request: Request<CertifyRequest>) -> Result<Certificate, Status> {
        let request = request.into_inner();
        let identity = request.identity.clone();
        let answer = self.answer(request).await;
        let outcome = match &answer {
            Ok(_) => "issued".to_owned(),
            Err(status) => {
                tracing::warn!(%identity, code = ?status.code(), reason = status.message(), "certificate refused");
                format!("{:?}", status.code())
            }
        };
        self.outcomes.with(Shard::ADMIN, &Labels::new().with("outcome", outcome)).inc();
        answer
    }
}
