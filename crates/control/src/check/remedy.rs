//! What mends a line that is not true: a command for the installation that is there and for the objects that are wrong.

use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use weft_cluster::{
    inject::{CREATED_BY, TRUST_ROOTS},
    install::{NotReady, Release, anchors_written, quoted},
    k8s::api::core::v1::Pod,
    kubernetes::Error,
    label,
    values::Values,
};

/// What one line names of what is wrong, and of the commands that mend it.
const TOLD: usize = 10;
const MOST: usize = 5;
/// Workloads that are restarted together; of the rest `weft check --proxy` tells.
const TOGETHER: usize = 100;
const DEFAULT_NAMESPACE: &str = "linkerd";

/// What mends a line, before it is known whose installation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// A command, or what to do; `{namespace}` stands for the control plane's.
    Text(&'static str),
    /// The control plane made anew, with options that weft and helm have alike.
    Upgrade(&'static str),
    /// And its pods behind that: their tokens are of what has gone.
    UpgradeAndRestart,
    /// Other certificates of identity, made and given.
    Renew(Renewal),
    /// The definitions of the mesh's kinds made anew.
    UpgradeCrds,
    /// Both, or else another `weft`.
    UpgradeAll,
}

/// What of the certificates of identity is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    Issuer,
    /// The issuer where it has ended already: who has lost its root's key takes another root at once.
    EndedIssuer,
    /// The root written anew where it is lost: who has none takes another, and an issuer below it.
    LostRoot,
    /// Another root besides the present one.
    Root,
    /// Both at once, where the present ones are believed no more.
    RootAndIssuer,
}

pub(super) const UPGRADE: Remedy = Remedy::Upgrade("");

pub(super) const fn text(text: &'static str) -> Remedy {
    Remedy::Text(text)
}

pub(super) const fn set(options: &'static str) -> Remedy {
    Remedy::Upgrade(options)
}

/// Whose installation it is.
#[derive(Clone, Debug)]
pub struct Installer {
    /// The control plane's.
    pub namespace: String,
    /// The release of Helm's that it is, if it is one.
    pub release: Option<Release>,
    /// The end of all identities.
    pub trust_domain: String,
}

impl Default for Installer {
    fn default() -> Self {
        let trust_domain = Values::default().trust_domain().to_owned();
        Self { namespace: DEFAULT_NAMESPACE.to_owned(), release: None, trust_domain }
    }
}

impl Remedy {
    /// What to type there.
    pub fn of(&self, installer: &Installer) -> String {
        match self {
            Self::Text(text) => text.replace("{namespace}", &installer.namespace),
            Self::Upgrade(options) => installer.upgrade(options),
            Self::UpgradeAndRestart => {
                format!("{} && kubectl -n {} rollout restart deployment", installer.upgrade(""), installer.namespace)
            }
            Self::Renew(renewal) => installer.renew(*renewal, None, &[]),
            Self::UpgradeCrds => installer.upgrade_crds(),
            Self::UpgradeAll => {
                format!("{} && {}, or use the weft of that version", installer.upgrade_crds(), installer.upgrade(""))
            }
        }
    }

    /// Of a usual installation by weft, and by Helm where that is something else.
    pub fn documented(&self) -> (String, Option<String>) {
        let usual = |name: &str| (name.to_owned(), DEFAULT_NAMESPACE.to_owned());
        let (name, _) = usual("linkerd-control-plane");
        let usual = Release { name, definitions: Some(usual("linkerd-crds")) };
        let [weft, helm] = [None, Some(usual)].map(|release| self.of(&Installer { release, ..Installer::default() }));
        let is_other = helm != weft;
        (weft, is_other.then_some(helm))
    }
}

impl Installer {
    fn upgrade(&self, options: &str) -> String {
        let blank = if options.is_empty() { "" } else { " " };
        match &self.release {
            Some(release) => release.upgrade(&self.namespace, options),
            None => format!("weft upgrade{}{blank}{options} | kubectl apply -f -", self.option()),
        }
    }

