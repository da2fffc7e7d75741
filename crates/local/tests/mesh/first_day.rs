//! What people meet on their first day: odd files, removed folders, mistakes in the first command.

use crate::harness::{Mesh, NOBODY, SERVER, Stopwatch, User, alone, deployment, lives, service, users, weft};
use nix::sys::{signal::Signal, stat::Mode};
use std::{
    fs,
    io::Write,
    os::unix::fs::{chown, symlink},
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};
use weft_local::{Client, client::Source};

/// A folder of its own for whoever starts a mesh; removed with it.
struct Place(PathBuf);

impl Place {
    fn new(user: User, name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("weft-{name}-{}-{user:?}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        if user == User::Ordinary {
            chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Self(dir)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn sleeper(name: &str) -> String {
    deployment(name, 1, "", "[sh, '-c', 'echo here; sleep 1000']", "")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_pipe_among_the_manifests_freezes_nothing_and_links_are_followed() {
    for user in users() {
        let mut mesh = Mesh::up(user, &sleeper("first"), &[], &[]);
        mesh.ready(&["first"]);
        let pipe = mesh.dir.join("manifests/pipe.yaml");
        nix::unistd::mkfifo(&pipe, Mode::from_bits_truncate(0o644)).unwrap();
        let told = |mesh: &Mesh| mesh.status().problems.iter().any(|p| p.message.contains("a named pipe"));
        mesh.until("the pipe to be named", told);

        // What a link leads to changes where nobody watches.
        mesh.write("target.yaml", &sleeper("linked"));
        symlink(mesh.dir.join("target.yaml"), mesh.dir.join("manifests/link.yaml")).unwrap();
        mesh.ready(&["linked"]);
        let watch = Stopwatch::start(&mesh);
        mesh.write("target.yaml", &(sleeper("linked") + &sleeper("later")));
        mesh.until("the change behind the link to apply", |mesh| mesh.workload("later").is_some());
        let seen = watch.own(&mesh, &[]);
        assert!(seen < Duration::from_secs(1), "{user:?}: {seen:?}");
        assert_eq!(mesh.log().matches("a named pipe").count(), 1, "{user:?}: said once\n{}", mesh.log());
        fs::remove_file(&pipe).unwrap();
        mesh.until("the problem to be gone", |mesh| !told(mesh));
        mesh.signal(Signal::SIGINT);
        assert!(mesh.ended().0.success(), "{user:?}");
    }
}

#[test]
fn a_mesh_whose_state_folder_is_removed_ends() {
    for user in users() {
        let mut mesh = Mesh::up(user, &sleeper("first"), &[], &[]);
        mesh.ready(&["first"]);
        let processes = mesh.processes();
        fs::remove_dir_all(&mesh.state).unwrap();
        // Another one in the same folder, at once: it is not hurt by the end of the first.
        let mut again = weft(user, &mesh.state);
        let mut again = again.args(["up", "-f"]).arg(mesh.dir.join("manifests")).current_dir("/").spawn().unwrap();
        let (status, took) = mesh.ended();
        assert!(!status.success() && mesh.log().contains("was removed"), "{user:?} {status} {}", mesh.log());
        assert!(took < Duration::from_secs(5), "{user:?}: {took:?}");
        assert!(processes.iter().all(|p| !lives(*p)), "{user:?}");
        let client = Client::new(Some(mesh.state.clone())).unwrap();
        let start = std::time::Instant::now();
        while !mesh.wait(client.status()).is_ok_and(|s| s.workloads.iter().all(|w| w.ready == 1)) {
            assert!(start.elapsed() < crate::harness::PATIENCE, "{user:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(weft(user, &mesh.state).arg("down").status().unwrap().success(), "{user:?}");
        assert!(again.wait().unwrap().success(), "{user:?}");
    }
}

/// Runs it with this on its standard input.
fn fed(command: &mut std::process::Command, text: &str) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.current_dir("/").spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_mesh_with_nothing_to_run_does_not_start() {
    let _alone = alone();
    for user in users() {
        let place = Place::new(user, "nothing");
        let (state, bad) = (place.0.join("state"), place.0.join("bad.yaml"));
        fs::write(&bad, "kind: Wrong\napiVersion: v1\n").unwrap();
        for detach in [&[][..], &["-d"]] {
            for (file, input, part) in [
                ("/no/such/file.yaml", "", "No such file"),
                (bad.to_str().unwrap(), "", "unknown kind Wrong"),
                ("-", "kind: Wrong\napiVersion: v1\n", "standard input:1: kind: unknown kind Wrong"),
                ("-", "", "there is no manifest in standard input"),
                ("/dev/stdin", "kind: [", "/dev/stdin:1"),
                ("/dev/zero", "", "more than"),
            ] {
                let mut command = weft(user, &state);
                let output = fed(command.arg("up").args(detach).args(["-f", file]), input);
                assert_eq!(output.status.code(), Some(1), "{user:?} {file} {output:?}");
                assert!(errors(&output).contains(part), "{user:?} {file}: {}", errors(&output));
                assert!(!errors(&output).contains(":0:"), "{user:?} {file}: {}", errors(&output));
                let left = weft(user, &state).arg("ps").output().unwrap();
                assert!(errors(&left).contains("no mesh runs"), "{user:?} {file} {left:?}");
            }
        }
    }
}

/// While a mesh runs, a mistake leaves in force what was before. When it starts nothing was: it would let through what the
/// manifest keeps from going.
#[test]
fn a_mesh_does_not_start_without_what_says_who_may_call_whom() {
    const CLOSED: &str = "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: first, namespace: shop}
spec:
  podSelector: {matchLabels: {app: first}}
  port: 80
";
    let _alone = alone();
    for user in users() {
        let place = Place::new(user, "closed");
        let (state, manifests) = (place.0.join("state"), place.0.join("manifests"));
        fs::create_dir(&manifests).unwrap();
        fs::write(manifests.join("app.yaml"), sleeper("first")).unwrap();
        let policy = manifests.join("policy.yaml");
        let up = |words: &[&str]| fed(weft(user, &state).arg("up").args(words).arg("-f").arg(&manifests), "");
        let runs = || weft(user, &state).arg("ps").output().unwrap().status.success();
        let servers = || {
            let output = weft(user, &state).args(["get", "servers", "-n", "shop"]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };

        fs::write(&policy, CLOSED).unwrap();
        let output = up(&["-d"]);
        assert!(output.status.success(), "{user:?} {output:?}");
        // As editors do it: never half a file.
        fs::write(place.0.join("new"), CLOSED.replace("port: 80", "port: 0")).unwrap();
        fs::rename(place.0.join("new"), &policy).unwrap();
        let client = Client::new(Some(state.clone())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let start = std::time::Instant::now();
        while runtime.block_on(client.status()).unwrap().problems.is_empty() {
            assert!(start.elapsed() < crate::harness::PATIENCE, "{user:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(servers().contains("server/first"), "{user:?}: what ran before goes on: {}", servers());
        assert!(weft(user, &state).arg("down").status().unwrap().success(), "{user:?}");

        let no_port =
            ("port: 80", "port: 0", "policy.yaml:6: Server shop/first: spec.port: it is no port; use 1 to 65535");
        let newer =
            ("v1beta3", "v1beta9", "policy.yaml:1: apiVersion: there is no Server in policy.linkerd.io/v1beta9; use");
        let no_yaml = ("shop}", "shop", "policy.yaml:");
        for (right, wrong, told) in [no_port, newer, no_yaml] {
            fs::write(&policy, CLOSED.replace(right, wrong)).unwrap();
            for words in [&[][..], &["-d"]] {
                let output = up(words);
                assert_eq!(output.status.code(), Some(1), "{user:?} {wrong} {output:?}");
                let text = errors(&output);
                assert!(text.contains("who may call whom") && text.contains(told), "{user:?} {wrong}: {text}");
                assert!(!runs(), "{user:?} {wrong}");
            }
        }

        let egress = "apiVersion: policy.linkerd.io/v1alpha1
kind: EgressNetwork
metadata: {name: out, namespace: shop}
spec: {trafficPolicy: Block}
";
        fs::write(&policy, egress).unwrap();
        let output = up(&["-d"]);
        let text = errors(&output);
        let told = "policy.yaml:4: EgressNetwork shop/out: spec.trafficPolicy: ";
        assert!(text.contains("what may leave") && text.contains(told) && !runs(), "{user:?} {output:?}");

        // What says nothing of that is told, and no more.
        fs::write(&policy, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n").unwrap();
        let output = up(&["-d"]);
        assert!(output.status.success() && errors(&output).contains("ConfigMap"), "{user:?} {output:?}");
        assert!(weft(user, &state).arg("down").status().unwrap().success(), "{user:?}");
    }
}

#[test]
fn a_detached_mesh_runs_when_the_command_returns_and_leaves_its_logs() {
    let _alone = alone();
    for user in users() {
        let place = Place::new(user, "detached");
        let state = place.0.join("state");
        fs::write(place.0.join("server.py"), SERVER).unwrap();
        let server = place.0.join("server.py").display().to_string();
        let probe = "readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1}";
        let manifests = deployment("web", 2, "", &format!("[python3, {server}]"), probe)
            + &service("web", "", "ports: [{port: 80, targetPort: 8000}]")
            + &sleeper("writer")
            + &deployment("broken", 1, "", "[/no/such/program]", "");
        let mut command = weft(user, &state);
        let output = fed(command.args(["up", "-d", "-f", "-", "--publish", "0:shop/wep:80"]), &manifests);
        assert!(output.status.success(), "{user:?} {output:?}");
        let text = errors(&output);
        assert!(text.contains("no such Service") && text.contains("shop/broken-"), "{user:?} {text}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let status = runtime.block_on(Client::new(Some(state.clone())).unwrap().status()).unwrap();
        for workload in status.workloads.iter().filter(|w| w.name != "broken") {
            assert_eq!(workload.ready, workload.replicas, "{user:?} {workload:?}");
        }
        let weft = |arguments: &[&str]| weft(user, &state).args(arguments).output().unwrap();
        let wide = weft(&["ps", "-o", "wide"]);
        assert!(String::from_utf8_lossy(&wide.stdout).contains("no such Service"), "{user:?} {wide:?}");

        let refused = weft(&["run", "--name", "job", "--", "no-such-program"]);
        assert_eq!(refused.status.code(), Some(1), "{user:?} {refused:?}");
        assert!(errors(&refused).contains("there is no program \"no-such-program\""), "{user:?} {refused:?}");
        let refused = weft(&["run", "--name", "a.b", "--port", "80", "--", "sleep", "1000"]);
        assert!(!refused.status.success() && errors(&refused).contains("--name"), "{user:?} {refused:?}");

        assert!(weft(&["down"]).status.success(), "{user:?}");
        let logs = weft(&["logs", "writer"]);
        assert!(logs.status.success(), "{user:?} {logs:?}");
        assert!(String::from_utf8_lossy(&logs.stdout).contains(" here"), "{user:?} {logs:?}");
        assert!(errors(&logs).contains("no mesh runs"), "{user:?} {logs:?}");
        let nobody = weft(&["logs", "nobody"]);
        assert!(!nobody.status.success() && errors(&nobody).contains("shop/writer"), "{user:?} {nobody:?}");
    }
}

/// Asks where it may not, again and again.
const REFUSED: &str = r#"
import http.client, os, time
while True:
    connection = http.client.HTTPConnection("web", timeout=5)
    connection.request("GET", "/")
    print("ANSWER", connection.getresponse().status, flush=True)
    connection.close()
    time.sleep(0.05)
"#;

#[test]
fn a_refusal_of_a_policy_stands_in_the_log_of_the_server_and_not_each_time() {
    let probe = "readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1}";
    let deny = "config.linkerd.io/default-inbound-policy: deny";
    let manifests = deployment("web", 1, deny, "[python3, DIR/server.py]", probe)
        + &service("web", "", "ports: [{port: 80, targetPort: 8000}]")
        + &deployment("client", 1, "", "[python3, DIR/refused.py]", "");
    let mut mesh = Mesh::up(User::Own, &manifests, &[("server.py", SERVER), ("refused.py", REFUSED)], &[]);
    mesh.until("requests to be refused", |mesh| {
        mesh.output("client").iter().filter(|l| *l == "ANSWER 403").count() > 40
    });
    let told: Vec<String> = mesh.lines("web", Source::Proxy).into_iter().map(|l| l.text).collect();
    let told: Vec<&String> = told.iter().filter(|l| l.contains("UNAUTHORIZED")).collect();
    let refused = mesh.output("client").iter().filter(|l| *l == "ANSWER 403").count();
    assert!(!told.is_empty() && told.len() * 4 < refused, "{refused} refused: {told:#?}");
    assert!(told.iter().all(|l| l.contains("INFO") && l.contains("left_out=")), "{told:#?}");
}
