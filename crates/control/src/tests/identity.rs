//! `weft control-plane identity` against the fake API server: whose a token is, and the files of the issuer.

use super::{
    kubernetes::{Lab, event, free},
    lab::{identity, patiently},
};
use crate::kubernetes::{Identity, Mode};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::Code;
use weft_cluster::kubernetes::AUDIENCE;
use weft_testkit::{
    api_server::{Failure, FakeApi},
    ca::Ca,
};
use weft_transport::tls::{Key, Store};
use weft_wire::{Error, identity::Certificate};

fn issuer(lab_dir: &Path) -> (PathBuf, PathBuf) {
    (lab_dir.join("issuer"), lab_dir.join("ca-bundle.crt"))
}

/// Puts a CA where the identity process reads it, the names of the files those of the Secret's type.
fn mount(dir: &Path, ca: &Ca, names: [&str; 2]) {
    let (issuer, roots) = issuer(dir);
    std::fs::create_dir_all(&issuer).unwrap();
    std::fs::write(roots, ca.anchors_pem()).unwrap();
    let (certificate, key) = ca.issuer_pem();
    std::fs::write(issuer.join(names[0]), certificate).unwrap();
    std::fs::write(issuer.join(names[1]), key).unwrap();
}

fn identity_mode(dir: &Path) -> Mode {
    let (issuer, trust_roots) = issuer(dir);
    let (issuance_lifetime, clock_skew_allowance) = (Duration::from_secs(3600), Duration::from_secs(20));
    Mode::Identity(Identity { addr: free(), issuer, trust_roots, issuance_lifetime, clock_skew_allowance })
}

async fn certify(lab: &Lab, account: &str, token: &str) -> Result<(Key, Certificate), (Code, String)> {
    let key = Key::generate().unwrap();
    let csr = key.csr(&identity(account)).unwrap();
    let mut client = weft_wire::identity::Client::new(lab.channel("identity").await);
    match patiently(client.certify(&identity(account), token.to_owned().into(), csr.into())).await {
        Ok(certificate) => Ok((key, certificate)),
        Err(Error::Rpc(status)) => Err((status.code(), status.message().to_owned())),
        Err(Error::Invalid(invalid)) => panic!("{invalid}"),
    }
}

/// Whether a proxy that trusts `ca` takes the certificate.
fn takes(ca: &Ca, account: &str, (key, certificate): &(Key, Certificate)) -> bool {
    let weft_model::Identity::Dns(name) = identity(account) else { unreachable!() };
    let store = Store::new(ca.anchors_pem(), name, identity(account)).unwrap();
    let intermediates: Vec<Vec<u8>> = certificate.intermediates.iter().map(|i| i.to_vec()).collect();
    store.set_certificate(key, &certificate.leaf, &intermediates).is_ok()
}

fn tokens(api: &FakeApi) {
    api.token("web's", "system:serviceaccount:emojivoto:web", &[AUDIENCE]);
    api.token("voting's", "system:serviceaccount:emojivoto:voting", &[AUDIENCE]);
    api.token("for the API server", "system:serviceaccount:emojivoto:web", &["https://kubernetes.default.svc"]);
    api.token("a user's", "alice", &[AUDIENCE]);
}

#[tokio::test]
async fn the_api_server_says_whose_a_token_is() {
    let api = FakeApi::start().await.unwrap();
    tokens(&api);
    let ca = Ca::new().unwrap();
    let lab = Lab::start("identity", api, |dir| {
        mount(dir, &ca, ["crt.pem", "key.pem"]);
        identity_mode(dir)
    })
    .await;
    lab.until("/ready", |status, _| status == 200).await;
    let first = certify(&lab, "web", "web's\n").await.unwrap();
    assert!(takes(&ca, "web", &first));
    let second = certify(&lab, "web", "web's").await.unwrap();
    assert_ne!(first.1.leaf, second.1.leaf);
    for (token, code) in [
        ("voting's", Code::FailedPrecondition),
        ("for the API server", Code::InvalidArgument),
        ("a user's", Code::FailedPrecondition),
        ("guessed", Code::InvalidArgument),
        ("", Code::InvalidArgument),
    ] {
        assert_eq!(certify(&lab, "web", token).await.unwrap_err().0, code, "{token}");
    }
    // Who cannot be asked has not said yes.
    lab.api.fail(Some(Failure::Close));
    assert_eq!(certify(&lab, "web", "web's").await.unwrap_err().0, Code::Unavailable);
    lab.api.fail(None);
    assert!(certify(&lab, "web", "web's").await.is_ok());
    lab.api.asked(|r| r.method == "POST" && r.path == "/api/v1/namespaces/emojivoto/events").await.unwrap();
    let metrics = lab.admin("/metrics").await.1;
    assert!(metrics.contains("issuer_cert_ttl_seconds "), "{metrics}");
}

