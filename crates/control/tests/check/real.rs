//! Against a real API server, etcd and kube-apiserver without a node: what its kinds, its validation and its rights make of each line.
//!
//! Left to the fake are those that it cannot be made to fail: that it answers, and that it is new enough.

use crate::{
    broken::{broken, edit},
    world::{Api, DAY, around, failed, given, installed, material, options},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};
use tokio::{runtime::Handle, task::block_in_place};
use weft_cluster::{
    install::{self, Webhook},
    k8s::ByteString,
    kubernetes::{Client, connect},
};
use weft_control::check::{ALL, Check, Line, Options, Remedy, Report, What, run, table};
use weft_testkit::kubernetes::{Cluster, built, or_skip};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where kinds are: group and version, plural.
const PLACES: [(&str, &str, &str); 16] = [
    ("Namespace", "v1", "namespaces"),
    ("Node", "v1", "nodes"),
    ("Pod", "v1", "pods"),
    ("Service", "v1", "services"),
    ("ServiceAccount", "v1", "serviceaccounts"),
    ("ConfigMap", "v1", "configmaps"),
    ("Secret", "v1", "secrets"),
    ("Deployment", "apps/v1", "deployments"),
    ("ClusterRole", "rbac.authorization.k8s.io/v1", "clusterroles"),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    ("MutatingWebhookConfiguration", "admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"),
    ("ValidatingWebhookConfiguration", "admissionregistration.k8s.io/v1", "validatingwebhookconfigurations"),
    ("Server", "policy.linkerd.io/v1beta3", "servers"),
    ("ServerAuthorization", "policy.linkerd.io/v1beta1", "serverauthorizations"),
    ("HTTPRoute", "policy.linkerd.io/v1beta3", "httproutes"),
    ("CustomResourceDefinition", "apiextensions.k8s.io/v1", "customresourcedefinitions"),
];
/// Those of which the API server writes a status apart.
const WITH_STATUS: [&str; 3] = ["Pod", "Node", "Deployment"];
/// The API server's own to write.
const OWN: [&str; 6] =
    ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "deletionTimestamp"];

struct Real {
    client: Client,
    runtime: Handle,
    /// What was before, newest last.
    before: RefCell<Vec<(Id, Option<Value>)>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Id {
    kind: String,
    namespace: String,
    name: String,
}

impl Id {
    fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let meta = &object["metadata"];
        Self { kind: text(&object["kind"]), namespace: text(&meta["namespace"]), name: text(&meta["name"]) }
    }

    fn api_version(&self) -> &'static str {
        self.place().1
    }

    fn place(&self) -> (&'static str, &'static str, &'static str) {
        PLACES.into_iter().find(|(kind, ..)| *kind == self.kind).unwrap_or_else(|| panic!("where is {self:?}?"))
    }

    /// Of all of its kind.
    fn folder(&self) -> String {
        let (_, api_version, plural) = self.place();
        let root = if api_version.contains('/') { "apis" } else { "api" };
        match self.namespace.as_str() {
            "" => format!("/{root}/{api_version}/{plural}"),
            namespace => format!("/{root}/{api_version}/namespaces/{namespace}/{plural}"),
        }
    }

    fn path(&self) -> String {
        format!("{}/{}", self.folder(), self.name)
    }
}

