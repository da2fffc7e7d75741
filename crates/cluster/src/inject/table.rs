//! Every annotation by which a pod, its Namespace or a Service configures the mesh: one table for the cluster, for the mesh on
//! one machine and for the documentation.

use super::settings::{Settings, read};
use crate::{
    annotation::{PortList, PortRanges, REQUIRE_IDENTITY_PORTS},
    values::Form,
};
use weft_model::{decide::cidr::Cidr, names::annotation as names, policy::inbound::DefaultPolicy};

/// One annotation.
pub(crate) struct Annotation {
    pub(crate) key: &'static str,
    /// What a value is.
    pub(crate) value: &'static str,
    pub(crate) about: &'static str,
    /// Whether a pod takes it over from its Namespace.
    pub(crate) inherited: bool,
    pub(crate) mistake: Mistake,
    /// Whether the mesh on one machine acts on it.
    pub(crate) local: bool,
    /// Reads a value.
    pub(super) set: fn(&str, &mut Settings) -> Result<(), String>,
}

/// What is done with a value that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// The pod is refused: with the default it could be reached, or reach others, otherwise than its owner thinks.
    Refused,
    /// The default holds, and a warning says so.
    Default,
}

type Set = fn(&str, &mut Settings) -> Result<(), String>;

const fn row(key: &'static str, value: &'static str, about: &'static str, set: Set) -> Annotation {
    Annotation { key, value, about, inherited: true, mistake: Mistake::Default, local: false, set }
}

impl Annotation {
    const fn refused(mut self) -> Self {
        self.mistake = Mistake::Refused;
        self
    }

    const fn own(mut self) -> Self {
        self.inherited = false;
        self
    }

    const fn local(mut self) -> Self {
        self.local = true;
        self
    }
}

/// Written by the mesh itself; nothing is read from them.
pub(crate) const WRITTEN: [&str; 3] = [super::CREATED_BY, super::PROXY_VERSION, super::TRUST_ROOT_SHA256];

/// Resource attributes of traces: what stands behind the prefix is the attribute's name.
pub(crate) const TRACE_ATTRIBUTE_PREFIX: &str = "resource.opentelemetry.io/";
pub(crate) const ADDITIONAL_ENV: &str = "config.linkerd.io/proxy-additional-env";
pub(crate) const NATIVE_SIDECAR: [&str; 3] = [
    "config.alpha.linkerd.io/proxy-enable-native-sidecar",
    "config.beta.linkerd.io/proxy-enable-native-sidecar",
    "config.linkerd.io/proxy-enable-native-sidecar",
];
/// The proxy's own ports, each of which is another.
pub(crate) const PROXY_PORTS: [&str; 4] = [
    "config.linkerd.io/control-port",
    "config.linkerd.io/admin-port",
    "config.linkerd.io/inbound-port",
    "config.linkerd.io/outbound-port",
];
pub(crate) const WAIT_BEFORE_EXIT: &str = "config.alpha.linkerd.io/proxy-wait-before-exit-seconds";
pub(crate) const CLOSE_WAIT_TIMEOUT: &str = "config.linkerd.io/close-wait-timeout";
pub(crate) const DEBUG_SIDECAR: &str = "config.linkerd.io/enable-debug-sidecar";

