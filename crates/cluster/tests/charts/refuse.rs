//! What is refused, by Helm as by weft, says what to do.

use crate::{
    both::{CONTROL_PLANE, DEFINITIONS, Given, pems},
    samples::BUNDLE,
};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Output};
use weft_cluster::values::Values;

fn told(output: &Output) -> String {
    assert!(!output.status.success() && output.stdout.is_empty(), "it is taken");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Paths and remedies of the page about values.
fn refused() -> Vec<(String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/values.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, table) = page.split_once("## Values that weft does not carry out").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "));
    let rows: Vec<_> = rows.map(|(path, remedy)| (path.to_owned(), remedy.to_owned())).collect();
    assert!(rows.len() > 20, "{}", rows.len());
    rows
}

#[test]
fn what_is_not_carried_out_is_refused_with_what_to_use_instead() {
    let given = || Given::default().file("refused", &pems());
    let all = refused().iter().fold(given(), |given, (path, _)| given.set(&format!("{path}=asked")));
    let (helm, weft) = (told(&all.helm(CONTROL_PLANE)), told(&all.weft(&[])));
    for (path, remedy) in refused() {
        for told in [&helm, &weft] {
            let line = told.lines().find(|line| line.contains(&format!("{path}: ")));
            assert!(
                line.is_some_and(|line| line.contains("weft does not carry out \"asked\"") && line.contains(&remedy)),
                "{path}: {told}"
            );
        }
    }
    // The chart of definitions has four values, and takes nothing else.
    for (value, told_is) in
        [("installGatewayAPI=some", "installGatewayAPI"), ("enableUdpRoutes=true", "enableUdpRoutes")]
    {
        let told = told(&Given::default().set(value).helm(DEFINITIONS));
        assert!(told.contains(told_is), "{told}");
    }
}

