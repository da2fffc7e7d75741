//! What is measured: pairs of proxies that do the same hop, and no proxy at all.

mod envoy;
mod haproxy;
mod weft;

use crate::{
    lab::{CLIENT, Lab, ORIGIN, SERVER},
    load::Work,
    process::Running,
};
use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::{fmt, net::SocketAddr, path::PathBuf, process::Command, time::Duration};
use weft_testkit::control::FakeControl;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Subject {
    Direct,
    Weft,
    Haproxy,
    Envoy,
}

/// Both proxies of a subject, and where the load goes.
pub(crate) struct Pair {
    pub(crate) target: SocketAddr,
    proxies: Vec<Running>,
    /// The control planes of the proxies, kept alive.
    _controls: Vec<FakeControl>,
}

/// Where a peer's proxy of the client listens: peers are addressed, weft intercepts.
const CLIENT_PROXY: SocketAddr = SocketAddr::new(CLIENT, 4140);
const SERVER_PROXY: SocketAddr = SocketAddr::new(SERVER, 4143);
/// The name in the server's certificate.
const SERVER_NAME: &str = "server.bench.serviceaccount.identity.linkerd.cluster.local";
const CLIENT_NAME: &str = "client.bench.serviceaccount.identity.linkerd.cluster.local";

impl Subject {
    pub(crate) const ALL: [Self; 4] = [Self::Direct, Self::Weft, Self::Haproxy, Self::Envoy];

    /// Some works say something of weft alone.
    pub(crate) fn does(self, work: Work) -> bool {
        match work {
            Work::TwoWorkers | Work::Short => self == Self::Weft,
            Work::Handshakes | Work::IdleTcp | Work::Idle => self != Self::Direct,
            _ => true,
        }
    }

    pub(crate) fn start(self, lab: &Lab, work: Work) -> anyhow::Result<Pair> {
        lab.forget_rules()?; // those of weft would redirect its peers
        match self {
            Self::Direct => Ok(Pair { target: ORIGIN, proxies: vec![], _controls: vec![] }),
            Self::Weft => weft::start(lab, work),
            Self::Haproxy => haproxy::start(lab, work),
            Self::Envoy => envoy::start(lab, work),
        }
    }

    pub(crate) fn versions() -> String {
        let version = |name: &str, program: PathBuf, flag: &str| {
            let output = Command::new(program).arg(flag).output().ok()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            // Behind the word: `HAProxy version 2.6.12-1 …`, `… version: <commit>/1.40.0/…`.
            let (_, behind) = text.split_once("version")?;
            Some(format!("{name} {}", behind.trim_start_matches([':', ' ']).split_whitespace().next()?))
        };
        let weft = format!("weft-proxy {}", env!("CARGO_PKG_VERSION"));
        let haproxy = version("HAProxy", "haproxy".into(), "-v");
        let envoy = envoy::binary().ok().and_then(|b| version("Envoy", b, "--version"));
        [Some(weft), haproxy, envoy].into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Weft => "weft",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
        })
    }
}

impl Pair {
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.proxies.iter().map(Running::cpu).sum()
    }

    /// The ends of the proxies' logs.
    pub(crate) fn logs(&self) -> String {
        self.proxies.iter().map(|p| format!("{}: {}", p.name, p.log())).collect::<Vec<_>>().join("\n")
    }

    /// Bytes: the client's proxy, the server's.
    pub(crate) fn rss(&self) -> anyhow::Result<(u64, u64)> {
        match self.proxies.as_slice() {
            [client, server] => Ok((client.rss()?, server.rss()?)),
            _ => Ok((0, 0)),
        }
    }
}

/// Certificates of one run as files: `ca.pem`, `client.pem`, `client.key`, `server.pem`, `server.key`.
fn certificates() -> anyhow::Result<PathBuf> {
    let dir = PathBuf::from("/run/certificates");
    if dir.exists() {
        return Ok(dir);
    }
    std::fs::create_dir(&dir)?;
    let mut ca = CertificateParams::new(vec![])?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "bench CA");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?).context("making the CA")?;
    std::fs::write(dir.join("ca.pem"), ca.pem())?;
    for (file, name) in [("client", CLIENT_NAME), ("server", SERVER_NAME)] {
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(vec![name.to_owned()])?;
        leaf.distinguished_name.push(DnType::CommonName, name);
        let certificate = leaf.signed_by(&key, &ca)?;
        std::fs::write(dir.join(format!("{file}.pem")), certificate.pem())?;
        std::fs::write(dir.join(format!("{file}.key")), key.serialize_pem())?;
    }
    Ok(dir)
}
