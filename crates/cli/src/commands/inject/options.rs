//! From options to annotations.

use crate::args::{InjectOptions, ProxyOptions};
use anyhow::bail;
use weft_cluster::inject::{Annotations, check};

/// The annotations that the options ask for. What an annotation cannot be is no option either.
pub(super) fn annotations(options: &InjectOptions) -> anyhow::Result<Annotations> {
    // Taken apart, so that no option is forgotten.
    let InjectOptions {
        enable_debug_sidecar,
        close_wait_timeout,
        native_sidecar,
        wait_before_exit_seconds,
        require_identity_on_inbound_ports,
        ingress,
        opaque_ports,
        proxy,
    } = options;
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
    } = proxy;
    let list = |ports: &[String]| (!ports.is_empty()).then(|| ports.join(","));
    let image = registry.as_ref().map(|registry| format!("{}/proxy", registry.trim_end_matches('/')));
    let given = [
        (
            "enable-debug-sidecar",
            "config.linkerd.io/enable-debug-sidecar",
            enable_debug_sidecar.then(|| "true".to_owned()),
        ),
        ("close-wait-timeout", "config.linkerd.io/close-wait-timeout", close_wait_timeout.clone()),
        ("native-sidecar", "config.linkerd.io/proxy-enable-native-sidecar", native_sidecar.clone()),
        (
            "wait-before-exit-seconds",
            "config.alpha.linkerd.io/proxy-wait-before-exit-seconds",
            wait_before_exit_seconds.clone(),
        ),
        (
            "require-identity-on-inbound-ports",
            "config.linkerd.io/proxy-require-identity-inbound-ports",
            list(require_identity_on_inbound_ports),
        ),
        ("opaque-ports", "config.linkerd.io/opaque-ports", list(opaque_ports)),
        ("inbound-port", "config.linkerd.io/inbound-port", inbound_port.clone()),
        ("outbound-port", "config.linkerd.io/outbound-port", outbound_port.clone()),
        ("control-port", "config.linkerd.io/control-port", control_port.clone()),
        ("admin-port", "config.linkerd.io/admin-port", admin_port.clone()),
        ("skip-inbound-ports", "config.linkerd.io/skip-inbound-ports", list(skip_inbound_ports)),
        ("skip-outbound-ports", "config.linkerd.io/skip-outbound-ports", list(skip_outbound_ports)),
        ("proxy-uid", "config.linkerd.io/proxy-uid", proxy_uid.clone()),
        ("proxy-gid", "config.linkerd.io/proxy-gid", proxy_gid.clone()),
        ("proxy-log-level", "config.linkerd.io/proxy-log-level", proxy_log_level.clone()),
        ("proxy-cpu-request", "config.linkerd.io/proxy-cpu-request", proxy_cpu_request.clone()),
        ("proxy-cpu-limit", "config.linkerd.io/proxy-cpu-limit", proxy_cpu_limit.clone()),
        ("proxy-memory-request", "config.linkerd.io/proxy-memory-request", proxy_memory_request.clone()),
        ("proxy-memory-limit", "config.linkerd.io/proxy-memory-limit", proxy_memory_limit.clone()),
        ("enable-external-profiles", "config.linkerd.io/enable-external-profiles", enable_external_profiles.clone()),
        ("default-inbound-policy", "config.linkerd.io/default-inbound-policy", default_inbound_policy.clone()),
        ("registry", "config.linkerd.io/proxy-image", image),
        ("proxy-image", "config.linkerd.io/proxy-image", proxy_image.clone()),
        ("image-pull-policy", "config.linkerd.io/image-pull-policy", image_pull_policy.clone()),
        ("proxy-version", "config.linkerd.io/proxy-version", proxy_version.clone()),
    ];
    let mut annotations = Annotations::new();
    for (option, key, value) in given {
        let Some(value) = value else { continue };
        if let Err(message) = check(key, &value) {
            bail!("--{option} {value}: {message}");
        }
        annotations.insert(key.to_owned(), value);
    }
    if *ingress {
        annotations.insert("linkerd.io/inject".to_owned(), "ingress".to_owned());
    }
    Ok(annotations)
}
