//! How else a server may read a path than letter by letter.
//!
//! Proxies forward paths as they came, and servers undo escapes, drop dots, doubled slashes and parameters, each in its own way.
//! A policy that speaks of paths must hold for what the server will make of one.

/// Another reading of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reading {
    pub path: String,
    /// Not only letters were written otherwise: segments came, went, or were cut.
    pub other_segments: bool,
}

/// How often escapes are undone: some servers do it twice.
const DECODINGS: usize = 2;

/// The readings of `path` that differ from it. None for a plain path, which is found out without allocating.
pub fn readings(path: &str) -> Vec<Reading> {
    let suspect =
        |pair: &[u8]| matches!(pair, [b'/', b'/' | b'.'] | [b'%' | b';' | b'\\', _] | [_, b'%' | b';' | b'\\']);
    if !path.as_bytes().windows(2).any(suspect) {
        return vec![];
    }
    let mut readings: Vec<Reading> = vec![];
    let mut add = |read: String| {
        if read != path && readings.iter().all(|r| r.path != read) {
            let other_segments = segments(&read) != segments(path);
            readings.push(Reading { path: read, other_segments });
        }
    };
    let mut begun = vec![path.to_owned()];
    if path.contains(';') {
        // Some take parameters off before they undo escapes.
        begun.push(without_parameters(path));
    }
    for mut decoded in begun {
        for round in 0..=DECODINGS {
            for whole in [decoded.as_str(), decoded.split('\0').next().unwrap_or_default()] {
                add(whole.to_owned());
                // To some a backslash is a slash.
                for slashed in [whole.to_owned(), whole.replace('\\', "/")] {
                    for cut in [without_parameters(&slashed), slashed] {
                        add(resolved(&cut, Empty::Dropped));
                        add(resolved(&cut, Empty::Kept));
                    }
                }
            }
            if round < DECODINGS {
                decoded = undone(&decoded);
            }
        }
    }
    readings
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
    let mut open = false;
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        open = matches!(segment, "" | "." | "..");
        match segment {
            "." => {}
            "" if empty == Empty::Dropped => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    // What ends with a kept empty segment ends in a slash already.
    let closed = kept.last().is_some_and(|last| last.is_empty());
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if open && !closed || out.is_empty() {
        out.push('/');
    }
    out
}

/// Each segment up to its first `;`.
fn without_parameters(path: &str) -> String {
    let cut: Vec<&str> = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect();
    cut.join("/")
}

/// `%41` is `A`. Bytes that are no text stand for nothing that a route could name.
fn undone(path: &str) -> String {
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

    proptest! {
        #[test]
        fn any_path_has_few_readings(path in "[/.%;a-f0-9\\\\]{0,200}") {
            prop_assert!(readings(&path).len() <= 40);
        }
    }
}
