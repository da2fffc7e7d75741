//! The names of the mesh: what is behind each, as Kubernetes' DNS has it.
//!
//! Pure: objects in, a zone out. `dns` serves it.

use super::{endpoints, plan::Plan};
use crate::HostService;
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};
use weft_cluster::{
    Object,
    k8s::api::core::v1::{Pod, Service},
};

/// Names without a dot at the end, in lower case.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    domain: String,
    addresses: HashMap<String, Vec<IpAddr>>,
    ports: HashMap<String, Vec<Port>>,
}

/// An answer to a question of type SRV.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Port {
    pub(crate) port: u16,
    pub(crate) target: String,
}

/// Whose name it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'z, T> {
    /// It exists; the list may be empty.
    Here(&'z [T]),
    /// It would be in the mesh, and is not.
    Nowhere,
    /// The host's resolver may know it.
    Outside,
}

impl Zone {
    pub(crate) fn new(objects: &[Object], host_services: &[HostService], plan: Plan, domain: &str) -> Self {
        let mut zone = Self { domain: domain.to_owned(), ..Self::default() };
        for (index, service) in host_services.iter().enumerate() {
            if let Some(number) = plan.host_service(index) {
                zone.addresses.insert(service.name.clone(), plan.both(number));
            }
        }
        for object in objects {
            match object {
                Object::Service(service) => zone.service(service, objects),
                Object::Pod(pod) => {
                    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                    for ip in endpoints::ips(pod) {
                        let dashed = ip.to_string().replace(['.', ':'], "-");
                        zone.addresses.entry(format!("{dashed}.{namespace}.pod.{domain}")).or_default().push(ip);
                    }
                }
                _ => {}
            }
        }
        zone
    }

    fn service(&mut self, service: &Service, objects: &[Object]) {
        let metadata = &service.metadata;
        let (Some(name), Some(namespace)) = (&metadata.name, &metadata.namespace) else { return };
        let own = format!("{name}.{namespace}.svc.{}", self.domain);
        let mut hosts = Vec::new();
        if endpoints::is_headless(service) {
            let mut all = Vec::new();
            for pod in endpoints::pods(service, objects) {
                let ips = endpoints::ips(pod).into_iter().filter(|ip| endpoints::has_family(service, ip.is_ipv6()));
                let ips: Vec<IpAddr> = ips.collect();
                let spec_name = pod.spec.as_ref().and_then(|s| s.hostname.clone());
                for host in [Some(endpoints::name(pod).to_owned()), spec_name].into_iter().flatten() {
                    let host = format!("{host}.{own}");
                    self.addresses.insert(host.clone(), ips.clone());
                    hosts.push((host, Some(pod)));
                }
                all.extend(ips);
            }
            self.addresses.insert(own.clone(), all);
        } else {
            self.addresses.insert(own.clone(), endpoints::cluster_ips(service));
            hosts.push((own.clone(), None));
        }
        for port in service.spec.iter().flat_map(|s| s.ports.iter().flatten()) {
            let (Some(port_name), Ok(own_number)) = (&port.name, u16::try_from(port.port)) else { continue };
            let protocol = port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
            // Nothing leads on from a pod's own address.
            let number = |pod: Option<&Pod>| pod.map_or(Some(own_number), |pod| endpoints::target_port(port, pod));
            let answers: HashSet<Port> = hosts
                .iter()
                .filter_map(|(target, pod)| Some(Port { port: number(*pod)?, target: target.clone() }))
                .collect();
            self.ports.insert(format!("_{port_name}._{protocol}.{own}"), answers.into_iter().collect());
        }
    }

    pub(crate) fn addresses(&self, name: &str) -> Found<'_, IpAddr> {
        self.find(&self.addresses, name)
    }

    pub(crate) fn ports(&self, name: &str) -> Found<'_, Port> {
        self.find(&self.ports, name)
    }

    fn find<'z, T>(&self, table: &'z HashMap<String, Vec<T>>, name: &str) -> Found<'z, T> {
        if let Some(values) = table.get(name) {
            return Found::Here(values);
        }
        if self.addresses.contains_key(name) || self.ports.contains_key(name) {
            return Found::Here(&[]);
        }
        let inside = name == self.domain || name.strip_suffix(&self.domain).is_some_and(|n| n.ends_with('.'));
        if inside { Found::Nowhere } else { Found::Outside }
    }
}

