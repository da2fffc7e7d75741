//! The environment of a proxy in a pod, in Linkerd's order: tools find a variable by its name, people by its place.

use super::{
    TRUST_ANCHORS, TRUST_ROOTS, TRUST_ROOTS_KEY,
    sidecar::{Anchors, Sidecar},
};
use crate::values::{Proxy, Quantity, Resources, Side, Text, Workers};
use k8s_openapi::api::core::v1::{ConfigMapKeySelector, EnvVar, EnvVarSource, ObjectFieldSelector};
use std::collections::BTreeMap;
use weft_model::{
    Identity,
    names::{port, service_account},
};

/// A time-out that never comes.
const NEVER: &str = "365d";
/// Where the proxy keeps its key and certificate.
pub(super) const IDENTITY_DIR: &str = "/var/run/linkerd/identity/end-entity";
/// Where its token is.
pub(super) const TOKEN_DIR: &str = "/var/run/secrets/tokens";
pub(super) const TOKEN: &str = "linkerd-identity-token";
/// Where the pod's labels are, for traces.
pub(super) const PODINFO_DIR: &str = "/var/run/linkerd/podinfo";

struct Environment(Vec<EnvVar>);

impl Environment {
    fn text(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(EnvVar { name: name.to_owned(), value: Some(value.into()), value_from: None });
    }

    fn proxy(&mut self, name: &str, value: impl Into<String>) {
        self.text(&format!("LINKERD2_PROXY_{name}"), value);
    }

    /// Leaves out what is empty: the proxy's own default holds.
    fn given(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.proxy(name, value);
        }
    }

    fn field(&mut self, name: &str, path: &str) {
        let field_ref = Some(ObjectFieldSelector { api_version: None, field_path: path.to_owned() });
        let source = EnvVarSource { field_ref, ..EnvVarSource::default() };
        self.0.push(EnvVar { name: name.to_owned(), value: None, value_from: Some(source) });
    }
}

pub(super) fn variables(sidecar: &Sidecar<'_>) -> Vec<EnvVar> {
    let mut env = Environment(vec![]);
    env.pod();
    env.workers(&sidecar.values.proxy);
    env.addresses_and_policy(sidecar);
    env.listeners(sidecar);
    env.connections(sidecar);
    env.identity(sidecar);
    env.ends_and_traces(sidecar);
    let proxy = &sidecar.values.proxy;
    env.0
        .into_iter()
        .chain(proxy.additional_env.iter().cloned())
        .chain(proxy.experimental_env.iter().cloned())
        .collect()
}

impl Environment {
    fn pod(&mut self) {
        self.field("_pod_name", "metadata.name");
        self.field("_pod_ns", "metadata.namespace");
        self.field("_pod_uid", "metadata.uid");
        self.field("_pod_ip", "status.podIP");
        self.field("_pod_nodeName", "spec.nodeName");
        self.text("_pod_containerName", super::PROXY);
    }

    fn workers(&mut self, proxy: &Proxy) {
        let (minimum, maximum) = workers(&proxy.runtime.workers, &proxy.resources);
        // Older proxies know this one alone.
        let one = above_zero(proxy.cores).or(maximum).unwrap_or(minimum);
        self.proxy("CORES", one.to_string());
        self.proxy("CORES_MIN", minimum.to_string());
        if let Some(maximum) = maximum {
            self.proxy("CORES_MAX", maximum.to_string());
        }
        if let Some(ratio) = proxy.runtime.workers.maximum_cpu_ratio {
            self.proxy("CORES_MAX_RATIO", ratio.to_string());
        }
    }

