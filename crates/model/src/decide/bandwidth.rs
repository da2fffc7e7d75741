//! How large a window of flow control lets a connection run at its speed.
//!
//! Where nearly all of the window came in within one round trip, the sender may have waited for it: the window grows to twice
//! what came. It never shrinks, so that a pause costs nothing.

/// The largest window, in bytes, that a connection grows to.
pub const MAX_WINDOW: u32 = 16 << 20;

/// The window of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(u32);

impl Window {
    pub fn new(bytes: u32) -> Self {
        Self(bytes)
    }

    /// `bytes` came within one round trip. Returns the new size if it grows.
    pub fn sample(&mut self, bytes: u64) -> Option<u32> {
        let nearly = u64::from(self.0) * 2 / 3;
        let wanted = u32::try_from(bytes.saturating_mul(2)).unwrap_or(u32::MAX).min(MAX_WINDOW);
        let grows = bytes >= nearly && wanted > self.0;
        grows.then(|| {
            self.0 = wanted;
            wanted
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_was_filled_grows_and_stays() {
        let mut window = Window::new(65_535);
        assert_eq!(window.sample(40_000), None, "it was not what the sender waited for");
        assert_eq!(window.sample(65_535), Some(131_070));
        assert_eq!(window.sample(70_000), None);
        assert_eq!(window.sample(0), None);
        assert_eq!(window.sample(131_070), Some(262_140));
        assert_eq!(window.sample(u64::MAX), Some(MAX_WINDOW));
        assert_eq!(window.sample(u64::MAX), None);
    }
}