    pub(super) fn upgrade_crds(&self) -> String {
        match &self.release {
            Some(release) => release.upgrade_crds(&self.namespace),
            None => format!("weft upgrade --crds{} | kubectl apply -f -", self.option()),
        }
    }

    /// Certificates of identity made by openssl and given, what is to be done before they are, and what behind that.
    fn renew(&self, renewal: Renewal, before: Option<&str>, behind: &[String]) -> String {
        let Self { namespace, trust_domain, .. } = self;
        let made = |name: &str, days: u32, signed: &str, file: &str| {
            format!(
                "openssl req -x509{signed} -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days {days} -subj /CN={name} \
                 -addext keyUsage=critical,keyCertSign,cRLSign -keyout {file}.key -out {file}.crt"
            )
        };
        let root = made(&format!("root.{namespace}.{trust_domain}"), 3650, "", "root");
        let name = format!("identity.{namespace}.{trust_domain}");
        let below = format!(" -CA root.crt -CAkey root.key -addext subjectAltName=DNS:{name}");
        let issuer = made(&name, 365, &below, "issuer");
        let option = |weft: &'static str, helm: &'static str| if self.release.is_some() { helm } else { weft };
        let new_issuer = option(
            "--identity-issuer-certificate-file issuer.crt --identity-issuer-key-file issuer.key",
            "--set-file identity.issuer.tls.crtPEM=issuer.crt --set-file identity.issuer.tls.keyPEM=issuer.key",
        );
        match renewal {
            Renewal::Issuer => format!(
                "{issuer} && {}, where root.key is the key of the trust anchors; where nobody has that, a new root in three steps: \
                 docs/certificates.md",
                self.upgrade(new_issuer)
            ),
            Renewal::EndedIssuer => format!(
                "{}, where root.key is the key of the trust anchors; where nobody has that: {}",
                [Some(issuer.as_str()), before, Some(&self.upgrade(new_issuer))]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(" && "),
                self.renew(Renewal::RootAndIssuer, before, behind)
            ),
            Renewal::LostRoot => format!(
                "{}; where nobody has that: {}",
                write_anchors(namespace),
                self.renew(Renewal::RootAndIssuer, before, behind)
            ),
            Renewal::Root => {
                let both =
                    option("--identity-trust-anchors-file both.crt", "--set-file identityTrustAnchorsPEM=both.crt");
                format!(
                    "{root} && {} && cat old.crt root.crt > both.crt && {}, the first of three steps in docs/certificates.md",
                    self.anchors_into("old.crt"),
                    self.upgrade(both)
                )
            }
            Renewal::RootAndIssuer => {
                let root_alone = option(
                    "--force --identity-trust-anchors-file root.crt",
                    "--set-file identityTrustAnchorsPEM=root.crt",
                );
                let upgrade = self.upgrade(&format!("{root_alone} {new_issuer}"));
                // Who is made anew while the injector is not there has no proxy.
                let ready = (!behind.is_empty()).then(|| format!("kubectl -n {namespace} rollout status deployment"));
                let before = before.map(str::to_owned);
                let made = [root, issuer].into_iter().chain(before).chain([upgrade]);
                let all = made.chain(ready).chain(behind.iter().cloned());
                all.collect::<Vec<_>>().join(" && ")
            }
        }
    }

    /// Those anchors alone that are numbered otherwise, counted from 1.
    fn without_anchors(&self, numbers: &[usize]) -> String {
        let kept: Vec<String> = numbers.iter().map(|number| format!("n != {number}")).collect();
        let option = match self.release {
            Some(_) => "--set-file identityTrustAnchorsPEM=anchors.crt",
            None => "--identity-trust-anchors-file anchors.crt",
        };
        let all = self.anchors_into("all.crt");
        let kept = format!("awk '/BEGIN/ {{ n++ }} {}' all.crt > anchors.crt", kept.join(" && "));
        format!("{all} && {kept} && {}", self.upgrade(option))
    }

    fn anchors_into(&self, file: &str) -> String {
        format!(
            "kubectl -n {} get configmap {TRUST_ROOTS} -o 'jsonpath={{.data.ca-bundle\\.crt}}' > {file}",
            self.namespace
        )
    }

