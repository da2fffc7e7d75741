//! The three Deployments. What their processes are told are the arguments of `weft control-plane`.

use super::{
    DESTINATION, IDENTITY, Installation, Meta, PROXY_INJECTOR, config,
    pod::{self, Part},
    webhook::Webhook,
};
use crate::{
    inject::{REQUIRE_IDENTITY_PORTS, TRUST_ROOTS, TRUST_ROOTS_KEY},
    ports::{ADMIN_DESTINATION, ADMIN_IDENTITY, ADMIN_INJECTOR, POLICY_WEBHOOK, WEBHOOK},
    values::{Text, Values},
};
use serde_json::{Value, json};
use weft_model::names::{annotation::OPAQUE_PORTS, port};

const ISSUER_DIR: &str = "/var/run/linkerd/identity/issuer";
const ROOTS_DIR: &str = "/var/run/linkerd/identity/trust-roots";
const CONFIG_DIR: &str = "/var/run/linkerd/config";
const TLS_DIR: &str = "/var/run/linkerd/tls";
const PROFILE_TLS_DIR: &str = "/var/run/linkerd/profile-validator-tls";
const POLICY_TLS_DIR: &str = "/var/run/linkerd/policy-validator-tls";

pub(super) fn all(installation: &Installation<'_>, meta: &Meta<'_>) -> Vec<Value> {
    vec![identity(installation, meta), destination(installation, meta), injector(installation, meta)]
}

/// What all of them are told.
fn args(mode: &str, admin: u16, values: &Values, namespace: &str) -> Vec<String> {
    vec![
        "control-plane".to_owned(),
        mode.to_owned(),
        format!("--control-namespace={namespace}"),
        format!("--trust-domain={}", values.trust_domain()),
        format!("--cluster-domain={}", values.cluster_domain),
        format!("--admin-addr={}", listen(values, admin)),
        format!("--log-level={}", values.controller_log_level),
        format!("--log-format={}", values.controller_log_format),
    ]
}

fn listen(values: &Values, port: u16) -> String {
    if values.disable_ipv6 { format!("0.0.0.0:{port}") } else { format!("[::]:{port}") }
}

fn identity(installation: &Installation<'_>, meta: &Meta<'_>) -> Value {
    let values = meta.values;
    let of = &values.identity;
    let mut args = args("identity", ADMIN_IDENTITY, values, meta.namespace);
    args.extend([
        format!("--addr={}", listen(values, port::IDENTITY)),
        format!("--issuer={ISSUER_DIR}"),
        format!("--trust-roots={ROOTS_DIR}/{TRUST_ROOTS_KEY}"),
        format!("--issuance-lifetime={}", of.issuer.issuance_lifetime),
        format!("--clock-skew-allowance={}", of.issuer.clock_skew_allowance),
    ]);
    let part = Part {
        name: IDENTITY,
        component: "identity",
        is_selected_by_component: false,
        args,
        env: of.additional_env.iter().chain(&of.experimental_env).cloned().collect(),
        ports: &[("ident-grpc", port::IDENTITY), ("ident-admin", ADMIN_IDENTITY)],
        liveness: &of.liveness_probe,
        readiness: &of.readiness_probe,
        resources: values.identity_resources.as_ref(),
        proxy_resources: values.identity_proxy_resources.as_ref(),
        mounts: vec![
            ("identity-issuer", ISSUER_DIR, json!({ "secret": { "secretName": config::ISSUER } })),
            ("trust-roots", ROOTS_DIR, json!({ "configMap": { "name": TRUST_ROOTS } })),
        ],
        pod_annotations: vec![],
        extra_annotations: &of.pod_annotations,
        proxy: |values| {
            // Its certificate comes from the container beside it, which waits for nobody.
            values.proxy.native_sidecar = false;
            values.proxy.await_ready = false;
            values.proxy.require_tls_on_inbound_ports = Text::from(port::IDENTITY.to_string());
        },
        opaque_ports: "",
    };
    pod::deployment(&part, installation, meta)
}

