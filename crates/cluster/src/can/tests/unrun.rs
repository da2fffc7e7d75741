//! Questions about manifests as they are applied to clusters.

use super::*;
use crate::workload;

const CLUSTER: &str = include_str!("../testdata/cluster.yaml");

fn read(text: &str) -> manifest::Loaded {
    manifest::load_to_ask("default", &[manifest::Text { name: "m.yaml".into(), text: text.to_owned() }], &[])
}

fn of_ask(text: &str) -> Index {
    let loaded = read(text);
    assert_eq!(loaded.problems, []);
    of_manifests(loaded.objects.into_iter().map(|located| located.object), Settings::default())
}

fn of_cluster_text() -> Index {
    of_ask(CLUSTER)
}

#[test]
fn every_kind_of_workload_is_asked_about() {
    use Verdict::{Allowed, Denied};
    let index = of_cluster_text();
    let lacks = "AuthorizationPolicy/reports identity";
    for (client, verdict, identity, nearest) in [
        ("cj/report", Allowed, "report", ""),
        ("cronjob/report", Allowed, "report", ""),
        ("po/report", Allowed, "report", ""),
        ("job/migrate", Denied, "migrate", lacks),
        ("deploy/web", Denied, "web", lacks),
        ("rc/old", Denied, "old", lacks),
        ("po/web", Denied, "shell", lacks),
        // The one shares its node's network, the other has no proxy as it says.
        ("ds/web", Denied, "", "AuthorizationPolicy/reports tls+identity"),
        ("rs/cache", Denied, "", "AuthorizationPolicy/reports tls+identity"),
    ] {
        for target in ["sts/db:5432", "sts/db:psql", "po/db-0:5432", "svc/db:psql"] {
            let answer = asks(&index, client, target, "GET /", None).unwrap();
            let proves = answer.answers[0].identity.clone().unwrap_or_default();
            assert_eq!(proves.split('.').next().unwrap(), identity, "{client}: {answer}");
            let decides = if verdict == Allowed { "AuthorizationPolicy/reports" } else { "Server/db" };
            assert_eq!(told(&answer), (verdict, decides.to_owned(), nearest.to_owned()), "{client} {target}: {answer}");
        }
    }
    // Two of one name are told apart.
    for (client, name) in [("po/web", "web"), ("deploy/web", "web-deployment"), ("ds/web", "web-daemonset")] {
        let answer = asks(&index, client, "sts/db:5432", "GET /", None).unwrap();
        assert_eq!(answer.answers[0].clients, [format!("shop/{name}")], "{client}");
    }
    let refused = asks(&index, "job/report", "sts/db:5432", "GET /", None).unwrap_err();
    assert!(refused.message.contains("no pod of job/report"), "{refused}");
}

/// Of all three sorts and all containers, by numbers and names of ports.
#[test]
fn every_probe_is_let_in() {
    let index = of_cluster_text();
    for (port, path, verdict) in [
        (8080, "/ready", Verdict::Allowed),
        (8080, "/live", Verdict::Allowed),
        (8080, "/started", Verdict::Allowed),
        (8080, "/healthy", Verdict::Denied),
        (9187, "/healthy", Verdict::Allowed),
        (9187, "/live", Verdict::Denied),
    ] {
        let answer = asks(&index, "192.0.2.9", &format!("sts/db:{port}"), &format!("GET {path}"), None).unwrap();
        assert_eq!(answer.verdict, verdict, "{port} {path}: {answer}");
        let route = if verdict == Verdict::Allowed { "default:probe" } else { "default:default" };
        assert_eq!(answer.answers[0].route.as_ref().unwrap().to_string(), route);
    }
}

