//! Routes: the mesh's own HTTPRoute, and ServiceProfiles.

use super::{
    Kind, POLICY, Version,
    schema::{Schema, condition},
};
use serde_json::json;

pub(super) fn kinds() -> Vec<Kind> {
    vec![http_route(), service_profile()]
}

fn http_route() -> Kind {
    let version = |name, backends: fn() -> Schema, timeouts| {
        Version::new(name, route_spec(backends, timeouts)).status(route_status())
    };
    Kind {
        group: POLICY,
        kind: "HTTPRoute",
        plural: "httproutes",
        short: &[],
        versions: vec![
            version("v1alpha1", first_backends, false),
            version("v1beta1", backends, false),
            version("v1beta2", backends, false),
            version("v1beta3", backends, true).storage(),
        ],
    }
}

fn route_spec(backends: fn() -> Schema, timeouts: bool) -> Schema {
    let mut rule = vec![
        ("matches", Schema::list(matching()).items(0, Some(8)).default(json!([{ "path": prefix() }]))),
        ("filters", Schema::list(filter(&["RequestHeaderModifier", "RequestRedirect"])).items(0, Some(16))),
        ("backendRefs", Schema::list(backends()).items(0, Some(16))),
    ];
    if timeouts {
        let durations = [("request", Schema::text()), ("backendRequest", Schema::text())];
        rule.push(("timeouts", Schema::object(durations)));
    }
    let hostname = Schema::text().length(1, 253);
    Schema::object([
        ("parentRefs", Schema::list(parent()).items(0, Some(32))),
        ("hostnames", Schema::list(hostname).items(0, Some(16))),
        (
            "rules",
            Schema::list(Schema::object(rule))
                .items(0, Some(16))
                .default(json!([{ "matches": [{ "path": prefix() }] }])),
        ),
    ])
}

fn prefix() -> serde_json::Value {
    json!({ "type": "PathPrefix", "value": "/" })
}

fn parent() -> Schema {
    Schema::object([
        ("group", Schema::text().length(0, 253).default(POLICY)),
        ("kind", Schema::text().length(1, 63).default("Gateway")),
        ("name", Schema::text().length(1, 253)),
        ("namespace", Schema::text().length(1, 63)),
        ("port", Schema::port()),
        ("sectionName", Schema::text().length(1, 253)),
    ])
    .required(&["name"])
}

fn named_match(kinds: &[&str]) -> Schema {
    Schema::object([
        ("type", Schema::one_of(kinds).default("Exact")),
        ("name", Schema::text().length(1, 256)),
        ("value", Schema::text().length(1, 4096)),
    ])
    .required(&["name", "value"])
}

fn matching() -> Schema {
    const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    let path = Schema::object([
        ("type", Schema::one_of(&["Exact", "PathPrefix", "RegularExpression"]).default("PathPrefix")),
        ("value", Schema::text().length(0, 1024).default("/")),
    ]);
    let named = || Schema::list(named_match(&["Exact", "RegularExpression"])).items(0, Some(16));
    Schema::object([
        ("path", path.default(prefix())),
        ("headers", named()),
        ("queryParams", named()),
        ("method", Schema::one_of(METHODS)),
    ])
}

/// `types` are those that may stand at this place.
fn filter(types: &[&str]) -> Schema {
    let header = || {
        Schema::object([("name", Schema::text().length(1, 256)), ("value", Schema::text().length(1, 4096))])
            .required(&["name", "value"])
    };
    let modifier = Schema::object([
        ("set", Schema::list(header()).items(0, Some(16))),
        ("add", Schema::list(header()).items(0, Some(16))),
        ("remove", Schema::list(Schema::text()).items(0, Some(16))),
    ]);
    let path = Schema::object([
        ("type", Schema::one_of(&["ReplaceFullPath", "ReplacePrefixMatch"])),
        ("replaceFullPath", Schema::text().length(0, 1024)),
        ("replacePrefixMatch", Schema::text().length(0, 1024)),
    ]);
    let redirect = Schema::object([
        ("scheme", Schema::one_of(&["http", "https"])),
        ("hostname", Schema::text().length(1, 253)),
        ("path", path.required(&["type"])),
        ("port", Schema::port()),
        ("statusCode", Schema::number().between(301, 302).default(302)),
    ]);
    let mut fields = vec![
        ("type", Schema::one_of(types)),
        ("requestHeaderModifier", modifier.clone()),
        ("requestRedirect", redirect),
    ];
    if types.contains(&"ResponseHeaderModifier") {
        fields.push(("responseHeaderModifier", modifier));
    }
    Schema::object(fields).required(&["type"])
}

fn backends() -> Schema {
    let filters = filter(&["RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect"]);
    Schema::object([
        ("group", Schema::text().length(0, 253).default("")),
        ("kind", Schema::text().length(1, 63).default("Service")),
        ("name", Schema::text().length(1, 253)),
        ("namespace", Schema::text().length(1, 63)),
        ("port", Schema::port()),
        ("weight", Schema::number().between(0, 1_000_000).default(1)),
        ("filters", Schema::list(filters).items(0, Some(16))),
    ])
    .required(&["name"])
}

/// Those of the first version know Services only.
fn first_backends() -> Schema {
    Schema::object([
        ("name", Schema::text().length(1, 253)),
        ("namespace", Schema::text().length(1, 63).default("default")),
        ("port", Schema::port()),
    ])
    .required(&["name"])
}

fn route_status() -> Schema {
    let of_parent = Schema::object([
        ("parentRef", parent()),
        ("controllerName", Schema::text().length(1, 253)),
        ("conditions", Schema::list(condition()).items(0, Some(8))),
    ])
    .required(&["parentRef", "controllerName"]);
    Schema::object([("parents", Schema::list(of_parent).items(0, Some(32)))]).required(&["parents"])
}

fn service_profile() -> Kind {
    let status = Schema::object([("min", Schema::number()), ("max", Schema::number())]);
    // Conditions stand in conditions: how deep is looked at by admission.
    let response = Schema::object([
        ("status", status),
        ("all", Schema::list(Schema::open())),
        ("any", Schema::list(Schema::open())),
        ("not", Schema::open()),
    ]);
    let request = Schema::object([
        ("pathRegex", Schema::text()),
        ("method", Schema::text()),
        ("all", Schema::list(Schema::open())),
        ("any", Schema::list(Schema::open())),
        ("not", Schema::open()),
    ]);
    let class = Schema::object([("condition", response), ("isFailure", Schema::flag())]).required(&["condition"]);
    let route = Schema::object([
        ("name", Schema::text()),
        ("condition", request),
        ("responseClasses", Schema::list(class)),
        ("isRetryable", Schema::flag()),
        ("timeout", Schema::text()),
    ]);
    let budget = Schema::object([
        ("retryRatio", Schema::fraction()),
        ("minRetriesPerSecond", Schema::number()),
        ("ttl", Schema::text()),
    ]);
    let overridden = Schema::object([("authority", Schema::text()), ("weight", Schema::quantity())]);
    let spec = Schema::object([
        ("routes", Schema::list(route.required(&["name", "condition"]))),
        ("retryBudget", budget.required(&["retryRatio", "minRetriesPerSecond", "ttl"])),
        ("dstOverrides", Schema::list(overridden)),
        ("opaquePorts", Schema::list(Schema::text())),
    ]);
    Kind {
        group: "linkerd.io",
        kind: "ServiceProfile",
        plural: "serviceprofiles",
        short: &["sp"],
        versions: vec![
            Version::new("v1alpha1", spec.clone().required(&["routes"])),
            Version::new("v1alpha2", spec).storage(),
        ],
    }
}