    /// Another namespace than the usual one is named.
    fn option(&self) -> String {
        match self.namespace.as_str() {
            DEFAULT_NAMESPACE => String::new(),
            other => format!(" -L {other}"),
        }
    }
}

/// With anchors that somebody has.
pub(super) fn write_anchors(namespace: &str) -> String {
    format!("{}, with the root that the issuer is below", anchors_written(namespace))
}

/// Why a line is not true, and what mends just that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub why: String,
    /// `None`: what the table says.
    pub remedy: Option<Mend>,
}

/// What mends one failure, where it is known better than by the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mend {
    Command(String),
    /// The control plane made anew, with these options.
    Upgrade(String),
    /// The same between other commands, which say how they go on.
    UpgradeAmong {
        before: String,
        options: String,
        behind: String,
    },
    /// Certificates made anew, what comes before they are installed, and what behind that.
    Renew {
        renewal: Renewal,
        before: Option<String>,
        behind: Vec<String>,
    },
    /// These of the anchors left out, counted from 1.
    WithoutAnchors(Vec<usize>),
}

impl Mend {
    pub(super) fn of(&self, installer: &Installer) -> String {
        match self {
            Self::Command(command) => command.clone(),
            Self::Upgrade(options) => installer.upgrade(options),
            Self::UpgradeAmong { before, options, behind } => {
                format!("{before} && {}{behind}", installer.upgrade(options))
            }
            Self::Renew { renewal, before, behind } => installer.renew(*renewal, before.as_deref(), behind),
            Self::WithoutAnchors(numbers) => installer.without_anchors(numbers),
        }
    }
}

impl Failed {
    /// By a command, unless something else is known to mend it.
    pub(super) fn or_mended_by(self, command: String) -> Self {
        self.or(Some(Mend::Command(command)))
    }

    /// The same of whatever mends it, if it is known.
    pub(super) fn or(self, mend: Option<Mend>) -> Self {
        Self { remedy: self.remedy.or(mend), ..self }
    }

    /// Mended by an installation, or, where that would be refused, by what is told of what is in its way: of a control plane that is
    /// there already whose it is is known.
    pub(super) fn instead_of(
        self,
        installation: &Remedy,
        namespace: &str,
        refused: &Result<(), NotReady>,
        there: impl FnOnce(&Installer) -> String,
    ) -> Self {
        let installer = |namespace: &str, release: Option<Release>| Installer {
            namespace: namespace.to_owned(),
            release,
            ..Installer::default()
        };
        match refused {
            Ok(()) => self,
            Err(NotReady::Installed { namespace, release }) => {
                self.or_mended_by(there(&installer(namespace, release.clone())))
            }
            Err(NotReady::Cluster(error)) => {
                let Self { why, remedy } = error.into();
                Self { why: format!("{}; whether a control plane is installed is not known: {why}", self.why), remedy }
            }
            Err(rooted @ NotReady::Rooted { .. }) => self.or_mended_by(rooted.remedy().unwrap_or_default()),
            Err(other) => {
                let first = other.remedy().map(|command| format!("{command} && ")).unwrap_or_default();
                self.or_mended_by(format!("{first}{}", installation.of(&installer(namespace, None))))
            }
        }
    }

    /// By the control plane made anew.
    pub(super) fn upgraded(why: String, options: &str) -> Self {
        Self { why, remedy: Some(Mend::Upgrade(options.to_owned())) }
    }

    pub(super) fn mended_by(why: String, command: String) -> Self {
        Self { why, remedy: Some(Mend::Command(command)) }
    }
}

impl From<NotReady> for Failed {
    fn from(error: NotReady) -> Self {
        let remedy = error.remedy().map(Mend::Command);
        match error {
            NotReady::Cluster(error) => error.into(),
            // By what it is made is another thing before an installation than in one, and the remedy's to say.
            NotReady::Undefined { name, version } => {
                format!("the definition {name} of version {version} is missing").into()
            }
            error => Self { why: error.to_string(), remedy },
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        (&error).into()
    }
}

/// Who cannot ask has nothing to mend in what it was to ask for.
impl From<&Error> for Failed {
    fn from(error: &Error) -> Self {
        let command = match error {
            Error::Forbidden(_) => {
                "kubectl auth can-i --list, and ask by an account that may, such as a cluster's administrator"
            }
            _ => "kubectl cluster-info",
        };
        Self::mended_by(error.to_string(), command.to_owned())
    }
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { why, remedy: None }
    }
}

