//! Label sets as text, rendered once.

use std::fmt::{self, Write};

/// The longest label value in bytes; the rest is cut off.
const MAX_VALUE: usize = 2048;

/// Labels in the form in which a scrape shows them: `direction="outbound",tls="true"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(String);

impl Labels {
    pub const fn new() -> Self {
        Self(String::new())
    }

    /// These and one more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(name);
        self.0.push_str("=\"");
        // Writing to a string cannot fail.
        let _ = write!(Escaped { out: &mut self.0, room: MAX_VALUE }, "{value}");
        self.0.push('"');
        self
    }

    /// These, then `others`.
    #[must_use]
    pub fn join(mut self, others: &Self) -> Self {
        if !self.0.is_empty() && !others.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&others.0);
        self
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

struct Escaped<'a> {
    out: &'a mut String,
    room: usize,
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let Some(room) = self.room.checked_sub(c.len_utf8()) else {
                self.room = 0;
                return Ok(());
            };
            self.room = room;
            match c {
                '\\' => self.out.push_str("\\\\"),
                '"' => self.out.push_str("\\\""),
                '\n' => self.out.push_str("\\n"),
                c => self.out.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_escaped_and_joined() {
        let a = Labels::new().with("a", "x\"y\\z\nw").with("n", 7);
        assert_eq!(a.as_str(), r#"a="x\"y\\z\nw",n="7""#);
        assert_eq!(Labels::new().join(&a), a);
        assert_eq!(a.clone().join(&Labels::new()), a);
        assert_eq!(Labels::new().with("b", "").join(&a).as_str(), format!(r#"b="",{}"#, a.as_str()));
    }

    proptest! {
        #[test]
        fn a_value_never_ends_its_quotes_or_its_line(value in any::<String>()) {
            let labels = Labels::new().with("v", &value);
            let inside = labels.as_str().strip_prefix("v=\"").unwrap().strip_suffix('"').unwrap();
            let mut chars = inside.chars();
            while let Some(c) = chars.next() {
                prop_assert!(c != '"' && c != '\n');
                if c == '\\' {
                    prop_assert!(matches!(chars.next(), Some('\\' | '"' | 'n')));
                }
            }
        }
    }
}
