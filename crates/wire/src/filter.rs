//! What a route does to the requests and connections it matches.
//!
//! Each kind of route has its own message of filters, with some of the kinds; encoding a filter that the kind of route lacks
//! is an error.

use crate::{
    error::{Invalid, Within, each, here, optional, require, required},
    extension, net,
    route::{decode_header_name, decode_scheme, encode_scheme},
};
use linkerd2_proxy_api::{grpc_route, http_route as proto, http_types, inbound, opaque_route, outbound};
use weft_model::policy::route::{Filter, HeaderEdits, PathReplacement, Ratio, Redirect};

/// Conversions of one message of filters: which variant is which kind.
macro_rules! filters {
    ($decode:ident, $encode:ident, $message:ty, $kind:path, { $($variant:ident: $from:ident / $to:ident),+ $(,)? }) => {
        pub(crate) fn $decode(filter: $message) -> Result<Filter, Invalid> {
            use $kind as Kind;
            match require("kind", filter.kind)? {
                $(Kind::$variant(inner) => $from(inner),)+
            }
        }

        pub(crate) fn $encode(filter: &Filter) -> Result<$message, Invalid> {
            use $kind as Kind;
            $(if let Some(inner) = $to(filter) {
                return Ok(<$message>::from_kind(Kind::$variant(inner)));
            })+
            Err(here("this kind of route has no such filter"))
        }

        impl FromKind<$kind> for $message {
            fn from_kind(kind: $kind) -> Self {
                Self { kind: Some(kind) }
            }
        }
    };
}

/// A message that holds nothing but its kind.
trait FromKind<K> {
    fn from_kind(kind: K) -> Self;
}

filters!(decode_inbound_http, encode_inbound_http, inbound::http_route::Filter, inbound::http_route::filter::Kind, {
    FailureInjector: decode_http_failure / encode_http_failure,
    RequestHeaderModifier: decode_request_headers / encode_request_headers,
    Redirect: decode_redirect / encode_redirect,
});

filters!(decode_inbound_grpc, encode_inbound_grpc, inbound::grpc_route::Filter, inbound::grpc_route::filter::Kind, {
    FailureInjector: decode_grpc_failure / encode_grpc_failure,
    RequestHeaderModifier: decode_request_headers / encode_request_headers,
});

filters!(decode_outbound_http, encode_outbound_http, outbound::http_route::Filter, outbound::http_route::filter::Kind, {
    FailureInjector: decode_http_failure / encode_http_failure,
    RequestHeaderModifier: decode_request_headers / encode_request_headers,
    Redirect: decode_redirect / encode_redirect,
    ResponseHeaderModifier: decode_response_headers / encode_response_headers,
});

filters!(decode_outbound_grpc, encode_outbound_grpc, outbound::grpc_route::Filter, outbound::grpc_route::filter::Kind, {
    FailureInjector: decode_grpc_failure / encode_grpc_failure,
    RequestHeaderModifier: decode_request_headers / encode_request_headers,
});

filters!(decode_opaque, encode_opaque, outbound::opaque_route::Filter, outbound::opaque_route::filter::Kind, {
    Invalid: decode_invalid / encode_invalid,
    Forbidden: decode_forbidden / encode_forbidden,
});

filters!(decode_tls, encode_tls, outbound::tls_route::Filter, outbound::tls_route::filter::Kind, {
    Invalid: decode_invalid / encode_invalid,
    Forbidden: decode_forbidden / encode_forbidden,
});

fn decode_http_failure(failure: proto::HttpFailureInjector) -> Result<Filter, Invalid> {
    let proto::HttpFailureInjector { status, message, ratio } = failure;
    let status = decode_status(status).within("failure_injector.status")?;
    let ratio = decode_ratio(ratio).within("failure_injector.ratio")?;
    Ok(match extension::named(&message).filter(|_| ratio == Ratio::ALWAYS && status == extension::STATUS) {
        Some(extension) => Filter::Extension(extension),
        None => Filter::HttpFailure { status, message, ratio },
    })
}