/// A few tell it all; of the rest it is said how many there are.
pub(super) fn few(all: &[impl AsRef<str>]) -> String {
    let mut told: Vec<&str> = all.iter().take(TOLD).map(AsRef::as_ref).collect();
    let more = all.len().saturating_sub(TOLD);
    let more = (more > 0).then(|| format!("and {more} more"));
    told.extend(more.as_deref());
    told.join("; ")
}

/// What is wrong, and the command that mends each.
pub(super) fn mended(wrong: Vec<(String, String)>) -> Result<(), Failed> {
    if wrong.is_empty() {
        return Ok(());
    }
    let (whys, commands): (Vec<String>, Vec<String>) = wrong.into_iter().unzip();
    let (mut named, mut known, mut said) = (vec![], BTreeSet::new(), vec![]);
    for command in &commands {
        if known.insert(command) && named.len() < MOST {
            // Said once, behind all commands.
            let behind = [BY_HAND, AS_BEFORE].into_iter().find(|behind| command.ends_with(*behind));
            named.push(behind.and_then(|behind| command.strip_suffix(behind)).unwrap_or(command));
            said.extend(behind.filter(|behind| !said.contains(behind)));
        }
    }
    let more = match known.len() - named.len() {
        0 => String::new(),
        more => format!(", and {more} more, which the next check names"),
    };
    Err(Failed::mended_by(few(&whys), format!("{}{}{more}", named.join(" && "), said.concat())))
}

pub(super) fn describe(pod: &Pod) -> String {
    format!("kubectl -n {} describe pod {}", pod.metadata.namespace.as_deref().unwrap_or_default(), name(pod))
}

/// What is said behind a command that is not all.
const BY_HAND: &str = ", and make it anew by what has made it";
const AS_BEFORE: &str = ", with the options that it was injected with";

/// By whom a pod is made anew.
pub(super) fn restart(pod: &Pod) -> String {
    match workload(pod) {
        (namespace, Some(workload)) if has_its_own(pod) => {
            format!("{}{AS_BEFORE}", inject(namespace, &workload, control_namespace(pod)))
        }
        (namespace, Some(workload)) => format!("kubectl -n {namespace} rollout restart {workload}"),
        // What is deleted does not come back of itself, or is work that has begun.
        (_, None) => format!("{}{BY_HAND}", describe(pod)),
    }
}

/// All pods that a workload makes anew, a command for each namespace.
pub(super) fn restart_all<'p>(pods: impl IntoIterator<Item = &'p Pod>) -> Vec<String> {
    let mut by_namespace: BTreeMap<(bool, &str), Vec<String>> = BTreeMap::new();
    let (mut left, mut control) = (TOGETHER, DEFAULT_NAMESPACE);
    for pod in pods {
        let (namespace, Some(workload)) = workload(pod) else { continue };
        control = control_namespace(pod);
        let known = by_namespace.entry((has_its_own(pod), namespace)).or_default();
        if left > 0 && !known.contains(&workload) {
            left -= 1;
            known.push(workload);
        }
    }
    let all = by_namespace.into_iter().filter(|(_, workloads)| !workloads.is_empty());
    all.map(|((has_its_own, namespace), workloads)| match has_its_own {
        true => inject(namespace, &workloads.join(" "), control),
        false => format!("kubectl -n {namespace} rollout restart {}", workloads.join(" ")),
    })
    .collect()
}

/// Whether the proxy is of the workload's template, by `inject --manual`: whoever makes such a pod anew makes the same proxy.
fn has_its_own(pod: &Pod) -> bool {
    let meta = &pod.metadata;
    let of = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key));
    let is_of_the_mesh = meta.labels.as_ref().is_some_and(|all| all.contains_key(label::COMPONENT));
    of(CREATED_BY).is_some_and(|by| by.starts_with("linkerd/cli ")) && !is_of_the_mesh
}

