//! What an upgrade keeps of the certificates that are there: everything that still serves.
//!
//! Anchors and issuer change only where others are given, and a given one has to get along with what the mesh lives by now.

use super::{
    Error,
    life::Life,
    material::{DAY, anchors_sha256, tried, webhook_pair, webhooks_are_served},
    mounted::{begin, earliest},
};
use jiff::{Timestamp, Unit};
use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};
use weft_cluster::{
    install::{Material, Pair, Stored, Trusting, Webhook},
    values::Values,
};
use weft_transport::tls::Serving;
use x509_parser::pem::Pem;

/// By then the kubelet has handed another issuer to the identity process, which signs by the one before until then.
const HANDED_OVER: Duration = Duration::from_secs(2 * 60);
/// A webhook's certificate is kept while it is valid for longer.
const KEPT: Duration = Duration::from_secs(60 * DAY.as_secs());
/// Certificates of a webhook that are believed besides the present one: there are two where upgrades follow each other.
const MOST: usize = 4;
/// Pods named in a message.
const TOLD: usize = 10;

/// What `values` give, or else what is stored, or else, of webhooks, what is made.
///
/// # Errors
/// There is no issuer, or it would sign what nobody believes.
pub fn kept(values: &Values, namespace: &str, stored: &Stored, now: SystemTime) -> Result<Material, Error> {
    webhooks_are_served(values, namespace)?;
    let given = |reason: String| Error::Given(reason);
    let tls = &values.identity.issuer.tls;
    let anchors_pem = values.identity_trust_anchors_pem.or(&stored.anchors_pem).to_owned();
    let issuer = if tls.crt_pem.is_empty() {
        stored.issuer.clone()
    } else {
        Some(Pair { certificate: tls.crt_pem.to_string(), key: tls.key_pem.to_string() })
    };
    let Some(issuer) = issuer else {
        return Err(given(format!(
            "the namespace {namespace} has no Secret linkerd-identity-issuer with a certificate and its key; give the issuer by \
             --identity-issuer-certificate-file and --identity-issuer-key-file, which `weft check` says how to make"
        )));
    };
    let works =
        |issuer: &Pair| tried(&anchors_pem, &issuer.certificate, &issuer.key, namespace, values.trust_domain(), now);
    works(&issuer).map_err(|reason| {
        given(format!(
            "the issuer and the trust anchors do not belong together: {reason}; give an issuer that is valid and below them by \
             --identity-issuer-certificate-file and --identity-issuer-key-file, which `weft check` says how to make"
        ))
    })?;
    let of = |webhook: Webhook, given: &str, pair: &Option<Pair>| {
        let known = Known { given, stored: pair.as_ref(), believed: stored.bundle(webhook) };
        of_webhook(webhook, known, namespace, now)
    };
    let (proxy_injector, proxy_injector_before) =
        of(Webhook::ProxyInjector, &values.proxy_injector.crt_pem, &stored.proxy_injector)?;
    let (profile_validator, profile_validator_before) =
        of(Webhook::ProfileValidator, &values.profile_validator.crt_pem, &stored.profile_validator)?;
    let (policy_validator, policy_validator_before) =
        of(Webhook::PolicyValidator, &values.policy_validator.crt_pem, &stored.policy_validator)?;
    let is_same = stored.issuer.as_ref() == Some(&issuer);
    let issuer_since = if is_same { stored.issuer_since } else { Timestamp::try_from(now).ok() };
    Ok(Material {
        anchors_sha256: anchors_sha256(&anchors_pem),
        anchors_pem,
        issuer,
        issuer_since,
        proxy_injector,
        proxy_injector_before,
        profile_validator,
        profile_validator_before,
        policy_validator,
        policy_validator_before,
    })
}

/// What is known of a webhook's certificates, PEM.
#[derive(Clone, Copy)]
struct Known<'a> {
    /// By values, which beat everything; empty if there is none.
    given: &'a str,
    stored: Option<&'a Pair>,
    /// What the API server believes.
    believed: &'a str,
}

