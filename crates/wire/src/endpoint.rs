//! One endpoint, and steps between sets of them.

use crate::{
    error::{Invalid, Within, each, here, optional, require, required, usable},
    net, time,
};
use linkerd2_proxy_api::destination as proto;
use std::collections::{BTreeMap, HashMap};
use weft_model::{
    DnsName, Endpoint, EndpointUpdate, Identity, ProtocolHint,
    endpoint::{Http2KeepAlive, Http2Params, ServerTls},
};

/// RFC 9113 4.2: outside of these an HTTP/2 stack refuses the setting.
const FRAME_SIZES: std::ops::RangeInclusive<u32> = 16_384..=16_777_215;
/// RFC 9113 6.9.1.
const MAX_WINDOW: u32 = i32::MAX as u32;

/// What of an update can be used, then what cannot: an address that is wrong costs no other one.
pub(crate) fn decode_update(update: proto::Update) -> (Option<EndpointUpdate>, Vec<Invalid>) {
    match update.update {
        None => (None, vec![Invalid::missing("update")]),
        Some(proto::update::Update::Add(proto::WeightedAddrSet { addrs, metric_labels })) => {
            let (endpoints, invalid) = usable("add.addrs", addrs, |addr| decode_labelled(addr, &metric_labels));
            (Some(EndpointUpdate::Add(endpoints)), invalid)
        }
        Some(proto::update::Update::Remove(proto::AddrSet { addrs })) => {
            let (addrs, invalid) = usable("remove.addrs", addrs, net::decode_addr);
            (Some(EndpointUpdate::Remove(addrs)), invalid)
        }
        Some(proto::update::Update::NoEndpoints(proto::NoEndpoints { exists })) => {
            (Some(EndpointUpdate::NoEndpoints { exists }), vec![])
        }
    }
}

/// Only what can be used as a whole.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn decode_whole_update(update: proto::Update) -> Result<EndpointUpdate, Invalid> {
    let (update, invalid) = decode_update(update);
    invalid.into_iter().next().map_or_else(|| update.ok_or_else(|| Invalid::missing("update")), Err)
}

pub(crate) fn encode_update(update: &EndpointUpdate) -> Result<proto::Update, Invalid> {
    let update = match update {
        EndpointUpdate::Add(endpoints) => proto::update::Update::Add(encode_set(endpoints)?),
        EndpointUpdate::Remove(addrs) => proto::update::Update::Remove(proto::AddrSet {
            addrs: addrs.iter().copied().map(net::encode_addr).collect(),
        }),
        EndpointUpdate::NoEndpoints { exists } => {
            proto::update::Update::NoEndpoints(proto::NoEndpoints { exists: *exists })
        }
    };
    Ok(proto::Update { update: Some(update) })
}

/// Labels that all endpoints share are sent once.
fn encode_set(endpoints: &[Endpoint]) -> Result<proto::WeightedAddrSet, Invalid> {
    let mut shared = match endpoints {
        [first, _, ..] => first.labels.clone(),
        _ => BTreeMap::new(),
    };
    shared.retain(|name, value| endpoints.iter().all(|e| e.labels.get(name) == Some(value)));
    let addrs = each("addrs", endpoints, |endpoint| {
        let mut addr = encode(endpoint)?;
        addr.metric_labels.retain(|name, _| !shared.contains_key(name));
        Ok(addr)
    })?;
    Ok(proto::WeightedAddrSet { addrs, metric_labels: shared.into_iter().collect() })
}

