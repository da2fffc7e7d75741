//! Whether the mesh of a state folder is in order: `weft check` on one machine.
//!
//! Everything is in the [`Status`] that a mesh tells; each line is judged from one, and what may come true by itself from a new one.

use crate::{
    Client, Status,
    status::{Phase, Pod},
};
use jiff::{Timestamp, Unit};
use std::{ops::ControlFlow, time::Duration};
use weft_control::check::{Report, Run, Told, local, none};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Also the pods: of one namespace, or of all.
    pub pods: Option<Option<String>>,
    /// How long to wait for what may come true.
    pub wait: Duration,
    /// The version that the mesh should have.
    pub version: String,
}

/// Linkerd's; a renewal wants preparation.
const SOON_DAYS: i64 = 60;

/// Asks everything that `options` name.
pub async fn check(
    client: &Client,
    options: &Options,
    now: Timestamp,
    tell: &mut (dyn FnMut(Told<'_>) + Send),
) -> Report {
    let mut run = Run::begin(options.wait, tell);
    // How far it came is in the report.
    let _ = all(&mut run, client, options, now).await;
    run.report
}

async fn all(run: &mut Run<'_>, client: &Client, options: &Options, now: Timestamp) -> ControlFlow<()> {
    let status = async || client.status().await.map_err(|error| error.to_string());
    let first = run.found(&local::ANSWERS, status().await)?;
    run.noted(&local::SAME_VERSION, same(&first.version, &options.version))?;
    run.line(&local::CONTROL_PLANE, async || control_plane(&status().await?)).await?;
    run.noted(&local::ROOT_SOON, lasts(first.control_plane.root_expires, now))?;
    run.noted(&local::ISSUER_NOW, valid(first.control_plane.issuer_expires, now))?;
    run.noted(&local::MANIFESTS, none::<String>(first.problems.iter().map(ToString::to_string).collect()))?;
    run.noted(&local::PUBLISHED, published(&first))?;
    let Some(of) = &options.pods else { return ControlFlow::Continue(()) };
    run.noted(&local::NAMESPACE, namespace(&first, of.as_deref()))?;
    run.line(&local::PODS, async || pods(&status().await?, of.as_deref())).await
}

fn same(found: &str, wanted: &str) -> Result<(), String> {
    match found {
        found if found == wanted => Ok(()),
        "" => Err(format!("the mesh is older than {wanted}, and does not say its version")),
        found => Err(format!("the mesh is {found}, this command {wanted}")),
    }
}

fn control_plane(status: &Status) -> Result<(), String> {
    match &status.control_plane {
        control if control.ready => Ok(()),
        control => Err(format!("it is not ready, and was started again {} times", control.restarts)),
    }
}

fn lasts(expires: Option<Timestamp>, now: Timestamp) -> Result<(), String> {
    let Some(expires) = expires else { return Err("it is not known until when".to_owned()) };
    let left = (expires - now).total(Unit::Hour).map_or(0, |hours| hours.max(0.0) as i64 / 24);
    if left >= SOON_DAYS { Ok(()) } else { Err(format!("it is valid for {left} days more")) }
}

fn valid(expires: Option<Timestamp>, now: Timestamp) -> Result<(), String> {
    match expires {
        Some(expires) if expires > now => Ok(()),
        Some(expires) => Err(format!("it has expired at {expires:.0}")),
        None => Err("it is not known until when".to_owned()),
    }
}

fn published(status: &Status) -> Result<(), String> {
    let wrong = status.published.iter().filter_map(|published| {
        let problem = published.problem.as_ref()?;
        Some(format!("{} for {}/{}: {problem}", published.listen, published.namespace, published.service))
    });
    none(wrong.collect())
}

fn namespace(status: &Status, of: Option<&str>) -> Result<(), String> {
    match of {
        Some(of) if !status.workloads.iter().any(|workload| workload.namespace == of) => {
            Err(format!("there is no workload in the namespace {of}"))
        }
        _ => Ok(()),
    }
}

fn pods(status: &Status, of: Option<&str>) -> Result<(), String> {
    let mut wrong = vec![];
    for workload in status.workloads.iter().filter(|workload| of.is_none_or(|of| of == workload.namespace)) {
        let stays = |pod: &&Pod| pod.phase != Phase::Terminating;
        let there = workload.pods.iter().filter(stays).count();
        if there < workload.replicas as usize {
            let (namespace, name) = (&workload.namespace, &workload.name);
            wrong.push(format!("{namespace}/{name} has {there} of {} pods", workload.replicas));
        }
        for pod in workload.pods.iter().filter(stays).filter(|pod| !pod.ready) {
            let why = pod.message.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            wrong.push(format!("pod {}/{} is not ready{why}", workload.namespace, pod.name));
        }
    }
    none(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{ControlPlane, Published, Workload};

    const NOW: &str = "2026-11-26T08:00:00Z";

    fn at(text: &str) -> Option<Timestamp> {
        Some(text.parse().unwrap())
    }

    fn status() -> Status {
        let pod = Pod {
            name: "web-1".into(),
            service_account: "default".into(),
            ips: vec![],
            phase: Phase::Running,
            ready: true,
            meshed: true,
            restarts: 0,
            proxy_restarts: 0,
            message: None,
            started: Timestamp::UNIX_EPOCH,
            pid: None,
            proxy_pid: None,
        };
        let web = Workload { namespace: "shop".into(), name: "web".into(), replicas: 1, ready: 1, pods: vec![pod] };
        let control = ControlPlane {
            ready: true,
            root_expires: at("2027-11-26T08:00:00Z"),
            issuer_expires: at("2026-12-20T08:00:00Z"),
            ..ControlPlane::default()
        };
        let published = Published {
            listen: "127.0.0.1:8080".parse().unwrap(),
            namespace: "shop".into(),
            service: "web".into(),
            port: 80,
            connections: 0,
            refused: 0,
            problem: None,
        };
        Status {
            version: "v1".into(),
            workloads: vec![web],
            control_plane: control,
            published: vec![published],
            ..Status::default()
        }
    }

    #[test]
    fn every_line_fails_with_its_cause() {
        let now = NOW.parse().unwrap();
        let good = status();
        assert_eq!(same(&good.version, "v1"), Ok(()));
        assert!(same("v0", "v1").unwrap_err().contains("the mesh is v0, this command v1"));
        assert!(same("", "v1").unwrap_err().contains("older than v1"));
        assert_eq!(control_plane(&good), Ok(()));
        let mut bad = good.clone();
        bad.control_plane.ready = false;
        assert!(control_plane(&bad).unwrap_err().contains("not ready"));
        assert_eq!(lasts(good.control_plane.root_expires, now), Ok(()));
        assert_eq!(lasts(at("2027-01-24T08:00:00Z"), now).unwrap_err(), "it is valid for 59 days more");
        assert_eq!(lasts(at("2026-01-24T08:00:00Z"), now).unwrap_err(), "it is valid for 0 days more");
        assert!(lasts(None, now).is_err());
        assert_eq!(valid(good.control_plane.issuer_expires, now), Ok(()));
        assert!(valid(at("2026-11-25T08:00:00Z"), now).unwrap_err().contains("has expired"));
        assert!(valid(None, now).is_err());
        assert_eq!(published(&good), Ok(()));
        bad.published[0].problem = Some("no such Service".into());
        assert_eq!(published(&bad).unwrap_err(), "127.0.0.1:8080 for shop/web: no such Service");
        assert_eq!(namespace(&good, None), Ok(()));
        assert_eq!(namespace(&good, Some("shop")), Ok(()));
        assert!(namespace(&good, Some("nowhere")).unwrap_err().contains("no workload in the namespace nowhere"));
        assert_eq!(pods(&good, None), Ok(()));
        let pod = &mut bad.workloads[0].pods[0];
        (pod.ready, pod.message) = (false, Some("exit status 1".into()));
        assert_eq!(pods(&bad, None).unwrap_err(), "pod shop/web-1 is not ready: exit status 1");
        assert_eq!(pods(&bad, Some("other")), Ok(()));
        bad.workloads[0].pods[0].phase = Phase::Terminating;
        assert_eq!(pods(&bad, None).unwrap_err(), "shop/web has 0 of 1 pods");
    }

    #[tokio::test]
    async fn where_no_mesh_answers_nothing_else_is_asked() {
        let client = Client::new(Some("/nowhere/weft".into())).unwrap();
        let options = Options { pods: Some(None), wait: Duration::ZERO, version: "v1".into() };
        let report = check(&client, &options, NOW.parse().unwrap(), &mut |_| {}).await;
        assert_eq!(report.0.len(), 1);
        assert!(!report.is_success());
        assert!(report.0[0].error.as_ref().unwrap().contains("no mesh runs in /nowhere/weft"));
    }
}
