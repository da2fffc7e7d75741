//! Whether certificates are what they should be, and for how long: the webhooks', and the roots that proxies were made with. Those of
//! identity are `identity`'s.

use super::{
    Run,
    given::Given,
    identity::Looked,
    none,
    proxies::restarts,
    remedy::{Failed, mended},
    table,
};
use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use weft_cluster::{
    inject::{TRUST_ROOTS, TRUST_ROOTS_KEY},
    install::{Webhook, trusting},
    k8s::ByteString,
    kubernetes::Cluster,
};
use weft_transport::tls::Serving;
use x509_parser::{extensions::GeneralName, pem::Pem, public_key::PublicKey, x509::SubjectPublicKeyInfo};

/// Linkerd's; a renewal wants preparation.
const SOON: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// From when until when, of one certificate of a text.
pub(super) struct Validity {
    what: String,
    pub(super) begin: SystemTime,
    pub(super) end: SystemTime,
    names: Vec<String>,
    key: Key,
    /// Whether its own signature is of a kind that is known to hold.
    is_signed_well: bool,
}

/// The kind of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    P256,
    /// With so many bits.
    Rsa(usize),
    Other,
}

/// Numbers of a curve, and of ECDSA and RSA signatures with SHA-256.
const P256: &str = "1.2.840.10045.3.1.7";
const SIGNATURES: [&str; 2] = ["1.2.840.10045.4.3.2", "1.2.840.113549.1.1.11"];

fn key(of: &SubjectPublicKeyInfo<'_>) -> Key {
    let curve = of.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    match of.parsed() {
        Ok(PublicKey::EC(_)) if curve.is_some_and(|curve| curve.to_id_string() == P256) => Key::P256,
        Ok(PublicKey::RSA(key)) => Key::Rsa(key.key_size()),
        _ => Key::Other,
    }
}

/// Linkerd's proxies and tools take ECDSA on P-256 with SHA-256, and of roots RSA of 2048 or 4096 bits besides.
pub(super) fn known(all: &[Validity], of_roots: bool) -> Result<(), String> {
    let wrong = all.iter().filter_map(|one| match one.key {
        _ if !one.is_signed_well => Some(format!("{} is not signed with ECDSA or RSA and SHA-256", one.what)),
        Key::P256 => None,
        Key::Rsa(2048 | 4096) if of_roots => None,
        Key::Rsa(bits) => Some(format!("the key of {} is RSA of {bits} bits", one.what)),
        Key::Other => Some(format!("the key of {} is not ECDSA on P-256", one.what)),
    });
    none(wrong.collect())
}

pub(super) fn read(what: &str, pem: &str) -> Result<Vec<Validity>, String> {
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let mut found = vec![];
    for block in Pem::iter_from_buffer(pem.as_bytes()) {
        let block = block.map_err(|e| format!("{what}: no PEM: {e}"))?;
        let certificate = block.parse_x509().map_err(|e| format!("{what}: no certificate: {e}"))?;
        let (begin, end) = (certificate.validity().not_before, certificate.validity().not_after);
        let names = certificate.subject_alternative_name().ok().flatten().map(|names| &names.value.general_names);
        found.push(Validity {
            what: format!("{what} ({})", certificate.subject()),
            begin: time(begin.timestamp()),
            end: time(end.timestamp()),
            names: names
                .into_iter()
                .flatten()
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some((*name).to_owned()),
                    _ => None,
                })
                .collect(),
            key: key(certificate.public_key()),
            is_signed_well: SIGNATURES.contains(&certificate.signature_algorithm.algorithm.to_id_string().as_str()),
        });
    }
    if found.is_empty() { Err(format!("{what}: there is no certificate in it")) } else { Ok(found) }
}

pub(super) fn valid(all: &[Validity], now: SystemTime) -> Result<(), String> {
    let wrong = all.iter().filter_map(|one| match () {
        () if now < one.begin => Some(format!("{} is not valid yet", one.what)),
        () if now > one.end => Some(format!("{} has expired", one.what)),
        () => None,
    });
    none(wrong.collect())
}

pub(super) fn lasts(all: &[Validity], now: SystemTime) -> Result<(), String> {
    let left = |one: &Validity| one.end.duration_since(now).unwrap_or_default();
    let days = |one: &Validity| left(one).as_secs() / (24 * 60 * 60);
    let soon = all.iter().filter(|one| left(one) < SOON);
    none(soon.map(|one| format!("{} is valid for {} days more", one.what, days(one))).collect())
}

