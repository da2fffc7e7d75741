//! The names that two binaries agree on: ports, annotations, labels, headers, service accounts.
//!
//! They are Linkerd's, so that tools made for Linkerd find what they expect (data plane 1.4, 3.7, 4.3; control plane 3.1, 3.2).

/// TCP ports.
pub mod port {
    /// Redirected application traffic, bound on loopback.
    pub const OUTBOUND: u16 = 4140;
    /// Redirected inbound traffic, and direct connections that carry a transport header.
    pub const INBOUND: u16 = 4143;
    /// The tap server.
    pub const CONTROL: u16 = 4190;
    /// Metrics and probes.
    pub const ADMIN: u16 = 4191;
    /// Identity service.
    pub const IDENTITY: u16 = 8080;
    /// Destination service.
    pub const DESTINATION: u16 = 8086;
    /// Inbound and outbound policy services.
    pub const POLICY: u16 = 8090;
}

/// Annotations on Namespaces, workloads, pods and Services.
pub mod annotation {
    pub const INJECT: &str = "linkerd.io/inject";
    pub const SKIP_INBOUND_PORTS: &str = "config.linkerd.io/skip-inbound-ports";
    pub const SKIP_OUTBOUND_PORTS: &str = "config.linkerd.io/skip-outbound-ports";
    pub const OPAQUE_PORTS: &str = "config.linkerd.io/opaque-ports";
    pub const DEFAULT_INBOUND_POLICY: &str = "config.linkerd.io/default-inbound-policy";
}

/// HTTP headers of the mesh.
pub mod header {
    /// Every header of the mesh begins with this.
    pub const PREFIX: &str = "l5d-";
    /// The peer's identity, set by the inbound proxy; never believed from outside.
    pub const CLIENT_ID: &str = "l5d-client-id";
    /// The version that an HTTP/1 message had before it was carried on HTTP/2.
    pub const ORIG_PROTO: &str = "l5d-orig-proto";
    /// The text of an error that a proxy made.
    pub const PROXY_ERROR: &str = "l5d-proxy-error";
    /// `close` asks the client's proxy to close the application's connection.
    pub const PROXY_CONNECTION: &str = "l5d-proxy-connection";
    /// The logical name of a destination that a profile routes.
    pub const DST_CANONICAL: &str = "l5d-dst-canonical";
    /// The target of a request, asked by an ingress; read by proxies in ingress mode alone.
    pub const DST_OVERRIDE: &str = "l5d-dst-override";
    /// Which gateways a request went through.
    pub const FORWARDED: &str = "forwarded";
    /// The identity that the server must have, asked by the client application.
    pub const REQUIRE_ID: &str = "l5d-require-id";
    /// How long the request may take, asked by the client application; the same as [`REQUEST_TIMEOUT`], which beats it.
    pub const TIMEOUT: &str = "l5d-timeout";
    pub const REQUEST_TIMEOUT: &str = "l5d-request-timeout";
    /// How long the response may take once the request was sent.
    pub const RESPONSE_TIMEOUT: &str = "l5d-response-timeout";
    /// The statuses for which the request is sent again, asked by the client application.
    pub const RETRY_HTTP: &str = "l5d-retry-http";
    /// The same of gRPC codes.
    pub const RETRY_GRPC: &str = "l5d-retry-grpc";
    /// How often.
    pub const RETRY_LIMIT: &str = "l5d-retry-limit";
    /// How long each attempt but the last waits for the head of its response.
    pub const RETRY_TIMEOUT: &str = "l5d-retry-timeout";
}

/// The ALPN value by which a client's proxy announces a transport header.
pub const TRANSPORT_ALPN: &[u8] = b"transport.l5d.io/v1";

/// Ports that are opaque unless an annotation says otherwise: SMTP, MySQL, Galera, PostgreSQL, Redis,
/// Elasticsearch and memcached speak first or are not HTTP.
pub const DEFAULT_OPAQUE_PORTS: &[u16] = &[25, 587, 3306, 4444, 5432, 6379, 9300, 11211];

/// The namespace of the control plane, unless configured.
pub const CONTROL_NAMESPACE: &str = "linkerd";
/// The namespace whose EgressNetworks hold for clients of every namespace that has none of its own.
pub const EGRESS_NAMESPACE: &str = "linkerd-egress";
/// The trust domain and the cluster's DNS domain, unless configured.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// Service accounts of the control plane, whose identities proxies expect from its services.
pub mod service_account {
    /// Serves destination and policy.
    pub const DESTINATION: &str = "linkerd-destination";
    pub const IDENTITY: &str = "linkerd-identity";
}
