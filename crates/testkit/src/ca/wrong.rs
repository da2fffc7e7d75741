//! Certificates that are wrong in one way each, for peers that present them all the same.

use super::{Ca, authority};
use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};

/// Who must refuse a certificate: the clients of a server, the servers of a client, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuses {
    Both,
    Clients,
    Servers,
}

/// A certificate with its key, and what is wrong with it.
pub struct Wrong {
    pub what: &'static str,
    pub refuses: Refuses,
    /// A part of what whoever refuses it says of it.
    pub reason: &'static str,
    pub key_pem: String,
    pub leaf_pem: String,
    /// What is sent behind it.
    pub intermediates_pem: String,
}

impl Ca {
    /// Leaves for `name`. The first one has nothing wrong.
    pub fn wrong(&self, name: &str) -> Result<Vec<Wrong>> {
        use Refuses::{Both, Clients, Servers};
        const TRUST: &str = "does not chain to the trust anchors";
        let (issuer, sent) = (&self.0.issuer, &self.0.issuer_pem.0);
        let dns = |name: &str| Ok::<_, rcgen::Error>(vec![SanType::DnsName(name.try_into()?)]);
        let names = dns(name)?;
        let leaf = |what, refuses, reason, by: &Issuer<'static, KeyPair>, change: &dyn Fn(&mut CertificateParams)| {
            let mut params = CertificateParams::default();
            params.subject_alt_names.clone_from(&names);
            (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2100, 1, 1));
            change(&mut params);
            let key = KeyPair::generate()?;
            let (leaf_pem, key_pem) = (params.signed_by(&key, by)?.pem(), key.serialize_pem());
            Ok::<_, rcgen::Error>(Wrong { what, refuses, reason, key_pem, leaf_pem, intermediates_pem: sent.clone() })
        };
        let own_key = KeyPair::generate()?;
        let mut own = CertificateParams::default();
        own.subject_alt_names.clone_from(&names);
        let self_signed = Wrong {
            what: "self-signed",
            refuses: Both,
            reason: TRUST,
            leaf_pem: own.self_signed(&own_key)?.pem(),
            key_pem: own_key.serialize_pem(),
            intermediates_pem: String::new(),
        };
        let stranger = Issuer::new(authority("identity.linkerd.cluster.local"), KeyPair::generate()?);
        let (somebody, usage) = (dns("somebody.else.example")?, ExtendedKeyUsagePurpose::ClientAuth);
        Ok(vec![
            leaf("nothing", Both, "", issuer, &|_| {})?,
            leaf("expired", Both, "has expired", issuer, &|p| p.not_after = date_time_ymd(2020, 1, 1))?,
            leaf("not yet valid", Both, "is not valid yet", issuer, &|p| p.not_before = date_time_ymd(2090, 1, 1))?,
            leaf("of another issuer with the same name", Both, TRUST, &stranger, &|_| {})?,
            leaf("another name", Clients, "its certificate names", issuer, &|p| {
                p.subject_alt_names.clone_from(&somebody);
            })?,
            leaf("no name", Both, "", issuer, &|p| p.subject_alt_names = vec![])?,
            leaf("for clients only", Clients, TRUST, issuer, &|p| p.extended_key_usages = vec![usage.clone()])?,
            leaf("for servers only", Servers, TRUST, issuer, &|p| {
                p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            })?,
            leaf("an authority's", Both, TRUST, issuer, &|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))?,
            self_signed,
            Wrong {
                intermediates_pem: String::new(),
                ..leaf("without its intermediate", Both, TRUST, issuer, &|_| {})?
            },
        ])
    }
}
