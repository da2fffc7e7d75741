//! What is spoken on a port that clients address, and which kinds of routes they may follow there (control plane 6.5).

use super::facts::{Map, ServiceFacts, ServicePort, of_mesh};
use crate::{
    Kind,
    annotation::PortList,
    workload::{inherit, opaque_ports},
};
use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::ObjectMeta};

/// What is spoken on a port of a Service or of an EgressNetwork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Detect,
    Http1,
    Http2,
    Opaque,
}

impl Wire {
    /// `appProtocol` before the annotation, and `usual` ports are opaque where neither says anything. `said` are the annotations of
    /// the object with those that it inherits.
    pub(super) fn of(number: u16, declared: Option<&ServicePort>, said: &Map, usual: &[u16]) -> Self {
        match declared.and_then(|port| port.app_protocol.as_deref()) {
            Some("http") => Self::Http1,
            Some("kubernetes.io/h2c") => Self::Http2,
            // Also what nobody knows: to detect it could only go wrong.
            Some(_) => Self::Opaque,
            None => {
                let opaque = opaque_ports(said).unwrap_or_else(|| PortList::numbers(usual.iter().copied()));
                let name = declared.and_then(|port| port.name.as_deref());
                if opaque.contains(number, name) { Self::Opaque } else { Self::Detect }
            }
        }
    }

    /// Whether routes of a kind may be followed.
    pub(crate) fn takes(self, kind: Kind) -> bool {
        match self {
            Self::Detect => true,
            Self::Http1 => matches!(kind, Kind::MeshHttpRoute | Kind::HttpRoute),
            Self::Http2 => matches!(kind, Kind::GrpcRoute | Kind::MeshHttpRoute | Kind::HttpRoute),
            Self::Opaque => kind == Kind::TcpRoute,
        }
    }

    /// Whether routes of several kinds may be, of which the first is.
    pub(crate) fn takes_several(self) -> bool {
        matches!(self, Self::Detect | Self::Http2)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "what is detected",
            Self::Http1 => "HTTP/1",
            Self::Http2 => "HTTP/2",
            Self::Opaque => "opaque",
        }
    }
}

/// What a Service or an EgressNetwork says of its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    /// `None` has every port.
    declared: Option<Vec<ServicePort>>,
    /// Those of the mesh.
    annotations: Map,
}

impl Ports {
    pub(crate) fn of_service(service: &Service) -> Self {
        let ServiceFacts { ports, annotations, .. } = service.into();
        Self { declared: Some(ports), annotations }
    }

    pub(crate) fn of_egress(metadata: &ObjectMeta) -> Self {
        Self { declared: None, annotations: of_mesh(metadata) }
    }

    /// Those that a reference with this port means, or with none, and what each speaks. `inherited` are annotations of the namespace.
    pub(crate) fn meant(&self, port: Option<u16>, inherited: &Map, usual: &[u16]) -> Vec<(u16, Wire)> {
        let Self { declared, annotations } = self;
        let said = inherit(annotations, inherited);
        match declared {
            Some(declared) => declared
                .iter()
                .filter(|declared| port.is_none_or(|port| port == declared.port))
                .map(|declared| (declared.port, Wire::of(declared.port, Some(declared), &said, usual)))
                .collect(),
            None => port.map(|port| (port, Wire::of(port, None, &said, usual))).into_iter().collect(),
        }
    }
}
