//! The words of the command line.

mod diagnostics;
mod inject;
mod install;
mod mesh;
mod policy;
mod profile;
#[cfg(test)]
mod reference;
mod refused;
mod written;

pub(crate) use diagnostics::{
    Ask, ControllerMetrics, Diagnostics, DiagnosticsCommand, Endpoints, MessageOutput, Policy as DiagnosticsPolicy,
    Profile as DiagnosticsProfile, ProxyMetrics,
};
pub(crate) use inject::{Inject, InjectOptions, ManifestFormat, ProxyOptions, Uninject};
pub(crate) use install::{GivenValues, Install, InstallOnly, InstallOptions, Prune, ToCluster, Uninstall, Upgrade};
pub(crate) use mesh::{Check, CheckOutput, Identity, Output, Ps, ToMesh, Version};
pub(crate) use policy::{Authz, Can, Get, Policy, PolicyCommand, Test, TestOutput, TextOutput};
pub(crate) use profile::Profile;
pub(crate) use refused::told as told_of_linkerds;
pub(crate) use written::as_clap_reads;

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use weft_cluster::annotation::PortRanges;
use weft_local::{HostService, Publish};
use weft_model::{decide::cidr::Cidr, policy::inbound::DefaultPolicy};

#[derive(Parser)]
#[command(name = "weft", version, about = "A service mesh that is API-compatible with Linkerd and runs on one machine")]
pub(crate) struct Args {
    /// The folder of the mesh's state: one mesh per folder [default: $XDG_STATE_HOME/weft, or ~/.local/state/weft]
    #[arg(long, global = true, value_name = "DIR", env = "WEFT_STATE")]
    pub(crate) state: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Runs a mesh from manifests, without Kubernetes and without root.
    Up(Up),
    /// Runs a mesh with a voting app in it and shows who talks to whom.
    Demo(Demo),
    /// Adds one program to a running mesh.
    Run(Run),
    /// Lists what runs in the mesh.
    Ps(Ps),
    /// Prints what a workload has written, after the mesh's end as well.
    Logs(Logs),
    /// Ends the mesh.
    Down,
    /// Has the pods of Kubernetes manifests join the mesh.
    Inject(Box<Inject>),
    /// Takes the mesh out of Kubernetes manifests.
    Uninject(Uninject),
    /// Prints what a control plane on Kubernetes consists of, for `kubectl apply -f -`; --crds comes first.
    Install(Box<Install>),
    /// Prints what the control plane in a cluster, Linkerd's too, becomes with this version and other values, for `kubectl apply -f -`.
    Upgrade(Box<Upgrade>),
    /// Prints what an upgrade has left in a cluster, for `kubectl delete -f -`.
    Prune(Prune),
    /// Looks whether a cluster is ready for the mesh, and the mesh in order.
    Check(Check),
    /// Prints what of the mesh is in a cluster, for `kubectl delete -f -`.
    Uninstall(Uninstall),
    /// Prints the versions of this command, of the control plane in a cluster and of its proxies.
    Version(Version),
    /// Prints a ServiceProfile made from what describes a service.
    Profile(Profile),
    /// Lists who lets somebody in to a workload: routes, Servers and authorizations.
    Authz(Authz),
    /// Shows objects of a mesh on this machine, and what became of them.
    Get(Get),
    /// Prints what the control plane tells proxies, and what its processes and the proxies tell of themselves.
    #[command(visible_alias = "dg")]
    Diagnostics(Box<Diagnostics>),
    /// Says what policies would say to requests before there are any.
    Policy(Box<Policy>),
    /// Prints the certificates by which pods prove who they are.
    Identity(Identity),
    /// Prints a script by which a shell completes weft's words: source <(weft completion bash).
    Completion(Completion),
    /// A process of the control plane on Kubernetes.
    #[command(hide = true)]
    ControlPlane(Box<ControlPlane>),
}

