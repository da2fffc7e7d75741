//! The words of `weft install`, `upgrade`, `prune` and `uninstall`: Linkerd's.

use super::{ManifestFormat, ProxyOptions};
use clap::Args;
use std::path::PathBuf;

/// Which cluster, and where in it.
#[derive(Args, Clone)]
pub(crate) struct ToCluster {
    /// The cluster's [default: $KUBECONFIG, or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Which one of the kubeconfig's.
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The namespace of the control plane.
    #[arg(short = 'L', long, value_name = "NAMESPACE", env = "LINKERD_NAMESPACE", default_value = "linkerd", value_parser = namespace)]
    pub(crate) linkerd_namespace: String,
}

fn namespace(text: &str) -> Result<String, String> {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let valid =
        (1..=63).contains(&text.len()) && text.bytes().all(known) && !text.starts_with('-') && !text.ends_with('-');
    if valid {
        Ok(text.to_owned())
    } else {
        Err("a namespace has at most 63 lower-case letters, digits and '-', not at the ends".to_owned())
    }
}

#[derive(Args)]
pub(crate) struct Install {
    /// Prints the definitions of the mesh's own kinds, which come first; with installGatewayAPI those of the Gateway API's routes too.
    #[arg(long)]
    pub(crate) crds: bool,
    /// Asks no cluster whether it is ready.
    #[arg(long)]
    pub(crate) ignore_cluster: bool,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ManifestFormat,
    #[command(flatten)]
    pub(crate) to: ToCluster,
    #[command(flatten)]
    pub(crate) given: GivenValues,
    #[command(flatten)]
    pub(crate) only: InstallOnly,
    #[command(flatten)]
    pub(crate) options: InstallOptions,
    #[command(flatten)]
    pub(crate) proxy: ProxyOptions,
}

#[derive(Args)]
pub(crate) struct Upgrade {
    /// Prints the definitions of the mesh's own kinds, which come first; with installGatewayAPI those of the Gateway API's routes too.
    #[arg(long)]
    pub(crate) crds: bool,
    /// Asks no cluster: the installation is what the file (`-`: standard input) holds, its ConfigMaps and Secrets as YAML.
    #[arg(long, value_name = "FILE|-")]
    pub(crate) from_manifests: Option<PathBuf>,
    /// Also where running proxies would not believe each other, or objects would no longer hold.
    #[arg(long)]
    pub(crate) force: bool,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ManifestFormat,
    #[command(flatten)]
    pub(crate) to: ToCluster,
    #[command(flatten)]
    pub(crate) given: GivenValues,
    #[command(flatten)]
    pub(crate) options: InstallOptions,
    #[command(flatten)]
    pub(crate) proxy: ProxyOptions,
}

#[derive(Args)]
pub(crate) struct Prune {
    /// The version that the control plane should have [default: this command's]
    #[arg(long, value_name = "VERSION")]
    pub(crate) expected_version: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ManifestFormat,
    #[command(flatten)]
    pub(crate) to: ToCluster,
}

/// Values by their paths, as Helm has them.
#[derive(Args, Default)]
pub(crate) struct GivenValues {
    /// Values, YAML (`-`: standard input); of several files the last holds.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) values: Vec<PathBuf>,
    /// PATH=VALUE, several with commas.
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
    /// The same, and every value is a text.
    #[arg(long, value_name = "PATH=TEXT")]
    pub(crate) set_string: Vec<String>,
    /// The same, and the value is what the file holds.
    #[arg(long, value_name = "PATH=FILE")]
    pub(crate) set_file: Vec<String>,
}

/// What is said once: identities and certificates hang on it.
#[derive(Args, Default)]
pub(crate) struct InstallOnly {
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) cluster_domain: Option<String>,
    /// The end of all identities [default: the cluster's domain]
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) identity_trust_domain: Option<String>,
    /// Somebody else brings the issuer, as a Secret of type kubernetes.io/tls.
    #[arg(long)]
    pub(crate) identity_external_issuer: bool,
    /// Somebody else brings the trust anchors, as the ConfigMap linkerd-identity-trust-roots.
    #[arg(long)]
    pub(crate) identity_external_ca: bool,
}

/// What is said of the control plane.
#[derive(Args, Default)]
pub(crate) struct InstallOptions {
    /// Three replicas apart from each other, and no pod of the mesh without its proxy.
    #[arg(long)]
    pub(crate) ha: bool,
    #[arg(long, value_name = "LEVEL")]
    pub(crate) controller_log_level: Option<String>,
    #[arg(long, value_name = "NUMBER")]
    pub(crate) controller_replicas: Option<u32>,
    #[arg(long, value_name = "UID")]
    pub(crate) controller_uid: Option<u32>,
    #[arg(long, value_name = "GID", allow_hyphen_values = true)]
    pub(crate) controller_gid: Option<i64>,
    /// HTTP/1 is not carried on HTTP/2 between proxies.
    #[arg(long)]
    pub(crate) disable_h2_upgrade: bool,
    /// Changes nothing: weft never calls out.
    #[arg(long)]
    pub(crate) disable_heartbeat: bool,
    /// Changes nothing if it is true: EndpointSlices are all that weft reads.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) enable_endpoint_slices: Option<bool>,
    /// How long certificates of workloads are valid, such as 24h0m0s.
    #[arg(long, value_name = "DURATION")]
    pub(crate) identity_issuance_lifetime: Option<String>,
    #[arg(long, value_name = "DURATION")]
    pub(crate) identity_clock_skew_allowance: Option<String>,
    /// PEM. An installation wants the issuer's certificate and key with it.
    #[arg(long, value_name = "FILE")]
    pub(crate) identity_trust_anchors_file: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    pub(crate) identity_issuer_certificate_file: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    pub(crate) identity_issuer_key_file: Option<PathBuf>,
    /// The version of the images.
    #[arg(long, value_name = "VERSION", hide = true)]
    pub(crate) control_plane_version: Option<String>,
}

#[derive(Args)]
pub(crate) struct Uninstall {
    /// Also where pods of the mesh are running.
    #[arg(short, long)]
    pub(crate) force: bool,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ManifestFormat,
    #[command(flatten)]
    pub(crate) to: ToCluster,
}
