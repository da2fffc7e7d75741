//! A control plane that Helm keeps account of: which release it is, what was given to that, and the commands by which Helm goes on.
//!
//! ```text
//! Secret sh.helm.release.v1.NAME.vN ─► base64 ─► gzip ─► JSON ─► `config`, what somebody has given
//! ```
//! Nothing of it is changed here: two that keep account of the same objects would undo each other's work.

use super::{Author, CONFIG, NotStored, Pair, Source, config};
use crate::{
    kubernetes::{Cluster, Error, Resource},
    values::{Problem, carried, remove},
};
use flate2::read::GzDecoder;
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{fmt, io::Read};

const CONFIG_MAP: Resource = Resource::new("", "v1", "ConfigMap", "configmaps");
/// One of the definitions of kinds, as good as any to see whose they are.
const DEFINITION: &str = "servers.policy.linkerd.io";
const NAME: &str = "meta.helm.sh/release-name";
const NAMESPACE: &str = "meta.helm.sh/release-namespace";
/// The usual name of the definitions' release, and of both charts.
const CRDS: &str = "linkerd-crds";
const CONTROL_PLANE: &str = "linkerd-control-plane";
/// Bytes of a release that are read. It holds its chart and all that was rendered of it, about 2 MB of Linkerd's; the API server
/// takes 1 MiB of it compressed.
const MOST: u64 = 32 * 1024 * 1024;
const REUSE: &str = "--reset-then-reuse-values";

/// The release of Helm's that a control plane is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub name: String,
    /// Name and namespace of the release of the definitions of kinds; `None` where these are none of Helm's.
    pub definitions: Option<(String, String)>,
}

impl Release {
    /// As an object of it says.
    fn of(annotations: &Value) -> Option<(String, String)> {
        let text = |key: &str| annotations[key].as_str().map(str::to_owned);
        Some((text(NAME)?, text(NAMESPACE).unwrap_or_default()))
    }

    /// What makes the definitions anew.
    pub fn upgrade_crds(&self, namespace: &str) -> String {
        match &self.definitions {
            Some((name, of)) => {
                let of = if of.is_empty() { namespace } else { of };
                format!("helm upgrade {} charts/{CRDS} -n {} {REUSE}", quoted(name), quoted(of))
            }
            // Whoever has made them, from now on they are Helm's.
            None => format!("helm upgrade --install {CRDS} charts/{CRDS} -n {namespace} --take-ownership"),
        }
    }

    /// What makes the control plane anew, with these options.
    pub fn upgrade(&self, namespace: &str, options: &str) -> String {
        let blank = if options.is_empty() { "" } else { " " };
        format!("helm upgrade {} charts/{CONTROL_PLANE} -n {namespace} {REUSE}{blank}{options}", quoted(&self.name))
    }
}

/// The release that the control plane of a namespace is, if it is one.
#[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
pub async fn helm_release(cluster: &Cluster, namespace: &str) -> Result<Option<Release>, Error> {
    let config = cluster.object(CONFIG_MAP, Some(namespace), CONFIG).await?.unwrap_or_default();
    let Some((name, _)) = Release::of(&config["metadata"]["annotations"]) else { return Ok(None) };
    let definition = cluster.definition(DEFINITION).await?;
    let definitions = definition.and_then(|definition| Release::of(&json!(definition.annotations)));
    Ok(Some(Release { name, definitions }))
}

/// The same from manifests. Definitions that are not among them are taken for the usual release.
pub(super) fn of_manifests(objects: &[Value], namespace: &str) -> Option<Release> {
    let is = |object: &&Value, kind: &str, name: &str| object["kind"] == kind && object["metadata"]["name"] == name;
    let mut configs = objects.iter().filter(|object| is(object, "ConfigMap", CONFIG));
    let config = configs.find(|object| object["metadata"]["namespace"] == namespace)?;
    let (name, _) = Release::of(&config["metadata"]["annotations"])?;
    let definitions = match objects.iter().find(|object| is(object, "CustomResourceDefinition", DEFINITION)) {
        Some(definition) => Release::of(&definition["metadata"]["annotations"]),
        None => Some((CRDS.to_owned(), namespace.to_owned())),
    };
    Some(Release { name, definitions })
}

/// An installation that is Helm's to change, and how.
#[derive(Clone, Debug)]
pub struct OfHelm {
    by: Author,
    namespace: String,
    release: Release,
    /// Files that its options name are written by these.
    before: Vec<String>,
    /// Of the upgrade.
    options: Vec<String>,
    /// Of what was given to Linkerd's chart: what ours does not take.
    left_out: Vec<Problem>,
    /// Why that is not known.
    unread: Option<String>,
}

impl OfHelm {
    /// What Helm has to be told for it to go on.
    pub(super) async fn read(
        source: Source<'_>,
        namespace: &str,
        by: Author,
        release: Release,
    ) -> Result<Self, NotStored> {
        let mut of_helm = Self {
            by,
            namespace: namespace.to_owned(),
            release,
            before: vec![],
            options: vec![],
            left_out: vec![],
            unread: None,
        };
        if by == Author::Linkerd {
            match source.given_to_release(namespace, &of_helm.release.name).await? {
                Ok(given) => of_helm.taken_over(source, given).await?,
                Err(reason) => of_helm.unread = Some(reason),
            }
        }
        Ok(of_helm)
    }

