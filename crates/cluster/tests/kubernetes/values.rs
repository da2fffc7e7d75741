//! The values of an installation: defaults, layers, and what is refused.

use serde_json::json;
use weft_cluster::{
    values::{Values, highly_available},
    yaml,
};

fn problems(values: serde_json::Value) -> String {
    Values::from_layers([values]).map_or_else(|p| p.to_string(), |_| "accepted".to_owned())
}

#[test]
fn no_values_are_the_defaults() {
    assert_eq!(Values::from_yaml("").unwrap(), Values::default());
    assert_eq!(Values::from_yaml("proxy: null\nproxyInit: {runAsUser: null}\n").unwrap(), Values::default());
}

#[test]
fn the_defaults_are_linkerds() {
    let mut defaults = serde_json::to_value(Values::default()).unwrap();
    defaults["linkerdVersion"] = json!("VERSION");
    insta::assert_snapshot!(yaml::text(&defaults));
}

/// Written out and read again nothing changes: `linkerd-config` holds them so.
#[test]
fn values_are_read_as_they_are_written() {
    let less = json!({"nodeSelector": {"kubernetes.io/os": null, "disk": "ssd"}, "proxy": {"tracing": {"labels": {"k8s.pod.ip": null}}}});
    let proxy = json!({"proxy": {"cores": 2, "additionalEnv": [{"name": "A"}]}});
    for layers in [vec![], vec![highly_available()], vec![proxy], vec![less]] {
        let values = Values::from_layers(layers).unwrap();
        let text = yaml::text(&serde_json::to_value(&values).unwrap());
        assert_eq!(Values::from_yaml(&text).unwrap(), values);
    }
}

#[test]
fn layers_join_maps_and_replace_the_rest() {
    let below = json!({
        "proxy": {"resources": {"cpu": {"request": "1"}}, "logLevel": "debug"},
        "podLabels": {"a": "b"},
        "tolerations": [{"key": "x"}, {"key": "y"}],
    });
    let above = json!({
        "proxy": {"resources": {"cpu": {"limit": 2}}, "logLevel": null},
        "podLabels": {"c": true},
        "tolerations": [{"key": "z"}],
    });
    let values = Values::from_layers([below, above]).unwrap();
    assert_eq!(&*values.proxy.resources.cpu.request, "1");
    assert_eq!(&*values.proxy.resources.cpu.limit, "2");
    assert_eq!(values.proxy.log_level, Values::default().proxy.log_level);
    assert_eq!(values.pod_labels.len(), 2);
    assert_eq!(&*values.pod_labels["c"], "true");
    assert_eq!(values.tolerations.len(), 1);
}

/// As Helm does: a default that is a map has entries that somebody may not want.
#[test]
fn null_takes_an_entry_away_and_is_the_default_of_all_else() {
    let of = |values| Values::from_layers([values]).unwrap();
    assert!(of(json!({"nodeSelector": {"kubernetes.io/os": null}})).node_selector.is_empty());
    let labels = of(json!({"proxy": {"tracing": {"labels": {"k8s.pod.ip": null}}}})).proxy.tracing.labels;
    assert_eq!(labels.keys().collect::<Vec<_>>(), ["k8s.container.name", "k8s.pod.uid"]);
    let all = json!({"nodeSelector": null, "controllerReplicas": null, "proxy": {"tracing": {"labels": null}, "resources": {"cpu": null}}});
    assert_eq!(of(all), Values::default());
}

#[test]
fn a_fraction_may_be_a_text() {
    let of = |ratio: serde_json::Value| json!({"proxy": {"runtime": {"workers": {"maximumCPURatio": ratio}}}});
    for ratio in [json!(0.5), json!("0.5"), json!(".50")] {
        assert_eq!(Values::from_layers([of(ratio)]).unwrap().proxy.runtime.workers.maximum_cpu_ratio, Some(0.5));
    }
    assert_eq!(
        problems(of(json!("half"))),
        "proxy.runtime.workers.maximumCPURatio: \"half\" is no number; give what docs/reference/values.md says"
    );
}

/// Serde reads a list as an object by the order of its fields.
#[test]
fn a_list_is_no_object() {
    for (values, path) in [
        (json!({"proxy": {"resources": {"cpu": ["1", "2"]}}}), "proxy.resources.cpu"),
        (json!({"proxy": {"resources": {"cpu": ["1", "2", "3"]}}}), "proxy.resources.cpu"),
        (json!({"proxy": {"resources": []}}), "proxy.resources"),
        (json!({"proxyInit": []}), "proxyInit"),
    ] {
        let told = problems(values);
        assert!(told.starts_with(&format!("{path}: it is a list; give an object, such as {{key: value}}")), "{told}");
    }
}

