//! Certificates of webhooks take each other's place while pods and objects are made: none of these goes unasked, and the new one is shown.
//!
//! ```text
//! both are trusted ─► the Secret has the new one ─► the kubelet hands it over ─► the webhook shows it
//!        pods and objects, one after the other, until each pod of the webhook does
//! ```

use super::{load::Load, pods, report::Report};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};
use weft_testkit::kubernetes::{Cluster, fed};

/// Objects of a kind until a new certificate is shown: fewer by far, unless it is never.
const MAX_ASKED: usize = 2_000;
/// Objects of a kind behind that.
const BEHIND: usize = 10;

struct Webhook {
    service: &'static str,
    secret: &'static str,
    configuration: &'static str,
    /// Whose pods listen, and where.
    component: &'static str,
    port: u16,
    is_asked: fn(&Cluster),
}

const WEBHOOKS: [Webhook; 3] = [
    Webhook {
        service: "linkerd-proxy-injector",
        secret: "linkerd-proxy-injector-k8s-tls",
        configuration: "mutatingwebhookconfiguration linkerd-proxy-injector-webhook-config",
        component: "proxy-injector",
        port: 8443,
        is_asked: a_pod_gets_a_proxy,
    },
    Webhook {
        service: "linkerd-policy-validator",
        secret: "linkerd-policy-validator-k8s-tls",
        configuration: "validatingwebhookconfiguration linkerd-policy-validator-webhook-config",
        component: "destination",
        port: 9443,
        is_asked: an_object_is_looked_at,
    },
    Webhook {
        service: "linkerd-sp-validator",
        secret: "linkerd-sp-validator-k8s-tls",
        configuration: "validatingwebhookconfiguration linkerd-sp-validator-webhook-config",
        component: "destination",
        port: 8443,
        is_asked: a_profile_is_looked_at,
    },
];

/// Where nobody answers the API server lets in what comes, as Linkerd's webhooks have it: without a proxy.
fn a_pod_gets_a_proxy(cluster: &Cluster) {
    let pod = "apiVersion: v1
kind: Pod
metadata: { name: renewed, namespace: trial }
spec: { containers: [{ name: main, image: 'weft/demo:test' }] }
";
    let made = cluster.tried(pod).unwrap();
    assert!(made.contains("\"linkerd-proxy\""), "a pod comes in unseen: {made}");
}

/// Nor is what is wrong refused then.
fn an_object_is_looked_at(cluster: &Cluster) {
    let server = |policy: &str| {
        format!(
            "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {{ name: renewed, namespace: trial }}
spec: {{ podSelector: {{}}, port: 80, accessPolicy: {policy} }}
"
        )
    };
    cluster.tried(&server("deny")).unwrap();
    let refused = cluster.tried(&server("everybody")).map_err(|error| error.to_string());
    assert!(refused.as_ref().is_err_and(|told| told.contains("spec.accessPolicy")), "{refused:?}");
}

fn a_profile_is_looked_at(cluster: &Cluster) {
    let profile = |condition: &str| {
        format!(
            "apiVersion: linkerd.io/v1alpha2
kind: ServiceProfile
metadata: {{ name: renewed.trial.svc.cluster.local, namespace: trial }}
spec: {{ routes: [{{ name: all, condition: {condition} }}] }}
"
        )
    };
    cluster.tried(&profile("{ pathRegex: /.* }")).unwrap();
    let refused = cluster.tried(&profile("{ pathRegex: '(' }")).map_err(|error| error.to_string());
    assert!(refused.as_ref().is_err_and(|told| told.contains("spec.routes[0].condition.pathRegex")), "{refused:?}");
}

/// Certificates that end soon are given to the webhooks, and replaced by whoever renews them.
pub(super) fn costs_no_review(cluster: &Cluster, load: &mut Load<'_>, report: &mut Report, renew: impl FnOnce()) {
    let first = WEBHOOKS.each_ref().map(|webhook| webhook.given(cluster));
    let mut asked = 0;
    load.through("certificates of webhooks that end soon", report, || {
        for webhook in &WEBHOOKS {
            webhook.is_given_one_that_ends_soon(cluster);
        }
        asked += all_are_asked(cluster);
    });
    let ending = WEBHOOKS.each_ref().map(|webhook| webhook.given(cluster));
    load.through("helm upgrade, with new certificates of webhooks", report, || {
        renew();
        asked += all_are_asked(cluster);
    });
    report.line(&format!("certificates of webhooks replaced twice: each was asked {asked} times, and missed never"));
    for (webhook, (first, ending)) in WEBHOOKS.iter().zip(first.into_iter().zip(ending)) {
        let given = webhook.given(cluster);
        assert!(given != ending && given != first, "{} has another certificate", webhook.service);
        let trusted = webhook.trusted(cluster);
        // By whom it is renewed twice, too, before the kubelet has handed over what was made first.
        for before in [&first, &ending] {
            assert!(trusted.contains(before.trim()), "what has not ended is trusted: {trusted}");
        }
        assert_eq!(trusted.matches("BEGIN CERTIFICATE").count(), 3);
    }
}

