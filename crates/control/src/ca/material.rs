//! What an installation on Kubernetes consists of besides objects: a root, an issuer below it, and a certificate for each webhook.
//!
//! Who brings anchors and issuer of their own has them tried before anything is rendered.

use super::{
    Error,
    make::{authority, serial},
    mounted::tried_texts,
};
use crate::{Lifetimes, digest::sha256};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use std::time::{Duration, SystemTime};
use weft_cluster::{
    install::{Material, Pair, Webhook},
    values::Values,
};
use weft_model::{Identity, names::service_account};
use weft_transport::tls::Serving;

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Of a root, which signs nothing but the issuer: its key is thrown away.
const ROOT: Duration = Duration::from_secs(3650 * DAY.as_secs());
const ISSUER: Duration = Duration::from_secs(365 * DAY.as_secs());
const WEBHOOK: Duration = Duration::from_secs(365 * DAY.as_secs());
/// As Linkerd allows for.
const SKEW: Duration = Duration::from_secs(10);

/// Makes what `values` do not bring.
///
/// # Errors
/// What they bring cannot work.
pub fn material(values: &Values, namespace: &str, now: SystemTime) -> Result<Material, Error> {
    webhooks_are_served(values, namespace)?;
    let (anchors_pem, issuer) = issuer(values, namespace, now)?;
    let webhook = |webhook: Webhook| webhook_pair(webhook, namespace, now);
    Ok(Material {
        anchors_sha256: anchors_sha256(&anchors_pem),
        anchors_pem,
        issuer,
        issuer_since: None,
        proxy_injector: webhook(Webhook::ProxyInjector)?,
        proxy_injector_before: String::new(),
        profile_validator: webhook(Webhook::ProfileValidator)?,
        profile_validator_before: String::new(),
        policy_validator: webhook(Webhook::PolicyValidator)?,
        policy_validator_before: String::new(),
    })
}

/// Whether the certificates of webhooks that are given can be served with their keys. Whom the API server believes is not asked here.
///
/// # Errors
/// They cannot.
pub(super) fn webhooks_are_served(values: &Values, namespace: &str) -> Result<(), Error> {
    let (injector, profiles, policies) = (&values.proxy_injector, &values.profile_validator, &values.policy_validator);
    for (path, webhook, certificate, key) in [
        ("proxyInjector", Webhook::ProxyInjector, &injector.crt_pem, &injector.key_pem),
        ("profileValidator", Webhook::ProfileValidator, &profiles.crt_pem, &profiles.key_pem),
        ("policyValidator", Webhook::PolicyValidator, &policies.crt_pem, &policies.key_pem),
    ] {
        if certificate.is_empty() {
            continue;
        }
        Serving::new(certificate, key).map_err(|reason| {
            let host = format!("{}.{namespace}.svc", webhook.service());
            Error::Given(format!(
                "{path}.crtPEM and {path}.keyPEM: {reason}; give a certificate for {host} and its key, or none"
            ))
        })?;
    }
    Ok(())
}

/// Of the text that the ConfigMap has.
pub(super) fn anchors_sha256(anchors_pem: &str) -> String {
    sha256(format!("{}\n", anchors_pem.trim()).as_bytes())
}

fn issuer(values: &Values, namespace: &str, now: SystemTime) -> Result<(String, Pair), Error> {
    let given = |reason: &str| Error::Given(reason.to_owned());
    let (anchors, tls) = (&values.identity_trust_anchors_pem, &values.identity.issuer.tls);
    let external_issuer = &*values.identity.issuer.scheme != "linkerd.io/tls";
    let external = external_issuer || values.identity.external_ca;
    match (anchors.is_empty(), tls.crt_pem.is_empty()) {
        // Somebody else makes both, the ConfigMap and the Secret; nothing here knows what will be in them.
        (true, true) if external_issuer && values.identity.external_ca => Ok((String::new(), Pair::default())),
        (true, true) if external => Err(given(
            "with identity.externalCA, or an issuer of somebody else's, identityTrustAnchorsPEM says whom proxies trust; give it, or \
             --identity-trust-anchors-file; or give both, identity.externalCA and identity.issuer.scheme=kubernetes.io/tls, and make the \
             ConfigMap linkerd-identity-trust-roots yourself",
        )),
        (true, true) => made(values, namespace, now),
        (false, true) if external => Ok((anchors.to_string(), Pair::default())),
        (false, false) => {
            let pair = Pair { certificate: tls.crt_pem.to_string(), key: tls.key_pem.to_string() };
            tried(anchors, &pair.certificate, &pair.key, namespace, values.trust_domain(), now)
                .map_err(|reason| {
                    given(&format!(
                        "identity.issuer.tls and identityTrustAnchorsPEM: {reason}; give an issuer that is valid and below the anchors, made as \
                         in docs/certificates.md"
                    ))
                })?;
            Ok((anchors.to_string(), pair))
        }
        _ => Err(given(
            "trust anchors, the issuer's certificate and its key go together: give all three of identityTrustAnchorsPEM, \
             identity.issuer.tls.crtPEM and identity.issuer.tls.keyPEM, or none",
        )),
    }
}