/// No type's name is.
#[test]
fn what_is_written_instead_is_told_by_its_fields() {
    for (values, told) in [
        (
            json!({"imagePullSecrets": ["pull"]}),
            "imagePullSecrets[0]: it is the text \"pull\"; give an object with the fields name",
        ),
        (
            json!({"imagePullSecrets": "pull"}),
            "imagePullSecrets: it is the text \"pull\"; give a list, each element an object with the fields name",
        ),
        (
            json!({"tolerations": [true]}),
            "tolerations[0]: it is true; give an object with the fields key, effect, operator, tolerationSeconds, value",
        ),
        (
            json!({"proxy": {"additionalEnv": ["A=B"]}}),
            "proxy.additionalEnv[0]: it is the text \"A=B\"; give an object with the fields name, value, valueFrom",
        ),
        (
            json!({"deploymentStrategy": "Recreate"}),
            "deploymentStrategy: it is the text \"Recreate\"; give an object with the fields rollingUpdate, type",
        ),
        (
            json!({"deploymentStrategy": {"rollingUpdate": 1}}),
            "deploymentStrategy.rollingUpdate: it is the number 1; give an object, such as {key: value}",
        ),
    ] {
        assert_eq!(problems(values), told);
    }
}

#[test]
fn what_is_wrong_is_named_all_at_once() {
    let values = json!({
        "proxyy": {},
        "proxy": {"image": {"tag": "x"}},
        "cniEnabled": true,
        "heartbeatSchedule": "0 0 * * *",
        "tolerations": [{"keyy": "x"}],
    });
    insta::assert_snapshot!("unknown-and-refused", problems(values));
    insta::assert_snapshot!("wrong-type", problems(json!({"proxy": {"ports": {"admin": 70000}}})));
    let values = json!({
        "clusterDomain": "Cluster.local",
        "clusterNetworks": "10.0.0.0/8,10.0.0.0/40",
        "imagePullPolicy": "Sometimes",
        "proxy": {
            "defaultInboundPolicy": "all",
            "opaquePorts": "25,70000",
            "uid": 0,
            "waitBeforeExitSeconds": 5,
            "ports": {"control": 4191},
            "resources": {"cpu": {"limit": "100m", "request": "1"}, "memory": {"limit": "much"}},
            "runtime": {"workers": {"maximumCPURatio": 1.5}},
            "tracing": {"enabled": true},
        },
        "proxyInit": {"closeWaitTimeoutSecs": 5, "iptablesMode": "ebpf"},
        "proxyInjector": {"injectCaFrom": "a/b", "injectCaFromSecret": "b", "caBundle": "c", "crtPEM": "d"},
        "profileValidator": {"externalSecret": true},
    });
    insta::assert_snapshot!("cannot-be", problems(values));
    let values = json!({
        "controllerImage": "r/Controller",
        "controllerImageVersion": "v1 beta",
        "controllerLogLevel": "verbose",
        "identity": {"issuer": {"issuanceLifetime": "1d", "clockSkewAllowance": 20}},
        "proxy": {
            "control": {"streams": {"lifetime": "1m", "initialTimeout": "0s"}},
            "image": {"name": "r/p:v1"},
            "inbound": {"server": {"http2": {"keepAliveTimeout": "0ms"}}},
            "inboundConnectTimeout": 100,
            "outboundConnectTimeout": "1m30s",
            "outboundDiscoveryCacheUnusedTimeout": "5",
            "logLevel": "warn,linkerd=infoo",
            "shutdownGracePeriod": "1.5h",
            "tracing": {"collector": {"endpoint": "http://collector:4317"}},
        },
        "proxyInit": {"logLevel": "verbose"},
    });
    insta::assert_snapshot!("cannot-be-read", problems(values));
}

