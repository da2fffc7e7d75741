//! Who of the control plane may do what with the API server: Linkerd's roles (control plane 1.4), of which ours does not use every rule:
//! the injector looks up few of the kinds of owners.

use super::{DESTINATION, IDENTITY, Meta, PROXY_INJECTOR};
use serde_json::{Value, json};

const RBAC: &str = "rbac.authorization.k8s.io";
const READ: [&str; 3] = ["get", "list", "watch"];

pub(super) fn all(meta: &Meta<'_>) -> Vec<Value> {
    let mut objects = vec![
        account(meta, DESTINATION, "destination"),
        account(meta, IDENTITY, "identity"),
        account(meta, PROXY_INJECTOR, "proxy-injector"),
    ];
    let of = |component: &str| format!("linkerd-{}-{component}", meta.namespace);
    objects.extend(cluster(meta, &of("destination"), &of("destination"), "destination", DESTINATION, destination()));
    objects.extend(cluster(meta, "linkerd-policy", "linkerd-destination-policy", "destination", DESTINATION, policy()));
    objects.extend(cluster(meta, &of("identity"), &of("identity"), "identity", IDENTITY, identity()));
    objects.extend(cluster(
        meta,
        &of("proxy-injector"),
        &of("proxy-injector"),
        "proxy-injector",
        PROXY_INJECTOR,
        injector(),
    ));
    objects.push(role(meta, "ext-namespace-metadata-linkerd-config", config()));
    let readers = &meta.values.config_readers;
    if !readers.is_empty() {
        let subjects = readers.iter().map(
            |r| json!({ "kind": "ServiceAccount", "name": &*r.name, "namespace": r.namespace.or(meta.namespace) }),
        );
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": meta.named("linkerd-config-reader", None),
            "roleRef": { "apiGroup": RBAC, "kind": "Role", "name": "ext-namespace-metadata-linkerd-config" },
            "subjects": subjects.collect::<Vec<_>>(),
        }));
    }
    objects
}

fn account(meta: &Meta<'_>, name: &str, component: &str) -> Value {
    let mut account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": meta.named(name, Some(component)),
    });
    if !meta.values.image_pull_secrets.is_empty() {
        account["imagePullSecrets"] = json!(meta.values.image_pull_secrets);
    }
    account
}

/// A ClusterRole and its binding.
fn cluster(
    meta: &Meta<'_>,
    role: &str,
    binding: &str,
    component: &str,
    account: &str,
    rules: Vec<Value>,
) -> [Value; 2] {
    [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": meta.of_the_cluster(role, Some(component)),
            "rules": rules,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": meta.of_the_cluster(binding, Some(component)),
            "roleRef": { "apiGroup": RBAC, "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": meta.namespace }],
        }),
    ]
}

fn role(meta: &Meta<'_>, name: &str, rules: Vec<Value>) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": meta.named(name, None),
        "rules": rules,
    })
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({ "apiGroups": [group], "resources": resources, "verbs": verbs })
}

fn destination() -> Vec<Value> {
    vec![
        rule("apps", &["replicasets"], &READ),
        rule("batch", &["jobs"], &READ),
        rule("", &["pods", "endpoints", "services", "nodes", "namespaces"], &READ),
        rule("linkerd.io", &["serviceprofiles"], &READ),
        rule("coordination.k8s.io", &["leases"], &["create", "get", "update", "patch"]),
        rule("workload.linkerd.io", &["externalworkloads"], &READ),
        // Those that lead to ExternalWorkloads.
        rule("discovery.k8s.io", &["endpointslices"], &["get", "list", "watch", "create", "update", "delete"]),
    ]
}

fn policy() -> Vec<Value> {
    const KINDS: [&str; 8] = [
        "authorizationpolicies",
        "egressnetworks",
        "httplocalratelimitpolicies",
        "httproutes",
        "meshtlsauthentications",
        "networkauthentications",
        "serverauthorizations",
        "servers",
    ];
    const ROUTES: [&str; 4] = ["grpcroutes", "httproutes", "tcproutes", "tlsroutes"];
    let status = |names: &[&str]| names.iter().map(|n| format!("{n}/status")).collect::<Vec<_>>();
    let statuses =
        |group: &str, names: &[&str]| json!({ "apiGroups": [group], "resources": status(names), "verbs": ["patch"] });
    const GATEWAY: &str = "gateway.networking.k8s.io";
    vec![
        rule("", &["pods"], &READ),
        rule("apps", &["deployments"], &["get"]),
        rule("policy.linkerd.io", &KINDS, &READ),
        rule("workload.linkerd.io", &["externalworkloads"], &READ),
        rule(GATEWAY, &ROUTES, &READ),
        statuses("policy.linkerd.io", &["egressnetworks", "httplocalratelimitpolicies", "httproutes"]),
        statuses(GATEWAY, &ROUTES),
        rule("coordination.k8s.io", &["leases"], &["create", "get", "patch"]),
    ]
}

fn identity() -> Vec<Value> {
    vec![rule("authentication.k8s.io", &["tokenreviews"], &["create"]), rule("", &["events"], &["create", "patch"])]
}

fn injector() -> Vec<Value> {
    vec![
        rule("", &["events"], &["create", "patch"]),
        rule("", &["namespaces", "replicationcontrollers"], &READ),
        rule("", &["pods"], &["list", "watch"]),
        rule("apps", &["deployments", "replicasets", "daemonsets", "statefulsets"], &READ),
        rule("batch", &["cronjobs", "jobs"], &READ),
    ]
}

fn config() -> Vec<Value> {
    let mut rule = rule("", &["configmaps"], &["get"]);
    rule["resourceNames"] = json!(["linkerd-config"]);
    vec![rule]
}