fn encode_http_failure(filter: &Filter) -> Option<proto::HttpFailureInjector> {
    if let Filter::Extension(extension) = filter {
        let ratio = Some(encode_ratio(Ratio::ALWAYS));
        let message = extension::message(extension);
        return Some(proto::HttpFailureInjector { status: extension::STATUS.into(), message, ratio });
    }
    let Filter::HttpFailure { status, message, ratio } = filter else { return None };
    let ratio = Some(encode_ratio(*ratio));
    Some(proto::HttpFailureInjector { status: (*status).into(), message: message.clone(), ratio })
}

fn decode_grpc_failure(failure: grpc_route::GrpcFailureInjector) -> Result<Filter, Invalid> {
    let grpc_route::GrpcFailureInjector { code, message, ratio } = failure;
    let code = u16::try_from(code).map_err(|_| Invalid::new("failure_injector.code", "is above 65535"))?;
    let ratio = decode_ratio(ratio).within("failure_injector.ratio")?;
    Ok(match extension::named(&message).filter(|_| ratio == Ratio::ALWAYS && code == extension::GRPC_CODE) {
        Some(extension) => Filter::Extension(extension),
        None => Filter::GrpcFailure { code, message, ratio },
    })
}

fn encode_grpc_failure(filter: &Filter) -> Option<grpc_route::GrpcFailureInjector> {
    if let Filter::Extension(extension) = filter {
        let ratio = Some(encode_ratio(Ratio::ALWAYS));
        let message = extension::message(extension);
        return Some(grpc_route::GrpcFailureInjector { code: extension::GRPC_CODE.into(), message, ratio });
    }
    let Filter::GrpcFailure { code, message, ratio } = filter else { return None };
    let ratio = Some(encode_ratio(*ratio));
    Some(grpc_route::GrpcFailureInjector { code: (*code).into(), message: message.clone(), ratio })
}

/// Without a ratio all requests fail.
fn decode_ratio(ratio: Option<proto::Ratio>) -> Result<Ratio, Invalid> {
    let proto::Ratio { numerator, denominator } = ratio.unwrap_or(proto::Ratio { numerator: 1, denominator: 1 });
    if denominator == 0 {
        return Err(Invalid::new("denominator", "is not 0"));
    }
    Ok(Ratio { numerator, denominator })
}

fn encode_ratio(ratio: Ratio) -> proto::Ratio {
    let Ratio { numerator, denominator } = ratio;
    proto::Ratio { numerator, denominator }
}

fn decode_status(status: u32) -> Result<u16, Invalid> {
    u16::try_from(status)
        .ok()
        .filter(|status| (100..=599).contains(status))
        .ok_or_else(|| here(format_args!("{status} is no HTTP status: it is 100 to 599")))
}

fn decode_request_headers(modifier: proto::RequestHeaderModifier) -> Result<Filter, Invalid> {
    let proto::RequestHeaderModifier { add, set, remove } = modifier;
    Ok(Filter::RequestHeaders(decode_edits(add, set, remove).within("request_header_modifier")?))
}

fn encode_request_headers(filter: &Filter) -> Option<proto::RequestHeaderModifier> {
    let Filter::RequestHeaders(HeaderEdits { add, set, remove }) = filter else { return None };
    Some(proto::RequestHeaderModifier { add: encode_headers(add), set: encode_headers(set), remove: remove.clone() })
}

fn decode_response_headers(modifier: proto::ResponseHeaderModifier) -> Result<Filter, Invalid> {
    let proto::ResponseHeaderModifier { add, set, remove } = modifier;
    Ok(Filter::ResponseHeaders(decode_edits(add, set, remove).within("response_header_modifier")?))
}

fn encode_response_headers(filter: &Filter) -> Option<proto::ResponseHeaderModifier> {
    let Filter::ResponseHeaders(HeaderEdits { add, set, remove }) = filter else { return None };
    Some(proto::ResponseHeaderModifier { add: encode_headers(add), set: encode_headers(set), remove: remove.clone() })
}