/// By then half of an installation would stand.
#[test]
fn what_the_api_server_would_refuse_is_named_before() {
    let values = json!({
        "commonLabels": {"the team": "mesh"},
        "podLabels": {"team": "the mesh"},
        "nodeSelector": {"Example.org/pool": "-"},
        "podAnnotations": {"Example.org/ok": "any text", "a b": ""},
        "podMonitor": {"labels": {"release": "x/y"}, "scrapeInterval": 10, "scrapeTimeout": "1.5s", "controller": {"namespaceSelector": "matchNames: shop"}},
        "configReaders": [{"name": "Reader", "namespace": "a.b"}, {"name": "own"}],
        "tolerations": [
            {"key": "a b", "operator": "Exists", "value": "x", "tolerationSeconds": 3}, {"effect": "NoRun", "operator": "Is"},
        ],
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [
                    {"key": "disk", "operator": "In"}, {"key": "cpus", "operator": "Gt", "values": ["1", "2"]}, {"key": "-", "operator": "Is"},
                ]},
                {"matchFields": [{"key": "spec.unschedulable", "operator": "Exists"}]},
            ]},
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 0, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists", "values": ["ssd"]}]}},
            ],
        },
        "proxyInjector": {
            "namespaceSelector": {"matchLabels": {"team": "the mesh"}},
            "objectSelector": {"matchExpressions": [{"key": "team", "operator": "Gt", "values": ["a b"]}]},
        },
        "controllerReplicas": -1,
        "controllerUID": 0,
        "controllerGID": -2,
        "revisionHistoryLimit": -1,
        "priorityClassName": "High",
        "runtimeClassName": "g visor",
        "controller": {"podDisruptionBudget": {"maxUnavailable": "101%"}},
        "deploymentStrategy": {"type": "Sometimes", "rollingUpdate": {"maxSurge": "some", "maxUnavailable": -1}},
        "destinationController": {"additionalEnv": [{"name": "A=B"}], "livenessProbe": {"timeoutSeconds": -1}},
        "identity": {"experimentalEnv": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]},
        "proxy": {"uid": 3_000_000_000_u32, "ports": {"admin": 9990, "inbound": 0}, "startupProbe": {"periodSeconds": -1},
            "securityContext": {"foo": 1, "privileged": 1}},
        "proxyInit": {"runAsUser": -1, "xtMountPath": {"name": "Lock", "mountPath": "run"}},
    });
    insta::assert_snapshot!("api-server-would-refuse", problems(values));
    let neither = json!({"deploymentStrategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}});
    assert!(problems(neither).contains("no pod could ever be replaced"));
    let nowhere =
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}});
    assert!(problems(nowhere).contains("give a term"));
    let rights = json!({"proxy": {"securityContext": {"privileged": true, "runAsUser": -1}}});
    assert_eq!(problems(rights).matches("proxy.securityContext").count(), 2);
    for values in [
        json!({"proxy": {"securityContext": {"privileged": true, "allowPrivilegeEscalation": true, "seccompProfile": {"type": "Unconfined"}}}}),
        json!({"podMonitor": {"scrapeInterval": "1m30s", "scrapeTimeout": "0", "controller": {"namespaceSelector": "any: true"}}}),
        json!({"podMonitor": {"controller": {"namespaceSelector": ""}}}),
        json!({"tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 0}]}),
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "cpus", "operator": "Gt", "values": ["1"]}], "matchFields": [
                {"key": "metadata.name", "operator": "In", "values": ["n1"]},
            ]},
        ]}}}),
        json!({"policyValidator": {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}}}),
        json!({"commonLabels": {"example.org/team": "", "a": "b_c.d-E"}, "nodeSelector": {"disk": "ssd"}}),
        json!({"deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "200%", "maxUnavailable": 0}}}),
        json!({"controller": {"podDisruptionBudget": {"maxUnavailable": "50%"}}, "priorityClassName": "system-node-critical"}),
        json!({"proxyInit": {"runAsUser": 0}, "controllerGID": 0, "proxy": {"gid": 0}}),
        json!({"deploymentStrategy": {"type": "Recreate"}, "priorityClassName": "a".repeat(70), "runtimeClassName": "a.b"}),
        json!({"proxy": {"additionalEnv": [{"name": "a.B c:1", "value": "x"}], "ports": {"admin": 5191}}}),
    ] {
        assert_eq!(problems(values.clone()), "accepted", "{values}");
    }
    // What stands in a cluster has been taken.
    assert!(Values::from_yaml("podLabels: { team: the mesh }\n").is_ok());
}

