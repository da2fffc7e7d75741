//! What a text has to say where no other can be read: by the process that is given it, which would not start, or by who pulls an image.
//!
//! The schema of the chart asks for the same by [`Form::pattern`].

use crate::object::{is_label, is_subdomain};
use std::time::Duration;
use weft_model::{DnsName, duration};

/// The grammar of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// What is logged.
    Filter,
    /// The same in which a word by itself is a level.
    Levels,
    /// A time as the proxy reads it: one number with its unit.
    Time,
    /// One that is longer than 0.
    PositiveTime,
    /// A time as Go writes it, for the control plane.
    GoTime,
    PositiveGoTime,
    /// A time as Prometheus writes it.
    ScrapeTime,
    /// The tag of an image.
    Version,
    /// An image without its tag.
    Image,
    /// A host and its port.
    Address,
    /// A part of the name of an identity.
    Name,
    /// The name of most objects.
    Subdomain,
    /// The name of a volume.
    Label,
    /// Where something is mounted.
    Folder,
    /// Certificates, PEM.
    Certificates,
    /// An object of a namespace, as cert-manager is told of it.
    InNamespace,
}

const FORMS: [(&str, Form); 41] = [
    ("controllerImage", Form::Image),
    ("controllerImageVersion", Form::Version),
    ("controllerLogLevel", Form::Levels),
    ("debugContainer.image.name", Form::Image),
    ("debugContainer.image.version", Form::Version),
    ("identity.issuer.clockSkewAllowance", Form::GoTime),
    ("identity.issuer.issuanceLifetime", Form::PositiveGoTime),
    ("linkerdVersion", Form::Version),
    ("podMonitor.scrapeInterval", Form::ScrapeTime),
    ("podMonitor.scrapeTimeout", Form::ScrapeTime),
    ("policyValidator.caBundle", Form::Certificates),
    ("policyValidator.injectCaFrom", Form::InNamespace),
    ("policyValidator.injectCaFromSecret", Form::InNamespace),
    ("profileValidator.caBundle", Form::Certificates),
    ("profileValidator.injectCaFrom", Form::InNamespace),
    ("profileValidator.injectCaFromSecret", Form::InNamespace),
    ("priorityClassName", Form::Subdomain),
    (STREAM_TIMES[0], Form::PositiveTime),
    (STREAM_TIMES[1], Form::PositiveTime),
    (STREAM_TIMES[2], Form::PositiveTime),
    ("proxy.image.name", Form::Image),
    ("proxy.image.version", Form::Version),
    ("proxy.inbound.server.http2.keepAliveInterval", Form::PositiveTime),
    ("proxy.inbound.server.http2.keepAliveTimeout", Form::PositiveTime),
    ("proxy.inboundConnectTimeout", Form::PositiveTime),
    ("proxy.inboundDiscoveryCacheUnusedTimeout", Form::Time),
    ("proxy.logLevel", Form::Filter),
    ("proxy.outbound.server.http2.keepAliveInterval", Form::PositiveTime),
    ("proxy.outbound.server.http2.keepAliveTimeout", Form::PositiveTime),
    ("proxy.outboundConnectTimeout", Form::PositiveTime),
    ("proxy.outboundDiscoveryCacheUnusedTimeout", Form::Time),
    ("proxy.shutdownGracePeriod", Form::Time),
    ("proxy.tracing.collector.endpoint", Form::Address),
    ("proxy.tracing.collector.meshIdentity.namespace", Form::Name),
    ("proxy.tracing.collector.meshIdentity.serviceAccountName", Form::Name),
    ("proxyInit.xtMountPath.mountPath", Form::Folder),
    ("proxyInit.xtMountPath.name", Form::Label),
    ("proxyInjector.caBundle", Form::Certificates),
    ("proxyInjector.injectCaFrom", Form::InNamespace),
    ("proxyInjector.injectCaFromSecret", Form::InNamespace),
    ("runtimeClassName", Form::Subdomain),
];

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// What is a level for Linkerd's processes as well.
const LEVELS: [&str; 9] = ["off", "error", "warn", "info", "debug", "trace", "warning", "fatal", "panic"];

