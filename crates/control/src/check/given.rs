//! What mends a webhook's certificate of which a part is somebody else's: an upgrade makes that part anew as it is.

use super::{identity::Looked, remedy::Mend};
use weft_cluster::{
    install::{Webhook, quoted},
    values::Validator,
};

/// What the values of an installation say of a webhook's certificate.
pub(super) struct Given<'v> {
    pub(super) webhook: Webhook,
    namespace: &'v str,
    /// Where the values say it.
    path: &'static str,
    external_secret: bool,
    ca_bundle: &'v str,
    /// Where cert-manager is said to find who vouches for it.
    inject_ca_from: &'v str,
    inject_ca_from_secret: &'v str,
}

impl<'v> Given<'v> {
    pub(super) fn of(at: Looked<'v>, webhook: Webhook) -> Self {
        let Looked { values, namespace, .. } = at;
        let validator = |path, of: &'v Validator| Self {
            webhook,
            namespace,
            path,
            external_secret: of.external_secret,
            ca_bundle: &of.ca_bundle,
            inject_ca_from: &of.inject_ca_from,
            inject_ca_from_secret: &of.inject_ca_from_secret,
        };
        match webhook {
            Webhook::ProxyInjector => {
                let of = &values.proxy_injector;
                Self {
                    webhook,
                    namespace,
                    path: "proxyInjector",
                    external_secret: of.external_secret,
                    ca_bundle: &of.ca_bundle,
                    inject_ca_from: &of.inject_ca_from,
                    inject_ca_from_secret: &of.inject_ca_from_secret,
                }
            }
            Webhook::ProfileValidator => validator("profileValidator", &values.profile_validator),
            Webhook::PolicyValidator => validator("policyValidator", &values.policy_validator),
        }
    }

    pub(super) fn host(&self) -> String {
        format!("{}.{}.svc", self.webhook.service(), self.namespace)
    }

    fn is_injected(&self) -> bool {
        !self.inject_ca_from.is_empty() || !self.inject_ca_from_secret.is_empty()
    }

    /// The Secret, with the certificate of the file `tls.crt`: another one, because the present one's type may be another and stays.
    fn secret_written(&self) -> String {
        let (namespace, name) = (self.namespace, self.webhook.secret());
        format!(
            "kubectl -n {namespace} delete secret {name} --ignore-not-found && kubectl -n {namespace} create secret tls {name} --cert=tls.crt \
             --key=tls.key"
        )
    }

    /// What mends the certificate; `None` where an upgrade does.
    pub(super) fn certificate_anew(&self) -> Option<Mend> {
        match self.is_injected() {
            true => Some(Mend::Command(format!(
                "{}, with a certificate for {} by the CA that cert-manager names to the API server; where cert-manager writes it: kubectl -n {} \
                 describe certificates.cert-manager.io",
                self.secret_written(),
                self.host(),
                self.namespace
            ))),
            false => self.vouched_for_anew(),
        }
    }

    /// What mends whom the API server trusts with it.
    pub(super) fn bundle_anew(&self) -> Option<Mend> {
        let (of, from) = match (self.inject_ca_from, self.inject_ca_from_secret) {
            ("", "") => return self.vouched_for_anew(),
            ("", secret) => ("secret", secret),
            (certificate, _) => ("certificates.cert-manager.io", certificate),
        };
        let (namespace, name) = from.split_once('/').unwrap_or((self.namespace, from));
        Some(Mend::Command(format!(
            "kubectl -n {} describe {of} {}, whose CA cert-manager writes into {} and which is to be above the Secret {}",
            quoted(namespace),
            quoted(name),
            self.webhook.configuration(),
            self.webhook.secret()
        )))
    }

    /// Another certificate, which the API server trusts besides what it trusts by now: both are presented for a while.
    fn vouched_for_anew(&self) -> Option<Mend> {
        let Self { webhook, path, external_secret, ca_bundle, .. } = *self;
        if !external_secret && ca_bundle.is_empty() {
            return None;
        }
        let host = self.host();
        let (kind, name) = (webhook.configured().plural, webhook.configuration());
        let before = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN={} -addext subjectAltName=DNS:{host} \
             -keyout tls.key -out tls.crt && cp tls.crt ca.crt && kubectl get {kind} {name} -o 'jsonpath={{.webhooks[0].clientConfig.caBundle}}' \
             | base64 -d >> ca.crt",
            webhook.service()
        );
        let bundle = format!("--set-file {path}.caBundle=ca.crt");
        let (options, behind) = if external_secret {
            let behind = format!(
                " && {}, unless who has made the Secret makes another for {host} below {path}.caBundle",
                self.secret_written()
            );
            (bundle, behind)
        } else {
            let pair = format!("--set-file {path}.crtPEM=tls.crt --set-file {path}.keyPEM=tls.key");
            (format!("{bundle} {pair}"), format!(", or with another certificate for {host} and its CA"))
        };
        Some(Mend::UpgradeAmong { before, options, behind })
    }
}
