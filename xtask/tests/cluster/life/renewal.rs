//! Certificates of webhooks take each other's place while pods and objects are made: none of these goes unasked, and the new one is shown.
//!
//! ```text
//! both are trusted ─► the Secret has the new one ─► the kubelet hands it over ─► the webhook shows it
//!        pods and objects, one after the other, all the while
//! ```

use super::{eventually, load::Load, pods, report::Report};
use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
};
use weft_testkit::kubernetes::{Cluster, fed};

/// Objects of a kind during one change: fewer by far, unless a certificate is never shown.
const MAX_ASKED: usize = 2_000;
/// Of these before the change, and behind it.
const BESIDE: usize = 10;

struct Webhook {
    service: &'static str,
    secret: &'static str,
    configuration: &'static str,
    /// Whose pods listen, and where.
    component: &'static str,
    port: u16,
    is_asked: fn(&Cluster),
}

static WEBHOOKS: [Webhook; 2] = [
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

/// Certificates that end soon are given to the webhooks, and replaced by whoever renews them.
pub(super) fn costs_no_review(cluster: &Cluster, load: &mut Load<'_>, report: &mut Report, renew: impl FnOnce()) {
    let first = WEBHOOKS.each_ref().map(|webhook| webhook.given(cluster));
    load.through("certificates of webhooks that end soon", report, || {
        nobody_is_missed(cluster, || WEBHOOKS.iter().for_each(|webhook| webhook.is_given_one_that_ends_soon(cluster)));
    });
    let ending = WEBHOOKS.each_ref().map(|webhook| webhook.given(cluster));
    load.through("helm upgrade, with new certificates of webhooks", report, || nobody_is_missed(cluster, renew));
    for (webhook, (first, ending)) in WEBHOOKS.iter().zip(first.into_iter().zip(ending)) {
        let given = webhook.given(cluster);
        assert!(given != ending && given != first, "{} has another certificate", webhook.service);
        let trusted = webhook.trusted(cluster);
        assert_eq!(trusted.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(trusted.contains(ending.trim()), "the one before is trusted: {trusted}");
    }
}

/// Asks the webhooks without a break: before a change, until every pod of each shows what its Secret has, and a while longer.
fn nobody_is_missed(cluster: &Cluster, change: impl FnOnce()) {
    let (asked, is_over) = (WEBHOOKS.each_ref().map(|_| AtomicUsize::new(0)), AtomicBool::new(false));
    let more = |what: &str| {
        let wanted = asked.each_ref().map(|asked| asked.load(Relaxed) + BESIDE);
        let is_reached = || asked.iter().zip(wanted).all(|(asked, wanted)| asked.load(Relaxed) >= wanted);
        eventually(what, || is_over.load(Relaxed) || is_reached());
    };
    thread::scope(|scope| {
        for (webhook, asked) in WEBHOOKS.iter().zip(&asked) {
            let is_over = Over(&is_over);
            scope.spawn(move || {
                while !is_over.0.load(Relaxed) && asked.load(Relaxed) < MAX_ASKED {
                    (webhook.is_asked)(cluster);
                    asked.fetch_add(1, Relaxed);
                }
            });
        }
        let is_over = Over(&is_over);
        more("objects before the change");
        change();
        for webhook in &WEBHOOKS {
            // The kubelet looks after what a pod mounts when the pod changes, and else once a minute.
            let words = format!("--namespace linkerd annotate pods --overwrite --selector {}", webhook.selector());
            cluster.ask(&format!("{words} renewed={}", webhook.given(cluster).len())).unwrap();
            cluster.ask(&format!("{words} renewed-")).unwrap();
        }
        eventually("the new certificates to be shown", || {
            is_over.0.load(Relaxed) || WEBHOOKS.iter().all(|webhook| webhook.shows_what_it_is_given(cluster))
        });
        let are_shown = WEBHOOKS.iter().all(|webhook| webhook.shows_what_it_is_given(cluster));
        assert!(are_shown, "another certificate is shown after {MAX_ASKED} objects");
        more("objects behind it");
    });
}

/// Whoever ends, also by failing, ends all.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
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
            let ask = ["openssl", "s_client", "-connect", &address, "-servername", &name];
            let told = cluster.on_node(&ask).output().unwrap();
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
