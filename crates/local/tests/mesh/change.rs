//! Manifests change while the mesh runs.

use crate::{
    failure::{bad, more},
    harness::{LOAD, Mesh, SERVER, Stopwatch, User, deployment, service, users},
};
use std::time::Duration;

fn web(replicas: u32, version: &str) -> String {
    let container = format!(
        "env: [{{name: VERSION, value: {version}}}]\n          readinessProbe: {{httpGet: {{path: /, port: 8000}}, periodSeconds: 1}}"
    );
    deployment("web", replicas, "", "[python3, DIR/server.py]", &container)
        + &service("web", "", "ports: [{port: 80, targetPort: 8000}]")
}

fn load() -> String {
    deployment("load", 1, "", "[python3, DIR/load.py, web]", "")
}

const APP: &str = "manifests/app.yaml";

#[test]
fn a_change_touches_only_what_changed_and_costs_no_request() {
    for user in users() {
        let files = [("server.py", SERVER), ("load.py", LOAD)];
        let mut mesh = Mesh::up(user, &(web(2, "one") + &load()), &files, &[]);
        mesh.ready(&["web", "load"]);
        mesh.said("load", "good");
        let before = mesh.pods("web");
        let client = mesh.pods("load");

        // One more replica: those that run stay.
        let watch = Stopwatch::start(&mesh);
        mesh.write(APP, &(web(3, "one") + &load()));
        mesh.until("the change to apply", |mesh| mesh.pods("web").len() == 3);
        let seen = watch.own(&mesh, &[]);
        assert!(seen < Duration::from_secs(1), "{user:?}: {seen:?}");
        mesh.ready(&["web"]);
        for pod in &before {
            let now = mesh.pods("web").into_iter().find(|p| p.name == pod.name).unwrap();
            assert_eq!((now.pid, now.proxy_pid), (pod.pid, pod.proxy_pid), "{user:?}");
        }

        // Another version: replaced one by one behind the clients' backs.
        mesh.write(APP, &(web(2, "two") + &load()));
        mesh.until("the new version", |mesh| {
            mesh.is_ready("web") && mesh.pods("web").iter().all(|p| before.iter().all(|b| b.name != p.name))
        });
        more(&mut mesh, 50);

        // One less.
        mesh.write(APP, &(web(1, "two") + &load()));
        mesh.until("one replica less", |mesh| mesh.pods("web").len() == 1);
        more(&mut mesh, 50);
        assert_eq!(bad(&mesh), Vec::<String>::new(), "{user:?}");
        assert_eq!(mesh.pods("load")[0].pid, client[0].pid, "{user:?}: who did not change was touched");

        // Gone.
        mesh.write(APP, &load());
        mesh.until("web to be gone", |mesh| mesh.workload("web").is_none());
        assert!(mesh.status().services.is_empty());
    }
}

/// Each edit closes the port and says who may call it all the same, or takes both back, or leads a target elsewhere and says what is there.
#[test]
fn an_edit_counts_whole_and_costs_no_request() {
    const CLOSED: &str = "---
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, port: 8000, accessPolicy: deny}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: web}
  requiredAuthenticationRefs: [{kind: ServiceAccount, name: load}]
";
    // What else stands in the file gives half of it time to be noticed.
    let others = |n: usize| {
        format!(
            "---
apiVersion: policy.linkerd.io/v1beta1
kind: ServerAuthorization
metadata: {{name: other-{n}, namespace: shop}}
spec: {{server: {{name: web}}, client: {{meshTLS: {{serviceAccounts: [{{name: other-{n}}}]}}}}}}
"
        )
    };
    let closed = CLOSED.to_owned() + &(0..300).map(others).collect::<String>();
    // Requests that are under way are as good as those that come.
    let server = SERVER.replace("    def do_GET(self):", "    def do_GET(self):\n        time.sleep(0.02)");
    assert_ne!(server, SERVER);
    let files = [("server.py", format!("import time\n{server}")), ("load.py", LOAD.to_owned())];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let mut mesh = Mesh::up(User::Own, &(web(1, "one") + &load().replace("replicas: 1", "replicas: 4")), &files, &[]);
    mesh.ready(&["web", "load"]);
    let elsewhere = service("other", "", "ports: [{port: 80, targetPort: 8000}]").replace("app: other", "app: web")
        + "---
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: core, kind: Service, name: web, port: 80}]
  rules: [{backendRefs: [{name: other, port: 80}]}]
";
    for edit in 0..16 {
        mesh.write("manifests/edit.yaml", [&closed, "", &elsewhere, ""][edit % 4]);
        more(&mut mesh, 40);
    }
    assert_eq!(bad(&mesh).first(), None);
}

