//! Whether the certificates of identity hold, and belong together: the trust anchors, and the issuer below them.
//!
//! Without them no pod of the control plane comes to be ready: that is looked at too where one does not.

use super::{
    Run,
    certificates::{Validity, known, lasts, part, read, secret, valid},
    remedy::{Failed, Mend, Renewal, restart_all, write_anchors},
    table,
};
use crate::ca;
use std::{ops::ControlFlow, time::SystemTime};
use weft_cluster::{
    inject::{PROXY, TRUST_ANCHORS, TRUST_ROOTS, TRUST_ROOTS_KEY},
    install::{self, ISSUER, anchors_written},
    kubernetes::Cluster,
    label,
    values::Values,
};

/// Where and when it is looked at.
#[derive(Clone, Copy)]
pub(super) struct Looked<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) namespace: &'a str,
    pub(super) values: &'a Values,
    pub(super) now: SystemTime,
}

/// Anchors, issuer and its key, as the cluster has them.
struct Found {
    anchors_pem: String,
    certificate: String,
    key: String,
    anchors: Vec<Validity>,
    issuer: Vec<Validity>,
}

pub(super) async fn identity(run: &mut Run<'_>, at: Looked<'_>) -> ControlFlow<()> {
    let Looked { now, .. } = at;
    let found = run.found(&table::ANCHORS, found(at).await)?;
    run.noted(&table::ANCHORS_ALGORITHM, known(&found.anchors, true))?;
    run.noted(&table::ANCHORS_NOW, found.anchors_hold(at).await)?;
    run.noted(&table::ANCHORS_SOON, lasts(&found.anchors, now))?;
    run.noted(&table::ISSUER_ALGORITHM, known(&found.issuer, false))?;
    run.noted(&table::ISSUER_NOW, found.issuer_holds(at).await)?;
    run.noted(&table::ISSUER_SOON, lasts(&found.issuer, now))?;
    run.noted(&table::ISSUED, found.belongs_together(at).await)
}

/// What of it keeps the control plane from being ready, if something does.
pub(super) async fn in_the_way(at: Looked<'_>) -> Option<Failed> {
    let looked = async {
        let found = found(at).await?;
        found.anchors_hold(at).await?;
        found.issuer_holds(at).await?;
        found.belongs_together(at).await
    };
    looked.await.err()
}

async fn found(at: Looked<'_>) -> Result<Found, Failed> {
    let Looked { cluster, namespace, .. } = at;
    let of_anchors = async || {
        let anchors_pem = anchors(cluster, namespace).await?;
        let read = read(&format!("the ConfigMap {TRUST_ROOTS}"), &anchors_pem)?;
        Ok::<_, Failed>((anchors_pem, read))
    };
    let (anchors_pem, anchors) = match of_anchors().await {
        Ok(found) => found,
        Err(failed) => return Err(failed.or(Some(new_anchors(at).await))),
    };
    let of_issuer = async || {
        let (certificate, key) = issuer(cluster, namespace).await?;
        let read = read(&format!("the Secret {ISSUER}"), &certificate)?;
        Ok::<_, Failed>((certificate, key, read))
    };
    match of_issuer().await {
        Ok((certificate, key, issuer)) => Ok(Found { anchors_pem, certificate, key, anchors, issuer }),
        Err(failed) => Err(failed.or(Some(new_issuer(at).await))),
    }
}

impl Found {
    /// Anchors some of which do not hold are left out, if the issuer is below another; else nobody believes anybody, and all of it is
    /// made anew.
    async fn anchors_hold(&self, at: Looked<'_>) -> Result<(), Failed> {
        const END: &str = "-----END CERTIFICATE-----";
        let Looked { namespace, values, now, .. } = at;
        let Err(why) = valid(&self.anchors, now) else { return Ok(()) };
        if is_brought(values) {
            let command = format!(
                "{} && {}, with a root and an issuer below it by whoever makes them, as in docs/certificates.md",
                anchors_written(namespace),
                issuer_written(namespace, values)
            );
            return Err(Failed::mended_by(why, command));
        }
        let blocks = self.anchors_pem.split_inclusive(END).filter(|block| block.ends_with(END));
        let (mut rest, mut ended) = (String::new(), vec![]);
        for (number, (block, one)) in blocks.zip(&self.anchors).enumerate() {
            match (one.begin..=one.end).contains(&now) {
                true => rest += block,
                false => ended.push(number + 1),
            }
        }
        let remedy = match self.tried(&rest, at) {
            Ok(()) => Mend::WithoutAnchors(ended),
            Err(_) => renewed(Renewal::RootAndIssuer, at).await,
        };
        Err(Failed { why, remedy: Some(remedy) })
    }

    async fn issuer_holds(&self, at: Looked<'_>) -> Result<(), Failed> {
        match valid(&self.issuer, at.now) {
            Ok(()) => Ok(()),
            Err(why) => Err(Failed { why, remedy: Some(new_issuer(at).await) }),
        }
    }

    async fn belongs_together(&self, at: Looked<'_>) -> Result<(), Failed> {
        match self.tried(&self.anchors_pem, at) {
            Ok(()) => Ok(()),
            Err(why) => Err(Failed { why: format!("the Secret {ISSUER}: {why}"), remedy: Some(new_issuer(at).await) }),
        }
    }

