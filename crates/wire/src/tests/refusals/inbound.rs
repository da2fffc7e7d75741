//! Server policies.

use super::{check, check_below, on, seconds, service};
use crate::inbound::policy::decode;
use linkerd2_proxy_api::{
    http_route as matches, http_types,
    inbound::{self as proto, authn, http_local_rate_limit as limit, http_route, proxy_protocol as protocol},
    net,
};
use weft_model::{Meta, policy::inbound::ServerProtocol};

fn network() -> Option<net::IpNetwork> {
    Some(net::IpNetwork { ip: Some([10, 0, 0, 0].into()), prefix_len: 8 })
}

fn authz() -> proto::Authz {
    let identities = authn::permit_mesh_tls::PermitClientIdentities {
        identities: vec![proto::Identity { name: "a.b".to_owned() }],
        suffixes: vec![proto::IdentitySuffix { parts: vec!["b".to_owned()] }],
    };
    proto::Authz {
        networks: vec![proto::Network { net: network(), except: vec![network().unwrap()] }],
        authentication: Some(proto::Authn {
            permit: Some(authn::Permit::MeshTls(authn::PermitMeshTls {
                clients: Some(authn::permit_mesh_tls::Clients::Identities(identities)),
            })),
        }),
        labels: Default::default(),
        metadata: service(),
    }
}

fn clients(m: &mut proto::Server) -> &mut Option<authn::permit_mesh_tls::Clients> {
    match on(&mut on(&mut m.authorizations[0].authentication).permit) {
        authn::Permit::MeshTls(tls) => &mut tls.clients,
        authn::Permit::Unauthenticated(_) => panic!("unauthenticated"),
    }
}

fn identities(m: &mut proto::Server) -> &mut authn::permit_mesh_tls::PermitClientIdentities {
    match on(clients(m)) {
        authn::permit_mesh_tls::Clients::Identities(identities) => identities,
        authn::permit_mesh_tls::Clients::Unauthenticated(_) => panic!("unauthenticated"),
    }
}

fn server(kind: protocol::Kind) -> proto::Server {
    proto::Server {
        protocol: Some(proto::ProxyProtocol { kind: Some(kind) }),
        server_ips: vec![],
        authorizations: vec![authz()],
        labels: [("name".to_owned(), "s".to_owned())].into(),
    }
}

#[test]
fn servers_and_authorizations() {
    let opaque = server(protocol::Kind::Opaque(protocol::Opaque {}));
    check(
        &opaque,
        decode,
        &[
            (|m| m.protocol = None, Some("protocol")),
            (|m| on(&mut m.protocol).kind = None, Some("protocol.kind")),
            (|m| m.labels.clear(), Some("labels[name]")),
            (|m| drop(m.labels.insert("name".to_owned(), String::new())), Some("labels[name]")),
            (|m| m.authorizations.clear(), None),
            (|m| m.authorizations[0].networks.clear(), Some("authorizations[0].networks")),
            (|m| m.authorizations[0].networks[0].net = None, Some("authorizations[0].networks[0].net")),
            (
                |m| on(&mut m.authorizations[0].networks[0].net).prefix_len = 33,
                Some("authorizations[0].networks[0].net.prefix_len"),
            ),
            (
                |m| m.authorizations[0].networks[0].except[0].ip = None,
                Some("authorizations[0].networks[0].except[0].ip"),
            ),
            (|m| m.authorizations[0].authentication = None, Some("authorizations[0].authentication")),
            (
                |m| on(&mut m.authorizations[0].authentication).permit = None,
                Some("authorizations[0].authentication.permit"),
            ),
            (|m| *clients(m) = None, Some("authorizations[0].authentication.mesh_tls.clients")),
            (
                |m| identities(m).identities[0].name.clear(),
                Some("authorizations[0].authentication.mesh_tls.identities.identities[0].name"),
            ),
            (
                |m| identities(m).suffixes[0].parts.push("a b".to_owned()),
                Some("authorizations[0].authentication.mesh_tls.identities.suffixes[0].parts"),
            ),
            (|m| m.authorizations[0].metadata = None, Some("authorizations[0].labels[name]")),
            (|m| on(&mut m.authorizations[0].metadata).kind = None, Some("authorizations[0].metadata.kind")),
        ],
    );
}

/// The names of objects as older control planes send them.
#[test]
fn labels_name_objects() {
    for (labels, group, kind, name) in [
        (&[("name", "s")][..], "policy.linkerd.io", "server", "s"),
        (&[("name", "s"), ("kind", "k"), ("group", "g")], "g", "k", "s"),
        (&[("name", "default:deny")], "", "default", "deny"),
        (&[("name", "deny"), ("kind", "default"), ("group", "")], "", "default", "deny"),
    ] {
        let mut message = server(protocol::Kind::Opaque(protocol::Opaque {}));
        message.labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let meta = decode(message).unwrap().meta;
        assert_eq!((meta.group(), meta.kind(), meta.name()), (group, kind, name));
    }
    let mut message = server(protocol::Kind::Opaque(protocol::Opaque {}));
    message.authorizations[0].metadata = None;
    message.authorizations[0].labels = [("name".to_owned(), "a".to_owned())].into();
    let policy = decode(message).unwrap();
    assert_eq!(policy.authorizations[0].meta.kind(), "serverauthorization");
}

