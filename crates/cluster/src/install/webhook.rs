//! Webhooks: where the API server asks, with which certificate, and for what.

use super::{Installation, Meta, Pair};
use crate::{kubernetes::Resource, label, values::Validator};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

/// One of the control plane's webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Webhook {
    ProxyInjector,
    ProfileValidator,
    PolicyValidator,
}

impl Webhook {
    pub const ALL: [Self; 3] = [Self::ProxyInjector, Self::ProfileValidator, Self::PolicyValidator];

    /// The Service, whose name in the namespace `NS`, `SERVICE.NS.svc`, the certificate is for.
    pub fn service(self) -> &'static str {
        match self {
            Self::ProxyInjector => "linkerd-proxy-injector",
            Self::ProfileValidator => "linkerd-sp-validator",
            Self::PolicyValidator => "linkerd-policy-validator",
        }
    }

    /// The Secret with certificate and key.
    pub const fn secret(self) -> &'static str {
        match self {
            Self::ProxyInjector => "linkerd-proxy-injector-k8s-tls",
            Self::ProfileValidator => "linkerd-sp-validator-k8s-tls",
            Self::PolicyValidator => "linkerd-policy-validator-k8s-tls",
        }
    }

    fn component(self) -> &'static str {
        match self {
            Self::ProxyInjector => "proxy-injector",
            Self::ProfileValidator | Self::PolicyValidator => "destination",
        }
    }

    /// The configuration by which the API server asks it.
    pub fn configuration(self) -> String {
        format!("{}-webhook-config", self.service())
    }

    /// Among which objects that is.
    pub const fn configured(self) -> Resource {
        const GROUP: &str = "admissionregistration.k8s.io";
        match self {
            Self::ProxyInjector => {
                Resource::new(GROUP, "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
            }
            Self::ProfileValidator | Self::PolicyValidator => {
                Resource::new(GROUP, "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
            }
        }
    }
}

/// Where its certificate comes from.
struct Trust<'a> {
    external_secret: bool,
    ca_bundle: &'a str,
    inject_ca_from: &'a str,
    inject_ca_from_secret: &'a str,
    given: Pair,
    made: &'a Pair,
    /// Still presented for a while.
    before: &'a str,
}

impl Trust<'_> {
    fn pair(&self) -> &Pair {
        if self.given.certificate.is_empty() { self.made } else { &self.given }
    }

    /// What the API server trusts; `None` if cert-manager writes it.
    fn bundle(&self) -> Option<String> {
        match (self.inject_ca_from.is_empty() && self.inject_ca_from_secret.is_empty(), self.ca_bundle) {
            (false, _) => None,
            (true, "") => Some(self.pair().certificate.clone() + self.before),
            (true, bundle) => Some(bundle.to_owned()),
        }
    }
}

pub(super) fn all(installation: &Installation<'_>, meta: &Meta<'_>) -> Vec<Value> {
    let Installation { values, material, .. } = *installation;
    let injector = &values.proxy_injector;
    let trust = Trust {
        external_secret: injector.external_secret,
        ca_bundle: &injector.ca_bundle,
        inject_ca_from: &injector.inject_ca_from,
        inject_ca_from_secret: &injector.inject_ca_from_secret,
        given: Pair { certificate: injector.crt_pem.to_string(), key: injector.key_pem.to_string() },
        made: &material.proxy_injector,
        before: &material.proxy_injector_before,
    };
    let mut objects = secret(Webhook::ProxyInjector, &trust, meta);
    let mut webhook = common(Webhook::ProxyInjector, &trust, &injector.namespace_selector, meta);
    webhook["clientConfig"]["service"]["path"] = json!("/");
    webhook["objectSelector"] = json!(injector.object_selector);
    webhook["timeoutSeconds"] = json!(injector.timeout_seconds);
    webhook["rules"] = json!([rule("", &["v1"], &["CREATE"], &["pods", "services"])]);
    objects.push(configuration(Webhook::ProxyInjector, &trust, webhook, meta));
    let profiles = rule("linkerd.io", &["v1alpha1", "v1alpha2"], &["CREATE", "UPDATE"], &["serviceprofiles"]);
    let made = (&material.profile_validator, &*material.profile_validator_before);
    objects.extend(validator(Webhook::ProfileValidator, &values.profile_validator, made, json!([profiles]), meta));
    let made = (&material.policy_validator, &*material.policy_validator_before);
    objects.extend(validator(Webhook::PolicyValidator, &values.policy_validator, made, policies(), meta));
    objects
}

