//! Every failure that this proxy makes itself: who is at fault, what the client sees, whether another try may help.
//!
//! Statuses and texts are Linkerd's (data plane 3.8, 4.12); the code is ours, stable, and counted in
//! `weft_proxy_errors_total{direction,code}`.

pub(crate) mod notice;
pub mod reference;

use std::fmt;
use weft_model::decide::filter::Answer;

/// The text of a failure, by which the client's proxy knows it that hears of it from the server's.
pub(crate) const NOT_HTTP: &str = "the server's answer is not HTTP";

/// A failure made or noticed by the mesh.
#[derive(Clone, Debug)]
pub struct ProxyError {
    pub code: Code,
    /// What a stranger may see, without the code.
    pub message: String,
    /// How an endpoint ended the stream, where that is the failure.
    ended: Option<StreamEnd>,
    /// A reply that is not the code's own. Rare, so it has no room of its own in what holds failures.
    reply: Option<Box<Reply>>,
}

/// How an endpoint ended a stream of HTTP/2 before its response was whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    Reset,
    Cancel,
    Refused,
    EnhanceYourCalm,
    /// With its connection, in order.
    GoAway,
    /// With its connection.
    Io,
}

/// How a policy asks for a request to be answered.
#[derive(Clone, Debug)]
struct Reply {
    status: u16,
    grpc_status: u16,
    location: Option<String>,
}

/// The stable name of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request itself is malformed.
    BadRequest,
    /// The head of a request is larger than the proxy accepts.
    HeadTooLarge,
    /// The head of a request began and did not come to its end in time.
    HeadTimeout,
    /// A client broke the rules of HTTP/2 or flooded its connection, which was ended.
    Http2Violation,
    /// No route matches.
    RouteNotFound,
    /// The policy lets this client in nowhere.
    Unauthorized,
    /// A gateway was asked for a name that it does not serve, or that nobody knows.
    GatewayDomainInvalid,
    /// The port's rate limit leaves no room for the request.
    RateLimited,
    /// The policy asks for something that this build does not carry out, or is invalid.
    PolicyUnsupported,
    /// The route sends the request to something that is no backend, or is not there.
    BackendInvalid,
    /// A filter of the route redirects the request.
    Redirect,
    /// A filter of the route fails the request on purpose.
    FaultInjected,
    /// The client did not send what detection or the handshake needs in time.
    DetectTimeout,
    /// The policy routes TLS by server name, and the connection gives none.
    NoServerName,
    /// A session for a server that speaks first was asked for on a port of HTTP.
    ServerFirstRefused,
    /// The process has no descriptor left for another connection.
    DescriptorLimit,
    /// The control plane did not answer for this destination in time.
    DiscoveryTimeout,
    /// No endpoint became available within the failfast timeout.
    Failfast,
    /// Every endpoint fails and is left out by the circuit breaker.
    BreakerShut,
    /// Too many requests are in flight or queued.
    LoadShed,
    /// All connections that there may be to an HTTP/2 endpoint stayed full for the failfast timeout.
    EndpointFull,
    /// The endpoint could not be connected in time.
    ConnectTimeout,
    /// The endpoint refused or broke the connection.
    ConnectFailed,
    /// The server's certificate does not carry the expected identity.
    IdentityMismatch,
    /// The TLS handshake failed.
    TlsFailed,
    /// The server's answer broke off or is malformed.
    UpstreamProtocol,
    /// The request took longer than its policy, or the client, allows, all attempts included.
    RequestTimeout,
    /// The response did not end in time.
    ResponseTimeout,
    /// The head of an attempt's response did not come in time.
    ResponseHeadersTimeout,
    /// Nothing moved for too long.
    IdleTimeout,
    /// The response of a ServiceProfile's route did not begin in time.
    ProfileTimeout,
    /// The destination is this proxy itself, or loopback.
    Loop,
}

impl ProxyError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), ended: None, reply: None }
    }

    /// The same, known to be how an endpoint ended the stream.
    pub(crate) fn by(self, ended: StreamEnd) -> Self {
        Self { ended: Some(ended), ..self }
    }

    /// The same, answered with these statuses instead of the code's own.
    pub(crate) fn answered(self, status: u16, grpc_status: u16) -> Self {
        Self { reply: Some(Box::new(Reply { status, grpc_status, location: None })), ..self }
    }

    /// The same, known to be for another reason. It is answered as before.
    pub(crate) fn because(self, code: Code) -> Self {
        Self { code, ..self }
    }

    pub(crate) fn stream_end(&self) -> Option<StreamEnd> {
        self.ended
    }

    /// The HTTP status of the reply.
    pub fn status(&self) -> u16 {
        self.reply.as_ref().map_or(self.code.status(), |reply| reply.status)
    }

    /// The gRPC status of the reply to a gRPC request.
    pub fn grpc_status(&self) -> u16 {
        self.reply.as_ref().map_or(self.code.grpc_status(), |reply| reply.grpc_status)
    }

    /// The value of `l5d-proxy-error`: message and code, in visible characters.
    pub(crate) fn header(&self) -> String {
        self.to_string().chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect()
    }

    /// Where the reply sends the client. It is a header value.
    pub fn location(&self) -> Option<&str> {
        self.reply.as_ref()?.location.as_deref()
    }
}

