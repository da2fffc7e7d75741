//! The reference of all codes, made from them; what an operator reads who has met one.

use super::Code;
use std::fmt::Write;

/// `docs/reference/errors.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "# The failures that the mesh makes\n\n\
         Made from `crates/proxy/src/error.rs`; do not edit. To make it anew:\n\
         `WEFT_UPDATE=1 cargo test -p weft-proxy --test proxy errors`.\n\n\
         Every failure is counted in `weft_proxy_errors_total{direction,code}` of the proxy that made it. A code stands behind Linkerd's text,\n\
         as in `no route found for request [ROUTE_NOT_FOUND]`:\n\n\
         - in the header `l5d-proxy-error` of the reply: of the outbound side to its application, of the inbound side to clients with an\n\
           identity. A client's own proxy takes the header of a server's away: the application behind it sees that of its own alone;\n\
         - in the log, at `info`, for failures of the inbound side, refusals of a policy among them, and for connections of the outbound\n\
           side that failed: at most one line per second, side and code, with the number of those left out since the last one (`left_out`),\n\
           which are logged at `debug`. Requests that failed on the outbound side are logged at `debug` alone.\n\n\
         HTTP clients get the HTTP status; gRPC clients on HTTP/2 get status 200 with the gRPC status.\n\
         *ends* says that the client's connection is closed behind the reply. Where there is no request yet, or bytes are forwarded, the\n\
         connection is closed or reset instead of a reply. \\* unless the policy names another.\n\n\
         | code | HTTP | gRPC | ends | cause | remedy |\n|---|---|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let (cause, remedy) = explained(*code);
        let ends = if code.closes() { "yes" } else { "no" };
        let grpc = code.grpc_status();
        let or = if matches!(code, Code::Redirect | Code::FaultInjected | Code::BackendInvalid) { "*" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| `{}` | {}{or} | {grpc}{or} {} | {ends} | {cause} | {remedy} |",
            code.as_str(),
            code.status(),
            grpc_name(grpc)
        );
    }
    out += EXPLAIN;
    out
}

const EXPLAIN: &str = "
## What became of a request

A proxy keeps a record of each of its last requests and connections (`WEFT_PROXY_RECORDS`): who asked whom for what, what decided it, which
endpoint it went to, what came of it and how long that took, and of a failure its code, cause and remedy. `GET /explain` on the admin
port, 4191, returns the newest that match, as a list in JSON, newest first. It answers on the proxy's own loopback only, as
`kubectl port-forward` reaches it. All parameters may be left out; what is given must all be true of a record. A parameter that is
unknown, is given twice or cannot have its value is answered with 400.

| parameter | value |
|---|---|
| `direction` | `inbound` or `outbound` |
| `kind` | `request` or `connection` |
| `code` | a code from above |
| `client` | IP or IP:PORT of who asked |
| `target` | IP or IP:PORT that was asked for |
| `path` | the beginning of the path |
| `status` | an HTTP status |
| `limit` | so many at most: 20, or a number from 1 to 500 |

```sh
curl 'localhost:4191/explain?direction=inbound&code=UNAUTHORIZED&limit=5'
```
";

/// The names of the statuses that [`Code::grpc_status`] gives.
fn grpc_name(status: u16) -> &'static str {
    match status {
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        _ => "",
    }
}

