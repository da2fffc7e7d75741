//! How a client finds the API server and proves who it is. Written as JSON, which is YAML, with everything inside.

use super::Home;
use anyhow::Context;
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

/// Writes the kubeconfig of one of the certificates' clients.
pub(crate) fn write(home: &Home, file: &Path, server: &str, client: &str) -> anyhow::Result<()> {
    let data = |name: String| base64(&home.pki().join(name));
    let name = format!("weft-{}", home.name());
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": { "server": server, "certificate-authority-data": data("ca.crt".into())? } }],
        "users": [{ "name": client, "user": {
            "client-certificate-data": data(format!("{client}.crt"))?,
            "client-key-data": data(format!("{client}.key"))?,
        } }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": client } }],
        "current-context": name,
    });
    fs::write(file, serde_json::to_string_pretty(&config)?).with_context(|| format!("writing {}", file.display()))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

fn base64(file: &Path) -> anyhow::Result<String> {
    let output = Command::new("base64").arg("--wrap=0").arg(file).output().context("starting base64")?;
    anyhow::ensure!(output.status.success(), "base64 could not read {}", file.display());
    Ok(String::from_utf8(output.stdout)?)
}