/// How often the API server was asked about a token.
fn reviews(api: &FakeApi) -> usize {
    api.requests().iter().filter(|request| request.path.ends_with("/tokenreviews")).count()
}

/// Tokens that prove nothing, by many who claim the same, and nobody answers.
#[tokio::test]
async fn a_flood_of_junk_keeps_no_good_token_out() {
    let api = FakeApi::start().await.unwrap();
    tokens(&api);
    api.hold_reviews(true);
    let ca = Ca::new().unwrap();
    let lab = Lab::start("flood", api, |dir| {
        mount(dir, &ca, ["crt.pem", "key.pem"]);
        identity_mode(dir)
    })
    .await;
    lab.until("/ready", |status, _| status == 200).await;
    let key = Key::generate().unwrap();
    let mut flood = JoinSet::new();
    let send = async |flood: &mut JoinSet<Result<(), Error>>, account: &str, junk: String| {
        let (identity, csr) = (identity(account), key.csr(&identity(account)).unwrap());
        let mut client = weft_wire::identity::Client::new(lab.channel("identity").await);
        flood.spawn(async move { client.certify(&identity, junk.into(), csr.into()).await.map(drop) });
    };
    for junk in 0..50 {
        send(&mut flood, "web", format!("junk {junk}")).await;
    }
    patiently(async {
        while reviews(&lab.api) < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(takes(&ca, "voting", &certify(&lab, "voting", "voting's").await.unwrap()), "others are not kept waiting");
    assert_eq!(reviews(&lab.api), 4 + 1, "at a time, of those who claim one name");
    // By those who claim many names.
    for other in 0..40 {
        send(&mut flood, &format!("other-{other}"), format!("other junk {other}")).await;
    }
    patiently(async {
        while reviews(&lab.api) < 32 + 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    lab.api.hold_reviews(false);
    while let Some(refused) = patiently(flood.join_next()).await {
        assert!(matches!(refused.unwrap(), Err(Error::Rpc(_))));
    }
    assert!(certify(&lab, "web", "web's").await.is_ok());
    // What was refused a moment ago is not asked about again, nor is what asks for something else than it claims.
    assert_eq!(certify(&lab, "web", "once more").await.unwrap_err().0, Code::InvalidArgument);
    let before = reviews(&lab.api);
    assert_eq!(certify(&lab, "web", "once more").await.unwrap_err().0, Code::InvalidArgument);
    let mut client = weft_wire::identity::Client::new(lab.channel("identity").await);
    let csr = key.csr(&identity("voting")).unwrap();
    let other = patiently(client.certify(&identity("web"), "web's".to_owned().into(), csr.into())).await;
    assert!(matches!(other, Err(Error::Rpc(status)) if status.code() == Code::FailedPrecondition));
    assert_eq!(reviews(&lab.api), before);
    let metrics = lab.admin("/metrics").await.1;
    assert!(metrics.contains("weft_control_token_reviews_total{outcome=\"remembered\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn an_identity_over_its_limit_is_told_so_and_the_api_server_is_not_asked() {
    let api = FakeApi::start().await.unwrap();
    tokens(&api);
    let ca = Ca::new().unwrap();
    let lab = Lab::start("limit", api, |dir| {
        mount(dir, &ca, ["crt.pem", "key.pem"]);
        identity_mode(dir)
    })
    .await;
    lab.until("/ready", |status, _| status == 200).await;
    let key = Key::generate().unwrap();
    let mut client = weft_wire::identity::Client::new(lab.channel("identity").await);
    let mut ask = async |account: &str| {
        let csr = key.csr(&identity(account)).unwrap();
        let token = format!("{account}'s");
        match patiently(client.certify(&identity(account), token.into(), csr.into())).await {
            Ok(_) => Code::Ok,
            Err(Error::Rpc(status)) => status.code(),
            Err(Error::Invalid(invalid)) => panic!("{invalid}"),
        }
    };
    // While these are given, nothing is refilled, however long it takes.
    let _still = Still::now();
    let mut given = 0;
    while ask("web").await == Code::Ok {
        given += 1;
        assert!(given <= 200, "there is no limit");
    }
    assert_eq!((given, reviews(&lab.api)), (200, 200), "who is over the limit costs no review");
    assert_eq!(ask("voting").await, Code::Ok, "it is each identity's own");
    let metrics = lab.admin("/metrics").await.1;
    assert!(metrics.contains("weft_control_certify_total{outcome=\"ResourceExhausted\"} 1\n"), "{metrics}");
}

/// Tokio's time stands still as long as there is one: else it would run ahead where everybody waits for a socket.
struct Still {
    _end: std::sync::mpsc::Sender<()>,
}

impl Still {
    fn now() -> Self {
        let (end, ended) = std::sync::mpsc::channel();
        drop(tokio::task::spawn_blocking(move || ended.recv()));
        tokio::time::pause();
        Self { _end: end }
    }
}

#[tokio::test]
async fn the_issuer_follows_its_files_if_proxies_would_take_it() {
    let api = FakeApi::start().await.unwrap();
    tokens(&api);
    let (old, new, stranger) = (Ca::new().unwrap(), Ca::new().unwrap(), Ca::new().unwrap());
    // Nothing is mounted yet.
    let lab = Lab::start("issuer", api, identity_mode).await;
    assert_eq!(lab.admin("/ready").await, (503, "not ready: issuer\n".to_owned()));
    let names = ["tls.crt", "tls.key"];
    mount(&lab.dir, &old, names);
    lab.until("/ready", |status, _| status == 200).await;
    assert!(takes(&old, "web", &certify(&lab, "web", "web's").await.unwrap()));

    // An issuer that no anchor vouches for, then one whose key is another's: the present one stays.
    let (issuer, roots) = issuer(&lab.dir);
    std::fs::write(issuer.join("tls.crt"), stranger.issuer_pem().0).unwrap();
    std::fs::write(issuer.join("tls.key"), stranger.issuer_pem().1).unwrap();
    let reasons = |wanted: &'static str| {
        move |events: Vec<Value>| {
            events
                .iter()
                .any(|e| e["reason"] == "IssuerUpdateSkipped" && e["message"].as_str().unwrap().contains(wanted))
        }
    };
    event(&lab.api, reasons("proxies would refuse")).await;
    assert!(takes(&old, "web", &certify(&lab, "web", "web's").await.unwrap()));
    std::fs::write(issuer.join("tls.key"), new.issuer_pem().1).unwrap();
    event(&lab.api, reasons("not its certificate's")).await;
    assert!(takes(&old, "web", &certify(&lab, "web", "web's").await.unwrap()));

    // A rotation: both roots, then the new issuer.
    std::fs::write(roots, format!("{}{}", old.anchors_pem(), new.anchors_pem())).unwrap();
    mount_issuer(&lab.dir, &new, names);
    event(&lab.api, |events| events.iter().any(|e| e["reason"] == "IssuerUpdated")).await;
    patiently(async {
        while !takes(&new, "web", &certify(&lab, "web", "web's").await.unwrap()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // Who watches the bundle has both roots.
    let mut bundles = weft_wire::trust::Client::new(lab.channel("identity").await);
    let mut stream = patiently(bundles.watch()).await.unwrap();
    let bundle = patiently(stream.next()).await.unwrap().unwrap();
    assert_eq!(bundle.pem.matches("BEGIN CERTIFICATE").count(), 2);
}

/// Nobody changes anything: it ends where it is.
#[tokio::test]
async fn an_issuer_that_ends_in_its_place_is_told_of() {
    let api = FakeApi::start().await.unwrap();
    tokens(&api);
    let lab = Lab::start("ends-here", api, identity_mode).await;
    let invalid = |wanted: &'static str| {
        move |events: Vec<Value>| {
            events.iter().any(|e| {
                let about = &e["involvedObject"];
                e["reason"] == "IssuerValidationFailed"
                    && (&about["kind"], &about["name"]) == (&"Deployment".into(), &"linkerd-identity".into())
                    && e["message"].as_str().unwrap().contains(wanted)
            })
        }
    };
    // Nothing is mounted, so that nobody can be given anything.
    event(&lab.api, invalid("No such file")).await;
    // Long enough to be taken up, however slow the machine is.
    let mut life = Duration::from_secs(4);
    loop {
        let now = SystemTime::now();
        mount(&lab.dir, &Ca::valid(now - Duration::from_secs(3600), now + life).unwrap(), ["crt.pem", "key.pem"]);
        while lab.admin("/ready").await.0 != 200 && SystemTime::now() < now + life {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if lab.admin("/ready").await.0 == 200 {
            break;
        }
        life *= 4;
    }
    event(&lab.api, invalid("the issuer's certificate is not valid now")).await;
    let (code, told) = certify(&lab, "web", "web's").await.unwrap_err();
    assert!(code == Code::Unavailable && told.contains("weft check") && !told.contains("weft ps"), "{told}");
    assert!(lab.api.all("Event").iter().all(|e| e["reason"] != "IssuerUpdateSkipped"), "nobody tried to change it");
    // The next one is taken up where it ended.
    mount(&lab.dir, &Ca::new().unwrap(), ["crt.pem", "key.pem"]);
    patiently(async { while certify(&lab, "web", "web's").await.is_err() {} }).await;
}

/// Roots that others have made, and keys as openssl writes them.
#[tokio::test]
async fn issuers_below_roots_of_rsa_and_keys_in_either_form_sign() {
    let api = FakeApi::start().await.unwrap();
    tokens(&api);
    let lab = Lab::start("forms", api, identity_mode).await;
    let mut serials = std::collections::BTreeSet::new();
    for bits in [None, Some(rcgen::RsaKeySize::_2048), Some(rcgen::RsaKeySize::_4096)] {
        let ca = match bits {
            None => Ca::new().unwrap(),
            Some(bits) => Ca::below_rsa(bits).unwrap(),
        };
        for in_sec1 in [false, true] {
            mount(&lab.dir, &ca, ["crt.pem", "key.pem"]);
            if in_sec1 {
                let key = ca.issuer_sec1().unwrap();
                assert!(key.contains("BEGIN EC PARAMETERS") && key.contains("BEGIN EC PRIVATE KEY"));
                std::fs::write(issuer(&lab.dir).0.join("key.pem"), key).unwrap();
            }
            lab.until("/ready", |status, _| status == 200).await;
            let signed = patiently(async {
                loop {
                    match certify(&lab, "web", "web's").await {
                        Ok(signed) if takes(&ca, "web", &signed) => break signed,
                        _ => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
            })
            .await;
            assert!(serials.insert(signed.1.leaf.to_vec()));
        }
    }
    assert!(lab.api.all("Event").iter().all(|e| e["reason"] != "IssuerUpdateSkipped"));
}

#[tokio::test]
async fn an_issuer_that_ends_soon_is_told_of() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let now = SystemTime::now();
    for (left, is_told) in [(59, true), (61, false)] {
        let api = FakeApi::start().await.unwrap();
        tokens(&api);
        let lab = Lab::start(&format!("ends-{left}"), api, identity_mode).await;
        mount(&lab.dir, &Ca::valid(now - 400 * DAY, now + left * DAY).unwrap(), ["crt.pem", "key.pem"]);
        lab.until("/ready", |status, _| status == 200).await;
        assert!(certify(&lab, "web", "web's").await.is_ok());
        // What was told of the certificate came behind what would have been.
        let of = |events: &[Value], reason: &str| events.iter().find(|e| e["reason"] == reason).cloned();
        event(&lab.api, |events| of(&events, "IssuedLeafCertificate").is_some()).await;
        if is_told {
            event(&lab.api, |events| of(&events, "IssuerEndsSoon").is_some()).await;
        }
        let told = of(&lab.api.all("Event"), "IssuerEndsSoon");
        assert_eq!(told.is_some(), is_told, "{left} days");
        assert!(told.is_none_or(|event| event["message"].as_str().unwrap().contains("58 days more")));
    }
}

fn mount_issuer(dir: &Path, ca: &Ca, names: [&str; 2]) {
    let (issuer, _) = issuer(dir);
    std::fs::write(issuer.join(names[0]), ca.issuer_pem().0).unwrap();
    std::fs::write(issuer.join(names[1]), ca.issuer_pem().1).unwrap();
}
