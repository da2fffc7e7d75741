//! Puts rules in force by the program that a machine has: nft, else one of iptables' variants.

use super::{
    Rules,
    iptables::{self, Family},
};
use std::{
    fmt,
    io::{self, Write},
    process::{Command, Stdio},
};

/// A program that knows how to tell rules to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firewall {
    Nft,
    /// iptables over the kernel's nftables.
    IptablesNft,
    /// Whatever the machine calls iptables.
    Iptables,
    /// iptables over the kernel's older tables.
    IptablesLegacy,
}

/// Why rules are not in force: what each program that was tried said.
#[derive(Debug, thiserror::Error)]
pub struct ApplyError(pub Vec<(Firewall, Refusal)>);

/// Why one program did not put them in force.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("is not installed")]
    Missing,
    #[error("could not be run: {0}")]
    Run(#[source] io::Error),
    #[error("refused the rules: {0}")]
    Refused(String),
}

/// Folders in which Debian keeps these programs, which an ordinary user's PATH often lacks.
const FOLDERS: &[&str] = &["", "/usr/sbin/", "/sbin/"];

impl Rules {
    /// Puts the rules in force in the calling thread's network namespace, by the first program that can. Blocks until it is done.
    ///
    /// # Errors
    /// None of the programs is there and takes the rules.
    pub fn apply(&self, order: &[Firewall]) -> Result<Firewall, ApplyError> {
        let mut refusals = vec![];
        for firewall in order {
            match firewall.apply(self) {
                Ok(()) => return Ok(*firewall),
                Err(refusal) => refusals.push((*firewall, refusal)),
            }
        }
        Err(ApplyError(refusals))
    }
}

impl Firewall {
    /// What is tried, the best first.
    pub const ALL: &[Self] = &[Self::Nft, Self::IptablesNft, Self::Iptables, Self::IptablesLegacy];

    fn apply(self, rules: &Rules) -> Result<(), Refusal> {
        let (v4, v6) = match self {
            Self::Nft => return run("nft", &["-f", "-"], &rules.ruleset()).map(drop),
            Self::IptablesNft => ("iptables-nft", "ip6tables-nft"),
            Self::Iptables => ("iptables", "ip6tables"),
            Self::IptablesLegacy => ("iptables-legacy", "ip6tables-legacy"),
        };
        let before = restore(rules, Family::V4, v4)?;
        match rules.ipv6.then(|| restore(rules, Family::V6, v6)) {
            // Another program is tried next, to which these would be somebody else's.
            Some(Err(refusal)) => take_back(v4, &before).and(Err(refusal)),
            Some(Ok(_)) | None => Ok(()),
        }
    }
}

/// One family in one transaction; what there was before.
fn restore(rules: &Rules, family: Family, name: &str) -> Result<String, Refusal> {
    let before = run(&format!("{name}-save"), &["-t", "nat"], "")?;
    run(&format!("{name}-restore"), &["--noflush", "--wait"], &iptables::render(rules, family, &before))?;
    Ok(before)
}

/// Brings back what there was.
fn take_back(name: &str, before: &str) -> Result<(), Refusal> {
    let is_told = before.lines().any(|line| line == "*nat");
    let before = if is_told { before } else { "*nat\nCOMMIT\n" };
    run(&format!("{name}-restore"), &["--wait"], before).map(drop)
}

/// Gives a program its input and returns its output.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, Refusal> {
    FOLDERS
        .iter()
        .map(|folder| run_at(&format!("{folder}{program}"), arguments, input))
        .find(|result| !matches!(result, Err(Refusal::Missing)))
        .unwrap_or(Err(Refusal::Missing))
}

fn run_at(program: &str, arguments: &[&str], input: &str) -> Result<String, Refusal> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| if e.kind() == io::ErrorKind::NotFound { Refusal::Missing } else { Refusal::Run(e) })?;
    // Closed by the drop, which is the end of its input. A write fails only where the program has ended: its status says why.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(Refusal::Run)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Refusal::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

impl fmt::Display for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::IptablesNft => "iptables-nft",
            Self::Iptables => "iptables",
            Self::IptablesLegacy => "iptables-legacy",
        })
    }
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no program put the rules in force")?;
        self.0.iter().try_for_each(|(firewall, refusal)| write!(f, "; {firewall} {refusal}"))
    }
}
