//! Questions about manifests, by what a cluster and its injector would make of them.

use super::*;

/// Where nobody is let in unless somebody says so.
const NAMESPACE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, annotations: {linkerd.io/inject: enabled, config.linkerd.io/default-inbound-policy: deny}}
";

fn of_files(texts: &[&str]) -> Index {
    let text = manifest::Text { name: "m.yaml".into(), text: texts.join("\n---\n") };
    let loaded = manifest::load_to_ask("default", &[text], &[]);
    assert_eq!(loaded.problems, []);
    of_manifests(loaded.objects.into_iter().map(|located| located.object), Settings::default())
}

/// A workload of `kind` whose pods are said to have `metadata` and `spec`.
fn workload(kind: &str, name: &str, beside: &str, metadata: &str, spec: &str) -> String {
    let version = match kind {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" => "apps/v1",
        "Job" => "batch/v1",
        _ => "v1",
    };
    let selector = match kind {
        "Job" => String::new(),
        "ReplicationController" => format!("selector: {{app: {name}}}, "),
        _ => format!("selector: {{matchLabels: {{app: {name}}}}}, "),
    };
    let (metadata, spec) = (
        format!("labels: {{app: {name}}}, {metadata}"),
        format!(
            "restartPolicy: {}, {spec} containers: [{{name: app, image: app}}]",
            if kind == "Job" { "Never" } else { "Always" }
        ),
    );
    match kind {
        "Pod" => format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, {metadata}}}, spec: {{{spec}}}}}"
        ),
        _ => format!(
            "{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}, namespace: shop}}, spec: {{{selector}{beside} template: {{metadata: {{{metadata}}}, spec: {{{spec}}}}}}}}}"
        ),
    }
}

fn plain(kind: &str, name: &str) -> String {
    workload(kind, name, "", "", "")
}

fn server(selector: &str, port: &str, beside: &str) -> String {
    format!(
        "{{apiVersion: policy.linkerd.io/v1beta3, kind: Server, metadata: {{name: one, namespace: shop}}, spec: {{podSelector: {selector}, port: {port}, {beside}}}}}"
    )
}

fn service(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop}}, spec: {{ports: [{{port: 8080}}], {spec}}}}}"
    )
}

const CRON_JOB: &str = "{apiVersion: batch/v1, kind: CronJob, metadata: {name: report, namespace: shop}, spec: {schedule: '0 0 * * *', jobTemplate: {spec: {template: {metadata: {labels: {app: report}}, spec: {restartPolicy: Never, containers: [{name: app, image: app}]}}}}}}";

