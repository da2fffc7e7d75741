//! Options; what is rendered from values is shown by weft-cluster's golden files.

use super::*;
use crate::args::{Args, Command, ControlPlaneMode};
use clap::Parser;
use std::collections::BTreeSet;

fn parsed(words: &[&str]) -> Install {
    match Args::parse_from(["weft", "install"].iter().chain(words)).command {
        Command::Install(args) => *args,
        _ => panic!("another command"),
    }
}

fn given(words: &[&str]) -> anyhow::Result<serde_json::Value> {
    let args = parsed(words);
    let layers = layers::given(&args.given, &args.only, &args.options, &args.proxy)?;
    // What flags become is a value that there is.
    read(&layers)?;
    Ok(Values::given(layers))
}

#[test]
fn flags_become_values_and_set_beats_them() {
    let words = [
        "--controller-replicas=2",
        "--controller-gid=-1",
        "--controller-uid=7",
        "--controller-log-level=debug",
        "--cluster-domain=example.org",
        "--identity-trust-domain=trust.org",
        "--identity-external-issuer",
        "--identity-external-ca",
        "--identity-issuance-lifetime=1h",
        "--identity-clock-skew-allowance=5s",
        "--disable-h2-upgrade",
        "--disable-heartbeat",
        "--enable-endpoint-slices",
        "--control-plane-version=v2",
        "--inbound-port=5143",
        "--outbound-port=5140",
        "--control-port=5190",
        "--admin-port=5191",
        "--skip-inbound-ports=1,2-3",
        "--skip-outbound-ports=4",
        "--proxy-uid=9",
        "--proxy-gid=10",
        "--proxy-log-level=info",
        "--proxy-cpu-request=1m",
        "--proxy-cpu-limit=2m",
        "--proxy-memory-request=3Mi",
        "--proxy-memory-limit=4Mi",
        "--enable-external-profiles",
        "--default-inbound-policy=deny",
        "--registry=registry.example/weft/",
        "--image-pull-policy=Never",
        "--proxy-version=v3",
        "--set=controllerReplicas=5,podLabels.team=mesh",
        "--set-string=podLabels.number=1",
    ];
    let expected = json!({
        "controllerReplicas": 5, "controllerGID": -1, "controllerUID": 7, "controllerLogLevel": "debug",
        "clusterDomain": "example.org", "identityTrustDomain": "trust.org", "enableH2Upgrade": false, "disableHeartBeat": true,
        "enableEndpointSlices": true,
        "identity": {"externalCA": true,
            "issuer": {"scheme": "kubernetes.io/tls", "issuanceLifetime": "1h", "clockSkewAllowance": "5s"}},
        "linkerdVersion": "v2", "podLabels": {"team": "mesh", "number": "1"},
        "controllerImage": "registry.example/weft/controller", "imagePullPolicy": "Never",
        "debugContainer": {"image": {"name": "registry.example/weft/debug"}},
        "proxyInit": {"ignoreInboundPorts": "1,2-3", "ignoreOutboundPorts": "4"},
        "proxy": {
            "ports": {"inbound": 5143, "outbound": 5140, "control": 5190, "admin": 5191}, "uid": 9, "gid": 10, "logLevel": "info",
            "resources": {"cpu": {"request": "1m", "limit": "2m"}, "memory": {"request": "3Mi", "limit": "4Mi"}},
            "enableExternalProfiles": true, "defaultInboundPolicy": "deny",
            "image": {"name": "registry.example/weft/proxy", "version": "v3"},
        },
    });
    assert_eq!(given(&words).unwrap(), expected);
    assert_eq!(given(&["--ha"]).unwrap()["webhookFailurePolicy"], "Fail");
    assert_eq!(given(&["--ha", "--set=webhookFailurePolicy=Ignore"]).unwrap()["webhookFailurePolicy"], "Ignore");
}

