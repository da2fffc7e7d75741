//! Watching requests as they pass a proxy: `io.linkerd.proxy.tap.Tap`. The proxy is the server.

use crate::{
    Error, GrpcServer, Incoming, Outgoing, Transport,
    error::{Invalid, Within, each, here, require, required},
    filter::{decode_headers, encode_headers},
    net::{decode_addr, decode_ip, encode_addr, encode_ip},
    route::{decode_method, decode_scheme, encode_method, encode_scheme},
    stream::{incoming, outgoing, refused},
    time,
};
use linkerd2_proxy_api::tap::{
    self as proto,
    observe_request::{self, extract, r#match as matches},
    tap_client::TapClient,
    tap_event,
    tap_server::{self, TapServer},
};
use std::{future::Future, ops::RangeInclusive};
use tonic::{Request, Response, Status, async_trait};
use weft_model::{
    decide::cidr::Cidr,
    tap::{AddrMatch, End, Event, Labels, Match, Observation, Step, StreamId, TextMatch},
};

/// The largest question that is read, in bytes.
const MAX_QUESTION_BYTES: usize = 64 * 1024;
/// How deep conditions may be nested.
const MAX_DEPTH: usize = 16;

/// Asks a proxy's Tap service.
#[derive(Clone, Debug)]
pub struct Client<T>(TapClient<T>);

impl<T: Transport> Client<T> {
    pub fn new(transport: T) -> Self {
        Self(TapClient::new(transport))
    }

    /// Requests that pass from now on, each in up to three steps.
    pub async fn observe(&mut self, observation: &Observation) -> Result<Incoming<Event>, Error> {
        Ok(incoming(self.0.observe(encode(observation)).await?.into_inner(), decode_event))
    }
}

/// A Tap service. The connection's extensions and the metadata are in the request.
pub trait Taps: Send + Sync + 'static {
    fn observe(
        &self,
        observation: Request<Observation>,
    ) -> impl Future<Output = Result<Outgoing<Event>, Status>> + Send;

    /// Who may ask is decided before what is asked is looked at.
    ///
    /// # Errors
    /// This caller may not.
    fn permit(&self, extensions: &http::Extensions) -> Result<(), Status>;
}

/// Serves `service` as gRPC.
pub fn server(service: impl Taps) -> impl GrpcServer {
    TapServer::new(Adapter(service)).max_decoding_message_size(MAX_QUESTION_BYTES)
}

struct Adapter<S>(S);

#[async_trait]
impl<S: Taps> tap_server::Tap for Adapter<S> {
    type ObserveStream = Outgoing<proto::TapEvent>;

    async fn observe(&self, request: Request<proto::ObserveRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        self.0.permit(&extensions)?;
        let observation = decode(request).map_err(|e| refused(&e))?;
        let events = self.0.observe(Request::from_parts(metadata, extensions, observation)).await?;
        Ok(Response::new(outgoing(events, encode_event)))
    }
}

