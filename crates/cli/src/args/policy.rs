//! The words of `weft policy`, `weft authz` and `weft get`.

use super::ToMesh;
use clap::{Args, Subcommand, ValueEnum};
use std::{net::IpAddr, path::PathBuf};
use weft_model::policy::inbound::DefaultPolicy;

#[derive(Args)]
pub(crate) struct Policy {
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Says whether a client would be let in, and by what: status 0 if it would, 1 if not, 2 if that cannot be told.
    Can(Can),
    /// Asks what files of cases ask: status 0 if all is as expected, 1 if not, 2 if something cannot be told.
    Test(Test),
}

#[derive(Args)]
pub(crate) struct Can {
    /// Who calls: [NAMESPACE/]deploy/NAME (or sts, ds, rs, rc, job, cj, po, sa), an identity, or an IP address.
    #[arg(value_name = "CLIENT")]
    pub(crate) client: String,
    /// Who is called: [NAMESPACE/]svc/NAME:PORT (or deploy, sts, ds, rs, rc, job, cj, po); a port by its number or name; or an IP address and its port.
    #[arg(value_name = "TARGET:PORT")]
    pub(crate) target: String,
    #[arg(value_name = "METHOD", default_value = "GET", requires = "path")]
    pub(crate) method: String,
    #[arg(value_name = "PATH", default_value = "/")]
    pub(crate) path: String,
    /// The host that the request asks for [default: each; it cannot be told where routes allow some and deny others]
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// A header of the request.
    #[arg(short = 'H', long, value_name = "NAME:VALUE")]
    pub(crate) header: Vec<String>,
    /// Where the client is [default: at its pod's addresses, or else anywhere in the cluster's networks]
    #[arg(long, value_name = "IP")]
    pub(crate) address: Option<IpAddr>,
    /// Manifests to ask instead of a mesh, as a cluster would run them.
    #[arg(short = 'f', long = "filename", value_name = "DIR|FILE|-", conflicts_with_all = ["local", "kubeconfig", "context"])]
    pub(crate) files: Vec<PathBuf>,
    /// Of manifests: the policy of ports for which nothing else says it [default: all-unauthenticated]
    #[arg(long, value_name = "POLICY", requires = "files")]
    pub(crate) default_inbound_policy: Option<DefaultPolicy>,
    /// Where names and manifests without a namespace are [default: the namespace of the kubeconfig's context, or default; with -f, default]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: TextOutput,
    #[command(flatten)]
    pub(crate) of: ToMesh,
}

#[derive(Args)]
pub(crate) struct Test {
    /// Cases: a document with `cases`, and the `manifests` that they are about, if it is none of a mesh.
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE|-")]
    pub(crate) cases: Vec<PathBuf>,
    /// Manifests to ask instead of those that the cases name, or of a mesh.
    #[arg(short, long, value_name = "DIR|FILE|-", conflicts_with_all = ["local", "kubeconfig", "context"])]
    pub(crate) manifests: Vec<PathBuf>,
    /// Writes the result for CI systems besides.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Where names and manifests without a namespace are [default: what the cases say, or as `weft policy can`]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: TestOutput,
    #[command(flatten)]
    pub(crate) of: ToMesh,
}

#[derive(Args)]
pub(crate) struct Authz {
    /// KIND/NAME, or every one of a KIND: deploy, sts, ds, rs, rc, job, cj, po; svc/NAME for the pods behind a Service, ns/NAME for all of a namespace.
    #[arg(value_name = "RESOURCE", required = true, num_args = 1..=2)]
    pub(crate) resource: Vec<String>,
    /// Manifests to ask instead of a mesh, as a cluster would run them.
    #[arg(short = 'f', long = "filename", value_name = "DIR|FILE|-", conflicts_with_all = ["local", "kubeconfig", "context"])]
    pub(crate) files: Vec<PathBuf>,
    /// Where it is, and manifests without a namespace [default: the namespace of the kubeconfig's context, or default; with -f, default]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) of: ToMesh,
}

#[derive(Args)]
pub(crate) struct Get {
    /// A kind such as httproutes, or one object of it [default: everything that has a kind of the mesh's own, and routes]
    #[arg(value_name = "KIND[/NAME]")]
    pub(crate) resource: Option<String>,
    /// Whose objects [default: all namespaces]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: TextOutput,
    #[command(flatten)]
    pub(crate) of: ToMesh,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextOutput {
    #[default]
    Table,
    Json,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TestOutput {
    #[default]
    Table,
    Json,
    Junit,
}