/// Units of Prometheus' times, each of which stands once at most.
const SCRAPE_UNITS: [&str; 7] = ["y", "w", "d", "h", "m", "s", "ms"];

/// Times of the proxy's streams from the control plane, none of which may be longer than the next.
pub(super) const STREAM_TIMES: [&str; 3] =
    ["proxy.control.streams.initialTimeout", "proxy.control.streams.idleTimeout", "proxy.control.streams.lifetime"];

/// Values whose text has a form.
pub(super) fn forms() -> impl Iterator<Item = (&'static str, Form)> {
    FORMS.into_iter()
}

/// The form of a value.
pub(super) fn form(path: &str) -> Option<Form> {
    forms().find(|(of, _)| *of == path).map(|(_, form)| form)
}

impl Form {
    /// Whether the text, which is not empty, has this form.
    pub(crate) fn fits(self, text: &str) -> bool {
        match self {
            Self::Filter => weft_telemetry::logs::check(text).is_ok(),
            Self::Levels => Self::Filter.fits(text) && text.split(',').all(|part| part.contains('=') || is_level(part)),
            Self::Time => duration::parse(text).is_some(),
            Self::PositiveTime => duration::parse(text).is_some_and(|time| !time.is_zero()),
            Self::GoTime => duration::parse_go(text).is_some(),
            Self::PositiveGoTime => duration::parse_go(text).is_some_and(|time| time >= Duration::from_secs(1)),
            Self::ScrapeTime => is_scrape_time(text),
            Self::Version => is_version(text),
            Self::Image => is_image(text),
            Self::Address => is_address(text),
            Self::Name => text.parse::<DnsName>().is_ok(),
            Self::Subdomain => is_subdomain(text),
            Self::Label => is_label(text),
            Self::Folder => text.starts_with('/') && !text.contains(':'),
            Self::Certificates => text.split_once(BEGIN).is_some_and(|(_, certificate)| certificate.contains(END)),
            Self::InNamespace => {
                text.split_once('/').is_some_and(|(namespace, name)| is_label(namespace) && is_subdomain(name))
            }
        }
    }