/// The mesh on one machine asks by readiness probes alone, and lets in all, as a cluster does.
#[test]
fn probes_are_let_in_of_what_is_run_here() {
    let probes = "livenessProbe: {httpGet: {path: /live, port: http}}\n        startupProbe: {httpGet: {path: /started, port: 8081}}";
    let text = SHOP.replacen("readinessProbe: {httpGet: {path: /ready, port: http}}", probes, 1);
    let loaded = manifest::load_text(Path::new("shop.yaml"), &text);
    assert_eq!(loaded.problems, []);
    let mut deployments = loaded.objects.into_iter().filter_map(|located| match located.object {
        Object::Deployment(deployment) => Some(deployment),
        _ => None,
    });
    let template = workload::template(&deployments.next().unwrap(), None, "linkerd");
    assert_eq!(template.inbound_ports(), [8080, 8081, 9000]);
    let status = workload::Status { ips: vec![], running: true, ready: true, terminating: false };
    let deny = crate::index::DefaultPolicyName(weft_model::policy::inbound::DefaultPolicy::Deny);
    let settings = Settings { default_policy: deny, ..Settings::default() };
    let index = of_objects([Object::Pod(Box::new(template.pod("web-1", &status)))], settings);
    for (port, path, verdict) in [
        (8080, "/live", Verdict::Allowed),
        (8081, "/started", Verdict::Allowed),
        (8080, "/started", Verdict::Denied),
        (8080, "/ready", Verdict::Denied),
    ] {
        let answer = asks(&index, "192.0.2.9", &format!("po/web-1:{port}"), &format!("GET {path}"), None).unwrap();
        assert_eq!(answer.verdict, verdict, "{port} {path}: {answer}");
    }
}

#[test]
fn authorizations_are_listed_of_all_that_has_pods() {
    let index = of_cluster_text();
    let rows = |resource: &str| authorizations(&index, resource, "shop").map(|all| all.len());
    for (resource, count) in [
        ("sts/db", 1),
        ("svc/db", 1),
        ("Services/db", 1),
        ("ns/shop", 1),
        ("namespace", 1),
        ("cj/report", 0),
        ("cj", 0),
        ("ds", 0),
    ] {
        assert_eq!(rows(resource), Ok(count), "{resource}");
    }
    for (resource, says) in [
        ("svc/no", "there is no svc/no in the namespace shop"),
        ("svc", "use KIND/NAME or KIND with deploy, sts"),
        ("ns/no", "no pod runs in the namespace no"),
        ("cj/migrate", "no pod of cj/migrate runs in the namespace shop"),
        ("job/report", "no pod of job/report runs in the namespace shop"),
    ] {
        let refused = rows(resource).unwrap_err().to_string();
        assert!(refused.contains(says), "{resource}: {refused}");
    }
    // Those of a CronJob by the Jobs that it has started, which a cluster names by the time.
    let of = |job: &str| {
        let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": job, "controller": true, "uid": ""}]);
        let mut of = pod("p", "10.0.0.1", &json!({}));
        of.metadata_mut().unwrap().owner_references = Some(serde_json::from_value(owner).unwrap());
        let Object::Pod(pod) = of else { unreachable!() };
        pods_among(vec![*pod], None, "cj/report", "shop").is_ok()
    };
    assert!(of("report-29387520") && !of("report-7") && !of("report") && !of("other-29387520"));
}

