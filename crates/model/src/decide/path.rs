//! How else a server may read a path than letter by letter.
//!
//! Proxies forward paths as they came, and servers undo escapes, drop dots, doubled slashes and parameters, each in its own way.
//! A policy that speaks of paths must hold for what the server will make of one.

use std::iter;

/// Another reading of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reading {
    pub path: String,
    /// Not only letters were written otherwise: segments came, went, or were cut.
    pub other_segments: bool,
}

/// How often escapes are undone: some servers do it twice.
const DECODINGS: usize = 2;

/// Bytes of a path whose other readings are looked for; each of them costs as much as the path is long.
pub const MAX_READ: usize = 8 * 1024;

/// Whether everybody reads `path` letter by letter.
pub fn is_plain(path: &str) -> bool {
    let suspect =
        |pair: &[u8]| matches!(pair, [b'/', b'/' | b'.'] | [b'%' | b';' | b'\\', _] | [_, b'%' | b';' | b'\\']);
    !path.as_bytes().windows(2).any(suspect)
}

/// The readings of `path` that differ from it. None for a plain path, which is found out without allocating.
pub fn readings(path: &str) -> Vec<Reading> {
    if is_plain(path) {
        return vec![];
    }
    let mut readings: Vec<Reading> = vec![];
    let mut add = |read: String| {
        if read != path && readings.iter().all(|r| r.path != read) {
            let other_segments = segments(&read) != segments(path);
            readings.push(Reading { path: read, other_segments });
        }
    };
    // Some take parameters off before they undo escapes.
    for mut decoded in also(path.to_owned(), without_parameters) {
        for _ in 0..=DECODINGS {
            for whole in also(decoded.clone(), |path| path.split('\0').next().unwrap_or_default().to_owned()) {
                // To some a backslash is a slash.
                for slashed in also(whole, |path| path.replace('\\', "/")) {
                    for cut in also(slashed, without_parameters) {
                        add(resolved(&cut, Empty::Dropped));
                        for kept in also(resolved(&cut, Empty::Kept), merged).chain(also(cut, merged)) {
                            add(kept);
                        }
                    }
                }
            }
            let undone = undone(&decoded);
            if undone == decoded {
                break;
            }
            decoded = undone;
        }
    }
    readings
}

/// `path`, and what else it becomes by `step`.
fn also(path: String, step: impl FnOnce(&str) -> String) -> impl Iterator<Item = String> {
    let other = Some(step(&path)).filter(|other| *other != path);
    iter::once(path).chain(other)
}

fn segments(path: &str) -> usize {
    path.split('/').count()
}

/// What becomes of empty segments: they are one for the dots to take away, or none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    Kept,
    Dropped,
}