/// In the order in which they are read: of two that say the same, the later one holds.
#[rustfmt::skip]
pub(crate) const TABLE: &[Annotation] = &[
    row("config.linkerd.io/proxy-image", "image", "The proxy's image, without its tag", |v, s| read::formed(v, Form::Image, &mut s.values.proxy.image.name)),
    row("config.linkerd.io/proxy-version", "tag", "The tag of the proxy's image", |v, s| read::formed(v, Form::Version, &mut s.values.proxy.image.version)),
    row("config.linkerd.io/image-pull-policy", "Always, IfNotPresent or Never", "When the proxy's image is pulled", |v, s| read::pull_policy(v, &mut s.values.proxy.image.pull_policy)),
    row("config.linkerd.io/debug-image", "image", "The debug container's image, without its tag", |v, s| read::formed(v, Form::Image, &mut s.values.debug_container.image.name)),
    row("config.linkerd.io/debug-image-version", "tag", "The tag of the debug container's image", |v, s| read::formed(v, Form::Version, &mut s.values.debug_container.image.version)),
    row("config.linkerd.io/debug-image-pull-policy", "Always, IfNotPresent or Never", "When the debug container's image is pulled", |v, s| read::pull_policy(v, &mut s.values.debug_container.image.pull_policy)),
    row(DEBUG_SIDECAR, "bool", "Adds the container linkerd-debug", |v, s| read::bool(v, &mut s.debug)).own(),
    row(PROXY_PORTS[0], "port", "The port of the proxy's tap server", |v, s| read::port(v, &mut s.values.proxy.ports.control)).refused(),
    row(PROXY_PORTS[1], "port", "The port of the proxy's metrics and probes", |v, s| read::port(v, &mut s.values.proxy.ports.admin)).refused(),
    row(PROXY_PORTS[2], "port", "The port to which connections to the pod are redirected", |v, s| read::port(v, &mut s.values.proxy.ports.inbound)).refused(),
    row(PROXY_PORTS[3], "port", "The port to which connections of the pod are redirected", |v, s| read::port(v, &mut s.values.proxy.ports.outbound)).refused(),
    row("config.linkerd.io/pod-inbound-ports", "ports", "Ignored: the ports are those that the containers declare", |_, _| Err("the ports are those that the containers declare".to_owned())),
    row(names::SKIP_INBOUND_PORTS, "ports and ranges", "Ports of the pod that are not redirected", |v, s| read::valid::<PortRanges>(v, &mut s.values.proxy_init.ignore_inbound_ports)).refused().local(),
    row(names::SKIP_OUTBOUND_PORTS, "ports and ranges", "Ports of others that are not redirected", |v, s| read::valid::<PortRanges>(v, &mut s.values.proxy_init.ignore_outbound_ports)).refused().local(),
    row("config.linkerd.io/skip-subnets", "networks", "Clients whose connections to the pod are not redirected", |v, s| read::networks(v, &mut s.values.proxy_init.skip_subnets)).refused(),
    row(names::OPAQUE_PORTS, "ports, ranges and names of ports", "Ports that are forwarded as bytes, without detection", |v, s| read::valid::<PortList>(v, &mut s.values.proxy.opaque_ports)).refused().local(),
    row(REQUIRE_IDENTITY_PORTS, "ports and ranges", "Ports whose clients must prove an identity", |v, s| read::valid::<PortRanges>(v, &mut s.values.proxy.require_identity_on_inbound_ports)).refused().local(),
    row(names::DEFAULT_INBOUND_POLICY, "name of a policy", "Who may call ports that no Server selects", |v, s| read::valid::<DefaultPolicy>(v, &mut s.values.proxy.default_inbound_policy)).refused().local(),
    row("config.linkerd.io/enable-external-profiles", "bool", "Looks up profiles for names outside the cluster too", |v, s| read::bool(v, &mut s.values.proxy.enable_external_profiles)),
    row("config.linkerd.io/proxy-cpu-request", "quantity", "CPUs requested for the proxy", |v, s| read::quantity(v, &mut s.values.proxy.resources.cpu.request)),
    row("config.linkerd.io/proxy-cpu-limit", "quantity", "Most CPUs of the proxy, and of its worker threads", |v, s| read::quantity(v, &mut s.values.proxy.resources.cpu.limit)),
    row("config.linkerd.io/proxy-memory-request", "quantity", "Memory requested for the proxy", |v, s| read::quantity(v, &mut s.values.proxy.resources.memory.request)),
    row("config.linkerd.io/proxy-memory-limit", "quantity", "Most memory of the proxy", |v, s| read::quantity(v, &mut s.values.proxy.resources.memory.limit)),
    row("config.linkerd.io/proxy-ephemeral-storage-request", "quantity", "Disk space requested for the proxy", |v, s| read::quantity(v, &mut s.values.proxy.resources.ephemeral_storage.request)),
    row("config.linkerd.io/proxy-ephemeral-storage-limit", "quantity", "Most disk space of the proxy", |v, s| read::quantity(v, &mut s.values.proxy.resources.ephemeral_storage.limit)),
    row("config.linkerd.io/proxy-cpu-ratio-limit", "number above 0, at most 1", "Most worker threads, as a part of the node's CPUs", |v, s| read::ratio(v, &mut s.values.proxy.runtime.workers.maximum_cpu_ratio)).own(),
    row("config.linkerd.io/proxy-uid", "number above 0", "The user that the proxy runs as, by whom redirection knows it", |v, s| read::uid(v, &mut s.values.proxy.uid)).refused(),
    row("config.linkerd.io/proxy-gid", "number", "The group that the proxy runs as", |v, s| read::gid(v, &mut s.values.proxy.gid)).refused(),
    row("config.linkerd.io/proxy-log-level", "filter", "What the proxy logs", |v, s| read::formed(v, Form::Filter, &mut s.values.proxy.log_level)),
    row("config.linkerd.io/proxy-log-format", "plain or json", "The form of a log line", |v, s| read::one_of(v, &["plain", "json"], &mut s.values.proxy.log_format)),
    row("config.linkerd.io/proxy-log-http-headers", "off or insecure", "Whether headers may be logged", |v, s| read::one_of(v, &["off", "insecure"], &mut s.values.proxy.log_http_headers)),
    row("config.linkerd.io/access-log", "apache or json", "Writes a line per inbound request", |v, s| read::one_of(v, &["apache", "json"], &mut s.values.proxy.access_log)),
    row("config.linkerd.io/proxy-metrics-hostname-labels", "bool", "Tells apart in metrics which names the pod calls", |v, s| read::bool(v, &mut s.values.proxy.metrics.hostname_labels)),
    row("config.linkerd.io/proxy-outbound-connect-timeout", "duration", "How long connecting to another pod may take", |v, s| read::positive_millis(v, &mut s.values.proxy.outbound_connect_timeout)),
    row("config.linkerd.io/proxy-inbound-connect-timeout", "duration", "How long connecting to the application may take", |v, s| read::positive_millis(v, &mut s.values.proxy.inbound_connect_timeout)),
    row("config.linkerd.io/proxy-outbound-discovery-cache-unused-timeout", "duration", "How long an unused target is remembered", |v, s| read::seconds(v, &mut s.values.proxy.outbound_discovery_cache_unused_timeout)),
    row("config.linkerd.io/proxy-inbound-discovery-cache-unused-timeout", "duration", "How long the policy of an unused port is remembered", |v, s| read::seconds(v, &mut s.values.proxy.inbound_discovery_cache_unused_timeout)),
    row("config.linkerd.io/proxy-disable-outbound-protocol-detect-timeout", "bool", "Waits for the first bytes of the application without end", |v, s| read::bool(v, &mut s.values.proxy.disable_outbound_protocol_detect_timeout)),
    row("config.linkerd.io/proxy-disable-inbound-protocol-detect-timeout", "bool", "Waits for the first bytes of clients without end", |v, s| read::bool(v, &mut s.values.proxy.disable_inbound_protocol_detect_timeout)),
    row("config.linkerd.io/proxy-admin-shutdown", "enabled or disabled", "Lets POST /shutdown on the admin port end the proxy", |v, s| read::enabled(v, &mut s.values.proxy.enable_shutdown_endpoint)),
    row("config.linkerd.io/shutdown-grace-period", "duration", "How long open connections may go on when the proxy ends", |v, s| read::millis(v, &mut s.values.proxy.shutdown_grace_period)),
    row("config.linkerd.io/proxy-await", "enabled or disabled", "Whether the containers start when the proxy is ready", |v, s| read::enabled(v, &mut s.values.proxy.await_ready)),
    row(NATIVE_SIDECAR[0], "bool", "Older name of config.linkerd.io/proxy-enable-native-sidecar", |v, s| read::bool(v, &mut s.values.proxy.native_sidecar)),
    row(NATIVE_SIDECAR[1], "bool", "Older name of config.linkerd.io/proxy-enable-native-sidecar", |v, s| read::bool(v, &mut s.values.proxy.native_sidecar)),
    row(NATIVE_SIDECAR[2], "bool", "Whether the proxy is a native sidecar: an init container that goes on", |v, s| read::bool(v, &mut s.values.proxy.native_sidecar)),
    row(WAIT_BEFORE_EXIT, "seconds", "How long the proxy waits until it ends, if it is no native sidecar", |v, s| read::number(v, &mut s.values.proxy.wait_before_exit_seconds)),
    row(CLOSE_WAIT_TIMEOUT, "duration", "How long the kernel remembers half-closed connections; linkerd-init must be root", |v, s| read::whole_seconds(v, &mut s.values.proxy_init.close_wait_timeout_secs)),
    row("config.linkerd.io/enable-gateway", "bool", "Forwards to names of the cluster what other clusters send", |v, s| read::bool(v, &mut s.values.proxy.is_gateway)).own(),
    row(ADDITIONAL_ENV, "JSON list of variables", "Further variables of the proxy", |v, s| read::env(v, &mut s.values.proxy.additional_env)).refused(),
];

