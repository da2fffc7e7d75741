//! Who is who in a cluster: one authority, and a certificate for each server and client. Made by the openssl of the machine.

use super::{NODE, NODE_V6};
use anyhow::{Context, bail};
use std::{path::Path, process::Command};

/// Clients: the file's name, and the subject that Kubernetes knows them by.
const CLIENTS: &[(&str, &str)] = &[
    ("admin", "/O=system:masters/CN=weft-cluster-admin"),
    ("kubelet", "/O=system:nodes/CN=system:node:node1"),
    ("controller-manager", "/CN=system:kube-controller-manager"),
    ("scheduler", "/CN=system:kube-scheduler"),
    ("proxy", "/CN=system:kube-proxy"),
    ("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client"),
    ("front-proxy", "/CN=front-proxy-client"),
];

/// Makes everything in a folder.
pub(crate) fn make(folder: &Path) -> anyhow::Result<()> {
    openssl(
        folder,
        "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -keyout ca.key -out ca.crt \
         -addext keyUsage=critical,keyCertSign,cRLSign",
        "/CN=weft-cluster",
        "",
    )?;
    let names = format!(
        "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
         DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:10.96.0.1,IP:{NODE},IP:{NODE_V6},IP:fd00:96::1"
    );
    signed(folder, "apiserver", "/CN=kube-apiserver", "serverAuth", &names)?;
    for (name, subject) in CLIENTS {
        signed(folder, name, subject, "clientAuth", "")?;
    }
    // Signs the tokens of service accounts.
    let mut command = Command::new("openssl");
    command.args("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out accounts.key".split(' '));
    finish(folder, &mut command)?;
    let mut command = Command::new("openssl");
    command.args("pkey -in accounts.key -pubout -out accounts.pub".split(' '));
    finish(folder, &mut command)
}

fn signed(folder: &Path, name: &str, subject: &str, usage: &str, extension: &str) -> anyhow::Result<()> {
    let arguments = format!(
        "-x509 -CA ca.crt -CAkey ca.key -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
         -keyout {name}.key -out {name}.crt -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage={usage}"
    );
    openssl(folder, &arguments, subject, extension)
}

fn openssl(folder: &Path, arguments: &str, subject: &str, extension: &str) -> anyhow::Result<()> {
    let mut command = Command::new("openssl");
    command.arg("req").args(arguments.split_whitespace()).args(["-subj", subject]);
    if !extension.is_empty() {
        command.args(["-addext", extension]);
    }
    finish(folder, &mut command)
}

fn finish(folder: &Path, command: &mut Command) -> anyhow::Result<()> {
    let output = command.current_dir(folder).output().context("starting openssl")?;
    if !output.status.success() {
        bail!("openssl: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
