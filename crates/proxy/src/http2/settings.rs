//! What a connection announces and allows, from configuration and from what the control plane says about an endpoint.
//!
//! Every limit has a value here: what is not configured is bounded all the same.

use crate::{config, http1::limits};
use std::time::Duration;
use weft_model::endpoint::{Http2KeepAlive, Http2Params};

/// Streams that a client may have open at once.
pub(super) const MAX_CONCURRENT_STREAMS: u32 = 1000;
/// Streams that are opened before the server has said how many it allows.
pub(super) const COLD_STREAMS: usize = 100;
/// Bytes of one decoded head or trailer, counted as RFC 9113 6.5.2 does: what fits in an HTTP/1 head fits here, with what the
/// mesh adds.
pub(crate) const MAX_HEADER_LIST_SIZE: u32 = (limits::MAX_HEAD + 32 * limits::MAX_FIELDS + 4096) as u32;
/// The same of a request's trailers, which may be half as large: see [`unexpanded`].
pub(crate) const MAX_REQUEST_TRAILERS: u32 = MAX_HEADER_LIST_SIZE / 2;
/// What `h2` takes of a server. Of trailers beyond its own limit it drops fields without a word (0.4.20, proto/streams/recv.rs): that
/// limit lies where what is too large for us has been refused here.
const RECEIVED_HEADER_LIST: u32 = 2 * MAX_HEADER_LIST_SIZE;
/// Bytes.
const FRAME_SIZE: u32 = 16 * 1024;
/// Bytes of one stream that wait for the socket, however wide the peer opens its windows: with as much of what was read behind
/// them, this times [`MAX_CONCURRENT_STREAMS`] is what a client that does not read holds with one connection, or one that uploads to a
/// server that does not.
const SEND_BUFFER: u32 = 64 * 1024;
/// Streams that were reset before anybody looked at them. The gate bounds their rate; this bounds their number.
const PENDING_ACCEPT_RESET_STREAMS: u32 = 1024;
/// Streams that were reset here and are remembered, so that what is still on its way to them is dropped without a word.
pub(super) const RESET_STREAMS: usize = 1000;
/// How long what was on its way may take.
pub(super) const RESET_MEMORY: Duration = Duration::from_secs(2);
/// What small DATA frames may cost that nobody has read, in bytes. The exchanges read them as they come, also where they cannot
/// be passed on, so that this bounds what comes in between.
pub(super) const SMALL_FRAMES: usize = 4 << 20;
const STREAM_WINDOW: u32 = 65_535;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Windows have 31 bits.
pub(super) const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Frame sizes have 24 bits and a floor.
const FRAME_SIZES: std::ops::RangeInclusive<u32> = FRAME_SIZE..=(1 << 24) - 1;
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Settings of the connections that this proxy accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerSettings {
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    pub(crate) max_concurrent_streams: u32,
    pub(crate) max_frame_size: u32,
    pub(crate) max_header_list_size: u32,
    pub(crate) max_pending_accept_reset_streams: u32,
    pub(crate) max_send_buffer: u32,
    pub(crate) keep_alive: Option<Http2KeepAlive>,
    /// Windows grow with the connection's speed.
    pub(crate) adaptive: bool,
}

/// Settings of the connection to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientSettings {
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    pub(crate) max_concurrent_reset_streams: Option<u32>,
    pub(crate) max_frame_size: u32,
    pub(crate) max_header_list_size: u32,
    /// Bytes of one encoded header block over all of its frames.
    pub(crate) header_block: u32,
    pub(crate) max_send_buffer: u32,
    pub(crate) keep_alive: Option<Http2KeepAlive>,
    /// Windows grow with the connection's speed.
    pub(crate) adaptive: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self::new(&config::Http2Server::default())
    }
}

impl ServerSettings {
    pub(crate) fn new(config: &config::Http2Server) -> Self {
        let config::Http2Server {
            windows,
            keep_alive_interval,
            keep_alive_timeout,
            max_concurrent_streams,
            max_frame_size,
            max_header_list_size,
            max_pending_accept_reset_streams,
            max_send_buf_size,
            adaptive,
        } = *config;
        let (stream_window, connection_window) = windows.unwrap_or((STREAM_WINDOW, CONNECTION_WINDOW));
        Self {
            stream_window: stream_window.min(MAX_WINDOW),
            connection_window: connection_window.min(MAX_WINDOW),
            max_concurrent_streams: max_concurrent_streams.unwrap_or(MAX_CONCURRENT_STREAMS),
            max_frame_size: frame_size(max_frame_size),
            max_header_list_size: max_header_list_size.unwrap_or(MAX_HEADER_LIST_SIZE),
            max_pending_accept_reset_streams: max_pending_accept_reset_streams.unwrap_or(PENDING_ACCEPT_RESET_STREAMS),
            max_send_buffer: max_send_buf_size.unwrap_or(SEND_BUFFER),
            keep_alive: keep_alive_interval.map(|interval| Http2KeepAlive {
                interval,
                timeout: keep_alive_timeout.unwrap_or(KEEP_ALIVE_TIMEOUT),
                while_idle: true,
            }),
            adaptive,
        }
    }
}

impl ClientSettings {
    /// The proxy's own, and over them, field by field, what the control plane says about the endpoint.
    pub(crate) fn new(config: &config::Http2Client, params: &Http2Params) -> Self {
        let Http2Params {
            connection_window,
            stream_window,
            keep_alive,
            max_concurrent_reset_streams,
            max_frame_size,
            max_send_buf_size,
            adaptive_window,
        } = *params;
        Self {
            stream_window: stream_window.unwrap_or(config.stream_window).min(MAX_WINDOW),
            connection_window: connection_window.unwrap_or(config.connection_window).min(MAX_WINDOW),
            max_concurrent_reset_streams,
            max_frame_size: frame_size(max_frame_size),
            max_header_list_size: RECEIVED_HEADER_LIST,
            header_block: unexpanded(RECEIVED_HEADER_LIST),
            max_send_buffer: max_send_buf_size.unwrap_or(SEND_BUFFER),
            keep_alive,
            adaptive: adaptive_window,
        }
    }
}

/// How long a header block may be as it comes so that no text in it is longer than `list` when it is decoded: the shortest of Huffman's
/// codes have five bits.
pub(super) const fn unexpanded(list: u32) -> u32 {
    list / 8 * 5
}

fn frame_size(configured: Option<u32>) -> u32 {
    configured.unwrap_or(FRAME_SIZE).clamp(*FRAME_SIZES.start(), *FRAME_SIZES.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_configured_is_bounded() {
        let settings = ServerSettings::default();
        assert_eq!((settings.stream_window, settings.connection_window), (65_535, 1 << 20));
        assert_eq!(settings.max_concurrent_streams, MAX_CONCURRENT_STREAMS);
        assert_eq!(settings.keep_alive, None);
    }

    #[test]
    fn an_endpoint_overrides_field_by_field() {
        let own = config::Http2Client { stream_window: 1, connection_window: 2 };
        let params = Http2Params { stream_window: Some(u32::MAX), max_frame_size: Some(1), ..Http2Params::default() };
        let settings = ClientSettings::new(&own, &params);
        assert_eq!((settings.stream_window, settings.connection_window), (MAX_WINDOW, 2));
        assert_eq!(settings.max_frame_size, FRAME_SIZE, "smaller frames than the standard's are invalid");
    }
}