impl From<Answer<'_>> for ProxyError {
    fn from(answer: Answer<'_>) -> Self {
        let replying = |code: Code, message: &str, status, grpc_status, location| Self {
            code,
            message: message.to_owned(),
            ended: None,
            reply: Some(Box::new(Reply { status, grpc_status, location })),
        };
        match answer {
            Answer::Redirect { status, location } => {
                let code = Code::Redirect;
                replying(code, "redirected", status, code.grpc_status(), Some(location))
            }
            Answer::HttpFailure { status, message } => {
                let code = Code::FaultInjected;
                replying(code, message, status, code.grpc_status(), None)
            }
            Answer::GrpcFailure { code, message } => {
                replying(Code::FaultInjected, message, status_of_grpc(code), code, None)
            }
            Answer::Forbidden => Self::new(Code::Unauthorized, "the route forbids the request"),
            Answer::Invalid(why) => Self::new(Code::PolicyUnsupported, why),
        }
    }
}

/// What a client that does not speak gRPC is told instead of a gRPC status, as gateways to gRPC do.
fn status_of_grpc(code: u16) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

impl Code {
    pub const ALL: &'static [Self] = &[
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::HeadTimeout,
        Self::Http2Violation,
        Self::RouteNotFound,
        Self::Unauthorized,
        Self::GatewayDomainInvalid,
        Self::RateLimited,
        Self::PolicyUnsupported,
        Self::BackendInvalid,
        Self::Redirect,
        Self::FaultInjected,
        Self::DetectTimeout,
        Self::NoServerName,
        Self::ServerFirstRefused,
        Self::DescriptorLimit,
        Self::DiscoveryTimeout,
        Self::Failfast,
        Self::BreakerShut,
        Self::LoadShed,
        Self::EndpointFull,
        Self::ConnectTimeout,
        Self::ConnectFailed,
        Self::IdentityMismatch,
        Self::TlsFailed,
        Self::UpstreamProtocol,
        Self::RequestTimeout,
        Self::ResponseTimeout,
        Self::ResponseHeadersTimeout,
        Self::IdleTimeout,
        Self::ProfileTimeout,
        Self::Loop,
    ];

    /// Why a connection could not be opened.
    pub(crate) fn of_connect(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::TimedOut => Self::ConnectTimeout,
            _ if weft_transport::socket::is_descriptor_limit(error) => Self::DescriptorLimit,
            _ => Self::ConnectFailed,
        }
    }

    /// Whether no connection came about, so that nothing was sent.
    pub(crate) fn is_unreached(self) -> bool {
        matches!(self, Self::ConnectFailed | Self::ConnectTimeout)
    }

    /// Whether a connection could not be had for a reason that says nothing of the endpoint: it is well but full, or this proxy can
    /// open none to whomever.
    pub(crate) fn spares_the_endpoint(self) -> bool {
        matches!(self, Self::EndpointFull | Self::DescriptorLimit)
    }

    /// What metrics, logs and replies call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BAD_REQUEST",
            Self::HeadTooLarge => "HEAD_TOO_LARGE",
            Self::HeadTimeout => "HEAD_TIMEOUT",
            Self::Http2Violation => "HTTP2_VIOLATION",
            Self::RouteNotFound => "ROUTE_NOT_FOUND",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::GatewayDomainInvalid => "GATEWAY_DOMAIN_INVALID",
            Self::RateLimited => "RATE_LIMITED",
            Self::PolicyUnsupported => "POLICY_UNSUPPORTED",
            Self::BackendInvalid => "BACKEND_INVALID",
            Self::Redirect => "REDIRECT",
            Self::FaultInjected => "FAULT_INJECTED",
            Self::DetectTimeout => "DETECT_TIMEOUT",
            Self::NoServerName => "NO_SERVER_NAME",
            Self::ServerFirstRefused => "SERVER_FIRST_REFUSED",
            Self::DescriptorLimit => "DESCRIPTOR_LIMIT",
            Self::DiscoveryTimeout => "DISCOVERY_TIMEOUT",
            Self::Failfast => "FAILFAST",
            Self::BreakerShut => "BREAKER_SHUT",
            Self::LoadShed => "LOAD_SHED",
            Self::EndpointFull => "ENDPOINT_FULL",
            Self::ConnectTimeout => "CONNECT_TIMEOUT",
            Self::ConnectFailed => "CONNECT_FAILED",
            Self::IdentityMismatch => "IDENTITY_MISMATCH",
            Self::TlsFailed => "TLS_FAILED",
            Self::UpstreamProtocol => "UPSTREAM_PROTOCOL",
            Self::RequestTimeout => "REQUEST_TIMEOUT",
            Self::ResponseTimeout => "RESPONSE_TIMEOUT",
            Self::ResponseHeadersTimeout => "RESPONSE_HEADERS_TIMEOUT",
            Self::IdleTimeout => "IDLE_TIMEOUT",
            Self::ProfileTimeout => "PROFILE_TIMEOUT",
            Self::Loop => "LOOP",
        }
    }

    /// The code of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == name)
    }

    /// The HTTP status of the reply, unless the policy names one.
    pub fn status(self) -> u16 {
        match self {
            Self::Redirect => 301,
            Self::BadRequest | Self::Http2Violation | Self::NoServerName => 400,
            Self::HeadTimeout => 408,
            Self::HeadTooLarge => 431,
            Self::RouteNotFound | Self::GatewayDomainInvalid => 404,
            Self::Unauthorized | Self::ServerFirstRefused => 403,
            Self::RateLimited => 429,
            Self::ConnectFailed | Self::IdentityMismatch | Self::TlsFailed | Self::UpstreamProtocol => 502,
            Self::LoadShed | Self::EndpointFull | Self::DescriptorLimit => 503,
            Self::DetectTimeout
            | Self::DiscoveryTimeout
            | Self::Failfast
            | Self::BreakerShut
            | Self::ConnectTimeout
            | Self::RequestTimeout
            | Self::ResponseTimeout
            | Self::ResponseHeadersTimeout
            | Self::IdleTimeout
            | Self::ProfileTimeout => 504,
            Self::Loop => 508,
            Self::PolicyUnsupported | Self::BackendInvalid | Self::FaultInjected => 500,
        }
    }

    /// The gRPC status of the reply to a gRPC request, unless the policy names one.
    pub fn grpc_status(self) -> u16 {
        match self {
            Self::BadRequest
            | Self::HeadTooLarge
            | Self::Http2Violation
            | Self::NoServerName
            | Self::PolicyUnsupported => 13,
            Self::RouteNotFound | Self::GatewayDomainInvalid | Self::Redirect => 5,
            Self::FaultInjected => 9,
            Self::Unauthorized | Self::ServerFirstRefused => 7,
            Self::RateLimited => 8,
            Self::ConnectFailed
            | Self::IdentityMismatch
            | Self::TlsFailed
            | Self::UpstreamProtocol
            | Self::DescriptorLimit
            | Self::BackendInvalid
            | Self::LoadShed
            | Self::EndpointFull => 14,
            Self::HeadTimeout
            | Self::DetectTimeout
            | Self::DiscoveryTimeout
            | Self::Failfast
            | Self::BreakerShut
            | Self::ConnectTimeout
            | Self::RequestTimeout
            | Self::ResponseTimeout
            | Self::ResponseHeadersTimeout
            | Self::IdleTimeout
            | Self::ProfileTimeout => 4,
            Self::Loop => 10,
        }
    }

    /// Whether it is the client's own mistake, which says nothing of the endpoint that was chosen for it.
    pub fn is_clients(self) -> bool {
        matches!(self, Self::BadRequest | Self::HeadTooLarge | Self::HeadTimeout | Self::Http2Violation)
    }

    /// Whether the client's connection is closed after the reply.
    pub fn closes(self) -> bool {
        !matches!(
            self,
            Self::RouteNotFound
                | Self::Unauthorized
                | Self::GatewayDomainInvalid
                | Self::RateLimited
                | Self::EndpointFull
                | Self::IdentityMismatch
                | Self::Loop
                | Self::RequestTimeout
                | Self::ResponseTimeout
                | Self::ResponseHeadersTimeout
                | Self::IdleTimeout
                | Self::BackendInvalid
                | Self::Redirect
                | Self::FaultInjected
        )
    }
}

// A code that is not listed does not compile.
const _: () = assert!(Code::ALL.len() == Code::Loop as usize + 1);

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code.as_str())
    }
}

impl std::error::Error for ProxyError {}