/// A webhook's certificate from now on, and those that serve until its process has read that: what is stored, and of what the API
/// server believes what is still valid. An upgrade may follow another before the kubelet has handed over its Secret.
fn of_webhook(webhook: Webhook, known: Known<'_>, namespace: &str, now: SystemTime) -> Result<(Pair, String), Error> {
    let Known { given, stored, believed } = known;
    let host = format!("{}.{namespace}.svc", webhook.service());
    let vouches = |certificate: &str| Serving::vouched(certificate, certificate, &host, now).is_ok();
    let serves = |pair: &Pair| Serving::new(&pair.certificate, &pair.key).is_ok() && vouches(&pair.certificate);
    let stored = stored.filter(|pair| serves(pair));
    let pair = match stored {
        Some(pair) if earliest(&pair.certificate).is_ok_and(|end| end > now + KEPT) => pair.clone(),
        _ => webhook_pair(webhook, namespace, now)?,
    };
    let present = if given.is_empty() { pair.certificate.as_str() } else { given };
    let mut before: Vec<String> = vec![];
    for one in stored.iter().flat_map(|stored| certificates(&stored.certificate)).chain(certificates(believed)) {
        let is_known = before.contains(&one) || certificates(present).any(|present| present == one);
        if !is_known && before.len() < MOST && vouches(&one) {
            before.push(one);
        }
    }
    // Where the one ends in no new line, the next would begin in its last.
    let between = if before.is_empty() || present.ends_with('\n') { "" } else { "\n" };
    let before = between.to_owned() + &before.concat();
    Ok((pair, before))
}

/// Each of a text, in a form that can be compared.
fn certificates(pem: &str) -> impl Iterator<Item = String> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END).map(str::trim).filter(|one| one.ends_with(END)).map(|one| format!("{one}\n"))
}

/// Whether an anchor is left out while a certificate of the issuer before the present one may be valid.
fn still_needed(material: &Material, stored: &Stored, now: SystemTime) -> Result<(), Error> {
    let kept = anchors(&material.anchors_pem, now);
    if anchors(&stored.anchors_pem, now).is_subset(&kept) {
        return Ok(());
    }
    // What is noted may be of an issuer that somebody else has replaced since: none has signed for longer than it is valid.
    let noted = stored.issuer_since.map(SystemTime::from);
    let begun = stored.issuer.as_ref().and_then(|issuer| begin(&issuer.certificate));
    let Some(since) = noted.max(begun) else { return Ok(()) };
    let until = since + stored.leaf + HANDED_OVER;
    if until <= now {
        return Ok(());
    }
    let shown = |time: SystemTime| Timestamp::try_from(time).map(|t| t.round(Unit::Second).unwrap_or(t).to_string());
    Err(Error::Given(format!(
        "the trust anchors that are given leave out a present one, and certificates of an issuer below it may be valid until {}: the \
         present issuer signs since {} only, and whoever has such a certificate would be believed by nobody; wait until then, or --force",
        shown(until).unwrap_or_default(),
        shown(since).unwrap_or_default(),
    )))
}

/// Those that have not ended: what has vouches for nobody.
fn anchors(pem: &str, now: SystemTime) -> BTreeSet<Vec<u8>> {
    let lives_on = |block: &Pem| block.parse_x509().is_ok_and(|root| Life::of(&root).end > now);
    let blocks = Pem::iter_from_buffer(pem.as_bytes()).filter_map(Result::ok);
    blocks.filter(lives_on).map(|block| block.contents).collect()
}

