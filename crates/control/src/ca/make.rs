//! Makes roots and issuers.

use super::{
    Error,
    schedule::Step,
    state::{Issuer, Pair, Root, State, seconds},
};
use crate::Lifetimes;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Carries out one step on `state`.
pub(super) fn step(state: &mut State, step: Step, lifetimes: &Lifetimes, now: SystemTime) -> Result<(), Error> {
    let failed = |e: rcgen::Error| Error::Make(e.to_string());
    match step {
        Step::MakeRoot => {
            let number = state.roots_made;
            let (params, key, not_after) =
                authority(&format!("weft root {number}"), lifetimes.root, u64::MAX, lifetimes, now)?;
            let certificate = params.self_signed(&key).map_err(failed)?;
            state.roots.push(Root { number, pair: pair(certificate.pem(), &key, not_after, now), signs_since: None });
            state.roots_made += 1;
        }
        Step::MakeIssuer { root: number } => {
            let Some(root) = state.roots.iter_mut().find(|r| r.number == number) else {
                return Err(Error::Make(format!("root {number} is gone")));
            };
            let (params, key, not_after) =
                authority("weft issuer", lifetimes.issuer, root.pair.not_after, lifetimes, now)?;
            let root_key = KeyPair::from_pem(&root.pair.key_pem).map_err(failed)?;
            let signer = rcgen::Issuer::from_ca_cert_pem(&root.pair.certificate_pem, root_key).map_err(failed)?;
            let certificate = params.signed_by(&key, &signer).map_err(failed)?;
            root.signs_since.get_or_insert(seconds(now));
            state.issuer = Some(Issuer { root: number, pair: pair(certificate.pem(), &key, not_after, now) });
        }
        Step::DropRoot { root } => {
            state.roots.retain(|r| r.number != root);
            if state.issuer.as_ref().is_some_and(|i| i.root == root) {
                state.issuer = None;
            }
        }
    }
    Ok(())
}

fn pair(certificate_pem: String, key: &KeyPair, not_after: u64, now: SystemTime) -> Pair {
    Pair { certificate_pem, key_pem: key.serialize_pem(), made: seconds(now), not_after }
}

/// The parameters of a CA certificate, its key, and its end, which is not after `latest`.
pub(super) fn authority(
    name: &str,
    lifetime: Duration,
    latest: u64,
    lifetimes: &Lifetimes,
    now: SystemTime,
) -> Result<(CertificateParams, KeyPair, u64), Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| Error::Make(e.to_string()))?;
    let not_after = seconds(now).saturating_add(lifetime.as_secs().max(1)).min(latest);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    params.not_before = (now - lifetimes.skew).into();
    params.not_after = (UNIX_EPOCH + Duration::from_secs(not_after)).into();
    Ok((params, key, not_after))
}

/// 127 random bits: never repeated, never negative, never zero.
pub(super) fn serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Make("there are no random numbers".to_owned()))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
