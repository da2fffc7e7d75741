//! What Linkerd's outbound policies have no words for: `weft.outbound.Extensions`, our own service.
//!
//! The messages in `gen/` are those of `proto/weft/outbound.proto`, in the form of [`crate::trust`]'s. In Linkerd's message an
//! extension is a failure injector: whoever does not know better fails the requests, and says why.

use crate::{
    Error, GrpcServer, Incoming, Outgoing, Transport,
    error::{Invalid, Within, each, require, usable},
    outbound::{Target, TrafficSpec},
    stream::{incoming_parts, outgoing, refused},
};
use prost::Message;
use proto::{extensions_client::ExtensionsClient, extensions_server::ExtensionsServer};
use std::{borrow::Cow, future::Future};
use tonic::{Request, Response, Status, async_trait};
use weft_model::{
    ClientPolicy, Extensions, Meta, NameAddr,
    fnv::fnv1a,
    meta::Resource,
    policy::route::{Extension, Filter, Mirror, PathReplacement, Ratio, Rewrite},
};

#[expect(unreachable_pub, clippy::allow_attributes, reason = "generated")]
mod proto {
    include!("gen/weft.outbound.rs");
}

/// With which the requests fail: that of HTTP, …
pub(crate) const STATUS: u16 = 500;
/// … and UNIMPLEMENTED.
pub(crate) const GRPC_CODE: u16 = 12;

/// The words around what is wanted, and its key.
const WORDS: [&str; 3] = ["the route wants a ", ", which this proxy does not carry out [weft-extension ", "]"];

/// Asks an Extensions service.
#[derive(Clone, Debug)]
pub struct Client<T>(ExtensionsClient<T>);

impl<T: Transport> Client<T> {
    pub fn new(transport: T) -> Self {
        Self(ExtensionsClient::new(transport).max_decoding_message_size(crate::MAX_MESSAGE_BYTES))
    }

    /// What belongs to the policy of a target, and each that follows it. What cannot be read is left out of it alone; an
    /// [`Error::Invalid`] for each follows. UNIMPLEMENTED is a control plane that has no such service.
    pub async fn watch(&mut self, spec: &TrafficSpec) -> Result<Incoming<Extensions>, Error> {
        Ok(incoming_parts(self.0.watch(encode_spec(spec.clone())).await?.into_inner(), decode))
    }
}

/// An Extensions service. The connection's extensions and the metadata are in the request.
pub trait PolicyExtensions: Send + Sync + 'static {
    fn watch(&self, spec: Request<TrafficSpec>) -> impl Future<Output = Result<Outgoing<Extensions>, Status>> + Send;
}

/// Serves `service` as gRPC.
pub fn server(service: impl PolicyExtensions) -> impl GrpcServer {
    ExtensionsServer::new(Adapter(service))
}

struct Adapter<S>(S);

#[async_trait]
impl<S: PolicyExtensions> proto::extensions_server::Extensions for Adapter<S> {
    type WatchStream = Outgoing<proto::Extended>;

    async fn watch(&self, request: Request<proto::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (metadata, extensions, spec) = request.into_parts();
        let request = Request::from_parts(metadata, extensions, decode_spec(spec).map_err(|e| refused(&e))?);
        Ok(Response::new(outgoing(self.0.watch(request).await?, encode)))
    }
}

/// Of a whole policy.
#[must_use]
pub fn of(policy: &ClientPolicy) -> Extensions {
    let all = policy.filters().into_iter().filter_map(|filters| {
        let (Extension { key, .. }, beyond) = extension(filters)?;
        Some((key, beyond))
    });
    Extensions(all.collect())
}

/// What of `filters` Linkerd's messages have no words for, and what stands for it there.
fn extension(filters: &[Filter]) -> Option<(Extension, Vec<Filter>)> {
    let beyond: Vec<Filter> = filters.iter().filter(|filter| filter.is_beyond_linkerd()).cloned().collect();
    let mut wants: Vec<&str> = beyond.iter().filter_map(kind).collect();
    wants.dedup();
    let message = proto::Extension { key: String::new(), filters: beyond.iter().filter_map(encode_filter).collect() };
    let key = format!("{:016x}", fnv1a(&message.encode_to_vec()));
    (!beyond.is_empty()).then(|| (Extension { key, wants: wants.join(" and ") }, beyond))
}

/// The filters as Linkerd's messages can say them: what is extended fails first, so that nothing of it is half done.
pub(crate) fn standing_in(filters: &[Filter]) -> Cow<'_, [Filter]> {
    match extension(filters) {
        None => Cow::Borrowed(filters),
        Some((extension, _)) => {
            let rest = filters.iter().filter(|filter| !filter.is_beyond_linkerd()).cloned();
            Cow::Owned(std::iter::once(Filter::Extension(extension)).chain(rest).collect())
        }
    }
}

/// What a failure injector says that stands for an extension.
pub(crate) fn message(Extension { key, wants }: &Extension) -> String {
    let [before, between, after] = WORDS;
    [before, wants, between, key, after].concat()
}