fn control_namespace(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|all| all.get(label::CONTROL_NAMESPACE)).map_or(DEFAULT_NAMESPACE, String::as_str)
}

/// Writes proxies into templates anew.
fn inject(namespace: &str, workloads: &str, control_namespace: &str) -> String {
    let option = match control_namespace {
        DEFAULT_NAMESPACE => String::new(),
        other => format!(" -L {other}"),
    };
    format!("kubectl -n {namespace} get {workloads} -o yaml | weft inject --manual{option} - | kubectl apply -f -")
}

/// Where a pod has from what it is.
pub(super) fn edit(pod: &Pod) -> String {
    match workload(pod) {
        (namespace, Some(workload)) => format!("kubectl -n {namespace} edit {workload}"),
        (namespace, None) => format!("kubectl -n {namespace} edit pod/{}", name(pod)),
    }
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Gives a pod's template an annotation, by which its pods are made anew.
pub(super) fn annotate(pod: &Pod, key: &str, value: &str) -> String {
    match workload(pod) {
        (namespace, Some(workload)) => {
            let metadata = json!({ "annotations": { key: value } });
            let patch = json!({ "spec": { "template": { "metadata": metadata } } }).to_string();
            format!("kubectl -n {namespace} patch {workload} --type=merge --patch={}", quoted(&patch))
        }
        (namespace, None) => {
            let said = quoted(&format!("{key}={value}"));
            format!("kubectl -n {namespace} annotate --overwrite pod {} {said}", name(pod))
        }
    }
}

/// The namespace of a pod, and what can be restarted if it belongs to such a thing.
fn workload(pod: &Pod) -> (&str, Option<String>) {
    let meta = &pod.metadata;
    let owner = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let workload = owner.and_then(|owner| match owner.kind.as_str() {
        "ReplicaSet" => {
            let hash = meta.labels.as_ref()?.get("pod-template-hash")?;
            Some(format!("deployment/{}", owner.name.strip_suffix(hash)?.strip_suffix('-')?))
        }
        "StatefulSet" | "DaemonSet" => Some(format!("{}/{}", owner.kind.to_lowercase(), owner.name)),
        _ => None,
    });
    (meta.namespace.as_deref().unwrap_or_default(), workload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn who_installed_upgrades() {
        let weft = Installer { namespace: "mesh".to_owned(), ..Installer::default() };
        let release = Release { name: "lcp".to_owned(), definitions: Some(("kinds".to_owned(), "other".to_owned())) };
        let helm = Installer { release: Some(release), ..weft.clone() };
        for (remedy, by_weft, by_helm) in [
            (text("kubectl -n {namespace} get pods"), "kubectl -n mesh get pods", "kubectl -n mesh get pods"),
            (
                set("--set a=1"),
                "weft upgrade -L mesh --set a=1 | kubectl apply -f -",
                "helm upgrade lcp charts/linkerd-control-plane -n mesh --reset-then-reuse-values --set a=1",
            ),
            (
                Remedy::UpgradeCrds,
                "weft upgrade --crds -L mesh | kubectl apply -f -",
                "helm upgrade kinds charts/linkerd-crds -n other --reset-then-reuse-values",
            ),
        ] {
            assert_eq!((remedy.of(&weft).as_str(), remedy.of(&helm).as_str()), (by_weft, by_helm));
        }
        assert_eq!(UPGRADE.documented().0, "weft upgrade | kubectl apply -f -");
        let renewed = Mend::Renew {
            renewal: Renewal::RootAndIssuer,
            before: None,
            behind: vec!["kubectl -n shop rollout restart deployment/web".to_owned()],
        };
        for (installer, option) in
            [(&weft, "--identity-trust-anchors-file root.crt"), (&helm, "identityTrustAnchorsPEM=root.crt")]
        {
            let told = renewed.of(installer);
            for part in ["/CN=root.mesh.cluster.local", "DNS:identity.mesh.cluster.local", option] {
                assert!(
                    told.contains(part) && told.ends_with(" && kubectl -n shop rollout restart deployment/web"),
                    "{told}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_named_is_counted() {
        let wrong = |count: usize| {
            (0..count).map(|n| (format!("pod {n}"), format!("kubectl describe pod {}", n / 2))).collect()
        };
        let Failed { why, remedy: Some(Mend::Command(command)) } = mended(wrong(10)).unwrap_err() else { panic!() };
        assert!(why.ends_with("; pod 8; pod 9") && command.ends_with(" && kubectl describe pod 4"), "{why}: {command}");
        let Failed { why, remedy: Some(Mend::Command(command)) } = mended(wrong(14)).unwrap_err() else { panic!() };
        assert!(why.ends_with("; pod 9; and 4 more"), "{why}");
        assert!(command.ends_with(" pod 4, and 2 more, which the next check names"), "{command}");
        assert_eq!(few(&["a"; 12]), format!("{}and 2 more", "a; ".repeat(10)));
        assert_eq!(mended(vec![]), Ok(()));
    }

    /// A restart changes nothing of a template.
    #[test]
    fn a_proxy_of_the_template_is_injected_anew() {
        let pod = |name: &str, control: &str, by: &str| -> Pod {
            let owner =
                json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": "1", "controller": true});
            let meta = json!({"name": format!("{name}-0"), "namespace": "shop", "ownerReferences": [owner],
                "annotations": {"linkerd.io/created-by": by}, "labels": {"linkerd.io/control-plane-ns": control}});
            serde_json::from_value(json!({ "metadata": meta })).unwrap()
        };
        let (own, other) = (pod("db", "linkerd", "linkerd/cli v1"), pod("web", "linkerd", "linkerd/proxy-injector v1"));
        let injects = |workloads: &str, option: &str| {
            format!("kubectl -n shop get {workloads} -o yaml | weft inject --manual{option} - | kubectl apply -f -")
        };
        let rollout = "kubectl -n shop rollout restart statefulset/web";
        assert_eq!(restart(&own), injects("statefulset/db", "") + AS_BEFORE);
        assert_eq!(restart(&pod("db", "mesh", "linkerd/cli v1")), injects("statefulset/db", " -L mesh") + AS_BEFORE);
        assert_eq!(restart(&other), rollout);
        assert_eq!(restart_all([&own, &other, &own]), [rollout.to_owned(), injects("statefulset/db", "")]);
        let wrong = vec![("a".to_owned(), restart(&own)), ("b".to_owned(), restart(&other))];
        let all = format!("{} && {rollout}{AS_BEFORE}", injects("statefulset/db", ""));
        assert_eq!(mended(wrong), Err(Failed::mended_by("a; b".to_owned(), all)));
        let mut control_plane = own;
        control_plane.metadata.labels.as_mut().unwrap().insert(label::COMPONENT.to_owned(), "identity".to_owned());
        assert_eq!(restart(&control_plane), "kubectl -n shop rollout restart statefulset/db");
    }

    #[test]
    fn pods_are_made_anew_by_their_workload() {
        let pod = |owner: Value, hash: &str| {
            let meta = json!({"name": "web-5f8d-x", "namespace": "shop", "labels": {"pod-template-hash": hash},
                "ownerReferences": [owner]});
            restart(&serde_json::from_value(json!({ "metadata": meta })).unwrap())
        };
        let owner = |kind: &str, name: &str| json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "1", "controller": true});
        assert_eq!(pod(owner("ReplicaSet", "web-5f8d"), "5f8d"), "kubectl -n shop rollout restart deployment/web");
        assert_eq!(pod(owner("StatefulSet", "db"), ""), "kubectl -n shop rollout restart statefulset/db");
        assert_eq!(pod(owner("DaemonSet", "log"), ""), "kubectl -n shop rollout restart daemonset/log");
        let nobody = json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1"});
        for other in [owner("Job", "once"), owner("ReplicaSet", "own-by-hand"), nobody] {
            let told = pod(other, "5f8d");
            assert_eq!(told, "kubectl -n shop describe pod web-5f8d-x, and make it anew by what has made it");
        }
    }
}
