//! Spans on their way to a collector: OTLP over gRPC, `opentelemetry.proto.collector.trace.v1.TraceService`.
//!
//! The messages are written out here, as far as they are used: the crate that has them brings an SDK along.

use crate::{
    Error, GrpcServer, Transport,
    error::{Invalid, each, require},
    stream::refused,
};
use bytes::Bytes;
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tonic::{
    Request, Response, Status,
    body::Body,
    client::Grpc,
    codegen::{Service, http::uri::PathAndQuery},
    server::{NamedService, UnaryService},
};
use tonic_prost::ProstCodec;
use weft_model::trace::{Span, SpanKind, Value};

const SERVICE: &str = "opentelemetry.proto.collector.trace.v1.TraceService";
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Names who made the spans.
const SCOPE: &str = "weft-proxy";

/// Spans of one process.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// What is said of the process.
    pub resource: Vec<(String, Value)>,
    pub spans: Vec<Span>,
}

/// Sends to a collector.
#[derive(Clone, Debug)]
pub struct Client<T>(Grpc<T>);

impl<T: Transport> Client<T> {
    pub fn new(transport: T) -> Self {
        Self(Grpc::new(transport))
    }

    /// Sends `export`; how many of its spans the collector rejected.
    pub async fn export(&mut self, export: &Export) -> Result<u64, Error> {
        let unready = |e: T::Error| Status::unavailable(format!("the collector is not ready: {}", e.into()));
        self.0.ready().await.map_err(unready)?;
        let request = Request::new(encode(export));
        let path = PathAndQuery::from_static(EXPORT);
        let response = self.0.unary(request, path, ProstCodec::<_, proto::ExportResponse>::default()).await?;
        let rejected = response.into_inner().partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(rejected).unwrap_or_default())
    }
}

/// A collector.
pub trait Collector: Send + Sync + 'static {
    fn export(&self, export: Export) -> impl Future<Output = Result<(), Status>> + Send;
}

/// Serves `collector` as gRPC.
pub fn server(collector: impl Collector) -> impl GrpcServer {
    Server(Arc::new(collector))
}

struct Server<C>(Arc<C>);

impl<C> Clone for Server<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> NamedService for Server<C> {
    const NAME: &'static str = SERVICE;
}

impl<C: Collector> Service<http::Request<Body>> for Server<C> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = self.clone();
        Box::pin(async move {
            if request.uri().path() != EXPORT {
                return Ok(Status::unimplemented("there is only Export").into_http());
            }
            let codec = ProstCodec::<proto::ExportResponse, proto::ExportRequest>::default();
            Ok(tonic::server::Grpc::new(codec).unary(method, request).await)
        })
    }
}

impl<C: Collector> UnaryService<proto::ExportRequest> for Server<C> {
    type Response = proto::ExportResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<proto::ExportResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<proto::ExportRequest>) -> Self::Future {
        let collector = Arc::clone(&self.0);
        Box::pin(async move {
            for export in decode(request.into_inner()).map_err(|e| refused(&e))? {
                collector.export(export).await?;
            }
            Ok(Response::new(proto::ExportResponse { partial_success: None }))
        })
    }
}

pub(crate) fn encode(export: &Export) -> proto::ExportRequest {
    let Export { resource, spans } = export;
    let scope = proto::Scope { name: SCOPE.to_owned() };
    let spans = proto::ScopeSpans { scope: Some(scope), spans: spans.iter().map(encode_span).collect() };
    let resource = proto::Resource { attributes: encode_attributes(resource) };
    let spans = proto::ResourceSpans { resource: Some(resource), scope_spans: vec![spans] };
    proto::ExportRequest { resource_spans: vec![spans] }
}

