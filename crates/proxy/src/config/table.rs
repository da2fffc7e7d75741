//! Every variable that the proxy knows: name, form, default, meaning, and whether this build acts on it.
//!
//! The names and defaults are Linkerd's (data plane 1.2), those that begin with `WEFT_PROXY_` are ours. What parses them
//! takes the default from here, and `docs/reference/proxy-env.md` is made from here.

/// One variable.
#[derive(Clone, Copy, Debug)]
pub struct Var {
    pub name: &'static str,
    pub form: Form,
    pub default: Default,
    pub doc: &'static str,
    pub acts: Acts,
}

/// The form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Duration,
    Bool,
    Number,
    /// Greater than 0, at most 1.
    Ratio,
    Ports,
    Networks,
    Ips,
    /// `ip:port`.
    SocketAddr,
    SocketAddrs,
    /// `ip:port` or `name:port`.
    Address,
    Name,
    Suffixes,
    Path,
    Text,
    /// Certificates themselves, not a path.
    Pem,
    OneOf(&'static [&'static str]),
}

/// What holds when the variable is not set, or empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    Value(&'static str),
    Unset,
    Required,
    /// Follows from other variables, as the text says.
    Derived(&'static str),
}

/// Whether this build acts on a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acts {
    Yes,
    /// The function is not in this build: a warning at start names it.
    NotBuilt,
    /// Linkerd's charts may set it, and its proxy does not read it either.
    Ignored,
}

use self::{
    Default::{Derived, Required, Unset, Value},
    Form::{
        Address, Bool, Duration, Ips, Name, Networks, Number, OneOf, Path, Pem, Ports, Ratio, SocketAddr, SocketAddrs,
        Suffixes, Text,
    },
};

const fn yes(name: &'static str, form: Form, default: Default, doc: &'static str) -> Var {
    Var { name, form, default, doc, acts: Acts::Yes }
}

const fn ignored(name: &'static str, doc: &'static str) -> Var {
    Var { name, form: Text, default: Unset, doc, acts: Acts::Ignored }
}

pub const POLICIES: &[&str] =
    &["deny", "all-authenticated", "all-unauthenticated", "cluster-authenticated", "cluster-unauthenticated", "audit"];

/// The prefix of Linkerd's names.
pub const LINKERD: &str = "LINKERD2_PROXY_";
/// The prefix of our names.
pub const WEFT: &str = "WEFT_PROXY_";

