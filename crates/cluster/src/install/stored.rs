//! What an installation leaves for its successors: the values that were given, anchors, issuer, the webhooks' certificates.
//!
//! Read from a cluster, or from manifests that somebody has saved. Where both a value and an object say something, the object
//! holds: it is what the mesh lives by, and may have been replaced since.

use super::{CONFIG, ISSUER, OfHelm, Pair, Webhook, config, helm};
use crate::{
    inject::{CREATED_BY, TRUST_ROOTS, TRUST_ROOTS_KEY},
    kubernetes::{Cluster, Error, Resource},
    manifest,
    values::{Values, remove},
};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use weft_model::duration::parse_go;

const SECRET: Resource = Resource::new("", "v1", "Secret", "secrets");

/// Where it is read.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    Cluster(&'a Cluster),
    /// ConfigMaps and Secrets; what else there is does not matter.
    Manifests(&'a [Value]),
}

/// Whose installation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    Weft,
    Linkerd,
}

/// What is given anew of what may be lost, or there in part: then it is in nobody's way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    pub anchors: bool,
    pub issuer: bool,
}

impl Replaced {
    /// By layers of values.
    pub fn by(layers: &[Value]) -> Self {
        let is_given = |at: &str| {
            layers.iter().any(|layer| layer.pointer(at).and_then(Value::as_str).is_some_and(|pem| !pem.is_empty()))
        };
        let issuer = ["crtPEM", "keyPEM"].map(|part| is_given(&format!("/identity/issuer/tls/{part}")));
        Self { anchors: is_given("/identityTrustAnchorsPEM"), issuer: issuer == [true; 2] }
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Stored {
    pub by: Author,
    /// Of weft that installed it; `None` if that was another.
    pub version: Option<String>,
    /// All values that were given, without those that are certificates of identity: these are below.
    pub given: Value,
    /// `proxyInit.kubeAPIServerPorts`, for who cannot ask the cluster.
    pub api_server_ports: Option<String>,
    pub trust_domain: String,
    /// PEM; empty where they are lost, and others are given.
    pub anchors_pem: String,
    /// `None` where the Secret, or a part of it, is missing.
    pub issuer: Option<Pair>,
    /// Since when it signs, where weft has replaced another by it.
    pub issuer_since: Option<Timestamp>,
    /// How long what it signs is valid, with what is allowed for clocks.
    pub leaf: Duration,
    pub proxy_injector: Option<Pair>,
    pub profile_validator: Option<Pair>,
    pub policy_validator: Option<Pair>,
    /// Whom the API server believes to be a webhook, PEM; nothing of one that it is not told of.
    pub bundles: Vec<(Webhook, String)>,
}

impl Stored {
    pub fn bundle(&self, of: Webhook) -> &str {
        self.bundles.iter().find(|(webhook, _)| *webhook == of).map_or("", |(_, bundle)| bundle)
    }
}

/// Why it cannot be known.
#[derive(Debug, thiserror::Error)]
pub enum NotStored {
    #[error(transparent)]
    Cluster(#[from] Error),
    #[error(
        "there is no control plane: the namespace {0} has no ConfigMap {CONFIG}; name another by --linkerd-namespace, or install one by \
         `weft install`"
    )]
    Nothing(String),
    #[error(transparent)]
    OfHelm(Box<OfHelm>),
    #[error("{object} of the namespace {namespace}: {reason}; mend it by `{command}`")]
    Invalid { object: String, namespace: String, reason: String, command: String },
    #[error("the manifests: line {line}: {message}; {remedy}")]
    Unreadable { line: u32, message: String, remedy: &'static str },
}

/// The objects of a text of many documents, and of the lists among them.
///
/// # Errors
/// It is no YAML.
pub fn objects(text: &str) -> Result<Vec<Value>, NotStored> {
    let unread = |e: manifest::Unreadable| NotStored::Unreadable { line: e.line, message: e.message, remedy: e.remedy };
    let mut objects = vec![];
    for document in manifest::documents(text).map_err(unread)? {
        let mut object = document.value().map_err(unread)?;
        match object.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => objects.extend(items),
            _ => objects.push(object),
        }
    }
    Ok(objects)
}

/// What the proxies of an installation are made with.
#[derive(Clone, Debug)]
pub struct OfProxies {
    pub by: Author,
    /// All values, as its injector reads them.
    pub values: Value,
    /// PEM.
    pub anchors_pem: String,
}

/// What its injector knows of a control plane.
///
/// # Errors
/// There is no control plane, or nobody whom it trusts.
pub async fn of_proxies(source: Source<'_>, namespace: &str) -> Result<OfProxies, NotStored> {
    let Config { by, version: _, values } = config(source, namespace).await?;
    Ok(OfProxies { by, values: values?, anchors_pem: anchors(source, namespace).await? })
}

/// What the ConfigMap of a control plane says.
struct Config {
    by: Author,
    version: Option<String>,
    values: Result<Value, NotStored>,
}

async fn config(source: Source<'_>, namespace: &str) -> Result<Config, NotStored> {
    let config = source.config_map(namespace, CONFIG).await?;
    let config = config.ok_or_else(|| NotStored::Nothing(namespace.to_owned()))?;
    let unread = |reason| {
        let edit = format!("kubectl -n {namespace} edit configmap {CONFIG}");
        invalid(namespace, &format!("the key `values` of the ConfigMap {CONFIG}"), reason, edit)
    };
    let values = config.get("values").ok_or_else(|| unread("it is missing".to_owned()));
    let values = values.and_then(|text| layer(text).map_err(unread));
    let version = config.get(config::VERSION).cloned();
    let values = match (values, &version) {
        // Without either it may be anybody's.
        (Err(error), None) => return Err(error),
        (values, _) => values,
    };
    Ok(Config { by: if version.is_some() { Author::Weft } else { Author::Linkerd }, version, values })
}

async fn anchors(source: Source<'_>, namespace: &str) -> Result<String, NotStored> {
    source.anchors(namespace).await?.ok_or_else(|| lost_anchors(namespace))
}

fn lost_anchors(namespace: &str) -> NotStored {
    let reason = format!(
        "it has no key {TRUST_ROOTS_KEY}, or is not there: nobody knows whom the mesh trusts (`weft check` says what to do where nobody \
         has its root)"
    );
    invalid(namespace, &format!("the ConfigMap {TRUST_ROOTS}"), reason, anchors_written(namespace))
}

/// What writes the trust anchors of the file `root.crt` to where the mesh finds them.
pub fn anchors_written(namespace: &str) -> String {
    format!(
        "kubectl -n {namespace} create configmap {TRUST_ROOTS} --from-file={TRUST_ROOTS_KEY}=root.crt --dry-run=client -o yaml | kubectl \
         apply -f -"
    )
}

fn invalid(namespace: &str, object: &str, reason: String, command: String) -> NotStored {
    NotStored::Invalid { object: object.to_owned(), namespace: namespace.to_owned(), reason, command }
}

/// Everything that is stored in the control plane's namespace.
///
/// # Errors
/// There is no control plane, not enough of one, or it is Helm's to change.
pub async fn stored(source: Source<'_>, namespace: &str, replaced: Replaced) -> Result<Stored, NotStored> {
    let overrides = source.secret(namespace, config::OVERRIDES).await?;
    let Config { by, version, values } = match config(source, namespace).await {
        // What it was made of is still there. Linkerd does not say who has made it.
        Err(lost @ NotStored::Nothing(_)) if overrides.is_some() => {
            let made = source.annotation(namespace, config::OVERRIDES, CREATED_BY).await?;
            let by = made.map_or(Author::Linkerd, |_| Author::Weft);
            Config { by, version: None, values: Err(lost) }
        }
        found => found?,
    };
    if let Some(release) = source.release(namespace).await? {
        return Err(NotStored::OfHelm(Box::new(OfHelm::read(source, namespace, by, release).await?)));
    }
    let overrides = overrides.as_ref().and_then(|secret| secret.get(config::OVERRIDES));
    let unread = |reason| {
        let name = config::OVERRIDES;
        let create = format!(
            "kubectl -n {namespace} create secret generic {name} --from-file={name}={name}.yaml --dry-run=client -o yaml | kubectl apply -f -"
        );
        invalid(namespace, &format!("the Secret {name}"), reason, create)
    };
    let missing = || {
        let reason = "it is not there, or has no key of that name, and says what values were given: save those that differ from the defaults";
        unread(format!("{reason} as {}.yaml", config::OVERRIDES))
    };
    let overrides = text(overrides.ok_or_else(missing)?).map_err(unread)?;
    let mut given = layer(&overrides).map_err(unread)?;
    for path in config::OF_OBJECTS {
        remove(&mut given, path);
    }
    // It is written anew, by what was given.
    let values = values.unwrap_or_else(|_| given.clone());
    let anchors_pem = match source.anchors(namespace).await? {
        None if replaced.anchors => String::new(),
        found => found.ok_or_else(|| lost_anchors(namespace))?,
    };
    let issuer = match replaced.issuer {
        true => source.pair(namespace, ISSUER).await?,
        false => source.issuer(namespace).await?,
    };
    let since = source.annotation(namespace, ISSUER, config::ISSUER_SINCE).await?;
    let of = format!("the annotation {} of the Secret {ISSUER}", config::ISSUER_SINCE);
    let issuer_since = since.map(|text| text.parse::<Timestamp>()).transpose();
    let mut bundles = vec![];
    for webhook in Webhook::ALL {
        bundles.push((webhook, source.bundle(webhook).await?));
    }
    Ok(Stored {
        by,
        version,
        given,
        api_server_ports: values["proxyInit"]["kubeAPIServerPorts"].as_str().map(str::to_owned),
        trust_domain: trust_domain(&values),
        anchors_pem,
        issuer,
        issuer_since: issuer_since.map_err(|e| {
            let command = format!("kubectl -n {namespace} annotate secret {ISSUER} {}-", config::ISSUER_SINCE);
            invalid(namespace, &of, e.to_string(), command)
        })?,
        leaf: leaf(&values),
        proxy_injector: source.pair(namespace, Webhook::ProxyInjector.secret()).await?,
        profile_validator: source.pair(namespace, Webhook::ProfileValidator.secret()).await?,
        policy_validator: source.pair(namespace, Webhook::PolicyValidator.secret()).await?,
        bundles,
    })
}

/// The values of a control plane as its ConfigMap says them, for who only asks: nothing where there is none, and none of them where
/// they cannot be read.
///
/// # Errors
/// As [`Cluster::config_map`].
pub async fn told(cluster: &Cluster, namespace: &str) -> Result<Option<Value>, Error> {
    let config = cluster.config_map(namespace, CONFIG).await?;
    Ok(config.map(|config| layer(config.get("values").map_or("", String::as_str)).unwrap_or_default()))
}

/// The end of all identities, by such values.
pub fn trust_domain(values: &Value) -> String {
    let given = ["identityTrustDomain", "clusterDomain"].iter().filter_map(|name| values[*name].as_str());
    let domain = given.into_iter().find(|domain| !domain.is_empty());
    domain.map_or_else(|| Values::default().trust_domain().to_owned(), str::to_owned)
}

/// By values that are in force, which say each or mean the default.
fn leaf(values: &Value) -> Duration {
    let defaults = Values::default().identity.issuer;
    let of = |name: &str, default: &str| {
        let given = values["identity"]["issuer"][name].as_str().and_then(parse_go);
        given.or_else(|| parse_go(default)).unwrap_or_default()
    };
    let lifetime = of("issuanceLifetime", &defaults.issuance_lifetime);
    lifetime.saturating_add(of("clockSkewAllowance", &defaults.clock_skew_allowance))
}

impl Source<'_> {
    /// The anchors that hold, PEM.
    pub(super) async fn anchors(self, namespace: &str) -> Result<Option<String>, NotStored> {
        let anchors = self.config_map(namespace, TRUST_ROOTS).await?;
        Ok(anchors.and_then(|mut map| map.remove(TRUST_ROOTS_KEY)))
    }