    fn addresses_and_policy(&mut self, sidecar: &Sidecar<'_>) {
        let Sidecar { values, component, .. } = *sidecar;
        let proxy = &values.proxy;
        self.given("INBOUND_PORTS_REQUIRE_IDENTITY", &proxy.require_identity_on_inbound_ports);
        self.given("INBOUND_PORTS_REQUIRE_TLS", &proxy.require_tls_on_inbound_ports);
        self.proxy("SHUTDOWN_ENDPOINT_ENABLED", proxy.enable_shutdown_endpoint.to_string());
        let headers = if &*proxy.log_http_headers == "insecure" { "" } else { ",[{headers}]=off,[{request}]=off" };
        self.proxy("LOG", format!("{}{headers}", proxy.log_level));
        self.proxy("LOG_FORMAT", &*proxy.log_format);
        let local = component == Some(service_account::DESTINATION);
        self.proxy("DESTINATION_SVC_ADDR", sidecar.service("linkerd-dst-headless", port::DESTINATION, local));
        self.proxy("DESTINATION_PROFILE_NETWORKS", &*values.cluster_networks);
        self.proxy("POLICY_SVC_ADDR", sidecar.service("linkerd-policy", port::POLICY, local));
        self.proxy("POLICY_WORKLOAD", "{\"ns\":\"$(_pod_ns)\", \"pod\":\"$(_pod_name)\"}\n");
        self.proxy("INBOUND_DEFAULT_POLICY", &*proxy.default_inbound_policy);
        self.proxy("POLICY_CLUSTER_NETWORKS", &*values.cluster_networks);
        let streams = &proxy.control.streams;
        self.proxy("CONTROL_STREAM_INITIAL_TIMEOUT", &*streams.initial_timeout);
        self.proxy("CONTROL_STREAM_IDLE_TIMEOUT", &*streams.idle_timeout);
        self.proxy("CONTROL_STREAM_LIFETIME", &*streams.lifetime);
        self.given("INBOUND_CONNECT_TIMEOUT", &proxy.inbound_connect_timeout);
        self.given("OUTBOUND_CONNECT_TIMEOUT", &proxy.outbound_connect_timeout);
        self.given("OUTBOUND_DISCOVERY_IDLE_TIMEOUT", &proxy.outbound_discovery_cache_unused_timeout);
        self.given("INBOUND_DISCOVERY_IDLE_TIMEOUT", &proxy.inbound_discovery_cache_unused_timeout);
        if proxy.disable_outbound_protocol_detect_timeout {
            self.proxy("OUTBOUND_DETECT_TIMEOUT", NEVER);
        }
        if proxy.disable_inbound_protocol_detect_timeout {
            self.proxy("INBOUND_DETECT_TIMEOUT", NEVER);
        }
    }

    fn listeners(&mut self, sidecar: &Sidecar<'_>) {
        let Sidecar { values, .. } = *sidecar;
        let (proxy, ports) = (&values.proxy, &values.proxy.ports);
        let any = if values.disable_ipv6 { "0.0.0.0" } else { "[::]" };
        let outbound = format!("127.0.0.1:{}", ports.outbound);
        let both = if values.disable_ipv6 { outbound.clone() } else { format!("{outbound},[::1]:{}", ports.outbound) };
        self.proxy("CONTROL_LISTEN_ADDR", format!("{any}:{}", ports.control));
        self.proxy("ADMIN_LISTEN_ADDR", format!("{any}:{}", ports.admin));
        // Older proxies know this one alone.
        self.proxy("OUTBOUND_LISTEN_ADDR", outbound);
        self.proxy("OUTBOUND_LISTEN_ADDRS", both);
        self.proxy("INBOUND_LISTEN_ADDR", format!("{any}:{}", ports.inbound));
        self.field("LINKERD2_PROXY_INBOUND_IPS", "status.podIPs");
        self.proxy("INBOUND_PORTS", sidecar.inbound_ports);
        let suffix = format!("svc.{}.", values.cluster_domain);
        if proxy.is_gateway {
            self.proxy("INBOUND_GATEWAY_SUFFIXES", suffix.as_str());
        }
        if proxy.is_ingress {
            self.proxy("INGRESS_MODE", "true");
        }
        let suffixes = if proxy.enable_external_profiles { "." } else { suffix.as_str() };
        self.proxy("DESTINATION_PROFILE_SUFFIXES", suffixes);
    }

    fn connections(&mut self, sidecar: &Sidecar<'_>) {
        let proxy = &sidecar.values.proxy;
        self.proxy("INBOUND_ACCEPT_KEEPALIVE", "10000ms");
        self.proxy("OUTBOUND_CONNECT_KEEPALIVE", "10000ms");
        self.proxy("INBOUND_ACCEPT_USER_TIMEOUT", "30s");
        self.proxy("OUTBOUND_CONNECT_USER_TIMEOUT", "30s");
        self.proxy("OUTBOUND_METRICS_HOSTNAME_LABELS", proxy.metrics.hostname_labels.to_string());
        for (direction, Side { server }) in [("INBOUND", &proxy.inbound), ("OUTBOUND", &proxy.outbound)] {
            let http2 = &server.http2;
            self.proxy(&format!("{direction}_SERVER_HTTP2_KEEP_ALIVE_INTERVAL"), &*http2.keep_alive_interval);
            self.proxy(&format!("{direction}_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT"), &*http2.keep_alive_timeout);
        }
        self.given("INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", sidecar.opaque_ports);
        let context = "{\"ns\":\"$(_pod_ns)\", \"nodeName\":\"$(_pod_nodeName)\", \"pod\":\"$(_pod_name)\"}\n";
        self.proxy("DESTINATION_CONTEXT", context);
    }

