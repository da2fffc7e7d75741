//! What the fake was told, and what it saw.

use crate::ca::Ca;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};
use tonic::Code;
use weft_model::{ClientPolicy, Endpoint, Identity, Profile, ServerPolicy};
use weft_wire::{
    destination::Lookup,
    inbound::PortSpec,
    outbound::{Target, TrafficSpec},
    work::WorkSpec,
};

/// One method of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Destination/Get.
    Endpoints,
    /// Destination/GetProfile.
    Profile,
    Inbound,
    Outbound,
    Certify,
    Trust,
    Work,
    Extensions,
}

/// What somebody asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Endpoints(Lookup),
    Profile(Lookup),
    Inbound(PortSpec),
    Outbound(TrafficSpec),
    Certify { identity: Identity, token: Vec<u8> },
    Trust,
    Work(WorkSpec),
    Extensions(TrafficSpec),
}

pub(super) struct World {
    pub(super) endpoints: BTreeMap<String, BTreeMap<SocketAddr, Endpoint>>,
    pub(super) profiles: BTreeMap<String, Profile>,
    pub(super) inbound: BTreeMap<u16, ServerPolicy>,
    pub(super) outbound: HashMap<Target, ClientPolicy>,
    pub(super) anchors: Option<String>,
    /// Whether the work of every pod is done; `None` is a control plane that does not say.
    pub(super) done: Option<bool>,
    /// Whether it tells what belongs to policies.
    pub(super) extends: bool,
    pub(super) ca: Ca,
    pub(super) lifetime: Duration,
    pub(super) token: Option<Vec<u8>>,
    pub(super) failures: BTreeMap<Service, VecDeque<Code>>,
    pub(super) stalled: BTreeSet<Service>,
    /// How often the streams of a service were broken, and how the last time.
    pub(super) breaks: BTreeMap<Service, (u64, Code)>,
    pub(super) calls: Vec<Call>,
    pub(super) open: BTreeMap<Service, usize>,
}

impl World {
    pub(super) fn new(ca: Ca) -> Self {
        Self {
            endpoints: BTreeMap::new(),
            profiles: BTreeMap::new(),
            inbound: BTreeMap::new(),
            outbound: HashMap::new(),
            anchors: Some(ca.anchors_pem().to_owned()),
            done: Some(false),
            extends: true,
            ca,
            lifetime: Duration::from_secs(24 * 60 * 60),
            token: None,
            failures: BTreeMap::new(),
            stalled: BTreeSet::new(),
            breaks: BTreeMap::new(),
            calls: vec![],
            open: BTreeMap::new(),
        }
    }

    pub(super) fn breaks_of(&self, service: Service) -> u64 {
        self.breaks.get(&service).map_or(0, |(count, _)| *count)
    }
}

impl Call {
    pub fn service(&self) -> Service {
        match self {
            Self::Endpoints(_) => Service::Endpoints,
            Self::Profile(_) => Service::Profile,
            Self::Inbound(_) => Service::Inbound,
            Self::Outbound(_) => Service::Outbound,
            Self::Certify { .. } => Service::Certify,
            Self::Trust => Service::Trust,
            Self::Work(_) => Service::Work,
            Self::Extensions(_) => Service::Extensions,
        }
    }
}
