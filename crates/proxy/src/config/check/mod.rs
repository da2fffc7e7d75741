//! Raw text → checked configuration. Goes on after a problem, so that all are reported at once.

mod identity;
mod reader;

use super::{
    AccessLogFormat, Admin, Config, Connect, ControlAddr, ControlClients, Destination, Http1Pool, Http2Client,
    Http2Server, Inbound, Outbound, Policy, Process, Queue, SocketOptions, StreamLimits, Tap, Traces, Upgrade,
    table::{self, Acts},
    value,
};
use reader::{Reader, dns_name, one_of, positive, positive_number, text, window};
use std::{fmt, path::PathBuf, time::Duration};
use weft_model::{
    Identity,
    policy::{inbound::DefaultPolicy, outbound::Backoff},
};
use weft_telemetry::{Format, logs};

/// Decision records that a worker may keep: some 50 MB.
const MAX_RECORDS: usize = 100_000;

/// A variable that is wrong, and what is expected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub name: String,
    pub message: String,
}

const LOG: &str = "LINKERD2_PROXY_LOG";

/// A valid configuration and what of the environment it leaves aside.
#[derive(Clone, Debug)]
pub struct Checked {
    pub config: Config,
    /// Names that begin like ours but that nobody knows.
    pub unknown: Vec<String>,
    /// Names whose function this build lacks.
    pub not_built: Vec<String>,
    /// Of the filter of logs: what is no directive, which Linkerd's proxy leaves out as well.
    pub left_out: Vec<String>,
}

/// Checks the environment of a process that sees `cpus` processors.
///
/// # Errors
/// Every problem found, by name.
pub fn check(env: impl IntoIterator<Item = (String, String)>, cpus: usize) -> Result<Checked, Vec<Problem>> {
    let reader = Reader::new(env);
    let config = reader.config(cpus);
    let mut problems = reader.problems.into_inner();
    problems.sort();
    problems.dedup();
    let Some(config) = config.filter(|_| problems.is_empty()) else {
        return Err(problems);
    };
    let left_out = reader.env.get(LOG).map(|filter| logs::sift(filter).1).unwrap_or_default();
    let mut checked = Checked { config, unknown: vec![], not_built: vec![], left_out };
    for name in reader.env.keys().filter(|n| n.starts_with(table::LINKERD) || n.starts_with(table::WEFT)) {
        match table::find(name).map(|var| var.acts) {
            Some(Acts::Yes | Acts::Ignored) => {}
            Some(Acts::NotBuilt) => checked.not_built.push(name.clone()),
            None => checked.unknown.push(name.clone()),
        }
    }
    Ok(checked)
}

impl Reader {
    fn config(&self, cpus: usize) -> Option<Config> {
        // All parts are read before the first `?`, so that no problem hides another.
        let (inbound, outbound) = (self.inbound(), self.outbound());
        let (admin, identity) = (self.admin(), self.identity());
        let (destination, policy) = (self.destination(), self.policy());
        let (control, process) = (self.control_clients(), self.process(cpus));
        let (tap, access_log, traces) = (self.tap(), self.access_log(), self.traces());
        Some(Config {
            inbound: inbound?,
            outbound: outbound?,
            admin: admin?,
            identity: identity?,
            destination: destination?,
            policy: policy?,
            control,
            process,
            tap,
            access_log,
            traces,
        })
    }