#[test]
fn an_upgrade_takes_what_an_installation_takes_but_what_is_said_once() {
    use clap::CommandFactory;
    let words = |command: &str| {
        let args = Args::command();
        let command = args.find_subcommand(command).unwrap();
        command.get_arguments().map(|argument| argument.get_id().to_string()).collect::<BTreeSet<_>>()
    };
    let (install, upgrade) = (words("install"), words("upgrade"));
    let only = |of: &BTreeSet<String>, other: &BTreeSet<String>| of.difference(other).cloned().collect::<Vec<_>>();
    let once = [
        "cluster_domain",
        "identity_external_ca",
        "identity_external_issuer",
        "identity_trust_domain",
        "ignore_cluster",
    ];
    assert_eq!(only(&install, &upgrade), once);
    assert_eq!(only(&upgrade, &install), ["force", "from_manifests"]);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for (words, message) in [
        (vec!["--inbound-port=many"], "--inbound-port many"),
        (vec!["--set=controllerReplica=2"], "controllerReplica: there is no such value"),
        (vec!["--set=cniEnabled=true"], "cniEnabled: "),
        (vec!["--enable-endpoint-slices=false"], "enableEndpointSlices: "),
        (vec!["--set=controllerReplicas"], "there is no '='"),
        (vec!["--set-file=identityTrustAnchorsPEM"], "--set-file identityTrustAnchorsPEM"),
        (vec!["--identity-trust-anchors-file=/nowhere"], "reading /nowhere"),
        (vec!["--identity-trust-anchors-file=/dev/null"], "--identity-trust-anchors-file /dev/null: it is empty"),
        (vec!["--identity-issuer-key-file=/dev/null"], "--identity-issuer-key-file /dev/null: it is empty"),
        (vec!["--controller-log-level=verbose"], "controllerLogLevel: \"verbose\" is no filter of logs"),
        (vec!["--default-inbound-policy=all"], "proxy.defaultInboundPolicy"),
    ] {
        let error = given(&words).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    for words in [["--linkerd-cni-enabled"], ["--linkerd-namespace=A"]] {
        assert!(Args::try_parse_from(["weft", "install"].iter().chain(&words)).is_err(), "{words:?}");
    }
}

#[test]
fn every_process_takes_the_arguments_that_it_is_given() {
    for layer in [
        json!({}),
        weft_cluster::values::highly_available(),
        json!({"disableIPv6": false, "controllerLogFormat": "json"}),
        json!({"controllerLogLevel": "panic", "identity": {"issuer": {"issuanceLifetime": "1.5h", "clockSkewAllowance": "0s"}}}),
        json!({"clusterDomain": "example.org", "proxy": {"opaquePorts": "", "defaultInboundPolicy": "deny"}}),
        json!({"clusterNetworks": "10.0.0.0/8", "policyController": {"probeNetworks": ["10.9.0.0/16", "fd00::/8"]}}),
    ] {
        let values = read(&[layer]).unwrap();
        let objects = install::control_plane(Installation {
            values: &values,
            namespace: "mesh",
            by: By::Cli,
            material: &install::Material::default(),
            overrides: "",
        });
        let mut modes = vec![];
        for deployment in objects.iter().filter(|object| object["kind"] == "Deployment") {
            let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap();
            let own = containers.iter().find(|container| container["name"] != "linkerd-proxy").unwrap();
            let args = own["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
            let parsed =
                Args::try_parse_from(["weft"].into_iter().chain(args)).unwrap_or_else(|error| panic!("{error}"));
            let Command::ControlPlane(process) = parsed.command else { panic!("another command") };
            assert_eq!(process.control_namespace, "mesh");
            assert!(weft_telemetry::logs::check(&process.log_level).is_ok());
            modes.push(match process.mode {
                ControlPlaneMode::Destination { .. } => "destination",
                ControlPlaneMode::Identity { .. } => "identity",
                ControlPlaneMode::ProxyInjector { .. } => "proxy-injector",
            });
        }
        assert_eq!(modes, ["identity", "destination", "proxy-injector"]);
    }
}

/// Written anew with WEFT_UPDATE=1.
#[test]
fn the_charts_follow_the_installation() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts");
    let charts = weft_cluster::chart::charts();
    if std::env::var_os("WEFT_UPDATE").is_some() {
        let _ = std::fs::remove_dir_all(&folder);
        for (name, text) in &charts {
            let file = folder.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
    }
    for (name, text) in &charts {
        let written = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert_eq!(written, *text, "{name}: write it anew with WEFT_UPDATE=1");
    }
    let mut found = vec![folder.clone()];
    while let Some(path) = found.pop() {
        if path.is_dir() {
            found.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let name = path.strip_prefix(&folder).unwrap().to_string_lossy().into_owned();
            assert!(charts.contains_key(&name), "{name} is of no chart any more: write them anew with WEFT_UPDATE=1");
        }
    }
}
