//! Whether values can be what they say, each by itself and together.

use super::{
    Amounts, Quantity, Resources, Validator, Values,
    form::{self, STREAM_TIMES},
    kind::{self, Kind},
    layer::{Problem, problem},
};
use crate::{
    annotation::{PortList, PortRanges},
    ports,
};
use serde_json::Value;
use std::collections::HashMap;
use weft_model::{decide::cidr::Cidr, duration};

/// Where Linkerd's images are.
const OF_LINKERD: &str = "cr.l5d.io/linkerd/";

pub(super) struct Check(Vec<Problem>);

pub(super) fn all(values: &Values) -> Vec<Problem> {
    let mut check = Check(vec![]);
    check.names(values);
    check.texts(values);
    check.numbers(values);
    check.networks_and_ports(values);
    check.proxy(values);
    check.resources(values);
    check.webhooks(values);
    check.identity(values);
    check.0
}

/// What the API server would refuse besides, or would run in vain: for who installs, and not for who reads what stands in a cluster.
pub(super) fn api_server(values: &Values) -> Vec<Problem> {
    let mut check = Check(vec![]);
    check.api_server(values);
    if values.controller_image.starts_with(OF_LINKERD) {
        let remedy = "remove it, with what else of Linkerd's is named: linkerdVersion, controllerImageVersion, proxy.image, debugContainer.image";
        check.wrong("controllerImage", "it is Linkerd's, in which weft is not", remedy);
    }
    check.0
}

impl Check {
    pub(super) fn wrong(&mut self, path: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(problem(path, message, remedy));
    }

    pub(super) fn one_of(&mut self, path: &str, value: &str, allowed: &[&str]) {
        if !allowed.contains(&value) {
            let shown: Vec<&str> = allowed.iter().map(|a| if a.is_empty() { "\"\"" } else { a }).collect();
            self.wrong(path, format!("{value:?} is none of its values"), format!("use one of: {}", shown.join(", ")));
        }
    }