    fn inbound(&self) -> Option<Inbound> {
        let listen = self.required("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", value::socket_addr);
        let default_policy = self.required("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", |text| {
            text.parse::<DefaultPolicy>().map_err(|e| e.to_string())
        });
        let cluster_networks = self.or_default("LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS", value::networks);
        if let Some(
            policy @ (DefaultPolicy::Audit
            | DefaultPolicy::ClusterAuthenticated
            | DefaultPolicy::ClusterUnauthenticated),
        ) = default_policy
            && cluster_networks.is_empty()
        {
            self.problem(
                "LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS",
                format!("must name the cluster's networks when the default policy is {}", policy.as_str()),
            );
        }
        let ports = self.or_default("LINKERD2_PROXY_INBOUND_PORTS", value::ports);
        Some(Inbound {
            listen: listen?,
            backlog: self.optional("LINKERD2_PROXY_INBOUND_TCP_LISTEN_BACKLOG", value::number),
            ips: self.or_default("LINKERD2_PROXY_INBOUND_IPS", value::ips),
            accept: self
                .socket("LINKERD2_PROXY_INBOUND_ACCEPT_KEEPALIVE", "LINKERD2_PROXY_INBOUND_ACCEPT_USER_TIMEOUT"),
            connect: self.inbound_connect(),
            backoff: self.backoff([
                "LINKERD2_PROXY_INBOUND_CONNECT_EXP_BACKOFF_MIN",
                "LINKERD2_PROXY_INBOUND_CONNECT_EXP_BACKOFF_MAX",
                "LINKERD2_PROXY_INBOUND_CONNECT_EXP_BACKOFF_JITTER",
            ]),
            http_queue: Queue {
                capacity: self.or_default("LINKERD2_PROXY_INBOUND_HTTP_QUEUE_CAPACITY", value::number),
                failfast: self.or_default("LINKERD2_PROXY_INBOUND_HTTP_FAILFAST_TIMEOUT", value::duration),
            },
            http1_pool: Http1Pool {
                max_idle: self.or_default("LINKERD2_PROXY_MAX_IDLE_CONNS_PER_ENDPOINT", value::number),
                idle_timeout: self
                    .or_default("LINKERD2_PROXY_INBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT", value::duration),
            },
            http2_server: self.http2_server([
                "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE",
                "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
                "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL",
                "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT",
                "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS",
                "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_FRAME_SIZE",
                "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_HEADER_LIST_SIZE",
                "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS",
                "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_SEND_BUF_SIZE",
                "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL",
            ]),
            max_in_flight: self.or_default("LINKERD2_PROXY_INBOUND_MAX_IN_FLIGHT", value::number),
            detect_timeout: self.or_default("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", positive),
            server_first_wait: self.or_default("WEFT_PROXY_INBOUND_SERVER_FIRST_WAIT", value::duration),
            head_timeout: self.or_default("WEFT_PROXY_INBOUND_HTTP_HEAD_TIMEOUT", value::duration),
            discovery_idle: self.or_default("LINKERD2_PROXY_INBOUND_DISCOVERY_IDLE_TIMEOUT", value::duration),
            authority_labels: self
                .optional("LINKERD2_PROXY_INBOUND_METRICS_AUTHORITY_LABELS", |text| {
                    one_of(text, &["unsafe"]).map(str::to_owned)
                })
                .is_some(),
            gateway_suffixes: self.or_default("LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES", value::suffixes),
            ports: ports.0.into_iter().flatten().collect(),
            opaque_ports: self.or_default("LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", value::ports),
            default_policy: default_policy?,
            cluster_networks,
        })
    }

    fn outbound(&self) -> Option<Outbound> {
        let single = self.required("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR", value::socket_addr);
        let several = self.optional("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS", value::socket_addrs);
        let ingress = self.or_default("LINKERD2_PROXY_INGRESS_MODE", value::bool);
        let hidden = self.optional("LINKERD2_PROXY_OUTBOUND_DISABLE_INFORMATIONAL_HEADERS", value::bool);
        Some(Outbound {
            listen: several.or_else(|| single.map(|addr| vec![addr]))?,
            backlog: self.optional("LINKERD2_PROXY_OUTBOUND_TCP_LISTEN_BACKLOG", value::number),
            accept: self
                .socket("LINKERD2_PROXY_OUTBOUND_ACCEPT_KEEPALIVE", "LINKERD2_PROXY_OUTBOUND_ACCEPT_USER_TIMEOUT"),
            connect: self.outbound_connect(),
            backoff: self.outbound_backoff(),
            http1_pool: Http1Pool {
                max_idle: self.or_default("LINKERD2_PROXY_OUTBOUND_MAX_IDLE_CONNS_PER_ENDPOINT", value::number),
                idle_timeout: self
                    .or_default("LINKERD2_PROXY_OUTBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT", value::duration),
            },
            http2_client: Http2Client {
                stream_window: self.or_default("LINKERD2_PROXY_HTTP2_INITIAL_STREAM_WINDOW_SIZE", window),
                connection_window: self.or_default("LINKERD2_PROXY_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE", window),
            },
            http2_server: self.http2_server([
                "LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE",
                "LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
                "LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL",
                "LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT",
                "LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS",
                "LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_FRAME_SIZE",
                "LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_HEADER_LIST_SIZE",
                "LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS",
                "LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_SEND_BUF_SIZE",
                "LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL",
            ]),
            http_queue: Queue {
                capacity: self.or_default("LINKERD2_PROXY_OUTBOUND_HTTP_QUEUE_CAPACITY", value::number),
                failfast: self.or_default("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", value::duration),
            },
            tcp_queue: Queue {
                capacity: self.or_default("LINKERD2_PROXY_OUTBOUND_TCP_QUEUE_CAPACITY", value::number),
                failfast: self.or_default("LINKERD2_PROXY_OUTBOUND_TCP_FAILFAST_TIMEOUT", value::duration),
            },
            max_in_flight: self.or_default("LINKERD2_PROXY_OUTBOUND_MAX_IN_FLIGHT", value::number),
            detect_timeout: self.or_default("LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT", positive),
            server_first_wait: self.or_default("WEFT_PROXY_OUTBOUND_SERVER_FIRST_WAIT", value::duration),
            head_timeout: self.or_default("WEFT_PROXY_OUTBOUND_HTTP_HEAD_TIMEOUT", value::duration),
            discovery_idle: self.or_default("LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT", value::duration),
            ingress,
            informational_headers: !hidden.unwrap_or(ingress),
            hostname_labels: self.or_default("LINKERD2_PROXY_OUTBOUND_METRICS_HOSTNAME_LABELS", value::bool),
        })
    }

