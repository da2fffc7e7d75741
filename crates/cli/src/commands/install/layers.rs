//! From options to values: later layers lie over earlier ones.

use crate::args::{GivenValues, InstallOnly, InstallOptions, ProxyOptions};
use anyhow::{Context, anyhow, bail};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use weft_cluster::values::{Set, Values, highly_available, set, set_to};

/// All that is given. Like Linkerd's: `--ha`, then flags, then `--values`, then `--set`, `--set-string` and `--set-file`.
pub(in crate::commands) fn given(
    values: &GivenValues,
    only: &InstallOnly,
    options: &InstallOptions,
    proxy: &ProxyOptions,
) -> anyhow::Result<Vec<Value>> {
    let mut layers = vec![];
    if options.ha {
        layers.push(highly_available());
    }
    layers.push(flags(only, options, proxy)?);
    let GivenValues { values, set: typed, set_string, set_file } = values;
    for file in values {
        let layer = Values::layer(&read(file)?).map_err(|problems| anyhow!("{}: {problems}", file.display()))?;
        layers.push(layer);
    }
    for (texts, how) in [(typed, Set::Typed), (set_string, Set::Text)] {
        for text in texts {
            layers.push(set(text, how).map_err(|problem| anyhow!("{problem}"))?);
        }
    }
    for text in set_file {
        let Some((name, file)) = text.split_once('=') else {
            bail!("--set-file {text}: there is no '=' in it; write PATH=FILE");
        };
        layers.push(set_to(name, &read(Path::new(file))?).map_err(|problem| anyhow!("{problem}"))?);
    }
    Ok(layers)
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        return std::io::read_to_string(std::io::stdin()).context("reading standard input");
    }
    std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

fn flags(only: &InstallOnly, options: &InstallOptions, proxy: &ProxyOptions) -> anyhow::Result<Value> {
    let mut layer = Layer(Value::Object(Map::default()));
    let InstallOnly { cluster_domain, identity_trust_domain, identity_external_issuer, identity_external_ca } = only;
    layer.put("clusterDomain", cluster_domain.clone());
    layer.put("identityTrustDomain", identity_trust_domain.clone());
    layer.put("identity.issuer.scheme", identity_external_issuer.then_some("kubernetes.io/tls"));
    layer.put("identity.externalCA", identity_external_ca.then_some(true));
    layer.installation(options)?;
    layer.proxies(proxy)?;
    Ok(layer.0)
}

struct Layer(Value);

impl Layer {
    fn put(&mut self, path: &str, value: Option<impl Into<Value>>) {
        let Some(value) = value else { return };
        let mut at = &mut self.0;
        for key in path.split('.') {
            if !at.is_object() {
                *at = json!({});
            }
            at = &mut at[key];
        }
        *at = value.into();
    }

    fn installation(&mut self, options: &InstallOptions) -> anyhow::Result<()> {
        // Taken apart, so that no option is forgotten.
        let InstallOptions {
            ha: _,
            controller_log_level,
            controller_replicas,
            controller_uid,
            controller_gid,
            disable_h2_upgrade,
            disable_heartbeat,
            enable_endpoint_slices,
            identity_issuance_lifetime,
            identity_clock_skew_allowance,
            identity_trust_anchors_file,
            identity_issuer_certificate_file,
            identity_issuer_key_file,
            control_plane_version,
        } = options;
        let pem = |option: &str, file: &Option<PathBuf>| match file {
            None => Ok(None),
            Some(file) => match read(file)? {
                // What has no text would be the same as what is not given.
                text if text.trim().is_empty() => {
                    bail!("--{option} {}: it is empty; name a file with PEM", file.display())
                }
                text => Ok(Some(text)),
            },
        };
        self.put("controllerLogLevel", controller_log_level.clone());
        self.put("controllerReplicas", *controller_replicas);
        self.put("controllerUID", *controller_uid);
        self.put("controllerGID", *controller_gid);
        self.put("enableH2Upgrade", disable_h2_upgrade.then_some(false));
        self.put("disableHeartBeat", disable_heartbeat.then_some(true));
        self.put("enableEndpointSlices", *enable_endpoint_slices);
        self.put("identity.issuer.issuanceLifetime", identity_issuance_lifetime.clone());
        self.put("identity.issuer.clockSkewAllowance", identity_clock_skew_allowance.clone());
        self.put("identityTrustAnchorsPEM", pem("identity-trust-anchors-file", identity_trust_anchors_file)?);
        self.put(
            "identity.issuer.tls.crtPEM",
            pem("identity-issuer-certificate-file", identity_issuer_certificate_file)?,
        );
        self.put("identity.issuer.tls.keyPEM", pem("identity-issuer-key-file", identity_issuer_key_file)?);
        self.put("linkerdVersion", control_plane_version.clone());
        Ok(())
    }

    fn proxies(&mut self, options: &ProxyOptions) -> anyhow::Result<()> {
        let ProxyOptions {
            inbound_port,
            outbound_port,
            control_port,
            admin_port,
            skip_inbound_ports,
            skip_outbound_ports,
            proxy_uid,
            proxy_gid,
            proxy_log_level,
            proxy_cpu_request,
            proxy_cpu_limit,
            proxy_memory_request,
            proxy_memory_limit,
            enable_external_profiles,
            default_inbound_policy,
            registry,
            proxy_image,
            image_pull_policy,
            proxy_version,
        } = options;
        let list = |ports: &[String]| (!ports.is_empty()).then(|| ports.join(","));
        let number = |option: &str, text: &Option<String>| {
            let parsed =
                text.as_ref().map(|text| text.parse::<i64>().map_err(|_| anyhow!("--{option} {text}: no number")));
            parsed.transpose()
        };
        self.put("proxy.ports.inbound", number("inbound-port", inbound_port)?);
        self.put("proxy.ports.outbound", number("outbound-port", outbound_port)?);
        self.put("proxy.ports.control", number("control-port", control_port)?);
        self.put("proxy.ports.admin", number("admin-port", admin_port)?);
        self.put("proxyInit.ignoreInboundPorts", list(skip_inbound_ports));
        self.put("proxyInit.ignoreOutboundPorts", list(skip_outbound_ports));
        self.put("proxy.uid", number("proxy-uid", proxy_uid)?);
        self.put("proxy.gid", number("proxy-gid", proxy_gid)?);
        self.put("proxy.logLevel", proxy_log_level.clone());
        self.put("proxy.resources.cpu.request", proxy_cpu_request.clone());
        self.put("proxy.resources.cpu.limit", proxy_cpu_limit.clone());
        self.put("proxy.resources.memory.request", proxy_memory_request.clone());
        self.put("proxy.resources.memory.limit", proxy_memory_limit.clone());
        let external = enable_external_profiles.as_deref().map(str::parse::<bool>).transpose();
        self.put("proxy.enableExternalProfiles", external.context("--enable-external-profiles is true or false")?);
        self.put("proxy.defaultInboundPolicy", default_inbound_policy.clone());
        if let Some(registry) = registry {
            let registry = registry.trim_end_matches('/');
            for (path, image) in [
                ("controllerImage", "controller"),
                ("proxy.image.name", "proxy"),
                ("debugContainer.image.name", "debug"),
            ] {
                self.put(path, Some(format!("{registry}/{image}")));
            }
        }
        self.put("proxy.image.name", proxy_image.clone());
        self.put("imagePullPolicy", image_pull_policy.clone());
        self.put("proxy.image.version", proxy_version.clone());
        Ok(())
    }
}