/// Cause and remedy.
pub(crate) fn explained(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::BadRequest => (
            "The request breaks the rules of HTTP, could be read in two ways, or its connection broke before it was whole",
            "Mend the client; the text says which rule. Ports that speak something else belong into `config.linkerd.io/opaque-ports`",
        ),
        Code::HeadTooLarge => (
            "The head of an HTTP/1 request has more than 64 KiB or 128 lines, that of an HTTP/2 request is larger than 72 KiB as HTTP/2 counts them; or its trailers are larger than 32 KiB, or 36 KiB as HTTP/2 counts them, and on HTTP/2 it is reset with ENHANCE_YOUR_CALM (beyond 45 KiB as they come, its connection ends)",
            "Send fewer or smaller headers; look for cookies that grow",
        ),
        Code::HeadTimeout => (
            "The head of an HTTP/1 request began and was not whole within `WEFT_PROXY_INBOUND_HTTP_HEAD_TIMEOUT`, or `…_OUTBOUND_…` of the application's own",
            "Look for clients that stall while they write a request, or hold connections open on purpose; who is idle between two requests is not meant",
        ),
        Code::Http2Violation => (
            "A client broke the rules of HTTP/2 or flooded its connection, which was ended with GOAWAY",
            "Mend or block the client: the GOAWAY's debug data and the log name the rule or the budget",
        ),
        Code::RouteNotFound => (
            "No route of the port or target matches the request",
            "Add a route, or take the others away: without any, all requests match",
        ),
        Code::Unauthorized => (
            "No authorization of the server's port lets this client in: wrong network, no certificate, or another identity. On the outbound side: the Service has no such port, or an EgressNetwork lets nothing through",
            "Allow the client's identity or network, or mesh the client; `config.linkerd.io/default-inbound-policy` holds where nothing else does. Name the port in the Service, or let through what should leave",
        ),
        Code::GatewayDomainInvalid => (
            "A transport header names a target to which this proxy is no gateway: its name is not below `LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES`, or the control plane has no profile for it",
            "Look at what the client's control plane links to, and whether the target exists behind this gateway",
        ),
        Code::RateLimited => (
            "The port's HTTPLocalRateLimitPolicy leaves no room: the text says whether all clients together or this identity has too many, and the limit",
            "Ask less often, or raise the limit (`total`, `identity`, or an override for this client); it holds per proxy, so replicas add to it",
        ),
        Code::PolicyUnsupported => (
            "The policy asks for something that this build does not carry out, or is invalid; the text names it",
            "Take that part of the policy away, or use a build that has it",
        ),
        Code::BackendInvalid => (
            "The route sends the request to a backend that is none: there is no such Service, or it is no Service. Backends keep their shares: those of others get no more for it",
            "Make the Service that the text names, or take the `backendRef` out of the route; its status has the condition `ResolvedRefs`",
        ),
        Code::Redirect => (
            "A `RequestRedirect` filter of the route that the request matches leads elsewhere; `location` in the reply says where",
            "None is needed. Else change the route's filter, or let another route match",
        ),
        Code::FaultInjected => (
            "A filter of the route that the request matches fails it on purpose, or its share of the requests; or an EgressNetwork denies what none of its routes lets through (403)",
            "Take the filter off the route when the experiment is over; let through what should leave by a route of the EgressNetwork",
        ),
        Code::DetectTimeout => (
            "A client connected and did not send what its protocol is known by, a TLS handshake or a transport header, in time",
            "Mark ports on which the server speaks first as opaque; else look for clients that connect and wait",
        ),
        Code::NoServerName => (
            "The target routes TLS by server name, and the connection does not begin with a ClientHello that gives one",
            "Let the client send SNI: dial by name, not by address; take the TLSRoute away where the port does not speak TLS",
        ),
        Code::ServerFirstRefused => (
            "A client's proxy opened a session before its client had said anything, on a port whose policy has HTTP routes or a rate limit",
            "Nothing where the client is only slow: its proxy waits on. Where the server does speak first, take those away",
        ),
        Code::DescriptorLimit => (
            "The proxy has nearly as many files and sockets open as it may: accepting pauses until some are closed; an eighth, at most 1,024, is kept for connections that are open. Where that is used up too, requests that need a connection fail",
            "Raise the limit (`ulimit -n`, the container's `nofile`); look in `tcp_open_connections` for who holds so many",
        ),
        Code::DiscoveryTimeout => (
            "The control plane did not say in time what is behind the address",
            "Look whether the control plane is ready (`weft ps`, its `/ready`) and what the log of the client's proxy says of reaching it",
        ),
        Code::Failfast => (
            "No endpoint of the target was available for longer than the failfast timeout; waiting requests fail at once until one is",
            "Look at the target: are its pods ready, and do connections to them succeed?",
        ),
        Code::BreakerShut => (
            "Every endpoint of the target has failed so often that the circuit breaker leaves it out, for longer than the failfast timeout",
            "Find out why the servers fail; `balancer.linkerd.io/failure-accrual…` says when an endpoint is left out and for how long",
        ),
        Code::LoadShed => (
            "A bound is reached: requests in flight, requests or connections that wait for an endpoint, or destinations in use; or a route has no backend",
            "Add replicas or find what is slow; the text names the bound, and [its variable](proxy-env.md) raises it",
        ),
        Code::EndpointFull => (
            "An HTTP/2 server allows so few requests at once on a connection, or leaves so many without an end, that all connections which a \
             worker may have to it (256) were full for longer than the failfast timeout",
            "Raise the server's SETTINGS_MAX_CONCURRENT_STREAMS, find what is slow there, or add replicas",
        ),
        Code::ConnectTimeout => (
            "An endpoint could not be connected within the connect timeout, TLS handshake included",
            "Look whether the endpoint listens and the network lets it be reached; raise `LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT`",
        ),
        Code::ConnectFailed => (
            "An endpoint refused or broke the connection",
            "Look whether the program listens on its port, at the pod's address or all of them",
        ),
        Code::IdentityMismatch => (
            "The server's certificate does not carry the identity that the control plane named; no byte of the request was sent",
            "An address was reused, or a service account changed, faster than it was told: it mends itself. If it stays, somebody stands between",
        ),
        Code::TlsFailed => (
            "A TLS handshake failed: a certificate that is out of its time or of another root, or a peer that does not speak TLS 1.3",
            "Look at clocks and expiry, and whether both sides have the same trust anchors",
        ),
        Code::UpstreamProtocol => (
            "The server's answer broke off, is malformed, or did not come before its connection ended; or its head has more than 64 KiB or 128 lines",
            "Look at the server's log at this time; it may have been restarted or have closed idle connections early",
        ),
        Code::RequestTimeout => (
            "The request took longer than `timeout.linkerd.io/request`, the route or the header `l5d-request-timeout` allows, retries included",
            "Look at what the server does at this time, or allow it longer",
        ),
        Code::ResponseTimeout => (
            "The response had not ended when `timeout.linkerd.io/response` or the header `l5d-response-timeout` was over, counted from when the request was sent",
            "Look at what the server does at this time, or allow it longer",
        ),
        Code::ResponseHeadersTimeout => (
            "An attempt got no response within `retry.linkerd.io/timeout` or the header `l5d-retry-timeout`, and could not be repeated",
            "Look at what the server does at this time; a request is repeated only if its body was sent to its end and is not too long to be kept",
        ),
        Code::IdleTimeout => (
            "No byte of request or response moved within `timeout.linkerd.io/idle`",
            "Look for a server or a client that stands still; streams that are silent by nature need a longer timeout, or none",
        ),
        Code::ProfileTimeout => (
            "The response to a request did not begin within the timeout of its ServiceProfile's route, retries included",
            "Look why the server is slow, or raise the route's `timeout`",
        ),
        Code::Loop => (
            "The connection was not redirected to the proxy, or leads to the proxy itself, to loopback, or to no address of this workload",
            "Dial the Service or the pod's address; never ports 4140 and 4143 themselves",
        ),
    }
}
