//! Names of Services: `web.emojivoto.svc.cluster.local`, with an instance before it or the domain left out.

use super::Refusal;
use weft_model::DnsName;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceName {
    /// One pod of a headless Service.
    pub(super) instance: Option<String>,
    pub(super) service: String,
    pub(super) namespace: String,
}

/// The full form only, as discovery has it.
pub(super) fn parse(name: &DnsName, cluster_domain: &str) -> Result<ServiceName, Refusal> {
    let refused = || Refusal::Invalid(format!("{name} is no name of a Service in {cluster_domain}"));
    let rest = name.as_str().strip_suffix(cluster_domain).and_then(|r| r.strip_suffix(".svc.")).ok_or_else(refused)?;
    split(rest).ok_or_else(refused)
}

/// The full form or `name.namespace.svc`, and no instance, as policy has it.
pub(super) fn parse_authority(name: &DnsName, cluster_domain: &str) -> Result<ServiceName, Refusal> {
    let refused = || Refusal::NotFound(format!("{name} is no name of a Service"));
    let text = name.as_str();
    let rest = match text.strip_suffix(cluster_domain).and_then(|r| r.strip_suffix('.')) {
        Some(rest) => rest,
        None => text,
    };
    let rest = rest.strip_suffix(".svc").ok_or_else(refused)?;
    split(rest).filter(|n| n.instance.is_none()).ok_or_else(refused)
}

fn split(text: &str) -> Option<ServiceName> {
    let labels: Vec<&str> = text.split('.').collect();
    let (instance, service, namespace) = match labels.as_slice() {
        [service, namespace] => (None, service, namespace),
        [instance, service, namespace] => (Some((*instance).to_owned()), service, namespace),
        _ => return None,
    };
    Some(ServiceName { instance, service: (*service).to_owned(), namespace: (*namespace).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let full = |text: &str| parse(&text.parse().unwrap(), "cluster.local");
        assert_eq!(full("web.ns.svc.cluster.local").unwrap().service, "web");
        assert_eq!(full("Web.NS.svc.cluster.local.").unwrap().namespace, "ns");
        assert_eq!(full("db-0.db.ns.svc.cluster.local").unwrap().instance.as_deref(), Some("db-0"));
        for bad in
            ["web.ns.svc", "web.svc.cluster.local", "a.b.c.ns.svc.cluster.local", "example.com", "10.1.2.3", "web"]
        {
            assert!(matches!(full(bad), Err(Refusal::Invalid(_))), "{bad}");
        }
        let authority = |text: &str| parse_authority(&text.parse().unwrap(), "cluster.local");
        assert_eq!(authority("web.ns.svc").unwrap(), authority("web.ns.svc.cluster.local").unwrap());
        for bad in ["web.ns", "db-0.db.ns.svc", "example.com", "web.ns.svc.other.local"] {
            assert!(matches!(authority(bad), Err(Refusal::NotFound(_))), "{bad}");
        }
    }
}
