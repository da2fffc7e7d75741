//! What an ExternalWorkload says: what its proxy proves, its ports and its addresses.

use crate::{
    annotation::{PortList, PortRanges, REQUIRE_IDENTITY_PORTS, is_port_name, read},
    policy::{ExternalWorkload, Mistake},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::HashSet, net::IpAddr, str::FromStr};
use weft_model::{DnsName, Identity, endpoint::ServerTls, names::annotation, policy::inbound::DefaultPolicy};

/// Addresses of one workload, as its definition has it.
const MAX_IPS: usize = 2;
/// Ports of one workload: each is looked through for each port of each Service that selects it.
const MAX_PORTS: usize = 100;
/// Bytes of an identity or a server name, as its definition has it.
const MAX_NAME_BYTES: usize = 253;
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalWorkloadSpec {
    /// `v1alpha1` has another name for it.
    #[serde(rename = "meshTLS", alias = "meshTls")]
    pub mesh_tls: WorkloadTlsSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<WorkloadPortSpec>>,
    #[serde(rename = "workloadIPs", default, skip_serializing_if = "Option::is_none")]
    pub workload_ips: Option<Vec<WorkloadIpSpec>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadTlsSpec {
    pub identity: String,
    pub server_name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadPortSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub port: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadIpSpec {
    pub ip: String,
}

/// An ExternalWorkload that can be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct External {
    /// What its proxy proves.
    pub(crate) tls: ServerTls,
    pub(crate) ports: Vec<Declared>,
    pub(crate) ips: Vec<IpAddr>,
}

/// A port that it declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) name: Option<String>,
    pub(crate) number: u16,
    pub(crate) protocol: &'static str,
}

/// What its fields and its annotations say: the latter, as those of a pod, must not leave it open by a mistake.
pub(crate) fn checked(workload: &ExternalWorkload) -> Result<External, Vec<Mistake>> {
    let opening: Vec<Mistake> = opening(&workload.metadata).collect();
    match workload.spec.checked() {
        Ok(external) if opening.is_empty() => Ok(external),
        checked => Err(checked.err().into_iter().flatten().chain(opening).collect()),
    }
}

impl ExternalWorkloadSpec {
    fn checked(&self) -> Result<External, Vec<Mistake>> {
        let Self { mesh_tls, ports, workload_ips } = self;
        let mut mistakes = vec![];
        let tls = mesh_tls.checked(&mut mistakes);
        let ports = declared(ports.as_deref().unwrap_or_default(), &mut mistakes);
        let ips = addresses(workload_ips.as_deref().unwrap_or_default(), &mut mistakes);
        match tls {
            Some(tls) if mistakes.is_empty() => Ok(External { tls, ports, ips }),
            _ => Err(mistakes),
        }
    }
}

impl WorkloadTlsSpec {
    fn checked(&self, mistakes: &mut Vec<Mistake>) -> Option<ServerTls> {
        let Self { identity, server_name } = self;
        let fits = |text: &str| text.len() <= MAX_NAME_BYTES;
        let proven = identity.parse::<Identity>().ok().filter(|id| matches!(id, Identity::Uri(_)) && fits(identity));
        if proven.is_none() {
            let message = format!("{:?} is no SPIFFE ID", short(identity));
            let remedy = "use spiffe://TRUST-DOMAIN/PATH, with up to 253 bytes, as the workload's certificate has it";
            mistakes.push(Mistake::new("spec.meshTLS.identity", message, remedy));
        }
        let name = server_name.parse::<DnsName>().ok().filter(|_| fits(server_name));
        if name.is_none() {
            let message = format!("{:?} is no DNS name", short(server_name));
            mistakes.push(Mistake::new("spec.meshTLS.serverName", message, "use a name such as web.example.com"));
        }
        Some(ServerTls { identity: proven?, server_name: name? })
    }
}

fn declared(specs: &[WorkloadPortSpec], mistakes: &mut Vec<Mistake>) -> Vec<Declared> {
    if specs.len() > MAX_PORTS {
        let message = format!("it has {} ports", specs.len());
        mistakes.push(Mistake::new("spec.ports", message, format!("declare {MAX_PORTS} at most")));
        return vec![];
    }
    let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
    let ports = specs.iter().enumerate().filter_map(|(i, WorkloadPortSpec { name, port, protocol })| {
        let mut mistake = |field: &str, message: String, remedy: &str| {
            mistakes.push(Mistake::new(format!("spec.ports[{i}].{field}"), message, remedy));
        };
        let number = u16::try_from(*port).ok().filter(|n| *n > 0);
        if number.is_none() {
            mistake("port", format!("{port} is no port"), "use 1 to 65535");
        }
        let text = protocol.as_deref().filter(|text| !text.is_empty()).unwrap_or("TCP");
        let known = PROTOCOLS.into_iter().find(|known| *known == text);
        if known.is_none() {
            mistake("protocol", format!("{:?} is no protocol", short(text)), "use TCP, UDP or SCTP");
        }
        let name = name.clone().filter(|name| !name.is_empty());
        if let Some(name) = &name {
            if !is_port_name(name) {
                let remedy = "use up to 15 of a-z, 0-9 and '-', with a letter among them";
                mistake("name", format!("{:?} is no name of a port", short(name)), remedy);
            } else if !names.insert(name.clone()) {
                mistake("name", format!("{name:?} is another port's name as well"), "give each port a name of its own");
            }
        }
        if !numbers.insert((number?, known?)) {
            mistake("port", format!("{port} is declared twice"), "declare each port once");
        }
        Some(Declared { name, number: number?, protocol: known? })
    });
    ports.collect()
}

