//! What an installation puts into a cluster: golden files, and that Kubernetes knows every field and we every value.

use crate::samples::{another, at, besides, leaves};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use weft_cluster::{
    Kind,
    inject::{Annotations, Around, Mesh, admit},
    install::{By, Installation, Material, Pair, control_plane, crds, text, values_of_cluster},
    k8s::{
        api::{admissionregistration, apps, core, policy, rbac},
        apiextensions_apiserver::pkg::apis::apiextensions,
    },
    values::{Values, highly_available},
};

fn material() -> Material {
    let pair = |name: &str| Pair { certificate: format!("{name} certificate\n"), key: format!("{name} key\n") };
    Material {
        anchors_pem: "anchors\n".to_owned(),
        anchors_sha256: "5a5a".to_owned(),
        issuer: pair("issuer"),
        issuer_since: None,
        proxy_injector: pair("injector"),
        proxy_injector_before: String::new(),
        profile_validator: pair("profiles"),
        profile_validator_before: String::new(),
        policy_validator: pair("policies"),
        policy_validator_before: String::new(),
    }
}

fn values(layers: impl IntoIterator<Item = Value>) -> Values {
    let version = json!({"linkerdVersion": "VERSION"});
    Values::from_layers(layers.into_iter().chain([version])).unwrap()
}

fn objects(values: &Values, by: By) -> Vec<Value> {
    let material = material();
    let overrides = "linkerdVersion: VERSION\n";
    let installation = Installation { values, namespace: "linkerd", by, material: &material, overrides };
    let mut objects = crds(values, "linkerd", by);
    objects.extend(control_plane(installation));
    objects
}

fn key(object: &Value) -> String {
    let meta = &object["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{} {}/{}", text(&object["kind"]), text(&meta["namespace"]), text(&meta["name"]))
}

#[test]
fn the_kinds_of_the_mesh() {
    insta::assert_snapshot!(text(&crds(&values([]), "linkerd", By::Cli)));
}

