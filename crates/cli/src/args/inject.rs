//! The words of `weft inject` and `weft uninject`: Linkerd's.

use super::ToCluster;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Inject {
    /// Manifests, of 10 MiB at most each: a file, a folder with all that is below it, an https URL (30s at most), or `-` for standard input.
    #[arg(value_name = "FILE|DIR|URL|-")]
    pub(crate) from: String,
    /// Writes the proxies into the manifests, instead of having the cluster's injector add them.
    #[arg(long)]
    pub(crate) manual: bool,
    /// Asks no cluster for the values of the installation and its trust anchors; with --manual these are given by --values and
    /// --identity-trust-anchors-file. Without --manual no cluster is asked anyway.
    #[arg(long)]
    pub(crate) ignore_cluster: bool,
    /// The certificates that --manual proxies trust, PEM (`-`: standard input) [default: the cluster's]
    #[arg(long, value_name = "FILE", requires = "manual")]
    pub(crate) identity_trust_anchors_file: Option<PathBuf>,
    /// Values of the installation that --manual proxies belong to, YAML (`-`: standard input), above the cluster's; of several files the
    /// last holds.
    #[arg(short = 'f', long, value_name = "FILE", requires = "manual")]
    pub(crate) values: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) to: ToCluster,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ManifestFormat,
    /// Tells every check, not only those that found something.
    #[arg(long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) options: InjectOptions,
    /// Has been taken out: identity cannot be disabled.
    #[arg(long, hide = true)]
    pub(crate) disable_identity: bool,
}

/// What is said of the proxies of these pods alone.
#[derive(Args)]
pub(crate) struct InjectOptions {
    /// Adds a container with tools that look at the pod's traffic.
    #[arg(long)]
    pub(crate) enable_debug_sidecar: bool,
    /// How long the kernel remembers half-closed connections, such as 10s.
    #[arg(long, value_name = "DURATION")]
    pub(crate) close_wait_timeout: Option<String>,
    /// Whether the proxy is a native sidecar.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) native_sidecar: Option<String>,
    /// How long the proxy waits until it ends, if it is no native sidecar.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait_before_exit_seconds: Option<String>,
    /// Ports whose clients must prove an identity.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub(crate) require_identity_on_inbound_ports: Vec<String>,
    /// Ingress mode: a request may name its target.
    #[arg(long)]
    pub(crate) ingress: bool,
    /// Ports that are forwarded as bytes, without detection.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub(crate) opaque_ports: Vec<String>,
    #[command(flatten)]
    pub(crate) proxy: ProxyOptions,
}

/// What is said of proxies, of one manifest's or of all of an installation.
#[derive(Args, Clone, Default)]
pub(crate) struct ProxyOptions {
    #[arg(long, value_name = "PORT")]
    pub(crate) inbound_port: Option<String>,
    #[arg(long, value_name = "PORT")]
    pub(crate) outbound_port: Option<String>,
    #[arg(long, value_name = "PORT")]
    pub(crate) control_port: Option<String>,
    #[arg(long, value_name = "PORT")]
    pub(crate) admin_port: Option<String>,
    /// Ports of the pods that are not redirected, such as 25,4000-4100.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub(crate) skip_inbound_ports: Vec<String>,
    /// Ports of others that are not redirected.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub(crate) skip_outbound_ports: Vec<String>,
    /// The user that the proxies run as.
    #[arg(long, value_name = "UID")]
    pub(crate) proxy_uid: Option<String>,
    #[arg(long, value_name = "GID", allow_hyphen_values = true)]
    pub(crate) proxy_gid: Option<String>,
    #[arg(long, value_name = "FILTER")]
    pub(crate) proxy_log_level: Option<String>,
    #[arg(long, value_name = "QUANTITY", alias = "proxy-cpu")]
    pub(crate) proxy_cpu_request: Option<String>,
    #[arg(long, value_name = "QUANTITY")]
    pub(crate) proxy_cpu_limit: Option<String>,
    #[arg(long, value_name = "QUANTITY", alias = "proxy-memory")]
    pub(crate) proxy_memory_request: Option<String>,
    #[arg(long, value_name = "QUANTITY")]
    pub(crate) proxy_memory_limit: Option<String>,
    /// Whether profiles are looked up for names outside the cluster too.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) enable_external_profiles: Option<String>,
    /// Who may call ports that no Server selects.
    #[arg(long, value_name = "POLICY")]
    pub(crate) default_inbound_policy: Option<String>,
    /// Where the proxy's image is pulled from.
    #[arg(long, value_name = "REGISTRY")]
    pub(crate) registry: Option<String>,
    /// Without its tag.
    #[arg(long, value_name = "IMAGE", hide = true, conflicts_with = "registry")]
    pub(crate) proxy_image: Option<String>,
    #[arg(long, value_name = "POLICY", hide = true)]
    pub(crate) image_pull_policy: Option<String>,
    /// The tag of the proxy's image.
    #[arg(short = 'v', long, value_name = "TAG", hide = true)]
    pub(crate) proxy_version: Option<String>,
}

#[derive(Args)]
pub(crate) struct Uninject {
    /// Manifests, of 10 MiB at most each: a file, a folder with all that is below it, an https URL (30s at most), or `-` for standard input.
    #[arg(value_name = "FILE|DIR|URL|-")]
    pub(crate) from: String,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ManifestFormat,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ManifestFormat {
    #[default]
    Yaml,
    /// One document per line.
    Json,
}
