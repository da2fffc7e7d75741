//! The header `forwarded` as gateways write it, and whether a request went through one already (data plane 3.10).

use crate::Identity;
use std::fmt;

/// What the gateway `by` says of a request of the client `client` for `host`.
///
/// As Linkerd's gateways write it: the host is not quoted, unless it holds what could be read as the end of it. The client chooses it.
pub fn element(by: &Identity, client: &str, host: &str) -> String {
    format!("by={by};for={client};host={};proto=https", Host(host))
}

struct Host<'a>(&'a str);

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'*+%:[]".contains(&byte);
        if self.0.bytes().all(plain) {
            return f.write_str(self.0);
        }
        // RFC 9110 5.6.4
        f.write_str("\"")?;
        self.0.split_inclusive(['"', '\\']).try_for_each(|part| match part.strip_suffix(['"', '\\']) {
            Some(before) => write!(f, "{before}\\{}", part.get(before.len()..).unwrap_or_default()),
            None => f.write_str(part),
        })?;
        f.write_str("\"")
    }
}

/// Whether an element of the header's value was written by the gateway `own`. What stands within quotes counts as well: a quote that
/// somebody leaves open hides nothing.
pub fn went_through(value: &[u8], own: &Identity) -> bool {
    value.split(|byte| *byte == b',').flat_map(|element| element.split(|byte| *byte == b';')).any(|pair| {
        let pair = pair.trim_ascii();
        let Some(at) = pair.iter().position(|byte| *byte == b'=') else { return false };
        let (name, value) = pair.split_at(at);
        let value = value.trim_ascii_start().strip_prefix(b"=").unwrap_or_default().trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
        name.trim_ascii().eq_ignore_ascii_case(b"by") && value.eq_ignore_ascii_case(own.as_str().as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_knows_what_it_wrote() {
        let id = |name: &str| name.parse::<Identity>().unwrap();
        let (own, other) = (id("gw.linkerd-multicluster.id"), id("other.ns.id"));
        let written = element(&own, "web.ns.id", "web.ns.svc.cluster.local:80");
        assert_eq!(written, "by=gw.linkerd-multicluster.id;for=web.ns.id;host=web.ns.svc.cluster.local:80;proto=https");
        assert!(went_through(written.as_bytes(), &own));
        assert!(!went_through(written.as_bytes(), &other), "only `by` counts");
        assert!(!went_through(element(&other, own.as_str(), own.as_str()).as_bytes(), &own));
        let foreign = format!("for=192.0.2.1;proto=http;By=\"{}\", by={other}", own.as_str().to_uppercase());
        assert!(went_through(foreign.as_bytes(), &own) && went_through(foreign.as_bytes(), &other));
        assert!(!went_through(b"by, =;;,by", &own));
    }

    #[test]
    fn a_host_says_nothing_but_the_host() {
        let by = "gw.id".parse::<Identity>().unwrap();
        for (host, written) in [
            ("web.ns:80", "web.ns:80"),
            ("web_1-a.ns%20~", "web_1-a.ns%20~"),
            ("[::1]:80", "[::1]:80"),
            ("", ""),
            ("x;for=victim", r#""x;for=victim""#),
            ("x,by=gw.id", r#""x,by=gw.id""#),
            ("x(y)", r#""x(y)""#),
            (r#"x";for="victim"#, r#""x\";for=\"victim""#),
            (r"x\", r#""x\\""#),
        ] {
            assert_eq!(element(&by, "me.id", host), format!("by=gw.id;for=me.id;host={written};proto=https"));
        }
    }
}