    fn tried(&self, anchors_pem: &str, at: Looked<'_>) -> Result<(), String> {
        let Looked { namespace, values, now, .. } = at;
        ca::tried(anchors_pem, &self.certificate, &self.key, namespace, values.trust_domain(), now)
    }
}

async fn new_issuer(at: Looked<'_>) -> Mend {
    match is_brought(at.values) {
        true => Mend::Command(write_issuer(at.namespace, at.values)),
        false => renewed(Renewal::EndedIssuer, at).await,
    }
}

/// Everybody trusts whom the issuer is below; without them an upgrade knows nobody. A proxy that the injector has made has them still.
async fn new_anchors(at: Looked<'_>) -> Mend {
    let Looked { cluster, namespace, values, now } = at;
    let issuer = issuer(cluster, namespace).await.ok();
    let vouch = |anchors_pem: &str| {
        let tried = |(certificate, key): &(String, String)| {
            ca::tried(anchors_pem, certificate, key, namespace, values.trust_domain(), now)
        };
        issuer.as_ref().is_some_and(|issuer| tried(issuer).is_ok())
    };
    let proxies = install::trusting(cluster, namespace).await.unwrap_or_default();
    let mut those = proxies.iter().filter(|proxies| proxies.anchors_pem.as_deref().is_some_and(vouch));
    match those.find_map(|proxies| proxies.pods.first()?.split_once('/')) {
        Some((of, pod)) => {
            let value = |containers| {
                format!("{{.spec.{containers}[?(@.name==\"{PROXY}\")].env[?(@.name==\"{TRUST_ANCHORS}\")].value}}")
            };
            let values = ["initContainers", "containers"].map(value).concat();
            let written = anchors_written(namespace);
            Mend::Command(format!("kubectl -n {of} get pod {pod} -o 'jsonpath={values}' > root.crt && {written}"))
        }
        None if is_brought(values) => Mend::Command(write_anchors(namespace)),
        None => renewed(Renewal::LostRoot, at).await,
    }
}

/// Whether somebody else writes the issuer or the anchors.
fn is_brought(values: &Values) -> bool {
    values.identity.external_ca || is_tls(values)
}

/// Of every pod of the mesh but the control plane's, which is made anew with what it trusts. Where they cannot be asked for nothing is
/// told: `weft check --proxy` names them.
async fn restarts(at: Looked<'_>) -> Vec<String> {
    let labels = format!("{}={}", label::CONTROL_NAMESPACE, at.namespace);
    let pods = at.cluster.pods(None, &labels).await.unwrap_or_default();
    restart_all(pods.iter().filter(|pod| pod.metadata.namespace.as_deref() != Some(at.namespace)))
}

async fn anchors(cluster: &Cluster, namespace: &str) -> Result<String, Failed> {
    let anchors = cluster.config_map(namespace, TRUST_ROOTS).await?;
    let mut anchors = anchors.ok_or_else(|| format!("there is no ConfigMap {TRUST_ROOTS}"))?;
    let anchors = anchors.remove(TRUST_ROOTS_KEY);
    Ok(anchors.ok_or_else(|| format!("the ConfigMap {TRUST_ROOTS} has no key {TRUST_ROOTS_KEY}"))?)
}

/// Its certificate and its key.
async fn issuer(cluster: &Cluster, namespace: &str) -> Result<(String, String), Failed> {
    let secret = secret(cluster, namespace, ISSUER).await?;
    let names = if secret.contains_key("crt.pem") { ("crt.pem", "key.pem") } else { ("tls.crt", "tls.key") };
    let part = |name: &str| part(&secret, ISSUER, name);
    Ok((part(names.0)?, part(names.1)?))
}

/// A Secret of which a part is missing is in an upgrade's way.
fn write_issuer(namespace: &str, values: &Values) -> String {
    let written = issuer_written(namespace, values);
    let others = if is_tls(values) {
        format!("; where cert-manager writes it: kubectl -n {namespace} describe certificates.cert-manager.io")
    } else {
        String::new()
    };
    format!("{written}, with an issuer below the trust anchors, made as in docs/certificates.md{others}")
}

fn issuer_written(namespace: &str, values: &Values) -> String {
    let parts = match is_tls(values) {
        true => "--type=kubernetes.io/tls --from-file=tls.crt=issuer.crt --from-file=tls.key=issuer.key",
        false => "--from-file=crt.pem=issuer.crt --from-file=key.pem=issuer.key",
    };
    format!("{} && kubectl -n {namespace} create secret generic {ISSUER} {parts}", issuer_deleted(namespace))
}

/// A Secret's type never changes: one that is to be of another is deleted first.
fn issuer_deleted(namespace: &str) -> String {
    format!("kubectl -n {namespace} delete secret {ISSUER} --ignore-not-found")
}

/// What an upgrade, which writes the issuer into a Secret of its own type, wants done before.
async fn before_an_upgrade(at: Looked<'_>) -> Option<String> {
    let of = at.cluster.secret_type(at.namespace, ISSUER).await.ok().flatten()?;
    (of != "Opaque").then(|| issuer_deleted(at.namespace))
}

async fn renewed(renewal: Renewal, at: Looked<'_>) -> Mend {
    Mend::Renew { renewal, before: before_an_upgrade(at).await, behind: restarts(at).await }
}

/// Whether the issuer's Secret is of the kind that cert-manager writes.
fn is_tls(values: &Values) -> bool {
    &*values.identity.issuer.scheme == "kubernetes.io/tls"
}