#[test]
fn labels_are_those_that_a_cluster_gives() {
    use Verdict::{Allowed, Denied, Unknown};
    let all = [
        NAMESPACE.to_owned(),
        workload("StatefulSet", "db", "replicas: 2, serviceName: db, ordinals: {start: 1},", "", ""),
        plain("Deployment", "web"),
        plain("DaemonSet", "agent"),
        plain("ReplicaSet", "cache"),
        plain("ReplicationController", "old"),
        plain("Job", "migrate"),
        CRON_JOB.to_owned(),
    ];
    let with = |beside: &str| of_files(&all.iter().map(String::as_str).chain([beside]).collect::<Vec<_>>());
    for (label, target, verdict) in [
        ("statefulset.kubernetes.io/pod-name: db-2", "po/db-2", Allowed),
        ("statefulset.kubernetes.io/pod-name: db-2", "po/db-1", Denied),
        ("apps.kubernetes.io/pod-index: '1'", "po/db-1", Allowed),
        ("apps.kubernetes.io/pod-index: '1'", "po/db-2", Denied),
        ("controller-revision-hash: a", "sts/db", Unknown),
        ("controller-revision-hash: a", "ds/agent", Unknown),
        ("controller-revision-hash: a", "deploy/web", Denied),
        ("pod-template-generation: '1'", "ds/agent", Unknown),
        ("pod-template-hash: a", "deploy/web", Unknown),
        ("pod-template-hash: x", "deploy/web", Unknown),
        ("pod-template-hash: a", "rs/cache", Denied),
        ("job-name: migrate", "job/migrate", Allowed),
        ("batch.kubernetes.io/job-name: migrate", "job/migrate", Allowed),
        ("job-name: other", "job/migrate", Denied),
        ("job-name: report-1", "cj/report", Unknown),
        ("batch.kubernetes.io/job-name: report-1", "cj/report", Unknown),
        ("controller-uid: a", "job/migrate", Unknown),
        ("batch.kubernetes.io/controller-uid: a", "cj/report", Unknown),
        ("batch.kubernetes.io/job-completion-index: '0'", "job/migrate", Unknown),
        ("linkerd.io/workload-ns: shop", "deploy/web", Allowed),
        ("linkerd.io/workload-ns: other", "deploy/web", Denied),
        ("linkerd.io/control-plane-ns: linkerd", "deploy/web", Allowed),
        ("linkerd.io/control-plane-ns: other", "deploy/web", Denied),
        ("linkerd.io/proxy-deployment: web", "deploy/web", Allowed),
        ("linkerd.io/proxy-deployment: web", "rs/cache", Denied),
        ("linkerd.io/proxy-replicaset: cache", "rs/cache", Allowed),
        ("linkerd.io/proxy-replicationcontroller: old", "rc/old", Allowed),
        ("linkerd.io/proxy-statefulset: db", "sts/db", Allowed),
        ("linkerd.io/proxy-daemonset: agent", "ds/agent", Allowed),
        ("linkerd.io/proxy-job: migrate", "job/migrate", Allowed),
        ("linkerd.io/proxy-cronjob: report", "cj/report", Allowed),
    ] {
        let index =
            with(&server(&format!("{{matchLabels: {{{label}}}}}"), "8080", "accessPolicy: all-unauthenticated"));
        let told = asks(&index, "192.0.2.9", &format!("{target}:8080"), "GET /", None).unwrap();
        assert_eq!(told.verdict, verdict, "{label} {target}: {told}");
        let names = told.to_string().contains(label.split(": ").next().unwrap());
        assert_eq!(names, verdict == Unknown, "{label} {target}: {told}");
    }
    for (expression, target, verdict) in [
        ("{key: pod-template-hash, operator: Exists}", "deploy/web", Allowed),
        ("{key: pod-template-hash, operator: DoesNotExist}", "deploy/web", Denied),
        ("{key: pod-template-hash, operator: DoesNotExist}", "sts/db", Allowed),
        ("{key: pod-template-hash, operator: NotIn, values: [a]}", "deploy/web", Unknown),
        ("{key: batch.kubernetes.io/job-completion-index, operator: Exists}", "job/migrate", Unknown),
    ] {
        let selector = format!("{{matchExpressions: [{expression}]}}");
        let index = with(&server(&selector, "8080", "accessPolicy: all-unauthenticated"));
        let told = asks(&index, "192.0.2.9", &format!("{target}:8080"), "GET /", None).unwrap();
        assert_eq!(told.verdict, verdict, "{expression} {target}: {told}");
    }
    // What is not selected otherwise is no Server's.
    let selector = "{matchLabels: {app: other, pod-template-hash: a}}";
    let told = asks(&with(&server(selector, "8080", "")), "192.0.2.9", "deploy/web:8080", "GET /", None).unwrap();
    assert_eq!(told.verdict, Denied, "{told}");
    for (selector, pods) in [
        ("statefulset.kubernetes.io/pod-name: db-2", Ok("shop/db-2")),
        ("linkerd.io/proxy-deployment: web", Ok("shop/web")),
        (
            "app: web, pod-template-hash: a",
            Err("svc/some in the namespace shop may select web: it names pod-template-hash, "),
        ),
        ("app: other, pod-template-hash: a", Err("nothing runs behind svc/some")),
    ] {
        let index = with(&service("some", &format!("selector: {{{selector}}}")));
        let told = asks(&index, "192.0.2.9", "svc/some:8080", "GET /", None);
        match (told, pods) {
            (Ok(told), Ok(pods)) => assert_eq!(told.answers[0].pods, [pods], "{selector}"),
            (Err(untold), Err(says)) => assert!(untold.message.contains(says), "{selector}: {untold}"),
            (told, _) => panic!("{selector}: {told:?}"),
        }
        let listed = authorizations(&index, "svc/some", "shop");
        assert_eq!(listed.is_ok(), pods.is_ok(), "{selector}: {listed:?}");
    }
}