pub(super) async fn secret(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
) -> Result<BTreeMap<String, Vec<u8>>, Failed> {
    Ok(cluster.secret(namespace, name).await?.ok_or_else(|| format!("there is no Secret {name}"))?)
}

pub(super) fn part(secret: &BTreeMap<String, Vec<u8>>, of: &str, name: &str) -> Result<String, String> {
    let bytes = secret.get(name).ok_or_else(|| format!("the Secret {of} has no key {name}"))?;
    String::from_utf8(bytes.clone()).map_err(|_| format!("the key {name} of the Secret {of} is no text"))
}

pub(super) async fn webhooks(run: &mut Run<'_>, at: Looked<'_>) -> ControlFlow<()> {
    for (of, valid, soon) in [
        (Webhook::ProxyInjector, &table::INJECTOR, &table::INJECTOR_SOON),
        (Webhook::ProfileValidator, &table::PROFILES, &table::PROFILES_SOON),
        (Webhook::PolicyValidator, &table::POLICIES, &table::POLICIES_SOON),
    ] {
        let given = Given::of(at, of);
        let certificates = run.found(valid, webhook(at, &given).await)?;
        let lasts = lasts(&certificates, at.now);
        run.noted(soon, lasts.map_err(|why| Failed::from(why).or(given.certificate_anew())))?;
    }
    ControlFlow::Continue(())
}

/// Whether proxies were made with the roots that hold, in one namespace or in all.
pub(super) async fn trusted(
    run: &mut Run<'_>,
    cluster: &Cluster,
    namespace: &str,
    of: Option<&str>,
) -> ControlFlow<()> {
    run.line(&table::TRUSTED, async || {
        let anchors = cluster.config_map(namespace, TRUST_ROOTS).await?.unwrap_or_default();
        let anchors = anchors.get(TRUST_ROOTS_KEY).map_or("", |anchors| anchors.trim());
        let running = trusting(cluster, namespace).await?;
        let other = running.iter().filter(|one| one.anchors_pem.as_ref().is_some_and(|own| own.trim() != anchors));
        let is_asked = |pod: &&String| {
            let namespace_of = pod.split('/').next().unwrap_or_default();
            namespace_of != namespace && of.is_none_or(|of| of == namespace_of)
        };
        let pods: Vec<&String> = other.flat_map(|one| &one.pods).filter(is_asked).collect();
        let restarts = restarts(cluster, namespace, of, !pods.is_empty()).await?;
        let told = |pod: &String| (format!("the proxy of pod {pod} trusts other roots"), restarts.of(pod));
        mended(pods.into_iter().map(told).collect())
    })
    .await
}

/// The certificate that a webhook presents, if the API server takes it.
async fn webhook(at: Looked<'_>, given: &Given<'_>) -> Result<Vec<Validity>, Failed> {
    let Looked { cluster, namespace, now, .. } = at;
    let name = given.webhook.secret();
    let of = format!("the Secret {name}");
    let presented = async {
        let secret = secret(cluster, namespace, name).await?;
        let (chain, key) = (part(&secret, name, "tls.crt")?, part(&secret, name, "tls.key")?);
        Serving::new(&chain, &key).map_err(|e| format!("{of}: {e}"))?;
        let certificates = read(&of, &chain)?;
        valid(&certificates, now)?;
        let host = given.host();
        let leaf = certificates.first().map(|leaf| leaf.names.as_slice()).unwrap_or_default();
        if !leaf.contains(&host) {
            return Err(format!("{of} is for {}, and the API server asks {host}", leaf.join(", ")).into());
        }
        Ok::<_, Failed>((chain, certificates))
    };
    let (chain, certificates) = presented.await.map_err(|failed| failed.or(given.certificate_anew()))?;
    let (configuration, kind) = (given.webhook.configuration(), given.webhook.configured());
    let found = cluster.object(kind, None, &configuration).await?;
    let found = found.ok_or_else(|| format!("there is no {} {configuration}", kind.kind))?;
    let bundle = found["webhooks"][0]["clientConfig"]["caBundle"].clone();
    let bundle = serde_json::from_value::<ByteString>(bundle).map(|bundle| bundle.0).unwrap_or_default();
    let anchors = String::from_utf8(bundle).unwrap_or_default();
    Serving::vouched(&anchors, &chain, &given.host(), now).map_err(|why| {
        let why = format!("the caBundle of {configuration} does not vouch for {of}: {why}");
        Failed::from(why).or(given.bundle_anew())
    })?;
    Ok(certificates)
}