    fn parses<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, path: &str, value: &str, remedy: &str) {
        if let Err(error) = value.parse::<T>() {
            self.wrong(path, error.to_string(), remedy);
        }
    }

    fn names(&mut self, values: &Values) {
        for (path, name) in
            [("clusterDomain", &values.cluster_domain), ("identityTrustDomain", &values.identity_trust_domain)]
        {
            if !(is_domain(name) || name.is_empty()) {
                let message = format!("{:?} is no DNS name", &**name);
                self.wrong(path, message, "use lower-case letters, digits, '-' and '.'");
            }
        }
    }

    fn texts(&mut self, values: &Values) {
        let tree = serde_json::to_value(values).unwrap_or_default();
        let text = |path: &str| value(&tree, path).and_then(Value::as_str).unwrap_or_default();
        for (path, allowed) in kind::choices() {
            self.one_of(path, text(path), &allowed);
        }
        for (path, kind, default) in kind::kinds() {
            if matches!(kind, Kind::Text) && text(&path).is_empty() && !kind::may_be_empty(&path, &default) {
                self.wrong(path, "it is empty", "give it, or remove it");
            }
        }
        for (path, form) in form::forms() {
            let given = text(path);
            if !(given.is_empty() || form.fits(given)) {
                self.wrong(path, format!("{} is no {}", shown(given), form.noun()), form.remedy());
            }
        }
        // The proxy does not start with a shorter one behind a longer one.
        for (shorter, longer) in STREAM_TIMES.iter().zip(STREAM_TIMES.iter().skip(1)) {
            if let (Some(first), Some(second)) = (duration::parse(text(shorter)), duration::parse(text(longer)))
                && first > second
            {
                self.wrong(*shorter, format!("it is longer than {longer}"), "shorten it, or lengthen the other");
            }
        }
    }

    fn numbers(&mut self, values: &Values) {
        let tree = serde_json::to_value(values).unwrap_or_default();
        for (path, kind, default) in kind::kinds() {
            let bounds = match kind {
                Kind::Number => kind::bounds(&path, &default),
                Kind::Port => kind::PORTS,
                _ => continue,
            };
            let number = value(&tree, &path).and_then(Value::as_i64);
            if let Some(number) = number.filter(|number| !bounds.contains(number)) {
                let remedy = format!("use a number from {} to {}", bounds.start(), bounds.end());
                self.wrong(path, format!("{number} is out of bounds"), remedy);
            }
        }
    }

    fn networks_and_ports(&mut self, values: &Values) {
        self.networks("clusterNetworks", values.cluster_networks.split(','));
        self.networks("policyController.probeNetworks", values.policy_controller.probe_networks.iter().map(|n| &**n));
        self.networks("proxyInit.skipSubnets", values.proxy_init.skip_subnets.split(',').filter(|n| !n.is_empty()));
        let remedy = "use ports and ranges, such as 25,4000-4100";
        for (path, ports) in [
            ("proxy.requireIdentityOnInboundPorts", &values.proxy.require_identity_on_inbound_ports),
            ("proxy.requireTLSOnInboundPorts", &values.proxy.require_tls_on_inbound_ports),
            ("proxyInit.ignoreInboundPorts", &values.proxy_init.ignore_inbound_ports),
            ("proxyInit.ignoreOutboundPorts", &values.proxy_init.ignore_outbound_ports),
            ("proxyInit.kubeAPIServerPorts", &values.proxy_init.kube_api_server_ports),
        ] {
            self.parses::<PortRanges>(path, ports, remedy);
        }
        self.parses::<PortList>("proxy.opaquePorts", &values.proxy.opaque_ports, remedy);
        if let Some((first, second)) = clash(values) {
            let message = format!("the same port as {first}");
            self.wrong(second, message, "give each its own");
        }
        // Every pod of the control plane has a proxy, too.
        for (path, port) in of_proxies(values) {
            if let Some((name, _)) = ports::ALL.iter().find(|(_, own)| *own == port) {
                self.wrong(path, format!("the control plane listens there itself, for {name}"), "use another port");
            }
        }
    }

    fn networks<'n>(&mut self, path: &str, networks: impl Iterator<Item = &'n str>) {
        for network in networks {
            if let Err(error) = network.trim().parse::<Cidr>() {
                self.wrong(path, error.to_string(), "use networks, such as 10.0.0.0/8");
            }
        }
    }

    fn proxy(&mut self, values: &Values) {
        let Values { proxy, proxy_init, .. } = values;
        if proxy.native_sidecar && proxy.wait_before_exit_seconds > 0 {
            let remedy = "remove it: native sidecars end after the other containers";
            self.wrong("proxy.waitBeforeExitSeconds", "it has no meaning with proxy.nativeSidecar", remedy);
        }
        if proxy_init.close_wait_timeout_secs > 0 && !(proxy_init.run_as_root && proxy_init.privileged) {
            let remedy = "set proxyInit.runAsRoot and proxyInit.privileged, or remove it";
            self.wrong("proxyInit.closeWaitTimeoutSecs", "only root may change it", remedy);
        }
        if let Some(ratio) = proxy.runtime.workers.maximum_cpu_ratio
            && !(ratio > 0.0 && ratio <= 1.0)
        {
            let message = format!("{ratio} is no part of the CPUs");
            self.wrong("proxy.runtime.workers.maximumCPURatio", message, "use a number above 0, at most 1");
        }
        let collector = &proxy.tracing.collector;
        if proxy.tracing.enabled {
            for (path, value) in [
                ("endpoint", &collector.endpoint),
                ("meshIdentity.serviceAccountName", &collector.mesh_identity.service_account_name),
                ("meshIdentity.namespace", &collector.mesh_identity.namespace),
            ] {
                if value.is_empty() {
                    let path = format!("proxy.tracing.collector.{path}");
                    self.wrong(path, "it is missing", "give it, or set proxy.tracing.enabled to false");
                }
            }
        }
    }

    fn resources(&mut self, values: &Values) {
        self.amounts("proxy.resources", &values.proxy.resources);
        for (path, resources) in [
            ("destinationResources", &values.destination_resources),
            ("destinationProxyResources", &values.destination_proxy_resources),
            ("identityResources", &values.identity_resources),
            ("identityProxyResources", &values.identity_proxy_resources),
            ("proxyInjectorResources", &values.proxy_injector_resources),
            ("proxyInjectorProxyResources", &values.proxy_injector_proxy_resources),
        ] {
            if let Some(resources) = resources {
                self.amounts(path, resources);
            }
        }
    }

    fn amounts(&mut self, path: &str, resources: &Resources) {
        let Resources { cpu, ephemeral_storage, memory } = resources;
        for (name, amounts) in [("cpu", cpu), ("ephemeral-storage", ephemeral_storage), ("memory", memory)] {
            let Amounts { limit, request } = amounts;
            for (kind, text) in [("limit", limit), ("request", request)] {
                if !text.is_empty() {
                    self.parses::<Quantity>(&format!("{path}.{name}.{kind}"), text, "use a quantity");
                }
            }
            if let (Ok(limit), Ok(request)) = (limit.parse::<Quantity>(), request.parse::<Quantity>())
                && limit < request
            {
                let path = format!("{path}.{name}.limit");
                self.wrong(path, "it is below the request", "raise the limit, or lower the request");
            }
        }
    }

    fn webhooks(&mut self, values: &Values) {
        let injector = &values.proxy_injector;
        let as_validator = Validator {
            ca_bundle: injector.ca_bundle.clone(),
            crt_pem: injector.crt_pem.clone(),
            external_secret: injector.external_secret,
            inject_ca_from: injector.inject_ca_from.clone(),
            inject_ca_from_secret: injector.inject_ca_from_secret.clone(),
            key_pem: injector.key_pem.clone(),
            namespace_selector: injector.namespace_selector.clone(),
        };
        for (path, webhook) in [
            ("proxyInjector", &as_validator),
            ("profileValidator", &values.profile_validator),
            ("policyValidator", &values.policy_validator),
        ] {
            self.webhook(path, webhook);
        }
    }

    fn webhook(&mut self, path: &str, webhook: &Validator) {
        let injected = !webhook.inject_ca_from.is_empty() || !webhook.inject_ca_from_secret.is_empty();
        if !webhook.inject_ca_from.is_empty() && !webhook.inject_ca_from_secret.is_empty() {
            self.wrong(format!("{path}.injectCaFrom"), "injectCaFromSecret is given as well", "give one of them");
        }
        if injected && !webhook.ca_bundle.is_empty() {
            self.wrong(format!("{path}.caBundle"), "cert-manager is asked for it as well", "give one of them");
        }
        if injected && !webhook.external_secret {
            let remedy = format!("set {path}.externalSecret, and make the Secret");
            self.wrong(format!("{path}.injectCaFrom"), "the certificate is made here", remedy);
        }
        if webhook.external_secret && !injected && webhook.ca_bundle.is_empty() {
            let remedy = format!("give it, or {path}.injectCaFrom or {path}.injectCaFromSecret");
            self.wrong(
                format!("{path}.caBundle"),
                "nobody says who vouches for the certificate of your Secret",
                remedy,
            );
        }
        if webhook.crt_pem.is_empty() != webhook.key_pem.is_empty() {
            self.wrong(format!("{path}.crtPEM"), "certificate and key go together", "give both or none");
        }
    }

    fn identity(&mut self, values: &Values) {
        let issuer = &values.identity.issuer;
        if issuer.tls.crt_pem.is_empty() != issuer.tls.key_pem.is_empty() {
            self.wrong("identity.issuer.tls.crtPEM", "certificate and key go together", "give both or none");
        }
        if &*issuer.scheme == "kubernetes.io/tls" && !issuer.tls.crt_pem.is_empty() {
            let remedy = "remove it, or use the scheme linkerd.io/tls";
            self.wrong("identity.issuer.tls.crtPEM", "an external issuer brings its own Secret", remedy);
        }
    }
}

/// Two of the proxy's ports that are the same.
pub(crate) fn clash(values: &Values) -> Option<(&'static str, &'static str)> {
    let mut seen = HashMap::new();
    of_proxies(values).into_iter().find_map(|(path, port)| seen.insert(port, path).map(|first| (first, path)))
}

fn of_proxies(values: &Values) -> [(&'static str, u16); 4] {
    let ports = &values.proxy.ports;
    [
        ("proxy.ports.admin", ports.admin),
        ("proxy.ports.control", ports.control),
        ("proxy.ports.inbound", ports.inbound),
        ("proxy.ports.outbound", ports.outbound),
    ]
}

/// What stands at a path of the tree, such as `proxy.ports.admin`.
fn value<'t>(tree: &'t Value, path: &str) -> Option<&'t Value> {
    tree.pointer(&format!("/{}", path.replace('.', "/")))
}

pub(super) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(64).collect();
    format!("{cut:?}")
}

fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
