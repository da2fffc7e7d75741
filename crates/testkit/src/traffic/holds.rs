//! What no table of requests says: shares, bursts, and what proxies count.

use super::{Answer, NAMESPACE, PATIENCE, Run, say};
use serde_json::Value;
use std::time::Instant;

/// How many of these were seen by the workload.
fn by(run: &Run<'_>, ask: &str, workload: &str) -> Result<usize, String> {
    let answers = run.all(&[ask]).remove(0);
    let pods: Option<Vec<String>> = answers.iter().map(Answer::pod).collect();
    let pods = pods.ok_or_else(|| format!("{ask}: somebody was not answered: {answers:?}"))?;
    Ok(pods.iter().filter(|pod| pod.starts_with(workload)).count())
}

pub(super) fn both_are_asked(run: &Run<'_>) -> Result<(), String> {
    let next = by(run, "GET web/ times:100", "next-")?;
    if (1..100).contains(&next) { Ok(()) } else { Err(format!("{next} of 100 go to next")) }
}

/// A share of 500 has a deviation of 6.7 here.
pub(super) fn a_tenth_goes_to_next(run: &Run<'_>) {
    let next = run.found(by(run, "GET web/ times:500", "next-"));
    assert!((20..=80).contains(&next), "{}: {next} of 500 requests go to next", run.stage);
    say(&format!("{}: {next} of 500 requests go to next", run.stage));
}

/// Requests of several connections at the same time, so that no pod is spared for being slower than the other.
fn burst(run: &Run<'_>, ask: &str) -> Vec<Answer> {
    run.all(&[ask; 8]).into_iter().flatten().collect()
}

/// Whether a pod is asked at all.
fn is_asked(run: &Run<'_>, pod: &str) -> bool {
    burst(run, "GET web/ times:10").iter().any(|answer| answer.pod().is_some_and(|name| name == pod))
}

/// One of the two pods behind `web`.
fn one_of_web(run: &Run<'_>) -> Result<String, String> {
    let name = format!("web.{NAMESPACE}.svc.cluster.local:80");
    let rows =
        run.mesh.weft(&["diagnostics", "endpoints", &name, "-o", "json"]).map_err(|error| format!("{error:#}"))?;
    let rows: Value = serde_json::from_str(&rows).map_err(|error| format!("{error}: {rows}"))?;
    let pods: Vec<&str> = rows.as_array().into_iter().flatten().filter_map(|row| row["pod"].as_str()).collect();
    match pods.as_slice() {
        [first, _] => Ok((*first).to_owned()),
        others => Err(format!("behind web are {others:?}")),
    }
}

pub(super) fn who_fails_is_left_out(run: &Run<'_>) -> Result<(), String> {
    let pod = one_of_web(run)?;
    burst(run, &format!("GET web/ echo-status:500 echo-at:{pod} times:5"));
    if is_asked(run, &pod) { Err(format!("{pod} is still asked")) } else { Ok(()) }
}

/// However slow the machine: failures are more than a fifth of the window even beside the load of ten seconds and the last look.
pub(super) fn who_fails_too_often_is_left_out(run: &Run<'_>) -> Result<(), String> {
    let pod = one_of_web(run)?;
    let fails = format!("GET web/ echo-status:500 echo-at:{pod} times:40");
    run.all(&[&fails, &fails, &fails, &fails, "GET web/ times:20"].repeat(2));
    if is_asked(run, &pod) { Err(format!("{pod} is still asked")) } else { Ok(()) }
}

pub(super) fn who_has_failed_is_asked_again(run: &Run<'_>) {
    let (pod, start) = (run.found(one_of_web(run)), Instant::now());
    while !is_asked(run, &pod) {
        assert!(start.elapsed() < PATIENCE, "{}: {pod} is asked no more", run.stage);
    }
}

/// How many of these were answered so.
fn answered(run: &Run<'_>, ask: &str, status: u64) -> usize {
    run.all(&[ask]).iter().flatten().filter(|answer| answer.status() == Some(status)).count()
}

pub(super) fn guests_ask_too_often(run: &Run<'_>) -> Result<(), String> {
    match answered(run, "GET web/ as:guest times:20", 429) {
        0 => Err("a guest may ask as often as it likes".to_owned()),
        _ => Ok(()),
    }
}

pub(super) fn others_do_not_ask_too_often(run: &Run<'_>) {
    assert_eq!(answered(run, "GET web/ times:50", 200), 50, "{}: who may ask more is limited", run.stage);
}

/// A guest alone stays far below the limit.
pub(super) fn guests_get_what_the_load_leaves(run: &Run<'_>) -> Result<(), String> {
    match answered(run, "GET web/ as:guest times:20", 429) {
        0 => Err("whatever others ask for, a guest may ask".to_owned()),
        20 => Err("nothing is left".to_owned()),
        _ => Ok(()),
    }
}

/// What the proxies of `web` have let in by the audit policy alone.
fn audited(run: &Run<'_>) -> Result<f64, String> {
    let words = ["diagnostics", "proxy-metrics", "-n", NAMESPACE, "deploy/web"];
    let metrics = run.mesh.weft(&words).map_err(|error| format!("{error:#}"))?;
    let counted =
        metrics.lines().filter(|line| line.starts_with("request_total{") && line.contains("authz_name=\"audit\""));
    Ok(counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

pub(super) fn who_would_be_denied_is_counted(run: &Run<'_>) -> Result<(), String> {
    let before = audited(run)?;
    let asked = answered(run, "GET web/ as:guest times:20", 200);
    if asked != 20 {
        return Err(format!("{asked} of 20 were let in"));
    }
    let counted = audited(run)? - before;
    if counted >= 20.0 { Ok(()) } else { Err(format!("{counted} were counted")) }
}
