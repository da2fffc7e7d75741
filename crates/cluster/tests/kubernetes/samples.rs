//! For each value another one that it could have; what is rendered for Kubernetes and for Helm is tried with all of them.

use serde_json::{Value, json};

/// A bundle, as far as values are looked at.
pub(crate) const BUNDLE: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

/// Another value that could stand at a path.
pub(crate) fn another(path: &str, value: &Value) -> Option<Value> {
    let list = [
        ("clusterNetworks", json!("10.9.0.0/16")),
        ("commonLabels", json!({"a": "b"})),
        ("configReaders", json!([{"name": "r"}])),
        ("controllerLogFormat", json!("json")),
        ("controllerLogLevel", json!("debug")),
        ("controllerGID", json!(5)),
        ("deploymentStrategy.rollingUpdate.maxSurge", json!("30%")),
        ("deploymentStrategy.rollingUpdate.maxUnavailable", json!("30%")),
        ("destinationController.additionalArgs", json!(["--x"])),
        ("destinationController.podAnnotations", json!({"a": "b"})),
        ("destinationResources", json!({"cpu": {"limit": "1"}})),
        ("destinationProxyResources", json!({"cpu": {"limit": "1"}})),
        ("identityResources", json!({"memory": {"limit": "1"}})),
        ("identityProxyResources", json!({"cpu": {"limit": "1"}})),
        ("proxyInjectorResources", json!({"cpu": {"request": "1"}})),
        ("proxyInjectorProxyResources", json!({"cpu": {"limit": "1"}})),
        ("identity.issuer.scheme", json!("kubernetes.io/tls")),
        ("identity.podAnnotations", json!({"a": "b"})),
        ("proxyInjector.podAnnotations", json!({"a": "b"})),
        ("enableHttpRoutes", json!(true)),
        ("enableTcpRoutes", json!(true)),
        ("enableTlsRoutes", json!(true)),
        ("imagePullPolicy", json!("Always")),
        ("imagePullSecrets", json!([{"name": "s"}])),
        ("nodeSelector", json!({"a": "b"})),
        ("nodeAffinity", json!({"preferredDuringSchedulingIgnoredDuringExecution": []})),
        ("podAnnotations", json!({"a": "b"})),
        ("podLabels", json!({"a": "b"})),
        ("policyValidator.caBundle", json!(BUNDLE)),
        ("policyValidator.injectCaFrom", json!("ns/name")),
        ("policyValidator.injectCaFromSecret", json!("ns/name")),
        ("profileValidator.caBundle", json!(BUNDLE)),
        ("profileValidator.injectCaFrom", json!("ns/name")),
        ("profileValidator.injectCaFromSecret", json!("ns/name")),
        ("proxyInjector.caBundle", json!(BUNDLE)),
        ("proxyInjector.injectCaFrom", json!("ns/name")),
        ("proxyInjector.injectCaFromSecret", json!("ns/name")),
        ("policyController.probeNetworks", json!(["10.9.0.0/16"])),
        ("proxy.accessLog", json!("json")),
        ("proxy.cores", json!(3)),
        ("proxy.defaultInboundPolicy", json!("deny")),
        ("proxy.gid", json!(5)),
        ("proxy.image.pullPolicy", json!("Never")),
        ("debugContainer.image.pullPolicy", json!("Never")),
        ("proxy.logFormat", json!("json")),
        ("proxy.logLevel", json!("debug")),
        ("proxy.logHTTPHeaders", json!("insecure")),
        ("proxy.opaquePorts", json!("1")),
        ("proxy.ports.admin", json!(5001)),
        ("proxy.ports.control", json!(5002)),
        ("proxy.ports.inbound", json!(5003)),
        ("proxy.ports.outbound", json!(5004)),
        ("proxy.requireIdentityOnInboundPorts", json!("1")),
        ("proxy.requireTLSOnInboundPorts", json!("1")),
        ("proxy.runtime.workers.maximum", json!(3)),
        ("proxy.runtime.workers.maximumCPURatio", json!(0.5)),
        ("proxy.securityContext", json!({"runAsUser": 1})),
        ("proxyInit.ignoreInboundPorts", json!("1")),
        ("proxyInit.ignoreOutboundPorts", json!("1")),
        ("proxyInit.iptablesMode", json!("legacy")),
        ("proxyInit.kubeAPIServerPorts", json!("1")),
        ("proxyInit.logFormat", json!("json")),
        ("proxyInit.logLevel", json!("debug")),
        ("proxyInit.skipSubnets", json!("10.9.0.0/16")),
        ("tolerations", json!([{"key": "k"}])),
        ("webhookFailurePolicy", json!("Fail")),
        ("podMonitor.controller.namespaceSelector", json!("matchNames:\n- one\n")),
        ("podMonitor.labels", json!({"a": "b"})),
        ("proxy.tracing.labels", json!({"a": "b"})),
    ];
    if let Some((_, other)) = list.iter().find(|(p, _)| *p == path) {
        return Some(other.clone());
    }
    Some(match value {
        Value::Bool(b) => json!(!b),
        Value::Number(n) => json!(n.as_i64()? + 1),
        // Quantities are texts too.
        Value::String(_) if path.contains("esources") => json!("7"),
        Value::String(_) if path.ends_with("initialTimeout") => json!("4m"),
        Value::String(_) if path.ends_with("scrapeTimeout") || path.ends_with("scrapeInterval") => json!("9s"),
        Value::String(_) if is_time(path) => json!("7m"),
        Value::String(_) if path.ends_with("collector.endpoint") => json!("d:2"),
        Value::String(text) => json!(format!("{text}x")),
        Value::Array(_) if path.ends_with("Env") => json!([{"name": "V", "value": "v"}]),
        Value::Array(_) if path.ends_with("matchExpressions") => json!([{"key": "k", "operator": "Exists"}]),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    })
}