pub(crate) fn decode(request: proto::ExportRequest) -> Result<Vec<Export>, Invalid> {
    each("resource_spans", request.resource_spans, |proto::ResourceSpans { resource, scope_spans }| {
        let spans = scope_spans.into_iter().flat_map(|scope| scope.spans);
        Ok(Export {
            resource: decode_attributes(resource.unwrap_or_default().attributes)?,
            spans: each("spans", spans, decode_span)?,
        })
    })
}

fn encode_span(span: &Span) -> proto::Span {
    let Span { trace, id, parent, kind, name, start, end, attributes, failure } = span;
    proto::Span {
        trace_id: Bytes::copy_from_slice(trace),
        span_id: Bytes::copy_from_slice(id),
        parent_span_id: Bytes::copy_from_slice(parent),
        name: name.clone(),
        kind: match kind {
            SpanKind::Server => proto::SERVER,
            SpanKind::Client => proto::CLIENT,
        },
        start_time_unix_nano: *start,
        end_time_unix_nano: *end,
        attributes: encode_attributes(attributes),
        status: failure.clone().map(|message| proto::SpanStatus { message, code: proto::ERROR }),
    }
}

fn decode_span(span: proto::Span) -> Result<Span, Invalid> {
    let proto::Span {
        trace_id,
        span_id,
        parent_span_id,
        name,
        kind,
        start_time_unix_nano,
        end_time_unix_nano,
        attributes,
        status,
    } = span;
    Ok(Span {
        trace: id("trace_id", &trace_id)?,
        id: id("span_id", &span_id)?,
        parent: id("parent_span_id", &parent_span_id)?,
        kind: match kind {
            proto::SERVER => SpanKind::Server,
            proto::CLIENT => SpanKind::Client,
            other => return Err(Invalid::new("kind", format_args!("{other} is no kind of a proxy's"))),
        },
        name,
        start: start_time_unix_nano,
        end: end_time_unix_nano,
        attributes: decode_attributes(attributes)?,
        failure: status.filter(|status| status.code == proto::ERROR).map(|status| status.message),
    })
}

fn id<const N: usize>(field: &str, bytes: &Bytes) -> Result<[u8; N], Invalid> {
    let wrong = |_| Invalid::new(field, format_args!("has {} bytes, not {N}", bytes.len()));
    bytes.as_ref().try_into().map_err(wrong)
}

fn encode_attributes(attributes: &[(String, Value)]) -> Vec<proto::KeyValue> {
    let attribute = |(key, value): &(String, Value)| {
        let value = match value {
            Value::Text(text) => proto::any_value::Value::Text(text.clone()),
            Value::Number(number) => proto::any_value::Value::Number(*number),
        };
        proto::KeyValue { key: key.clone(), value: Some(proto::AnyValue { value: Some(value) }) }
    };
    attributes.iter().map(attribute).collect()
}

fn decode_attributes(attributes: Vec<proto::KeyValue>) -> Result<Vec<(String, Value)>, Invalid> {
    each("attributes", attributes, |proto::KeyValue { key, value }| {
        let value = match require("value", value.and_then(|value| value.value))? {
            proto::any_value::Value::Text(text) => Value::Text(text),
            proto::any_value::Value::Number(number) => Value::Number(number),
        };
        Ok((key, value))
    })
}

/// What is used of OTLP 1.
pub(crate) mod proto {
    use bytes::Bytes;