/// The extension that a failure injector stands for, by its message.
pub(crate) fn named(message: &str) -> Option<Extension> {
    let [before, between, after] = WORDS;
    let (wants, key) = message.strip_prefix(before)?.strip_suffix(after)?.rsplit_once(between)?;
    let is_key = key.len() == 16 && key.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_key.then(|| Extension { key: key.to_owned(), wants: wants.to_owned() })
}

fn kind(filter: &Filter) -> Option<&'static str> {
    match filter {
        Filter::Rewrite(_) => Some("URLRewrite"),
        Filter::Mirror(_) => Some("RequestMirror"),
        _ => None,
    }
}

pub(crate) fn decode_spec(spec: proto::WatchRequest) -> Result<TrafficSpec, Invalid> {
    use proto::watch_request::Target as Proto;
    let proto::WatchRequest { workload, target } = spec;
    let target = match require("target", target)? {
        Proto::Addr(addr) => Target::Addr(addr.parse().map_err(|e| Invalid::new("addr", e))?),
        Proto::Authority(authority) if authority.is_empty() => return Err(Invalid::missing("authority")),
        Proto::Authority(authority) => Target::Authority(authority),
    };
    Ok(TrafficSpec { workload, target })
}

pub(crate) fn encode_spec(TrafficSpec { workload, target }: TrafficSpec) -> proto::WatchRequest {
    use proto::watch_request::Target as Proto;
    let target = match target {
        Target::Addr(addr) => Proto::Addr(addr.to_string()),
        Target::Authority(authority) => Proto::Authority(authority),
    };
    proto::WatchRequest { workload, target: Some(target) }
}

/// What of it can be used, then what cannot: a filter that only a later version knows costs the rules that want it.
pub(crate) fn decode(proto::Extended { extensions }: proto::Extended) -> (Option<Extensions>, Vec<Invalid>) {
    let (all, invalid) = usable("extensions", extensions, |proto::Extension { key, filters }| {
        if key.is_empty() {
            return Err(Invalid::missing("key"));
        }
        Ok((key, each("filters", filters, decode_filter)?))
    });
    (Some(Extensions(all.into_iter().collect())), invalid)
}

/// Only what can be used as a whole.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn decode_whole(extended: proto::Extended) -> Result<Extensions, Invalid> {
    let (usable, invalid) = decode(extended);
    invalid.into_iter().next().map_or_else(|| Ok(usable.unwrap_or_default()), Err)
}

pub(crate) fn encode(Extensions(all): &Extensions) -> Result<proto::Extended, Invalid> {
    let extensions = all.iter().map(|(key, filters)| proto::Extension {
        key: key.clone(),
        filters: filters.iter().filter_map(encode_filter).collect(),
    });
    Ok(proto::Extended { extensions: extensions.collect() })
}

fn decode_filter(filter: proto::Filter) -> Result<Filter, Invalid> {
    use proto::{filter::Kind, rewrite::Path};
    match require("kind", filter.kind)? {
        Kind::Rewrite(proto::Rewrite { host, path }) => {
            if !host.is_empty() && host.parse::<http::uri::Authority>().is_err() {
                return Err(Invalid::new("host", format_args!("{host:?} is no host"))).within("rewrite");
            }
            let path = path.map(|path| match path {
                Path::Full(path) => PathReplacement::Full(path),
                Path::Prefix(path) => PathReplacement::Prefix(path),
            });
            Ok(Filter::Rewrite(Rewrite { host: (!host.is_empty()).then_some(host), path }))
        }
        Kind::Mirror(mirror) => decode_mirror(mirror).within("mirror"),
    }
}

fn decode_mirror(mirror: proto::Mirror) -> Result<Filter, Invalid> {
    let proto::Mirror { authority, namespace, name, numerator, denominator } = mirror;
    let target: NameAddr = authority.parse().map_err(|e| Invalid::new("authority", e))?;
    for (field, value) in [("namespace", &namespace), ("name", &name)] {
        if value.is_empty() {
            return Err(Invalid::missing(field));
        }
    }
    if denominator == 0 {
        return Err(Invalid::new("denominator", "is not 0"));
    }
    let meta = Meta::Resource(Resource {
        group: "core".to_owned(),
        kind: "Service".to_owned(),
        namespace,
        name,
        section: String::new(),
        port: target.port,
    });
    Ok(Filter::Mirror(Mirror { meta, target, share: Ratio { numerator, denominator } }))
}

/// `None` for what the policy itself says.
fn encode_filter(filter: &Filter) -> Option<proto::Filter> {
    use proto::{filter::Kind, rewrite::Path};
    let kind = match filter {
        Filter::Rewrite(Rewrite { host, path }) => Kind::Rewrite(proto::Rewrite {
            host: host.clone().unwrap_or_default(),
            path: path.clone().map(|path| match path {
                PathReplacement::Full(path) => Path::Full(path),
                PathReplacement::Prefix(path) => Path::Prefix(path),
            }),
        }),
        Filter::Mirror(Mirror { meta, target, share }) => Kind::Mirror(proto::Mirror {
            authority: target.to_string(),
            namespace: meta.namespace().to_owned(),
            name: meta.name().to_owned(),
            numerator: share.numerator,
            denominator: share.denominator,
        }),
        _ => return None,
    };
    Some(proto::Filter { kind: Some(kind) })
}
