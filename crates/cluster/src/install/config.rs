//! What the parts of the control plane, the CLI and later versions read: values, anchors, issuer.

use super::{By, Installation, Meta};
use crate::{
    inject::{TRUST_ROOTS, TRUST_ROOTS_KEY},
    values::{Text, Values},
    yaml,
};
use serde_json::{Value, json};

/// The ConfigMap that says with which values the control plane is installed.
pub const CONFIG: &str = "linkerd-config";
/// The Secret with the issuer's certificate and key.
pub const ISSUER: &str = "linkerd-identity-issuer";
/// Of the issuer's Secret: since when this one signs, where it has replaced another.
pub(super) const ISSUER_SINCE: &str = "weft/issuer-since";
pub(super) const OVERRIDES: &str = "linkerd-config-overrides";
/// The key that tells our installations from Linkerd's.
pub(super) const VERSION: &str = "weft-version";
/// Values that objects of their own hold: later versions read these, because they may have been replaced.
pub(super) const OF_OBJECTS: [&str; 3] = ["linkerdVersion", "identityTrustAnchorsPEM", "identity.issuer.tls"];

pub(super) fn all(installation: &Installation<'_>, meta: &Meta<'_>) -> Vec<Value> {
    let Installation { values, material, by, overrides, .. } = *installation;
    let text = yaml::text(&serde_json::to_value(values_of_cluster(values)).unwrap_or_default());
    let mut objects = vec![json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta.named(CONFIG, Some("controller")),
        "data": {
            "linkerd-crds-chart-version": format!("linkerd-crds-{}", values.linkerd_version),
            "values": text,
            VERSION: &*values.linkerd_version,
        },
    })];
    if !values.identity.external_ca {
        objects.push(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": meta.named(TRUST_ROOTS, Some("identity")),
            "data": { TRUST_ROOTS_KEY: format!("{}\n", values.identity_trust_anchors_pem.or(&material.anchors_pem).trim()) },
        }));
    }
    if &*values.identity.issuer.scheme == "linkerd.io/tls" {
        let mut metadata = meta.named(ISSUER, Some("identity"));
        if let Some(since) = material.issuer_since {
            metadata["annotations"][ISSUER_SINCE] = json!(since.to_string());
        }
        objects.push(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": "Opaque",
            "stringData": {
                "crt.pem": values.identity.issuer.tls.crt_pem.or(&material.issuer.certificate),
                "key.pem": values.identity.issuer.tls.key_pem.or(&material.issuer.key),
            },
        }));
    }
    if by == By::Cli {
        objects.push(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": meta.named(OVERRIDES, None),
            "type": "Opaque",
            "stringData": { OVERRIDES: overrides },
        }));
    }
    objects
}

/// The values as everybody in the cluster may read them: without keys, and with the trust domain written out.
pub fn values_of_cluster(values: &Values) -> Values {
    let mut values = values.clone();
    values.identity_trust_domain = values.trust_domain().into();
    for key in [
        &mut values.identity.issuer.tls.key_pem,
        &mut values.proxy_injector.key_pem,
        &mut values.profile_validator.key_pem,
        &mut values.policy_validator.key_pem,
    ] {
        *key = Text::default();
    }
    // A certificate without its key is refused where the values are read again.
    for certificate in [
        &mut values.identity.issuer.tls.crt_pem,
        &mut values.proxy_injector.crt_pem,
        &mut values.profile_validator.crt_pem,
        &mut values.policy_validator.crt_pem,
    ] {
        *certificate = Text::default();
    }
    values
}
