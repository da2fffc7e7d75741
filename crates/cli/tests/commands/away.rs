//! Clusters that cannot be asked: who was asked, why there is no answer, and what to do, from every command; and nothing else.

use crate::{
    lab::{Home, Told},
    prune::installed,
};
use serde_json::json;
use std::{collections::BTreeSet, fs, net::SocketAddr};
use tokio::{net::TcpSocket, runtime::Runtime};
use weft_testkit::api_server::{Failure, FakeApi};

/// Whatever asks a cluster.
const COMMANDS: [&[&str]; 19] = [
    &["check"],
    &["check", "--pre"],
    &["check", "--crds"],
    &["check", "--proxy", "-o", "json"],
    &["install"],
    &["install", "--crds"],
    &["upgrade"],
    &["upgrade", "--crds"],
    &["prune"],
    &["uninstall"],
    &["profile", "web", "--template"],
    &["identity", "web-1"],
    &["ps"],
    &["authz", "deploy/web"],
    &["diagnostics", "endpoints", "web.shop.svc.cluster.local:80"],
    &["diagnostics", "policy", "svc/web", "80"],
    &["diagnostics", "controller-metrics"],
    &["diagnostics", "proxy-metrics", "deploy/web"],
    &["policy", "can", "web", "svc/web:80"],
];

/// Asks by every command; whatever could be applied is printed by none.
fn every_command_says(home: &Home, flags: &[&str], wanted: &[&str]) {
    for words in COMMANDS {
        let told = home.runs(&[words, flags].concat());
        let Told { code, out, err, .. } = &told;
        // Of which 1 says "denied".
        let expected = if words[0] == "policy" { 2 } else { 1 };
        assert_eq!(*code, Some(expected), "{words:?}: {told:?}");
        let is_report = words[0] == "check";
        assert!(is_report || out.is_empty(), "{words:?}: {told:?}");
        let said = if is_report { out } else { err };
        for part in wanted {
            assert!(said.contains(part), "{words:?}: {part:?}: {told:?}");
        }
        assert!(!said.contains("panicked"), "{words:?}: {told:?}");
    }
}

fn kubeconfig(server: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Config, current-context: far, clusters: [{{name: c, cluster: {{server: '{server}'}}}}], \
         users: [{{name: u, user: {{token: t}}}}], contexts: [{{name: far, context: {{cluster: c, user: u}}}}]}}"
    )
}

#[test]
fn an_api_server_that_is_away_is_named_with_its_address() {
    let runtime = Runtime::new().unwrap();
    let _running = runtime.enter();
    // A port that nobody listens on, nor can.
    let place = TcpSocket::new_v4().unwrap();
    place.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = format!("https://{}", place.local_addr().unwrap());
    let home = Home::new();
    fs::write(home.0.join("far"), kubeconfig(&url)).unwrap();
    let away = format!("the API server {url} does not answer: ");
    let wanted = [away.as_str(), "Connection refused", "kubectl cluster-info", "--kubeconfig FILE"];
    every_command_says(&home, &["--kubeconfig", "far"], &wanted);
}

#[test]
fn a_kubeconfig_that_says_nothing_of_a_cluster_is_named() {
    let home = Home::new();
    fs::write(home.0.join("other"), "clusters: 5\n").unwrap();
    let to_another = "name another by --kubeconfig FILE";
    every_command_says(&home, &["--kubeconfig", "nowhere"], &["nowhere: ", "No such file", to_another]);
    for (file, why) in [("other", "line 1: expected sequence start"), (".", "directory")] {
        let told = home.runs(&["install", "--kubeconfig", file]);
        let is_named = told.err.contains(&format!("{file}: ")) && told.err.contains(why);
        assert!(!told.ok && told.out.is_empty() && is_named && told.err.contains(to_another), "{told:?}");
    }
    fs::write(home.0.join("far"), kubeconfig("https://127.0.0.1:1")).unwrap();
    let told = home.runs(&["install", "--kubeconfig", "far", "--context", "near"]);
    assert!(
        told.err.contains("far: ") && told.err.contains("near") && told.err.contains("by --context NAME"),
        "{told:?}"
    );
}