/// By what kubectl takes and shows: groups, short names, versions (`*` in which objects are kept, `-` no longer recommended), columns.
#[test]
fn kinds_have_linkerds_names_versions_and_columns() {
    let line = |crd: &Value| {
        let (spec, names) = (&crd["spec"], &crd["spec"]["names"]);
        let each = |list: &Value, of: &dyn Fn(&Value) -> String| {
            list.as_array().into_iter().flatten().map(of).collect::<Vec<_>>().join(" ")
        };
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let version = |version: &Value| {
            let mark = |field: &str, mark: &'static str| if version[field] == true { mark } else { "" };
            format!("{}{}{}", text(&version["name"]), mark("storage", "*"), mark("deprecated", "-"))
        };
        let newest = spec["versions"].as_array().unwrap().iter().find(|version| version["storage"] == true).unwrap();
        format!(
            "{}.{} ({}) {}: {} [{}]",
            text(&names["plural"]),
            text(&spec["group"]),
            each(&names["shortNames"], &text),
            text(&names["kind"]),
            each(&spec["versions"], &version),
            each(&newest["additionalPrinterColumns"], &|column| text(&column["name"])),
        )
    };
    let lines: Vec<String> = crds(&values([]), "linkerd", By::Cli).iter().map(line).collect();
    let expected = [
        "authorizationpolicies.policy.linkerd.io (authzpolicy) AuthorizationPolicy: v1alpha1* []",
        "egressnetworks.policy.linkerd.io () EgressNetwork: v1alpha1* []",
        "externalworkloads.workload.linkerd.io () ExternalWorkload: v1alpha1 v1beta1* [Identity Age]",
        "httplocalratelimitpolicies.policy.linkerd.io () HTTPLocalRateLimitPolicy: v1alpha1* [Target_kind Target_name Total_RPS Identity_RPS]",
        "httproutes.policy.linkerd.io () HTTPRoute: v1alpha1 v1beta1 v1beta2 v1beta3* []",
        "meshtlsauthentications.policy.linkerd.io (meshtlsauthn) MeshTLSAuthentication: v1alpha1* []",
        "networkauthentications.policy.linkerd.io (netauthn networkauthn) NetworkAuthentication: v1alpha1* []",
        "serverauthorizations.policy.linkerd.io (saz serverauthz srvauthz) ServerAuthorization: v1alpha1- v1beta1* [Server]",
        "servers.policy.linkerd.io (srv) Server: v1alpha1- v1beta1- v1beta2 v1beta3* [Port Protocol Access Policy]",
        "serviceprofiles.linkerd.io (sp) ServiceProfile: v1alpha1 v1alpha2* []",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn an_installation_without_values() {
    let values = values([]);
    let material = material();
    let installation =
        Installation { values: &values, namespace: "linkerd", by: By::Cli, material: &material, overrides: "{}\n" };
    insta::assert_snapshot!(text(&control_plane(installation)));
}

#[test]
fn a_highly_available_installation_in_another_namespace() {
    let values = values([
        highly_available(),
        json!({
            "disableIPv6": false,
            "clusterDomain": "example.org",
            "identityTrustDomain": "trust.org",
            "commonLabels": {"team": "mesh"},
            "configReaders": [{"name": "reader", "namespace": "tools"}, {"name": "own"}],
            "imagePullSecrets": [{"name": "pull"}],
            "podMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
            "tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "priorityClassName": "system-cluster-critical",
            "proxyInjector": {"externalSecret": true, "injectCaFrom": "linkerd/injector"},
            "profileValidator": {"caBundle": "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"},
            "identity": {"externalCA": true, "issuer": {"scheme": "kubernetes.io/tls"}},
        }),
    ]);
    let material = material();
    let installation =
        Installation { values: &values, namespace: "mesh", by: By::Helm, material: &material, overrides: "" };
    insta::assert_snapshot!(text(&control_plane(installation)));
}

#[test]
fn every_object_stands_once_and_can_be_found_and_pruned() {
    let everything = json!({
        "configReaders": [{"name": "r"}], "enablePodDisruptionBudget": true, "podMonitor": {"enabled": true},
    });
    let mut seen = BTreeSet::new();
    for object in objects(&values([highly_available(), everything]), By::Cli) {
        assert!(seen.insert(key(&object)), "{} stands twice", key(&object));
        let label = &object["metadata"]["labels"]["linkerd.io/control-plane-ns"];
        assert_eq!(label, "linkerd", "{} cannot be found and pruned", key(&object));
    }
}

/// What is mounted, bound or selected is there.
#[test]
fn what_objects_name_is_installed() {
    let objects = objects(&values([]), By::Cli);
    let there: BTreeSet<String> = objects.iter().map(key).collect();
    for deployment in objects.iter().filter(|o| o["kind"] == "Deployment") {
        let pod = &deployment["spec"]["template"];
        let account = pod["spec"]["serviceAccountName"].as_str().unwrap();
        assert!(there.contains(&format!("ServiceAccount linkerd/{account}")), "{account}");
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        for volume in volumes {
            for (kind, name) in
                [("Secret", &volume["secret"]["secretName"]), ("ConfigMap", &volume["configMap"]["name"])]
            {
                if let Some(name) = name.as_str() {
                    assert!(there.contains(&format!("{kind} linkerd/{name}")), "{kind} {name}");
                }
            }
        }
        let names: Vec<&str> = volumes.iter().filter_map(|v| v["name"].as_str()).collect();
        let containers = ["containers", "initContainers"].map(|list| pod["spec"][list].as_array().unwrap().clone());
        for container in containers.iter().flatten() {
            for mount in container["volumeMounts"].as_array().unwrap() {
                assert!(names.contains(&mount["name"].as_str().unwrap()), "{} {mount}", container["name"]);
            }
        }
        let ports: Vec<&Value> =
            containers.iter().flatten().flat_map(|c| c["ports"].as_array().into_iter().flatten()).collect();
        let component = &pod["metadata"]["labels"]["linkerd.io/control-plane-component"];
        for service in objects.iter().filter(|o| o["kind"] == "Service") {
            if &service["spec"]["selector"]["linkerd.io/control-plane-component"] == component {
                let target = &service["spec"]["ports"][0]["targetPort"];
                let served = ports.iter().any(|p| &p["name"] == target || &p["containerPort"] == target);
                assert!(served, "{}: {target}", key(service));
            }
        }
    }
}

/// Each port of the control plane's processes is somebody's to call, and what is to be called is there.
#[test]
fn every_port_of_the_control_plane_has_its_server() {
    let objects = objects(&values([]), By::Cli);
    let of = |kind: &'static str| objects.iter().filter(move |o| o["kind"] == kind);
    let mut open = BTreeSet::new();
    for server in of("Server") {
        let labels = &server["spec"]["podSelector"]["matchLabels"];
        let component = labels["linkerd.io/control-plane-component"].as_str().unwrap_or("*");
        open.insert((component.to_owned(), server["spec"]["port"].as_u64().unwrap()));
    }
    let mut served = BTreeSet::from([("*".to_owned(), 4191)]);
    for deployment in of("Deployment") {
        let pod = &deployment["spec"]["template"];
        assert_eq!(pod["metadata"]["annotations"]["config.linkerd.io/default-inbound-policy"], "deny");
        let component = pod["metadata"]["labels"]["linkerd.io/control-plane-component"].as_str().unwrap();
        let own = pod["spec"]["containers"].as_array().unwrap().iter().find(|c| c["name"] == component).unwrap();
        for port in own["ports"].as_array().unwrap() {
            served.insert((component.to_owned(), port["containerPort"].as_u64().unwrap()));
        }
    }
    assert_eq!(open, served);
    // Each authorization is there before its server denies.
    let place = |name: String| objects.iter().position(|object| key(object) == name);
    for authorization in of("ServerAuthorization") {
        let name = authorization["spec"]["server"]["name"].as_str().unwrap();
        let server = place(format!("Server linkerd/{name}"));
        assert!(server.is_some() && place(key(authorization)) < server, "{name}");
    }
}

/// As Pod Security "restricted" has it, but for what makes the rules.
#[test]
fn what_is_installed_has_no_rights() {
    for deployment in objects(&values([highly_available()]), By::Cli).iter().filter(|o| o["kind"] == "Deployment") {
        let spec = &deployment["spec"]["template"]["spec"];
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        for container in ["containers", "initContainers"].iter().flat_map(|list| spec[*list].as_array().unwrap()) {
            let rights = &container["securityContext"];
            let added = if container["name"] == "linkerd-init" { json!(["NET_ADMIN", "NET_RAW"]) } else { Value::Null };
            assert_eq!(rights["capabilities"]["add"], added, "{}", container["name"]);
            assert_eq!(rights["capabilities"]["drop"], json!(["ALL"]), "{}", container["name"]);
            for (field, wanted) in
                [("allowPrivilegeEscalation", false), ("readOnlyRootFilesystem", true), ("runAsNonRoot", true)]
            {
                assert_eq!(rights[field], wanted, "{} {field}", container["name"]);
            }
            assert_ne!(rights["privileged"], true, "{}", container["name"]);
        }
        for volume in spec["volumes"].as_array().unwrap() {
            let kinds = ["configMap", "emptyDir", "projected", "secret"];
            assert!(kinds.iter().any(|kind| !volume[*kind].is_null()), "{volume}");
        }
    }
}

/// Where webhooks must be asked, nobody could answer yet for what comes with those who answer.
#[test]
fn the_control_planes_own_policies_wait_for_no_validator() {
    for by in [By::Cli, By::Helm] {
        let objects = objects(&values([highly_available()]), by);
        let of = |kind: &'static str| objects.iter().filter(move |o| o["kind"] == kind);
        let mut hooks = of("ValidatingWebhookConfiguration").map(|o| &o["webhooks"][0]);
        let hook = hooks.find(|hook| hook["name"] == "linkerd-policy-validator.linkerd.io").unwrap();
        assert_eq!(hook["failurePolicy"], "Fail");
        let label = "linkerd.io/control-plane-ns";
        // A label alone, which anybody may write on anything, takes nothing out.
        assert_eq!(hook["objectSelector"], Value::Null);
        let expected = format!(
            "!(request.namespace == 'linkerd' && has(object.metadata.labels) && '{label}' in object.metadata.labels)"
        );
        assert_eq!(hook["matchConditions"], json!([{"name": "not-of-the-control-plane", "expression": expected}]));
        for own in of("Server").chain(of("ServerAuthorization")) {
            assert!(own["metadata"]["labels"][label].is_string(), "{}", key(own));
            assert_eq!(own["metadata"]["namespace"], "linkerd");
        }
    }
}

#[test]
fn no_key_stands_where_everybody_may_read() {
    let secret = "SECRET KEY";
    let values = values([json!({
        "identity": {"issuer": {"tls": {"crtPEM": "c", "keyPEM": secret}}},
        "proxyInjector": {"crtPEM": "c", "keyPEM": secret},
        "profileValidator": {"crtPEM": "c", "keyPEM": secret},
        "policyValidator": {"crtPEM": "c", "keyPEM": secret},
    })]);
    for object in objects(&values, By::Cli) {
        assert!(object["kind"] == "Secret" || !object.to_string().contains(secret), "{}", key(&object));
    }
    // What the injector reads it can read.
    let written = serde_json::to_value(values_of_cluster(&values)).unwrap();
    assert!(Values::from_layers([written]).is_ok());
}

/// Everything that values lead to: an installation and a pod, without the copy of the values themselves.
fn rendered(values: &Values) -> String {
    let material = material();
    let installation = Installation { values, namespace: "linkerd", by: By::Cli, material: &material, overrides: "" };
    let mut objects = crds(values, "linkerd", By::Cli);
    objects.extend(control_plane(installation));
    objects.retain(|o| key(o) != "ConfigMap linkerd/linkerd-config");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "annotations": {"linkerd.io/inject": "enabled", "config.linkerd.io/enable-debug-sidecar": "true"}},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 1}]}]},
    });
    let none = Annotations::new();
    let around = Around { namespace: "n", namespace_annotations: &none, owner: None };
    let mesh = Mesh { values, namespace: "linkerd", anchors_pem: "anchors", anchors_sha256: "5a" };
    objects.push(admit(&pod, around, mesh).unwrap().object);
    Value::Array(objects).to_string()
}