/// Whether nobody is cut off: running proxies believe what the issuer signs from now on, and the anchors from now on vouch for what
/// the issuers until now have signed. `running` is `None` if it could not be asked.
///
/// # Errors
/// Who would be cut off, and what to do first.
pub fn believed(
    material: &Material,
    stored: &Stored,
    running: Option<&[Trusting]>,
    namespace: &str,
    now: SystemTime,
) -> Result<(), Error> {
    let domain = &stored.trust_domain;
    let believes =
        |anchors: &str, issuer: &Pair| tried(anchors, &issuer.certificate, &issuer.key, namespace, domain, now).is_ok();
    if material.anchors_pem.trim() != stored.anchors_pem.trim()
        && let Some(until_now) = &stored.issuer
        && !believes(&material.anchors_pem, until_now)
    {
        return Err(Error::Given(
            "the trust anchors that are given do not vouch for the present issuer, whose certificates all pods have: give a file that holds \
             the present anchors as well, or --force"
                .to_owned(),
        ));
    }
    still_needed(material, stored, now)?;
    let is_same =
        material.anchors_pem.trim() == stored.anchors_pem.trim() && stored.issuer.as_ref() == Some(&material.issuer);
    let Some(running) = running else {
        if is_same {
            return Ok(());
        }
        return Err(Error::Given(
            "whether running proxies know the issuer's anchor cannot be asked with --from-manifests; upgrade with the cluster, or --force"
                .to_owned(),
        ));
    };
    let unbelieving = running.iter().filter(|proxies| {
        let anchors = proxies.anchors_pem.as_deref().unwrap_or(&stored.anchors_pem);
        !believes(anchors, &material.issuer)
    });
    let pods: Vec<&str> = unbelieving.flat_map(|proxies| &proxies.pods).map(String::as_str).collect();
    if pods.is_empty() {
        return Ok(());
    }
    let more = if pods.len() > TOLD { format!("\n  * and {} more", pods.len() - TOLD) } else { String::new() };
    let named: String = pods.iter().take(TOLD).map(|pod| format!("\n  * pod {pod}")).collect();
    Err(Error::Given(format!(
        "proxies that run do not know the trust anchor of the issuer and would believe nobody who has its certificate:{named}{more}\n\
         upgrade with trust anchors that hold the new one besides the present ones, restart these pods (those that `weft inject --manual` has \
         given a proxy: inject their manifests anew and apply them), and then give the issuer; or use --force"
    )))
}

#[cfg(test)]
mod tests {
    use super::{super::material, *};
    use serde_json::{Value, json};
    use weft_cluster::install::Author;

    const SKEW: Duration = Duration::from_secs(20);

    fn values(given: Value) -> Values {
        Values::from_layers([given]).unwrap()
    }

    fn stored(material: &Material) -> Stored {
        Stored {
            by: Author::Weft,
            version: Some("v1".to_owned()),
            given: json!({}),
            api_server_ports: None,
            trust_domain: "cluster.local".to_owned(),
            anchors_pem: material.anchors_pem.clone(),
            issuer: Some(material.issuer.clone()),
            issuer_since: material.issuer_since,
            leaf: DAY + SKEW,
            proxy_injector: Some(material.proxy_injector.clone()),
            profile_validator: Some(material.profile_validator.clone()),
            policy_validator: Some(material.policy_validator.clone()),
            bundles: vec![],
        }
    }

    fn new() -> Material {
        material(&Values::default(), "linkerd", SystemTime::now()).unwrap()
    }

    fn running(material: &Material) -> Vec<Trusting> {
        vec![
            Trusting { anchors_pem: None, pods: vec!["linkerd/own".to_owned()] },
            Trusting { anchors_pem: Some(material.anchors_pem.clone()), pods: vec!["app/web".to_owned()] },
        ]
    }

    #[test]
    fn nothing_is_rotated_by_accident() {
        let (now, before) = (SystemTime::now(), new());
        let after = kept(&Values::default(), "linkerd", &stored(&before), now).unwrap();
        assert_eq!((&after.anchors_pem, &after.anchors_sha256), (&before.anchors_pem, &before.anchors_sha256));
        assert_eq!((&after.issuer, &after.proxy_injector), (&before.issuer, &before.proxy_injector));
        assert_eq!(after.proxy_injector_before, "");
        assert_eq!(
            (&after.profile_validator, &after.policy_validator),
            (&before.profile_validator, &before.policy_validator)
        );
        believed(&after, &stored(&before), Some(&running(&before)), "linkerd", now).unwrap();
        believed(&after, &stored(&before), None, "linkerd", now).unwrap();
    }

