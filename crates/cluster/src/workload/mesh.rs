//! What the mesh's annotations ask for a pod, its own before its namespace's.

use crate::{
    annotation::{PortList, PortRanges, REQUIRE_IDENTITY_PORTS, read},
    inject,
};
use std::{collections::BTreeMap, str::FromStr};
use weft_model::{
    names::{self, annotation},
    policy::inbound::DefaultPolicy,
};

/// What the mesh does with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// Whether it gets a proxy.
    pub injected: bool,
    pub opaque_ports: PortList,
    pub skip_inbound: PortRanges,
    pub skip_outbound: PortRanges,
    /// Ports whose clients must prove an identity.
    pub require_identity: PortRanges,
    /// `None` is the control plane's default.
    pub default_policy: Option<DefaultPolicy>,
}

type Annotations = BTreeMap<String, String>;

/// Annotations that a pod inherits from its namespace, of those that the mesh on one machine acts on.
pub(crate) fn inherited() -> impl Iterator<Item = &'static str> {
    let rows = inject::TABLE.iter().filter(|row| row.local && row.inherited);
    std::iter::once(annotation::INJECT).chain(rows.map(|row| row.key))
}

/// The pod's annotations and those that it inherits.
pub(crate) fn inherit(pod: &Annotations, namespace: &Annotations) -> Annotations {
    let mut merged = pod.clone();
    for key in inherited() {
        if let (false, Some(value)) = (pod.contains_key(key), namespace.get(key)) {
            merged.insert(key.to_owned(), value.clone());
        }
    }
    merged
}

impl Mesh {
    /// Reads annotations that already hold what is inherited. What cannot be read counts as not given.
    pub fn from_annotations(annotations: &Annotations) -> Self {
        Self::with_opaque_default(annotations, names::DEFAULT_OPAQUE_PORTS)
    }

    /// The same, with other ports that are opaque unless an annotation says otherwise.
    pub(crate) fn with_opaque_default(annotations: &Annotations, opaque: &[u16]) -> Self {
        Self {
            injected: annotations.get(annotation::INJECT).is_none_or(|v| v != "disabled"),
            opaque_ports: opaque_ports(annotations).unwrap_or_else(|| PortList::numbers(opaque.iter().copied())),
            skip_inbound: said(annotations, annotation::SKIP_INBOUND_PORTS).unwrap_or_default(),
            skip_outbound: said(annotations, annotation::SKIP_OUTBOUND_PORTS).unwrap_or_default(),
            require_identity: said(annotations, REQUIRE_IDENTITY_PORTS).unwrap_or_default(),
            default_policy: said(annotations, annotation::DEFAULT_INBOUND_POLICY),
        }
    }
}

/// `None` if no annotation says it.
pub(crate) fn opaque_ports(annotations: &Annotations) -> Option<PortList> {
    said(annotations, annotation::OPAQUE_PORTS)
}

fn said<T: FromStr>(annotations: &Annotations, key: &str) -> Option<T> {
    read(annotations.get(key)?).ok()
}
