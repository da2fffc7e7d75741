//! `weft ps`.

use super::meant::{self, Folder, Meant};
use crate::{
    args::{self, Output},
    print,
};
use comfy_table::{Table, presets::NOTHING};
use jiff::{SpanRound, Timestamp, Unit};
use std::process::ExitCode;
use weft_cluster::install::{Running, running};
use weft_local::{
    Client, Error, Status,
    status::{ControlPlane, Egress, Phase, Pod},
};

pub(crate) async fn run(folder: &Folder, args: args::Ps) -> anyhow::Result<ExitCode> {
    match meant::mesh(folder, &args.of).await? {
        Meant::Local(client) => of_the_machine(&client, &args).await,
        Meant::Cluster => {
            let cluster =
                super::cluster(&args.of.to).await.map_err(|error| match Client::new(folder.path.clone()) {
                    // Nothing is named, nothing runs, nothing is configured.
                    Ok(client) if args.of.to.kubeconfig.is_none() && args.of.to.context.is_none() => {
                        let nowhere = Error::NotRunning { state_dir: client.state_dir().to_owned() };
                        anyhow::anyhow!("{nowhere}; {error}")
                    }
                    _ => error,
                })?;
            let pods = running(&cluster, &args.of.to.linkerd_namespace, args.namespace.as_deref()).await?;
            print::line(&match args.output {
                Output::Json => serde_json::to_string_pretty(&pods)?,
                Output::Table => of_a_cluster(&pods, false, Timestamp::now()),
                Output::Wide => of_a_cluster(&pods, true, Timestamp::now()),
            });
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn of_the_machine(client: &Client, args: &args::Ps) -> anyhow::Result<ExitCode> {
    let mut status = client.status().await?;
    if let Some(namespace) = &args.namespace {
        status.workloads.retain(|workload| workload.namespace == *namespace);
    }
    match args.output {
        Output::Json => print::line(&serde_json::to_string_pretty(&status)?),
        Output::Table => print::line(&render(&status, false, Timestamp::now())),
        Output::Wide => {
            print::line(&render(&status, true, Timestamp::now()));
            print::manifests(&[], &status.ignored);
        }
    }
    print::manifests(&status.problems, &[]);
    Ok(ExitCode::SUCCESS)
}

fn of_a_cluster(pods: &[Running], wide: bool, now: Timestamp) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let mut header = vec!["NAMESPACE", "POD", "READY", "STATUS", "RESTARTS", "AGE", "MESHED"];
    if wide {
        header.extend(["IP", "NODE", "PROXY VERSION"]);
    }
    table.set_header(header);
    for pod in pods {
        let mut row = vec![
            pod.namespace.clone(),
            pod.name.clone(),
            yes(pod.ready),
            pod.status.clone(),
            pod.restarts.to_string(),
            pod.started.map_or_else(none, |started| age(started, now)),
            yes(pod.meshed),
        ];
        if wide {
            row.push(pod.ips.join(","));
            row.extend([&pod.node, &pod.version].map(|text| text.clone().unwrap_or_else(none)));
        }
        table.add_row(row);
    }
    table.trim_fmt()
}

fn none() -> String {
    "–".to_owned()
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

fn render(status: &Status, wide: bool, now: Timestamp) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let mut header = vec!["NAMESPACE", "POD", "READY", "STATUS", "RESTARTS", "AGE", "MESHED"];
    if wide {
        header.extend(["IP", "PID", "PROXY PID"]);
    }
    table.set_header(header);
    for workload in &status.workloads {
        for pod in &workload.pods {
            let mut row = vec![
                workload.namespace.clone(),
                pod.name.clone(),
                yes(pod.ready),
                phase(pod),
                format!("{}", pod.restarts.saturating_add(pod.proxy_restarts)),
                age(pod.started, now),
                yes(pod.meshed),
            ];
            if wide {
                let pid = |pid: Option<u32>| pid.map_or_else(none, |p| p.to_string());
                row.push(pod.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
                row.extend([pid(pod.pid), pid(pod.proxy_pid)]);
            }
            table.add_row(row);
        }
    }
    let mut text = table.trim_fmt();
    text.push_str(&control_plane(&status.control_plane, now));
    for published in &status.published {
        text.push_str(&format!(
            "\n{}/{}:{} at http://{}",
            published.namespace, published.service, published.port, published.listen
        ));
        if wide {
            text.push_str(&format!(": {} connections, {} refused", published.connections, published.refused));
        }
        if let Some(problem) = &published.problem {
            text.push_str(&format!(": {problem}"));
        }
    }
    if wide {
        let Egress { enabled, connections, refused, idle } = status.egress;
        let egress = if enabled { "on" } else { "off" };
        text.push_str(&format!("\negress {egress}: {connections} connections, {refused} refused, {idle} ended idle"));
    }
    text
}

fn phase(pod: &Pod) -> String {
    let phase = match pod.phase {
        Phase::Pending => "pending",
        Phase::Running => "running",
        Phase::Backoff => "backoff",
        Phase::Terminating => "terminating",
    };
    match &pod.message {
        Some(message) => format!("{phase}: {message}"),
        None => phase.to_owned(),
    }
}

fn control_plane(control: &ControlPlane, now: Timestamp) -> String {
    let ready = if control.ready { "ready" } else { "not ready" };
    let expiry = |at: Option<Timestamp>| match at {
        Some(at) => format!("{at:.0} (in {})", age(now, at)),
        None => "not known".to_owned(),
    };
    format!(
        "\n\ncontrol plane: {ready}, {} restarts; root expires {}, issuer expires {}",
        control.restarts,
        expiry(control.root_expires),
        expiry(control.issuer_expires)
    )
}

/// The time between two moments in its largest unit: `5s`, `3m`, `2h`, `9d`.
fn age(from: Timestamp, to: Timestamp) -> String {
    let round = SpanRound::new().largest(Unit::Second).smallest(Unit::Second);
    let seconds = (to - from).round(round).map_or(0, |span| span.get_seconds().max(0));
    match seconds {
        s if s < 120 => format!("{s}s"),
        s if s < 2 * 3600 => format!("{}m", s / 60),
        s if s < 48 * 3600 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_local::status::{Published, Workload};

    #[test]
    fn people_read_this() {
        let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        let pod = |name: &str, ready, phase, message: Option<&str>| Pod {
            name: name.into(),
            service_account: "default".into(),
            ips: vec!["10.88.0.9".parse().unwrap()],
            phase,
            ready,
            meshed: true,
            restarts: 1,
            proxy_restarts: 0,
            message: message.map(Into::into),
            started: "2026-11-23T09:55:00Z".parse().unwrap(),
            pid: Some(12),
            proxy_pid: None,
        };
        let status = Status {
            workloads: vec![Workload {
                namespace: "emojivoto".into(),
                name: "web".into(),
                replicas: 2,
                ready: 1,
                pods: vec![
                    pod("web-1", true, Phase::Running, None),
                    pod("web-2", false, Phase::Backoff, Some("exit status 1")),
                ],
            }],
            published: vec![Published {
                listen: "127.0.0.1:8080".parse().unwrap(),
                namespace: "emojivoto".into(),
                service: "web".into(),
                port: 80,
                connections: 12,
                refused: 3,
                problem: None,
            }],
            control_plane: ControlPlane {
                ready: true,
                root_expires: Some("2027-11-23T10:00:00Z".parse().unwrap()),
                ..ControlPlane::default()
            },
            ..Status::default()
        };
        insta::assert_snapshot!("narrow", render(&status, false, now));
        insta::assert_snapshot!("wide", render(&status, true, now));
        let mut missing = status;
        missing.published[0].problem = Some("no such Service".into());
        assert!(render(&missing, true, now).contains(":8080: 12 connections, 3 refused: no such Service"));
    }

    #[test]
    fn pods_of_a_cluster_are_told_alike() {
        let pod = |name: &str, ready, status: &str| Running {
            namespace: "shop".into(),
            name: name.into(),
            ready,
            status: status.into(),
            restarts: 2,
            started: ready.then(|| "2026-11-23T09:55:00Z".parse().unwrap()),
            meshed: true,
            version: ready.then(|| "v1".into()),
            ips: vec!["10.244.0.9".into(), "fd00::9".into()],
            node: Some("n1".into()),
        };
        let pods = [pod("web-1", true, "Running"), pod("web-2", false, "ImagePullBackOff")];
        let now = "2026-11-23T10:00:00Z".parse().unwrap();
        let shown = [of_a_cluster(&pods, false, now), of_a_cluster(&pods, true, now)].join("\n\n");
        insta::assert_snapshot!("cluster", shown);
    }
}