/// By who carries all of Linkerd's over.
#[test]
fn linkerds_own_defaults_are_taken_but_for_its_image() {
    let values = |text| Values::layer(text).unwrap();
    let mut linkerds = values(include_str!("../kubernetes/testdata/linkerd-values.yaml"));
    let mut available = values(include_str!("../kubernetes/testdata/linkerd-values-ha.yaml"));
    let of = |linkerds: &Value, available: &Value| {
        let given = Given::default().file("all-linkerds", linkerds).file("all-available", available);
        given.file("all-pems", &pems())
    };
    let given = of(&linkerds, &available);
    for told in [told(&given.helm(CONTROL_PLANE)), told(&given.weft(&[]))] {
        assert!(told.contains("controllerImage: it is Linkerd's, in which weft is not; remove it, with"), "{told}");
        assert_eq!(told.matches("; remove it").count(), 1, "{told}");
    }
    linkerds.as_object_mut().unwrap().remove("controllerImage");
    let given = of(&linkerds, &available);
    for output in [given.helm(CONTROL_PLANE), given.weft(&[])] {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    linkerds["networkValidator"]["securityContext"]["capabilities"]["drop"] = json!(["ALL", "NET_RAW"]);
    available["heartbeatResources"]["cpu"]["request"] = json!("1");
    let given = of(&linkerds, &available);
    for told in [told(&given.helm(CONTROL_PLANE)), told(&given.weft(&[]))] {
        for path in ["networkValidator", "heartbeatResources"] {
            assert!(told.contains(&format!("{path}: weft does not carry out ")), "{told}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let base = pems();
    for (path, values) in [
        ("proxyy", json!({"proxyy": {}})),
        ("tag", json!({"proxy": {"image": {"tag": "x"}}})),
        ("admin", json!({"proxy": {"ports": {"admin": 70000}}})),
        ("admin", json!({"proxy": {"ports": {"admin": 0}}})),
        ("uid", json!({"proxy": {"uid": 0}})),
        ("controllerUID", json!({"controllerUID": 0})),
        ("controllerReplicas", json!({"controllerReplicas": -1})),
        ("timeoutSeconds", json!({"proxyInjector": {"timeoutSeconds": 31}})),
        ("maxUnavailable", json!({"controller": {"podDisruptionBudget": {"maxUnavailable": "some"}}})),
        ("priorityClassName", json!({"priorityClassName": "High"})),
        ("imagePullPolicy", json!({"imagePullPolicy": "Sometimes"})),
        ("controllerReplicas", json!({"controllerReplicas": "many"})),
        (
            "keepAliveTimeout",
            json!({"proxy": {"inbound": {"server": {"http2": {"keepAliveTimeout": {"seconds": 3}}}}}}),
        ),
        ("outboundConnectTimeout", json!({"proxy": {"outboundConnectTimeout": "1m30s"}})),
        ("outboundConnectTimeout", json!({"proxy": {"outboundConnectTimeout": 100}})),
        ("initialTimeout", json!({"proxy": {"control": {"streams": {"initialTimeout": "0s"}}}})),
        ("logLevel", json!({"proxy": {"logLevel": "warn,linkerd=infoo"}})),
        ("logLevel", json!({"proxyInit": {"logLevel": "verbose"}})),
        ("controllerLogLevel", json!({"controllerLogLevel": "info,linkerd=infoo"})),
        ("issuanceLifetime", json!({"identity": {"issuer": {"issuanceLifetime": "1d"}}})),
        ("issuanceLifetime", json!({"identity": {"issuer": {"issuanceLifetime": "0s"}}})),
        ("controllerImage", json!({"controllerImage": "r/Controller"})),
        ("version", json!({"proxy": {"image": {"version": "v1 beta"}}})),
        ("caBundle", json!({"proxyInjector": {"caBundle": "foo"}})),
        ("injectCaFrom", json!({"policyValidator": {"externalSecret": true, "injectCaFrom": "foo"}})),
        ("proxyInit.xtMountPath.name: ", json!({"proxyInit": {"xtMountPath": {"name": "linkerd-identity-token"}}})),
        ("proxyInit.xtMountPath.name: ", json!({"proxyInit": {"xtMountPath": {"name": "kube-api-access"}}})),
        ("privileged", json!({"proxy": {"securityContext": {"privileged": 1}}})),
        ("foo", json!({"proxy": {"securityContext": {"foo": 1}}})),
        ("endpoint", json!({"proxy": {"tracing": {"collector": {"endpoint": "http://c:4317"}}}})),
    ] {
        let given = Given::default().file("wrong-base", &base).file("wrong", &values);
        for told in [told(&given.helm(CONTROL_PLANE)), told(&given.weft(&[]))] {
            assert!(told.contains(path), "{path}: {told}");
        }
    }
    // All at once.
    let together = json!({
        "proxy": {"waitBeforeExitSeconds": 5, "ports": {"control": 4191}, "tracing": {"enabled": true},
            "control": {"streams": {"initialTimeout": "6m", "lifetime": "1m"}}},
        "proxyInit": {"closeWaitTimeoutSecs": 5},
        "proxyInjector": {"injectCaFrom": "linkerd/a", "injectCaFromSecret": "linkerd/b", "caBundle": BUNDLE, "keyPEM": ""},
        "identity": {"issuer": {"scheme": "kubernetes.io/tls"}},
    });
    let given = Given::default().file("together-base", &base).file("together", &together);
    let (helm, weft) = (told(&given.helm(CONTROL_PLANE)), told(&given.weft(&[])));
    for path in [
        "proxy.waitBeforeExitSeconds",
        "proxy.ports",
        "proxy.control.streams.initialTimeout: it is longer than",
        "proxy.control.streams.idleTimeout: it is longer than",
        "proxy.tracing.collector.endpoint",
        "proxy.tracing.collector.meshIdentity.serviceAccountName",
        "proxy.tracing.collector.meshIdentity.namespace",
        "proxyInit.closeWaitTimeoutSecs",
        "proxyInjector.injectCaFrom",
        "proxyInjector.caBundle",
        "proxyInjector.crtPEM",
        "identity.issuer.tls.crtPEM",
    ] {
        for told in [&helm, &weft] {
            assert!(told.contains(path), "{path}: {told}");
        }
    }
}

/// What the API server trusts is never a certificate that nobody has.
#[test]
fn a_webhook_whose_secret_is_yours_wants_to_know_whom_to_trust() {
    let webhooks = ["proxyInjector", "profileValidator", "policyValidator"];
    let without = |besides: Value| {
        let mut values = pems();
        for webhook in webhooks {
            values[webhook] = besides.clone();
            values[webhook]["externalSecret"] = json!(true);
        }
        values
    };
    let given = Given::default().file("untrusted", &without(json!({})));
    for told in [told(&given.helm(CONTROL_PLANE)), told(&given.weft(&[]))] {
        for webhook in webhooks {
            let wanted =
                format!("{webhook}.caBundle: nobody says who vouches for the certificate of your Secret; give it, or");
            assert!(told.contains(&wanted), "{told}");
        }
    }
    for (name, trusted) in [("bundle", json!({"caBundle": BUNDLE})), ("injected", json!({"injectCaFrom": "linkerd/a"}))]
    {
        let given = Given::default().file(&format!("trusted-{name}"), &without(trusted));
        for output in [given.helm(CONTROL_PLANE), given.weft(&[])] {
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// `weft install` makes a root and an issuer; Helm would make others at every upgrade.
#[test]
fn helm_has_to_be_given_the_certificates_of_identity() {
    let told = told(&Given::default().helm(CONTROL_PLANE));
    for wanted in ["identityTrustAnchorsPEM: ", "identity.issuer.tls.crtPEM: ", "identity.issuer.tls.keyPEM: "] {
        assert!(told.contains(wanted), "{told}");
    }
    assert!(told.contains("docs/certificates.md") && told.contains("--set-file identityTrustAnchorsPEM="), "{told}");
    let null = Given::default().file("null", &pems()).file("null-value", &json!({"proxy": {"logLevel": Value::Null}}));
    let told = self::told(&null.helm(CONTROL_PLANE));
    assert!(told.contains("logLevel"), "a default that is taken away is missed: {told}");
}
