//! Ports and who may call them.

use super::{
    Kind, POLICY, Version,
    schema::{Schema, condition, networks, reference, selector},
};

pub(super) fn kinds() -> Vec<Kind> {
    vec![server(), server_authorization(), authorization_policy(), mesh_tls(), network(), rate_limit(), egress()]
}

fn server() -> Kind {
    const COLUMNS: &[(&str, &str, &str)] =
        &[("Port", "string", ".spec.port"), ("Protocol", "string", ".spec.proxyProtocol")];
    const WITH_ACCESS: &[(&str, &str, &str)] = &[
        ("Port", "string", ".spec.port"),
        ("Protocol", "string", ".spec.proxyProtocol"),
        ("Access Policy", "string", ".spec.accessPolicy"),
    ];
    // The names of protocols and policies are looked at by admission, which says what there is.
    let base = || {
        vec![
            ("podSelector", selector()),
            ("port", Schema::port_or_name()),
            ("proxyProtocol", Schema::text().default("unknown")),
        ]
    };
    let with_external = || {
        let mut fields = base();
        fields.push(("externalWorkloadSelector", selector()));
        fields
    };
    let mut newest = with_external();
    newest.push(("accessPolicy", Schema::text().default("deny")));
    let selectors = ["podSelector", "externalWorkloadSelector"];
    Kind {
        group: POLICY,
        kind: "Server",
        plural: "servers",
        short: &["srv"],
        versions: vec![
            Version::new("v1alpha1", Schema::object(base()).required(&["podSelector", "port"]))
                .deprecated()
                .columns(COLUMNS),
            Version::new("v1beta1", Schema::object(base()).required(&["podSelector", "port"]))
                .deprecated()
                .columns(COLUMNS),
            Version::new("v1beta2", Schema::object(with_external()).required(&["port"]).exactly_one(&selectors))
                .columns(COLUMNS),
            Version::new("v1beta3", Schema::object(newest).required(&["port"]).exactly_one(&selectors))
                .storage()
                .columns(WITH_ACCESS),
        ],
    }
}

fn server_authorization() -> Kind {
    const COLUMNS: &[(&str, &str, &str)] = &[("Server", "string", ".spec.server.name")];
    let server =
        Schema::object([("name", Schema::text()), ("selector", selector())]).exactly_one(&["name", "selector"]);
    let account = Schema::object([("name", Schema::text()), ("namespace", Schema::text())]).required(&["name"]);
    let mesh_tls = Schema::object([
        ("unauthenticatedTLS", Schema::flag()),
        ("identities", Schema::list(Schema::text())),
        ("serviceAccounts", Schema::list(account)),
    ]);
    let client = Schema::object([("networks", networks()), ("unauthenticated", Schema::flag()), ("meshTLS", mesh_tls)]);
    let spec = Schema::object([("server", server), ("client", client)]).required(&["server", "client"]);
    Kind {
        group: POLICY,
        kind: "ServerAuthorization",
        plural: "serverauthorizations",
        short: &["saz", "serverauthz", "srvauthz"],
        versions: vec![
            Version::new("v1alpha1", spec.clone()).deprecated().columns(COLUMNS),
            Version::new("v1beta1", spec).storage().columns(COLUMNS),
        ],
    }
}

fn authorization_policy() -> Kind {
    let required = reference().required(&["kind", "name"]);
    let target = Schema::object([("group", Schema::text()), ("kind", Schema::text()), ("name", Schema::text())])
        .required(&["kind", "name"]);
    let spec = Schema::object([("targetRef", target), ("requiredAuthenticationRefs", Schema::list(required))])
        .required(&["targetRef", "requiredAuthenticationRefs"]);
    Kind {
        group: POLICY,
        kind: "AuthorizationPolicy",
        plural: "authorizationpolicies",
        short: &["authzpolicy"],
        versions: vec![Version::new("v1alpha1", spec).storage()],
    }
}

fn mesh_tls() -> Kind {
    let spec = Schema::object([
        ("identities", Schema::list(Schema::text()).items(1, None)),
        ("identityRefs", Schema::list(reference().required(&["kind"])).items(1, None)),
    ]);
    Kind {
        group: POLICY,
        kind: "MeshTLSAuthentication",
        plural: "meshtlsauthentications",
        short: &["meshtlsauthn"],
        versions: vec![Version::new("v1alpha1", spec.exactly_one(&["identities", "identityRefs"])).storage()],
    }
}

fn network() -> Kind {
    let spec = Schema::object([("networks", networks())]).required(&["networks"]);
    Kind {
        group: POLICY,
        kind: "NetworkAuthentication",
        plural: "networkauthentications",
        short: &["netauthn", "networkauthn"],
        versions: vec![Version::new("v1alpha1", spec).storage()],
    }
}

fn rate_limit() -> Kind {
    const COLUMNS: &[(&str, &str, &str)] = &[
        ("Target_kind", "string", ".spec.targetRef.kind"),
        ("Target_name", "string", ".spec.targetRef.name"),
        ("Total_RPS", "integer", ".spec.total.requestsPerSecond"),
        ("Identity_RPS", "integer", ".spec.identity.requestsPerSecond"),
    ];
    let target = || {
        Schema::object([("group", Schema::text()), ("kind", Schema::text()), ("name", Schema::text())])
            .required(&["kind", "name"])
    };
    let rate = || ("requestsPerSecond", Schema::number().at_least(0));
    let over = Schema::object([rate(), ("clientRefs", Schema::list(reference().required(&["kind", "name"])))])
        .required(&["requestsPerSecond", "clientRefs"]);
    let of = || Schema::object([rate()]).required(&["requestsPerSecond"]);
    let spec = Schema::object([
        ("targetRef", target()),
        ("total", of()),
        ("identity", of()),
        ("overrides", Schema::list(over)),
    ]);
    let status = Schema::object([("conditions", Schema::list(condition())), ("targetRef", target())]);
    Kind {
        group: POLICY,
        kind: "HTTPLocalRateLimitPolicy",
        plural: "httplocalratelimitpolicies",
        short: &[],
        versions: vec![
            Version::new("v1alpha1", spec.required(&["targetRef"])).storage().columns(COLUMNS).status(status),
        ],
    }
}

fn egress() -> Kind {
    let spec = Schema::object([("trafficPolicy", Schema::one_of(&["Allow", "Deny"])), ("networks", networks())]);
    Kind {
        group: POLICY,
        kind: "EgressNetwork",
        plural: "egressnetworks",
        short: &[],
        versions: vec![
            Version::new("v1alpha1", spec.required(&["trafficPolicy"]))
                .storage()
                .status(Schema::object([("conditions", Schema::list(condition()))])),
        ],
    }
}