fn destination(installation: &Installation<'_>, meta: &Meta<'_>) -> Value {
    let values = meta.values;
    let of = &values.destination_controller;
    let probe_networks: Vec<&str> = values.policy_controller.probe_networks.iter().map(|n| &**n).collect();
    let mut args = args("destination", ADMIN_DESTINATION, values, meta.namespace);
    args.extend([
        format!("--destination-addr={}", listen(values, port::DESTINATION)),
        format!("--policy-addr={}", listen(values, port::POLICY)),
        format!("--default-inbound-policy={}", values.proxy.default_inbound_policy),
        format!("--default-opaque-ports={}", values.proxy.opaque_ports),
        format!("--cluster-networks={}", values.cluster_networks),
        format!("--probe-networks={}", probe_networks.join(",")),
        format!("--enable-h2-upgrade={}", values.enable_h2_upgrade),
        format!("--enable-ipv6={}", !values.disable_ipv6),
        format!("--profile-validator-addr={}", listen(values, WEBHOOK)),
        format!("--profile-validator-tls={PROFILE_TLS_DIR}"),
        format!("--policy-validator-addr={}", listen(values, POLICY_WEBHOOK)),
        format!("--policy-validator-tls={POLICY_TLS_DIR}"),
    ]);
    let secret = |webhook: Webhook| json!({ "secret": { "secretName": webhook.secret() } });
    let mounts = vec![
        ("sp-tls", PROFILE_TLS_DIR, secret(Webhook::ProfileValidator)),
        ("policy-tls", POLICY_TLS_DIR, secret(Webhook::PolicyValidator)),
    ];
    args.extend(of.additional_args.iter().map(ToString::to_string));
    let part = Part {
        name: DESTINATION,
        component: "destination",
        is_selected_by_component: false,
        args,
        env: of.additional_env.iter().chain(&of.experimental_env).cloned().collect(),
        ports: &[
            ("dest-grpc", port::DESTINATION),
            ("policy-grpc", port::POLICY),
            ("sp-validator", WEBHOOK),
            ("policy-https", POLICY_WEBHOOK),
            ("dest-admin", ADMIN_DESTINATION),
        ],
        liveness: &of.liveness_probe,
        readiness: &of.readiness_probe,
        resources: values.destination_resources.as_ref(),
        proxy_resources: values.destination_proxy_resources.as_ref(),
        mounts,
        // Everybody of the mesh may ask, and nobody else.
        pod_annotations: vec![
            (REQUIRE_IDENTITY_PORTS, format!("{},{}", port::DESTINATION, port::POLICY)),
            (OPAQUE_PORTS, format!("{WEBHOOK},{POLICY_WEBHOOK}")),
        ],
        extra_annotations: &of.pod_annotations,
        proxy: |values| {
            values.proxy.require_identity_on_inbound_ports = format!("{},{}", port::DESTINATION, port::POLICY).into();
        },
        opaque_ports: "8443,9443",
    };
    pod::deployment(&part, installation, meta)
}

fn injector(installation: &Installation<'_>, meta: &Meta<'_>) -> Value {
    let values = meta.values;
    let of = &values.proxy_injector;
    let mut args = args("proxy-injector", ADMIN_INJECTOR, values, meta.namespace);
    args.extend([
        format!("--addr={}", listen(values, WEBHOOK)),
        format!("--tls={TLS_DIR}"),
        format!("--values={CONFIG_DIR}/values"),
        format!("--trust-roots={ROOTS_DIR}/{TRUST_ROOTS_KEY}"),
    ]);
    let part = Part {
        name: PROXY_INJECTOR,
        component: "proxy-injector",
        is_selected_by_component: true,
        args,
        env: of.additional_env.iter().chain(&of.experimental_env).cloned().collect(),
        ports: &[("proxy-injector", WEBHOOK), ("injector-admin", ADMIN_INJECTOR)],
        liveness: &of.liveness_probe,
        readiness: &of.readiness_probe,
        resources: values.proxy_injector_resources.as_ref(),
        proxy_resources: values.proxy_injector_proxy_resources.as_ref(),
        mounts: vec![
            ("config", CONFIG_DIR, json!({ "configMap": { "name": config::CONFIG } })),
            ("trust-roots", ROOTS_DIR, json!({ "configMap": { "name": TRUST_ROOTS } })),
            ("tls", TLS_DIR, json!({ "secret": { "secretName": Webhook::ProxyInjector.secret() } })),
        ],
        pod_annotations: vec![(OPAQUE_PORTS, WEBHOOK.to_string())],
        extra_annotations: &of.pod_annotations,
        proxy: |_| {},
        opaque_ports: "8443",
    };
    pod::deployment(&part, installation, meta)
}