pub(crate) fn decode(request: proto::ObserveRequest) -> Result<Observation, Invalid> {
    let proto::ObserveRequest { limit, r#match, extract } = request;
    if limit == 0 {
        return Err(Invalid::new("limit", "must be more than 0"));
    }
    let headers = extract.and_then(|proto::observe_request::Extract { extract }| extract);
    let headers = headers.is_some_and(|observe_request::extract::Extract::Http(extract::Http { extract })| {
        matches!(extract, Some(extract::http::Extract::Headers(_)))
    });
    let matches = required("match", r#match, |m| decode_match(m, MAX_DEPTH))?;
    Ok(Observation { limit, matches, headers })
}

pub(crate) fn encode(observation: &Observation) -> proto::ObserveRequest {
    let Observation { limit, matches, headers } = observation;
    let extract = extract::http::Extract::Headers(extract::http::Headers {});
    let extract = observe_request::extract::Extract::Http(extract::Http { extract: Some(extract) });
    proto::ObserveRequest {
        limit: *limit,
        r#match: Some(encode_match(matches)),
        extract: headers.then_some(observe_request::Extract { extract: Some(extract) }),
    }
}

fn decode_match(m: observe_request::Match, depth: usize) -> Result<Match, Invalid> {
    use matches::Match as Proto;
    let Some(deeper) = depth.checked_sub(1) else {
        return Err(here(format_args!("conditions are nested more than {MAX_DEPTH} deep")));
    };
    let seq = |matches::Seq { matches }| each("matches", matches, |m| decode_match(m, deeper));
    Ok(match require("match", m.r#match)? {
        Proto::All(all) => Match::All(seq(all).within("all")?),
        Proto::Any(any) => Match::Any(seq(any).within("any")?),
        Proto::Not(not) => Match::Not(Box::new(decode_match(*not, deeper).within("not")?)),
        Proto::Source(source) => Match::Source(decode_tcp(source).within("source")?),
        Proto::Destination(destination) => Match::Destination(decode_tcp(destination).within("destination")?),
        Proto::Http(http) => decode_http(http).within("http")?,
        Proto::DestinationLabel(matches::Label { key, value }) => Match::DestinationLabel(key, value),
        Proto::RouteLabel(matches::Label { key, value }) => Match::RouteLabel(key, value),
    })
}

fn encode_match(m: &Match) -> observe_request::Match {
    use matches::{Http, Label, Match as Proto, Seq, http};
    let seq = |all: &[Match]| Seq { matches: all.iter().map(encode_match).collect() };
    let label = |key: &str, value: &str| Label { key: key.to_owned(), value: value.to_owned() };
    let http = |m| Proto::Http(Http { r#match: Some(m) });
    let proto = match m {
        Match::All(all) => Proto::All(seq(all)),
        Match::Any(any) => Proto::Any(seq(any)),
        Match::Not(not) => Proto::Not(Box::new(encode_match(not))),
        Match::Source(source) => Proto::Source(encode_tcp(source)),
        Match::Destination(destination) => Proto::Destination(encode_tcp(destination)),
        Match::Scheme(scheme) => http(http::Match::Scheme(encode_scheme(scheme))),
        Match::Method(method) => http(http::Match::Method(encode_method(method))),
        Match::Authority(text) => http(http::Match::Authority(encode_text(text))),
        Match::Path(text) => http(http::Match::Path(encode_text(text))),
        Match::DestinationLabel(key, value) => Proto::DestinationLabel(label(key, value)),
        Match::RouteLabel(key, value) => Proto::RouteLabel(label(key, value)),
    };
    observe_request::Match { r#match: Some(proto) }
}

fn decode_tcp(tcp: matches::Tcp) -> Result<AddrMatch, Invalid> {
    use matches::tcp;
    match require("match", tcp.r#match)? {
        tcp::Match::Netmask(tcp::Netmask { ip, mask }) => {
            let ip = required("netmask.ip", ip, decode_ip)?;
            let network = u8::try_from(mask).ok().and_then(|len| Cidr::new(ip, len));
            let wrong = || Invalid::new("netmask.mask", format_args!("{ip} has no {mask} leading bits"));
            Ok(AddrMatch::Network(network.ok_or_else(wrong)?))
        }
        tcp::Match::Ports(range) => Ok(AddrMatch::Ports(decode_ports(range).within("ports")?)),
    }
}

/// Without one of its ends the range is the other one alone.
fn decode_ports(range: matches::tcp::PortRange) -> Result<RangeInclusive<u16>, Invalid> {
    let matches::tcp::PortRange { min, max } = range;
    let (min, max) = match (min, max) {
        (0, 0) => return Err(here("has no end")),
        (0, port) | (port, 0) => (port, port),
        both => both,
    };
    let port = |port| crate::net::decode_port("", port);
    let (min, max) = (port(min)?, port(max)?);
    if min > max { Err(here(format_args!("{min} to {max} is no range"))) } else { Ok(min..=max) }
}

fn encode_tcp(m: &AddrMatch) -> matches::Tcp {
    use matches::tcp::{Match, Netmask, PortRange};
    let proto = match m {
        AddrMatch::Network(network) => {
            let (ip, mask) = (Some(encode_ip(network.addr())), network.prefix_len().into());
            Match::Netmask(Netmask { ip, mask })
        }
        AddrMatch::Ports(ports) => Match::Ports(PortRange { min: (*ports.start()).into(), max: (*ports.end()).into() }),
    };
    matches::Tcp { r#match: Some(proto) }
}

fn decode_http(http: matches::Http) -> Result<Match, Invalid> {
    use matches::http::Match as Proto;
    Ok(match require("match", http.r#match)? {
        Proto::Scheme(scheme) => Match::Scheme(decode_scheme(scheme).within("scheme")?),
        Proto::Method(method) => Match::Method(decode_method(method).within("method")?),
        Proto::Authority(text) => Match::Authority(decode_text(text).within("authority")?),
        Proto::Path(text) => Match::Path(decode_text(text).within("path")?),
    })
}

fn decode_text(text: matches::http::StringMatch) -> Result<TextMatch, Invalid> {
    use matches::http::string_match::Match as Proto;
    Ok(match require("match", text.r#match)? {
        Proto::Exact(text) => TextMatch::Exact(text),
        Proto::Prefix(text) => TextMatch::Prefix(text),
    })
}

fn encode_text(text: &TextMatch) -> matches::http::StringMatch {
    use matches::http::{StringMatch, string_match::Match as Proto};
    let proto = match text {
        TextMatch::Exact(text) => Proto::Exact(text.clone()),
        TextMatch::Prefix(text) => Proto::Prefix(text.clone()),
    };
    StringMatch { r#match: Some(proto) }
}

pub(crate) fn encode_event(event: &Event) -> Result<proto::TapEvent, Invalid> {
    use tap_event::{EndpointMeta, ProxyDirection, RouteMeta};
    let Event { outbound, source, source_labels, destination, destination_labels, route_labels, id, step } = event;
    let meta = |labels: &Labels| Some(EndpointMeta { labels: labels.clone().into_iter().collect() });
    let direction = if *outbound { ProxyDirection::Outbound } else { ProxyDirection::Inbound };
    let route = RouteMeta { labels: route_labels.clone().into_iter().collect() };
    let http = tap_event::Http { event: Some(encode_step(*id, step)?) };
    Ok(proto::TapEvent {
        source: Some(encode_addr(*source)),
        source_meta: meta(source_labels),
        route_meta: (!route_labels.is_empty()).then_some(route),
        destination: Some(encode_addr(*destination)),
        destination_meta: meta(destination_labels),
        proxy_direction: direction.into(),
        event: Some(tap_event::Event::Http(http)),
    })
}

fn encode_step(id: StreamId, step: &Step) -> Result<tap_event::http::Event, Invalid> {
    use proto::{Eos, eos};
    use tap_event::http::{self, Event as Proto};
    let StreamId { base, stream } = id;
    let id = Some(http::StreamId { base, stream });
    Ok(match step {
        Step::Request { method, scheme, authority, path, fields } => Proto::RequestInit(http::RequestInit {
            id,
            method: Some(encode_method(method)),
            scheme: (!scheme.is_empty()).then(|| encode_scheme(scheme)),
            authority: authority.clone(),
            path: path.clone(),
            headers: encode_headers(fields),
        }),
        Step::Response { since_request, status, fields } => Proto::ResponseInit(http::ResponseInit {
            id,
            since_request_init: Some(time::encode(*since_request)?),
            http_status: (*status).into(),
            headers: encode_headers(fields),
        }),
        Step::End { since_request, since_response, response_bytes, end, fields } => {
            let eos = end.map(|end| match end {
                End::Grpc(status) => eos::End::GrpcStatusCode(status),
                End::Reset(code) => eos::End::ResetErrorCode(code),
            });
            Proto::ResponseEnd(http::ResponseEnd {
                id,
                since_request_init: Some(time::encode(*since_request)?),
                since_response_init: Some(time::encode(*since_response)?),
                response_bytes: *response_bytes,
                eos: eos.map(|end| Eos { end: Some(end) }),
                trailers: encode_headers(fields),
            })
        }
    })
}

pub(crate) fn decode_event(event: proto::TapEvent) -> Result<Event, Invalid> {
    use tap_event::{EndpointMeta, ProxyDirection, RouteMeta};
    let proto::TapEvent { source, source_meta, route_meta, destination, destination_meta, proxy_direction, event } =
        event;
    let outbound = match ProxyDirection::try_from(proxy_direction) {
        Ok(ProxyDirection::Inbound) => false,
        Ok(ProxyDirection::Outbound) => true,
        _ => return Err(Invalid::new("proxy_direction", format_args!("{proxy_direction} is no direction"))),
    };
    let meta = |meta: Option<EndpointMeta>| meta.unwrap_or_default().labels.into_iter().collect();
    let RouteMeta { labels: route_labels } = route_meta.unwrap_or_default();
    let tap_event::Event::Http(tap_event::Http { event }) = require("event", event)?;
    let (id, step) = decode_step(require("event.http.event", event)?).within("event.http")?;
    Ok(Event {
        outbound,
        source: required("source", source, decode_addr)?,
        source_labels: meta(source_meta),
        destination: required("destination", destination, decode_addr)?,
        destination_labels: meta(destination_meta),
        route_labels: route_labels.into_iter().collect(),
        id,
        step,
    })
}

fn decode_step(event: tap_event::http::Event) -> Result<(StreamId, Step), Invalid> {
    use proto::{Eos, eos};
    use tap_event::http::{self, Event as Proto};
    let id = |id| {
        let http::StreamId { base, stream } = require("id", id)?;
        Ok(StreamId { base, stream })
    };
    match event {
        Proto::RequestInit(http::RequestInit { id: stream, method, scheme, authority, path, headers }) => {
            let step = Step::Request {
                method: required("request_init.method", method, decode_method)?,
                scheme: scheme.map(decode_scheme).transpose()?.unwrap_or_default(),
                authority,
                path,
                fields: decode_headers(headers).within("request_init.headers")?,
            };
            Ok((id(stream)?, step))
        }
        Proto::ResponseInit(http::ResponseInit { id: stream, since_request_init, http_status, headers }) => {
            let status = u16::try_from(http_status);
            let step = Step::Response {
                since_request: required("response_init.since_request_init", since_request_init, time::decode)?,
                status: status.map_err(|_| Invalid::new("response_init.http_status", "is no status"))?,
                fields: decode_headers(headers).within("response_init.headers")?,
            };
            Ok((id(stream)?, step))
        }
        Proto::ResponseEnd(http::ResponseEnd {
            id: stream,
            since_request_init,
            since_response_init,
            response_bytes,
            eos,
            trailers,
        }) => {
            let end = eos.and_then(|Eos { end }| end).map(|end| match end {
                eos::End::GrpcStatusCode(status) => End::Grpc(status),
                eos::End::ResetErrorCode(code) => End::Reset(code),
            });
            let step = Step::End {
                since_request: required("response_end.since_request_init", since_request_init, time::decode)?,
                since_response: required("response_end.since_response_init", since_response_init, time::decode)?,
                response_bytes,
                end,
                fields: decode_headers(trailers).within("response_end.trailers")?,
            };
            Ok((id(stream)?, step))
        }
    }
}