/// What a program's resolver is told: `/etc/resolv.conf`.
pub(crate) fn resolv_conf(gateways: &[IpAddr], namespace: &str, domain: &str) -> String {
    let servers: String = gateways.iter().map(|ip| format!("nameserver {ip}\n")).collect();
    format!("{servers}search {namespace}.svc.{domain} svc.{domain} {domain}\noptions ndots:5\n")
}

/// `/etc/hosts` of a pod.
pub(crate) fn hosts(ips: &[IpAddr], pod: &str) -> String {
    let own: String = ips.iter().map(|ip| format!("{ip}\t{pod}\n")).collect();
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}")
}

/// `/etc/nsswitch.conf` as the host has it, but for names of hosts: they come from files and from the mesh.
pub(crate) fn nsswitch(host: &str) -> String {
    let others = host.lines().filter(|line| !line.trim_start().starts_with("hosts:"));
    others.chain(["hosts: files dns"]).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let service = |name: &str, ip: &str, port: &str, number: u16, target: u16| {
            let service = serde_json::json!({
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {"clusterIP": ip, "selector": {"app": name}, "ports": [{"name": port, "port": number, "targetPort": target}]},
            });
            Object::Service(serde_json::from_value(service).unwrap())
        };
        let mut objects =
            vec![service("web", "10.99.128.1", "http", 80, 8080), service("db", "None", "sql", 5432, 15432)];
        for (name, ip, ready) in [("db-1", "10.99.1.0", "True"), ("db-2", "10.99.1.1", "False")] {
            let pod = serde_json::json!({
                "metadata": {"name": name, "namespace": "shop", "labels": {"app": "db"}},
                "status": {
                    "podIPs": [{"ip": ip}, {"ip": format!("fd77::{}", &name[3..])}],
                    "conditions": [{"type": "Ready", "status": ready}],
                },
            });
            objects.push(Object::Pod(serde_json::from_value(pod).unwrap()));
        }
        let host = HostService { name: "postgres".into(), addr: "127.0.0.1:5432".parse().unwrap() };
        Zone::new(&objects, &[host], Plan::pick("", true), "cluster.local")
    }

    #[test]
    fn names_are_those_of_kubernetes() {
        let zone = zone();
        let here = |name: &str| match zone.addresses(name) {
            Found::Here(ips) => ips.iter().map(ToString::to_string).collect::<Vec<_>>(),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(here("web.shop.svc.cluster.local"), ["10.99.128.1"]);
        assert_eq!(here("db.shop.svc.cluster.local"), ["10.99.1.0"], "only what is ready, v4 unless asked");
        assert_eq!(here("db-1.db.shop.svc.cluster.local"), ["10.99.1.0"]);
        assert_eq!(here("10-99-1-1.shop.pod.cluster.local"), ["10.99.1.1"]);
        assert_eq!(here("postgres"), ["10.99.255.0", "fd77:6566:7463::ff00"]);
        for name in
            ["db-2.db.shop.svc.cluster.local", "web.other.svc.cluster.local", "cluster.local", "x.cluster.local"]
        {
            assert_eq!(zone.addresses(name), Found::Nowhere, "{name}");
        }
        for name in ["web", "example.org", "notcluster.local", ""] {
            assert_eq!(zone.addresses(name), Found::Outside, "{name}");
        }
        let target = Port { port: 80, target: "web.shop.svc.cluster.local".into() };
        assert_eq!(zone.ports("_http._tcp.web.shop.svc.cluster.local"), Found::Here(&[target]));
        let target = Port { port: 15432, target: "db-1.db.shop.svc.cluster.local".into() };
        assert_eq!(zone.ports("_sql._tcp.db.shop.svc.cluster.local"), Found::Here(&[target]), "it is dialled itself");
        assert_eq!(zone.ports("web.shop.svc.cluster.local"), Found::Here(&[]), "the name exists with another type");
    }

    #[test]
    fn names_of_hosts_come_from_the_mesh_alone() {
        let host = "passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\ngroup: files\n";
        assert_eq!(nsswitch(host), "passwd: files\ngroup: files\nhosts: files dns\n");
        assert_eq!(nsswitch(""), "hosts: files dns\n");
    }
}