    async fn taken_over(&mut self, source: Source<'_>, given: Value) -> Result<(), NotStored> {
        self.keep_certificates(source, &given).await?;
        let mut own = given.clone();
        for path in config::OF_OBJECTS {
            remove(&mut own, path);
        }
        let (kept, left_out) = carried(own.clone());
        let mut gone = vec![];
        // Images bear the version.
        if given.get("linkerdVersion").is_some_and(|version| !version.is_null()) {
            gone.push("linkerdVersion".to_owned());
        }
        missing(&own, &kept, "", &mut gone);
        if !gone.is_empty() {
            let nulls: Vec<String> = gone.iter().map(|path| format!("{path}=null")).collect();
            self.options.push(format!("--set {}", quoted(&nulls.join(","))));
        }
        self.left_out = left_out;
        Ok(())
    }

    /// Where the cluster's have been replaced since, Helm would bring back those that it was given.
    async fn keep_certificates(&mut self, source: Source<'_>, given: &Value) -> Result<(), NotStored> {
        let namespace = self.namespace.clone();
        let is_other = |path: &str, present: &str| {
            let given = given.pointer(path).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
            given.is_some_and(|given| given.trim() != present.trim())
        };
        if let Some(anchors) = source.anchors(&namespace).await?
            && is_other("/identityTrustAnchorsPEM", &anchors)
        {
            self.before.push(format!(
                "kubectl -n {namespace} get configmap linkerd-identity-trust-roots -o 'jsonpath={{.data.ca-bundle\\.crt}}' > anchors.crt"
            ));
            self.options.push("--set-file identityTrustAnchorsPEM=anchors.crt".to_owned());
        }
        if let Some(Pair { certificate, .. }) = source.pair(&namespace, config::ISSUER).await?
            && is_other("/identity/issuer/tls/crtPEM", &certificate)
        {
            for (key, file, value) in [("crt\\.pem", "issuer.crt", "crtPEM"), ("key\\.pem", "issuer.key", "keyPEM")] {
                self.before.push(format!(
                    "kubectl -n {namespace} get secret linkerd-identity-issuer -o 'jsonpath={{.data.{key}}}' | base64 -d > {file}"
                ));
                self.options.push(format!("--set-file identity.issuer.tls.{value}={file}"));
            }
        }
        Ok(())
    }

    /// One after the other, they upgrade it.
    pub fn commands(&self) -> Vec<String> {
        let upgrades = [
            self.release.upgrade_crds(&self.namespace),
            self.release.upgrade(&self.namespace, &self.options.join(" ")),
        ];
        self.before.iter().cloned().chain(upgrades).collect()
    }
}

impl std::error::Error for OfHelm {}

impl fmt::Display for OfHelm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, namespace, release, left_out, unread, .. } = self;
        let (whose, becomes) = match by {
            Author::Weft => ("is", ""),
            Author::Linkerd => {
                ("is Linkerd's,", ", which makes it weft's; docs/from-linkerd-by-helm.md says what else there is to do")
            }
        };
        let name = &release.name;
        writeln!(
            f,
            "the control plane in the namespace {namespace} {whose} of Helm's release {name}, and is upgraded by helm{becomes}:\n"
        )?;
        for command in self.commands() {
            writeln!(f, "    {command}")?;
        }
        if !left_out.is_empty() {
            write!(f, "\nvalues of Linkerd's that are not carried over:")?;
            left_out.iter().try_for_each(|problem| write!(f, "\n  * {problem}"))?;
        }
        if let Some(reason) = unread {
            write!(f, "\nwhat was given to it is not known here ({reason}): helm names what it does not take")?;
        }
        Ok(())
    }
}

/// A word for a shell, as it is where that reads it as no more.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".,=_/-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The paths of what is in the one tree and not in the other, as Helm's `--set` writes them.
fn missing(before: &Value, after: &Value, path: &str, gone: &mut Vec<String>) {
    for (key, value) in before.as_object().into_iter().flatten() {
        let mut name = String::new();
        for character in key.chars() {
            if ['.', ',', '=', '[', '\\'].contains(&character) {
                name.push('\\');
            }
            name.push(character);
        }
        let path = if path.is_empty() { name } else { format!("{path}.{name}") };
        match after.get(key) {
            Some(kept) => missing(value, kept, &path, gone),
            None if value.is_null() => {}
            None => gone.push(path),
        }
    }
}

/// What was given to the newest of the releases that are in force, of Secrets as Helm writes them.
pub(super) fn newest(releases: &[(u64, Vec<u8>)]) -> Result<Value, String> {
    match releases.iter().max_by_key(|(revision, _)| *revision) {
        Some((_, release)) => given(release),
        None => Err("no Secret of Helm's says that the release is in force".to_owned()),
    }
}

fn given(release: &[u8]) -> Result<Value, String> {
    /// As far as it is read.
    #[derive(Deserialize)]
    struct Kept {
        config: Option<Map<String, Value>>,
    }
    let text = std::str::from_utf8(release).map_err(|_| "the release is no text".to_owned())?;
    // Helm's own base64, within that of the Secret.
    let packed = serde_json::from_value::<ByteString>(json!(text.trim())).map_err(|e| format!("the release: {e}"))?.0;
    let mut read = vec![];
    let unread = |e: std::io::Error| format!("the release cannot be unpacked: {e}");
    GzDecoder::new(packed.as_slice()).take(MOST + 1).read_to_end(&mut read).map_err(unread)?;
    if u64::try_from(read.len()).is_ok_and(|length| length > MOST) {
        return Err(format!("the release is larger than {MOST} bytes"));
    }
    let kept: Kept = serde_json::from_slice(&read).map_err(|e| format!("the release is no JSON of Helm's: {e}"))?;
    Ok(Value::Object(kept.config.unwrap_or_default()))
}