    async fn release(self, namespace: &str) -> Result<Option<helm::Release>, NotStored> {
        match self {
            Self::Cluster(cluster) => Ok(helm::helm_release(cluster, namespace).await?),
            Self::Manifests(objects) => Ok(helm::of_manifests(objects, namespace)),
        }
    }

    /// What somebody has given to a release of Helm's, or why that is not known.
    pub(super) async fn given_to_release(
        self,
        namespace: &str,
        release: &str,
    ) -> Result<Result<Value, String>, NotStored> {
        let labels = [("owner", "helm"), ("name", release), ("status", "deployed")];
        let found: Vec<Value> = match self {
            Self::Cluster(cluster) => {
                let selector = labels.map(|(key, value)| format!("{key}={value}")).join(",");
                cluster.objects_in(SECRET, namespace, &selector).await?
            }
            Self::Manifests(objects) => {
                let is = |object: &&Value| {
                    let meta = &object["metadata"];
                    let is_labelled = labels.iter().all(|(key, value)| meta["labels"][*key] == *value);
                    object["kind"] == "Secret" && meta["namespace"] == namespace && is_labelled
                };
                objects.iter().filter(is).cloned().collect()
            }
        };
        let revisions = found.into_iter().filter_map(|mut secret| {
            let revision = secret["metadata"]["labels"]["version"].as_str()?.parse::<u64>().ok()?;
            Some((revision, serde_json::from_value::<ByteString>(secret.pointer_mut("/data/release")?.take()).ok()?.0))
        });
        Ok(helm::newest(&revisions.collect::<Vec<_>>()))
    }