/// As kubectl takes them: those that are there.
#[test]
fn of_several_kubeconfigs_some_may_be_missing() {
    let runtime = Runtime::new().unwrap();
    let api = runtime.block_on(FakeApi::start()).unwrap();
    let home = Home::new();
    let file = home.0.join("good");
    fs::write(&file, api.kubeconfig()).unwrap();
    installed(&api, env!("CARGO_PKG_VERSION"));
    let prunes = |listed: &str| -> Told { home.weft(&["prune"]).env("KUBECONFIG", listed).output().unwrap().into() };
    let told = prunes(&format!("/nowhere/at/all::{}", file.display()));
    assert!(told.ok && told.out.contains("left-over"), "{told:?}");
    let told = prunes("/nowhere/at/all:/nor/here");
    assert!(!told.ok && told.err.contains("/nowhere/at/all"), "{told:?}");
}

#[test]
fn what_an_account_may_not_is_told_with_who_could_say_more() {
    let runtime = Runtime::new().unwrap();
    let api = runtime.block_on(FakeApi::start()).unwrap();
    let home = Home::new();
    home.configure(&api);
    for (status, says) in [(403, "kubectl auth can-i --list"), (401, "it does not know who asks")] {
        api.fail(Some(Failure::Status(status)));
        every_command_says(&home, &["--context", "fake"], &[&format!("({status})"), says]);
    }
}

/// The plural of what a request is about; discovery and reviews, which everybody may ask for, have none.
fn plural(path: &str) -> Option<&str> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let of = match parts.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => return None,
    };
    let plural = match of {
        ["namespaces", _, plural, ..] | [plural, ..] => plural,
        [] => return None,
    };
    (*plural != "selfsubjectaccessreviews").then_some(plural)
}

/// A cluster with a mesh in it, or none, in which one request is not allowed.
fn one_that_refuses(runtime: &Runtime, is_installed: bool, path: Option<&str>) -> FakeApi {
    let api = runtime.block_on(FakeApi::start()).unwrap();
    if is_installed {
        installed(&api, env!("CARGO_PKG_VERSION"));
        let metadata = |name: &str| {
            let labels = json!({"app": "web", "linkerd.io/control-plane-ns": "linkerd"});
            json!({"name": name, "namespace": "default", "labels": labels})
        };
        let spec = json!({"clusterIP": "10.96.0.9", "selector": {"app": "web"}, "ports": [{"port": 80}]});
        api.put(json!({"kind": "Service", "metadata": metadata("web"), "spec": spec}));
        let (spec, status) =
            (json!({"containers": [{"name": "linkerd-proxy"}]}), json!({"phase": "Running", "podIP": "10.1.0.1"}));
        api.put(json!({"kind": "Pod", "metadata": metadata("web-1"), "spec": spec, "status": status}));
    }
    if let Some(path) = path {
        api.fail(Some(Failure::At(path.to_owned().leak(), 403)));
        api.forbid(plural(path).unwrap());
    }
    api
}