/// Whether proxies that trust the anchors would take what the issuer signs.
///
/// # Errors
/// Why not.
pub fn tried(
    anchors_pem: &str,
    chain_pem: &str,
    key_pem: &str,
    namespace: &str,
    trust_domain: &str,
    now: SystemTime,
) -> Result<(), String> {
    let identity = Identity::of_service_account(service_account::IDENTITY, namespace, namespace, trust_domain)
        .map_err(|e| e.to_string())?;
    let lifetimes = Lifetimes { skew: SKEW, ..Lifetimes::default() };
    tried_texts(anchors_pem, chain_pem, key_pem, &identity, &lifetimes, now)
}

/// A root of its own, and an issuer that it has signed.
fn made(values: &Values, namespace: &str, now: SystemTime) -> Result<(String, Pair), Error> {
    let failed = |e: rcgen::Error| Error::Make(e.to_string());
    let lifetimes = Lifetimes { root: ROOT, issuer: ISSUER, skew: SKEW, ..Lifetimes::default() };
    let domain = values.trust_domain();
    let (root, root_key, root_end) =
        authority(&format!("root.{namespace}.{domain}"), lifetimes.root, u64::MAX, &lifetimes, now)?;
    let root = root.self_signed(&root_key).map_err(failed)?.pem();
    let name = format!("identity.{namespace}.{domain}");
    let (mut params, key, _) = authority(&name, lifetimes.issuer, root_end, &lifetimes, now)?;
    params.subject_alt_names =
        vec![SanType::DnsName(name.try_into().map_err(|_| Error::Make("a name is no ASCII".to_owned()))?)];
    let signer = rcgen::Issuer::from_ca_cert_pem(&root, root_key).map_err(failed)?;
    let certificate = params.signed_by(&key, &signer).map_err(failed)?.pem();
    Ok((root, Pair { certificate, key: key.serialize_pem() }))
}

