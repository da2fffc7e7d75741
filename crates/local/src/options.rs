//! What a mesh is started with.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};
use weft_cluster::{Object, manifest::Text};

#[derive(Clone, Debug)]
pub struct Options {
    /// Files and folders; they are watched.
    pub manifests: Vec<PathBuf>,
    /// Manifests that were read already.
    pub texts: Vec<Text>,
    /// Objects besides those in files.
    pub objects: Vec<Object>,
    /// `None`: `$XDG_STATE_HOME/weft`, or `~/.local/state/weft`.
    pub state_dir: Option<PathBuf>,
    /// Whether programs may reach addresses outside the mesh.
    pub egress: bool,
    pub host_services: Vec<HostService>,
    pub publish: Vec<Publish>,
    pub programs: Programs,
    /// Filter of the proxies' logs, as `LINKERD2_PROXY_LOG`.
    pub proxy_log: Option<String>,
}

/// Where the mesh's own programs are.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// `None`: this process's own executable. It must call [`crate::role`].
    pub weft: Option<PathBuf>,
    /// `None`: beside `weft`, then in `PATH`.
    pub proxy: Option<PathBuf>,
}

/// A service of the host that programs may reach by name: `postgres=127.0.0.1:5432`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostService {
    pub name: String,
    pub addr: SocketAddr,
}

/// A service of the mesh that the host may reach: `[HOST:]PORT:[NAMESPACE/]SERVICE:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Port 0 lets the kernel choose; the address in force is in [`crate::Status`].
    pub listen: SocketAddr,
    pub namespace: String,
    pub service: String,
    pub port: u16,
}

/// A text that is no option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not of the form {form}")]
pub struct InvalidOption {
    text: String,
    form: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            manifests: vec![],
            texts: vec![],
            objects: vec![],
            state_dir: None,
            egress: true,
            host_services: vec![],
            publish: vec![],
            programs: Programs::default(),
            proxy_log: None,
        }
    }
}

impl FromStr for HostService {
    type Err = InvalidOption;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidOption { text: text.to_owned(), form: "NAME=ADDRESS:PORT" };
        let (name, addr) = text.split_once('=').ok_or_else(invalid)?;
        let label = |l: &str| {
            (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(invalid());
        }
        Ok(Self { name: name.to_ascii_lowercase(), addr: addr.parse().map_err(|_| invalid())? })
    }
}

impl FromStr for Publish {
    type Err = InvalidOption;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidOption { text: text.to_owned(), form: "[HOST:]PORT:[NAMESPACE/]SERVICE:PORT" };
        let (rest, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let (listen, service) = rest.rsplit_once(':').ok_or_else(invalid)?;
        let listen = if listen.contains(':') { listen.to_owned() } else { format!("127.0.0.1:{listen}") };
        let (namespace, service) = service.split_once('/').unwrap_or(("default", service));
        if service.is_empty() || namespace.is_empty() {
            return Err(invalid());
        }
        Ok(Self {
            listen: listen.parse().map_err(|_| invalid())?,
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            port: port.parse().map_err(|_| invalid())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_ports_default_to_loopback() {
        for (text, listen, namespace, service, port) in [
            ("8080:web:80", "127.0.0.1:8080", "default", "web", 80),
            ("8080:emojivoto/web-svc:80", "127.0.0.1:8080", "emojivoto", "web-svc", 80),
            ("0.0.0.0:1:web:2", "0.0.0.0:1", "default", "web", 2),
            ("[::1]:1:a/web:2", "[::1]:1", "a", "web", 2),
        ] {
            let publish: Publish = text.parse().unwrap();
            let expected =
                Publish { listen: listen.parse().unwrap(), namespace: namespace.into(), service: service.into(), port };
            assert_eq!(publish, expected, "{text}");
        }
        for bad in ["", "80", "80:web", "x:web:80", "80::80", "80:/web:80", "host:80:web:80", "80:web:http"] {
            assert!(bad.parse::<Publish>().is_err(), "{bad}");
        }
    }

    #[test]
    fn host_services_name_an_address() {
        let service: HostService = "Postgres=127.0.0.1:5432".parse().unwrap();
        assert_eq!(service, HostService { name: "postgres".into(), addr: "127.0.0.1:5432".parse().unwrap() });
        for bad in ["", "a", "=127.0.0.1:1", "a=localhost:1", "a b=127.0.0.1:1", "a..b=127.0.0.1:1"] {
            assert!(bad.parse::<HostService>().is_err(), "{bad}");
        }
    }
}
