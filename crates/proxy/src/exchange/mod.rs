//! One request and its response between a client's connection and an endpoint's.
//!
//! ```text
//! server connection ─► head ─► Director::direct ─► Directed { endpoint, carrier, edits, record } ─► endpoint connection
//!      (h1 | h2)       view     (inbound|outbound)                                                     (h1 | h2)
//! ```
//! The files here know framing and nothing of policy; the directions decide by [`Director`] and know nothing of framing.

mod attempt;
mod changes;
mod copy;
mod course;
mod departure;
mod http1_as_http2;
mod http1_fields;
mod http1_outcome;
mod http1_pump;
mod http1_to_http1;
mod http1_to_http2;
mod http2_as_http1;
mod http2_body;
mod http2_head;
mod http2_reply;
mod http2_to_http1;
mod http2_to_http2;
mod orig_proto;
mod send;
mod serve_http1;
mod serve_http2;

pub(crate) use changes::HeaderChanges;
pub(crate) use copy::{BodyCopy, Copies, NotWhole};
pub(crate) use course::{Course, Followed, Retried, Retries, Retrying};
pub(crate) use departure::Departure;
pub(crate) use http2_head::{HeadView, grpc_status, replace_authority};
pub(crate) use send::{send_http1, send_http2};
pub(crate) use serve_http1::serve_http1;
pub(crate) use serve_http2::serve_http2;

use crate::{error::ProxyError, protocol::Version};
use std::{rc::Rc, time::Duration};
use weft_model::decide::route::RequestView;
use weft_transport::stream::Stream;

/// How a direction decides a request. One value serves one accepted connection.
pub(crate) trait Director {
    type Endpoint: Endpoint;
    type Record: Observe;

    /// Finds route, authorization and endpoint for a request by its head. Waits for an endpoint up to the failfast timeout.
    /// Dropped when the client goes away meanwhile. Asked again for each attempt; before it waits, it tells `course` what is
    /// asked of the request.
    async fn direct(
        &self,
        request: &dyn RequestView,
        version: Version,
        course: &Course,
    ) -> Result<Directed<Self::Endpoint, Self::Record>, ProxyError>;

    /// Whether `l5d-proxy-error` and `l5d-proxy-connection` are shown to this client (data plane 3.7, 1.2).
    fn informational_headers(&self) -> bool;

    /// How long the head of an HTTP/1 request may take that has begun; zero is for ever.
    fn head_timeout(&self) -> Duration;

    /// Counts a request that the proxy itself has ended, by a reply or in the midst of its answer.
    fn refused(&self, error: &ProxyError);

    /// Counts a refusal of something that never became a request that [`Self::direct`] could have been asked about.
    fn malformed(&self, error: &ProxyError, _version: Version) {
        self.refused(error);
    }

    /// What the client is told of those whom it asks, when they leave; nothing where its own proxy learns of that otherwise.
    fn departure(&self) -> Option<&Rc<Departure>> {
        None
    }

    /// Returns once nothing that this client asks would be let in any more: what it has open is cut off then. May be dropped at
    /// any time.
    fn shut_out(&self) -> impl Future<Output = ()> {
        std::future::pending()
    }
}

/// What was decided for a request.
pub(crate) struct Directed<E, R> {
    /// Counted as pending at the balancer until dropped.
    pub endpoint: E,
    pub carrier: Carrier,
    pub edits: Edits,
    /// The metrics of the request. Dropped before the end counts as aborted.
    pub record: R,
}

/// A chosen endpoint: hands out connections and takes them back.
pub(crate) trait Endpoint {
    /// An HTTP/1 connection, pooled (if [`crate::http1::Connection::is_reusable`]) or new.
    async fn http1(&self) -> Result<crate::http1::Connection, ProxyError>;
    /// Takes back a connection that is idle between two messages.
    fn keep_http1(&self, connection: crate::http1::Connection);
    /// A ready sender on the shared HTTP/2 connection; connects when there is none.
    async fn http2(&self) -> Result<crate::http2::Sender, ProxyError>;
    /// The first byte of the response body (or its end) came after `rtt`: feeds the load estimate.
    fn responded(&self, rtt: Duration);
}

/// On what the request travels to the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Http1,
    Http2,
}

/// Changes to the head that goes to the endpoint, besides what each hop must do (hop-by-hop headers, `l5d-orig-proto`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Edits {
    /// Lower-case names of headers that are removed.
    pub remove: &'static [&'static str],
    /// The same of those by which the application asked for timeouts and retries, where it may.
    pub remove_asked: &'static [&'static str],
    /// Headers that replace all of that name. Few; values are checked to be header values.
    pub set: smallvec::SmallVec<[(&'static str, Rc<str>); 2]>,
    /// What a policy changes in the request's headers. What is removed and set above counts after it.
    pub request: Option<Rc<HeaderChanges>>,
    /// What a policy changes in the headers of the endpoint's response; not of interim ones, nor of the proxy's own replies.
    pub response: Option<Rc<HeaderChanges>>,
    /// Replaces the authority.
    pub authority: Option<Rc<str>>,
    /// Replaces path and query, of a request that has a path.
    pub target: Option<http::uri::PathAndQuery>,
    /// Inbound: an HTTP/2 request with `l5d-orig-proto` is turned back into HTTP/1, and the reply says so.
    pub restore_orig_proto: bool,
    /// Outbound: response headers of the mesh are removed before the application sees them.
    pub strip_mesh_response: bool,
    /// Outbound: the application's connection ends behind a response by which the server's proxy asks for that.
    pub heed_close: bool,
    /// Inbound: a client without a proxy is told when the application closes its connection behind a response.
    pub pass_close: bool,
}

/// What a direction wants to know of an exchange; it is told in this order.
pub(crate) trait Observe {
    /// Bytes of the request's body were passed on.
    fn request_body(&mut self, _bytes: usize) {}
    /// The fields of the response's head, before [`Self::response_head`]; not told of the proxy's own replies.
    fn response_fields(&mut self, _fields: &dyn Fields) {}
    /// What the endpoint sent instead of a response is not HTTP.
    fn not_http(&mut self) {}
    /// Another attempt follows: what ends is this one, and not the request.
    fn repeated(&mut self) {}
    /// The head of the response came (or of the proxy's own reply, after a failure).
    fn response_head(&mut self, status: u16);
    /// The first body byte or, for an empty body, the end.
    fn first_byte(&mut self);
    /// Bytes of the response's body were passed on.
    fn response_body(&mut self, _bytes: usize) {}
    /// The fields behind the response's body, before [`Self::end`].
    fn trailers(&mut self, _fields: &dyn Fields) {}
    /// The response ended. `grpc_status` where trailers or a trailers-only head carried one.
    fn end(&mut self, grpc_status: Option<u16>, error: Option<&ProxyError>);
}

/// Who is shown the fields behind a body.
type Told<'a> = &'a mut dyn FnMut(&dyn Fields);

/// Nobody: the request's are not looked at.
fn untold(_: &dyn Fields) {}

/// The header fields of a head, or behind a body, whatever frames it.
pub(crate) trait Fields {
    /// Shows each field's name and value, in order.
    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8]));
}

/// An accepted connection whose protocol is known. Served until it closes by the files of this folder.
pub(crate) struct ServerConnection {
    pub stream: Stream,
    /// Bytes that detection has read already.
    pub prefix: bytes::Bytes,
}

#[cfg(test)]
mod http1_tests;
#[cfg(test)]
mod http2_tests;