    fn tap(&self) -> Option<Tap> {
        let listen = self.required("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", value::socket_addr);
        let permitted =
            self.optional("LINKERD2_PROXY_TAP_SVC_NAME", |text| text.parse::<Identity>().map_err(|e| e.to_string()));
        Some(Tap { listen: listen?, permitted: permitted? })
    }

    fn access_log(&self) -> Option<AccessLogFormat> {
        self.optional("LINKERD2_PROXY_ACCESS_LOG", |text| match one_of(text, &["apache", "json"])? {
            "json" => Ok(AccessLogFormat::Json),
            _ => Ok(AccessLogFormat::Apache),
        })
    }

    fn traces(&self) -> Option<Traces> {
        let (addr, name) = ("LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR", "LINKERD2_PROXY_TRACE_COLLECTOR_SVC_NAME");
        // All names are asked for, so that a mistake shows before there is a collector.
        let service_name = self.or_default("LINKERD2_PROXY_TRACE_SERVICE_NAME", text);
        let attributes_path = self.optional("LINKERD2_PROXY_TRACE_ATTRIBUTES_PATH", |path| Ok(PathBuf::from(path)));
        let extra_attributes = self.optional("LINKERD2_PROXY_TRACE_EXTRA_ATTRIBUTES", text);
        let otel_attributes = self.optional("OTEL_RESOURCE_ATTRIBUTES", text);
        let hostname = self.optional("HOSTNAME", text);
        let given = self.optional(addr, value::host_port).is_some();
        let identity = self.optional(name, dns_name);
        let collector = if given { self.service(addr, name)? } else { return identity.and(None) };
        Some(Traces { collector, service_name, attributes_path, extra_attributes, otel_attributes, hostname })
    }

    fn admin(&self) -> Option<Admin> {
        Some(Admin {
            listen: self.required("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", value::socket_addr)?,
            shutdown: self.or_default("LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED", value::bool),
            metrics_retain_idle: self.or_default("LINKERD2_PROXY_METRICS_RETAIN_IDLE", value::duration),
        })
    }

    fn destination(&self) -> Option<Destination> {
        Some(Destination {
            context: self.or_default("LINKERD2_PROXY_DESTINATION_CONTEXT", text),
            profile_networks: self.or_default("LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS", value::networks),
            profile_suffixes: self.or_default("LINKERD2_PROXY_DESTINATION_PROFILE_SUFFIXES", value::suffixes),
            profile_patience: self.or_default("LINKERD2_PROXY_DESTINATION_PROFILE_INITIAL_TIMEOUT", value::duration),
            timeout: self.or_default("WEFT_PROXY_DISCOVERY_TIMEOUT", positive),
            service: self.service("LINKERD2_PROXY_DESTINATION_SVC_ADDR", "LINKERD2_PROXY_DESTINATION_SVC_NAME")?,
        })
    }

    fn policy(&self) -> Option<Policy> {
        let workload = self.required("LINKERD2_PROXY_POLICY_WORKLOAD", text);
        let service = self.service("LINKERD2_PROXY_POLICY_SVC_ADDR", "LINKERD2_PROXY_POLICY_SVC_NAME");
        Some(Policy { service: service?, workload: workload? })
    }