/// How the mesh meets the host.
#[derive(ClapArgs, Clone)]
pub(crate) struct Host {
    /// Lets the host reach a Service: [ADDRESS:]PORT:[NAMESPACE/]SERVICE:PORT, on loopback unless ADDRESS is given.
    #[arg(long, value_name = "SPEC")]
    pub(crate) publish: Vec<Publish>,
    /// Lets programs reach a service of the host by a name: NAME=127.0.0.1:5432.
    #[arg(long, value_name = "NAME=ADDRESS:PORT")]
    pub(crate) host_service: Vec<HostService>,
    /// Whether programs may reach addresses outside the mesh.
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub(crate) egress: Switch,
    /// Filter of the proxies' logs, as LINKERD2_PROXY_LOG.
    #[arg(long, value_name = "FILTER")]
    pub(crate) proxy_log: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(ClapArgs)]
pub(crate) struct Up {
    /// A manifest, or a folder with all that is below it; changes on disk are applied. `-` is standard input, read once, as pipes are.
    #[arg(short = 'f', long = "filename", required = true, value_name = "DIR|FILE|-", num_args = 1..)]
    pub(crate) files: Vec<PathBuf>,
    /// Returns when the mesh runs and lets it run on: every pod is ready or has failed, for which it waits 30s at most.
    #[arg(short, long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) host: Host,
}

#[derive(ClapArgs)]
pub(crate) struct Demo {
    /// Ends by itself after this long, such as 30s.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub(crate) length: Option<Duration>,
    /// Prints one JSON document at the end instead of a table. Needs --for.
    #[arg(long, requires = "length")]
    pub(crate) json: bool,
    /// Where the voting page is shown: [ADDRESS:]PORT. Another port is taken if this one is in use.
    #[arg(long, value_name = "[ADDRESS:]PORT", default_value = "8080")]
    pub(crate) publish: String,
}

#[derive(ClapArgs)]
pub(crate) struct Run {
    /// The workload's name, and its Service's.
    #[arg(long)]
    pub(crate) name: String,
    /// The port that the program serves.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    #[arg(long, default_value_t = 1)]
    pub(crate) replicas: u32,
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// NAME=VALUE for the program's environment.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(ClapArgs)]
pub(crate) struct Logs {
    /// A workload or a pod; linkerd/control-plane is the control plane.
    #[arg(value_name = "[NAMESPACE/]NAME")]
    pub(crate) name: String,
    /// Goes on with what is written from now on.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last so many lines.
    #[arg(long)]
    pub(crate) tail: Option<usize>,
    /// What the proxies have written instead of the programs.
    #[arg(long)]
    pub(crate) proxy: bool,
}

#[derive(ClapArgs)]
pub(crate) struct Completion {
    pub(crate) shell: Shell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// One process of the control plane. Pods are its users; `weft_cluster::install` renders its flags.
#[derive(ClapArgs)]
pub(crate) struct ControlPlane {
    #[command(subcommand)]
    pub(crate) mode: ControlPlaneMode,
    #[arg(long, global = true, default_value = "linkerd")]
    pub(crate) control_namespace: String,
    #[arg(long, global = true, default_value = "cluster.local")]
    pub(crate) trust_domain: String,
    #[arg(long, global = true, default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// The API server's; without it the process is a pod of the cluster.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The pod's name.
    #[arg(long, global = true, env = "HOSTNAME", default_value = "unknown")]
    pub(crate) instance: String,
    /// Filter of the log.
    #[arg(long, global = true, default_value = "info")]
    pub(crate) log_level: String,
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Plain)]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Plain,
    Json,
}

