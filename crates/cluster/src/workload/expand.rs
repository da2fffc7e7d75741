//! `$(NAME)` in commands, arguments and values.

/// Replaces `$(NAME)` by the variable's value, `$$` by `$`, and leaves an unknown reference as it stands.
pub fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let reference = rest.strip_prefix('(').and_then(|r| r.split_once(')'));
        match reference.and_then(|(name, after)| Some((value_of(env, name)?, after))) {
            Some((value, after)) => {
                out.push_str(value);
                rest = after;
            }
            None => out.push('$'),
        }
    }
    out.push_str(rest);
    out
}

/// The last of several with one name counts.
fn value_of<'e>(env: &'e [(String, String)], name: &str) -> Option<&'e str> {
    env.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_follow_kubernetes() {
        let env = [("A", "1"), ("B", "$(A)"), ("A", "2")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        for (text, expanded) in [
            ("$(A)", "2"),
            ("x$(A)y$(A)", "x2y2"),
            ("$(B)", "$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$2"),
            ("$(NONE)", "$(NONE)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$(", "$("),
            ("ö$(A)ö", "ö2ö"),
        ] {
            assert_eq!(expand(text, &env), expanded, "{text}");
        }
    }
}