    fn control_clients(&self) -> ControlClients {
        let streams = StreamLimits {
            initial: self.optional("LINKERD2_PROXY_CONTROL_STREAM_INITIAL_TIMEOUT", positive),
            idle: self.optional("LINKERD2_PROXY_CONTROL_STREAM_IDLE_TIMEOUT", positive),
            lifetime: self.optional("LINKERD2_PROXY_CONTROL_STREAM_LIFETIME", positive),
        };
        let ordered = [
            ("LINKERD2_PROXY_CONTROL_STREAM_INITIAL_TIMEOUT", streams.initial),
            ("LINKERD2_PROXY_CONTROL_STREAM_IDLE_TIMEOUT", streams.idle),
            ("LINKERD2_PROXY_CONTROL_STREAM_LIFETIME", streams.lifetime),
        ];
        let given: Vec<_> = ordered.into_iter().filter_map(|(name, d)| Some((name, d?))).collect();
        for pair in given.windows(2) {
            if let [(shorter, a), (longer, b)] = pair
                && a > b
            {
                self.problem(shorter, format!("is longer than {longer}"));
            }
        }
        let dns_min_ttl = self.optional("LINKERD2_PROXY_DNS_MIN_TTL", value::duration);
        let dns_max_ttl = self.optional("LINKERD2_PROXY_DNS_MAX_TTL", value::duration);
        if let (Some(min), Some(max)) = (dns_min_ttl, dns_max_ttl)
            && min > max
        {
            self.problem("LINKERD2_PROXY_DNS_MIN_TTL", "is longer than LINKERD2_PROXY_DNS_MAX_TTL");
        }
        ControlClients {
            connect: self.outbound_connect(),
            backoff: self.outbound_backoff(),
            streams,
            dns_min_ttl,
            dns_max_ttl,
        }
    }

    fn process(&self, cpus: usize) -> Process {
        let cores: usize = self.or_default("LINKERD2_PROXY_CORES", positive_number);
        let min = self.optional("LINKERD2_PROXY_CORES_MIN", positive_number).unwrap_or(cores);
        let max = self.optional("LINKERD2_PROXY_CORES_MAX", positive_number);
        let ratio = self.optional("LINKERD2_PROXY_CORES_MAX_RATIO", value::ratio);
        Process {
            workers: workers(cpus, min, max, ratio),
            shutdown_grace: self.or_default("LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD", value::duration),
            shutdown_with_pod: self.optional("WEFT_PROXY_SHUTDOWN_WITH_POD", text),
            log: self.or_default(LOG, |text| {
                let (known, others) = logs::sift(text);
                // Without any nobody would be told anything.
                Ok(if known.is_empty() && !others.is_empty() { logs::DEFAULT_FILTER.to_owned() } else { known })
            }),
            log_format: self.or_default("LINKERD2_PROXY_LOG_FORMAT", |text| {
                // Linkerd's proxy reads either case.
                Ok(if one_of(&text.to_ascii_lowercase(), &["plain", "json"])? == "json" {
                    Format::Json
                } else {
                    Format::Plain
                })
            }),
            metrics_series_cap: self.or_default("WEFT_PROXY_METRICS_SERIES_CAP", positive_number),
            records: self.or_default("WEFT_PROXY_RECORDS", |text| match value::number(text)? {
                records if records <= MAX_RECORDS => Ok(records),
                records => Err(format!("{records} is more than {MAX_RECORDS}")),
            }),
            upgrade: Upgrade {
                enabled: self.or_default("WEFT_PROXY_UPGRADE_ENABLED", value::bool),
                program: self.optional("WEFT_PROXY_UPGRADE_PROGRAM", |text| Ok(text.into())),
                timeout: self.or_default("WEFT_PROXY_UPGRADE_TIMEOUT", positive),
                drain: self.or_default("WEFT_PROXY_UPGRADE_DRAIN", value::duration),
                pid_file: self.optional("WEFT_PROXY_PID_FILE", |text| Ok(text.into())),
                takes_over: self.optional("WEFT_PROXY_UPGRADE_SOCKET", |text| one_of(text, &["stdin"])).is_some(),
            },
        }
    }

    fn inbound_connect(&self) -> Connect {
        Connect {
            timeout: self.or_default("LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT", positive),
            socket: self
                .socket("LINKERD2_PROXY_INBOUND_CONNECT_KEEPALIVE", "LINKERD2_PROXY_INBOUND_CONNECT_USER_TIMEOUT"),
            mark: self.optional("WEFT_PROXY_MARK", positive_number),
        }
    }

    fn outbound_connect(&self) -> Connect {
        Connect {
            timeout: self.or_default("LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT", positive),
            socket: self
                .socket("LINKERD2_PROXY_OUTBOUND_CONNECT_KEEPALIVE", "LINKERD2_PROXY_OUTBOUND_CONNECT_USER_TIMEOUT"),
            mark: self.optional("WEFT_PROXY_MARK", positive_number),
        }
    }