/// The row of an annotation.
pub(crate) fn find(key: &str) -> Option<&'static Annotation> {
    TABLE.iter().find(|row| row.key == key)
}

/// The annotations by which a pod's proxy differs from the installation's, under the names that metrics give them.
pub fn overridden(annotations: &super::Annotations) -> impl Iterator<Item = (String, &str)> {
    annotations
        .iter()
        .filter(|(key, _)| find(key).is_some())
        .filter_map(|(key, value)| Some((key.strip_prefix("config.linkerd.io/")?.replace('-', "_"), value.as_str())))
}

/// Whether the mesh has an annotation of this name.
pub(crate) fn is_known(key: &str) -> bool {
    key == names::INJECT || find(key).is_some() || WRITTEN.contains(&key)
}

impl Annotation {
    /// Whether the value can be read.
    pub(crate) fn check(&self, value: &str) -> Result<(), String> {
        (self.set)(value, &mut Settings::default())
    }
}

/// Reads the networks of a list, which may have spaces in it.
pub(super) fn networks(text: &str) -> Result<(), String> {
    text.split(',').map(str::trim).filter(|n| !n.is_empty()).try_for_each(|network| match network.parse::<Cidr>() {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_annotation_stands_once() {
        let keys: HashSet<&str> = TABLE.iter().map(|row| row.key).collect();
        assert_eq!(keys.len(), TABLE.len());
        for row in TABLE {
            assert!(!row.value.is_empty() && !row.about.is_empty() && !row.about.ends_with('.'), "{}", row.key);
            // The name of another setting, and a text for every type that is read, cannot be a value of all.
            assert!(row.key.starts_with("config."), "{}", row.key);
        }
    }
}