/// A certificate that vouches for itself: the API server is told of it alone.
pub(super) fn webhook_pair(webhook: Webhook, namespace: &str, now: SystemTime) -> Result<Pair, Error> {
    let failed = |e: rcgen::Error| Error::Make(e.to_string());
    let name = format!("{}.{namespace}.svc", webhook.service());
    let mut params = CertificateParams::new(vec![name.clone()]).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.serial_number = Some(serial()?);
    params.not_before = (now - SKEW).into();
    params.not_after = (now + WEBHOOK).into();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?.pem();
    Ok(Pair { certificate, key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use x509_parser::pem::Pem;

    fn values(given: serde_json::Value) -> Values {
        Values::from_layers([given]).unwrap()
    }

    /// Subject, issuer, days, and whether it may sign.
    fn read(pem: &str, now: SystemTime) -> (String, String, u64, bool) {
        let block = Pem::iter_from_buffer(pem.as_bytes()).next().unwrap().unwrap();
        let certificate = block.parse_x509().unwrap();
        let end = u64::try_from(certificate.validity().not_after.timestamp()).unwrap();
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let days = (end - now) / DAY.as_secs();
        (certificate.subject().to_string(), certificate.issuer().to_string(), days, certificate.is_ca())
    }

    #[test]
    fn a_root_an_issuer_and_webhooks_are_made() {
        let now = SystemTime::now();
        let values = values(json!({"identityTrustDomain": "trust.example"}));
        let made = material(&values, "mesh", now).unwrap();
        let (root, issuer) = ("CN=root.mesh.trust.example", "CN=identity.mesh.trust.example");
        assert_eq!(read(&made.anchors_pem, now), (root.to_owned(), root.to_owned(), 3650, true));
        assert_eq!(read(&made.issuer.certificate, now), (issuer.to_owned(), root.to_owned(), 365, true));
        let hook = "CN=linkerd-proxy-injector.mesh.svc".to_owned();
        assert_eq!(read(&made.proxy_injector.certificate, now), (hook.clone(), hook, 365, false));
        Serving::new(&made.proxy_injector.certificate, &made.proxy_injector.key).unwrap();
        assert_ne!(made.proxy_injector, made.policy_validator);
        assert_eq!(made.anchors_sha256, sha256(made.anchors_pem.as_bytes()), "as the ConfigMap has them");
        // What is made is what somebody could bring.
        let again = material(&given(&made), "mesh", now).unwrap();
        assert_eq!((again.anchors_sha256, again.issuer), (made.anchors_sha256, made.issuer));
    }

    fn given(material: &Material) -> Values {
        values(json!({
            "identityTrustDomain": "trust.example", "identityTrustAnchorsPEM": material.anchors_pem,
            "identity": {"issuer": {"tls": {"crtPEM": material.issuer.certificate, "keyPEM": material.issuer.key}}},
        }))
    }

    #[test]
    fn what_is_brought_is_tried() {
        let now = SystemTime::now();
        let base = values(json!({"identityTrustDomain": "trust.example"}));
        let (one, other) = (material(&base, "mesh", now).unwrap(), material(&base, "mesh", now).unwrap());
        let mixed = [
            (Material { anchors_pem: other.anchors_pem.clone(), ..one.clone() }, "proxies would refuse"),
            (
                Material { issuer: Pair { key: other.issuer.key.clone(), ..one.issuer.clone() }, ..one.clone() },
                "not its certificate's",
            ),
            (Material { anchors_pem: "nonsense".to_owned(), ..one.clone() }, ""),
        ];
        for (mixed, reason) in mixed {
            let error = material(&given(&mixed), "mesh", now).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        for (certificate, key, reason) in [
            (one.proxy_injector.certificate.as_str(), other.proxy_injector.key.as_str(), "does not belong to the key"),
            ("nonsense", &one.proxy_injector.key, "no certificate"),
        ] {
            let given = values(json!({"proxyInjector": {"crtPEM": certificate, "keyPEM": key}}));
            let error = material(&given, "mesh", now).unwrap_err().to_string();
            let remedy = "give a certificate for linkerd-proxy-injector.mesh.svc and its key, or none";
            assert!(error.contains(reason) && error.ends_with(remedy), "{error}");
        }
        let own = values(
            json!({"proxyInjector": {"crtPEM": one.proxy_injector.certificate, "keyPEM": one.proxy_injector.key}}),
        );
        material(&own, "mesh", now).unwrap();
        let later = now + 400 * DAY;
        assert!(material(&given(&one), "mesh", later).is_err(), "the issuer has expired");
        for incomplete in [
            json!({"identityTrustAnchorsPEM": one.anchors_pem}),
            json!({"identity": {"issuer": {"tls": {"crtPEM": one.issuer.certificate, "keyPEM": one.issuer.key}}}}),
            json!({"identity": {"externalCA": true}}),
            json!({"identity": {"issuer": {"scheme": "kubernetes.io/tls"}}}),
        ] {
            assert!(material(&values(incomplete.clone()), "mesh", now).is_err(), "{incomplete}");
        }
        let external = json!({"identityTrustAnchorsPEM": one.anchors_pem, "identity": {"issuer": {"scheme": "kubernetes.io/tls"}}});
        assert_eq!(material(&values(external), "mesh", now).unwrap().issuer, Pair::default());
        let all = json!({"identity": {"externalCA": true, "issuer": {"scheme": "kubernetes.io/tls"}}});
        let nothing = material(&values(all), "mesh", now).unwrap();
        assert_eq!((nothing.anchors_pem.as_str(), nothing.issuer), ("", Pair::default()));
    }
}