    /// What a text is not that has another form.
    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::Filter | Self::Levels => "filter of logs",
            Self::Time | Self::PositiveTime => "time that the proxy reads",
            Self::GoTime | Self::PositiveGoTime => "time that the control plane reads",
            Self::ScrapeTime => "time that Prometheus reads",
            Self::Version => "version",
            Self::Image => "image",
            Self::Address => "address",
            Self::Name | Self::Subdomain | Self::Label => "name",
            Self::Folder => "absolute path",
            Self::Certificates => "certificate in PEM",
            Self::InNamespace => "object of a namespace",
        }
    }

    pub(crate) const fn remedy(self) -> &'static str {
        match self {
            Self::Filter | Self::Levels => "use levels, and targets with theirs, such as warn,linkerd=debug",
            Self::Time => "use one number with ms, s, m, h or d, such as 90s",
            Self::PositiveTime => "use one number above 0 with ms, s, m, h or d, such as 90s",
            Self::GoTime => "use numbers with ms, s, m or h, such as 1h30m",
            Self::PositiveGoTime => "use numbers with s, m or h, such as 24h0m0s, and at least 1s",
            Self::ScrapeTime => "use numbers with y, w, d, h, m, s or ms, in this order, such as 1m30s",
            Self::Version => {
                "use letters, digits, '.', '-' and '_', at most 128, of which a letter, a digit or '_' is the first"
            }
            Self::Image => "use an image without its tag, such as registry.example.org/weft/proxy",
            Self::Address => "use a host and a port, such as collector.tracing:4317",
            Self::Name => "use letters, digits, '-' and '.'",
            Self::Subdomain => "use lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
            Self::Label => "use at most 63 lower-case letters, digits and '-', not at the ends",
            Self::Folder => "use a path that begins with '/' and has no ':', such as /run",
            Self::Certificates => "use PEM, from -----BEGIN CERTIFICATE----- on, such as --set-file reads",
            Self::InNamespace => "use NAMESPACE/NAME",
        }
    }

    /// A schema's words for it: what they let through besides is refused by `weft` alone.
    pub(super) fn pattern(self) -> String {
        let go = r"^(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$";
        match self {
            Self::Filter => {
                let words = ["off", "error", "warn", "info", "debug", "trace"].map(in_any_case).join("|");
                let directive = format!(r"[^=\[,]*(\[[^,]*\])?(=({words}|[0-5])?)?\s*");
                format!("^{directive}(,{directive})*$")
            }
            Self::Levels => {
                let levels = LEVELS.map(in_any_case).join("|");
                let directive = format!(r"(\s*({levels}|[0-5])|[^=\[,]*(\[[^,]*\])?=({levels}|[0-5])?)\s*");
                format!("^{directive}(,{directive})*$")
            }
            Self::Time => "^(0|[0-9]+(ms|s|m|h|d))$".to_owned(),
            Self::PositiveTime => "^0*[1-9][0-9]*(ms|s|m|h|d)$".to_owned(),
            Self::GoTime | Self::PositiveGoTime => go.to_owned(),
            Self::ScrapeTime => {
                let numbers: String = SCRAPE_UNITS.map(|unit| format!("([0-9]+{unit})?")).concat();
                format!("^(0|{numbers})$")
            }
            Self::Version => "^[A-Za-z0-9_][-A-Za-z0-9_.]{0,127}$".to_owned(),
            Self::Image => {
                let part = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*";
                let host = r"([-A-Za-z0-9.]+|\[[0-9A-Fa-f:]+\])(:[0-9]+)?";
                format!("^({host}/)?{part}(/{part})*$")
            }
            Self::Name => "^[-A-Za-z0-9_.]+$".to_owned(),
            Self::Subdomain => {
                let part = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
                format!(r"^{part}(\.{part})*$")
            }
            Self::Label => "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$".to_owned(),
            Self::Folder => "^/[^:]*$".to_owned(),
            Self::Certificates => format!(r"{BEGIN}(.|\s)*{END}"),
            Self::InNamespace => {
                r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
                    .to_owned()
            }
            Self::Address => r"^(\[[0-9A-Fa-f:]+\]|[-A-Za-z0-9_.]+):[0-9]+$".to_owned(),
        }
    }
}

/// As a class of letters each: not every reader of patterns knows another way.
fn in_any_case(word: &str) -> String {
    word.chars().map(|c| format!("[{}{c}]", c.to_ascii_uppercase())).collect()
}

fn is_level(word: &str) -> bool {
    let word = word.trim();
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)) || matches!(word, "0" | "1" | "2" | "3" | "4" | "5")
}

/// As the definition of PodMonitors has it.
fn is_scrape_time(text: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_digit();
    let mut rest = text;
    for unit in SCRAPE_UNITS {
        let behind = rest.trim_start_matches(is_digit);
        if behind.len() < rest.len()
            && let Some(after) = behind.strip_prefix(unit)
            && !after.starts_with(char::is_alphabetic)
        {
            rest = after;
        }
    }
    text == "0" || rest.is_empty()
}

