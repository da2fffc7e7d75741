//! Holds a lease: looks, and writes what `decide::lease` says.

use super::{Client, client};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        coordination::v1::{Lease as Record, LeaseSpec},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
    jiff::Timestamp,
};
use kube::{Api, Resource, api::PostParams};
use std::{
    future::Future,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_model::decide::lease::{self, DURATION, Seen, Step};

/// Of one request; a renewal that fails is tried again before the lease is lost.
const ANSWER: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_secs(2);

/// Which lease, and for whom.
#[derive(Clone, Debug)]
pub struct Lease {
    pub namespace: String,
    pub name: String,
    /// The pod's name.
    pub me: String,
    /// The Deployment that the lease goes with: whoever takes that away does not know of leases.
    pub of: String,
}

/// Says in `holds` whether this process may act, until `stop`; then the lease is given back.
pub async fn hold(client: Client, lease: Lease, holds: watch::Sender<bool>, stop: CancellationToken) {
    let deployments = Api::namespaced(client.clone(), &lease.namespace);
    let api = Api::namespaced(client, &lease.namespace);
    let mut holder = Holder { api, deployments, lease, start: Instant::now(), view: None, told: false };
    loop {
        let wait = holder.step().await;
        let may = holder.may();
        holds.send_if_modified(|held| std::mem::replace(held, may) != may);
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            break;
        }
    }
    holds.send_replace(false);
    holder.give_back().await;
}

struct Holder {
    api: Api<Record>,
    deployments: Api<Deployment>,
    lease: Lease,
    start: Instant,
    /// The record as it was seen last, and what that means.
    view: Option<(Record, Seen)>,
    /// A failure was told.
    told: bool,
}

impl Holder {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn may(&self) -> bool {
        lease::holds(self.seen(), &self.lease.me, self.now())
    }

    fn seen(&self) -> Option<&Seen> {
        self.view.as_ref().map(|(_, seen)| seen)
    }

    /// Looks and writes, and says how long to wait.
    async fn step(&mut self) -> Duration {
        if let Err(reason) = self.look().await {
            return self.failed(&reason);
        }
        match lease::decide(self.seen(), &self.lease.me, self.now()) {
            Step::Wait(wait) => wait,
            Step::Acquire | Step::Renew => match self.write(&self.lease.me.clone()).await {
                Ok(()) => match lease::decide(self.seen(), &self.lease.me, self.now()) {
                    Step::Wait(wait) => wait,
                    Step::Acquire | Step::Renew => RETRY,
                },
                Err(reason) => self.failed(&reason),
            },
        }
    }

    fn failed(&mut self, reason: &str) -> Duration {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(lease = self.lease.name, reason, "lease not reached");
        }
        RETRY
    }

    async fn look(&mut self) -> Result<(), String> {
        let found = answered(self.api.get_opt(&self.lease.name)).await?;
        self.told = false;
        let now = self.now();
        self.take(found, now);
        Ok(())
    }

    /// A record counts from the moment at which it was first seen as it is.
    fn take(&mut self, found: Option<Record>, now: Duration) {
        let Some(record) = found else {
            self.view = None;
            return;
        };
        let same = self.view.as_ref().is_some_and(|(old, _)| version(old) == version(&record));
        if !same {
            let spec = record.spec.clone().unwrap_or_default();
            let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
            let duration = seconds.filter(|s| *s > 0).map_or(DURATION, Duration::from_secs);
            let seen = Seen { holder: spec.holder_identity.unwrap_or_default(), duration, since: now };
            self.view = Some((record, seen));
        }
    }

    /// Writes the record as it was seen, held by `holder`; who else wrote it first wins.
    async fn write(&mut self, holder: &str) -> Result<(), String> {
        // Before it is sent: others may see it from then on.
        let now = self.now();
        let old = self.view.as_ref().map(|(record, _)| record.clone());
        let before = old.as_ref().and_then(|r| r.spec.clone()).unwrap_or_default();
        let same = before.holder_identity.as_deref() == Some(holder);
        let time = Some(MicroTime(Timestamp::now()));
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if same { before.acquire_time } else { time.clone() },
            renew_time: time,
            lease_transitions: Some(before.lease_transitions.unwrap_or(0).saturating_add(i32::from(!same))),
            ..LeaseSpec::default()
        };
        let params = PostParams::default();
        let is_there = old.is_some();
        let new = || ObjectMeta { name: Some(self.lease.name.clone()), ..ObjectMeta::default() };
        let mut metadata = old.map_or_else(new, |old| old.metadata);
        if !same && metadata.owner_references.as_ref().is_none_or(Vec::is_empty) {
            metadata.owner_references = self.owner().await.map(|owner| vec![owner]);
        }
        let record = Record { metadata, spec: Some(spec) };
        let written = match is_there {
            true => answered(self.api.replace(&self.lease.name, &params, &record)).await,
            false => answered(self.api.create(&params, &record)).await,
        };
        self.take(Some(written?), now);
        Ok(())
    }

    /// The Deployment that it goes with. A lease without one is as good while it is held.
    async fn owner(&self) -> Option<OwnerReference> {
        match answered(self.deployments.get(&self.lease.of)).await {
            Ok(deployment) => deployment.owner_ref(&()),
            Err(reason) => {
                tracing::debug!(lease = self.lease.name, reason, "lease without an owner");
                None
            }
        }
    }

    /// So that another need not wait for it to grow stale.
    async fn give_back(&mut self) {
        if self.may()
            && let Err(reason) = self.write("").await
        {
            tracing::debug!(lease = self.lease.name, reason, "lease not given back");
        }
    }
}

fn version(record: &Record) -> Option<&String> {
    record.metadata.resource_version.as_ref()
}

async fn answered<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match tokio::time::timeout(ANSWER, request).await {
        Ok(answer) => answer.map_err(|e| client::reason(&e)),
        Err(_) => Err(format!("no answer within {ANSWER:?}")),
    }
}