/// Without dot segments. An end in a slash stays.
fn resolved(path: &str, empty: Empty) -> String {
    let mut kept: Vec<&str> = vec![];
    // What ends with a segment that is not kept ends in its slash.
    let mut open = false;
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        open = matches!(segment, "." | "..") || segment.is_empty() && empty == Empty::Dropped;
        match segment {
            "." => {}
            "" if empty == Empty::Dropped => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if open || out.is_empty() {
        out.push('/');
    }
    out
}

/// One slash for each row of them.
fn merged(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

/// Each segment up to its first `;`.
fn without_parameters(path: &str) -> String {
    let cut: Vec<&str> = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect();
    cut.join("/")
}

/// `%41` is `A`. Bytes that are no text stand for nothing that a route could name.
pub(super) fn undone(path: &str) -> String {
    String::from_utf8_lossy(&unescaped(path, b'+')).into_owned()
}

/// `%41` is `A`, and `+` is what it stands for there. What is no escape stands for itself.
pub(super) fn unescaped(text: &str, plus: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => byte(*high, *low),
            _ => None,
        };
        out.push(escaped.unwrap_or(if first == b'+' { plus } else { first }));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    out
}

fn byte(high: u8, low: u8) -> Option<u8> {
    let digit = |digit| char::from(digit).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_paths_have_one_reading() {
        for path in ["/", "/a/b", "/a/b/", "/pkg.Service/Method", "*", "", "/a.b/c..d", "/ä"] {
            assert_eq!(readings(path), [], "{path}");
        }
        assert_eq!(readings("/.well-known/x"), [], "no dot segment");
    }

    #[test]
    fn what_servers_make_of_it_is_among_the_readings() {
        for (path, read) in [
            ("/%61dmin", "/admin"),
            ("/%2561dmin", "/admin"),
            ("//admin", "/admin"),
            ("/./admin", "/admin"),
            ("/x/../admin", "/admin"),
            ("/x/%2e%2E/admin", "/admin"),
            ("/x%2f..%2fadmin", "/admin"),
            ("/x/..;/admin", "/admin"),
            ("/admin;x=1", "/admin"),
            ("/;x/admin", "/admin"),
            ("/x/..\\admin", "/admin"),
            ("/x/%5c../admin", "/admin"),
            ("/admin%00.html", "/admin"),
            ("/x/../admin//..", "/admin/"),
            ("/x\\y/../admin", "/admin"),
            ("/y;%2fz/../%61dmin", "/admin"),
            ("/../../admin", "/admin"),
            ("/admin/.", "/admin/"),
            ("/admin//", "/admin/"),
            ("/admin%2f/.", "/admin//"),
            ("//x/../admin", "/x/../admin"),
            ("//a//..", "/a/"),
        ] {
            assert!(readings(path).iter().any(|r| r.path == read), "{path}: {:?}", readings(path));
        }
    }

    #[test]
    fn letters_alone_are_told_from_segments() {
        let all = readings("/a%20b");
        assert_eq!(all, [Reading { path: "/a b".into(), other_segments: false }]);
        assert!(readings("/a/../b").iter().any(|r| r.path == "/b" && r.other_segments));
    }

    /// Servers, as each is known to read paths; none of them shares a line with what is tested.
    mod servers {
        pub(super) fn decoded(path: &str) -> String {
            let (mut out, mut rest) = (vec![], path);
            while let Some(c) = rest.chars().next() {
                let code = rest.get(1..3).filter(|_| c == '%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
                let signed = rest.get(1..2).is_some_and(|d| d == "+" || d == "-");
                match code.filter(|_| !signed) {
                    Some(byte) => {
                        out.push(byte);
                        rest = &rest[3..];
                    }
                    None => {
                        out.extend(c.to_string().bytes());
                        rest = &rest[c.len_utf8()..];
                    }
                }
            }
            String::from_utf8_lossy(&out).into_owned()
        }

        pub(super) fn merged(path: &str) -> String {
            let mut out = path.to_owned();
            while out.contains("//") {
                out = out.replace("//", "/");
            }
            out
        }

        /// RFC 3986 5.2.4, step by step.
        pub(super) fn without_dots(path: &str) -> String {
            let (mut input, mut out) = (path.to_owned(), String::new());
            while !input.is_empty() {
                if let Some(rest) = input.strip_prefix("/./") {
                    input = format!("/{rest}");
                } else if input == "/." {
                    input = "/".to_owned();
                } else if let Some(rest) = input.strip_prefix("/../") {
                    input = format!("/{rest}");
                    out.truncate(out.rfind('/').unwrap_or(0));
                } else if input == "/.." {
                    input = "/".to_owned();
                    out.truncate(out.rfind('/').unwrap_or(0));
                } else {
                    let end = input[1..].find('/').map_or(input.len(), |at| at + 1);
                    out.push_str(&input[..end]);
                    input = input[end..].to_owned();
                }
            }
            out
        }

        pub(super) fn without_parameters(path: &str) -> String {
            let cut: Vec<&str> = path.split('/').map(|s| s.split(';').next().unwrap()).collect();
            cut.join("/")
        }

        pub(super) fn slashed(path: &str) -> String {
            path.replace('\\', "/")
        }

        pub(super) fn until_nul(path: &str) -> String {
            path.split('\0').next().unwrap().to_owned()
        }
    }

    type Step = fn(&str) -> String;

    /// What well-known servers do to a path before they look for what is meant, as steps.
    const SERVERS: &[(&str, &[Step])] = &[
        ("by the RFC", &[servers::without_dots]),
        ("nginx", &[servers::decoded, servers::merged, servers::without_dots]),
        ("merging behind the dots", &[servers::decoded, servers::without_dots, servers::merged]),
        ("Go", &[servers::decoded, servers::merged, servers::without_dots]),
        ("Tomcat", &[servers::without_parameters, servers::decoded, servers::without_dots, servers::merged]),
        ("of parameters behind escapes", &[servers::decoded, servers::without_parameters, servers::without_dots]),
        ("IIS", &[servers::decoded, servers::slashed, servers::without_dots]),
        ("decoding twice", &[servers::decoded, servers::decoded, servers::without_dots]),
        ("in C", &[servers::decoded, servers::until_nul, servers::without_dots]),
        ("only decoding", &[servers::decoded]),
        ("only merging", &[servers::merged]),
    ];

    proptest! {
        #[test]
        fn any_path_has_few_readings(path in "[/.%;a-f0-9\\\\]{0,200}") {
            // By the loops that make them; what clients send by accident has a few.
            prop_assert!(readings(&path).len() <= 252);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Whatever a server makes of a path, it was looked at.
        #[test]
        fn no_server_reads_what_was_not_looked_at(path in "/(a|b|/|\\.|\\.\\.|%2e|%2f|%2F|%25|%5c|%00|;|;x=1|\\\\|%61|%){0,8}") {
            for (server, steps) in SERVERS {
                let read = steps.iter().fold(path.clone(), |path, step| step(&path));
                let known = read == path || readings(&path).iter().any(|r| r.path == read);
                prop_assert!(known, "{} reads {:?} as {:?}, which is none of {:?}", server, path, read, readings(&path));
            }
        }
    }
}