/// Those of streams stand in an order, which these and the defaults keep.
fn is_time(path: &str) -> bool {
    ["Timeout", "Interval", "lifetime", "Lifetime", "Allowance", "shutdownGracePeriod"]
        .iter()
        .any(|end| path.ends_with(end))
}

/// What must be set as well, so that the value has a meaning.
pub(crate) fn besides(path: &str) -> Value {
    let tracing = json!({"enabled": true, "collector": {"endpoint": "c:1", "meshIdentity": {"serviceAccountName": "s", "namespace": "n"}}});
    match path {
        "podMonitor.enabled" => json!({}),
        "proxy.tracing.enabled" => json!({"proxy": {"tracing": {"collector": tracing["collector"]}}}),
        p if p.starts_with("proxy.tracing") => json!({"proxy": {"tracing": tracing}}),
        "proxy.waitBeforeExitSeconds" => json!({"proxy": {"nativeSidecar": false}}),
        "proxyInit.closeWaitTimeoutSecs" => json!({"proxyInit": {"runAsRoot": true, "privileged": true}}),
        p if p.starts_with("podMonitor") => json!({"podMonitor": {"enabled": true}}),
        p if p.starts_with("controller.podDisruptionBudget") => json!({"enablePodDisruptionBudget": true}),
        p if p.ends_with("rtPEM") || p.ends_with("eyPEM") => {
            let pair = json!({"crtPEM": "c", "keyPEM": "k"});
            json!({"identity": {"issuer": {"tls": pair}}, "proxyInjector": pair, "profileValidator": pair, "policyValidator": pair})
        }
        p if p.ends_with("externalSecret") => {
            let trusted = json!({"caBundle": BUNDLE});
            json!({"proxyInjector": trusted, "profileValidator": trusted, "policyValidator": trusted})
        }
        p if p.contains("injectCa") => {
            let webhook = p.split('.').next().unwrap_or_default();
            json!({ webhook: {"externalSecret": true} })
        }
        _ => json!({}),
    }
}

pub(crate) fn leaves(value: &Value, path: &str, out: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(map) if !map.is_empty() && another(path, value).is_none() => {
            for (key, value) in map {
                leaves(value, &format!("{path}{}{key}", if path.is_empty() { "" } else { "." }), out);
            }
        }
        other => out.push((path.to_owned(), other.clone())),
    }
}

pub(crate) fn at(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |inner, step| json!({ step: inner }))
}
