//! How many bytes a peer may send on a whole connection: enough for all the streams that are open.
//!
//! What a slow reader leaves unread counts against its stream and against the connection. With a fixed window for the connection a
//! few such readers (16 with the defaults) would hold up everybody who shares it. So that window follows the number of streams:
//! whoever does not read holds up himself alone, and what all hold is bounded by streams times a stream's window.

use super::settings::MAX_WINDOW;

#[derive(Debug)]
pub(super) struct Window {
    /// Of each stream.
    stream: u32,
    /// Of the connection. Never taken back: streams that come later need it as well.
    connection: u32,
}

impl Window {
    pub(super) fn new(stream: u32, connection: u32) -> Self {
        Self { stream, connection }
    }

    /// The connection's new window, if so many streams need a larger one: twice what they may hold, so that as much is left for
    /// the next as the stuck ones have taken.
    pub(super) fn cover(&mut self, streams: usize) -> Option<u32> {
        let needed = u64::from(self.stream).saturating_mul(2).saturating_mul(streams as u64).min(MAX_WINDOW.into());
        if needed <= u64::from(self.connection) {
            return None;
        }
        // In large steps: each is a frame.
        self.connection = u32::try_from(needed.next_power_of_two()).unwrap_or(MAX_WINDOW).min(MAX_WINDOW);
        Some(self.connection)
    }

    /// Streams have a larger window from now on. The connection's.
    pub(super) fn grow(&mut self, stream: u32) -> u32 {
        self.stream = stream;
        self.connection = self.connection.max(stream);
        self.connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connections_window_covers_its_streams_and_keeps_within_31_bits() {
        let mut window = Window::new(65_535, 1 << 20);
        assert_eq!([0, 1, 8].map(|streams| window.cover(streams)), [None; 3], "a few fit as it is");
        assert_eq!(window.cover(9), Some(1 << 21));
        assert_eq!(window.cover(16), None);
        assert_eq!(window.cover(1000), Some(1 << 27));
        assert_eq!(window.cover(1), None, "never less");
        assert_eq!(window.grow(1 << 28), 1 << 28);
        assert_eq!(window.cover(1), Some(1 << 29));
        assert_eq!(window.cover(usize::MAX), Some(MAX_WINDOW));
        assert_eq!(window.cover(usize::MAX), None);
    }
}