fn decode_labelled(addr: proto::WeightedAddr, shared: &HashMap<String, String>) -> Result<Endpoint, Invalid> {
    let mut endpoint = decode(addr)?;
    for (name, value) in shared {
        endpoint.labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Ok(endpoint)
}

pub(crate) fn decode(addr: proto::WeightedAddr) -> Result<Endpoint, Invalid> {
    let proto::WeightedAddr {
        addr,
        weight,
        metric_labels,
        tls_identity,
        protocol_hint,
        authority_override,
        http2,
        resource_ref: _,
    } = addr;
    let (hint, transport_port) = decode_hint(protocol_hint).within("protocol_hint")?;
    Ok(Endpoint {
        addr: required("addr", addr, net::decode_addr)?,
        weight,
        tls: optional("tls_identity", tls_identity, decode_tls)?,
        hint,
        transport_port,
        authority_override: decode_authority(authority_override).within("authority_override")?,
        labels: metric_labels.into_iter().collect(),
        http2: optional("http2", http2, decode_http2)?.unwrap_or_default(),
    })
}

pub(crate) fn encode(endpoint: &Endpoint) -> Result<proto::WeightedAddr, Invalid> {
    let Endpoint { addr, weight, tls, hint, transport_port, authority_override, labels, http2 } = endpoint;
    Ok(proto::WeightedAddr {
        addr: Some(net::encode_addr(*addr)),
        weight: *weight,
        metric_labels: labels.clone().into_iter().collect(),
        tls_identity: tls.as_ref().map(encode_tls),
        protocol_hint: encode_hint(*hint, *transport_port),
        authority_override: authority_override
            .clone()
            .map(|authority_override| proto::AuthorityOverride { authority_override }),
        http2: encode_http2(http2).within("http2")?,
        resource_ref: None,
    })
}

/// An identity that cannot be read is an error: plaintext instead would be what nobody asked for.
fn decode_tls(tls: proto::TlsIdentity) -> Result<ServerTls, Invalid> {
    let proto::TlsIdentity { server_name, strategy } = tls;
    let server_name =
        server_name.map(|name| name.name.parse::<DnsName>().map_err(|e| Invalid::new("server_name", e))).transpose()?;
    match require("strategy", strategy)? {
        proto::tls_identity::Strategy::DnsLikeIdentity(id) => {
            let name: DnsName = id.name.parse().map_err(|e| Invalid::new("dns_like_identity.name", e))?;
            Ok(ServerTls { server_name: server_name.unwrap_or_else(|| name.clone()), identity: Identity::Dns(name) })
        }
        proto::tls_identity::Strategy::UriLikeIdentity(id) => {
            let identity = match id.uri.parse() {
                Ok(identity @ Identity::Uri(_)) => identity,
                Ok(Identity::Dns(_)) => return Err(Invalid::new("uri_like_identity.uri", "is no URI")),
                Err(e) => return Err(Invalid::new("uri_like_identity.uri", e)),
            };
            Ok(ServerTls { identity, server_name: require("server_name", server_name)? })
        }
    }
}

fn encode_tls(tls: &ServerTls) -> proto::TlsIdentity {
    use proto::tls_identity::{DnsLikeIdentity, Strategy, UriLikeIdentity};
    let ServerTls { identity, server_name } = tls;
    let strategy = match identity {
        Identity::Dns(name) => Strategy::DnsLikeIdentity(DnsLikeIdentity { name: name.to_string() }),
        Identity::Uri(uri) => Strategy::UriLikeIdentity(UriLikeIdentity { uri: uri.to_string() }),
    };
    proto::TlsIdentity {
        server_name: Some(DnsLikeIdentity { name: server_name.to_string() }),
        strategy: Some(strategy),
    }
}

fn decode_hint(hint: Option<proto::ProtocolHint>) -> Result<(ProtocolHint, Option<u16>), Invalid> {
    let Some(proto::ProtocolHint { opaque_transport, protocol }) = hint else {
        return Ok((ProtocolHint::Unknown, None));
    };
    let hint = match protocol {
        None => ProtocolHint::Unknown,
        Some(proto::protocol_hint::Protocol::H2(_)) => ProtocolHint::H2,
        Some(proto::protocol_hint::Protocol::Opaque(_)) => ProtocolHint::Opaque,
    };
    let port = optional("opaque_transport", opaque_transport, |t| decode_transport_port(t.inbound_port))?;
    Ok((hint, port))
}

/// Linkerd's proxies refuse 65535 too (data plane 4.6).
fn decode_transport_port(port: u32) -> Result<u16, Invalid> {
    match net::decode_port("inbound_port", port)? {
        u16::MAX => Err(Invalid::new("inbound_port", "is 1 to 65534")),
        port => Ok(port),
    }
}

fn encode_hint(hint: ProtocolHint, transport_port: Option<u16>) -> Option<proto::ProtocolHint> {
    use proto::protocol_hint::{H2, Opaque, OpaqueTransport, Protocol};
    let protocol = match hint {
        ProtocolHint::Unknown => None,
        ProtocolHint::H2 => Some(Protocol::H2(H2 {})),
        ProtocolHint::Opaque => Some(Protocol::Opaque(Opaque {})),
    };
    let opaque_transport = transport_port.map(|port| OpaqueTransport { inbound_port: port.into() });
    (protocol.is_some() || opaque_transport.is_some()).then_some(proto::ProtocolHint { opaque_transport, protocol })
}

fn decode_authority(authority: Option<proto::AuthorityOverride>) -> Result<Option<String>, Invalid> {
    let Some(proto::AuthorityOverride { authority_override: text }) = authority else { return Ok(None) };
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<http::uri::Authority>() {
        Ok(_) => Ok(Some(text)),
        Err(e) => Err(here(e)),
    }
}

fn decode_http2(params: proto::Http2ClientParams) -> Result<Http2Params, Invalid> {
    let proto::Http2ClientParams { flow_control, keep_alive, internals } = params;
    let flow = flow_control.unwrap_or_default();
    let internals = internals.unwrap_or_default();
    let window = |field, size| {
        let size = set(size);
        size.is_none_or(|s| s <= MAX_WINDOW)
            .then_some(size)
            .ok_or_else(|| Invalid::new(field, "a window has at most 2147483647 bytes"))
    };
    let max_frame_size = set(internals.max_frame_size);
    if max_frame_size.is_some_and(|size| !FRAME_SIZES.contains(&size)) {
        return Err(Invalid::new("internals.max_frame_size", "is 16384 to 16777215"));
    }
    Ok(Http2Params {
        connection_window: window("flow_control.initial_connection_window_size", flow.initial_connection_window_size)?,
        stream_window: window("flow_control.initial_stream_window_size", flow.initial_stream_window_size)?,
        adaptive_window: flow.adaptive_flow_control,
        keep_alive: optional("keep_alive", keep_alive, decode_keep_alive)?,
        max_concurrent_reset_streams: set(internals.max_concurrent_reset_streams),
        max_frame_size,
        max_send_buf_size: set(internals.max_send_buf_size),
    })
}

/// Zero is what the wire says for "not given".
fn set(number: u32) -> Option<u32> {
    (number > 0).then_some(number)
}

fn decode_keep_alive(keep_alive: proto::http2_client_params::KeepAlive) -> Result<Http2KeepAlive, Invalid> {
    let proto::http2_client_params::KeepAlive { interval, timeout, while_idle } = keep_alive;
    Ok(Http2KeepAlive {
        interval: time::decode_required("interval", interval)?,
        timeout: time::decode_required("timeout", timeout)?,
        while_idle,
    })
}

fn encode_http2(params: &Http2Params) -> Result<Option<proto::Http2ClientParams>, Invalid> {
    use proto::http2_client_params::{FlowControl, Internals, KeepAlive};
    if *params == Http2Params::default() {
        return Ok(None);
    }
    let Http2Params {
        connection_window,
        stream_window,
        adaptive_window,
        keep_alive,
        max_concurrent_reset_streams,
        max_frame_size,
        max_send_buf_size,
    } = *params;
    let flow_control = FlowControl {
        initial_connection_window_size: connection_window.unwrap_or(0),
        initial_stream_window_size: stream_window.unwrap_or(0),
        adaptive_flow_control: adaptive_window,
    };
    let internals = Internals {
        max_concurrent_reset_streams: max_concurrent_reset_streams.unwrap_or(0),
        max_frame_size: max_frame_size.unwrap_or(0),
        max_send_buf_size: max_send_buf_size.unwrap_or(0),
    };
    let keep_alive = optional("keep_alive", keep_alive, |Http2KeepAlive { interval, timeout, while_idle }| {
        Ok(KeepAlive {
            interval: Some(time::encode(interval).within("interval")?),
            timeout: Some(time::encode(timeout).within("timeout")?),
            while_idle,
        })
    })?;
    Ok(Some(proto::Http2ClientParams {
        flow_control: (flow_control != FlowControl::default()).then_some(flow_control),
        keep_alive,
        internals: (internals != Internals::default()).then_some(internals),
    }))
}
