//! What an installation puts into a cluster: from values to objects, in the order in which they are applied.
//!
//! ```text
//! Values + Material ─► crds | control_plane ─► objects ─► text (weft install) | charts
//! ```
//!
//! Names, ports, labels and ServiceAccounts are Linkerd's. Certificates are made elsewhere and passed in; nothing here knows
//! the time, so that the same values give the same objects. Before, a cluster is asked whether it is [`ready`](ready_for_crds), or what an
//! earlier installation has [`stored`]; after, what is [`left`] of that, and in the end what [`remains`].

mod access;
mod component;
mod config;
pub(crate) mod crd;
mod helm;
mod meta;
mod monitor;
mod namespace;
mod pod;
mod policy;
mod prune;
mod ready;
mod remains;
mod running;
mod service;
mod stored;
mod trust;
mod unheeded;
mod webhook;

pub use config::{CONFIG, ISSUER, values_of_cluster};
pub use helm::{OfHelm, Release, helm_release, quoted};
use meta::Meta;
pub use prune::{Left, left};
pub use ready::{
    NotReady, api_server_ports, defined, gateway_api, heeded, keep_gateway_api, monitored, not_installed,
    ready_for_control_plane, ready_for_crds, root_where_it_has_to_be, rooted, unclaimed,
};
pub use remains::{Remains, remains, users};
pub use running::{Running, running};
pub use stored::{
    Author, NotStored, OfProxies, Replaced, Source, Stored, anchors_written, objects, of_proxies, stored, told,
    trust_domain,
};
pub use trust::{Trusting, proxy_versions, trusting};
pub use unheeded::unheeded;
pub use webhook::Webhook;

use crate::{values::Values, yaml};
use jiff::Timestamp;
use serde_json::Value;

/// The ServiceAccounts of the three Deployments, which bear the same names.
pub(crate) const DESTINATION: &str = weft_model::names::service_account::DESTINATION;
pub(crate) const IDENTITY: &str = weft_model::names::service_account::IDENTITY;
pub(crate) const PROXY_INJECTOR: &str = "linkerd-proxy-injector";

/// What is made for one installation, and kept by later ones. What values give beats it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Material {
    /// PEM; not rendered if `identity.externalCA` says that somebody else brings it.
    pub anchors_pem: String,
    /// SHA-256 of the text of the anchors that hold, in lower-case hexadecimal digits.
    pub anchors_sha256: String,
    /// Not rendered if the scheme of the issuer says that somebody else brings it.
    pub issuer: Pair,
    /// Since when it signs, where it has replaced another one.
    pub issuer_since: Option<Timestamp>,
    /// The webhooks', each for the name of its Service; not rendered with `externalSecret`.
    pub proxy_injector: Pair,
    /// The certificate that the injector presents until it has read the new one, if that is another: the API server trusts both.
    pub proxy_injector_before: String,
    pub profile_validator: Pair,
    pub profile_validator_before: String,
    pub policy_validator: Pair,
    pub policy_validator_before: String,
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Who installs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// `weft install`: with the Namespace, and the values that differ from the defaults, for `weft upgrade`.
    Cli,
    Helm,
}

/// One installation.
#[derive(Clone, Copy, Debug)]
pub struct Installation<'a> {
    pub values: &'a Values,
    /// The control plane's namespace.
    pub namespace: &'a str,
    pub by: By,
    pub material: &'a Material,
    /// YAML of the values that were given, for the Secret of [`By::Cli`].
    pub overrides: &'a str,
}

/// The mesh's own kinds, and those of the Gateway API that are asked for.
pub fn crds(values: &Values, namespace: &str, by: By) -> Vec<Value> {
    crd::all(&Meta { values, namespace, by })
}

/// Everything else.
pub fn control_plane(installation: Installation<'_>) -> Vec<Value> {
    let Installation { values, namespace, by, .. } = installation;
    let meta = Meta { values, namespace, by };
    let mut objects = vec![];
    if by == By::Cli {
        objects.push(namespace::namespace(&meta));
    }
    objects.extend(access::all(&meta));
    objects.extend(config::all(&installation, &meta));
    objects.extend(webhook::all(&installation, &meta));
    objects.extend(service::all(&meta));
    objects.extend(policy::all(&meta));
    objects.extend(component::all(&installation, &meta));
    objects.extend(monitor::all(&meta));
    objects
}

/// A text for `kubectl apply -f -`.
pub fn text(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{}", yaml::text(object))).collect()
}