    #[test]
    fn a_webhooks_certificate_is_replaced_before_it_ends_and_both_are_trusted() {
        let before = new();
        for (days, is_kept) in [(304, true), (306, false)] {
            let later = SystemTime::now() + days * DAY;
            let stored = Some(&before.proxy_injector);
            let known = Known { given: "", stored, believed: "" };
            let (after, until_then) = of_webhook(Webhook::ProxyInjector, known, "linkerd", later).unwrap();
            assert_eq!(after == before.proxy_injector, is_kept, "after {days} days");
            assert_eq!(until_then, if is_kept { "" } else { before.proxy_injector.certificate.as_str() });
            // What the API server trusts vouches for what is presented, before and after.
            let bundle = after.certificate.clone() + &until_then;
            for presented in [&before.proxy_injector, &after] {
                Serving::vouched(&bundle, &presented.certificate, "linkerd-proxy-injector.linkerd.svc", later).unwrap();
            }
        }
        let now = SystemTime::now();
        for broken in [None, Some(Pair::default()), Some(before.issuer.clone())] {
            let stored = Stored { proxy_injector: broken, ..stored(&before) };
            let after = kept(&Values::default(), "linkerd", &stored, now).unwrap();
            assert!(!after.proxy_injector.certificate.is_empty() && after.proxy_injector_before.is_empty());
        }
    }

    /// The kubelet takes a minute to hand a Secret over: until then the process presents what it has.
    #[test]
    fn an_upgrade_behind_another_drops_no_certificate_that_serves() {
        let (first, host) = (new().proxy_injector, "linkerd-proxy-injector.linkerd.svc");
        let of = |stored: &Pair, bundle: &str, days: u32| {
            let later = SystemTime::now() + days * DAY;
            let known = Known { given: "", stored: Some(stored), believed: bundle };
            of_webhook(Webhook::ProxyInjector, known, "linkerd", later).unwrap()
        };
        let (second, before) = of(&first, &first.certificate, 306);
        let bundle = second.certificate.clone() + &before;
        let (again, before) = of(&second, &bundle, 306);
        assert_eq!((&again, &before), (&second, &first.certificate), "believed until it has ended");
        let bundle = again.certificate.clone() + &before;
        for presented in [&first, &second] {
            let later = SystemTime::now() + 306 * DAY;
            Serving::vouched(&bundle, &presented.certificate, host, later).unwrap();
        }
        assert_eq!(of(&second, &bundle, 366), (second.clone(), String::new()), "what has ended goes");
        let others = new().policy_validator.certificate + "no certificate";
        assert_eq!(of(&second, &others, 306), (second.clone(), String::new()), "others' names are not believed");
        // Somebody's own is presented a while later, too.
        let (own, stored, now) = (new().proxy_injector.certificate, new().proxy_injector, SystemTime::now());
        let known = Known { given: own.trim(), stored: Some(&stored), believed: &stored.certificate };
        let (_, before) = of_webhook(Webhook::ProxyInjector, known, "linkerd", now).unwrap();
        let bundle = own.trim().to_owned() + &before;
        for presented in [&own, &stored.certificate] {
            Serving::vouched(&bundle, presented, host, now).unwrap();
        }
    }

