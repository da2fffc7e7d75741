//! `weft policy can`, `weft policy test` and `weft authz`.

use crate::lab::{Home, Told, fed};
use serde_json::{Value, json};
use std::fs;
use tokio::runtime::Runtime;
use weft_testkit::api_server::FakeApi;

const SHOP: &str = include_str!("../../../cluster/src/can/testdata/shop.yaml");

fn home() -> Home {
    let home = Home::new();
    fs::write(home.0.join("shop.yaml"), SHOP).unwrap();
    home
}

#[test]
fn the_status_says_allowed_denied_or_unknown() {
    let home = home();
    let can = |words: &[&str]| home.runs(&[&["policy", "can", "-n", "shop", "-f", "shop.yaml"], words].concat());
    for (words, code, says) in [
        (vec!["deploy/bot", "svc/web:80"], 0, "allowed"),
        (vec!["deploy/bot", "svc/web:80", "POST", "/vote"], 0, "request  POST /vote"),
        (vec!["deploy/plain", "svc/web:80"], 1, "denied"),
        (vec!["deploy/plain", "svc/web:80", "--address", "192.0.2.7"], 0, "by       AuthorizationPolicy/office"),
        (vec!["deploy/plain", "svc/db:5432"], 2, "say which it has (--address)"),
        (vec!["deploy/bot", "other/deploy/web:80", "--default-inbound-policy", "deny"], 1, "server   default:deny"),
        (vec!["192.0.2.9", "svc/web:80", "GET", "/ready", "-H", "a: b", "--host", "web"], 0, "route    default:probe"),
    ] {
        let told = can(&words);
        assert!(told.code == Some(code) && told.out.contains(says) && told.err.is_empty(), "{words:?}: {told:?}");
    }
    for (words, says) in [
        (vec!["deploy/no", "svc/web:80"], "no pod of deployment/no in the namespace shop runs"),
        (vec!["web", "svc/web:80"], "\"web\" is no client; use "),
        (vec!["deploy/bot", "svc/web:80", "GET"], "<PATH>"),
        (vec!["deploy/bot", "svc/web:80", "-H", "x"], "it has the form NAME:VALUE"),
        (vec!["deploy/bot"], "<TARGET:PORT>"),
        (vec!["deploy/bot", "svc/web:80", "--local"], "cannot be used with"),
        (vec!["deploy/bot", "svc/web:80", "-f", "nowhere.yaml"], "nowhere.yaml: "),
    ] {
        let told = can(&words);
        assert!(told.code == Some(2) && told.out.is_empty() && told.err.contains(says), "{words:?}: {told:?}");
    }
    // Help is no failure.
    assert_eq!(home.runs(&["policy", "can", "--help"]).code, Some(0));
    // A mistake in a manifest may be what decides, and a field that a cluster drops is one.
    for (version, policy) in [("v1beta3", "open"), ("v1beta1", "all-unauthenticated")] {
        let server = format!(
            "apiVersion: policy.linkerd.io/{version}\nkind: Server\nmetadata: {{name: a}}\nspec: {{podSelector: {{}}, port: 80, accessPolicy: {policy}}}\n"
        );
        let told = fed(home.weft(&["policy", "can", "-f", "-", "sa/a", "deploy/b:80"]), server.as_bytes());
        let says = told.err.contains("accessPolicy") && told.err.contains("nothing can be told of them");
        assert!(told.code == Some(2) && told.out.is_empty() && says, "{told:?}");
    }
    // A folder is all that is below it.
    fs::create_dir_all(home.0.join("shop/ports")).unwrap();
    fs::write(home.0.join("shop/shop.yaml"), SHOP).unwrap();
    fs::write(
        home.0.join("shop/ports/bare.yaml"),
        "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: bare, namespace: other}\nspec: {podSelector: {}, port: 80}\n",
    )
    .unwrap();
    let told = home.runs(&["policy", "can", "-n", "shop", "-f", "shop", "deploy/bot", "other/deploy/web:80"]);
    assert!(told.code == Some(1) && told.out.contains("server   Server/bare"), "{told:?}");
    let told = can(&["deploy/plain", "svc/web:80", "-o", "json"]);
    let answer: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(answer["verdict"], "denied");
    assert_eq!(answer["answers"][0]["nearest"]["missing"], json!(["network"]));
    // An answer that nobody could be told is no answer.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let allowed = ["policy", "can", "-n", "shop", "-f", "shop.yaml", "deploy/bot", "svc/web:80"];
    let told: Told = home.weft(&allowed).stdout(full).output().unwrap().into();
    assert!(told.code == Some(2) && told.err.contains("standard output takes no more"), "{told:?}");
    // Nothing runs, nothing is configured.
    let told = home.runs(&["policy", "can", "deploy/bot", "svc/web:80"]);
    assert!(told.code == Some(2) && told.err.contains("no cluster is configured"), "{told:?}");
}