#[test]
fn a_folder_that_is_made_anew_is_followed() {
    let mut mesh = Mesh::up(User::Own, &web(1, "one"), &[("server.py", SERVER)], &[]);
    mesh.ready(&["web"]);
    let before = mesh.pods("web");
    std::fs::rename(mesh.dir.join("manifests"), mesh.dir.join("old")).unwrap();
    mesh.until("the folder to be missed", |mesh| !mesh.status().problems.is_empty());
    std::fs::create_dir(mesh.dir.join("manifests")).unwrap();
    mesh.write(APP, &web(1, "one"));
    mesh.until("the new folder to be read", |mesh| mesh.status().problems.is_empty());
    for replicas in [2, 3] {
        let watch = Stopwatch::start(&mesh);
        mesh.write(APP, &web(replicas, "one"));
        mesh.until("the change to apply", |mesh| mesh.pods("web").len() == replicas as usize);
        let seen = watch.own(&mesh, &[]);
        assert!(seen < Duration::from_secs(1), "{seen:?}");
    }
    assert!(mesh.pods("web").iter().any(|p| p.pid == before[0].pid), "what did not change was touched");
}

#[test]
fn folders_in_a_folder_are_followed() {
    let mut mesh = Mesh::up(User::Own, &load(), &[("server.py", SERVER), ("load.py", LOAD)], &[]);
    let (sub, file) = (mesh.dir.join("manifests/sub/deeper"), "manifests/sub/deeper/web.yaml");
    for round in ["made", "made anew"] {
        std::fs::create_dir_all(&sub).unwrap();
        // It is heard of before there is anything in it.
        std::thread::sleep(Duration::from_secs(1));
        for replicas in [1, 2] {
            let watch = Stopwatch::start(&mesh);
            mesh.write(file, &web(replicas, "one"));
            mesh.until("the change to apply", |mesh| mesh.pods("web").len() == replicas as usize);
            let seen = watch.own(&mesh, &[]);
            assert!(seen < Duration::from_secs(1), "{round}: {seen:?}");
        }
        std::fs::rename(mesh.dir.join("manifests/sub"), mesh.dir.join(round)).unwrap();
        mesh.until("what was in it to be gone", |mesh| mesh.workload("web").is_none());
        assert_eq!(mesh.status().problems, [], "{round}");
    }
}

#[test]
fn a_mistake_is_told_and_changes_nothing() {
    for user in users() {
        let mut mesh = Mesh::up(user, &web(1, "one"), &[("server.py", SERVER)], &[]);
        mesh.ready(&["web"]);
        let before = mesh.pods("web");
        for (mistake, message) in [
            (web(1, "one").replace("replicas: 1", "replicas: 1\n  replicaz: 2"), "replicaz"),
            (
                web(1, "one").replace("image: none", "image: none\n          envFrom: [{configMapRef: {name: x}}]"),
                "envFrom",
            ),
            (
                web(1, "one") + "---\napiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: x}\n",
                "Server",
            ),
            ("{".to_owned(), ""),
        ] {
            mesh.write(APP, &mistake);
            mesh.until(&format!("the problem with {message:?}"), |mesh| {
                let problems = mesh.status().problems;
                problems.iter().any(|p| format!("{p}").contains(message) && p.line > 0 && !p.remedy.is_empty())
            });
            let now = mesh.pods("web");
            assert_eq!((now.len(), now[0].pid), (1, before[0].pid), "{user:?} {message}");
            mesh.write(APP, &web(1, "one"));
            mesh.until("the problem to be gone", |mesh| mesh.status().problems.is_empty());
        }
    }
}

#[test]
fn a_program_is_added_by_the_command_line() {
    for user in users() {
        let mut mesh = Mesh::up(user, &load(), &[("server.py", SERVER), ("load.py", LOAD)], &[]);
        let server = mesh.dir.join("server.py");
        let run = |name: &str| {
            let mut weft = crate::harness::weft(user, &mesh.state);
            weft.args(["run", "-n", "shop", "--name", name, "--port", "8000", "--replicas", "2", "--", "python3"]);
            weft.arg(&server).output().unwrap()
        };
        let done = run("added");
        assert!(done.status.success(), "{user:?} {done:?}");
        let refused = run("load");
        assert!(
            !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("manifest"),
            "{refused:?}"
        );
        let refused = run("../added");
        assert!(!refused.status.success(), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("metadata.name"), "{refused:?}");
        mesh.ready(&["added"]);
        let status = mesh.status();
        assert!(status.services.iter().any(|s| s.name == "added" && s.ports == [8000]), "{:?}", status.services);
    }
}
