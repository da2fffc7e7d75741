//! What the path of a probe is on the wire: the kubelet reads it as a reference (RFC 3986), and writes what it has understood.
//!
//! The index lets it in as it comes, and the embedded mesh asks by it.

use weft_model::decide::host::host_port;

/// From the root, with its query and without a fragment. What is no reference is a path as a whole.
pub(crate) fn sent(said: &str) -> String {
    let (path, query) = read(said).unwrap_or_else(|| (escaped(said.as_bytes()), None));
    let root = if path.starts_with('/') { "" } else { "/" };
    match query {
        Some(query) => format!("{root}{path}?{query}"),
        None => format!("{root}{path}"),
    }
}

/// The path with the escapes that it needs, and the query.
fn read(said: &str) -> Option<(String, Option<&str>)> {
    if said.bytes().any(|byte| byte.is_ascii_control()) {
        return None;
    }
    let reference = said.split('#').next().unwrap_or_default();
    let (path, query) = reference.split_once('?').map_or((reference, None), |(path, query)| (path, Some(query)));
    let path = match path.strip_prefix("//") {
        // It names a host, in whose place the pod is asked.
        Some(rest) if !rest.starts_with('/') => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            host_port(host.as_bytes())?;
            path
        }
        _ => path,
    };
    let bytes = unescaped(path)?;
    let stays = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@[]%".contains(&byte);
    Some((if path.bytes().all(stays) { path.to_owned() } else { escaped(&bytes) }, query))
}

fn unescaped(path: &str) -> Option<Vec<u8>> {
    let mut out = vec![];
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next()?).to_digit(16);
        out.push(if byte == b'%' { u8::try_from(digit()? << 4 | digit()?).ok()? } else { byte });
    }
    Some(out)
}

fn escaped(path: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        byte if byte.is_ascii_alphanumeric() || b"/-._~$&+,:;=@".contains(byte) => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    path.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Go 1.26 writes them.
    #[test]
    fn paths_are_written_as_the_kubelet_writes_them() {
        for (said, expected) in [
            ("", "/"),
            ("healthz", "/healthz"),
            ("/healthz?full=1#top", "/healthz?full=1"),
            ("/health;full/a//b/../c", "/health;full/a//b/../c"),
            ("/a%20b%2fc", "/a%20b%2fc"),
            ("/a b", "/a%20b"),
            ("/caf\u{e9}(%2f)", "/caf%C3%A9%28/%29"),
            ("/a(b)!*'[c]", "/a(b)!*'[c]"),
            ("/a\\b|\"c", "/a%5Cb%7C%22c"),
            // What it cannot read it takes whole.
            ("/100%?a=b", "/100%25%3Fa=b"),
            // What stands there for a host.
            ("//healthz", "/"),
            ("//web/healthz", "/healthz"),
            ("///healthz", "///healthz"),
            ("//a b/c", "//a%20b/c"),
        ] {
            assert_eq!(sent(said), expected, "{said}");
        }
    }
}
