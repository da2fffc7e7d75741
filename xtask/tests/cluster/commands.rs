//! What the commands say of who may call whom, beside what proxies do: one answer in both places.

use crate::life::weft;
use std::path::PathBuf;
use weft_testkit::kubernetes::Cluster;

/// What a command says, and its status.
fn said(cluster: &Cluster, words: &[&str]) -> (Option<i32>, String) {
    let output = weft(cluster, words);
    (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
}

/// While the bot's requests are refused, for want of an object that lets it in.
pub(crate) fn while_nobody_may(cluster: &Cluster) {
    let (code, told) =
        said(cluster, &["policy", "can", "-n", "guarded", "deploy/bot", "svc/web:80", "GET", "/api/list"]);
    assert!(code == Some(1) && told.starts_with("denied\n") && told.contains("server   Server/web"), "{told}");
    assert_eq!(expected(cluster, "deny", "Server/web").0, Some(0));
    let (code, told) = expected(cluster, "allow", "AuthorizationPolicy/web");
    assert!(code == Some(1) && told.contains("1 failed"), "{told}");
}

/// While they are answered, by the AuthorizationPolicy `web`, and nobody else's are.
pub(crate) fn while_the_bot_may(cluster: &Cluster) {
    let can = ["policy", "can", "-n", "guarded"];
    let (code, told) = said(cluster, &[&can[..], &["deploy/bot", "svc/web:80", "GET", "/api/list"]].concat());
    assert!(
        code == Some(0) && told.starts_with("allowed\n") && told.contains("by       AuthorizationPolicy/web"),
        "{told}"
    );
    let (code, told) = said(cluster, &[&can[..], &["192.0.2.9", "svc/web:80", "GET", "/api/list"]].concat());
    assert!(code == Some(1) && told.contains("nearest  AuthorizationPolicy/web"), "{told}");
    let (code, told) = expected(cluster, "allow", "AuthorizationPolicy/web");
    assert!(code == Some(0) && told.contains("1 as expected"), "{told}");

    let (code, told) = said(cluster, &["authz", "-n", "guarded", "deploy/web"]);
    let rows: Vec<Vec<&str>> = told.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((code, rows), (Some(0), vec![vec!["*", "web", "web"]]), "{told}");

    // What the control plane tells the proxies of both sides.
    let pod = cluster.ask("--namespace guarded get pods --selector app=web --output name").unwrap();
    let pod = pod.lines().next().unwrap();
    let (code, told) = said(cluster, &["diagnostics", "policy", "-n", "guarded", pod, "8080"]);
    assert!(code == Some(0) && told.contains("default.guarded.serviceaccount.identity.linkerd"), "{told}");
    let (code, told) = said(cluster, &["diagnostics", "policy", "-n", "guarded", "svc/web", "80"]);
    assert!(code == Some(0) && told.contains("web.guarded.svc.cluster.local:80"), "{told}");
    let (code, told) = said(cluster, &["diagnostics", "profile", "web.guarded.svc.cluster.local:80"]);
    assert!(code == Some(0) && told.contains("web.guarded.svc.cluster.local"), "{told}");
}

/// `weft policy test` of one case.
fn expected(cluster: &Cluster, expect: &str, by: &str) -> (Option<i32>, String) {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("guarded.yaml");
    let case = format!("client: deploy/bot, target: 'svc/web:80', request: GET /api/list, expect: {expect}, by: {by}");
    std::fs::write(&file, format!("namespace: guarded\ncases:\n- {{ name: the bot, {case} }}\n")).unwrap();
    said(cluster, &["policy", "test", "-f", file.to_str().unwrap()])
}