/// The sections of the table, in the order in which the reference shows them.
#[rustfmt::skip]
pub const SECTIONS: &[(&str, &[Var])] = &[
    ("Listeners", &[
        yes("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS", SocketAddrs, Unset, "One or two addresses, one per family; wins over the next one"),
        yes("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR", SocketAddr, Value("127.0.0.1:4140"), "Where redirected traffic of the application arrives"),
        yes("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", SocketAddr, Value("0.0.0.0:4143"), "Where redirected inbound traffic and direct connections arrive"),
        yes("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", SocketAddr, Value("127.0.0.1:4191"), "Metrics and probes"),
        yes("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", SocketAddr, Value("0.0.0.0:4190"), "The tap server; there is one only where `LINKERD2_PROXY_TAP_SVC_NAME` is set"),
        yes("LINKERD2_PROXY_INBOUND_IPS", Ips, Value(""), "The addresses of this workload; connections to others are refused. Empty is any"),
        yes("LINKERD2_PROXY_INBOUND_TCP_LISTEN_BACKLOG", Number, Unset, "Connections that the kernel queues"),
        yes("LINKERD2_PROXY_OUTBOUND_TCP_LISTEN_BACKLOG", Number, Unset, "Connections that the kernel queues"),
    ]),
    ("Sockets", &[
        yes("LINKERD2_PROXY_INBOUND_ACCEPT_KEEPALIVE", Duration, Unset, "Idle time before TCP keep-alive probes"),
        yes("LINKERD2_PROXY_INBOUND_ACCEPT_USER_TIMEOUT", Duration, Unset, "How long sent data may stay unacknowledged"),
        yes("LINKERD2_PROXY_INBOUND_CONNECT_KEEPALIVE", Duration, Unset, "Idle time before TCP keep-alive probes"),
        yes("LINKERD2_PROXY_INBOUND_CONNECT_USER_TIMEOUT", Duration, Unset, "How long sent data may stay unacknowledged"),
        yes("LINKERD2_PROXY_OUTBOUND_ACCEPT_KEEPALIVE", Duration, Unset, "Idle time before TCP keep-alive probes"),
        yes("LINKERD2_PROXY_OUTBOUND_ACCEPT_USER_TIMEOUT", Duration, Unset, "How long sent data may stay unacknowledged"),
        yes("LINKERD2_PROXY_OUTBOUND_CONNECT_KEEPALIVE", Duration, Unset, "Idle time before TCP keep-alive probes"),
        yes("LINKERD2_PROXY_OUTBOUND_CONNECT_USER_TIMEOUT", Duration, Unset, "How long sent data may stay unacknowledged"),
        yes("WEFT_PROXY_MARK", Number, Unset, "Packet mark of every connection that the proxy dials, by which redirection exempts it"),
    ]),
    ("Connect, queue, pool", &[
        yes("LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT", Duration, Value("300ms"), "TCP connect to the application"),
        yes("LINKERD2_PROXY_INBOUND_CONNECT_EXP_BACKOFF_MIN", Duration, Value("100ms"), "First wait before connecting again; set together with the next"),
        yes("LINKERD2_PROXY_INBOUND_CONNECT_EXP_BACKOFF_MAX", Duration, Value("10s"), "Longest wait before connecting again"),
        yes("LINKERD2_PROXY_INBOUND_CONNECT_EXP_BACKOFF_JITTER", Number, Value("0.1"), "The part of a wait that is random, 0 to 1"),
        yes("LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT", Duration, Value("1s"), "Connect to an endpoint, TLS handshake included"),
        yes("LINKERD2_PROXY_OUTBOUND_CONNECT_EXP_BACKOFF_MIN", Duration, Value("100ms"), "First wait before connecting again, of control clients too but that for certificates, which tries sooner; set together with the next"),
        yes("LINKERD2_PROXY_OUTBOUND_CONNECT_EXP_BACKOFF_MAX", Duration, Value("60s"), "Longest wait before connecting again, of control clients too but that for certificates"),
        yes("LINKERD2_PROXY_OUTBOUND_CONNECT_EXP_BACKOFF_JITTER", Number, Value("0.1"), "The part of a wait that is random, 0 to 1"),
        yes("LINKERD2_PROXY_MAX_IDLE_CONNS_PER_ENDPOINT", Number, Value("10000"), "Idle HTTP/1 connections kept to the application, per port, by all workers together"),
        yes("LINKERD2_PROXY_OUTBOUND_MAX_IDLE_CONNS_PER_ENDPOINT", Number, Value("10000"), "Idle HTTP/1 connections kept per endpoint, by all workers together"),
        yes("LINKERD2_PROXY_INBOUND_MAX_IN_FLIGHT", Number, Value("100000"), "Requests that await response headers; more are refused with 503"),
        yes("LINKERD2_PROXY_OUTBOUND_MAX_IN_FLIGHT", Number, Value("100000"), "Requests that await response headers; more are refused with 503"),
        yes("LINKERD2_PROXY_INBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT", Duration, Value("3s"), "How long an idle HTTP/1 connection is kept"),
        yes("LINKERD2_PROXY_OUTBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT", Duration, Value("3s"), "How long an idle HTTP/1 connection is kept"),
        yes("LINKERD2_PROXY_INBOUND_HTTP_QUEUE_CAPACITY", Number, Value("10000"), "Requests that wait for an application that cannot be connected; more are refused with 503"),
        yes("LINKERD2_PROXY_INBOUND_HTTP_FAILFAST_TIMEOUT", Duration, Value("1s"), "How long the application may be away until requests fail after one attempt"),
        yes("LINKERD2_PROXY_OUTBOUND_HTTP_QUEUE_CAPACITY", Number, Value("10000"), "Requests that wait for an endpoint"),
        yes("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", Duration, Value("3s"), "How long until waiting requests fail at once"),
        yes("LINKERD2_PROXY_OUTBOUND_TCP_QUEUE_CAPACITY", Number, Value("10000"), "Connections that wait for an endpoint"),
        yes("LINKERD2_PROXY_OUTBOUND_TCP_FAILFAST_TIMEOUT", Duration, Value("3s"), "How long until waiting connections fail at once"),
    ]),
    ("Detection and discovery", &[
        yes("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", Duration, Value("10s"), "How long the first bytes may take: ClientHello and transport header"),
        yes("LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT", Duration, Value("10s"), "How long the first bytes may take; what could still become a request then is one"),
        yes("WEFT_PROXY_INBOUND_SERVER_FIRST_WAIT", Duration, Value("100ms"), "How long a client is silent until the application is connected, so that it may speak first; 0 is never, and who is silent until detection times out is closed"),
        yes("WEFT_PROXY_OUTBOUND_SERVER_FIRST_WAIT", Duration, Value("100ms"), "The same for the application's connections and their servers; 0 is not before detection times out"),
        yes("WEFT_PROXY_INBOUND_HTTP_HEAD_TIMEOUT", Duration, Value("60s"), "How long the head of an HTTP/1 request may take that has begun; not how long a client is idle. 0 is for ever"),
        yes("WEFT_PROXY_OUTBOUND_HTTP_HEAD_TIMEOUT", Duration, Value("60s"), "The same of the application's requests"),
        yes("LINKERD2_PROXY_INBOUND_DISCOVERY_IDLE_TIMEOUT", Duration, Value("90s"), "When the policy of an unused port is forgotten"),
        yes("LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT", Duration, Value("5s"), "When an unused target is forgotten"),
        yes("LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", Ports, Value(""), "Ports that are opaque until a policy arrives"),
        yes("LINKERD2_PROXY_METRICS_RETAIN_IDLE", Duration, Value("10m"), "When unused metrics are forgotten"),
        yes("WEFT_PROXY_DISCOVERY_TIMEOUT", Duration, Value("10s"), "How long a connection waits for the first answers about its destination"),
    ]),
    ("Inbound policy", &[
        yes("LINKERD2_PROXY_INBOUND_PORTS", Ports, Value(""), "Ports whose policy is watched from the start"),
        yes("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", OneOf(POLICIES), Value("all-unauthenticated"), "What holds until the control plane answers"),
        yes("LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS", Networks, Value(""), "The networks of the cluster-* default policies; those and audit need it"),
        yes("LINKERD2_PROXY_POLICY_SVC_ADDR", Address, Required, "The policy service"),
        yes("LINKERD2_PROXY_POLICY_SVC_NAME", Name, Derived("required unless the address is loopback"), "Its identity"),
        yes("LINKERD2_PROXY_POLICY_WORKLOAD", Text, Required, "Says who asks; passed on as it is"),
        yes("LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES", Suffixes, Value(""), "Names to which this proxy forwards as a gateway"),
        yes("LINKERD2_PROXY_INBOUND_METRICS_AUTHORITY_LABELS", OneOf(&["unsafe"]), Unset, "`unsafe` adds the label `authority` to inbound metrics"),
        ignored("LINKERD2_PROXY_INBOUND_PORTS_REQUIRE_IDENTITY", "Replaced by policies"),
        ignored("LINKERD2_PROXY_INBOUND_PORTS_REQUIRE_TLS", "Replaced by policies"),
    ]),
    ("Destinations and profiles", &[
        yes("LINKERD2_PROXY_DESTINATION_SVC_ADDR", Address, Required, "The destination service"),
        yes("LINKERD2_PROXY_DESTINATION_SVC_NAME", Name, Derived("required unless the address is loopback"), "Its identity"),
        yes("LINKERD2_PROXY_DESTINATION_CONTEXT", Text, Value(""), "Says who asks; passed on as it is"),
        yes("LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS", Networks, Value(""), "Addresses for which profiles are looked up"),
        yes("LINKERD2_PROXY_DESTINATION_PROFILE_SUFFIXES", Suffixes, Value("svc.cluster.local."), "Names for which profiles are looked up"),
        yes("LINKERD2_PROXY_DESTINATION_PROFILE_INITIAL_TIMEOUT", Duration, Value("500ms"), "How long an inbound profile lookup may take"),
        yes("LINKERD2_PROXY_INGRESS_MODE", Bool, Value("false"), "Sends each request where its `l5d-dst-override` says; an ingress must strip it from what comes from outside"),
        yes("LINKERD2_PROXY_OUTBOUND_DISABLE_INFORMATIONAL_HEADERS", Bool, Derived("the value of LINKERD2_PROXY_INGRESS_MODE"), "Hides `l5d-proxy-error` and `l5d-proxy-connection` from the application"),
        yes("LINKERD2_PROXY_OUTBOUND_METRICS_HOSTNAME_LABELS", Bool, Value("false"), "Fills the label `hostname` of outbound route metrics"),
    ]),
    ("Identity", &[
        yes("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", Pem, Required, "The roots that peers' certificates chain to, until the identity service sends others"),
        yes("LINKERD2_PROXY_IDENTITY_DIR", Path, Derived("required without a workload API"), "Holds key.p8 and csr.der; the proxy makes both when they are missing"),
        yes("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", Path, Derived("required without a workload API"), "The token that proves the workload; read again for each certificate"),
        yes("LINKERD2_PROXY_IDENTITY_SVC_ADDR", Address, Derived("required without a workload API"), "The identity service"),
        yes("LINKERD2_PROXY_IDENTITY_SVC_NAME", Name, Derived("required unless the address is loopback"), "Its identity"),
        yes("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", Name, Derived("required unless both of the next two are given"), "The identity of this workload and its server name"),
        yes("LINKERD2_PROXY_IDENTITY_SERVER_ID", Name, Derived("LINKERD2_PROXY_IDENTITY_LOCAL_NAME"), "The identity of this workload: a DNS name equal to the next, or with a workload API a `spiffe://` id"),
        yes("LINKERD2_PROXY_IDENTITY_SERVER_NAME", Name, Derived("LINKERD2_PROXY_IDENTITY_LOCAL_NAME"), "The SNI by which peers call this workload"),
        yes("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", Duration, Value("10s"), "Shortest wait before a renewal"),
        yes("LINKERD2_PROXY_IDENTITY_MAX_REFRESH", Duration, Value("24h"), "Longest wait before a renewal"),
        yes("WEFT_PROXY_IDENTITY_EXPIRY_GRACE", Duration, Value("2m"), "How long a connection may outlive a certificate that it was opened with: at its end it takes nothing new, after this it is cut off"),
        yes("WEFT_PROXY_TLS_POST_QUANTUM", Bool, Value("true"), "Whether TLS prefers the key exchange X25519MLKEM768; without it a handshake costs less, and whoever records it may read it when quantum computers come"),
        yes("LINKERD2_PROXY_IDENTITY_DISABLED", Text, Unset, "Any value is an error: a proxy has an identity"),
        yes("LINKERD2_PROXY_IDENTITY_SPIRE_WORKLOAD_API_ADDRESS", Path, Unset, "The Unix socket of a SPIFFE workload API, with or without `unix:`; certificates come from there"),
        yes("LINKERD2_PROXY_IDENTITY_SPIRE_SOCKET", Path, Unset, "Older name of the above"),
        yes("LINKERD2_PROXY_IDENTITY_SPIRE_EXP_BACKOFF_MIN", Duration, Value("100ms"), "First wait before connecting to it again; set together with the next"),
        yes("LINKERD2_PROXY_IDENTITY_SPIRE_EXP_BACKOFF_MAX", Duration, Value("1s"), "Longest wait before connecting to it again"),
        yes("LINKERD2_PROXY_IDENTITY_SPIRE_EXP_BACKOFF_JITTER", Number, Value("0.1"), "The part of a wait that is random, 0 to 1"),
        yes("LINKERD2_PROXY_TAP_SVC_NAME", Name, Unset, "The identity that may tap; loopback may besides"),
    ]),
    ("HTTP/2", &[
        yes("LINKERD2_PROXY_HTTP2_INITIAL_STREAM_WINDOW_SIZE", Number, Value("65535"), "Bytes a server may send per stream before the proxy has read them"),
        yes("LINKERD2_PROXY_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE", Number, Value("1048576"), "The same for a whole connection"),
        yes("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL", Bool, Unset, "Lets windows grow with the connection's speed"),
        yes("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE", Number, Unset, "Bytes per stream; set together with the next"),
        yes("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE", Number, Unset, "Bytes per connection"),
        yes("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL", Duration, Unset, "Pings clients this often"),
        yes("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT", Duration, Unset, "How long an answer to a ping may take"),
        yes("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS", Number, Unset, "Requests at once per connection"),
        yes("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_FRAME_SIZE", Number, Unset, "Bytes"),
        yes("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_HEADER_LIST_SIZE", Number, Unset, "Bytes"),
        yes("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS", Number, Unset, "Streams that were reset before they were taken up"),
        yes("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_SEND_BUF_SIZE", Number, Unset, "Bytes"),
        yes("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL", Bool, Unset, "Lets windows grow with the connection's speed"),
        yes("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE", Number, Unset, "Bytes per stream; set together with the next"),
        yes("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE", Number, Unset, "Bytes per connection"),
        yes("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL", Duration, Unset, "Pings clients this often"),
        yes("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT", Duration, Unset, "How long an answer to a ping may take"),
        yes("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS", Number, Unset, "Requests at once per connection"),
        yes("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_FRAME_SIZE", Number, Unset, "Bytes"),
        yes("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_HEADER_LIST_SIZE", Number, Unset, "Bytes"),
        yes("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS", Number, Unset, "Streams that were reset before they were taken up"),
        yes("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_SEND_BUF_SIZE", Number, Unset, "Bytes"),
    ]),
    ("Control streams and DNS", &[
        yes("LINKERD2_PROXY_CONTROL_STREAM_INITIAL_TIMEOUT", Duration, Unset, "A watch without a first answer is opened again after this; not to loopback"),
        yes("LINKERD2_PROXY_CONTROL_STREAM_IDLE_TIMEOUT", Duration, Unset, "The same without a further answer"),
        yes("LINKERD2_PROXY_CONTROL_STREAM_LIFETIME", Duration, Unset, "The same in any case"),
        yes("LINKERD2_PROXY_DNS_MIN_TTL", Duration, Unset, "Answers are kept at least this long"),
        yes("LINKERD2_PROXY_DNS_MAX_TTL", Duration, Unset, "Answers are kept at most this long"),
    ]),
    ("Process", &[
        yes("LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD", Duration, Value("2m"), "How long open connections may go on after a signal to end"),
        yes("LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED", Bool, Value("false"), "Lets POST /shutdown on the admin server end the process"),
        yes("WEFT_PROXY_SHUTDOWN_WITH_POD", Text, Unset, "The uid of the pod, where it runs to an end: the process ends when the control plane says that all other containers have"),
        yes("LINKERD2_PROXY_LOG", Text, Value("warn,linkerd=info,hickory=error"), "Filter directives, of which one that is none is left out; `off` turns logging off"),
        yes("LINKERD2_PROXY_LOG_FORMAT", OneOf(&["plain", "json"]), Value("plain"), "The form of a log line; its upper case is read as well"),
        yes("LINKERD2_PROXY_CORES", Number, Value("1"), "Older name of the next"),
        yes("LINKERD2_PROXY_CORES_MIN", Number, Derived("LINKERD2_PROXY_CORES"), "The least number of worker threads"),
        yes("LINKERD2_PROXY_CORES_MAX", Number, Unset, "The number of worker threads, at most the number of visible CPUs"),
        yes("LINKERD2_PROXY_CORES_MAX_RATIO", Ratio, Unset, "The same as a part of the visible CPUs"),
        yes("WEFT_PROXY_RECORDS", Number, Value("1000"), "Decision records that each worker keeps for `/explain`, about 450 bytes each; at most 100000"),
        yes("WEFT_PROXY_UPGRADE_ENABLED", Bool, Value("true"), "Whether SIGUSR2 starts a new process and hands over to it; never where the proxy is process 1"),
        yes("WEFT_PROXY_UPGRADE_PROGRAM", Path, Unset, "What SIGUSR2 starts, instead of the program under which this one was started"),
        yes("WEFT_PROXY_UPGRADE_TIMEOUT", Duration, Value("30s"), "How long the new process may take until it is ready; then it is killed and the old one goes on"),
        yes("WEFT_PROXY_UPGRADE_DRAIN", Duration, Value("1h"), "How long the old process stays for the connections that are open"),
        yes("WEFT_PROXY_PID_FILE", Path, Unset, "Where a process says its number once it is ready: after an upgrade it is the new one's"),
        yes("WEFT_PROXY_UPGRADE_SOCKET", OneOf(&["stdin"]), Unset, "Set by a proxy for the one that it starts"),
        yes("WEFT_PROXY_METRICS_SERIES_CAP", Number, Value("50000"), "Metric series that are kept apart, half of them at most by labels in which strangers have a say; more count into series with `overflow=\"true\"`"),
    ]),
    ("Access log and tracing", &[
        yes("LINKERD2_PROXY_ACCESS_LOG", OneOf(&["apache", "json"]), Unset, "Writes a line per inbound request to standard error"),
        yes("LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR", Address, Unset, "The OTLP collector"),
        yes("LINKERD2_PROXY_TRACE_COLLECTOR_SVC_NAME", Name, Unset, "Its identity"),
        yes("LINKERD2_PROXY_TRACE_ATTRIBUTES_PATH", Path, Unset, "Resource attributes, one k=v per line"),
        yes("LINKERD2_PROXY_TRACE_EXTRA_ATTRIBUTES", Text, Unset, "Further resource attributes"),
        yes("LINKERD2_PROXY_TRACE_SERVICE_NAME", Text, Value("linkerd-proxy"), "`service.name` in traces"),
        yes("OTEL_RESOURCE_ATTRIBUTES", Text, Unset, "Further resource attributes, which win over all others: k=v with commas or lines between"),
        yes("HOSTNAME", Text, Unset, "`host.name` in traces"),
        ignored("LINKERD2_PROXY_TRACE_PROTOCOL", "Only OTLP is spoken"),
        ignored("LINKERD2_PROXY_TRACE_ANNOTATIONS_PATH", "Set by older charts"),
    ]),
];

/// All variables.
pub fn vars() -> impl Iterator<Item = &'static Var> {
    SECTIONS.iter().flat_map(|(_, vars)| vars.iter())
}

pub fn find(name: &str) -> Option<&'static Var> {
    vars().find(|var| var.name == name)
}
