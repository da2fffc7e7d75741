//! What the control plane is told when it starts.

use serde::{Deserialize, Serialize};
use std::{net::IpAddr, path::PathBuf, time::Duration};
use weft_cluster::index::Settings;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address of all listeners.
    pub listen: IpAddr,
    pub ports: Ports,
    /// Holds the folder `ca`; only the owner may read it.
    pub state_dir: PathBuf,
    /// The unix socket on which events come.
    pub events: PathBuf,
    pub settings: Settings,
    pub lifetimes: Lifetimes,
}

/// Port 0 lets the kernel choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    pub identity: u16,
    pub destination: u16,
    pub policy: u16,
    /// `/live`, `/ready`, `/metrics`, in plaintext.
    pub admin: u16,
}

/// How long certificates are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifetimes {
    pub root: Duration,
    pub issuer: Duration,
    pub leaf: Duration,
    /// How long a new root is announced before anything is signed by it.
    pub announce: Duration,
    /// Before the present and after the end, for clocks that differ.
    pub skew: Duration,
}

impl Config {
    /// The usual ports and lifetimes.
    pub fn new(listen: IpAddr, state_dir: PathBuf, events: PathBuf) -> Self {
        Self {
            listen,
            ports: Ports::default(),
            state_dir,
            events,
            settings: Settings::default(),
            lifetimes: Lifetimes::default(),
        }
    }
}

impl Default for Ports {
    fn default() -> Self {
        use weft_model::names::port;
        Self { identity: port::IDENTITY, destination: port::DESTINATION, policy: port::POLICY, admin: 9990 }
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            root: Duration::from_secs(365 * DAY),
            issuer: Duration::from_secs(30 * DAY),
            leaf: Duration::from_secs(DAY),
            announce: Duration::from_secs(DAY),
            skew: Duration::from_secs(20),
        }
    }
}