fn is_version(text: &str) -> bool {
    text.len() <= 128
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// As container runtimes read it: a registry, which may have a port, and parts in lower case.
fn is_image(text: &str) -> bool {
    let is_own = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |s: &str| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    let part = |part: &str| part.starts_with(is_own) && part.ends_with(is_own) && part.split(is_own).all(is_separator);
    let parts = |path: &str| path.split('/').all(part);
    text.len() <= 255
        && (parts(text) || text.split_once('/').is_some_and(|(host, path)| is_registry(host) && parts(path)))
}

fn is_registry(text: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let label = |label: &str| {
        let is_edge = |c: char| c.is_ascii_alphanumeric();
        label.starts_with(is_edge) && label.ends_with(is_edge) && label.chars().all(|c| is_edge(c) || c == '-')
    };
    if let Some(rest) = text.strip_prefix('[') {
        let Some((ip, port)) = rest.split_once(']') else { return false };
        return ip.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    // Without either it is a part of the path.
    let is_host = text == "localhost" || text.contains(['.', ':']);
    let (name, port) = text.split_once(':').unwrap_or((text, "0"));
    is_host && is_port(port) && name.split('.').all(label)
}

fn is_address(text: &str) -> bool {
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return true;
    }
    let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    text.rsplit_once(':').is_some_and(|(name, number)| port(number) && name.parse::<DnsName>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::{Values, kind};

    #[test]
    fn every_form_is_of_a_value_and_has_its_default() {
        let kinds = kind::kinds();
        for (path, form) in forms() {
            let (_, _, default) = kinds.iter().find(|(of, ..)| of == path).unwrap_or_else(|| panic!("no value {path}"));
            let default = default.as_str().unwrap();
            assert!(default.is_empty() || form.fits(default), "{path}: {default}");
        }
        assert!(Values::from_layers([]).is_ok());
    }

    #[test]
    fn images_are_those_that_can_be_pulled() {
        for image in [
            "p",
            "r/p",
            "weft/proxy",
            "cr.l5d.io/linkerd/proxy",
            "localhost:5000/p",
            "Registry.example.org/a/b-c_d__e",
            "[::1]:5000/p",
            "r_x/p",
            "10.0.0.1:80/a--b",
        ] {
            assert!(Form::Image.fits(image), "{image}");
        }
        for not in [
            "r/P",
            "R/p",
            "r/p:v1",
            "a b",
            "r//p",
            "/p",
            "r/p/",
            "p_",
            "a..b/p",
            "r/a___b",
            "h:x/p",
            "[::1/p",
            "r/p@sha256:00",
            "☃",
        ] {
            assert!(!Form::Image.fits(not), "{not}");
        }
    }

    #[test]
    fn the_others_too() {
        let both = format!("{BEGIN}\nAA==\n{END}\n").repeat(2);
        for (form, good, bad) in [
            (Form::Version, ["v1", "stable-2.14.0_x"], ["v1 beta", "-v1"]),
            (Form::Address, ["c.obs:4317", "[::1]:1"], ["http://c:4317", "c:0"]),
            (Form::PositiveTime, ["1ms", "90s"], ["0s", "1m30s"]),
            (Form::Time, ["0", "0s"], ["1.5s", "100"]),
            (Form::GoTime, ["0", "1.5h"], ["1d", "100"]),
            (Form::Levels, ["warn,linkerd=debug", "Panic"], ["verbose", "info,linkerd"]),
            (Form::ScrapeTime, ["10s", "1h1m1s5ms"], ["1s1m", "1.5s"]),
            (Form::ScrapeTime, ["0", "5ms"], ["10", "1m1m"]),
            (Form::PositiveGoTime, ["24h0m0s", "1s"], ["0s", "999ms"]),
            (Form::Subdomain, ["system-cluster-critical", "a.b-1"], ["High priority", "a-"]),
            (Form::Label, ["lock", "a-1"], ["a.b", "Lock"]),
            (Form::Folder, ["/run", "/"], ["run", "/run:/x"]),
            (Form::InNamespace, ["linkerd/injector", "a/b.c"], ["injector", "a/b/c"]),
            (Form::Certificates, [&both, "-----BEGIN CERTIFICATE----------END CERTIFICATE-----"], ["foo", BEGIN]),
            (Form::Filter, ["warn,linkerd=info", "fatal"], ["warn,linkerd=infoo", "☃"]),
        ] {
            assert!(good.iter().all(|text| form.fits(text)), "{form:?}");
            assert!(!bad.iter().any(|text| form.fits(text)), "{form:?}");
        }
    }
}