    async fn config_map(self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, String>>, NotStored> {
        match self {
            Self::Cluster(cluster) => Ok(cluster.config_map(namespace, name).await?),
            Self::Manifests(objects) => Ok(named(objects, "ConfigMap", namespace, name)
                .map(|map| serde_json::from_value(map["data"].clone()).unwrap_or_default())),
        }
    }

    async fn secret(self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, NotStored> {
        match self {
            Self::Cluster(cluster) => Ok(cluster.secret(namespace, name).await?),
            Self::Manifests(objects) => {
                let Some(secret) = named(objects, "Secret", namespace, name) else { return Ok(None) };
                let data: BTreeMap<String, ByteString> =
                    serde_json::from_value(secret["data"].clone()).unwrap_or_default();
                let strings: BTreeMap<String, String> =
                    serde_json::from_value(secret["stringData"].clone()).unwrap_or_default();
                let data = data.into_iter().map(|(key, bytes)| (key, bytes.0));
                Ok(Some(data.chain(strings.into_iter().map(|(key, text)| (key, text.into_bytes()))).collect()))
            }
        }
    }

    /// What the configuration of a webhook says; nothing where there is none, or no text.
    async fn bundle(self, webhook: Webhook) -> Result<String, NotStored> {
        let (of, name) = (webhook.configured(), webhook.configuration());
        let found = match self {
            Self::Cluster(cluster) => cluster.object(of, None, &name).await?,
            Self::Manifests(objects) => {
                let is = |object: &&Value| object["kind"] == of.kind && object["metadata"]["name"] == name;
                objects.iter().find(is).cloned()
            }
        };
        let bundle = found.map(|object| object["webhooks"][0]["clientConfig"]["caBundle"].clone()).unwrap_or_default();
        let bytes = serde_json::from_value::<ByteString>(bundle).map(|bytes| bytes.0).unwrap_or_default();
        Ok(text(&bytes).unwrap_or_default())
    }

    async fn annotation(self, namespace: &str, secret: &str, key: &str) -> Result<Option<String>, NotStored> {
        let read;
        let object = match self {
            Self::Cluster(cluster) => {
                read = cluster.object(SECRET, Some(namespace), secret).await?;
                read.as_ref()
            }
            Self::Manifests(objects) => named(objects, "Secret", namespace, secret),
        };
        Ok(object.and_then(|object| object["metadata"]["annotations"][key].as_str()).map(str::to_owned))
    }

    /// A certificate and its key, under either pair of names; `None` where one of them is missing, or no text: it serves nobody.
    pub(super) async fn pair(self, namespace: &str, name: &str) -> Result<Option<Pair>, NotStored> {
        let Some(secret) = self.secret(namespace, name).await? else { return Ok(None) };
        let [certificate, key] = pair_names(&secret).map(|key| secret.get(key).and_then(|bytes| text(bytes).ok()));
        Ok(certificate.zip(key).map(|(certificate, key)| Pair { certificate, key }))
    }

    /// The issuer. Of one that is there in part nothing is made anew: that would be another issuer.
    async fn issuer(self, namespace: &str) -> Result<Option<Pair>, NotStored> {
        let pair = self.pair(namespace, ISSUER).await?;
        let Some(secret) = self.secret(namespace, ISSUER).await?.filter(|_| pair.is_none()) else { return Ok(pair) };
        let names = pair_names(&secret);
        let missing = names.into_iter().find(|key| secret.get(*key).is_none_or(|bytes| text(bytes).is_err()));
        let of = format!("the key {} of the Secret {ISSUER}", missing.unwrap_or_default());
        let [certificate, key] = names;
        let create = format!(
            "kubectl -n {namespace} delete secret {ISSUER} && kubectl -n {namespace} create secret generic {ISSUER} \
             --from-file={certificate}=issuer.crt --from-file={key}=issuer.key"
        );
        let reason = "it is missing, or no text (`weft check` says what to do where nobody has it)".to_owned();
        Err(invalid(namespace, &of, reason, create))
    }
}

/// Certificate and key as this Secret calls them.
fn pair_names(secret: &BTreeMap<String, Vec<u8>>) -> [&'static str; 2] {
    if secret.contains_key("crt.pem") { ["crt.pem", "key.pem"] } else { ["tls.crt", "tls.key"] }
}

fn named<'o>(objects: &'o [Value], kind: &str, namespace: &str, name: &str) -> Option<&'o Value> {
    let is = |object: &&Value| {
        object["kind"] == kind && object["metadata"]["name"] == name && object["metadata"]["namespace"] == namespace
    };
    objects.iter().find(is)
}

fn text(bytes: &[u8]) -> Result<String, String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "it is no text".to_owned())
}

fn layer(yaml: &str) -> Result<Value, String> {
    Values::layer(yaml).map_err(|problems| problems.to_string())
}