fn validator(
    webhook: Webhook,
    values: &Validator,
    (made, before): (&Pair, &str),
    rules: Value,
    meta: &Meta<'_>,
) -> Vec<Value> {
    let trust = Trust {
        external_secret: values.external_secret,
        ca_bundle: &values.ca_bundle,
        inject_ca_from: &values.inject_ca_from,
        inject_ca_from_secret: &values.inject_ca_from_secret,
        given: Pair { certificate: values.crt_pem.to_string(), key: values.key_pem.to_string() },
        made,
        before,
    };
    let mut objects = secret(webhook, &trust, meta);
    let mut hook = common(webhook, &trust, &values.namespace_selector, meta);
    hook["rules"] = rules;
    if webhook == Webhook::PolicyValidator {
        // The control plane's own policies come before anybody can validate them. Others cannot say that theirs are such.
        hook["matchConditions"] = json!([{
            "name": "not-of-the-control-plane",
            "expression": format!(
                "!(request.namespace == '{}' && has(object.metadata.labels) && '{}' in object.metadata.labels)",
                meta.namespace,
                label::CONTROL_NAMESPACE
            ),
        }]);
    }
    objects.push(configuration(webhook, &trust, hook, meta));
    objects
}

fn secret(webhook: Webhook, trust: &Trust<'_>, meta: &Meta<'_>) -> Vec<Value> {
    if trust.external_secret {
        return vec![];
    }
    let Pair { certificate, key } = trust.pair();
    vec![json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": meta.named(webhook.secret(), Some(webhook.component())),
        "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": certificate, "tls.key": key },
    })]
}

fn common(webhook: Webhook, trust: &Trust<'_>, namespaces: &LabelSelector, meta: &Meta<'_>) -> Value {
    let mut client = json!({ "service": { "name": webhook.service(), "namespace": meta.namespace } });
    if let Some(bundle) = trust.bundle() {
        // The API server reads bytes: base64 of the PEM.
        client["caBundle"] = json!(k8s_openapi::ByteString(bundle.into_bytes()));
    }
    json!({
        "name": format!("{}.linkerd.io", webhook.service()),
        "clientConfig": client,
        "namespaceSelector": namespaces,
        "failurePolicy": &*meta.values.webhook_failure_policy,
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
    })
}

fn configuration(webhook: Webhook, trust: &Trust<'_>, hook: Value, meta: &Meta<'_>) -> Value {
    let mut object = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": webhook.configured().kind,
        "metadata": meta.of_the_cluster(&webhook.configuration(), Some(webhook.component())),
        "webhooks": [hook],
    });
    for (key, from) in [
        ("cert-manager.io/inject-ca-from", trust.inject_ca_from),
        ("cert-manager.io/inject-ca-from-secret", trust.inject_ca_from_secret),
    ] {
        if !from.is_empty() {
            object["metadata"]["annotations"][key] = json!(from);
        }
    }
    object
}

fn rule(group: &str, versions: &[&str], operations: &[&str], resources: &[&str]) -> Value {
    json!({
        "apiGroups": [group],
        "apiVersions": versions,
        "operations": operations,
        "resources": resources,
        "scope": "Namespaced",
    })
}

fn policies() -> Value {
    const OPERATIONS: [&str; 2] = ["CREATE", "UPDATE"];
    let own = [
        "authorizationpolicies",
        "httplocalratelimitpolicies",
        "httproutes",
        "networkauthentications",
        "meshtlsauthentications",
        "serverauthorizations",
        "servers",
        "egressnetworks",
    ];
    let routes = ["httproutes", "grpcroutes", "tlsroutes", "tcproutes"];
    json!([
        rule("policy.linkerd.io", &["*"], &OPERATIONS, &own),
        rule("gateway.networking.k8s.io", &["*"], &OPERATIONS, &routes),
        rule("workload.linkerd.io", &["*"], &OPERATIONS, &["externalworkloads"])
    ])
}
