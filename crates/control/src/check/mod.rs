//! `weft check`: whether a cluster is ready for the mesh, and the mesh in order.
//!
//! ```text
//! Cluster ─► cluster (is it fit?) ─► installed (is all there, and ready?) ─► identity ─► certificates ─► proxies ─► Report
//!                                        each line: table
//! ```
//! Each line asks for itself and changes nothing; what may come true by itself is waited for. After a fatal failure nothing more is
//! asked.

mod asked;
mod certificates;
mod cluster;
mod given;
mod identity;
mod installed;
mod marks;
mod policies;
mod probes;
mod proxies;
mod remedy;
pub mod table;

pub use remedy::{Failed, Installer, Mend, Remedy, Renewal};
pub use table::{ALL, Check, LOCAL, Severity, local};

use identity::Looked;
use serde::Serialize;
use std::{
    ops::ControlFlow,
    time::{Duration, SystemTime},
};
use tokio::time::Instant;
use weft_cluster::{
    install::helm_release,
    kubernetes::{Client, Cluster, Error},
};

/// Between two looks at what is waited for.
const AGAIN: Duration = Duration::from_millis(500);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub what: What,
    pub namespace: String,
    /// How long to wait for what may come true.
    pub wait: Duration,
    /// The version that the control plane should have.
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Before an installation.
    Pre,
    /// After the first half of one.
    Crds,
    ControlPlane,
    /// And the pods of a namespace, or of all.
    DataPlane(Option<String>),
}

/// How a line came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub check: &'static Check,
    /// Why it failed.
    pub error: Option<String>,
    /// What mends it; empty if it did not fail.
    pub remedy: String,
}

impl Line {
    pub fn result(&self) -> Outcome {
        match (&self.error, self.check.severity) {
            (None, _) => Outcome::Success,
            (Some(_), Severity::Warning) => Outcome::Warning,
            (Some(_), Severity::Fatal | Severity::Error) => Outcome::Error,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Success,
    Warning,
    Error,
}

/// What is told while it goes on.
pub enum Told<'a> {
    /// A line is not true yet, because of this.
    Waiting(&'a Check, &'a str),
    Line(&'a Line),
}

/// All lines that were asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report(pub Vec<Line>);

impl Report {
    /// Warnings are no failure.
    pub fn is_success(&self) -> bool {
        self.0.iter().all(|line| line.result() != Outcome::Error)
    }
}

/// Asks everything that `options` name. `client` is why there is none where there is none.
pub async fn run(
    client: Result<Client, Error>,
    options: &Options,
    now: SystemTime,
    tell: &mut (dyn FnMut(Told<'_>) + Send),
) -> Report {
    let mut run = Run::begin(options.wait, tell);
    // How far it came is in the report.
    let _ = all(&mut run, client, options, now).await;
    run.report
}

async fn all(run: &mut Run<'_>, client: Result<Client, Error>, options: &Options, now: SystemTime) -> ControlFlow<()> {
    let namespace = options.namespace.as_str();
    run.installer.namespace = namespace.to_owned();
    let client = run.found(&table::CLIENT, client.map_err(|e| e.to_string()))?;
    let cluster = &Cluster::new(client);
    cluster::fit(run, cluster).await?;
    // Where it cannot be asked no line is true anyway.
    run.installer.release = helm_release(cluster, namespace).await.ok().flatten();
    match &options.what {
        What::Pre => return cluster::open(run, cluster, namespace, now).await,
        What::Crds => return installed::first_half(run, cluster, namespace).await,
        What::ControlPlane | What::DataPlane(_) => {}
    }
    let values = installed::exists(run, cluster, namespace, now).await?;
    run.installer.trust_domain = values.trust_domain().to_owned();
    installed::complete(run, cluster, namespace, &values).await?;
    let at = Looked { cluster, namespace, values: &values, now };
    identity::identity(run, at).await?;
    certificates::webhooks(run, at).await?;
    let of = match &options.what {
        What::DataPlane(of) => Some(of.as_deref()),
        _ => None,
    };
    if let Some(of) = of {
        certificates::trusted(run, cluster, namespace, of).await?;
    }
    installed::version(run, &values, &options.version)?;
    // Whoever has given the proxies a version of their own wants that one.
    let wanted = values.proxy.image.version.or(&options.version);
    proxies::of_the_control_plane(run, cluster, namespace, wanted).await?;
    policies::carried_out(run, cluster).await?;
    if let Some(of) = of {
        proxies::of_pods(run, cluster, namespace, of, wanted).await?;
        marks::of_pods(run, cluster, namespace, of, &values).await?;
        probes::are_let_in(run, cluster, namespace, of).await?;
    }
    installed::several(run, cluster, namespace, &values).await?;
    installed::extensions(run, cluster).await
}

/// A check under way.
pub struct Run<'a> {
    pub report: Report,
    installer: Installer,
    until: Instant,
    tell: &'a mut (dyn FnMut(Told<'_>) + Send),
}

impl<'a> Run<'a> {
    /// What may come true is waited for so long.
    pub fn begin(wait: Duration, tell: &'a mut (dyn FnMut(Told<'_>) + Send)) -> Self {
        Self { report: Report::default(), installer: Installer::default(), until: Instant::now() + wait, tell }
    }

    /// Asks a line, again and again if it may come true.
    pub async fn line<E: Into<Failed>>(
        &mut self,
        check: &'static Check,
        ask: impl AsyncFn() -> Result<(), E>,
    ) -> ControlFlow<()> {
        loop {
            match ask().await.map_err(Into::<Failed>::into) {
                Err(Failed { why, .. }) if check.retried && Instant::now() < self.until => {
                    (self.tell)(Told::Waiting(check, &why));
                    tokio::time::sleep(AGAIN).await;
                }
                answer => return self.noted(check, answer),
            }
        }
    }

    /// Writes a line down, and goes on with what was found.
    pub fn found<T>(&mut self, check: &'static Check, found: Result<T, impl Into<Failed>>) -> ControlFlow<(), T> {
        let (found, error, remedy) = match found {
            Ok(found) => (Some(found), None, String::new()),
            Err(failed) => {
                let Failed { why, remedy } = failed.into();
                let installer = &self.installer;
                let remedy = remedy.map_or_else(|| check.remedy.of(installer), |better| better.of(installer));
                (None, Some(why), remedy)
            }
        };
        let line = Line { check, error, remedy };
        (self.tell)(Told::Line(&line));
        self.report.0.push(line);
        found.map_or(ControlFlow::Break(()), ControlFlow::Continue)
    }

    /// The same of a line that others may follow.
    pub fn noted(&mut self, check: &'static Check, answer: Result<(), impl Into<Failed>>) -> ControlFlow<()> {
        match self.found(check, answer) {
            ControlFlow::Break(()) if check.severity == Severity::Fatal => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The names of what is wrong, if anything is.
///
/// # Errors
/// Something is.
pub fn none<E: From<String>>(wrong: Vec<String>) -> Result<(), E> {
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}