/// Those that EndpointSlices may hold: of one machine or one link alone nobody else is reached.
fn addresses(specs: &[WorkloadIpSpec], mistakes: &mut Vec<Mistake>) -> Vec<IpAddr> {
    if specs.len() > MAX_IPS {
        let message = format!("it has {} addresses", specs.len());
        mistakes.push(Mistake::new("spec.workloadIPs", message, format!("give {MAX_IPS} at most")));
        return vec![];
    }
    let mut ips: Vec<IpAddr> = vec![];
    for (i, WorkloadIpSpec { ip: text }) in specs.iter().enumerate() {
        let mut mistake = |message: String, remedy: &str| {
            mistakes.push(Mistake::new(format!("spec.workloadIPs[{i}].ip"), message, remedy));
        };
        match text.parse::<IpAddr>() {
            Err(_) => mistake(format!("{:?} is no IP address", short(text)), "use one of IPv4 or IPv6"),
            Ok(ip) if ip.to_canonical() != ip => {
                mistake(format!("{ip} is an address of IPv4"), &format!("write {}", ip.to_canonical()));
            }
            Ok(ip) if is_local(ip) => {
                mistake(format!("{ip} is no address of one server for others"), "use one by which it is reached");
            }
            Ok(ip) if ips.contains(&ip) => mistake(format!("{ip} is there twice"), "give each address once"),
            Ok(ip) => ips.push(ip),
        }
    }
    ips
}

fn is_local(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    };
    ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local
}

/// Of what somebody wrote, as much as helps to find it.
fn short(text: &str) -> String {
    text.chars().take(128).collect()
}

/// Whether the status says so: by that it is behind Services.
pub(crate) fn is_ready(status: Option<&Value>) -> bool {
    let conditions = status.and_then(|status| status["conditions"].as_array()).into_iter().flatten();
    let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
    ready.next().is_some_and(|condition| condition["status"] == "True")
}

/// Which of its annotations cannot be read, and have no effect.
pub(crate) fn said_in_vain(metadata: &ObjectMeta) -> Vec<Mistake> {
    wrong::<PortList>(metadata, annotation::OPAQUE_PORTS, ", and has no effect", PORTS).into_iter().collect()
}

/// Those without which others could call it than its owner thinks.
fn opening(metadata: &ObjectMeta) -> impl Iterator<Item = Mistake> {
    let policies = format!("use one of {}", DefaultPolicy::ALL.map(DefaultPolicy::as_str).join(", "));
    let policy = wrong::<DefaultPolicy>(metadata, annotation::DEFAULT_INBOUND_POLICY, "", &policies);
    policy.into_iter().chain(wrong::<PortRanges>(metadata, REQUIRE_IDENTITY_PORTS, "", PORTS))
}

const PORTS: &str = "use numbers and ranges, such as 3306,8000-8010";