    fn identity(&mut self, sidecar: &Sidecar<'_>) {
        let Sidecar { values, control_namespace: namespace, component, .. } = *sidecar;
        let domain = values.trust_domain();
        self.field("_pod_sa", "spec.serviceAccountName");
        self.text("_l5d_ns", namespace);
        self.text("_l5d_trustdomain", domain);
        self.proxy("IDENTITY_DIR", IDENTITY_DIR);
        match sidecar.anchors {
            Anchors::Text(pem) => self.text(TRUST_ANCHORS, format!("{}\n", pem.trim())),
            Anchors::ConfigMap => {
                let key = ConfigMapKeySelector {
                    name: TRUST_ROOTS.to_owned(),
                    key: TRUST_ROOTS_KEY.to_owned(),
                    optional: None,
                };
                let source = EnvVarSource { config_map_key_ref: Some(key), ..EnvVarSource::default() };
                self.0.push(EnvVar { name: TRUST_ANCHORS.to_owned(), value: None, value_from: Some(source) });
            }
        }
        self.proxy("IDENTITY_TOKEN_FILE", format!("{TOKEN_DIR}/{TOKEN}"));
        let local = component == Some(service_account::IDENTITY);
        self.proxy("IDENTITY_SVC_ADDR", sidecar.service("linkerd-identity-headless", port::IDENTITY, local));
        let name = |account: &str, of: &str| Identity::service_account_name(account, of, namespace, domain);
        self.proxy("IDENTITY_LOCAL_NAME", name("$(_pod_sa)", "$(_pod_ns)"));
        self.proxy("IDENTITY_SVC_NAME", name(service_account::IDENTITY, namespace));
        self.proxy("DESTINATION_SVC_NAME", name(service_account::DESTINATION, namespace));
        self.proxy("POLICY_SVC_NAME", name(service_account::DESTINATION, namespace));
    }

    fn ends_and_traces(&mut self, sidecar: &Sidecar<'_>) {
        let Sidecar { values, control_namespace: namespace, .. } = *sidecar;
        let proxy = &values.proxy;
        self.given("ACCESS_LOG", &proxy.access_log);
        self.given("SHUTDOWN_GRACE_PERIOD", &proxy.shutdown_grace_period);
        // The kubelet ends native sidecars itself.
        if sidecar.ends && !proxy.native_sidecar {
            self.field("WEFT_PROXY_SHUTDOWN_WITH_POD", "metadata.uid");
        }
        let tracing = &proxy.tracing;
        if !tracing.enabled {
            return;
        }
        let of = &tracing.collector.mesh_identity;
        let collector =
            Identity::service_account_name(&of.service_account_name, &of.namespace, namespace, values.trust_domain());
        let mut attributes: BTreeMap<&str, &str> = tracing.labels.iter().map(|(k, v)| (k.as_str(), &**v)).collect();
        attributes.extend(sidecar.trace_attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let lines: String = attributes.into_iter().map(|(k, v)| format!("{k}={v}\n")).collect();
        self.proxy("TRACE_PROTOCOL", "opentelemetry");
        self.proxy("TRACE_SERVICE_NAME", &*tracing.trace_service_name);
        self.proxy("TRACE_COLLECTOR_SVC_ADDR", &*tracing.collector.endpoint);
        self.proxy("TRACE_COLLECTOR_SVC_NAME", collector);
        self.proxy("TRACE_ATTRIBUTES_PATH", format!("{PODINFO_DIR}/labels"));
        self.given("TRACE_EXTRA_ATTRIBUTES", &lines);
    }
}

/// The least and the most worker threads: whole CPUs, as many as are requested and allowed.
fn workers(workers: &Workers, resources: &Resources) -> (u32, Option<u32>) {
    let cpus = |text: &Text| text.parse::<Quantity>().ok().map(Quantity::ceil).filter(|cpus| *cpus > 0);
    let minimum = cpus(&resources.cpu.request).unwrap_or_default().max(workers.minimum).max(1);
    let maximum = above_zero(workers.maximum).or_else(|| cpus(&resources.cpu.limit));
    (maximum.map_or(minimum, |most| minimum.min(most)), maximum)
}

/// 0 is Linkerd's word for none; the proxy does not take it.
fn above_zero(number: Option<u32>) -> Option<u32> {
    number.filter(|number| *number > 0)
}