const CASES: &str = "manifests: [shop.yaml]
namespace: shop
cases:
- {name: bots may, client: deploy/bot, target: 'svc/web:80', expect: allow, by: AuthorizationPolicy/bots}
- {name: others may not, client: deploy/plain, target: 'svc/web:80', expect: deny}
";

#[test]
fn cases_are_made_for_pipelines() {
    let home = home();
    let test = |words: &[&str]| home.runs(&[&["policy", "test"], words].concat());
    let write = |name: &str, text: &str| fs::write(home.0.join(name), text).unwrap();
    write("good.yaml", CASES);
    write("bad.yaml", &CASES.replace("expect: deny", "expect: allow"));
    write("unknown.yaml", &CASES.replace("deploy/plain", "deploy/no"));
    write("wrong.yaml", &CASES.replace("expect: deny", "expect: maybe"));
    write("own.yaml", &CASES.replace("manifests: [shop.yaml]\n", ""));
    let told = test(&["-f", "good.yaml"]);
    assert!(told.code == Some(0) && told.out == "2 cases: 2 as expected, 0 failed, 0 unknown\n", "{told:?}");
    let told = test(&["-f", "own.yaml", "-m", "shop.yaml"]);
    assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{told:?}");
    let told = test(&["-f", "bad.yaml", "--junit", "junit.xml"]);
    let says = "bad.yaml:5: failed: others may not\n  allowed is expected; denied from shop/plain to shop/web by Server/web; nearest is \
                AuthorizationPolicy/office: it lets in 192.0.2.0/24 except 192.0.2.8/30, and not any address of the cluster's networks";
    assert!(told.code == Some(1) && told.out.contains(says) && told.out.contains("1 failed"), "{told:?}");
    let junit = fs::read_to_string(home.0.join("junit.xml")).unwrap();
    assert!(junit.contains("tests=\"2\" failures=\"1\" errors=\"0\""), "{junit}");
    assert_eq!(test(&["-f", "bad.yaml", "-o", "junit"]).out, junit);
    let told = test(&["-f", "good.yaml", "-f", "unknown.yaml", "-o", "json"]);
    let report: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!((told.code, &report["cases"], &report["unknown"]), (Some(2), &json!(4), &json!(1)), "{told:?}");
    assert_eq!(report["suites"][1]["cases"][1]["line"], 5);
    // What is wrong is told with its line, and the other files are asked all the same.
    let told = test(&["-f", "wrong.yaml", "-f", "bad.yaml"]);
    let says = told.err.contains(
        "wrong.yaml:5: cases[1].expect: unknown variant `maybe`, expected `allow` or `deny`; correct the field",
    );
    assert!(told.code == Some(2) && says && told.out.contains("bad.yaml:5: failed"), "{told:?}");
    // Who reads only the report learns of it, too: of each mistake once, with its line.
    let told = test(&["-f", "wrong.yaml", "-f", "good.yaml", "-o", "junit"]);
    let says = ["tests=\"3\" failures=\"0\" errors=\"1\"", "wrong.yaml:5: cases[1].expect: unknown variant"];
    assert!(told.code == Some(2) && says.iter().all(|says| told.out.contains(says)), "{told:?}");
    assert_eq!(told.out.matches("wrong.yaml:5: ").count(), 1, "{told:?}");
    write("twice.yaml", &CASES.replace("deploy/", "robot/"));
    let told = test(&["-f", "twice.yaml", "-f", "good.yaml", "-o", "junit"]);
    let says = [
        "tests=\"4\" failures=\"0\" errors=\"2\"",
        "line=\"4\">\n      <error message=\"cases[0].client: ",
        "twice.yaml:4: cases[0].client: ",
        "twice.yaml:5: cases[1].client: ",
    ];
    assert!(told.code == Some(2) && says.iter().all(|says| told.out.contains(says)), "{told:?}");
    let told = test(&["-f", "twice.yaml", "-o", "json"]);
    let report: Value = serde_json::from_str(&told.out).unwrap();
    let lines: Vec<_> = report["suites"][0]["cases"].as_array().unwrap().iter().map(|case| &case["line"]).collect();
    assert_eq!((lines, &report["unknown"]), (vec![&json!(4), &json!(5)], &json!(2)), "{told:?}");
    write("nowhere.yaml", &CASES.replace("shop.yaml", "no.yaml"));
    let told = test(&["-f", "nowhere.yaml", "-f", "good.yaml", "-o", "junit"]);
    assert!(told.code == Some(2) && told.out.contains("tests=\"3\" failures=\"0\" errors=\"1\""), "{told:?}");
    let told = fed(home.weft(&["policy", "test", "-f", "-"]), CASES.as_bytes());
    assert_eq!(told.code, Some(0), "{told:?}");
    assert_eq!(test(&["-f", "."]).code, Some(2));
    assert_eq!(test(&[]).code, Some(2));
}