/// What Linkerd's processes take, ours take as well.
#[test]
fn texts_that_processes_read_are_accepted() {
    for values in [
        json!({"controllerLogLevel": "panic"}),
        json!({"controllerLogLevel": "warn,linkerd=debug,kube[{x}]=2"}),
        json!({"identity": {"issuer": {"issuanceLifetime": "1.5h", "clockSkewAllowance": "0s"}}}),
        json!({"proxy": {"inboundConnectTimeout": "", "outboundDiscoveryCacheUnusedTimeout": "0s", "shutdownGracePeriod": "1d"}}),
        json!({"proxy": {"control": {"streams": {"initialTimeout": "1h", "idleTimeout": "60m", "lifetime": "3600s"}}}}),
        json!({"proxy": {"logLevel": "off", "cores": 0, "image": {"name": "localhost:5000/weft/proxy", "version": 1.1}}}),
        json!({"proxyInit": {"logLevel": "panic"}}),
    ] {
        assert_eq!(problems(values.clone()), "accepted", "{values}");
    }
}

/// The defaults of Linkerd's chart that weft has no use for are no mistake; anything else is.
#[test]
fn what_is_refused_is_accepted_where_it_changes_nothing() {
    let harmless = json!({
        "cniEnabled": false,
        "enablePSP": false,
        "enablePprof": false,
        "enableEndpointSlices": true,
        "disableHeartBeat": true,
        "prometheusUrl": "",
        "kubeAPI": {"clientQPS": 100, "clientBurst": 200},
        "identity": {"serviceAccountTokenProjection": true, "kubeAPI": {"clientQPS": 100}},
        "controller": {"tracing": {"enabled": false, "collector": {"endpoint": ""}}},
        "policyController": {"logLevel": "info", "resources": {"cpu": {"limit": ""}}, "livenessProbe": {"timeoutSeconds": 1}},
        "spValidator": {"livenessProbe": {"timeoutSeconds": 1}, "readinessProbe": {"timeoutSeconds": 1}},
        "destinationController": {"meshedHttp2ClientProtobuf": {"keep_alive": {"while_idle": true}}},
        "proxy": {"outboundTransportMode": "transport-header"},
    });
    assert_eq!(Values::from_layers([harmless]).unwrap(), Values::default());
    for harmful in [
        json!({"disableHeartBeat": "false"}),
        json!({"kubeAPI": {"clientQPS": 50}}),
        json!({"identity": {"serviceAccountTokenProjection": false}}),
        json!({"controller": {"tracing": {"enabled": true}}}),
        json!({"spValidatorResources": {"cpu": {"limit": "1"}}}),
        json!({"networkValidator": {"timeout": "20s"}}),
        json!({"networkValidator": {"securityContext": {"runAsNonRoot": false}}}),
        json!({"networkValidator": {"securityContext": {"capabilities": {"drop": ["ALL", "NET_RAW"]}}}}),
        json!({"heartbeatResources": {"cpu": {"request": "1"}}}),
    ] {
        assert!(problems(harmful.clone()).contains("weft does not carry out"), "{harmful}");
    }
}

/// Only images are another project's.
#[test]
fn who_carries_all_values_of_linkerds_over_gets_what_weft_has_by_default() {
    let mut defaults = Values::layer(include_str!("testdata/linkerd-values.yaml")).unwrap();
    let available = Values::layer(include_str!("testdata/linkerd-values-ha.yaml")).unwrap();
    let told = problems(defaults.clone());
    assert!(told.starts_with("controllerImage: it is Linkerd's, ") && told.lines().count() == 1, "{told}");
    for (at, own) in
        [("", "controllerImage"), ("", "linkerdVersion"), ("/proxy/image", "name"), ("/debugContainer/image", "name")]
    {
        assert!(defaults.pointer_mut(at).unwrap().as_object_mut().unwrap().remove(own).is_some());
    }
    assert_eq!(Values::from_layers([defaults.clone()]).map_err(|p| p.to_string()), Ok(Values::default()));
    let ours = Values::from_layers([highly_available()]).unwrap();
    assert_eq!(Values::from_layers([defaults, available]).map_err(|p| p.to_string()), Ok(ours));
}

#[test]
fn the_highly_available_ones_are_values() {
    let values = Values::from_layers([highly_available()]).unwrap();
    assert_eq!(values.controller_replicas, 3);
    assert_eq!(&*values.webhook_failure_policy, "Fail");
}

/// Written anew with WEFT_UPDATE=1.
#[test]
fn the_reference_of_values_follows_the_tree() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/values.md");
    let page = weft_cluster::values::reference();
    if std::env::var_os("WEFT_UPDATE").is_some() {
        std::fs::write(file, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(file).unwrap_or_default(), page, "write it anew with WEFT_UPDATE=1");
}
