//! The services, as views of the world.

use super::{
    told,
    world::{Call, Service, World},
};
use futures_util::stream;
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::watch;
use tonic::{Code, Request, Status};
use weft_model::{ClientPolicy, EndpointUpdate, Extensions, Profile, ServerPolicy};
use weft_wire::{
    Encoded, Outgoing,
    destination::{self, Destination, Lookup},
    extension::{self, PolicyExtensions},
    identity::{Certificate, CertifyRequest, Identity},
    inbound::{InboundPolicies, PortSpec},
    outbound::{OutboundPolicies, TrafficSpec},
    trust::{TrustBundle, TrustBundles},
    work::{Progress, WorkSpec, Works},
};

#[derive(Clone)]
pub(super) struct Services {
    pub(super) world: watch::Sender<World>,
}

/// Counts an open stream.
struct Open {
    world: watch::Sender<World>,
    service: Service,
}

/// One open stream: the world as it sees it, and what it has not sent yet.
struct Follower<T, N> {
    world: watch::Receiver<World>,
    service: Service,
    breaks: u64,
    next: N,
    queue: VecDeque<T>,
    ended: bool,
    _open: Open,
}

impl Services {
    /// Records the call; fails or stalls it if told to.
    async fn called(&self, call: Call) -> Result<(), Status> {
        let service = call.service();
        let mut failure = None;
        self.world.send_modify(|world| {
            world.calls.push(call);
            failure = world.failures.get_mut(&service).and_then(VecDeque::pop_front);
        });
        if let Some(code) = failure {
            return Err(told(code));
        }
        let mut world = self.world.subscribe();
        let answered = world.wait_for(|world| !world.stalled.contains(&service)).await;
        answered.map(drop).map_err(|_| Status::unavailable("the fake is gone"))
    }

    /// A stream of what `next` finds new in the world, until it is an error or the test breaks it.
    fn follow<T: Send + 'static>(
        &self,
        service: Service,
        next: impl FnMut(&World) -> Result<Vec<T>, Status> + Send + 'static,
    ) -> Outgoing<T> {
        self.world.send_modify(|world| *world.open.entry(service).or_insert(0) += 1);
        let follower = Follower {
            world: self.world.subscribe(),
            service,
            breaks: self.world.borrow().breaks_of(service),
            next,
            queue: VecDeque::new(),
            ended: false,
            _open: Open { world: self.world.clone(), service },
        };
        Box::pin(stream::unfold(follower, |mut follower| async move {
            let item = follower.item().await?;
            Some((item, follower))
        }))
    }

    /// A stream of one value, whenever it is another; without it the stream ends with NOT_FOUND.
    fn follow_value<T: Clone + PartialEq + Send + 'static>(
        &self,
        service: Service,
        value: impl Fn(&World) -> Option<&T> + Send + 'static,
    ) -> Result<Outgoing<T>, Status> {
        let missing = || Status::not_found("the test knows no such target");
        // A target that is missing from the start fails the call itself.
        if value(&self.world.borrow()).is_none() {
            return Err(missing());
        }
        let mut sent = None;
        Ok(self.follow(service, move |world| {
            let value = value(world).ok_or_else(missing)?;
            if sent.as_ref() == Some(value) {
                return Ok(vec![]);
            }
            sent = Some(value.clone());
            Ok(vec![value.clone()])
        }))
    }
}

