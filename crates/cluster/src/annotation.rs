//! The annotations of the mesh, from text to types.

use std::str::FromStr;
use weft_model::{
    names::annotation as names,
    ports::{InvalidPorts, entries, range},
};

pub use weft_model::ports::PortRanges;

/// Ports whose clients must prove an identity, whatever the default policy is.
pub const REQUIRE_IDENTITY_PORTS: &str = "config.linkerd.io/proxy-require-identity-inbound-ports";

/// How the name of an annotation is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This build knows every name: another one is a spelling mistake.
    Mesh,
    /// Of a part that this build does not have: client policy, multicluster, extensions.
    LaterParts,
    /// Not of the mesh.
    Other,
}

pub(crate) fn owner(key: &str) -> Owner {
    match key.split_once('/').map(|(prefix, _)| prefix) {
        Some("linkerd.io" | "config.linkerd.io" | "config.alpha.linkerd.io" | "config.beta.linkerd.io") => Owner::Mesh,
        Some(prefix) if prefix.ends_with(".linkerd.io") => Owner::LaterParts,
        _ => Owner::Other,
    }
}

/// Reads the value of an annotation, wherever it is read. White space around it says nothing: a block of YAML ends in a line break.
pub(crate) fn read<T: FromStr>(value: &str) -> Result<T, T::Err> {
    value.trim().parse()
}

/// Whether the annotation has no meaning on a Service.
pub(crate) fn is_of_pods(key: &str) -> bool {
    [
        names::INJECT,
        names::SKIP_INBOUND_PORTS,
        names::SKIP_OUTBOUND_PORTS,
        names::DEFAULT_INBOUND_POLICY,
        REQUIRE_IDENTITY_PORTS,
    ]
    .contains(&key)
}

/// A list of ports in which a port may also be given by its name in the pod or Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortList {
    pub numbers: PortRanges,
    pub names: Vec<String>,
}

impl PortList {
    pub fn numbers(ports: impl IntoIterator<Item = u16>) -> Self {
        Self { numbers: ports.into_iter().collect(), names: vec![] }
    }

    /// Whether it names `port`, which is also known by these names.
    pub fn contains<'n>(&self, port: u16, names: impl IntoIterator<Item = &'n str>) -> bool {
        self.numbers.contains(port) || names.into_iter().any(|name| self.names.iter().any(|n| n == name))
    }
}

impl FromStr for PortList {
    type Err = InvalidPorts;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut list = Self::default();
        for entry in entries(text)? {
            if is_port_name(entry) {
                list.names.push(entry.to_owned());
            } else {
                list.numbers.extend([range(entry)?]);
            }
        }
        Ok(list)
    }
}

/// Kubernetes' rule for the name of a port: 1 to 15 of lower-case letters, digits and single dashes, with a letter among them.
pub fn is_port_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_strict() {
        let list: PortList = "25, 4000-4002,grpc,".parse().unwrap();
        assert!(list.contains(25, []) && list.contains(4001, []) && list.contains(9, ["http", "grpc"]));
        assert!(!list.contains(4003, Some("http")));
        assert_eq!(list.numbers.to_string(), "25,4000-4002");
        for bad in ["0", "65536", "10-5", "a--b", "-1", "1-", "Grpc", "1-2-3", "averyverylongname"] {
            assert!(bad.parse::<PortList>().is_err(), "{bad}");
        }
        assert!("grpc".parse::<PortRanges>().is_err());
        assert!("1,".repeat(2000).parse::<PortRanges>().is_err());
    }
}
