//! Where a rule sends its traffic, and how long it may take.

use super::{
    super::GROUP, BackendSpec, Beyond, Filters, Findings, MAX_BACKENDS, Origin, ParentOf, RuleTimeouts, TimeoutsSpec,
    filter, shown,
};
use crate::{Kind, object::DEFAULT_NAMESPACE};
use std::time::Duration;
use weft_model::{duration, policy::route::Filter};

const MAX_WEIGHT: u32 = 1_000_000;

/// A backend as it is named; whether there is such an object is not known here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BackendRef {
    pub(crate) of: BackendOf,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: Option<u16>,
    pub(crate) weight: u32,
    pub(crate) filters: Vec<Filter>,
    pub(crate) beyond: Beyond,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BackendOf {
    Service,
    EgressNetwork,
    /// Something that cannot be a backend: kind and group, as they are shown.
    Other(String),
}

/// What a backend is that can be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// By its port.
    Service(u16),
    EgressNetwork,
}

/// Why a backend is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unresolved {
    /// What it names can never be one.
    Kind(String),
    /// It is not there.
    Missing(String),
}

impl BackendRef {
    /// What it is to the clients of a parent. `is_there` knows the Services and EgressNetworks by namespace and name.
    pub(crate) fn resolve(
        &self,
        parent: ParentOf,
        is_there: impl Fn(ParentOf, &str, &str) -> bool,
    ) -> Result<Resolved, Unresolved> {
        let Self { of, namespace, name, port, weight: _, filters: _, beyond: _ } = self;
        let missing = |kind| Err(Unresolved::Missing(format!("there is no {kind} {namespace}/{name}")));
        match (of, port) {
            (BackendOf::Other(what), _) => Err(Unresolved::Kind(format!("{what} is no backend"))),
            (BackendOf::Service, None) => {
                Err(Unresolved::Kind(format!("the port of the Service {namespace}/{name} is not given")))
            }
            (BackendOf::Service, Some(port)) if is_there(ParentOf::Service, namespace, name) => {
                Ok(Resolved::Service(*port))
            }
            (BackendOf::Service, Some(_)) => missing("Service"),
            (BackendOf::EgressNetwork, _) if parent != ParentOf::EgressNetwork => {
                let why = "an EgressNetwork is a backend of routes of EgressNetworks alone";
                Err(Unresolved::Kind(why.to_owned()))
            }
            (BackendOf::EgressNetwork, _) if is_there(ParentOf::EgressNetwork, namespace, name) => {
                Ok(Resolved::EgressNetwork)
            }
            (BackendOf::EgressNetwork, _) => missing("EgressNetwork"),
        }
    }
}

/// The `backendRefs` of the rule at `at`.
pub(super) fn all(
    specs: Option<&[BackendSpec]>,
    at: &str,
    origin: Origin<'_>,
    found: &mut Findings,
) -> Vec<BackendRef> {
    let at = format!("{at}.backendRefs");
    if origin.only_servers && specs.is_some_and(|specs| !specs.is_empty()) {
        found.note(&at, "the proxy of a Server sends requests to its own application");
    }
    let mut backends = vec![];
    for (at, spec) in found.each(specs, &at, MAX_BACKENDS) {
        backends.push(spec.checked(&at, origin, found));
    }
    backends
}

impl BackendSpec {
    pub(super) fn checked(&self, at: &str, origin: Origin<'_>, found: &mut Findings) -> BackendRef {
        let Self { group, kind, namespace, name, port, weight, filters } = self;
        let (group, kind) = (group.as_deref().unwrap_or_default(), kind.as_deref().unwrap_or("Service"));
        let is_core = group.is_empty() || group.eq_ignore_ascii_case("core");
        let of = if is_core && kind.eq_ignore_ascii_case("Service") {
            BackendOf::Service
        } else if group.eq_ignore_ascii_case(GROUP) && kind.eq_ignore_ascii_case("EgressNetwork") {
            BackendOf::EgressNetwork
        } else {
            let other = if is_core { shown(kind) } else { format!("{} of {}", shown(kind), shown(group)) };
            found.note(format!("{at}.kind"), format!("{other} is no backend: what goes there fails"));
            BackendOf::Other(other)
        };
        let of_gateway_api = origin.kind != Kind::MeshHttpRoute;
        let of_connections = matches!(origin.kind, Kind::TlsRoute | Kind::TcpRoute);
        let weight = weight.unwrap_or(1);
        for (field, is_wrong, message, remedy) in [
            ("name", name.is_empty(), "the backend has no name", "give it"),
            ("port", *port == Some(0), "0 is no port", "use 1 to 65535"),
            (
                "port",
                of == BackendOf::Service && port.is_none() && of_gateway_api,
                "a Service is a backend by one of its ports",
                "give it",
            ),
            ("filters", of_connections && filters.is_some(), "nothing is done with connections", "remove them"),
            ("weight", weight > MAX_WEIGHT, "it is too much", "use 0 to 1000000"),
        ] {
            if is_wrong {
                found.mistake(format!("{at}.{field}"), message, remedy);
            }
        }
        let own = if origin.first_version { DEFAULT_NAMESPACE } else { origin.namespace };
        let Filters { known, beyond } = filter::all(filters.as_deref(), at, origin, found);
        BackendRef {
            of,
            namespace: namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| own.to_owned()),
            name: name.clone(),
            port: *port,
            weight,
            filters: known,
            beyond,
        }
    }
}

impl TimeoutsSpec {
    pub(super) fn checked(&self, at: &str, origin: Origin<'_>, found: &mut Findings) -> RuleTimeouts {
        let Self { request, backend_request } = self;
        let at = format!("{at}.timeouts");
        if origin.only_servers && (request.is_some() || backend_request.is_some()) {
            found.note(&at, "the proxy of a Server waits for its application as long as the client does");
        }
        let mut read = |field: &str, text: &Option<String>| -> Option<Duration> {
            let text = text.as_deref()?;
            let read = duration::parse_go(text);
            if read.is_none() {
                let message = format!("{} is no duration", shown(text));
                found.mistake(format!("{at}.{field}"), message, "use one such as 300ms, 10s or 1h30m");
            }
            read
        };
        let (request, backend_request) = (read("request", request), read("backendRequest", backend_request));
        if request.zip(backend_request).is_some_and(|(whole, part)| part > whole && !whole.is_zero()) {
            let message = "one attempt may take longer than the whole request";
            found.mistake(format!("{at}.backendRequest"), message, "use timeouts.request at most");
        }
        RuleTimeouts { request, backend_request }
    }
}