    #[test]
    fn a_root_is_rotated_in_three_steps_and_never_in_one() {
        let (now, before, next) = (SystemTime::now(), new(), new());
        let step = |anchors: &str, issuer: Option<&Pair>, stored: &Stored, running: &[Trusting]| {
            let mut given = json!({"identityTrustAnchorsPEM": anchors});
            if let Some(pair) = issuer {
                given["identity"] = json!({"issuer": {"tls": {"crtPEM": pair.certificate, "keyPEM": pair.key}}});
            }
            let material = kept(&values(given), "linkerd", stored, now).map_err(|e| e.to_string())?;
            believed(&material, stored, Some(running), "linkerd", now).map_err(|e| e.to_string())?;
            Ok::<Stored, String>(self::stored(&material))
        };
        let start = stored(&before);
        let told = step(&next.anchors_pem, Some(&next.issuer), &start, &running(&before)).unwrap_err();
        assert!(told.contains("do not vouch for the present issuer"), "{told}");
        let told = step(&next.anchors_pem, None, &start, &running(&before)).unwrap_err();
        assert!(told.contains("do not belong together"), "{told}");

        let both = before.anchors_pem.clone() + &next.anchors_pem;
        let told = step(&both, Some(&next.issuer), &start, &running(&before)).unwrap_err();
        assert!(told.contains("* pod app/web") && told.contains("* pod linkerd/own"), "{told}");
        let first = step(&both, None, &start, &running(&before)).unwrap();
        let told = step(&both, Some(&next.issuer), &first, &running(&before)).unwrap_err();
        assert!(told.contains("* pod app/web") && !told.contains("own"), "not restarted yet: {told}");

        let restarted = [Trusting { anchors_pem: Some(both.clone()), pods: vec!["app/web".to_owned()] }];
        let second = step(&both, Some(&next.issuer), &first, &restarted).unwrap();
        // Whoever was certified a moment before has the old issuer's certificate for a day.
        let since = SystemTime::from(second.issuer_since.unwrap());
        let told = step(&next.anchors_pem, None, &second, &restarted).unwrap_err();
        assert!(told.contains("leave out a present one") && told.contains("--force"), "{told}");
        let given = values(json!({"identityTrustAnchorsPEM": next.anchors_pem}));
        let third = kept(&given, "linkerd", &second, now).unwrap();
        for early in [Duration::ZERO, DAY, DAY + SKEW] {
            still_needed(&third, &second, since + early).unwrap_err();
        }
        still_needed(&third, &second, since + DAY + SKEW + HANDED_OVER).unwrap();
        assert_eq!((&third.anchors_pem, &third.issuer), (&next.anchors_pem, &next.issuer));
        // An upgrade between them rotates nothing, and starts nothing anew.
        assert_eq!(step(&both, None, &second, &restarted).unwrap().issuer_since, second.issuer_since);

        // Of an issuer that somebody else has replaced it is known since when it is valid, whatever was noted of the one before.
        for issuer_since in [None, Timestamp::try_from(now - 10 * DAY).ok()] {
            let others = Stored { issuer_since, ..second.clone() };
            let told = step(&next.anchors_pem, None, &others, &restarted).unwrap_err();
            assert!(told.contains("leave out a present one"), "{issuer_since:?}: {told}");
            still_needed(&next, &others, now + 2 * DAY).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_asked_is_not_assumed() {
        let (now, before) = (SystemTime::now(), new());
        let other = new();
        let both = before.anchors_pem.clone() + &other.anchors_pem;
        let after = kept(&values(json!({"identityTrustAnchorsPEM": both})), "linkerd", &stored(&before), now).unwrap();
        let told = believed(&after, &stored(&before), None, "linkerd", now).unwrap_err().to_string();
        assert!(told.contains("--from-manifests"), "{told}");
        let without = Stored { issuer: None, ..stored(&before) };
        let told = kept(&Values::default(), "linkerd", &without, now).unwrap_err().to_string();
        assert!(told.contains("has no Secret linkerd-identity-issuer"), "{told}");
    }

    /// Linkerd's root is its issuer, too.
    #[test]
    fn a_root_that_signs_itself_is_kept() {
        let now = SystemTime::now();
        let mut params = rcgen::CertificateParams::new(vec!["identity.linkerd.cluster.local".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "identity.linkerd.cluster.local");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = ((now - DAY).into(), (now + 364 * DAY).into());
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        let issuer = Pair { certificate: root.clone(), key: key.serialize_pem() };
        let linkerds = Stored { anchors_pem: root.clone(), issuer: Some(issuer.clone()), ..stored(&new()) };
        let after = kept(&Values::default(), "linkerd", &linkerds, now).unwrap();
        assert_eq!((after.anchors_pem, after.issuer), (root, issuer));
    }
}