/// Each of the rights that a command makes use of, when all the others are there.
#[test]
fn a_single_right_that_is_missing_is_told() {
    let runtime = Runtime::new().unwrap();
    let mut wrong = vec![];
    for (is_installed, words) in [false, true].into_iter().flat_map(|is| COMMANDS.map(|words| (is, words))) {
        let is_report = words[0] == "check";
        let words = [words, &["--context", "fake"], if is_report { &["--wait=0s"][..] } else { &[] }].concat();
        let home = Home::new();
        let all = one_that_refuses(&runtime, is_installed, None);
        home.configure(&all);
        let whole = home.runs(&words);
        let asked: BTreeSet<String> = all.requests().into_iter().map(|asked| asked.path).collect();
        for path in asked.iter().filter(|path| plural(path).is_some()) {
            let api = one_that_refuses(&runtime, is_installed, Some(path));
            home.configure(&api);
            let told = home.runs(&words);
            let said = format!("{}{}", told.out, told.err);
            let is_told = said.contains("(403)") || said.contains("not allowed");
            if said.contains("panicked") || told.ok || !is_told || !(is_report || told.out.is_empty()) {
                wrong.push(format!(
                    "{words:?}, installed: {is_installed}, without {path}: {told:?}; with it: {whole:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n\n"));
}

/// Who can say a part says that, and what is missing beside it.
#[test]
fn a_part_that_cannot_be_read_is_told_beside_the_others() {
    let runtime = Runtime::new().unwrap();
    let home = Home::new();
    let own = concat!("Client version: ", env!("CARGO_PKG_VERSION"), "\n");
    let asks = |words: &[&str], without: Option<&str>| {
        let api = one_that_refuses(&runtime, true, without);
        let meta = |namespace: &str| json!({"name": "web-2", "namespace": namespace});
        for namespace in ["default", "linkerd"] {
            let containers =
                json!([{"name": "linkerd-proxy", "ports": [{"name": "linkerd-admin", "containerPort": 4191}]}]);
            api.put(json!({"kind": "Pod", "metadata": meta(namespace), "spec": {"containers": containers},
                "status": {"phase": "Running", "podIP": "10.1.0.2"}}));
        }
        // A job's, which has ended, has no metrics.
        api.put(
            json!({"kind": "Pod", "metadata": {"name": "over", "namespace": "linkerd"}, "spec": {"containers": []},
            "status": {"phase": "Succeeded"}}),
        );
        home.configure(&api);
        let told = home.runs(&[words, &["--context", "fake"]].concat());
        (told, api.requests().len())
    };
    let config = "/api/v1/namespaces/linkerd/configmaps/linkerd-config";
    let forward = |of: &str| format!("/api/v1/namespaces/{of}/pods/web-2/portforward");
    let (in_default, in_linkerd) = (forward("default"), forward("linkerd"));
    for (words, without, out, err) in [
        (&["version"][..], config, "Server version: unavailable\n", "get configmaps in the namespace linkerd"),
        (
            &["version", "--proxy"][..],
            config,
            "Server version: unavailable\n",
            "get configmaps in the namespace linkerd",
        ),
        (&["version", "--proxy"][..], "/api/v1/pods", "Proxy versions: unavailable\n", "list pods in all namespaces"),
        (
            &["version", "--proxy", "-n", "default"][..],
            "/api/v1/namespaces/default/pods",
            "Proxy versions: unavailable\n",
            "list pods in the namespace default",
        ),
        (
            &["diagnostics", "proxy-metrics", "po"][..],
            in_default.as_str(),
            "# POD web-2 (2 of 2)\n# ERROR ",
            "weft: pod default/web-2: its metrics, by get pods/portforward in the namespace default: API server: ",
        ),
        (
            &["diagnostics", "controller-metrics"][..],
            in_linkerd.as_str(),
            "# POD web-2 (1 of 1)\n# ERROR ",
            "weft: pod linkerd/web-2, container linkerd-proxy: its metrics, by get pods/portforward in the namespace linkerd: API",
        ),
    ] {
        let (told, _) = asks(words, Some(without));
        let said = told.out.contains(out) && (words[0] != "version" || told.out.contains(own));
        assert!(said && told.err.contains(err) && told.err.contains("(403)"), "{words:?}, without {without}: {told:?}");
        assert!(told.err.contains("kubectl auth can-i --list"), "{words:?}, without {without}: {told:?}");
        assert_eq!(told.code, Some(1), "{words:?}, without {without}: {told:?}");
    }
    // Nor is it success where a pod has no proxy, or its metrics are not to be reached.
    for words in [&["diagnostics", "proxy-metrics", "po/web-1"][..], &["diagnostics", "controller-metrics"]] {
        let (told, _) = asks(words, None);
        assert!(
            told.code == Some(1) && told.out.contains("# ERROR ") && told.err.starts_with("weft: pod "),
            "{told:?}"
        );
    }
    // A mesh that is not there has no version, and nobody is asked for the command's own.
    let (told, _) = asks(&["version", "-L", "nowhere"], None);
    assert!(told.ok && told.err.is_empty() && told.out.contains("Server version: unavailable\n"), "{told:?}");
    let (told, requests) = asks(&["version", "--client"], Some(config));
    assert!(told.ok && told.err.is_empty() && told.out == own && requests == 0, "{told:?}");
}
