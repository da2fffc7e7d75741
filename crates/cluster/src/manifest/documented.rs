//! The pages of kinds name every version that is read and every field that there is, and no other.

use super::fields::tests::fields_of;
use crate::{Kind, external_workload as ew, policy as p, service_profile as sp};
use std::{fs, path::Path};

/// A page's name, its kinds, and the fields that each of its objects may have.
type Page = (&'static str, Vec<Kind>, Vec<Vec<&'static str>>);

fn pages() -> Vec<Page> {
    let parent = fields_of::<p::ParentSpec>;
    let backend = fields_of::<p::BackendSpec>;
    let reference = fields_of::<p::ReferenceSpec>;
    let network = fields_of::<p::NetworkSpec>;
    let filters = || {
        vec![
            fields_of::<p::FilterSpec>(),
            fields_of::<p::ModifierSpec>(),
            fields_of::<p::NamedSpec>(),
            fields_of::<p::HeaderSpec>(),
        ]
    };
    let connections = || vec![fields_of::<p::ConnectionRuleSpec>(), parent(), backend()];
    vec![
        ("server", vec![Kind::Server], vec![fields_of::<p::ServerSpec>()]),
        (
            "serverauthorization",
            vec![Kind::ServerAuthorization],
            vec![
                fields_of::<p::ServerAuthorizationSpec>(),
                fields_of::<p::ServerRefSpec>(),
                fields_of::<p::ClientSpec>(),
                fields_of::<p::MeshTlsSpec>(),
                fields_of::<p::AccountSpec>(),
                network(),
            ],
        ),
        (
            "authorizationpolicy",
            vec![Kind::AuthorizationPolicy],
            vec![fields_of::<p::AuthorizationPolicySpec>(), reference()],
        ),
        (
            "meshtlsauthentication",
            vec![Kind::MeshTlsAuthentication],
            vec![fields_of::<p::MeshTlsAuthenticationSpec>(), reference()],
        ),
        (
            "networkauthentication",
            vec![Kind::NetworkAuthentication],
            vec![fields_of::<p::NetworkAuthenticationSpec>(), network()],
        ),
        (
            "httplocalratelimitpolicy",
            vec![Kind::HttpLocalRateLimitPolicy],
            vec![
                fields_of::<p::RateLimitSpec>(),
                fields_of::<p::RateSpec>(),
                fields_of::<p::OverrideSpec>(),
                reference(),
            ],
        ),
        (
            "httproute",
            vec![Kind::HttpRoute, Kind::MeshHttpRoute],
            [
                vec![
                    fields_of::<p::HttpRouteSpec>(),
                    fields_of::<p::HttpRuleSpec>(),
                    fields_of::<p::HttpMatchSpec>(),
                    fields_of::<p::PathSpec>(),
                    fields_of::<p::RedirectSpec>(),
                    fields_of::<p::RewriteSpec>(),
                    fields_of::<p::PathModifierSpec>(),
                    fields_of::<p::MirrorSpec>(),
                    fields_of::<p::FractionSpec>(),
                    fields_of::<p::TimeoutsSpec>(),
                    parent(),
                    backend(),
                ],
                filters(),
            ]
            .concat(),
        ),
        (
            "grpcroute",
            vec![Kind::GrpcRoute],
            [
                vec![
                    fields_of::<p::GrpcRouteSpec>(),
                    fields_of::<p::GrpcRuleSpec>(),
                    fields_of::<p::GrpcMatchSpec>(),
                    fields_of::<p::GrpcMethodSpec>(),
                    parent(),
                    backend(),
                ],
                filters(),
            ]
            .concat(),
        ),
        ("tlsroute", vec![Kind::TlsRoute], [connections(), vec![fields_of::<p::TlsRouteSpec>()]].concat()),
        ("tcproute", vec![Kind::TcpRoute], [connections(), vec![fields_of::<p::TcpRouteSpec>()]].concat()),
        ("egressnetwork", vec![Kind::EgressNetwork], vec![fields_of::<p::EgressNetworkSpec>(), network()]),
        (
            "serviceprofile",
            vec![Kind::ServiceProfile],
            vec![
                fields_of::<sp::ServiceProfileSpec>(),
                fields_of::<sp::RouteSpec>(),
                fields_of::<sp::RequestConditionSpec>(),
                fields_of::<sp::ResponseClassSpec>(),
                fields_of::<sp::ResponseConditionSpec>(),
                fields_of::<sp::StatusRangeSpec>(),
                fields_of::<sp::RetryBudgetSpec>(),
                fields_of::<sp::OverrideSpec>(),
            ],
        ),
        (
            "externalworkload",
            vec![Kind::ExternalWorkload],
            vec![
                fields_of::<ew::ExternalWorkloadSpec>(),
                fields_of::<ew::WorkloadTlsSpec>(),
                fields_of::<ew::WorkloadPortSpec>(),
                fields_of::<ew::WorkloadIpSpec>(),
            ],
        ),
    ]
}

/// What a page has in code quotes, outside of its examples.
fn quoted(page: &str) -> String {
    let prose: String = page.split("```").step_by(2).collect();
    prose.split('`').skip(1).step_by(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_kind_has_a_page_with_its_versions_and_fields() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/kinds");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    let mut described = vec![];
    for (name, kinds, fields) in pages() {
        let page = fs::read_to_string(folder.join(format!("{name}.md"))).unwrap();
        for kind in kinds {
            let of = p::definition(kind).unwrap();
            let versions = of.versions.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", ");
            let line = format!("Served in `{}`: {versions}.", of.group);
            assert!(page.contains(&line), "{name}: {line}");
            let in_list = format!("| [{}]({name}.md) |", of.kind);
            let row = list.lines().find(|line| line.starts_with(&in_list)).unwrap();
            assert_eq!(row.ends_with("| written |"), p::status::KINDS.contains(&kind), "{row}");
            described.push(kind);
        }
        let (fields, quoted) = (fields.concat(), quoted(&page));
        let words: Vec<&str> = quoted.split(|c: char| !c.is_alphanumeric()).collect();
        let missing: Vec<_> = fields.iter().filter(|field| !words.contains(field)).collect();
        assert!(missing.is_empty(), "{name} does not name {missing:?}");
        let paths = quoted.split(' ').filter(|path| path.starts_with("spec."));
        let segments = paths.flat_map(|path| path.split('.').skip(1)).map(|segment| segment.trim_end_matches("[]"));
        let invented: Vec<_> = segments.filter(|segment| !fields.contains(segment)).collect();
        assert!(invented.is_empty(), "{name}: there is no field {invented:?}");
    }
    described.sort();
    let mut all = p::KINDS.to_vec();
    all.sort();
    assert_eq!(described, all);
}
