//! Host and port of an authority (RFC 3986 3.2.2, 3.2.3): what may be one, and how it is taken apart.
//!
//! Each request is asked this once, whatever frames it, before anything is decided on it: what is no host here is refused, so that
//! routes and servers cannot read another one each.

/// What the name of a host may consist of (RFC 3986 3.2.2, without the comma), as a table.
static REG_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        let is = byte as u8;
        table[byte] = is.is_ascii_alphanumeric() || matches!(is, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&');
        table[byte] |= matches!(is, b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=');
        byte += 1;
    }
    table
};

/// Host and port of an authority; `None` if it is none. User information is refused; the host may be empty.
pub fn host_port(authority: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let (host, port) = if authority.first() == Some(&b'[') {
        let end = authority.iter().position(|byte| *byte == b']')? + 1;
        let (host, rest) = authority.split_at_checked(end)?;
        let inside = host.get(1..end - 1)?;
        let may_stand = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.' | b'%');
        if inside.is_empty() || !inside.iter().all(may_stand) {
            return None;
        }
        (host, rest)
    } else {
        let end = authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len());
        let (host, rest) = authority.split_at_checked(end)?;
        if !host.iter().all(|byte| REG_NAME.get(usize::from(*byte)) == Some(&true)) {
            return None;
        }
        (host, rest)
    };
    match port.split_first() {
        None => Some((host, None)),
        Some((b':', [])) => Some((host, None)),
        Some((b':', digits)) if digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) => {
            let port = digits.iter().fold(0_u32, |n, digit| n * 10 + u32::from(digit - b'0'));
            Some((host, Some(u16::try_from(port).ok()?)))
        }
        Some(_) => None,
    }
}

/// The same of text that was looked at already; what is no authority is all host.
pub fn split(authority: &str) -> (&str, Option<u16>) {
    let found = host_port(authority.as_bytes());
    found.and_then(|(host, port)| Some((authority.get(..host.len())?, port))).unwrap_or((authority, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        let valid: &[(&str, &str, Option<u16>)] = &[
            ("a", "a", None),
            ("a:", "a", None),
            ("web.emojivoto.svc.cluster.local:80", "web.emojivoto.svc.cluster.local", Some(80)),
            ("10.0.0.1:65535", "10.0.0.1", Some(65535)),
            ("[::1]:8080", "[::1]", Some(8080)),
            ("[fe80::1%25eth0]", "[fe80::1%25eth0]", None),
            ("", "", None),
        ];
        for (text, host, port) in valid {
            assert_eq!(host_port(text.as_bytes()), Some((host.as_bytes(), *port)), "{text}");
            assert_eq!(split(text), (*host, *port), "{text}");
        }
        for text in [
            "a:65536", "a:x", "a:+1", "a@b", "a/b", "a,b", "a b", "[::1", "[]", "[::1]x", "a:1:2", "a\\b", "é",
            "a:000080", "::1", "a\"b",
        ] {
            assert_eq!(host_port(text.as_bytes()), None, "{text}");
            assert_eq!(split(text), (text, None), "{text}");
        }
    }
}