#[derive(Subcommand)]
pub(crate) enum ControlPlaneMode {
    /// Destination and policy.
    Destination {
        #[arg(long, default_value = "0.0.0.0:8086")]
        destination_addr: SocketAddr,
        #[arg(long, default_value = "0.0.0.0:8090")]
        policy_addr: SocketAddr,
        #[arg(long, default_value = "0.0.0.0:9996")]
        admin_addr: SocketAddr,
        #[arg(long, default_value = "all-unauthenticated")]
        default_inbound_policy: DefaultPolicy,
        /// Ports and ranges.
        #[arg(long, default_value = "25,587,3306,4444,5432,6379,9300,11211")]
        default_opaque_ports: PortRanges,
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8"
        )]
        cluster_networks: Vec<Cidr>,
        #[arg(long, value_delimiter = ',', default_value = "0.0.0.0/0,::/0")]
        probe_networks: Vec<Cidr>,
        /// HTTP/1 is carried on HTTP/2 between proxies.
        #[arg(long, default_value_t = true, action = ArgAction::Set)]
        enable_h2_upgrade: bool,
        /// Clients are sent to IPv6 addresses.
        #[arg(long, default_value_t = false, action = ArgAction::Set)]
        enable_ipv6: bool,
        /// Endpoints in a client's own zone have ten times the weight of others.
        #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        #[arg(action = ArgAction::Set)]
        ext_endpoint_zone_weights: bool,
        /// Applications ask for retries and timeouts by headers of their requests (`l5d-retry-http`, `l5d-timeout` and others).
        #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        #[arg(action = ArgAction::Set)]
        allow_l5d_request_headers: bool,
        /// Where ServiceProfiles are validated.
        #[arg(long, requires = "profile_validator_tls")]
        profile_validator_addr: Option<SocketAddr>,
        /// Holds tls.crt and tls.key.
        #[arg(long, value_name = "DIR", requires = "profile_validator_addr")]
        profile_validator_tls: Option<PathBuf>,
        /// Where policies and routes are validated.
        #[arg(long, requires = "policy_validator_tls")]
        policy_validator_addr: Option<SocketAddr>,
        /// Holds tls.crt and tls.key.
        #[arg(long, value_name = "DIR", requires = "policy_validator_addr")]
        policy_validator_tls: Option<PathBuf>,
    },
    /// Certificates.
    Identity {
        #[arg(long, default_value = "0.0.0.0:8080")]
        addr: SocketAddr,
        #[arg(long, default_value = "0.0.0.0:9990")]
        admin_addr: SocketAddr,
        /// Holds crt.pem and key.pem, or tls.crt and tls.key.
        #[arg(long, value_name = "DIR", default_value = "/var/run/linkerd/identity/issuer")]
        issuer: PathBuf,
        #[arg(long, value_name = "FILE", default_value = "/var/run/linkerd/identity/trust-roots/ca-bundle.crt")]
        trust_roots: PathBuf,
        #[arg(long, default_value = "24h", value_parser = durations)]
        issuance_lifetime: Duration,
        #[arg(long, default_value = "20s", value_parser = durations)]
        clock_skew_allowance: Duration,
    },
    /// The webhook that gives pods their proxy.
    ProxyInjector {
        #[arg(long, default_value = "0.0.0.0:8443")]
        addr: SocketAddr,
        #[arg(long, default_value = "0.0.0.0:9995")]
        admin_addr: SocketAddr,
        /// Holds tls.crt and tls.key.
        #[arg(long, value_name = "DIR", default_value = "/var/run/linkerd/tls")]
        tls: PathBuf,
        #[arg(long, value_name = "FILE", default_value = "/var/run/linkerd/config/values")]
        values: PathBuf,
        #[arg(long, value_name = "FILE", default_value = "/var/run/linkerd/identity/trust-roots/ca-bundle.crt")]
        trust_roots: PathBuf,
    },
}

/// As Go writes them, and so Linkerd's values: 24h0m0s, 1.5h.
fn durations(text: &str) -> Result<Duration, String> {
    weft_model::duration::parse_go(text).ok_or_else(|| "a duration is like 24h0m0s".to_owned())
}

/// A number and its unit: 500ms, 30s, 5m, 1h.
fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || "a duration is a number and one of ms, s, m, h, such as 30s".to_owned();
    let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
    let (number, unit) = text.split_at_checked(unit).ok_or_else(invalid)?;
    let number: u64 = number.parse().map_err(|_| invalid())?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    millis.map(Duration::from_millis).ok_or_else(invalid)
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a variable has the form NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_words_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations_of_linkerds_values_are_read() {
        assert_eq!(durations("24h0m0s"), Ok(Duration::from_secs(24 * 3600)));
        assert_eq!(durations("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(durations("1.5h"), Ok(Duration::from_secs(5400)));
        for bad in ["", "h", "1h30", "1h-1s", "1d", "99999999999999999999h"] {
            assert!(durations(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for bad in ["", "30", "s", "1.5s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