const CLUSTER: &str = include_str!("../../../cluster/src/can/testdata/cluster.yaml");

#[test]
fn what_a_cluster_runs_is_asked_of_its_manifests() {
    let home = Home::new();
    fs::write(home.0.join("cluster.yaml"), CLUSTER).unwrap();
    let told = home.runs(&["policy", "can", "-n", "shop", "-f", "cluster.yaml", "cj/report", "sts/db:psql"]);
    assert!(told.code == Some(0) && told.out.contains("by       AuthorizationPolicy/reports"), "{told:?}");
    let told = home.runs(&["policy", "can", "-n", "shop", "-f", "cluster.yaml", "po/web", "svc/db:5432"]);
    assert!(told.code == Some(1) && told.err.is_empty(), "{told:?}");
    let case = "manifests: [cluster.yaml]\nnamespace: shop\ncases:\n- {client: ds/web, target: 'sts/db:9187', request: GET /healthy, expect: allow}\n";
    fs::write(home.0.join("cases.yaml"), case).unwrap();
    let told = home.runs(&["policy", "test", "-f", "cases.yaml"]);
    assert_eq!((told.code, told.out.as_str()), (Some(0), "1 cases: 1 as expected, 0 failed, 0 unknown\n"), "{told:?}");
    let told = home.runs(&["authz", "-n", "shop", "-f", "cluster.yaml", "sts/db"]);
    let row = told.out.lines().nth(1).unwrap_or_default().split_whitespace().collect::<Vec<_>>();
    assert_eq!((told.code, row), (Some(0), vec!["*", "db", "reports"]), "{told:?}");
}

/// As people have them: without namespaces, behind links, beside an ingress's routes and files of other programs.
#[test]
fn manifests_are_read_as_they_are_applied() {
    let home = Home::new();
    let write = |name: &str, text: &str| {
        let file = home.0.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    let (objects, policies) = CLUSTER.split_at(CLUSTER.find("apiVersion: policy.linkerd.io").unwrap());
    let bare = |text: &str| text.replace(", namespace: shop", "");
    write("shop/objects.yaml", &bare(objects));
    write("policies/all.yaml", &bare(policies));
    write("shop/.ci/other.yaml", "jobs: {}\n");
    for namespace in ["default", "other"] {
        let metadata = format!("{{name: {namespace}, annotations: {{linkerd.io/inject: enabled}}}}");
        write(&format!("shop/{namespace}.yaml"), &format!("apiVersion: v1\nkind: Namespace\nmetadata: {metadata}\n"));
    }
    write(
        "shop/edge.yaml",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: edge}\nspec: {parentRefs: [{name: edge}], rules: [{backendRefs: [{name: web, port: 80}]}]}\n",
    );
    std::os::unix::fs::symlink("../policies", home.0.join("shop/policies")).unwrap();
    let left = "left out, since it is hidden: shop/.ci; name by itself what is meant\n";
    for (client, code) in [("cj/report", 0), ("po/web", 1)] {
        let told = home.runs(&["policy", "can", "-n", "shop", "-f", "shop", client, "sts/db:psql"]);
        assert!(told.code == Some(code) && told.err == left, "{told:?}");
    }
    let told = home.runs(&["policy", "can", "-f", "shop", "shop/cj/report", "shop/sts/db:psql"]);
    assert!(told.code == Some(2) && told.err.contains("in the namespace shop runs"), "{told:?}");
    let told = home.runs(&["policy", "can", "-f", "shop", "cj/report", "sts/db:psql"]);
    assert!(told.code == Some(0), "all of it is in the namespace default: {told:?}");
    let told = home.runs(&["authz", "-n", "shop", "-f", "shop", "sts/db"]);
    assert!(told.out.contains("reports") && told.err == left, "{told:?}");
    let cases = "cases: [{client: cj/report, target: 'sts/db:psql', expect: allow, by: AuthorizationPolicy/reports}]\n";
    write("words.yaml", &format!("manifests: [shop]\n{cases}"));
    write("own.yaml", &format!("manifests: [shop]\nnamespace: other\n{cases}"));
    for words in [&["-f", "words.yaml"][..], &["-f", "words.yaml", "-n", "shop"], &["-f", "own.yaml"]] {
        let told = home.runs(&[&["policy", "test"], words].concat());
        assert!(told.code == Some(0) && told.err == left, "{words:?}: {told:?}");
    }
}

