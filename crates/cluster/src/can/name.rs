//! Words for who calls and who is called: `deploy/web`, `emojivoto/po/web-1`, `sa/bot`, an identity, an address; `svc/web:80`.

use super::Untold;
use crate::{annotation::is_port_name, object::is_subdomain, workload::cron_job_of};
use std::{fmt, net::IpAddr, str::FromStr};
use weft_model::Identity;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    Pods(Pods),
    Account { namespace: String, name: String },
    Identity(Identity),
    Address(IpAddr),
}

/// Who is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub(super) of: Called,
    pub(super) port: Port,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Called {
    Pods(Pods),
    Service { namespace: String, name: String },
    Address(IpAddr),
}

/// A pod, or those of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pods {
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// By its number or its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    Number(u16),
    Name(String),
}

pub(super) const POD: &str = "pod";
const JOB: &str = "k8s_job";
const CRON_JOB: &str = "cronjob";

/// What people write, and the metric label of the kind.
const KINDS: [(&[&str], &str); 8] = [
    (&["po", "pod", "pods"], POD),
    (&["deploy", "deployment", "deployments"], "deployment"),
    (&["sts", "statefulset", "statefulsets"], "statefulset"),
    (&["ds", "daemonset", "daemonsets"], "daemonset"),
    (&["rs", "replicaset", "replicasets"], "replicaset"),
    (&["rc", "replicationcontroller", "replicationcontrollers"], "replicationcontroller"),
    (&["job", "jobs"], JOB),
    (&["cj", "cronjob", "cronjobs"], CRON_JOB),
];
const ACCOUNTS: [&str; 3] = ["sa", "serviceaccount", "serviceaccounts"];
pub(super) const SERVICES: [&str; 3] = ["svc", "service", "services"];

const CLIENTS: &str = "use [NAMESPACE/]KIND/NAME with deploy, sts, ds, rs, rc, job, cj, po or sa, an identity as it stands in a certificate, or an IP address";
const TARGETS: &str =
    "use [NAMESPACE/]KIND/NAME:PORT with svc, deploy, sts, ds, rs, rc, job, cj or po, or an IP address and its port";

impl Client {
    /// # Errors
    /// It is none; `namespace` is where a name without one is.
    pub fn parse(text: &str, namespace: &str) -> Result<Self, Untold> {
        let refused = || Untold::new(format!("{:?} is no client", short(text)), CLIENTS);
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Address(ip.to_canonical()));
        }
        if text.starts_with("spiffe://") || (!text.contains('/') && text.contains('.')) {
            return text.parse().map(Self::Identity).map_err(|_| refused());
        }
        let (namespace, kind, name) = split(text, namespace).ok_or_else(refused)?;
        if ACCOUNTS.contains(&kind.as_str()) {
            return Ok(Self::Account { namespace, name });
        }
        let kind = kind_label(&kind).ok_or_else(refused)?;
        Ok(Self::Pods(Pods { kind, namespace, name }))
    }
}

impl Target {
    /// # Errors
    /// It is none; `namespace` is where a name without one is.
    pub fn parse(text: &str, namespace: &str) -> Result<Self, Untold> {
        let refused = || Untold::new(format!("{:?} is no target", short(text)), TARGETS);
        let (of, port) = text.rsplit_once(':').ok_or_else(refused)?;
        Self::at(of, port.parse()?, namespace)
    }

    /// The same, with the port beside it.
    ///
    /// # Errors
    /// As [`Target::parse`].
    pub fn at(of: &str, port: Port, namespace: &str) -> Result<Self, Untold> {
        let refused = || Untold::new(format!("{:?} is no target", short(of)), TARGETS);
        let bare = of.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(of);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            let ip = ip.to_canonical();
            if ip.is_loopback() || ip.is_unspecified() {
                let message = format!("{ip} is each client itself, which comes there past every proxy");
                return Err(Untold::new(message, "name the workload or the address that is meant"));
            }
            return match port {
                Port::Number(_) => Ok(Self { of: Called::Address(ip), port }),
                Port::Name(_) => Err(Untold::new(format!("{ip} has no ports with names"), "use 1 to 65535")),
            };
        }
        let (namespace, kind, name) = split(of, namespace).ok_or_else(refused)?;
        let of = if SERVICES.contains(&kind.as_str()) {
            Called::Service { namespace, name }
        } else {
            Called::Pods(Pods { kind: kind_label(&kind).ok_or_else(refused)?, namespace, name })
        };
        Ok(Self { of, port })
    }
}

impl FromStr for Port {
    type Err = Untold;

    fn from_str(text: &str) -> Result<Self, Untold> {
        match text.parse::<u16>() {
            Ok(number) if number > 0 => Ok(Self::Number(number)),
            Err(_) if is_port_name(text) => Ok(Self::Name(text.to_owned())),
            _ => Err(Untold::new(format!("{:?} is no port", short(text)), "use 1 to 65535, or the name of a port")),
        }
    }
}

impl Port {
    pub(super) fn is(&self, number: u16, name: Option<&str>) -> bool {
        match self {
            Self::Number(own) => *own == number,
            Self::Name(own) => name == Some(own),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == JOB { "job" } else { self.kind };
        write!(f, "{kind}/{} in the namespace {}", self.name, self.namespace)
    }
}

pub(super) fn kind_label(kind: &str) -> Option<&'static str> {
    KINDS.iter().find(|(words, _)| words.contains(&kind)).map(|(_, label)| *label)
}

/// Whether a pod's owner, by the metric label of its kind and its name, is this workload; without a name, one of the kind. The owner of a
/// CronJob's pods is the Job that it has started.
pub(super) fn is_of(kind: &str, name: Option<&str>, (of, owner): &(String, String)) -> bool {
    let (of, owner) = match cron_job_of(owner) {
        Some(cron_job) if kind == CRON_JOB && of == JOB => (CRON_JOB, cron_job),
        _ => (of.as_str(), owner.as_str()),
    };
    of == kind && name.is_none_or(|name| name == owner)
}

/// Namespace, kind in lower case, name.
fn split(text: &str, namespace: &str) -> Option<(String, String, String)> {
    let parts: Vec<&str> = text.split('/').collect();
    let (namespace, kind, name) = match parts.as_slice() {
        [kind, name] => (namespace, kind, name),
        [namespace, kind, name] => (*namespace, kind, name),
        _ => return None,
    };
    (is_subdomain(name) && is_subdomain(namespace))
        .then(|| (namespace.to_owned(), kind.to_lowercase(), (*name).to_owned()))
}

/// Of what somebody wrote, as much as helps to find it.
pub(super) fn short(text: &str) -> String {
    text.chars().take(128).collect()
}