#[test]
fn a_proxys_ports_are_those_that_the_injector_gives_it() {
    use Verdict::{Allowed, Denied, Unknown};
    let moved = workload("Deployment", "moved", "", "annotations: {config.linkerd.io/admin-port: '4199'}", "");
    let bare = workload("Deployment", "bare", "", "annotations: {linkerd.io/inject: disabled}", "");
    let (web, server) = (plain("Deployment", "web"), server("{}", "linkerd-admin", "accessPolicy: all-authenticated"));
    let index = of_files(&[NAMESPACE, &web, &moved, &bare, &server]);
    for (client, target, request, verdict, decides) in [
        ("192.0.2.9", "deploy/web:4191", "GET /metrics", Denied, "Server/one"),
        ("192.0.2.9", "deploy/web:4191", "GET /ready", Allowed, "default:probe"),
        ("sa/prometheus", "deploy/web:linkerd-admin", "GET /metrics", Allowed, "Server/one"),
        ("192.0.2.9", "deploy/moved:4199", "GET /metrics", Denied, "Server/one"),
        ("192.0.2.9", "deploy/moved:4191", "GET /metrics", Denied, "default:deny"),
        ("192.0.2.9", "deploy/web:4143", "GET /", Unknown, ""),
        ("192.0.2.9", "deploy/web:4190", "GET /", Unknown, ""),
        ("192.0.2.9", "deploy/bare:4191", "GET /metrics", Allowed, ""),
    ] {
        let answer = asks(&index, client, target, request, None).unwrap();
        let (said, by, _) = told(&answer);
        assert!(
            (said, by.as_str()) == (verdict, decides) || verdict == Allowed && said == Allowed,
            "{target}: {answer}"
        );
    }
}

#[test]
fn who_has_its_nodes_address_may_be_anywhere() {
    use Verdict::{Allowed, Denied, Unknown};
    let host = workload("DaemonSet", "host", "", "", "hostNetwork: true,");
    let bare = workload("Deployment", "bare", "", "annotations: {linkerd.io/inject: disabled}", "");
    let web = plain("Deployment", "web");
    for (access, of_host, of_bare) in [
        ("cluster-unauthenticated", Unknown, Allowed),
        ("all-unauthenticated", Allowed, Allowed),
        ("all-authenticated", Denied, Denied),
    ] {
        let server = server("{matchLabels: {app: web}}", "8080", &format!("accessPolicy: {access}"));
        let index = of_files(&[NAMESPACE, &host, &bare, &web, &server]);
        for (client, verdict) in [("ds/host", of_host), ("deploy/bare", of_bare)] {
            let told = asks(&index, client, "deploy/web:8080", "GET /", None).unwrap();
            assert_eq!(told.verdict, verdict, "{access} {client}: {told}");
        }
        let told = asks(&index, "ds/host", "deploy/web:8080", "GET /", Some("10.0.0.1")).unwrap();
        assert_eq!(told.verdict, of_bare, "{access}: {told}");
    }
}

/// Nodes bring there who comes, whom the mesh does not know.
#[test]
fn an_address_from_outside_leads_to_the_pods_behind_it() {
    use Verdict::{Allowed, Denied, Unknown};
    let (web, bot) = (plain("Deployment", "web"), plain("Deployment", "bot"));
    let service = service("web", "selector: {app: web}, externalIPs: [198.51.100.7]");
    for (access, verdict) in
        [("all-unauthenticated", Allowed), ("all-authenticated", Denied), ("cluster-unauthenticated", Unknown)]
    {
        let server = server("{matchLabels: {app: web}}", "8080", &format!("accessPolicy: {access}"));
        let index = of_files(&[NAMESPACE, &web, &bot, &service, &server]);
        for (client, address) in [("192.0.2.9", None), ("deploy/bot", None), ("deploy/bot", Some("10.0.0.1"))] {
            let told = asks(&index, client, "198.51.100.7:8080", "GET /", address).unwrap();
            let answer = &told.answers[0];
            assert_eq!(
                (told.verdict, answer.pods.as_slice()),
                (verdict, &["shop/web".to_owned()][..]),
                "{client}: {told}"
            );
        }
        let refused = asks(&index, "192.0.2.9", "198.51.100.7:81", "GET /", None).unwrap_err();
        assert!(refused.message.contains("svc/web in the namespace shop has no port 81"), "{refused}");
    }
    for network in ["trafficPolicy: Deny", "trafficPolicy: Allow"] {
        let egress = format!(
            "{{apiVersion: policy.linkerd.io/v1alpha1, kind: EgressNetwork, metadata: {{name: all, namespace: shop}}, spec: {{{network}}}}}"
        );
        let index = of_files(&[NAMESPACE, &web, &bot, &service, &egress]);
        let told = asks(&index, "deploy/bot", "198.51.100.7:8080", "GET /", None).unwrap();
        assert_ne!(told.verdict, Allowed, "{network}: {told}");
    }
}