fn wrong<T: FromStr>(metadata: &ObjectMeta, key: &str, so: &str, remedy: &str) -> Option<Mistake> {
    let text = metadata.annotations.as_ref()?.get(key).filter(|text| read::<T>(text).is_err())?;
    let message = format!("{:?} cannot be read{so}", short(text));
    Some(Mistake::new(format!("metadata.annotations[{key}]"), message, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(spec: Value) -> Result<External, Vec<String>> {
        let spec: ExternalWorkloadSpec = serde_json::from_value(spec).unwrap();
        spec.checked().map_err(|mistakes| mistakes.into_iter().map(|m| m.field).collect())
    }

    fn spec(ports: Value, ips: &[&str]) -> Value {
        let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        json!({"meshTLS": {"identity": "spiffe://root.local/db", "serverName": "db.local"}, "ports": ports, "workloadIPs": ips})
    }

    #[test]
    fn both_versions_are_read() {
        let ports = json!([{"name": "db", "port": 5432}, {"port": 53, "protocol": "UDP"}]);
        let newest = spec(ports, &["192.0.2.1", "2001:db8::1"]);
        let mut oldest = newest.clone();
        let tls = oldest.as_object_mut().unwrap().remove("meshTLS").unwrap();
        oldest["meshTls"] = tls;
        let external = read(newest).unwrap();
        assert_eq!(read(oldest).unwrap(), external);
        assert_eq!(external.tls.identity.as_str(), "spiffe://root.local/db");
        assert_eq!(external.tls.server_name.as_str(), "db.local");
        let ports: Vec<_> = external.ports.iter().map(|p| (p.name.as_deref(), p.number, p.protocol)).collect();
        assert_eq!(ports, [(Some("db"), 5432, "TCP"), (None, 53, "UDP")]);
        assert_eq!(external.ips.len(), 2);
        let bare = json!({"meshTLS": {"identity": "spiffe://root.local/db", "serverName": "db.local"}});
        assert!(read(bare).is_ok(), "ports and addresses may come later");
    }

    #[test]
    fn mistakes_are_named() {
        for (ports, field) in [
            (json!([{"port": 0}]), "spec.ports[0].port"),
            (json!([{"port": 65536}]), "spec.ports[0].port"),
            (json!([{"port": 80}, {"port": 80, "name": "b"}]), "spec.ports[1].port"),
            (json!([{"port": 80, "protocol": "tcp"}]), "spec.ports[0].protocol"),
            (json!([{"port": 80, "name": "80"}]), "spec.ports[0].name"),
            (json!([{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]), "spec.ports[1].name"),
            (json!((1..=101).map(|port| json!({"port": port})).collect::<Vec<_>>()), "spec.ports"),
        ] {
            assert_eq!(read(spec(ports.clone(), &[])), Err(vec![field.to_owned()]), "{ports}");
        }
        assert!(read(spec(json!([{"port": 80}, {"port": 80, "protocol": "UDP"}]), &[])).is_ok());
        for ip in [
            "web",
            "10.0.0.256",
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "::",
            "169.254.1.1",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "::ffff:192.0.2.1",
            "255.255.255.255",
        ] {
            assert_eq!(read(spec(json!([]), &[ip])), Err(vec!["spec.workloadIPs[0].ip".to_owned()]), "{ip}");
        }
        let one = "192.0.2.1";
        assert_eq!(read(spec(json!([]), &[one, one])), Err(vec!["spec.workloadIPs[1].ip".to_owned()]));
        let three = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        assert_eq!(read(spec(json!([]), &three)), Err(vec!["spec.workloadIPs".to_owned()]));
        let tls = |identity: &str, name: &str| read(json!({"meshTLS": {"identity": identity, "serverName": name}}));
        let identity = Err(vec!["spec.meshTLS.identity".to_owned()]);
        for wrong in ["", "db.local", "spiffe://", "spiffe://Root/db", "spiffe://root//db", "https://root/db"] {
            assert_eq!(tls(wrong, "db.local"), identity, "{wrong}");
        }
        assert_eq!(tls(&format!("spiffe://root/{}", "a".repeat(240)), "db.local"), identity);
        assert_eq!(tls("spiffe://root/db", "a b"), Err(vec!["spec.meshTLS.serverName".to_owned()]));
    }

    #[test]
    fn an_annotation_that_could_open_it_is_refused_and_the_other_is_told() {
        let of = |key: &str, text: &str| {
            let metadata = json!({"name": "vm", "annotations": {key: text}});
            let workload = json!({"metadata": metadata, "spec": spec(json!([]), &[])});
            let workload: ExternalWorkload = serde_json::from_value(workload).unwrap();
            let fields = |mistakes: Vec<Mistake>| mistakes.into_iter().map(|m| m.field).collect::<Vec<_>>();
            (fields(checked(&workload).err().unwrap_or_default()), fields(said_in_vain(&workload.metadata)))
        };
        for (key, right, wrong, is_refused) in [
            ("config.linkerd.io/opaque-ports", "3306,db\n", "70000", false),
            ("config.linkerd.io/proxy-require-identity-inbound-ports", " 80-90", "a", true),
            ("config.linkerd.io/default-inbound-policy", "deny\n", "denyy", true),
        ] {
            let field = vec![format!("metadata.annotations[{key}]")];
            assert_eq!(of(key, right), (vec![], vec![]));
            assert_eq!(of(key, wrong), if is_refused { (field, vec![]) } else { (vec![], field) });
        }
    }

    #[test]
    fn ready_is_what_the_status_says() {
        let ready = |conditions: Value| is_ready(Some(&json!({ "conditions": conditions })));
        assert!(!is_ready(None) && !ready(json!([])));
        assert!(ready(json!([{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}])));
        assert!(!ready(json!([{"type": "Ready", "status": "Unknown"}])));
    }
}
