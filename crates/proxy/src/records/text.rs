//! A text of bounded length without an allocation.

/// At most `N` bytes (up to 255); what does not fit is cut off.
#[derive(Clone, Copy)]
pub(super) struct Text<const N: usize> {
    len: u8,
    cut: bool,
    bytes: [u8; N],
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self { len: 0, cut: false, bytes: [0; N] }
    }
}

impl<const N: usize> Text<N> {
    pub(super) fn set(&mut self, text: &str) {
        let len = text.floor_char_boundary(N.min(255));
        self.cut = len < text.len();
        // Fits: not more than N and 255.
        self.len = len as u8;
        for (to, from) in self.bytes.iter_mut().zip(text.as_bytes().get(..len).unwrap_or_default()) {
            *to = *from;
        }
    }

    pub(super) fn as_str(&self) -> &str {
        // Cut at the boundary of a character, so it is UTF-8.
        std::str::from_utf8(self.bytes.get(..usize::from(self.len)).unwrap_or_default()).unwrap_or_default()
    }

    /// With an ellipsis where something is missing.
    pub(super) fn shown(&self) -> String {
        format!("{}{}", self.as_str(), if self.cut { "…" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_between_characters() {
        let mut text = Text::<4>::default();
        for (given, kept, shown) in [
            ("", "", ""),
            ("abcd", "abcd", "abcd"),
            ("abcde", "abcd", "abcd…"),
            ("abcé", "abc", "abc…"),
            ("é", "é", "é"),
        ] {
            text.set(given);
            assert_eq!((text.as_str(), text.shown().as_str()), (kept, shown), "{given}");
        }
    }
}