#[test]
fn no_value_is_accepted_and_forgotten() {
    let mut paths = vec![];
    leaves(&serde_json::to_value(Values::default()).unwrap(), "", &mut paths);
    // What other programs read in the values themselves.
    let read_elsewhere = ["highAvailability"];
    let mut forgotten = vec![];
    for (path, value) in &paths {
        let Some(other) = another(path, value) else {
            forgotten.push(format!("{path}: no other value is known to this test"));
            continue;
        };
        // One of the two is given where the Secret is somebody else's.
        let sibling = match path.strip_suffix("Secret") {
            Some(sibling) if path.ends_with("injectCaFromSecret") => Some(sibling.to_owned()),
            _ => path.ends_with("injectCaFrom").then(|| format!("{path}Secret")),
        };
        let instead = sibling.map_or(json!({}), |sibling| at(&sibling, other.clone()));
        let base = values_or_problem(&[besides(path), instead]);
        let changed = values_or_problem(&[besides(path), at(path, other)]);
        match (base, changed) {
            (Ok(base), Ok(changed))
                if read_elsewhere.contains(&path.as_str()) || rendered(&base) != rendered(&changed) => {}
            (Ok(_), Ok(_)) => forgotten.push(format!("{path}: changes nothing")),
            (base, changed) => forgotten.push(format!("{path}: {:?} {:?}", base.err(), changed.err())),
        }
    }
    assert!(paths.len() > 120, "{}", paths.len());
    assert_eq!(forgotten, Vec::<String>::new());
}

