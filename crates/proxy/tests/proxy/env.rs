//! The environment: the reference follows the table, all problems come at once, defaults are what the table says.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};
use weft_model::policy::inbound::DefaultPolicy;
use weft_proxy::config::{self, Checked, Config, Problem, StreamLimits, reference, table};
use weft_telemetry::Format;
use weft_testkit::ca::Ca;

static ANCHORS: LazyLock<String> = LazyLock::new(|| Ca::new().unwrap().anchors_pem().to_owned());

/// What must be set, with this file as the token.
fn minimal() -> BTreeMap<String, String> {
    [
        ("IDENTITY_TRUST_ANCHORS", ANCHORS.as_str()),
        ("IDENTITY_DIR", "/nowhere"),
        ("IDENTITY_TOKEN_FILE", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")),
        ("IDENTITY_SVC_ADDR", "localhost.:8080"),
        ("IDENTITY_LOCAL_NAME", "web.ns.serviceaccount.identity.linkerd.cluster.local"),
        ("DESTINATION_SVC_ADDR", "localhost.:8086"),
        ("POLICY_SVC_ADDR", "localhost.:8090"),
        ("POLICY_WORKLOAD", "{}"),
    ]
    .into_iter()
    .map(|(name, value)| (format!("LINKERD2_PROXY_{name}"), value.to_owned()))
    .collect()
}

fn checked(changes: &[(&str, &str)]) -> Result<Checked, Vec<Problem>> {
    let mut env = minimal();
    for (name, value) in changes {
        let name = if name.starts_with("WEFT_") { (*name).to_owned() } else { format!("LINKERD2_PROXY_{name}") };
        env.insert(name, (*value).to_owned());
    }
    config::check(env, 4)
}

fn config(changes: &[(&str, &str)]) -> Config {
    checked(changes).unwrap().config
}

#[test]
fn the_reference_follows_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/proxy-env.md");
    let made = reference::markdown();
    if std::env::var_os("WEFT_UPDATE").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let stands = std::fs::read_to_string(path).unwrap_or_default();
    assert!(made == stands, "docs/reference/proxy-env.md is not what the table says: run with WEFT_UPDATE=1");
}

#[test]
fn every_problem_is_reported() {
    let env = [
        ("LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT", "5"),
        ("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS", "127.0.0.1:1,127.0.0.1:2"),
        ("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", "audit"),
        ("LINKERD2_PROXY_OUTBOUND_CONNECT_EXP_BACKOFF_MIN", "1s"),
        ("LINKERD2_PROXY_DESTINATION_SVC_ADDR", "dst.linkerd:8086"),
        ("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", "/etc/anchors"),
        ("LINKERD2_PROXY_IDENTITY_DISABLED", "1"),
        ("LINKERD2_PROXY_IDENTITY_SERVER_ID", "a.b"),
        ("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", "25h"),
        ("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", "/nowhere/token"),
        ("LINKERD2_PROXY_CONTROL_STREAM_IDLE_TIMEOUT", "1m"),
        ("LINKERD2_PROXY_CONTROL_STREAM_LIFETIME", "3s"),
        ("LINKERD2_PROXY_CORES_MAX_RATIO", "2"),
        ("LINKERD2_PROXY_INBOUND_PORTS", "80,70-60"),
        ("WEFT_PROXY_MARK", "0"),
        ("LINKERD2_PROXY_NOBODY_KNOWS", "x"),
    ];
    let problems = config::check(env.map(|(n, v)| (n.to_owned(), v.to_owned())), 4).unwrap_err();
    let text: String = problems.iter().map(|p| format!("{p}\n")).collect();
    insta::assert_snapshot!(text);
}