impl Real {
    /// What the API server says to a request; `None` if there is no such object.
    fn asked(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let body = if body.is_null() { vec![] } else { serde_json::to_vec(body).unwrap() };
        let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json");
        let asking = self.client.request::<Value>(request.body(body).unwrap());
        match block_in_place(|| self.runtime.block_on(asking)) {
            Ok(answer) => Some(answer),
            Err(error) if error.to_string().contains("NotFound") => None,
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    fn find(&self, id: &Id) -> Option<Value> {
        let mut found = self.asked("GET", &id.path(), &Value::Null)?;
        found["kind"] = json!(id.kind);
        Some(found)
    }

    fn write(&self, mut object: Value) {
        let id = Id::of(&object);
        let status = object.as_object_mut().unwrap().remove("status");
        object["apiVersion"] = json!(id.api_version());
        for field in OWN {
            object["metadata"].as_object_mut().unwrap().remove(field);
        }
        match self.find(&id) {
            // Most of it cannot be changed.
            Some(now) if id.kind == "Pod" || id.kind == "Secret" && object["type"] != now["type"] => {
                self.remove(&id);
                self.asked("POST", &id.folder(), &object);
            }
            Some(now) => {
                object["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
                self.asked("PUT", &id.path(), &object);
            }
            None => drop(self.asked("POST", &id.folder(), &object)),
        }
        if let Some(status) = status.filter(|_| WITH_STATUS.contains(&id.kind.as_str())) {
            let mut now = self.find(&id).unwrap();
            now["status"] = status;
            self.asked("PUT", &format!("{}/status", id.path()), &now);
        }
    }

    fn remove(&self, id: &Id) {
        self.asked("DELETE", &id.path(), &json!({"gracePeriodSeconds": 0}));
        if id.kind == "Namespace"
            && let Some(mut going) = self.find(id)
        {
            // Nobody else is there to do it.
            going["spec"] = json!({"finalizers": []});
            self.asked("PUT", &format!("{}/finalize", id.path()), &going);
        }
        let start = Instant::now();
        while self.find(id).is_some() {
            assert!(start.elapsed() < PATIENCE, "{id:?} stays");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn note(&self, id: &Id) {
        let mut before = self.before.borrow_mut();
        if !before.iter().any(|(known, _)| known == id) {
            before.push((id.clone(), self.find(id)));
        }
    }

    /// Undoes whatever has been done since the last time.
    fn restore(&self) {
        for (id, was) in self.before.take().into_iter().rev() {
            match was {
                Some(was) => self.write(was),
                None => self.remove(&id),
            }
        }
    }

    async fn report(&self, what: What, later: Duration) -> Report {
        run(Ok(self.client.clone()), &options(what), SystemTime::now() + later, &mut |_| {}).await
    }
}

impl Api for Real {
    fn put(&self, object: Value) {
        self.note(&Id::of(&object));
        self.write(object);
    }

    fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let id = Id { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() };
        self.note(&id);
        self.remove(&id);
    }

    fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.find(&Id { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() })
    }

    fn forbid(&self, plural: &str) {
        panic!("nobody who may all is forbidden {plural}");
    }

    fn goes(&self) {
        panic!("it stays");
    }

    fn ages(&self) {
        panic!("it is as old as it is");
    }
}

/// What the fake alone can be told.
const LEFT_OUT: [&Check; 3] = [&table::CLIENT, &table::ANSWERS, &table::MINIMUM];
/// What an account without rights is told.
const OF_RIGHTS: [&Check; 7] = [
    &table::CLUSTER_OBJECTS,
    &table::CREATE_ACCOUNTS,
    &table::CREATE_SERVICES,
    &table::CREATE_DEPLOYMENTS,
    &table::CREATE_CONFIG_MAPS,
    &table::CREATE_SECRETS,
    &table::READ_SECRETS,
];
/// With a definition all objects of its kind go: at the end, and nobody brings them back.
const AT_THE_END: [&Check; 3] = [&table::DEFINITIONS, &table::DEFINED, &table::GATEWAY_API];

#[test]
fn every_line_that_can_fails_on_a_real_api_server() {
    let Some(cluster) = or_skip(Cluster::up("cluster-check", &["--api-only"])) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let real = runtime.block_on(async {
        let client = connect(Some(&cluster.kubeconfig)).await.unwrap();
        Real { client, runtime: Handle::current(), before: RefCell::default() }
    });
    runtime.block_on(async {
        is_in_order(&cluster, &real).await;
        without_rights(&cluster).await;
        let apart = [&LEFT_OUT[..], &OF_RIGHTS, &AT_THE_END].concat();
        let mut wrong = vec![];
        for check in ALL.iter().filter(|check| !apart.contains(check)) {
            wrong.extend(in_vain(check, &real).await);
            real.restore();
        }
        let report = real.report(What::DataPlane(Some("shop".to_owned())), Duration::ZERO).await;
        assert_eq!(failed(&report), [], "it is as it was");
        // The definitions last: with them objects go.
        let made_anew = |check: &&&Check| !matches!(check.remedy, Remedy::Text(_) | Remedy::Renew(_));
        let there = |check: &&&Check| !WITHOUT_NODES.contains(*check) && !AT_THE_END.contains(*check);
        let all = ALL.iter().filter(made_anew).filter(there).chain(&[&table::VALUES, &table::DEFINITIONS]);
        for ended in [
            Ended::Root,
            Ended::OneOfTwoRoots,
            Ended::Issuer,
            Ended::IssuerOfAnotherType,
            Ended::IssuerOfOthers,
            Ended::WebhookOfOthers,
        ] {
            let check = match ended {
                Ended::Root | Ended::OneOfTwoRoots => &table::ANCHORS_NOW,
                Ended::Issuer | Ended::IssuerOfAnotherType | Ended::IssuerOfOthers => &table::ISSUER_NOW,
                Ended::WebhookOfOthers => &table::INJECTOR,
            };
            wrong.extend(stays(check, &cluster, &real, Some(ended)).await);
            real.restore();
        }
        for check in MENDED_BY_ITS_OWN.iter().chain(all) {
            wrong.extend(stays(check, &cluster, &real, None).await);
            real.restore();
        }
        for check in AT_THE_END {
            wrong.extend(in_vain(check, &real).await);
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// Those whose command is of the very failure.
const MENDED_BY_ITS_OWN: [&Check; 5] =
    [&table::PROBES, &table::OPAQUE_PORTS, &table::EXTENSIONS, &table::SERVICE_LABELS, &table::SERVICE_ANNOTATIONS];
/// What nodes and pods have to make true.
const WITHOUT_NODES: [&Check; 2] = [&table::PROXIES_VERSION, &table::SEVERAL];

/// Which certificate has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ended {
    Root,
    OneOfTwoRoots,
    Issuer,
    /// It stands in a Secret of the type that somebody else's would have.
    IssuerOfAnotherType,
    /// Somebody else writes it, into a Secret that is of the type of ours.
    IssuerOfOthers,
    /// The API server trusts another than the one in a Secret that an upgrade leaves alone.
    WebhookOfOthers,
}

/// How a line does not come true by the command that is named with it.
async fn stays(check: &'static Check, cluster: &Cluster, real: &Real, ended: Option<Ended>) -> Option<String> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mended");
    std::fs::create_dir_all(&folder).unwrap();
    let what = match (ended, soon(check)) {
        (Some(Ended::WebhookOfOthers), _) => {
            is_of_others(real);
            broken(check, real).0
        }
        (Some(ended), _) => {
            has_ended(ended, real, &folder);
            What::ControlPlane
        }
        (None, Some(webhook)) => {
            ends_soon(webhook, real);
            What::ControlPlane
        }
        (None, None) => broken(check, real).0,
    };
    let line = |report: &Report| report.0.iter().find(|line| line.check == check).cloned();
    let report = real.report(what.clone(), Duration::ZERO).await;
    let Some(Line { error: Some(_), remedy, .. }) = line(&report) else {
        return Some(format!("{} did not fail: {:?}", check.description, failed(&report)));
    };
    // What is behind the comma is said to people.
    let command = remedy.split(", ").next().unwrap();
    if matches!(ended, Some(Ended::Issuer | Ended::IssuerOfAnotherType)) {
        assert!(remedy.contains("where nobody has that: openssl req -x509 -newkey"), "{remedy}");
    }
    let folders =
        [built("weft").unwrap(), cluster.program("kubectl")].map(|program| program.parent().unwrap().to_owned());
    let path = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&path))).unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-o", "pipefail", "-c", command]).env("PATH", path).env("KUBECONFIG", &cluster.kubeconfig);
    shell.env("HOME", env!("CARGO_TARGET_TMPDIR")).current_dir(&folder);
    let ran = shell.stdin(Stdio::null()).output().unwrap();
    if !ran.status.success() {
        return Some(format!("{}: {command}: {}", check.description, String::from_utf8_lossy(&ran.stderr)));
    }
    let start = Instant::now();
    loop {
        let options = Options { version: env!("CARGO_PKG_VERSION").to_owned(), ..options(what.clone()) };
        let report = run(Ok(real.client.clone()), &options, SystemTime::now(), &mut |_| {}).await;
        match line(&report) {
            Some(Line { error: None, .. }) => return None,
            _ if start.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(200)).await,
            _ => return Some(format!("{} stays behind {command}: {:?}", check.description, failed(&report))),
        }
    }
}

/// Gives the mesh certificates of identity some of which have ended, and a person the key of a root that has not.
fn has_ended(ended: Ended, real: &Real, folder: &Path) {
    let now = SystemTime::now();
    let authority = |name: &str, has_ended: bool| {
        let mut params = CertificateParams::new(vec![format!("{name}.linkerd.cluster.local")]).unwrap();
        params.distinguished_name.push(DnType::CommonName, format!("{name}.linkerd.cluster.local"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - 30 * DAY).into();
        params.not_after = if has_ended { now - DAY } else { now + 300 * DAY }.into();
        (params, KeyPair::generate().unwrap())
    };
    let (root, root_key) = authority("root", ended == Ended::Root);
    let root = root.self_signed(&root_key).unwrap().pem();
    let is_issuer = matches!(ended, Ended::Issuer | Ended::IssuerOfAnotherType | Ended::IssuerOfOthers);
    let (issuer, key) = authority("identity", is_issuer);
    std::fs::write(folder.join("root.crt"), &root).unwrap();
    std::fs::write(folder.join("root.key"), root_key.serialize_pem()).unwrap();
    let signed = |params: CertificateParams, key: &KeyPair| {
        params.signed_by(key, &Issuer::from_ca_cert_pem(&root, &root_key).unwrap()).unwrap().pem()
    };
    let issuer = signed(issuer, &key);
    if ended == Ended::IssuerOfOthers {
        // Whoever makes it has made another.
        let (next, next_key) = authority("identity", false);
        std::fs::write(folder.join("issuer.crt"), signed(next, &next_key)).unwrap();
        std::fs::write(folder.join("issuer.key"), next_key.serialize_pem()).unwrap();
        let mut given = given();
        given["identity"]["issuer"]["scheme"] = json!("kubernetes.io/tls");
        given["linkerdVersion"] = json!("v1");
        edit(real, "ConfigMap", "linkerd", "linkerd-config", |map| map["data"]["values"] = json!(given.to_string()));
    }
    let (other, other_key) = authority("other", true);
    let other = other.self_signed(&other_key).unwrap().pem();
    let anchors = if ended == Ended::OneOfTwoRoots { other + &root } else { root };
    edit(real, "ConfigMap", "linkerd", "linkerd-identity-trust-roots", |map| {
        map["data"]["ca-bundle.crt"] = json!(anchors);
    });
    let bytes = |text: String| json!(ByteString(text.into_bytes()));
    let (is_another, names) = match ended {
        Ended::IssuerOfAnotherType => (true, ["tls.crt", "tls.key"]),
        Ended::IssuerOfOthers => (false, ["tls.crt", "tls.key"]),
        _ => (false, ["crt.pem", "key.pem"]),
    };
    edit(real, "Secret", "linkerd", "linkerd-identity-issuer", |secret| {
        secret["data"] = json!({names[0]: bytes(issuer), names[1]: bytes(key.serialize_pem())});
        if is_another {
            secret["type"] = json!("kubernetes.io/tls");
        }
    });
}

/// Leaves the injector's certificate to somebody else, in all that an upgrade reads.
fn is_of_others(real: &Real) {
    let mut given = given();
    given["proxyInjector"]["externalSecret"] = json!(true);
    given["proxyInjector"]["caBundle"] = json!(material(false).proxy_injector.certificate);
    let overrides = "linkerd-config-overrides";
    edit(real, "Secret", "linkerd", overrides, |secret| {
        secret["data"] = json!({overrides: ByteString(given.to_string().into_bytes())});
    });
    given["linkerdVersion"] = json!("v1");
    edit(real, "ConfigMap", "linkerd", "linkerd-config", |map| map["data"]["values"] = json!(given.to_string()));
    // It is written anew by the command.
    edit(real, "Secret", "linkerd", Webhook::ProxyInjector.secret(), |_| {});
}

/// The webhook whose certificate a line says to end soon.
fn soon(check: &Check) -> Option<Webhook> {
    let lines = [&table::INJECTOR_SOON, &table::PROFILES_SOON, &table::POLICIES_SOON];
    let at = lines.iter().position(|line| *line == check)?;
    Webhook::ALL.get(at).copied()
}

/// Gives a webhook a certificate that ends before long, as it would stand there by then.
fn ends_soon(webhook: Webhook, real: &Real) {
    let now = SystemTime::now();
    let mut params = CertificateParams::new(vec![format!("{}.linkerd.svc", webhook.service())]).unwrap();
    (params.not_before, params.not_after) = ((now - 335 * DAY).into(), (now + 30 * DAY).into());
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let bytes = |text: String| json!(ByteString(text.into_bytes()));
    edit(real, "Secret", "linkerd", webhook.secret(), |secret| {
        secret["data"] = json!({"tls.crt": bytes(certificate.clone()), "tls.key": bytes(key.serialize_pem())});
    });
    edit(real, webhook.configured().kind, "", &webhook.configuration(), |configuration| {
        configuration["webhooks"][0]["clientConfig"]["caBundle"] = bytes(certificate);
    });
}

/// How it does not fail as it should.
async fn in_vain(check: &'static Check, real: &Real) -> Option<String> {
    let (what, later, says) = if check == &table::QUARANTINED {
        // Of its own kinds the API server takes nothing that has no meaning.
        edit(real, "Service", "shop", "web", |service| {
            service["metadata"]["annotations"] = json!({"retry.linkerd.io/limit": "many"});
        });
        (What::ControlPlane, Duration::ZERO, "shop/web: ")
    } else {
        broken(check, real)
    };
    // It has Services of its own, and few are named.
    let says = if check == &table::SERVICE_NETWORKS { "Service default/kubernetes has 10." } else { says };
    // Who asks for less is answered sooner.
    let what = if check.category.contains("data-plane") || [What::Pre, What::Crds].contains(&what) {
        what
    } else {
        What::ControlPlane
    };
    let report = real.report(what, later).await;
    let line = report.0.iter().find(|line| line.check == check);
    let error = line.and_then(|line| line.error.as_deref());
    let is_told = error.is_some_and(|error| error.contains(says));
    (!is_told).then(|| format!("{}: no {says:?} in {:?}", check.description, failed(&report)))
}

/// A mesh is there, as far as it can be without a node, and no line fails.
async fn is_in_order(cluster: &Cluster, real: &Real) {
    let gateway_api = cluster.gateway_api("standard").display().to_string();
    cluster.ask(&format!("apply --server-side --filename {gateway_api}")).unwrap();
    let (definitions, objects): (Vec<Value>, Vec<Value>) =
        installed().into_iter().partition(|object| object["kind"] == "CustomResourceDefinition");
    cluster.apply(&install::text(&definitions)).unwrap();
    cluster.ask("wait --for condition=established --timeout 60s crd --all").unwrap();
    cluster.apply(&install::text(&objects)).unwrap();
    for component in ["destination", "identity", "proxy-injector"] {
        edit(real, "Deployment", "linkerd", &format!("linkerd-{component}"), |deployment| {
            deployment["status"] = json!({"replicas": 1, "readyReplicas": 1});
        });
    }
    around().into_iter().for_each(|object| real.write(object));
    real.before.take();
    let report = real.report(What::DataPlane(Some("shop".to_owned())), Duration::ZERO).await;
    assert_eq!(failed(&report), []);
}

/// An account that may look and no more.
async fn without_rights(cluster: &Cluster) {
    let role = "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: guest }
rules:
- { apiGroups: [''], resources: [namespaces, nodes], verbs: [get, list] }
- { apiGroups: [apiextensions.k8s.io], resources: [customresourcedefinitions], verbs: [get, list] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: guest }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: guest }
subjects: [{ kind: ServiceAccount, name: guest, namespace: default }]
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: guest, namespace: default }
";
    cluster.apply(role).unwrap();
    let token = cluster.ask("--namespace default create token guest").unwrap();
    let mut config: Value =
        serde_json::from_str(&cluster.ask("config view --raw --minify --output json").unwrap()).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("guest.kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    let client = connect(Some(&file)).await;
    let report = run(client, &options(What::Pre), SystemTime::now(), &mut |_| {}).await;
    for check in OF_RIGHTS {
        let error = report.0.iter().find(|line| line.check == check).and_then(|line| line.error.clone());
        let error = error.unwrap_or_else(|| panic!("{check:?}: {:?}", failed(&report)));
        assert!(error.contains("may not ") || error.contains("forbidden"), "{check:?}: {error}");
    }
    let line = |report: &Report, check: &Check| report.0.iter().find(|line| line.check == check).cloned().unwrap();
    let told = line(&report, &table::NO_MESH);
    assert!(told.error.is_some() && told.remedy.starts_with("kubectl auth can-i --list, "), "{told:?}");
    // What each of them names gives the rights.
    let told = line(&report, &table::CLUSTER_OBJECTS).remedy;
    let command = told.strip_prefix("kubectl ").unwrap().split(", ").next().unwrap();
    cluster.ask(command).unwrap();
    let client = connect(Some(&file)).await;
    let report = run(client, &options(What::Pre), SystemTime::now(), &mut |_| {}).await;
    for check in OF_RIGHTS {
        assert_eq!(line(&report, check).error, None, "{check:?}");
    }
    cluster.ask("delete clusterrolebinding weft-install").unwrap();
}