fn values_or_problem(layers: &[Value]) -> Result<Values, String> {
    Values::from_layers(layers.iter().cloned()).map_err(|problems| problems.to_string())
}

/// Read as what it is and written again, an object is the same: there is no field that Kubernetes does not know.
fn known<T: DeserializeOwned + Serialize>(object: &Value) {
    let read: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{}: {error}", key(object)));
    let written = serde_json::to_value(read).unwrap();
    assert_eq!(numbers(written), numbers(object.clone()), "{}", key(object));
}

/// Whole numbers and fractions are one.
fn numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.into_iter().map(numbers).collect(),
        Value::Object(map) => map.into_iter().map(|(k, v)| (k, numbers(v))).collect(),
        other => other,
    }
}

#[test]
fn every_object_is_one_that_kubernetes_knows() {
    let everything = json!({
        "configReaders": [{"name": "r"}], "enablePodDisruptionBudget": true, "enablePodAntiAffinity": true,
        "imagePullSecrets": [{"name": "s"}],
    });
    for object in objects(&values([highly_available(), everything]), By::Cli) {
        match object["kind"].as_str().unwrap() {
            "Namespace" => known::<core::v1::Namespace>(&object),
            "ServiceAccount" => known::<core::v1::ServiceAccount>(&object),
            "ClusterRole" => known::<rbac::v1::ClusterRole>(&object),
            "ClusterRoleBinding" => known::<rbac::v1::ClusterRoleBinding>(&object),
            "Role" => known::<rbac::v1::Role>(&object),
            "RoleBinding" => known::<rbac::v1::RoleBinding>(&object),
            "ConfigMap" => known::<core::v1::ConfigMap>(&object),
            "Secret" => known::<core::v1::Secret>(&object),
            "Service" => known::<core::v1::Service>(&object),
            "Deployment" => known::<apps::v1::Deployment>(&object),
            "PodDisruptionBudget" => known::<policy::v1::PodDisruptionBudget>(&object),
            "MutatingWebhookConfiguration" => known::<admissionregistration::v1::MutatingWebhookConfiguration>(&object),
            "ValidatingWebhookConfiguration" => {
                known::<admissionregistration::v1::ValidatingWebhookConfiguration>(&object);
            }
            "ValidatingAdmissionPolicy" => known::<admissionregistration::v1::ValidatingAdmissionPolicy>(&object),
            "ValidatingAdmissionPolicyBinding" => {
                known::<admissionregistration::v1::ValidatingAdmissionPolicyBinding>(&object);
            }
            "Server" => assert!(weft_cluster::policy::read(Kind::Server, object).is_ok()),
            "ServerAuthorization" => assert!(weft_cluster::policy::read(Kind::ServerAuthorization, object).is_ok()),
            "CustomResourceDefinition" => known::<apiextensions::v1::CustomResourceDefinition>(&object),
            other => panic!("{other} is not looked at"),
        }
    }
}

/// Of every pod that is installed, or gets a proxy: two volumes of a name no pod may have.
#[test]
fn a_volume_of_xtables_has_a_name_of_its_own() {
    let tracing = json!({"enabled": true, "collector": {"endpoint": "c:1", "meshIdentity": {"serviceAccountName": "s", "namespace": "n"}}});
    let all = objects(&values([json!({"proxy": {"tracing": tracing}})]), By::Cli);
    let of_pods = all.iter().filter_map(|object| object.pointer("/spec/template/spec/volumes")?.as_array());
    let mut names: Vec<&str> = of_pods.flatten().map(|volume| volume["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        let given = Values::from_layers([json!({"proxyInit": {"xtMountPath": {"name": name}}})]);
        match given.map_err(|problems| problems.to_string()) {
            Ok(_) => assert_eq!(name, "linkerd-proxy-init-xtables-lock"),
            Err(told) => assert!(told.starts_with("proxyInit.xtMountPath.name: another volume"), "{name}: {told}"),
        }
    }
    Values::from_layers([json!({"proxyInit": {"xtMountPath": {"name": "locks"}}})]).unwrap();
}
