//! How each line is made false.

use crate::world::{Api, DAY, material, pod};
use serde_json::{Value, json};
use std::time::Duration;
use weft_cluster::k8s::ByteString;
use weft_control::check::{Check, What, table};

/// Changes what is there.
pub(crate) fn edit(api: &impl Api, kind: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
    let mut object = api.get(kind, namespace, name).unwrap();
    change(&mut object);
    api.put(object);
}

fn may_not(api: &impl Api, plural: &str, says: &'static str) -> (What, Duration, &'static str) {
    api.forbid(plural);
    (What::Pre, Duration::ZERO, says)
}

/// A certificate and its key of a kind that Linkerd's proxies do not take.
fn p384() -> (String, String) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let params = rcgen::CertificateParams::new(vec!["identity.linkerd.cluster.local".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// Breaks what one line is about; says what it is asked for, when, and what it then says.
pub(crate) fn broken(check: &Check, api: &impl Api) -> (What, Duration, &'static str) {
    let usual = |says| (What::DataPlane(None), Duration::ZERO, says);
    let later = |days: u32, says| (What::ControlPlane, days * DAY, says);
    let network = |says| {
        edit(api, "ConfigMap", "linkerd", "linkerd-config", |map| {
            map["data"]["values"] = json!("linkerdVersion: v1\nclusterNetworks: 192.168.0.0/16\n");
        });
        usual(says)
    };
    match check {
        c if c == &table::ANSWERS => {
            api.goes();
            usual("API server ")
        }
        c if c == &table::MINIMUM => {
            api.ages();
            usual("the API server is v1.30.9, older than v1.31")
        }
        c if c == &table::GATEWAY_API => {
            api.delete("CustomResourceDefinition", "", "grpcroutes.gateway.networking.k8s.io");
            usual("grpcroutes.gateway.networking.k8s.io is missing")
        }
        c if c == &table::NO_MESH => {
            (What::Pre, Duration::ZERO, "a control plane is installed in the namespace linkerd already")
        }
        c if c == &table::FREE => {
            api.delete("ConfigMap", "linkerd", "linkerd-config");
            (What::Pre, Duration::ZERO, "the namespace linkerd exists")
        }
        c if c == &table::CLUSTER_OBJECTS => {
            api.forbid("clusterrolebindings");
            (What::Pre, Duration::ZERO, "cannot create ClusterRoleBinding linkerd-linkerd-destination: ")
        }
        c if c == &table::CREATE_ACCOUNTS => may_not(api, "serviceaccounts", "may not create serviceaccounts"),
        c if c == &table::CREATE_SERVICES => may_not(api, "services", "may not create services"),
        c if c == &table::CREATE_DEPLOYMENTS => may_not(api, "deployments", "may not create deployments"),
        c if c == &table::CREATE_CONFIG_MAPS => may_not(api, "configmaps", "may not create configmaps"),
        c if c == &table::CREATE_SECRETS => may_not(api, "secrets", "may not create secrets"),
        c if c == &table::READ_SECRETS => may_not(api, "secrets", "may not get secrets in the namespace linkerd"),
        c if c == &table::CLOCK => {
            edit(api, "Node", "", "n1", |node| {
                let condition = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"});
                node["status"] = json!({"conditions": [condition]});
            });
            (What::Pre, Duration::ZERO, "the clock of node n1 and this machine's")
        }
        c if c == &table::DEFINED => {
            api.delete("CustomResourceDefinition", "", "servers.policy.linkerd.io");
            (What::Crds, Duration::ZERO, "servers.policy.linkerd.io of version ")
        }
        c if c == &table::DEFINITIONS => {
            api.delete("CustomResourceDefinition", "", "servers.policy.linkerd.io");
            usual("servers.policy.linkerd.io of version ")
        }
        c if c == &table::VALUES => {
            edit(api, "ConfigMap", "linkerd", "linkerd-config", |map| map["data"]["values"] = json!("nonsense: 1\n"));
            usual("nonsense: there is no such value")
        }
        c if c == &table::REPLICAS => {
            edit(api, "Deployment", "linkerd", "linkerd-identity", |d| d["status"] = json!({}));
            usual("of the Deployment linkerd-identity 0 of 1 replicas are ready")
        }
        c if c == &table::SCHEDULABLE => {
            edit(api, "Pod", "linkerd", "identity", |pod| {
                let condition = json!({"type": "PodScheduled", "status": "False", "message": "0/1 nodes"});
                pod["status"]["conditions"][0] = condition;
            });
            usual("pod identity: 0/1 nodes")
        }
        c if c == &table::READY => {
            edit(api, "Pod", "linkerd", "identity", |pod| pod["status"]["conditions"][1]["status"] = json!("False"));
            usual("pod identity is not ready")
        }
        c if c == &table::NODE_NETWORKS => network("node n1 has 10.244.0.0/24"),
        c if c == &table::POD_NETWORKS => network("has 10.244.0.7"),
        c if c == &table::SERVICE_NETWORKS => network("Service shop/web has 10.96.0.9"),
        c if c == &table::NAMESPACE => {
            api.delete("Namespace", "", "linkerd");
            usual("there is no Namespace linkerd")
        }
        c if c == &table::ROLES => {
            api.delete("ClusterRole", "", "linkerd-policy");
            usual("there is no ClusterRole linkerd-policy")
        }
        c if c == &table::BINDINGS => {
            api.delete("ClusterRoleBinding", "", "linkerd-destination-policy");
            usual("there is no ClusterRoleBinding linkerd-destination-policy")
        }
        c if c == &table::ACCOUNTS => {
            api.delete("ServiceAccount", "linkerd", "linkerd-identity");
            usual("there is no ServiceAccount linkerd-identity")
        }
        c if c == &table::SERVICES => {
            api.delete("Service", "linkerd", "linkerd-policy");
            usual("there is no Service linkerd-policy")
        }
        c if c == &table::CONFIGURED => {
            edit(api, "MutatingWebhookConfiguration", "", "linkerd-proxy-injector-webhook-config", |config| {
                config["webhooks"][0]["rules"][0]["resources"] = json!(["services"]);
            });
            usual(
                "the MutatingWebhookConfiguration linkerd-proxy-injector-webhook-config has no rule for CREATE of pods,services (core/v1, \
                 scope Namespaced)",
            )
        }
        c if c == &table::MUTATING => {
            api.delete("MutatingWebhookConfiguration", "", "linkerd-proxy-injector-webhook-config");
            usual("there is no MutatingWebhookConfiguration linkerd-proxy-injector-webhook-config")
        }
        c if c == &table::ANCHORS => {
            edit(api, "Secret", "linkerd", "linkerd-identity-issuer", |s| s["data"]["key.pem"] = json!(null));
            edit(api, "Secret", "linkerd", "linkerd-identity-issuer", |s| {
                s["data"].as_object_mut().unwrap().remove("key.pem");
            });
            usual("the Secret linkerd-identity-issuer has no key key.pem")
        }
        c if c == &table::RUN_AS_ROOT => {
            edit(api, "Node", "", "n1", |node| {
                let mut info = json!({"containerRuntimeVersion": "docker://20.10.0"});
                for other in [
                    "architecture",
                    "bootID",
                    "kernelVersion",
                    "kubeProxyVersion",
                    "kubeletVersion",
                    "machineID",
                    "operatingSystem",
                    "osImage",
                    "systemUUID",
                ] {
                    info[other] = json!("");
                }
                node["status"] = json!({"nodeInfo": info});
            });
            usual("on nodes that run Docker (n1) linkerd-init has to be root")
        }
        c if c == &table::ANCHORS_ALGORITHM => {
            edit(api, "ConfigMap", "linkerd", "linkerd-identity-trust-roots", |map| {
                map["data"]["ca-bundle.crt"] = json!(p384().0);
            });
            usual("the ConfigMap linkerd-identity-trust-roots")
        }
        c if c == &table::ISSUER_ALGORITHM => {
            edit(api, "Secret", "linkerd", "linkerd-identity-issuer", |secret| {
                let (certificate, key) = p384();
                secret["data"]["crt.pem"] = json!(ByteString(certificate.into_bytes()));
                secret["data"]["key.pem"] = json!(ByteString(key.into_bytes()));
            });
            usual("is not signed with ECDSA or RSA and SHA-256")
        }
        c if c == &table::ANCHORS_NOW => later(3651, "has expired"),
        c if c == &table::ANCHORS_SOON => later(3600, "days more"),
        c if c == &table::ISSUER_NOW => later(366, "has expired"),
        c if c == &table::ISSUER_SOON => later(310, "days more"),
        c if c == &table::ISSUED => {
            edit(api, "ConfigMap", "linkerd", "linkerd-identity-trust-roots", |map| {
                map["data"]["ca-bundle.crt"] = json!(material(true).anchors_pem);
            });
            usual("proxies would refuse what this issuer signs")
        }
        c if c == &table::INJECTOR => {
            edit(api, "MutatingWebhookConfiguration", "", "linkerd-proxy-injector-webhook-config", |config| {
                let bundle = ByteString(material(true).proxy_injector.certificate.as_bytes().to_vec());
                config["webhooks"][0]["clientConfig"]["caBundle"] = json!(bundle);
            });
            usual("does not vouch for the Secret linkerd-proxy-injector-k8s-tls")
        }
        c if c == &table::TRUSTED => {
            edit(api, "Pod", "shop", "web-1", |pod| {
                pod["spec"]["initContainers"][0]["env"] =
                    json!([{"name": "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", "value": material(true).anchors_pem}]);
            });
            usual("the proxy of pod shop/web-1 trusts other roots")
        }
        c if c == &table::PROXIES_VERSION => {
            edit(api, "Pod", "linkerd", "identity", |pod| {
                pod["metadata"]["annotations"] = json!({"linkerd.io/proxy-version": "v0"});
            });
            usual("the proxy of pod linkerd/identity is v0, not v1")
        }
        c if c == &table::DATA_VERSION => {
            edit(api, "Pod", "shop", "web-1", |pod| {
                pod["metadata"]["annotations"] = json!({"linkerd.io/proxy-version": "v0"});
            });
            usual("the proxy of pod shop/web-1 is v0, not v1")
        }
        c if c == &table::POD_LABELS => {
            edit(api, "Pod", "shop", "web-1", |pod| pod["metadata"]["labels"]["linkerd.io/inject"] = json!("enabled"));
            usual("pod shop/web-1 has the label linkerd.io/inject")
        }
        c if c == &table::SERVICE_LABELS => {
            edit(api, "Service", "shop", "web", |service| {
                service["metadata"]["labels"] = json!({"config.linkerd.io/opaque-ports": "80"});
            });
            usual("Service shop/web has the label config.linkerd.io/opaque-ports")
        }
        c if c == &table::SERVICE_ANNOTATIONS => {
            edit(api, "Service", "shop", "web", |service| {
                service["metadata"]["annotations"] = json!({"mirror.linkerd.io/exported": "true"});
            });
            usual("Service shop/web has the annotation mirror.linkerd.io/exported")
        }
        c if c == &table::OPAQUE_PORTS => {
            edit(api, "Service", "shop", "web", |service| {
                service["metadata"]["annotations"] = json!({"config.linkerd.io/opaque-ports": "db"});
            });
            usual(
                "port 80 of Service shop/web is opaque, and port 8080 of pod shop/web-1, which it leads to, is not opaque",
            )
        }
        c if c == &table::PROBES => {
            edit(api, "Pod", "shop", "web-1", |pod| {
                pod["spec"]["containers"][0]["readinessProbe"] = json!({"httpGet": {"path": "/ready", "port": 8080}});
                pod["status"]["hostIP"] = json!("10.0.0.1");
            });
            api.put(json!({"kind": "Server", "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "port": 8080}}));
            api.put(json!({"kind": "HTTPRoute", "apiVersion": "policy.linkerd.io/v1beta3", "metadata": {"name": "all", "namespace": "shop"},
                "spec": {"parentRefs": [{"group": "policy.linkerd.io", "kind": "Server", "name": "web"}],
                    "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]}}));
            usual("GET /ready at port 8080 of pod shop/web-1 is denied from somebody at 10.0.0.1")
        }
        c if c == &table::SEVERAL => {
            edit(api, "ConfigMap", "linkerd", "linkerd-config", |map| {
                map["data"]["values"] = json!("linkerdVersion: v1\nhighAvailability: true\n");
            });
            usual("of the Deployment linkerd-destination 0 replicas are available")
        }
        c if c == &table::EXTENSIONS => {
            for name in ["viz", "viz-2"] {
                api.put(
                    json!({"kind": "Namespace", "metadata": {"name": name, "labels": {"linkerd.io/extension": "viz"}}}),
                );
            }
            usual("the namespaces viz, viz-2 have the extension viz")
        }
        c if c == &table::INJECTOR_SOON || c == &table::PROFILES_SOON || c == &table::POLICIES_SOON => {
            later(310, "days more")
        }
        c if c == &table::PROFILES || c == &table::POLICIES => {
            let name = if c == &table::PROFILES { "linkerd-sp-validator" } else { "linkerd-policy-validator" };
            edit(api, "ValidatingWebhookConfiguration", "", &format!("{name}-webhook-config"), |config| {
                config["webhooks"][0]["clientConfig"]["caBundle"] = json!("");
            });
            usual("does not vouch for the Secret linkerd-")
        }
        c if c == &table::VALIDATING => {
            api.delete("ValidatingWebhookConfiguration", "", "linkerd-policy-validator-webhook-config");
            usual("there is no ValidatingWebhookConfiguration linkerd-policy-validator-webhook-config")
        }
        c if c == &table::SAME_VERSION => {
            edit(api, "ConfigMap", "linkerd", "linkerd-config", |map| {
                map["data"]["values"] = json!("linkerdVersion: v2\n");
            });
            usual("the control plane is v2, this command v1")
        }
        c if c == &table::PROXIES => {
            edit(api, "Pod", "linkerd", "identity", |p| {
                p["status"]["initContainerStatuses"][0]["ready"] = json!(false)
            });
            usual("the proxy of pod linkerd/identity is not ready")
        }
        c if c == &table::SERVERS => {
            api.delete("Server", "linkerd", "linkerd-identity-grpc");
            usual("there is no Server linkerd-identity-grpc")
        }
        c if c == &table::SERVER_AUTHORIZATIONS => {
            api.delete("ServerAuthorization", "linkerd", "linkerd-identity-grpc");
            usual("there is no ServerAuthorization linkerd-identity-grpc")
        }
        c if c == &table::QUARANTINED => {
            api.put(json!({"kind": "Server", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"podSelector": {}, "port": 0}}));
            usual("Server shop/web: spec.port: it is no port; use 1 to 65535")
        }
        c if c == &table::DATA_NAMESPACE => {
            (What::DataPlane(Some("nowhere".to_owned())), Duration::ZERO, "there is no namespace nowhere")
        }
        c if c == &table::DATA_PROXIES => {
            edit(api, "Pod", "shop", "web-1", |p| p["status"]["initContainerStatuses"][0]["ready"] = json!(false));
            usual("the proxy of pod shop/web-1 is not ready")
        }
        c if c == &table::UNMESHED => {
            api.put(pod("web-2", "shop", json!({}), false));
            usual("pod shop/web-2 has no proxy")
        }
        other => panic!("{other:?} has no test"),
    }
}
