//! What callers say: who they are, and what they ask for, from text to types.

use crate::{hub::Asker, serve::Caller};
use std::net::{IpAddr, SocketAddr};
use tonic::{Request, Status};
use weft_cluster::index::{Target, WorkloadKind};
use weft_model::NameAddr;
use weft_transport::tls::Peer;

/// The port of a path that names none.
const DEFAULT_PORT: u16 = 80;
/// Bytes of a path or a workload: names are shorter.
const MAX_TEXT_BYTES: usize = 4096;

/// What the proxy in front tells of a client that has proved who it is.
const CLIENT_ID: &str = "l5d-client-id";

/// Who asks, if the caller proved to be of the mesh, here or to the proxy in front.
///
/// A proxy that connected before it had a certificate would go on without one for as long as the connection lives: it is
/// told to connect again.
pub(super) fn require_identity<T>(request: &Request<T>) -> Result<Asker, Status> {
    let told = || request.metadata().get(CLIENT_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    match request.extensions().get::<Caller>() {
        Some(Caller { peer: None, connection, farewell: _ }) => {
            return Ok(Asker { identity: told(), connection: connection.clone() });
        }
        Some(Caller { peer: Some(Peer { identity: Some(identity), .. }), connection, farewell: _ }) => {
            return Ok(Asker { identity: Some(identity.to_string()), connection: connection.clone() });
        }
        Some(Caller { farewell, .. }) => farewell.cancel(),
        None => {}
    }
    Err(Status::unauthenticated("this service wants a certificate of the mesh, and none was presented"))
}

/// `name`, `name:port`, `ip`, `ip:port`, `[ip]:port`.
pub(crate) fn target(path: &str) -> Result<Target, Status> {
    if path.len() > MAX_TEXT_BYTES {
        return Err(Status::invalid_argument("the path is too long"));
    }
    if let Ok(addr) = path.parse::<SocketAddr>() {
        return Ok(Target::Addr(addr));
    }
    if let Ok(ip) = path.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(Target::Addr(SocketAddr::new(ip, DEFAULT_PORT)));
    }
    let invalid = |e: &dyn std::fmt::Display| Status::invalid_argument(format!("path {path:?}: {e}"));
    if path.contains(':') {
        return path.parse().map(Target::Name).map_err(|e| invalid(&e));
    }
    let name = path.parse().map_err(|e| invalid(&e))?;
    Ok(Target::Name(NameAddr { name, port: DEFAULT_PORT }))
}

/// Whose proxy asks, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) namespace: String,
    pub(super) of: WorkloadKind,
    pub(super) name: String,
}

impl Workload {
    /// Of `{"ns":…,"pod":…}`, `{"ns":…,"external_workload":…}` or `ns:pod`.
    pub(super) fn read(text: &str) -> Result<Self, Status> {
        #[derive(serde::Deserialize)]
        struct Said {
            ns: String,
            pod: Option<String>,
            external_workload: Option<String>,
        }
        let invalid = || {
            let message = r#"the workload is neither {"ns":…,"pod":…} nor {"ns":…,"external_workload":…} nor ns:pod"#;
            Status::invalid_argument(message)
        };
        if text.len() > MAX_TEXT_BYTES {
            return Err(invalid());
        }
        let (namespace, of, name) = if text.trim_start().starts_with('{') {
            let Said { ns, pod, external_workload } = serde_json::from_str(text).map_err(|_| invalid())?;
            match (pod, external_workload) {
                (Some(pod), None) => (ns, WorkloadKind::Pod, pod),
                (None, Some(external)) => (ns, WorkloadKind::ExternalWorkload, external),
                // Both have policies of their own: which it has is not to be guessed.
                (Some(_), Some(_)) | (None, None) => return Err(invalid()),
            }
        } else {
            let (namespace, pod) = text.split_once(':').ok_or_else(invalid)?;
            (namespace.to_owned(), WorkloadKind::Pod, pod.to_owned())
        };
        if namespace.is_empty() || name.is_empty() { Err(invalid()) } else { Ok(Self { namespace, of, name }) }
    }
}

/// Of a pod, as it says itself.
pub(super) fn uid(text: String) -> Result<String, Status> {
    match text.len() {
        1..=MAX_TEXT_BYTES => Ok(text),
        _ => Err(Status::invalid_argument("the uid is empty or too long")),
    }
}

/// What a client says of where it is; empty what it does not say, which is no fault.
#[derive(Default, serde::Deserialize)]
struct Context {
    #[serde(default)]
    ns: String,
    #[serde(rename = "nodeName", default)]
    node_name: String,
}

impl Context {
    /// Of `{"ns":…,"nodeName":…,"pod":…}`.
    fn of(text: &str) -> Self {
        if text.len() > MAX_TEXT_BYTES {
            return Self::default();
        }
        serde_json::from_str(text).unwrap_or_default()
    }
}

pub(super) fn node(context: &str) -> String {
    Context::of(context).node_name
}

/// Some say it as `ns:…`.
pub(super) fn namespace(context: &str) -> String {
    match context.strip_prefix("ns:") {
        Some(namespace) if context.len() <= MAX_TEXT_BYTES => namespace.to_owned(),
        _ => Context::of(context).ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        for (path, expected) in [
            ("10.0.0.1:80", "Addr(10.0.0.1:80)"),
            ("10.0.0.1", "Addr(10.0.0.1:80)"),
            ("[fd00::1]:443", "Addr([fd00::1]:443)"),
            ("web.ns.svc.cluster.local", "Name(web.ns.svc.cluster.local:80)"),
            ("web.ns.svc.cluster.local.:8080", "Name(web.ns.svc.cluster.local:8080)"),
        ] {
            assert_eq!(format!("{:?}", target(path).unwrap()), expected);
        }
        for bad in ["", ":", "a b", "web:99999", "web:0", &"a".repeat(5000)] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nodes_are_read() {
        assert_eq!(node(r#"{"ns":"ns","nodeName":"n1","pod":"p"}"#), "n1");
        for none in ["", "ns:ns", "{}", r#"{"nodeName":7}"#] {
            assert_eq!(node(none), "");
        }
        for (context, expected) in
            [(r#"{"ns":"ns"}"#, "ns"), ("ns:ns", "ns"), ("", ""), ("{}", ""), (r#"{"ns":7}"#, "")]
        {
            assert_eq!(namespace(context), expected, "{context}");
        }
    }

    #[test]
    fn workloads_are_read() {
        let expected = |of| Workload { namespace: "ns".to_owned(), of, name: "it".to_owned() };
        assert_eq!(Workload::read(r#"{"ns":"ns","pod":"it","more":1}"#).unwrap(), expected(WorkloadKind::Pod));
        assert_eq!(Workload::read("ns:it").unwrap(), expected(WorkloadKind::Pod));
        let external = r#"{"ns":"ns","external_workload":"it"}"#;
        assert_eq!(Workload::read(external).unwrap(), expected(WorkloadKind::ExternalWorkload));
        let both = r#"{"ns":"ns","pod":"it","external_workload":"it"}"#;
        for bad in ["", "ns", ":pod", "{}", r#"{"ns":"","pod":"x"}"#, r#"{"ns":"ns","external_workload":""}"#, both] {
            assert!(Workload::read(bad).is_err(), "{bad}");
        }
    }
}
