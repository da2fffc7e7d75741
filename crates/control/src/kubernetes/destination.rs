//! `weft control-plane destination`: what is behind a name, how a port is served, how traffic behaves.

use super::{Common, Running, missed::Missed, slices, statuses};
use crate::{
    Error,
    hub::Hub,
    process::Process,
    serve::{Front, Listener},
    services,
    webhook::{Certificate, Verdict, Webhook},
};
use parking_lot::Mutex;
use serde_json::Value;
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::sync::watch;
use weft_cluster::{
    Event, Kind,
    index::{DefaultPolicyName, Platform, Settings},
    kubernetes,
    policy::{self, Review},
    service_profile,
};
use weft_model::{ProtocolHint, decide::cidr::Cidr, names, policy::inbound::DefaultPolicy};

/// What the answers depend on, and namespaces, which say who was to get a proxy.
pub fn watched() -> Vec<Kind> {
    let mut watched = vec![Kind::Pod, Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::Namespace];
    watched.extend(policy::KINDS);
    watched
}

#[derive(Clone, Debug)]
pub struct Destination {
    pub destination: SocketAddr,
    pub policy: SocketAddr,
    pub default_policy: DefaultPolicy,
    pub opaque_ports: Vec<u16>,
    pub cluster_networks: Vec<Cidr>,
    pub probe_networks: Vec<Cidr>,
    /// HTTP/1 is carried on HTTP/2 between proxies.
    pub h2_upgrade: bool,
    pub ipv6: bool,
    /// Endpoints in a client's own zone have ten times the weight of others.
    pub zone_weights: bool,
    /// Applications ask for retries and timeouts by headers of their requests.
    pub request_headers: bool,
    pub profile_validator: Option<Validator>,
    pub policy_validator: Option<Validator>,
}

/// A webhook that only says yes or no.
#[derive(Clone, Debug)]
pub struct Validator {
    pub addr: SocketAddr,
    /// The folder with tls.crt and tls.key.
    pub tls: PathBuf,
}

pub(super) async fn start(common: Common, options: Destination) -> Result<Running, Error> {
    let client = kubernetes::connect(common.kubeconfig.as_deref()).await?;
    let mut process = Process::new();
    let (registry, stop) = (process.registry.clone(), process.stop.clone());
    let settings = settings(&common, &options);
    let hub = Arc::new(Hub::new(settings.clone(), &registry, stop.clone()));
    process.spawn(hub.clone().watch_readers());

    let (is_synced, synced) = watch::channel(false);
    let mut held = |name: &str| {
        let (is_holder, holds) = watch::channel(false);
        let lease = kubernetes::Lease {
            namespace: common.control_namespace.clone(),
            name: name.to_owned(),
            me: common.instance.clone(),
            of: names::service_account::DESTINATION.to_owned(),
        };
        process.spawn(kubernetes::hold(client.clone(), lease, is_holder, stop.clone()));
        holds
    };
    let (may_say, may_lead) = (held(statuses::LEASE), held(slices::LEASE));
    let (statuses, slices) = (statuses::plan(settings, &registry), slices::plan(&registry));
    let (says, leads) =
        (statuses::Writer::new(statuses.clone(), client.clone()), slices::Writer::new(slices.clone(), client.clone()));
    process.spawn(statuses.clone().write_while_held(says, may_say, synced.clone(), stop.clone()));
    process.spawn(slices.clone().write_while_held(leads, may_lead, synced, stop.clone()));

    let unsynced = Mutex::new(Some(process.readiness.task("watches")));
    let sink: kubernetes::Sink = Arc::new({
        let (hub, missed) = (hub.clone(), Missed::new(&common.control_namespace, &registry));
        move |events| {
            missed.see(&events);
            statuses.see(&events);
            slices.see(&events);
            let synced = events.last() == Some(&Event::Synced);
            hub.apply(events);
            if synced {
                drop(unsynced.lock().take());
                is_synced.send_replace(true);
            }
        }
    });
    process.spawn({
        let (registry, stop) = (registry.clone(), stop.clone());
        async move { kubernetes::watch(client, &watched(), &registry, sink, stop).await }
    });

    let (destination, destination_addr) = Process::bind("destination", options.destination)?;
    let (policy, policy_addr) = Process::bind("policy", options.policy)?;
    let admin = process.admin(common.admin)?;
    for (name, socket, routes) in
        [("destination", destination, services::destination(&hub)), ("policy", policy, services::policy(&hub))]
    {
        process.spawn(Listener::new(name, socket, Front::Proxy, routes, &registry).serve(stop.clone()));
    }
    let mut addresses = vec![("destination", destination_addr), ("policy", policy_addr), ("admin", admin)];
    addresses.extend(validator(&mut process, "profile-validator", options.profile_validator, profiles)?);
    addresses.extend(validator(&mut process, "policy-validator", options.policy_validator, policy::review)?);
    Ok(Running { addresses, process })
}

/// Serves a validator, if it is wanted.
fn validator(
    process: &mut Process,
    name: &'static str,
    options: Option<Validator>,
    review: fn(&Value) -> Review,
) -> Result<Option<(&'static str, SocketAddr)>, Error> {
    let Some(Validator { addr, tls }) = options else { return Ok(None) };
    let (socket, addr) = Process::bind(name, addr)?;
    let decide = move |request: Value| async move { Ok(verdict(&review(&request))) };
    let webhook = Webhook::new(name, socket, Certificate::in_folder(&tls), decide, &process.registry)?;
    process.spawn(webhook.serve(process.stop.clone()));
    process.drain = super::REVIEW;
    Ok(Some((name, addr)))
}

fn verdict(review: &Review) -> Verdict {
    let refused = (!review.mistakes.is_empty()).then(|| (400, policy::told(&review.mistakes)));
    Verdict { refused, patch: vec![], warnings: review.warnings.clone() }
}

fn profiles(request: &Value) -> Review {
    Review { mistakes: service_profile::mistakes(&request["object"]), warnings: vec![] }
}

fn settings(common: &Common, options: &Destination) -> Settings {
    let options = options.clone();
    Settings {
        control_namespace: common.control_namespace.clone(),
        trust_domain: common.trust_domain.clone(),
        cluster_domain: common.cluster_domain.clone(),
        cluster_networks: options.cluster_networks,
        // An installation that asks for another one is refused.
        egress_namespace: names::EGRESS_NAMESPACE.to_owned(),
        probe_networks: options.probe_networks,
        scrape_networks: vec![],
        default_policy: DefaultPolicyName(options.default_policy),
        opaque_ports: options.opaque_ports,
        platform: Platform::Kubernetes,
        ipv6: options.ipv6,
        zone_weights: options.zone_weights,
        request_headers: options.request_headers,
        hint: if options.h2_upgrade { ProtocolHint::H2 } else { ProtocolHint::Unknown },
    }
}