    fn outbound_backoff(&self) -> Backoff {
        self.backoff([
            "LINKERD2_PROXY_OUTBOUND_CONNECT_EXP_BACKOFF_MIN",
            "LINKERD2_PROXY_OUTBOUND_CONNECT_EXP_BACKOFF_MAX",
            "LINKERD2_PROXY_OUTBOUND_CONNECT_EXP_BACKOFF_JITTER",
        ])
    }

    fn backoff(&self, [min_name, max_name, jitter]: [&'static str; 3]) -> Backoff {
        for (given, missing) in [(min_name, max_name), (max_name, min_name)] {
            if self.env.contains_key(given) && !self.env.contains_key(missing) {
                self.problem(missing, format!("must be set, as {given} is"));
            }
        }
        let min: Duration = self.or_default(min_name, positive);
        let max: Duration = self.or_default(max_name, positive);
        if min > max {
            self.problem(min_name, format!("is longer than {max_name}"));
        }
        Backoff { min, max, jitter: self.or_default(jitter, value::part) }
    }

    fn socket(&self, keepalive: &'static str, user_timeout: &'static str) -> SocketOptions {
        SocketOptions {
            keepalive: self.optional(keepalive, positive),
            user_timeout: self.optional(user_timeout, positive),
        }
    }

    fn http2_server(&self, names: [&'static str; 10]) -> Http2Server {
        let [stream, connection, interval, timeout, streams, frame, headers, resets, send, adaptive] = names;
        let stream = self.optional(stream, window);
        let connection = self.optional(connection, window);
        Http2Server {
            // Linkerd's rule: one without the other has no effect.
            windows: stream.zip(connection),
            keep_alive_interval: self.optional(interval, positive),
            keep_alive_timeout: self.optional(timeout, positive),
            max_concurrent_streams: self.optional(streams, positive_number),
            max_frame_size: self.optional(frame, |text| {
                let size: u32 = value::number(text)?;
                if (1 << 14..1 << 24).contains(&size) {
                    Ok(size)
                } else {
                    Err(format!("{text:?} is not a frame size: HTTP/2 allows 16384 to 16777215"))
                }
            }),
            max_header_list_size: self.optional(headers, positive_number),
            max_pending_accept_reset_streams: self.optional(resets, value::number),
            max_send_buf_size: self.optional(send, positive_number),
            adaptive: self.optional(adaptive, value::bool).unwrap_or_default(),
        }
    }

    /// An address, and the identity of what is there unless it is loopback.
    fn service(&self, addr: &'static str, name: &'static str) -> Option<ControlAddr> {
        let host = self.required(addr, value::host_port);
        let identity = self.optional(name, dns_name);
        let host = host?;
        if host.is_loopback() {
            return Some(ControlAddr { addr: host, identity: None });
        }
        if identity.is_none() && !self.env.contains_key(name) {
            self.problem(name, format!("must be set, as {addr} is not loopback"));
        }
        Some(ControlAddr { addr: host, identity: Some(identity?) })
    }
}

/// The maximum if given, else the part of the processors if given, else 1; at least `min`, at most what is there.
fn workers(cpus: usize, min: usize, max: Option<usize>, ratio: Option<f64>) -> usize {
    let cpus = cpus.max(1);
    let by_ratio = ratio.map(|ratio| (cpus as f64 * ratio).round() as usize);
    max.or(by_ratio).unwrap_or(1).max(min).clamp(1, cpus)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_and_the_check_know_the_same_names() {
        let reader = Reader::new([]);
        assert!(reader.config(1).is_none());
        let asked = reader.asked.into_inner();
        let acted: BTreeSet<_> = table::vars().filter(|v| v.acts == Acts::Yes).map(|v| v.name).collect();
        let missing: Vec<_> = acted.difference(&asked).collect();
        assert!(missing.is_empty(), "in the table but never read: {missing:?}");
        let strange: Vec<_> = asked.difference(&acted).collect();
        assert!(strange.is_empty(), "read, but the table does not say so: {strange:?}");
        assert_eq!(table::vars().count(), table::vars().map(|v| v.name).collect::<BTreeSet<_>>().len());
    }

    #[test]
    fn workers_follow_the_processors() {
        for (cpus, min, max, ratio, expected) in [
            (8, 1, None, None, 1),
            (8, 2, None, None, 2),
            (8, 1, Some(4), None, 4),
            (8, 1, Some(16), None, 8),
            (8, 1, None, Some(0.5), 4),
            (8, 1, Some(3), Some(0.5), 3),
            (8, 6, Some(3), None, 6),
            (2, 1, None, Some(0.1), 1),
            (0, 4, None, None, 1),
        ] {
            assert_eq!(workers(cpus, min, max, ratio), expected, "{cpus} {min} {max:?} {ratio:?}");
        }
    }
}