/// Nothing that could decide is passed over, and what is run here is still a Deployment.
#[test]
fn what_is_wrong_with_a_workload_is_told() {
    let run = manifest::load_text(Path::new("m.yaml"), CLUSTER);
    let refused =
        |kind: &str| run.problems.iter().filter(|p| p.message == format!("{kind} is not supported yet")).count();
    for kind in [
        "StatefulSet (apps/v1)",
        "DaemonSet (apps/v1)",
        "Pod (v1)",
        "Job (batch/v1)",
        "CronJob (batch/v1)",
        "Secret (v1)",
    ] {
        assert_eq!(refused(kind), 1, "{kind}");
    }
    for (from, to, says) in [
        (
            "metadata: {labels: {app: db}}",
            "metadata: {labels: {app: db}, annotations: {config.linkerd.io/skip-inbound-ports: all}}",
            "m.yaml:16: StatefulSet shop/db: spec.template.metadata.annotations[config.linkerd.io/skip-inbound-ports]: ",
        ),
        (
            "metadata: {labels: {app: report}}",
            "metadata: {labels: {app: report}, annotations: {linkerd.io/inject: maybe}}",
            "CronJob shop/report: spec.jobTemplate.spec.template.metadata.annotations[linkerd.io/inject]: ",
        ),
        (
            "labels: {app: shell}}",
            "labels: {app: shell}, annotations: {config.linkerd.io/default-inbound-policy: denny}}",
            "Pod shop/web: metadata.annotations[config.linkerd.io/default-inbound-policy]: ",
        ),
        (
            "containers: [{name: migrate, image: migrate}]",
            "containers: []",
            "Job shop/migrate: spec.template.spec.containers: the pod has no container",
        ),
        (
            "serviceAccountName: old",
            "serviceAccount: a b",
            "ReplicationController shop/old: spec.template.spec.serviceAccount: ",
        ),
        (
            "hostNetwork: true",
            "hostNetwork: yes, please",
            "DaemonSet shop/web: spec.template.spec.hostNetwork: it is the text",
        ),
        ("schedule:", "shedule:", "CronJob shop/report: spec.shedule: "),
        (
            "{app: cache}}",
            "{app: cache}, extra: 1}",
            "ReplicaSet shop/cache: spec.selector.extra: Kubernetes knows no such field",
        ),
        (
            "{matchLabels: {app: web}}",
            "{matchLabels: {app: other}}",
            "Deployment shop/web: spec.selector: the selector does not match",
        ),
        ("kind: Secret", "kind: Sercet", "unknown kind Sercet"),
        (
            "kind: DaemonSet\nmetadata: {name: web,",
            "kind: StatefulSet\nmetadata: {name: db,",
            "StatefulSet shop/db is already defined in m.yaml",
        ),
    ] {
        assert!(CLUSTER.contains(from), "{from}");
        let problems = read(&CLUSTER.replacen(from, to, 1)).problems;
        let told = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(told.contains(says), "{to}: {told}");
    }
}

/// An ingress's routes stand beside those of the mesh.
#[test]
fn routes_of_others_are_passed_over_and_their_other_parents_count() {
    let route = |api: &str, kind: &str, parents: &str, filter: &str| {
        format!(
            "{CLUSTER}---\napiVersion: {api}\nkind: {kind}\nmetadata: {{name: edge, namespace: shop}}\nspec: {{parentRefs: [{parents}], rules: [{{{filter}backendRefs: [{{name: db, port: 8080}}]}}]}}\n"
        )
    };
    let (gateway, ours) = ("{name: edge, sectionName: https}", "{group: policy.linkerd.io, kind: Server, name: admin}");
    let (api, of_mesh) = ("gateway.networking.k8s.io/v1", "policy.linkerd.io/v1beta3");
    let server = "---\napiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: admin, namespace: shop}\nspec: {podSelector: {matchLabels: {app: db}}, port: admin, proxyProtocol: HTTP/1}\n";
    let gone = "{type: Nothing}";
    let asked = |text: &str| asks(&of_ask(text), "deploy/web", "sts/db:admin", "GET /", None).unwrap();
    let alone = asked(&format!("{CLUSTER}{server}"));
    for (api, kind, filter) in [
        (api, "HTTPRoute", ""),
        (api, "GRPCRoute", ""),
        (api, "TLSRoute", ""),
        // Whatever others do with it.
        (api, "HTTPRoute", &*format!("filters: [{gone}], ")),
        (of_mesh, "HTTPRoute", ""),
    ] {
        let text = route(
            api,
            kind,
            if api == of_mesh { "{group: gateway.networking.k8s.io, kind: Gateway, name: edge}" } else { gateway },
            filter,
        );
        let told = asked(&format!("{text}{server}"));
        assert_eq!(told, alone, "{kind} {filter}: {told}");
    }
    let told = asked(&format!("{}{server}", route(api, "HTTPRoute", &format!("{gateway}, {ours}"), "")));
    assert_eq!(told.answers[0].route.as_ref().unwrap().to_string(), "HTTPRoute/edge", "{told}");
    // What is wrong with one of the mesh's own is still told.
    let wrong = read(&route(api, "HTTPRoute", &format!("{gateway}, {ours}"), &format!("filters: [{gone}], ")));
    assert!(wrong.problems.iter().any(|problem| problem.field.starts_with("spec.rules[0].filters")), "{wrong:?}");
}

