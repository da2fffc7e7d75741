//! The rules that send a workload's connections through its proxy: nftables, v4 and v6 alike.
//!
//! They come before any connection, and in the workload's own network namespace. They must never be applied to the
//! host's: [`Rules::apply`] works on the namespace of the calling thread, see [`crate::netns::Namespace::run`].

mod ruleset;

use std::{
    ffi::OsStr,
    fmt,
    io::{self, Write},
    net::IpAddr,
    process::{Command, Stdio},
};

/// Ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// How the proxy's own connections are known, so that they are not redirected back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exempt {
    /// By packet mark: the embedded mesh, where programs cannot set one.
    Mark(u32),
    /// By user: Kubernetes.
    Uid(u32),
}

/// An address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub address: IpAddr,
    pub prefix: u8,
}

/// What is redirected where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub inbound_port: u16,
    pub outbound_port: u16,
    /// Ports of the workload that clients reach without the proxy.
    pub skip_inbound: Vec<PortRange>,
    /// Ports of others that the workload reaches without the proxy.
    pub skip_outbound: Vec<PortRange>,
    /// Clients in these networks reach the workload without the proxy.
    pub skip_subnets: Vec<Subnet>,
    pub exempt: Exempt,
}

/// Why rules are not in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("nft is not installed (Debian: nftables)")]
    NoNft,
    #[error("nft could not be run: {0}")]
    Run(#[source] io::Error),
    #[error("nft refused the rules: {0}")]
    Refused(String),
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Rules {
    /// The rules as text for `nft -f -`. They replace an earlier version of themselves in one transaction.
    pub fn ruleset(&self) -> String {
        ruleset::render(self)
    }

    /// Puts the rules in force in the calling thread's network namespace. Blocks until nft is done.
    ///
    /// # Errors
    /// nft is not installed or refuses; nothing has changed then.
    pub fn apply(&self) -> Result<(), ApplyError> {
        // An ordinary user's PATH often lacks the folder in which Debian keeps nft.
        ["nft", "/usr/sbin/nft", "/sbin/nft"]
            .into_iter()
            .map(|nft| self.apply_with(nft))
            .find(|result| !matches!(result, Err(ApplyError::NoNft)))
            .unwrap_or(Err(ApplyError::NoNft))
    }

    /// As [`Rules::apply`], with the nft at a given path.
    ///
    /// # Errors
    /// As [`Rules::apply`].
    pub fn apply_with(&self, nft: impl AsRef<OsStr>) -> Result<(), ApplyError> {
        let mut child = Command::new(nft)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| if e.kind() == io::ErrorKind::NotFound { ApplyError::NoNft } else { ApplyError::Run(e) })?;
        // Closed by the drop, which is the end of nft's input. A write fails only where nft has ended: its status says why.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(self.ruleset().as_bytes());
        }
        let output = child.wait_with_output().map_err(ApplyError::Run)?;
        if output.status.success() {
            Ok(())
        } else {
            Err(ApplyError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
        }
    }
}