    pub(crate) const SERVER: i32 = 2;
    pub(crate) const CLIENT: i32 = 3;
    /// The status of a span that failed.
    pub(crate) const ERROR: i32 = 2;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ExportRequest {
        #[prost(message, repeated, tag = "1")]
        pub(crate) resource_spans: Vec<ResourceSpans>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ExportResponse {
        #[prost(message, optional, tag = "1")]
        pub(crate) partial_success: Option<PartialSuccess>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct PartialSuccess {
        #[prost(int64, tag = "1")]
        pub(crate) rejected_spans: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ResourceSpans {
        #[prost(message, optional, tag = "1")]
        pub(crate) resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) scope_spans: Vec<ScopeSpans>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub(crate) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ScopeSpans {
        #[prost(message, optional, tag = "1")]
        pub(crate) scope: Option<Scope>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) spans: Vec<Span>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Scope {
        #[prost(string, tag = "1")]
        pub(crate) name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Span {
        #[prost(bytes = "bytes", tag = "1")]
        pub(crate) trace_id: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub(crate) span_id: Bytes,
        #[prost(bytes = "bytes", tag = "4")]
        pub(crate) parent_span_id: Bytes,
        #[prost(string, tag = "5")]
        pub(crate) name: String,
        #[prost(int32, tag = "6")]
        pub(crate) kind: i32,
        #[prost(fixed64, tag = "7")]
        pub(crate) start_time_unix_nano: u64,
        #[prost(fixed64, tag = "8")]
        pub(crate) end_time_unix_nano: u64,
        #[prost(message, repeated, tag = "9")]
        pub(crate) attributes: Vec<KeyValue>,
        #[prost(message, optional, tag = "15")]
        pub(crate) status: Option<SpanStatus>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct SpanStatus {
        #[prost(string, tag = "2")]
        pub(crate) message: String,
        #[prost(int32, tag = "3")]
        pub(crate) code: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct KeyValue {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
        #[prost(message, optional, tag = "2")]
        pub(crate) value: Option<AnyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct AnyValue {
        #[prost(oneof = "any_value::Value", tags = "1, 3")]
        pub(crate) value: Option<any_value::Value>,
    }

    pub(crate) mod any_value {
        #[derive(Clone, PartialEq, prost::Oneof)]
        pub(crate) enum Value {
            #[prost(string, tag = "1")]
            Text(String),
            #[prost(int64, tag = "3")]
            Number(i64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn spans_travel_whole_and_ids_of_another_length_do_not() {
        let attributes = vec![("a".to_owned(), Value::Text("b".to_owned())), ("n".to_owned(), Value::Number(-1))];
        let span = |kind, failure: Option<&str>| Span {
            trace: [1; 16],
            id: [2; 8],
            parent: [3; 8],
            kind,
            name: "/a".to_owned(),
            start: 5,
            end: u64::MAX,
            attributes: attributes.clone(),
            failure: failure.map(str::to_owned),
        };
        let spans = vec![span(SpanKind::Server, None), span(SpanKind::Client, Some("why"))];
        let sent = Export { resource: attributes.clone(), spans };
        let bytes = encode(&sent).encode_to_vec();
        assert_eq!(decode(proto::ExportRequest::decode(&*bytes).unwrap()), Ok(vec![sent.clone()]));
        let mut wrong = encode(&sent);
        wrong.resource_spans[0].scope_spans[0].spans[1].span_id = Bytes::from_static(b"short");
        let text = decode(wrong).unwrap_err().to_string();
        assert_eq!(text, "resource_spans[0].spans[1].span_id: has 5 bytes, not 8");
    }

    /// Field by field as opentelemetry/proto/trace/v1/trace.proto numbers them.
    #[test]
    fn a_span_is_byte_exact() {
        let span = Span {
            trace: [1; 16],
            id: [2; 8],
            parent: [3; 8],
            kind: SpanKind::Client,
            name: "n".to_owned(),
            start: 4,
            end: 5,
            attributes: vec![],
            failure: Some("e".to_owned()),
        };
        let expected = [
            &[0x0a, 16][..],
            &[1; 16],
            &[0x12, 8],
            &[2; 8],
            &[0x22, 8],
            &[3; 8],
            &[0x2a, 1, b'n', 0x30, 3, 0x39, 4, 0, 0, 0, 0, 0, 0, 0, 0x41, 5, 0, 0, 0, 0, 0, 0, 0],
            &[0x7a, 5, 0x12, 1, b'e', 0x18, 2],
        ];
        assert_eq!(encode_span(&span).encode_to_vec(), expected.concat());
    }
}