const HEADLESS: &str = "apiVersion: v1
kind: Service
metadata: {name: all, namespace: shop}
spec: {clusterIP: None, selector: {app: db}}
---
apiVersion: v1
kind: Service
metadata: {name: some, namespace: shop}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: psql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: bare, namespace: shop}
spec: {selector: {app: db}}
";

/// Its name leads to the pods, whatever ports it declares.
#[test]
fn a_headless_service_is_called_at_any_port_of_its_pods() {
    let index = of_ask(&format!("{CLUSTER}---\n{HEADLESS}"));
    for service in ["all", "some"] {
        for (port, path) in [(8080, "/ready"), (9187, "/healthy"), (5432, "/"), (9, "/")] {
            let of = |target: String| {
                let told = asks(&index, "192.0.2.9", &target, &format!("GET {path}"), None).unwrap();
                serde_json::to_value(told).unwrap()
            };
            assert_eq!(of(format!("svc/{service}:{port}")), of(format!("sts/db:{port}")), "{service} {port}");
        }
    }
    for (target, says) in [
        ("svc/all:psql", "svc/all in the namespace shop has no port psql; it has none"),
        ("svc/some:admin", "svc/some in the namespace shop has no port admin; it has 5432 (psql)"),
        ("svc/bare:80", "svc/bare in the namespace shop has no port 80; it has none"),
    ] {
        let refused = asks(&index, "deploy/web", target, "GET /", None).unwrap_err();
        assert_eq!(refused.to_string(), says);
    }
}

/// It is none of the Service's endpoints, and the others answer.
#[test]
fn a_pod_without_the_port_that_a_service_means_is_not_behind_it() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: http, namespace: shop}\nspec: {selector: {of: http}, ports: [{port: 80, targetPort: http}]}\n";
    let pod = |name: &str, port: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{of: http}}}}\nspec: {{containers: [{{name: a, image: a, ports: [{{name: {port}, containerPort: 8080}}]}}]}}\n"
        )
    };
    let index = of_ask(&format!("{CLUSTER}{service}{}{}", pod("one", "http"), pod("two", "other")));
    for (client, verdict) in [("deploy/web", Verdict::Allowed), ("rs/cache", Verdict::Denied)] {
        let told = asks(&index, client, "svc/http:80", "GET /", None).unwrap();
        assert_eq!((told.verdict, &*told.answers[0].pods), (verdict, &["shop/one".to_owned()][..]), "{client}: {told}");
    }
    let index = of_ask(&format!("{CLUSTER}{service}{}", pod("two", "other")));
    let refused = asks(&index, "rs/cache", "svc/http:80", "GET /", None).unwrap_err().to_string();
    assert!(refused.starts_with("no pod of svc/http in the namespace shop has the port that is meant"), "{refused}");
}

#[test]
fn a_proxy_in_ingress_mode_sends_what_names_a_target_elsewhere() {
    let on_pods = "metadata: {labels: {app: web}, annotations: {linkerd.io/inject: ingress}}";
    let texts = [
        CLUSTER.replacen("metadata: {labels: {app: web}}", on_pods, 1),
        CLUSTER.replacen("linkerd.io/inject: enabled", "linkerd.io/inject: ingress", 1),
    ];
    for text in texts {
        assert_ne!(text, CLUSTER);
        let index = of_ask(&text);
        let (client, target) =
            (Client::parse("deploy/web", "shop").unwrap(), Target::parse("sts/db:admin", "shop").unwrap());
        let plain = Request::default();
        let named = plain.clone().with_header("L5d-Dst-Override", "other.shop.svc.cluster.local:80").unwrap();
        for (index, request, verdict) in [
            (&index, &plain, Verdict::Allowed),
            (&index, &named, Verdict::Unknown),
            (&of_cluster_text(), &named, Verdict::Allowed),
        ] {
            let told = ask(index, &Asked { client: &client, target: &target, request, address: None }).unwrap();
            assert_eq!(told.verdict, verdict, "{told}");
        }
    }
    let refused = &read(&CLUSTER.replacen("inject: enabled", "inject: egress", 1)).problems[0];
    assert_eq!(refused.remedy, "use enabled, ingress or disabled");
}
