//! What is measured: pairs of proxies that do the same hop, and no proxy at all.

mod envoy;
mod haproxy;
mod weft;

use crate::{
    lab::{Lab, ORIGIN, SERVER},
    load::{Exchange, Work},
    process::Running,
};
use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    time::Duration,
};
use weft_model::names::port;
use weft_testkit::control::FakeControl;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Subject {
    Direct,
    Weft,
    /// weft with two workers in each proxy; all others have one.
    Weft2,
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

/// Where the redirection leads what the client dials.
const CLIENT_PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port::OUTBOUND);
const SERVER_PROXY: SocketAddr = SocketAddr::new(SERVER, port::INBOUND);
/// The name in the server's certificate.
const SERVER_NAME: &str = "server.bench.serviceaccount.identity.linkerd.cluster.local";
const CLIENT_NAME: &str = "client.bench.serviceaccount.identity.linkerd.cluster.local";

impl Subject {
    pub(crate) const ALL: [Self; 5] = [Self::Direct, Self::Weft, Self::Weft2, Self::Haproxy, Self::Envoy];

    /// Some works say something of proxies alone, or of weft alone, or ask for what a peer does not know.
    pub(crate) fn does(self, work: Work) -> bool {
        match work {
            Work::TwoWorkers => matches!(self, Self::Weft | Self::Weft2),
            _ if self == Self::Weft2 => false,
            Work::Short => self == Self::Weft,
            _ if work.exchange() == Some(Exchange::X25519MlKem768) => matches!(self, Self::Weft | Self::Envoy),
            Work::HandshakesX25519 | Work::IdleTcp | Work::Idle => self != Self::Direct,
            // HAProxy 2.6 leaves some of the slow clients without a first byte for longer than the generator waits.
            Work::Slow | Work::SlowOverH2 => matches!(self, Self::Weft | Self::Envoy),
            _ => true,
        }
    }

    pub(crate) fn start(self, lab: &Lab, work: Work) -> anyhow::Result<Pair> {
        if self == Self::Direct {
            lab.forget_rules()?;
            return Ok(Pair { target: ORIGIN, proxies: vec![], _controls: vec![] });
        }
        lab.redirect()?;
        match self {
            Self::Haproxy => haproxy::start(lab, work),
            Self::Envoy => envoy::start(lab, work),
            Self::Weft2 => weft::start(lab, work, 2),
            _ => weft::start(lab, work, 1),
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
            Self::Weft2 => "weft, two workers",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
        })
    }
}

impl Pair {
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.proxies.iter().map(Running::cpu).sum()
    }

    /// Ends the proxies in order: see [`Running::end`].
    pub(crate) fn end(self) -> anyhow::Result<()> {
        self.proxies.into_iter().try_for_each(Running::end)
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