impl<T, N: FnMut(&World) -> Result<Vec<T>, Status>> Follower<T, N> {
    async fn item(&mut self) -> Option<Result<T, Status>> {
        loop {
            if self.ended {
                return None;
            }
            if let Some(item) = self.queue.pop_front() {
                return Some(Ok(item));
            }
            let found = {
                let world = self.world.borrow_and_update();
                match world.breaks.get(&self.service) {
                    Some((count, code)) if *count > self.breaks => Err(told(*code)),
                    _ => (self.next)(&world),
                }
            };
            match found {
                Err(status) => {
                    self.ended = true;
                    return Some(Err(status));
                }
                Ok(items) if items.is_empty() => self.world.changed().await.ok()?,
                Ok(items) => self.queue.extend(items),
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.world.send_modify(|world| {
            if let Some(open) = world.open.get_mut(&self.service) {
                *open -= 1;
            }
        });
    }
}

impl Destination for Services {
    async fn get(&self, lookup: Request<Lookup>) -> Result<Outgoing<Encoded>, Status> {
        let lookup = lookup.into_inner();
        self.called(Call::Endpoints(lookup.clone())).await?;
        let mut sent = None;
        Ok(self.follow(Service::Endpoints, move |world| {
            let now = world.endpoints.get(&lookup.path);
            let steps = match (&sent, now) {
                (None | Some(Some(_)), None) => vec![EndpointUpdate::NoEndpoints { exists: false }],
                (Some(None), None) => vec![],
                (None, Some(set)) if set.is_empty() => vec![EndpointUpdate::NoEndpoints { exists: true }],
                (None | Some(None), Some(set)) => EndpointUpdate::between(&BTreeMap::new(), set),
                (Some(Some(before)), Some(set)) => EndpointUpdate::between(before, set),
            };
            sent = Some(now.cloned());
            steps.iter().map(destination::encode).collect()
        }))
    }

    async fn get_profile(&self, lookup: Request<Lookup>) -> Result<Outgoing<Profile>, Status> {
        let lookup = lookup.into_inner();
        self.called(Call::Profile(lookup.clone())).await?;
        self.follow_value(Service::Profile, move |world| world.profiles.get(&lookup.path))
    }
}

impl InboundPolicies for Services {
    async fn watch_port(&self, spec: Request<PortSpec>) -> Result<Outgoing<ServerPolicy>, Status> {
        let spec = spec.into_inner();
        self.called(Call::Inbound(spec.clone())).await?;
        self.follow_value(Service::Inbound, move |world| world.inbound.get(&spec.port))
    }
}

impl OutboundPolicies for Services {
    async fn watch(&self, spec: Request<TrafficSpec>) -> Result<Outgoing<ClientPolicy>, Status> {
        let spec = spec.into_inner();
        self.called(Call::Outbound(spec.clone())).await?;
        self.follow_value(Service::Outbound, move |world| world.outbound.get(&spec.target))
    }
}

impl PolicyExtensions for Services {
    async fn watch(&self, spec: Request<TrafficSpec>) -> Result<Outgoing<Extensions>, Status> {
        let spec = spec.into_inner();
        self.called(Call::Extensions(spec.clone())).await?;
        if !self.world.borrow().extends {
            return Err(Status::unimplemented("there is no such service"));
        }
        let mut sent = None;
        Ok(self.follow(Service::Extensions, move |world| {
            let policy = world.outbound.get(&spec.target).ok_or_else(|| told(Code::NotFound))?;
            let now = extension::of(policy);
            let new = sent.as_ref() != Some(&now);
            sent = Some(now.clone());
            Ok(new.then_some(now).into_iter().collect())
        }))
    }
}

impl Identity for Services {
    async fn certify(&self, request: Request<CertifyRequest>) -> Result<Certificate, Status> {
        let CertifyRequest { identity, token, csr } = request.into_inner();
        self.called(Call::Certify { identity, token: token.to_vec() }).await?;
        let (wanted, lifetime, ca) = {
            let world = self.world.borrow();
            (world.token.clone(), world.lifetime, world.ca.clone())
        };
        if wanted.is_some_and(|wanted| wanted != token) {
            return Err(Status::failed_precondition("the token is another"));
        }
        ca.certify(&csr, lifetime).map_err(|e| Status::new(Code::InvalidArgument, format!("{e:#}")))
    }
}

impl TrustBundles for Services {
    async fn watch(&self, _: Request<()>) -> Result<Outgoing<TrustBundle>, Status> {
        self.called(Call::Trust).await?;
        if self.world.borrow().anchors.is_none() {
            return Err(Status::unimplemented("the test has no such service"));
        }
        let mut sent = None;
        Ok(self.follow(Service::Trust, move |world| {
            if sent == world.anchors {
                return Ok(vec![]);
            }
            sent = world.anchors.clone();
            let bundle = |pem: String| TrustBundle { version: format!("{} bytes", pem.len()), pem };
            Ok(sent.clone().map(bundle).into_iter().collect())
        }))
    }
}

impl Works for Services {
    async fn watch(&self, spec: Request<WorkSpec>) -> Result<Outgoing<Progress>, Status> {
        self.called(Call::Work(spec.into_inner())).await?;
        if self.world.borrow().done.is_none() {
            return Err(Status::unimplemented("the test has no such service"));
        }
        let mut sent = None;
        Ok(self.follow(Service::Work, move |world| {
            let news = world.done.filter(|done| sent != Some(*done));
            sent = news.or(sent);
            Ok(news.map(|done| Progress { done }).into_iter().collect())
        }))
    }
}