#[test]
fn of_two_objects_the_older_counts_where_files_say_it() {
    let server = |name: &str, access: &str, created: &str| {
        format!(
            "{{apiVersion: policy.linkerd.io/v1beta3, kind: Server, metadata: {{name: {name}, namespace: shop, {created}}}, spec: {{podSelector: {{}}, port: 8080, accessPolicy: {access}}}}}"
        )
    };
    let (old, new) = ("creationTimestamp: 2026-01-01T00:00:00Z", "creationTimestamp: 2026-01-02T00:00:00Z");
    let web = plain("Deployment", "web");
    for (of_a, of_b, decides) in [(new, old, "b"), (old, new, "a"), ("", old, "b"), ("", "", "a")] {
        let (a, b) = (server("a", "all-unauthenticated", of_a), server("b", "deny", of_b));
        let index = of_files(&[NAMESPACE, &web, &a, &b]);
        let told = asks(&index, "192.0.2.9", "deploy/web:8080", "GET /", None).unwrap();
        assert_eq!(told.answers[0].server.as_ref().unwrap().name, decides, "{told}");
    }
}

#[test]
fn who_stands_for_one_pod_comes_to_itself() {
    use Verdict::{Allowed, Denied, Unknown};
    let all = [
        NAMESPACE.to_owned(),
        plain("Pod", "one"),
        workload("StatefulSet", "db", "replicas: 2, serviceName: db,", "", ""),
        plain("Deployment", "lone"),
        workload("Deployment", "many", "replicas: 2,", "", ""),
        plain("DaemonSet", "each"),
        service("one", "selector: {app: one}"),
        service("lone", "selector: {app: lone}"),
    ];
    let index = of_files(&all.iter().map(String::as_str).collect::<Vec<_>>());
    for (client, target, verdict) in [
        ("po/one", "po/one:8080", Allowed),
        ("po/one", "svc/one:8080", Allowed),
        ("po/db-0", "po/db-0:8080", Allowed),
        ("po/db-0", "po/db-1:8080", Denied),
        ("sts/db", "sts/db:8080", Denied),
        // Alone as long as there is one of it.
        ("deploy/lone", "deploy/lone:8080", Unknown),
        ("deploy/lone", "svc/lone:8080", Unknown),
        ("ds/each", "ds/each:8080", Unknown),
        ("deploy/many", "deploy/many:8080", Denied),
        ("deploy/lone", "deploy/many:8080", Denied),
    ] {
        let told = asks(&index, client, target, "GET /", None).unwrap();
        assert_eq!(told.verdict, verdict, "{client} {target}: {told}");
    }
}