fn cluster(runtime: &Runtime) -> FakeApi {
    let api = runtime.block_on(FakeApi::start()).unwrap();
    let _running = runtime.enter();
    let pod = |name: &str, account: &str, ip: &str, meshed: bool| {
        let mut labels = json!({"app": account, "pod-template-hash": "x"});
        if meshed {
            labels["linkerd.io/control-plane-ns"] = json!("linkerd");
        }
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{account}-x"), "controller": true, "uid": "u"});
        json!({"kind": "Pod", "metadata": {"name": name, "namespace": "shop", "labels": labels, "ownerReferences": [owner]},
            "spec": {"serviceAccountName": account,
                "containers": [{"name": account, "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": ip}})
    };
    let of_mesh = |kind: &str, name: &str, spec: Value| json!({"kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec});
    for object in [
        json!({"kind": "ConfigMap", "metadata": {"name": "linkerd-config", "namespace": "linkerd"},
            "data": {"values": "proxy: {defaultInboundPolicy: all-authenticated}\nidentityTrustDomain: td.example\n"}}),
        pod("web-x-1", "web", "10.0.0.1", true),
        pod("bot-x-1", "bot", "10.0.0.2", true),
        pod("plain-x-1", "plain", "10.0.0.3", false),
        json!({"kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}}),
        of_mesh("Server", "web", json!({"podSelector": {"matchLabels": {"app": "web"}}, "port": "http"})),
        of_mesh(
            "AuthorizationPolicy",
            "bots",
            json!({"targetRef": {"group": "policy.linkerd.io", "kind": "Server", "name": "web"},
            "requiredAuthenticationRefs": [{"kind": "ServiceAccount", "name": "bot"}]}),
        ),
        of_mesh(
            "ServerAuthorization",
            "office",
            json!({"server": {"name": "web"},
            "client": {"unauthenticated": true, "networks": [{"cidr": "192.0.2.0/24"}]}}),
        ),
    ] {
        api.put(object);
    }
    api
}

#[test]
fn a_cluster_is_asked_by_its_objects() {
    let runtime = Runtime::new().unwrap();
    let (home, api) = (Home::new(), cluster(&runtime));
    home.configure(&api);
    let can = |words: &[&str]| home.runs(&[&["policy", "can", "-n", "shop"], words].concat());
    for (words, code, says) in [
        (["deploy/bot", "svc/web:80"], 0, "as bot.shop.serviceaccount.identity.linkerd.td.example"),
        (
            ["deploy/plain", "svc/web:80"],
            1,
            "nearest  ServerAuthorization/office: it lets in 192.0.2.0/24, and not 10.0.0.3",
        ),
        (["192.0.2.1", "po/web-x-1:http"], 0, "by       ServerAuthorization/office"),
        (["10.0.0.2", "deploy/web:8080"], 0, "client   shop/bot-x-1"),
        (["deploy/plain", "deploy/web:9999"], 1, "server   default:all-authenticated"),
        (["deploy/web", "deploy/plain:8080"], 0, "the pod has no proxy"),
    ] {
        let told = can(&words);
        assert!(told.code == Some(code) && told.out.contains(says), "{words:?}: {told:?}");
    }
    fs::write(
        home.0.join("cases.yaml"),
        "cases:\n- {client: deploy/bot, target: 'svc/web:80', namespace: shop, expect: allow}\n",
    )
    .unwrap();
    assert_eq!(home.runs(&["policy", "test", "-f", "cases.yaml"]).code, Some(0));
    let authz = |words: &[&str]| -> Told { home.runs(&[&["authz", "-n", "shop"], words].concat()) };
    let head = "ROUTE  SERVER  AUTHORIZATION_POLICY  SERVER_AUTHORIZATION\n";
    let rows = format!("{head}*      web{:27}office\n*      web     bots\n", "");
    let all =
        [&["deploy/web"][..], &["deploy", "web"], &["po"], &["po/web-x-1"], &["svc/web"], &["ns", "shop"], &["ns"]];
    for words in all {
        let told = authz(words);
        assert!(told.ok && told.out == rows, "{words:?}: {told:?}");
    }
    assert_eq!(authz(&["deploy/plain"]).out, head);
    for (words, says) in [
        (["deploy/no"], "no pod of deploy/no runs in the namespace shop"),
        (["cm/web"], "is no resource; use KIND/NAME"),
        (["svc/no"], "there is no svc/no in the namespace shop"),
        (["cj/web"], "no pod of cj/web runs in the namespace shop"),
    ] {
        let told = authz(&words);
        assert!(told.code == Some(1) && told.err.contains(says), "{words:?}: {told:?}");
    }
    // Who may not look is told so, and no verdict.
    api.forbid("pods");
    let told = can(&["deploy/bot", "svc/web:80"]);
    assert!(
        told.code == Some(2)
            && told.out.is_empty()
            && told.err.contains("listing pods in all namespaces is not allowed"),
        "{told:?}"
    );
}
