//! Which requests a route is for: hosts, paths, headers, queries, methods.

use crate::error::{Invalid, each, optional, require};
use linkerd2_proxy_api::{grpc_route, http_route as proto, http_types, tls_route};
use weft_model::policy::route::{
    GrpcMatch, HeaderMatch, HostMatch, HttpMatch, PathMatch, Pattern, QueryMatch, ValueMatch,
};

pub(crate) fn decode_host(host: proto::HostMatch) -> Result<HostMatch, Invalid> {
    match require("match", host.r#match)? {
        proto::host_match::Match::Exact(name) => exact_host(&name),
        proto::host_match::Match::Suffix(proto::host_match::Suffix { reverse_labels }) => suffix_host(&reverse_labels),
    }
}

pub(crate) fn encode_host(host: &HostMatch) -> proto::HostMatch {
    let host = match host {
        HostMatch::Exact(name) => proto::host_match::Match::Exact(name.clone()),
        HostMatch::Suffix(labels) => {
            proto::host_match::Match::Suffix(proto::host_match::Suffix { reverse_labels: labels.clone() })
        }
    };
    proto::HostMatch { r#match: Some(host) }
}

pub(crate) fn decode_sni(sni: tls_route::SniMatch) -> Result<HostMatch, Invalid> {
    match require("match", sni.r#match)? {
        tls_route::sni_match::Match::Exact(name) => exact_host(&name),
        tls_route::sni_match::Match::Suffix(tls_route::sni_match::Suffix { reverse_labels }) => {
            suffix_host(&reverse_labels)
        }
    }
}

pub(crate) fn encode_sni(sni: &HostMatch) -> tls_route::SniMatch {
    let sni = match sni {
        HostMatch::Exact(name) => tls_route::sni_match::Match::Exact(name.clone()),
        HostMatch::Suffix(labels) => {
            tls_route::sni_match::Match::Suffix(tls_route::sni_match::Suffix { reverse_labels: labels.clone() })
        }
    };
    tls_route::SniMatch { r#match: Some(sni) }
}

fn exact_host(name: &str) -> Result<HostMatch, Invalid> {
    if name.is_empty() {
        return Err(Invalid::missing("exact"));
    }
    Ok(HostMatch::Exact(name.to_ascii_lowercase()))
}

fn suffix_host(reverse_labels: &[String]) -> Result<HostMatch, Invalid> {
    if reverse_labels.iter().any(String::is_empty) {
        return Err(Invalid::new("suffix.reverse_labels", "a label is not empty"));
    }
    Ok(HostMatch::Suffix(reverse_labels.iter().map(|label| label.to_ascii_lowercase()).collect()))
}

pub(crate) fn decode_http(m: proto::HttpRouteMatch) -> Result<HttpMatch, Invalid> {
    let proto::HttpRouteMatch { path, headers, query_params, method } = m;
    Ok(HttpMatch {
        path: optional("path", path, decode_path)?,
        headers: each("headers", headers, decode_header)?,
        query: each("query_params", query_params, decode_query)?,
        method: optional("method", method, decode_method)?,
    })
}

pub(crate) fn encode_http(m: &HttpMatch) -> Result<proto::HttpRouteMatch, Invalid> {
    let HttpMatch { path, headers, query, method } = m;
    Ok(proto::HttpRouteMatch {
        path: path.as_ref().map(encode_path),
        headers: headers.iter().map(encode_header).collect(),
        query_params: each("query_params", query, encode_query)?,
        method: method.as_deref().map(encode_method),
    })
}

pub(crate) fn decode_grpc(m: grpc_route::GrpcRouteMatch) -> Result<GrpcMatch, Invalid> {
    let grpc_route::GrpcRouteMatch { rpc, headers } = m;
    let grpc_route::GrpcRpcMatch { service, method } = rpc.unwrap_or_default();
    Ok(GrpcMatch { service, method, headers: each("headers", headers, decode_header)? })
}

pub(crate) fn encode_grpc(m: &GrpcMatch) -> Result<grpc_route::GrpcRouteMatch, Invalid> {
    let GrpcMatch { service, method, headers } = m;
    let rpc = grpc_route::GrpcRpcMatch { service: service.clone(), method: method.clone() };
    Ok(grpc_route::GrpcRouteMatch { rpc: Some(rpc), headers: headers.iter().map(encode_header).collect() })
}

fn decode_path(path: proto::PathMatch) -> Result<PathMatch, Invalid> {
    Ok(match require("kind", path.kind)? {
        proto::path_match::Kind::Exact(path) => PathMatch::Exact(path),
        proto::path_match::Kind::Prefix(path) => PathMatch::Prefix(path),
        proto::path_match::Kind::Regex(regex) => PathMatch::Regex(decode_pattern(&regex)?),
    })
}

fn encode_path(path: &PathMatch) -> proto::PathMatch {
    let kind = match path {
        PathMatch::Exact(path) => proto::path_match::Kind::Exact(path.clone()),
        PathMatch::Prefix(path) => proto::path_match::Kind::Prefix(path.clone()),
        PathMatch::Regex(pattern) => proto::path_match::Kind::Regex(pattern.as_str().to_owned()),
    };
    proto::PathMatch { kind: Some(kind) }
}

pub(crate) fn decode_pattern(regex: &str) -> Result<Pattern, Invalid> {
    Pattern::new(regex).map_err(|error| Invalid::new("regex", error))
}

fn decode_header(header: proto::HeaderMatch) -> Result<HeaderMatch, Invalid> {
    let proto::HeaderMatch { name, value } = header;
    let value = match require("value", value)? {
        proto::header_match::Value::Exact(bytes) => ValueMatch::Exact(bytes),
        proto::header_match::Value::Regex(regex) => ValueMatch::Regex(decode_pattern(&regex)?),
    };
    Ok(HeaderMatch { name: decode_header_name("name", &name)?, value })
}

fn encode_header(header: &HeaderMatch) -> proto::HeaderMatch {
    let HeaderMatch { name, value } = header;
    let value = match value {
        ValueMatch::Exact(bytes) => proto::header_match::Value::Exact(bytes.clone()),
        ValueMatch::Regex(pattern) => proto::header_match::Value::Regex(pattern.as_str().to_owned()),
    };
    proto::HeaderMatch { name: name.clone(), value: Some(value) }
}

/// The name in lower case.
pub(crate) fn decode_header_name(field: &str, name: &str) -> Result<String, Invalid> {
    name.parse::<http::HeaderName>()
        .map(|name| name.as_str().to_owned())
        .map_err(|_| Invalid::new(field, format_args!("{name:?} is no header name")))
}

fn decode_query(query: proto::QueryParamMatch) -> Result<QueryMatch, Invalid> {
    let proto::QueryParamMatch { name, value } = query;
    if name.is_empty() {
        return Err(Invalid::missing("name"));
    }
    let value = match require("value", value)? {
        proto::query_param_match::Value::Exact(text) => ValueMatch::Exact(text.into_bytes()),
        proto::query_param_match::Value::Regex(regex) => ValueMatch::Regex(decode_pattern(&regex)?),
    };
    Ok(QueryMatch { name, value })
}

fn encode_query(query: &QueryMatch) -> Result<proto::QueryParamMatch, Invalid> {
    let QueryMatch { name, value } = query;
    let value = match value {
        ValueMatch::Exact(bytes) => proto::query_param_match::Value::Exact(
            String::from_utf8(bytes.clone()).map_err(|_| Invalid::new("exact", "is not UTF-8"))?,
        ),
        ValueMatch::Regex(pattern) => proto::query_param_match::Value::Regex(pattern.as_str().to_owned()),
    };
    Ok(proto::QueryParamMatch { name: name.clone(), value: Some(value) })
}

pub(crate) fn decode_method(method: http_types::HttpMethod) -> Result<String, Invalid> {
    use http_types::http_method::{Registered, Type};
    match require("type", method.r#type)? {
        Type::Registered(number) => Registered::try_from(number)
            .map(|method| method.as_str_name().to_owned())
            .map_err(|_| Invalid::new("registered", format_args!("{number} is no method"))),
        Type::Unregistered(method) => match http::Method::from_bytes(method.as_bytes()) {
            Ok(_) => Ok(method),
            Err(_) => Err(Invalid::new("unregistered", format_args!("{method:?} is no method"))),
        },
    }
}

pub(crate) fn encode_method(method: &str) -> http_types::HttpMethod {
    use http_types::http_method::{Registered, Type};
    let method = match Registered::from_str_name(method) {
        Some(registered) => Type::Registered(registered.into()),
        None => Type::Unregistered(method.to_owned()),
    };
    http_types::HttpMethod { r#type: Some(method) }
}

pub(crate) fn decode_scheme(scheme: http_types::Scheme) -> Result<String, Invalid> {
    use http_types::scheme::{Registered, Type};
    match require("type", scheme.r#type)? {
        Type::Registered(number) => match Registered::try_from(number) {
            Ok(Registered::Http) => Ok("http".to_owned()),
            Ok(Registered::Https) => Ok("https".to_owned()),
            Err(_) => Err(Invalid::new("registered", format_args!("{number} is no scheme"))),
        },
        Type::Unregistered(scheme) => match scheme.parse::<http::uri::Scheme>() {
            Ok(_) => Ok(scheme),
            Err(_) => Err(Invalid::new("unregistered", format_args!("{scheme:?} is no scheme"))),
        },
    }
}

pub(crate) fn encode_scheme(scheme: &str) -> http_types::Scheme {
    use http_types::scheme::{Registered, Type};
    let scheme = match scheme {
        "http" => Type::Registered(Registered::Http.into()),
        "https" => Type::Registered(Registered::Https.into()),
        other => Type::Unregistered(other.to_owned()),
    };
    http_types::Scheme { r#type: Some(scheme) }
}