fn rule() -> http_route::Rule {
    use http_route::filter::Kind;
    let header = http_types::headers::Header { name: "x".to_owned(), value: b"y".to_vec() };
    let kinds = [
        Kind::FailureInjector(matches::HttpFailureInjector {
            status: 500,
            message: String::new(),
            ratio: Some(matches::Ratio { numerator: 1, denominator: 2 }),
        }),
        Kind::RequestHeaderModifier(matches::RequestHeaderModifier {
            add: Some(http_types::Headers { headers: vec![header] }),
            set: None,
            remove: vec!["z".to_owned()],
        }),
        Kind::Redirect(matches::RequestRedirect {
            scheme: Some(http_types::Scheme { r#type: Some(http_types::scheme::Type::Registered(1)) }),
            host: "a".to_owned(),
            path: Some(matches::PathModifier { replace: Some(matches::path_modifier::Replace::Full("/".to_owned())) }),
            port: 80,
            status: 302,
        }),
    ];
    http_route::Rule {
        matches: vec![matches::HttpRouteMatch {
            path: Some(matches::PathMatch { kind: Some(matches::path_match::Kind::Regex("/".to_owned())) }),
            headers: vec![matches::HeaderMatch {
                name: "x".to_owned(),
                value: Some(matches::header_match::Value::Regex("y".to_owned())),
            }],
            query_params: vec![matches::QueryParamMatch {
                name: "x".to_owned(),
                value: Some(matches::query_param_match::Value::Regex("y".to_owned())),
            }],
            method: Some(http_types::HttpMethod {
                r#type: Some(http_types::http_method::Type::Unregistered("M".to_owned())),
            }),
        }],
        filters: kinds.into_iter().map(|kind| http_route::Filter { kind: Some(kind) }).collect(),
    }
}

fn detect() -> proto::Server {
    let host = matches::HostMatch { r#match: Some(matches::host_match::Match::Exact("h".to_owned())) };
    let client = proto::Identity { name: "a.b".to_owned() };
    server(protocol::Kind::Detect(protocol::Detect {
        timeout: seconds(10),
        http_routes: vec![proto::HttpRoute {
            metadata: service(),
            hosts: vec![host],
            authorizations: vec![authz()],
            rules: vec![rule()],
        }],
        http_local_rate_limit: Some(proto::HttpLocalRateLimit {
            metadata: service(),
            total: Some(limit::Limit { requests_per_second: 1 }),
            identity: None,
            overrides: vec![limit::Override {
                limit: Some(limit::Limit { requests_per_second: 1 }),
                clients: Some(limit::r#override::ClientIdentities { identities: vec![client] }),
            }],
        }),
    }))
}

fn detected(m: &mut proto::Server) -> &mut protocol::Detect {
    match on(&mut on(&mut m.protocol).kind) {
        protocol::Kind::Detect(detect) => detect,
        other => panic!("{other:?}"),
    }
}

fn first(m: &mut proto::Server) -> &mut matches::HttpRouteMatch {
    &mut detected(m).http_routes[0].rules[0].matches[0]
}

fn limits(m: &mut proto::Server) -> &mut proto::HttpLocalRateLimit {
    on(&mut detected(m).http_local_rate_limit)
}

/// The filters of the first rule, changed.
fn filter(m: &mut proto::Server, change: impl Fn(&mut http_route::filter::Kind)) {
    for filter in &mut detected(m).http_routes[0].rules[0].filters {
        change(on(&mut filter.kind));
    }
}

#[test]
fn detection_and_routes() {
    check(
        &detect(),
        decode,
        &[
            (|m| detected(m).timeout = None, Some("protocol.detect.timeout")),
            (|m| detected(m).timeout = seconds(-1), Some("protocol.detect.timeout")),
            (|m| detected(m).http_routes[0].metadata = None, Some("protocol.detect.http_routes[0].metadata")),
            (
                |m| detected(m).http_routes[0].hosts[0].r#match = None,
                Some("protocol.detect.http_routes[0].hosts[0].match"),
            ),
            (
                |m| detected(m).http_routes[0].authorizations[0].networks.clear(),
                Some("protocol.detect.http_routes[0].authorizations[0].networks"),
            ),
            (
                |m| on(&mut first(m).path).kind = None,
                Some("protocol.detect.http_routes[0].rules[0].matches[0].path.kind"),
            ),
            (
                |m| on(&mut first(m).path).kind = Some(matches::path_match::Kind::Regex("(".to_owned())),
                Some("protocol.detect.http_routes[0].rules[0].matches[0].path.regex"),
            ),
            (
                |m| first(m).headers[0].value = None,
                Some("protocol.detect.http_routes[0].rules[0].matches[0].headers[0].value"),
            ),
            (
                |m| first(m).headers[0].name = "a b".to_owned(),
                Some("protocol.detect.http_routes[0].rules[0].matches[0].headers[0].name"),
            ),
            (
                |m| first(m).query_params[0].value = None,
                Some("protocol.detect.http_routes[0].rules[0].matches[0].query_params[0].value"),
            ),
            (
                |m| first(m).query_params[0].name.clear(),
                Some("protocol.detect.http_routes[0].rules[0].matches[0].query_params[0].name"),
            ),
            (
                |m| on(&mut first(m).method).r#type = None,
                Some("protocol.detect.http_routes[0].rules[0].matches[0].method.type"),
            ),
            (|m| limits(m).metadata = None, Some("protocol.detect.http_local_rate_limit.metadata")),
            (
                |m| on(&mut limits(m).total).requests_per_second = 0,
                Some("protocol.detect.http_local_rate_limit.total.requests_per_second"),
            ),
            (|m| limits(m).overrides[0].limit = None, Some("protocol.detect.http_local_rate_limit.overrides[0].limit")),
            (
                |m| limits(m).overrides[0].clients = None,
                Some("protocol.detect.http_local_rate_limit.overrides[0].clients"),
            ),
        ],
    );
}

#[test]
fn filters() {
    use http_route::filter::Kind;
    fn failure(m: &mut proto::Server, change: fn(&mut matches::HttpFailureInjector)) {
        filter(m, |kind| {
            if let Kind::FailureInjector(f) = kind {
                change(f)
            }
        });
    }
    fn headers(m: &mut proto::Server, change: fn(&mut matches::RequestHeaderModifier)) {
        filter(m, |kind| {
            if let Kind::RequestHeaderModifier(f) = kind {
                change(f)
            }
        });
    }
    fn redirect(m: &mut proto::Server, change: fn(&mut matches::RequestRedirect)) {
        filter(m, |kind| {
            if let Kind::Redirect(f) = kind {
                change(f)
            }
        });
    }
    let way = "protocol.detect.http_routes[0].rules[0].";
    check_below(
        way,
        &detect(),
        decode,
        &[
            (|m| detected(m).http_routes[0].rules[0].filters[0].kind = None, Some("filters[0].kind")),
            (|m| failure(m, |f| f.status = 99), Some("filters[0].failure_injector.status")),
            (|m| failure(m, |f| f.status = 600), Some("filters[0].failure_injector.status")),
            (|m| failure(m, |f| f.ratio = None), None),
            (
                |m| failure(m, |f| on(&mut f.ratio).denominator = 0),
                Some("filters[0].failure_injector.ratio.denominator"),
            ),
            (
                |m| headers(m, |f| on(&mut f.add).headers[0].name.clear()),
                Some("filters[1].request_header_modifier.add.headers[0].name"),
            ),
            (
                |m| headers(m, |f| on(&mut f.add).headers[0].value = b"a\nb".to_vec()),
                Some("filters[1].request_header_modifier.add.headers[0].value"),
            ),
            (|m| headers(m, |f| f.remove[0] = "a b".to_owned()), Some("filters[1].request_header_modifier.remove[0]")),
            (|m| redirect(m, |f| on(&mut f.scheme).r#type = None), Some("filters[2].redirect.scheme.type")),
            (
                |m| redirect(m, |f| on(&mut f.scheme).r#type = Some(http_types::scheme::Type::Registered(2))),
                Some("filters[2].redirect.scheme.registered"),
            ),
            (|m| redirect(m, |f| f.host = "a b".to_owned()), Some("filters[2].redirect.host")),
            (|m| redirect(m, |f| f.host.clear()), None),
            (|m| redirect(m, |f| on(&mut f.path).replace = None), Some("filters[2].redirect.path.replace")),
            (|m| redirect(m, |f| f.port = 65536), Some("filters[2].redirect.port")),
            (|m| redirect(m, |f| f.port = 0), None),
            (|m| redirect(m, |f| f.status = 99), Some("filters[2].redirect.status")),
            (|m| redirect(m, |f| f.status = 0), None),
        ],
    );
}

#[test]
fn without_routes_there_is_one_for_every_request() {
    let mut message = detect();
    detected(&mut message).http_routes.clear();
    let ServerProtocol::Detect { routes, .. } = decode(message).unwrap().protocol else { panic!("no detection") };
    assert_eq!(routes.len(), 1);
    assert_eq!(routes[0].meta, Meta::default_named("default"));
    assert!(routes[0].hosts.is_empty() && routes[0].rules.len() == 1 && routes[0].rules[0].matches.is_empty());
}
