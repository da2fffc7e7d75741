//! What mends a line that is not true: a command for the installation that is there and for the objects that are wrong.

use weft_cluster::k8s::api::core::v1::Pod;

/// Commands that one line names; the next look names the rest.
const MOST: usize = 5;
const DEFAULT_NAMESPACE: &str = "linkerd";

/// What mends a line, before it is known whose installation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// A command, or what to do; `{namespace}` stands for the control plane's.
    Text(&'static str),
    /// The control plane made anew, with options that weft and helm have alike.
    Upgrade(&'static str),
    /// The same with options that they have under other names, and where their files come from.
    Given { weft: &'static str, helm: &'static str, files: &'static str },
    /// The definitions of the mesh's kinds made anew.
    UpgradeCrds,
    /// Both, or else another `weft`.
    UpgradeAll,
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
    pub release: Option<String>,
}

impl Default for Installer {
    fn default() -> Self {
        Self { namespace: DEFAULT_NAMESPACE.to_owned(), release: None }
    }
}

impl Remedy {
    /// What to type there.
    pub fn of(&self, installer: &Installer) -> String {
        match self {
            Self::Text(text) => text.replace("{namespace}", &installer.namespace),
            Self::Upgrade(options) => installer.upgrade(options),
            Self::Given { weft, helm, files } => {
                let options = if installer.release.is_some() { helm } else { weft };
                format!("{}, {files}", installer.upgrade(options))
            }
            Self::UpgradeCrds => installer.upgrade_crds(),
            Self::UpgradeAll => {
                format!("{} && {}, or use the weft of that version", installer.upgrade_crds(), installer.upgrade(""))
            }
        }
    }

    /// Of a usual installation by weft, and by Helm where that is something else.
    pub fn documented(&self) -> (String, Option<String>) {
        let [weft, helm] = [None, Some("linkerd-control-plane".to_owned())]
            .map(|release| self.of(&Installer { release, ..Installer::default() }));
        let is_other = helm != weft;
        (weft, is_other.then_some(helm))
    }
}

impl Installer {
    fn upgrade(&self, options: &str) -> String {
        let blank = if options.is_empty() { "" } else { " " };
        match &self.release {
            Some(release) => self.helm(release, "linkerd-control-plane", &format!("{blank}{options}")),
            None => format!("weft upgrade{}{blank}{options} | kubectl apply -f -", self.option()),
        }
    }

    fn upgrade_crds(&self) -> String {
        match &self.release {
            Some(_) => self.helm("linkerd-crds", "linkerd-crds", ""),
            None => format!("weft upgrade --crds{} | kubectl apply -f -", self.option()),
        }
    }

    fn helm(&self, release: &str, chart: &str, options: &str) -> String {
        format!("helm upgrade {release} charts/{chart} -n {} --reset-then-reuse-values{options}", self.namespace)
    }

    /// Another namespace than the usual one is named.
    fn option(&self) -> String {
        match self.namespace.as_str() {
            DEFAULT_NAMESPACE => String::new(),
            other => format!(" -L {other}"),
        }
    }
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
}

impl Mend {
    pub(super) fn of(&self, installer: &Installer) -> String {
        match self {
            Self::Command(command) => command.clone(),
            Self::Upgrade(options) => installer.upgrade(options),
        }
    }
}

impl Failed {
    /// By the control plane made anew.
    pub(super) fn upgraded(why: String, options: &str) -> Self {
        Self { why, remedy: Some(Mend::Upgrade(options.to_owned())) }
    }

    pub(super) fn mended_by(why: String, command: String) -> Self {
        Self { why, remedy: Some(Mend::Command(command)) }
    }
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { why, remedy: None }
    }
}

/// What is wrong, and the command that mends each.
pub(super) fn mended(wrong: Vec<(String, String)>) -> Result<(), Failed> {
    if wrong.is_empty() {
        return Ok(());
    }
    let (whys, commands): (Vec<String>, Vec<String>) = wrong.into_iter().unzip();
    let mut different: Vec<String> = vec![];
    for command in commands {
        if !different.contains(&command) && different.len() < MOST {
            different.push(command);
        }
    }
    Err(Failed::mended_by(whys.join("; "), different.join(" && ")))
}

pub(super) fn describe(pod: &Pod) -> String {
    format!("kubectl -n {} describe pod {}", pod.metadata.namespace.as_deref().unwrap_or_default(), name(pod))
}

/// By whom a pod is made anew.
pub(super) fn restart(pod: &Pod) -> String {
    match workload(pod) {
        (namespace, Some(workload)) => format!("kubectl -n {namespace} rollout restart {workload}"),
        // What is deleted does not come back of itself, or is work that has begun.
        (_, None) => format!("{}, and make it anew by what has made it", describe(pod)),
    }
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
    use serde_json::{Value, json};

    #[test]
    fn who_installed_upgrades() {
        let weft = Installer { namespace: "mesh".to_owned(), release: None };
        let helm = Installer { namespace: "mesh".to_owned(), release: Some("lcp".to_owned()) };
        let given = Remedy::Given { weft: "--a", helm: "--b", files: "of c" };
        for (remedy, by_weft, by_helm) in [
            (text("kubectl -n {namespace} get pods"), "kubectl -n mesh get pods", "kubectl -n mesh get pods"),
            (
                set("--set a=1"),
                "weft upgrade -L mesh --set a=1 | kubectl apply -f -",
                "helm upgrade lcp charts/linkerd-control-plane -n mesh --reset-then-reuse-values --set a=1",
            ),
            (
                given,
                "weft upgrade -L mesh --a | kubectl apply -f -, of c",
                "helm upgrade lcp charts/linkerd-control-plane -n mesh --reset-then-reuse-values --b, of c",
            ),
            (
                Remedy::UpgradeCrds,
                "weft upgrade --crds -L mesh | kubectl apply -f -",
                "helm upgrade linkerd-crds charts/linkerd-crds -n mesh --reset-then-reuse-values",
            ),
        ] {
            assert_eq!((remedy.of(&weft).as_str(), remedy.of(&helm).as_str()), (by_weft, by_helm));
        }
        assert_eq!(UPGRADE.documented().0, "weft upgrade | kubectl apply -f -");
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
