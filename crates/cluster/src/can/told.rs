//! What is told of a question, for people and for programs.

use serde::Serialize;
use std::fmt::{self, Write};
use weft_model::{Meta, decide::authorize::Unmet};

/// Whether a request would be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allowed,
    Denied,
    /// It cannot be told.
    Unknown,
}

/// An object that decides, or a default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Shown {
    /// Empty of what nobody wrote, as is the namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// As Kubernetes writes it; `default` of what nobody wrote.
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
}

/// What would have let the client in, had it met more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Nearest {
    pub object: Shown,
    /// Some of `network`, `tls` and `identity`.
    pub missing: Vec<&'static str>,
    pub why: String,
}

/// What one pod's port says to one client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Said {
    pub(super) verdict: Verdict,
    pub(super) port: Option<u16>,
    pub(super) identity: Option<String>,
    pub(super) via: Option<Shown>,
    pub(super) server: Option<Shown>,
    pub(super) route: Option<Shown>,
    pub(super) by: Option<Shown>,
    pub(super) nearest: Option<Nearest>,
    pub(super) why: Option<String>,
    /// The pod is the client.
    pub(super) to_itself: bool,
}

/// The worst of what is said; `None` of nothing.
pub(super) fn worst<'s>(said: impl IntoIterator<Item = &'s Said>) -> Option<Verdict> {
    said.into_iter().map(|said| said.verdict).max()
}

/// What some pods say to some clients, each of them to each but a pod to itself, which is told of apart; or what comes of a request on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub verdict: Verdict,
    pub clients: Vec<String>,
    /// What they prove there, if anything.
    pub identity: Option<String>,
    /// The route by which their own proxies send the request there, or answer it.
    pub via: Option<Shown>,
    /// `namespace/name`; none where the request comes to no pod.
    pub pods: Vec<String>,
    /// The pods' own.
    pub port: Option<u16>,
    /// `None` where no proxy of the mesh stands before the port.
    pub server: Option<Shown>,
    pub route: Option<Shown>,
    /// What lets them in.
    pub by: Option<Shown>,
    /// Of a refusal.
    pub nearest: Option<Nearest>,
    pub why: Option<String>,
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Allowed if all is; unknown if something is.
    pub verdict: Verdict,
    pub request: String,
    pub answers: Vec<Answer>,
}

impl Shown {
    pub(super) fn of(meta: &Meta) -> Self {
        let kind = crate::policy::KINDS.into_iter().map(crate::Kind::as_str);
        let kind = kind.into_iter().find(|kind| kind.eq_ignore_ascii_case(meta.kind()));
        Self {
            group: meta.group().to_owned(),
            kind: kind.unwrap_or(meta.kind()).to_owned(),
            namespace: meta.namespace().to_owned(),
            name: meta.name().to_owned(),
        }
    }

    /// In this namespace, if it is an object that names none.
    pub(super) fn within(mut self, namespace: &str) -> Self {
        if !self.group.is_empty() && self.namespace.is_empty() {
            namespace.clone_into(&mut self.namespace);
        }
        self
    }

    /// `[NAMESPACE/]KIND[.GROUP]/NAME`, `default:NAME`, or the name alone.
    pub(super) fn is(&self, text: &str) -> bool {
        let Self { group, kind, namespace, name } = self;
        let Some((of, named)) = text.rsplit_once('/').or_else(|| text.split_once(':')) else { return text == name };
        let (within, of) = of.split_once('/').unwrap_or((namespace.as_str(), of));
        let (of, of_group) = of.split_once('.').unwrap_or((of, group.as_str()));
        named == name && of.eq_ignore_ascii_case(kind) && of_group.eq_ignore_ascii_case(group) && within == namespace
    }

    /// The longest of the texts that it [is](Self::is).
    pub(super) fn whole(&self) -> String {
        let Self { group, kind, namespace, name } = self;
        let namespace = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        if group.is_empty() { self.to_string() } else { format!("{namespace}{kind}.{group}/{name}") }
    }
}

/// `AuthorizationPolicy/web`; `default:deny`.
impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.kind == "default" { ':' } else { '/' };
        write!(f, "{}{between}{}", self.kind, self.name)
    }
}

pub(super) fn missing(unmet: Unmet) -> Vec<&'static str> {
    let Unmet { network, tls, identity } = unmet;
    [(network, "network"), (tls, "tls"), (identity, "identity")]
        .into_iter()
        .filter(|(m, _)| *m)
        .map(|(_, n)| n)
        .collect()
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Unknown => "unknown",
        }
    }
}

impl Told {
    pub(super) fn new(request: String, answers: Vec<Answer>) -> Self {
        let verdict = answers.iter().map(|answer| answer.verdict).max().unwrap_or(Verdict::Unknown);
        Self { verdict, request, answers }
    }

    /// In one line.
    pub fn summary(&self) -> String {
        let parts: Vec<String> = self.answers.iter().map(Answer::summary).collect();
        let mut shown: Vec<String> = parts.iter().take(ANSWERS).cloned().collect();
        if parts.len() > ANSWERS {
            shown.push(format!("and {} more", parts.len() - ANSWERS));
        }
        shown.join(" | ")
    }
}

/// Answers in one line.
const ANSWERS: usize = 4;
/// Names in one line.
const NAMES: usize = 4;

fn some(names: &[String]) -> String {
    if names.is_empty() {
        return "no pod".to_owned();
    }
    let mut text = names.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMES {
        let _ = write!(text, " and {} more", names.len() - NAMES);
    }
    text
}

impl Answer {
    fn summary(&self) -> String {
        let Self { verdict, clients, pods, by, nearest, why, server, via, .. } = self;
        let mut text = format!("{} from {} to {}", verdict.as_str(), some(clients), some(pods));
        if let Some(via) = via {
            let _ = write!(text, " via {via}");
        }
        if let Some(by) = by {
            let _ = write!(text, " by {by}");
        } else if let Some(server) = server {
            let _ = write!(text, " by {server}");
        }
        if let Some(Nearest { object, why, .. }) = nearest {
            let _ = write!(text, "; nearest is {object}: {why}");
        }
        if let Some(why) = why {
            let _ = write!(text, ": {why}");
        }
        text
    }
}

/// For a terminal: the verdict first, then who and what, a line each.
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, answer) in self.answers.iter().enumerate() {
            let Answer { verdict, clients, identity, via, pods, port, server, route, by, nearest, why } = answer;
            if i > 0 {
                f.write_str("\n\n")?;
            }
            f.write_str(verdict.as_str())?;
            let mut row = |name: &str, text: String| write!(f, "\n  {name:<8} {text}");
            let proof = identity.as_ref().map_or_else(|| "without an identity".to_owned(), |id| format!("as {id}"));
            row("client", format!("{}, {proof}", some(clients)))?;
            let port = port.map(|port| format!(", port {port}")).unwrap_or_default();
            row("target", format!("{}{port}", some(pods)))?;
            row("request", self.request.clone())?;
            for (name, object) in [("via", via), ("server", server), ("route", route), ("by", by)] {
                if let Some(object) = object {
                    row(name, object.to_string())?;
                }
            }
            if let Some(Nearest { object, why, .. }) = nearest {
                row("nearest", format!("{object}: {why}"))?;
            }
            if let Some(why) = why {
                row("why", why.clone())?;
            }
        }
        Ok(())
    }
}