/// Until every pod of every webhook shows what its Secret has, and a while longer.
fn all_are_asked(cluster: &Cluster) -> usize {
    for webhook in &WEBHOOKS {
        // The kubelet looks after what a pod mounts when the pod changes, and else once a minute.
        let words = format!("--namespace linkerd annotate pods --overwrite --selector {}", webhook.selector());
        cluster.ask(&format!("{words} renewed={}", webhook.given(cluster).len())).unwrap();
        cluster.ask(&format!("{words} renewed-")).unwrap();
    }
    for asked in 1..=MAX_ASKED {
        WEBHOOKS.iter().for_each(|webhook| (webhook.is_asked)(cluster));
        if WEBHOOKS.iter().all(|webhook| webhook.shows_what_it_is_given(cluster)) {
            (0..BEHIND).for_each(|_| WEBHOOKS.iter().for_each(|webhook| (webhook.is_asked)(cluster)));
            return asked + BEHIND;
        }
    }
    panic!("another certificate is shown after {MAX_ASKED} objects");
}

impl Webhook {
    fn selector(&self) -> String {
        format!("linkerd.io/control-plane-component={}", self.component)
    }

    /// The certificate of the Secret.
    fn given(&self, cluster: &Cluster) -> String {
        let words = format!("--namespace linkerd get secret {} --output jsonpath={{.data.tls\\.crt}}", self.secret);
        decoded(&cluster.ask(&words).unwrap())
    }

    /// What the API server believes.
    fn trusted(&self, cluster: &Cluster) -> String {
        let words = format!("get {} --output jsonpath={{.webhooks[0].clientConfig.caBundle}}", self.configuration);
        decoded(&cluster.ask(&words).unwrap())
    }

    fn is_given_one_that_ends_soon(&self, cluster: &Cluster) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let [certificate, key] = ["crt", "key"].map(|kind| folder.join(format!("{}-ending.{kind}", self.service)));
        let name = format!("{}.linkerd.svc", self.service);
        let words = format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={name} \
             -addext subjectAltName=DNS:{name} -keyout {} -out {}",
            key.display(),
            certificate.display()
        );
        let made = Command::new("openssl").args(words.split_whitespace()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let both = encoded(&(self.trusted(cluster) + &fs::read_to_string(&certificate).unwrap()));
        let patch =
            format!("[{{\"op\":\"replace\",\"path\":\"/webhooks/0/clientConfig/caBundle\",\"value\":\"{both}\"}}]");
        cluster.ask(&format!("patch {} --type=json --patch={patch}", self.configuration)).unwrap();
        let [certificate, key] = [&certificate, &key].map(|file| encoded(&fs::read_to_string(file).unwrap()));
        let patch = format!("{{\"data\":{{\"tls.crt\":\"{certificate}\",\"tls.key\":\"{key}\"}}}}");
        cluster.ask(&format!("--namespace linkerd patch secret {} --patch={patch}", self.secret)).unwrap();
    }

    /// By every pod that is not on its way out.
    fn shows_what_it_is_given(&self, cluster: &Cluster) -> bool {
        let given = self.given(cluster);
        let pods = pods(cluster, "linkerd", &self.selector());
        let mut stay = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).peekable();
        assert!(stay.peek().is_some(), "{} has no pod", self.service);
        stay.all(|pod| {
            let address = format!("{}:{}", pod["status"]["podIP"].as_str().unwrap_or_default(), self.port);
            let name = format!("{}.linkerd.svc", self.service);
            let mut ask = cluster.on_node(&["openssl", "s_client", "-connect", &address, "-servername", &name]);
            let told = ask.stdin(Stdio::null()).output().unwrap();
            bare(&String::from_utf8_lossy(&told.stdout)).contains(&bare(&given))
        })
    }
}

/// However its lines are broken.
fn bare(pem: &str) -> String {
    pem.split_whitespace().collect()
}

fn decoded(base64: &str) -> String {
    fed(Command::new("base64").arg("--decode"), base64).unwrap()
}

fn encoded(text: &str) -> String {
    fed(Command::new("base64").arg("--wrap=0"), text).unwrap().trim_end().to_owned()
}