#[test]
fn defaults_are_linkerds() {
    let text = format!("{:#?}", config(&[]));
    let filters = vec![(r#""[^"]*/Cargo.toml""#, "TOKEN"), (r#""-----BEGIN[^"]*""#, "ANCHORS")];
    insta::with_settings!({filters => filters}, {
        insta::assert_snapshot!(text);
    });
}

#[test]
fn trust_anchors_are_read_at_the_start() {
    let cut = ANCHORS.replace("MII", "MI");
    let empty = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
    for (anchors, said) in
        [(cut.as_str(), "certificate"), (empty, "certificate"), ("-----BEGIN CERTIFICATE-----", "PEM")]
    {
        let problems = checked(&[("IDENTITY_TRUST_ANCHORS", anchors)]).unwrap_err();
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        let text = problem.to_string();
        assert!(text.starts_with("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS: ") && text.contains(said), "{text}");
    }
}

#[test]
fn values_that_would_break_every_connection_are_refused() {
    for (name, value, said) in [
        ("INBOUND_DETECT_TIMEOUT", "0", "must be longer than 0"),
        ("OUTBOUND_DETECT_TIMEOUT", "0", "must be longer than 0"),
    ] {
        let problems = checked(&[(name, value)]).unwrap_err();
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert!(problem.name.ends_with(name) && problem.message.ends_with(said), "{problem}");
    }
}

#[test]
fn no_directive_of_logs_hides_every_line() {
    for (filter, log, out) in [
        ("warn and more", "warn,linkerd=info,hickory=error", &["warn and more"][..]),
        ("a=b=c,warn and more,debug", "debug", &["a=b=c", "warn and more"]),
        ("off", "off", &[]),
    ] {
        let Checked { config, left_out, .. } = checked(&[("LOG", filter)]).unwrap();
        assert_eq!((config.process.log.as_str(), left_out), (log, out.iter().map(|o| (*o).to_owned()).collect()));
    }
}

#[test]
fn what_has_no_effect_is_named() {
    let Checked { unknown, not_built, .. } = checked(&[
        ("INGRESS_MODE", ""),
        ("TRACE_PROTOCOL", "opentelemetry"),
        ("TYPO", "x"),
        ("WEFT_PROXY_TYPO", "x"),
        ("OUTBOUND_METRICS_HOSTNAME_LABELS", "true"),
    ])
    .unwrap();
    assert_eq!(unknown, ["LINKERD2_PROXY_TYPO", "WEFT_PROXY_TYPO"]);
    assert_eq!(not_built, Vec::<String>::new(), "every variable that is known has its effect");
}

#[test]
fn values_follow_from_each_other() {
    let c = config(&[("OUTBOUND_LISTEN_ADDRS", "127.0.0.1:4140,[::1]:4140"), ("INGRESS_MODE", "true")]);
    assert_eq!(c.outbound.listen.len(), 2);
    assert!(!c.outbound.informational_headers);
    let c = config(&[("INGRESS_MODE", "true"), ("OUTBOUND_DISABLE_INFORMATIONAL_HEADERS", "false")]);
    assert!(c.outbound.informational_headers);
    let c = config(&[("INBOUND_DEFAULT_POLICY", "cluster-authenticated"), ("POLICY_CLUSTER_NETWORKS", "10.0.0.0/8")]);
    assert_eq!(c.inbound.default_policy, DefaultPolicy::ClusterAuthenticated);
    let c = config(&[("CORES", "2"), ("CORES_MAX", "3")]);
    assert_eq!(c.process.workers, 3);
    let name = "web.ns.serviceaccount.identity.linkerd.cluster.local";
    let c = config(&[("IDENTITY_LOCAL_NAME", ""), ("IDENTITY_SERVER_ID", name), ("IDENTITY_SERVER_NAME", name)]);
    assert_eq!(c.identity.id.as_str(), name);
    let c = config(&[("WEFT_PROXY_MARK", "1234"), ("WEFT_PROXY_DISCOVERY_TIMEOUT", "3s")]);
    assert_eq!((c.inbound.connect.mark, c.control.connect.mark), (Some(1234), Some(1234)));
    assert_eq!(c.destination.timeout, Duration::from_secs(3));
    let only_one = config(&[("INBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE", "70000")]);
    assert_eq!(only_one.inbound.http2_server.windows, None);
}

#[test]
fn variables_are_read_into_their_fields() {
    let c = config(&[
        ("CONTROL_STREAM_INITIAL_TIMEOUT", "3s"),
        ("CONTROL_STREAM_IDLE_TIMEOUT", "5m"),
        ("CONTROL_STREAM_LIFETIME", "1h"),
        ("DNS_MIN_TTL", "2s"),
        ("DNS_MAX_TTL", "30s"),
        ("LOG_FORMAT", "json"),
        ("TRACE_COLLECTOR_SVC_ADDR", "localhost.:4317"),
        ("TRACE_ATTRIBUTES_PATH", "/attributes"),
    ]);
    let [initial, idle, lifetime] = [3, 300, 3600].map(|secs| Some(Duration::from_secs(secs)));
    assert_eq!(c.control.streams, StreamLimits { initial, idle, lifetime });
    assert_eq!(
        (c.control.dns_min_ttl, c.control.dns_max_ttl),
        (Some(Duration::from_secs(2)), Some(Duration::from_secs(30)))
    );
    assert_eq!(c.process.log_format, Format::Json);
    assert_eq!(c.traces.unwrap().attributes_path, Some("/attributes".into()));
    let problems = checked(&[("DNS_MIN_TTL", "31s"), ("DNS_MAX_TTL", "30s")]).unwrap_err();
    assert_eq!(
        problems.iter().map(|problem| problem.name.as_str()).collect::<Vec<_>>(),
        ["LINKERD2_PROXY_DNS_MIN_TTL"]
    );
}

#[test]
fn every_default_in_the_table_is_accepted() {
    for var in table::vars() {
        if let table::Default::Value(value) = var.default
            && !value.is_empty()
            && var.acts == table::Acts::Yes
        {
            // Some must be given in pairs: what counts is that no problem blames the value.
            let mut env = minimal();
            env.insert(var.name.to_owned(), value.to_owned());
            let problems = config::check(env, 4).err().unwrap_or_default();
            assert!(problems.iter().all(|p| p.name != var.name), "{}: {problems:?}", var.name);
        }
    }
}