/// By the injector's own word.
#[test]
fn who_has_a_proxy_is_who_would_get_one() {
    use Verdict::{Allowed, Denied, Unknown};
    let namespace = |name: &str, labels: &str, annotations: &str| {
        format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{labels}}}, annotations: {{{annotations}}}}}}}"
        )
    };
    let (enabled, disabled) = ("linkerd.io/inject: enabled", "linkerd.io/inject: disabled");
    let webhooks = "config.linkerd.io/admission-webhooks: disabled";
    let own = |mode: &str| format!("annotations: {{{mode}}}");
    let sidecar = "initContainers: [{name: istio-init, image: init}],";
    let manual = "initContainers: [{name: linkerd-proxy, image: 'cr.l5d.io/linkerd/proxy:1', restartPolicy: Always}],";
    let of_control = "labels: {app: web, linkerd.io/control-plane-component: web},";
    let by_hand = "labels: {app: web, linkerd.io/control-plane-ns: linkerd},";
    let here = |annotations: &str| Some(namespace("shop", "", annotations));
    // With a proxy everybody is denied.
    for (around, metadata, spec, verdict) in [
        (here(enabled), String::new(), "", Denied),
        (here(disabled), own(enabled), "", Denied),
        (None, own(enabled), "", Denied),
        (here(enabled), own(disabled), "", Allowed),
        (None, own(disabled), "", Allowed),
        (here(disabled), String::new(), "", Allowed),
        (here(enabled), String::new(), "hostNetwork: true,", Allowed),
        (here(enabled), String::new(), sidecar, Allowed),
        (here(enabled), of_control.to_owned(), "", Allowed),
        (here(""), by_hand.to_owned(), manual, Denied),
        (Some(namespace("shop", webhooks, enabled)), String::new(), "", Allowed),
        // Who knows.
        (here(""), String::new(), "", Unknown),
        (None, String::new(), "", Unknown),
    ] {
        let text = workload("Deployment", "web", "", &metadata, spec);
        // The last of two fields of one name would be refused.
        let text = if metadata.starts_with("labels") { text.replacen("labels: {app: web}, ", "", 1) } else { text };
        let bot = workload("Deployment", "bot", "", &own(enabled), "");
        let server = server("{matchLabels: {app: web}}", "8080", "accessPolicy: deny");
        let texts = [Some(text), Some(bot), Some(server), around.clone()];
        let index = of_files(&texts.iter().flatten().map(String::as_str).collect::<Vec<_>>());
        let told = asks(&index, "192.0.2.9", "deploy/web:8080", "GET /", None).unwrap();
        assert_eq!(told.verdict, verdict, "{around:?} {metadata} {spec}: {told}");
        if verdict == Unknown {
            let why =
                "it is not known whether the pod has a proxy: neither the pod nor its namespace has the annotation";
            assert!(told.to_string().contains(why), "{told}");
        }
        // As the client.
        let authenticated = of_files(&[
            &workload("Deployment", "web", "", &own(enabled), ""),
            &self::server("{matchLabels: {app: web}}", "8080", "accessPolicy: all-authenticated"),
            &workload("Deployment", "cat", "", "", ""),
            &namespace("shop", "", ""),
        ]);
        let told = asks(&authenticated, "deploy/cat", "deploy/web:8080", "GET /", None).unwrap();
        assert_eq!(told.verdict, Unknown, "{told}");
        assert!(told.to_string().contains("it is not known whether the client has a proxy: "), "{told}");
    }
    // Either way it is let in, or not.
    let (web, cat) = (workload("Deployment", "web", "", &own(enabled), ""), plain("Deployment", "cat"));
    for (access, verdict) in [("all-unauthenticated", Allowed), ("deny", Denied)] {
        let server = server("{matchLabels: {app: web}}", "8080", &format!("accessPolicy: {access}"));
        let told = asks(&of_files(&[&web, &cat, &server]), "deploy/cat", "deploy/web:8080", "GET /", None).unwrap();
        assert_eq!(told.verdict, verdict, "{told}");
        let told = asks(&of_files(&[&web, &cat]), "192.0.2.9", "deploy/cat:8080", "GET /", None).unwrap();
        assert_eq!(told.verdict, Allowed, "{told}");
    }
    // Of these nobody asks the injector.
    for name in ["kube-system", "cert-manager"] {
        let text = plain("Deployment", "web").replace("namespace: shop", &format!("namespace: {name}"));
        let deny = "linkerd.io/inject: enabled, config.linkerd.io/default-inbound-policy: deny";
        let index = of_files(&[&namespace(name, "", deny), &text]);
        let told = asks(&index, "192.0.2.9", &format!("{name}/deploy/web:8080"), "GET /", None).unwrap();
        assert_eq!(told.verdict, Allowed, "{name}: {told}");
    }
}

#[test]
fn a_clients_own_loopback_is_no_target() {
    let index = of_files(&[NAMESPACE, &plain("Deployment", "web")]);
    for target in ["127.0.0.1:80", "[::1]:80", "127.9.9.9:80", "[::ffff:127.0.0.1]:80", "0.0.0.0:80", "[::]:80"] {
        let refused = asks(&index, "deploy/web", target, "GET /", None).unwrap_err();
        assert!(refused.message.contains("is each client itself"), "{target}: {refused}");
    }
}