fn decode_edits(
    add: Option<http_types::Headers>,
    set: Option<http_types::Headers>,
    remove: Vec<String>,
) -> Result<HeaderEdits, Invalid> {
    Ok(HeaderEdits {
        add: decode_headers(add).within("add")?,
        set: decode_headers(set).within("set")?,
        remove: each("remove", remove, |name| decode_header_name("", &name))?,
    })
}

pub(crate) fn decode_headers(headers: Option<http_types::Headers>) -> Result<Vec<(String, Vec<u8>)>, Invalid> {
    each("headers", headers.unwrap_or_default().headers, |http_types::headers::Header { name, value }| {
        if http::HeaderValue::from_bytes(&value).is_err() {
            return Err(Invalid::new("value", "holds a byte that no header value may hold"));
        }
        Ok((decode_header_name("name", &name)?, value))
    })
}

pub(crate) fn encode_headers(headers: &[(String, Vec<u8>)]) -> Option<http_types::Headers> {
    let header =
        |(name, value): &(String, Vec<u8>)| http_types::headers::Header { name: name.clone(), value: value.clone() };
    (!headers.is_empty()).then(|| http_types::Headers { headers: headers.iter().map(header).collect() })
}

fn decode_redirect(redirect: proto::RequestRedirect) -> Result<Filter, Invalid> {
    let proto::RequestRedirect { scheme, host, path, port, status } = redirect;
    let redirect = || {
        if !host.is_empty() && host.parse::<http::uri::Authority>().is_err() {
            return Err(Invalid::new("host", format_args!("{host:?} is no host")));
        }
        Ok(Redirect {
            scheme: optional("scheme", scheme, decode_scheme)?,
            host: (!host.is_empty()).then_some(host),
            path: optional("path", path, decode_path_modifier)?,
            port: if port == 0 { None } else { Some(net::decode_port("port", port)?) },
            status: if status == 0 { None } else { Some(decode_status(status).within("status")?) },
        })
    };
    redirect().map(Filter::Redirect).within("redirect")
}

fn encode_redirect(filter: &Filter) -> Option<proto::RequestRedirect> {
    let Filter::Redirect(Redirect { scheme, host, path, port, status }) = filter else { return None };
    let replace = path.clone().map(|path| match path {
        PathReplacement::Full(path) => proto::path_modifier::Replace::Full(path),
        PathReplacement::Prefix(path) => proto::path_modifier::Replace::Prefix(path),
    });
    Some(proto::RequestRedirect {
        scheme: scheme.as_deref().map(encode_scheme),
        host: host.clone().unwrap_or_default(),
        path: replace.map(|replace| proto::PathModifier { replace: Some(replace) }),
        port: port.unwrap_or(0).into(),
        status: status.unwrap_or(0).into(),
    })
}

fn decode_path_modifier(path: proto::PathModifier) -> Result<PathReplacement, Invalid> {
    required("replace", path.replace, |replace| {
        Ok(match replace {
            proto::path_modifier::Replace::Full(path) => PathReplacement::Full(path),
            proto::path_modifier::Replace::Prefix(path) => PathReplacement::Prefix(path),
        })
    })
}

fn decode_invalid(invalid: opaque_route::Invalid) -> Result<Filter, Invalid> {
    Ok(Filter::Invalid(invalid.message))
}

fn encode_invalid(filter: &Filter) -> Option<opaque_route::Invalid> {
    let Filter::Invalid(message) = filter else { return None };
    Some(opaque_route::Invalid { message: message.clone() })
}

fn decode_forbidden(opaque_route::Forbidden {}: opaque_route::Forbidden) -> Result<Filter, Invalid> {
    Ok(Filter::Forbidden)
}

fn encode_forbidden(filter: &Filter) -> Option<opaque_route::Forbidden> {
    matches!(filter, Filter::Forbidden).then_some(opaque_route::Forbidden {})
}
