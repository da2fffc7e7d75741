//! What a peer may send before it is refused.

/// The largest head, in bytes, of a request or a response.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// The most header lines of a head.
pub(crate) const MAX_FIELDS: usize = 128;
/// The longest line with a chunk's size, extensions included.
pub(crate) const MAX_CHUNK_LINE: usize = 256;
/// The most bytes of extensions in one body.
pub(crate) const MAX_EXTENSIONS: usize = 16 * 1024;
/// The most bytes of chunk sizes, extensions and trailers of a request that are kept for another attempt.
pub(crate) const MAX_FRAMING: usize = MAX_EXTENSIONS + MAX_TRAILERS;
/// The largest trailer section, in bytes; how many lines it has does not matter. Onto HTTP/2 it must fit besides as a header
/// list, and from there trailers come as large as those may be.
pub(crate) const MAX_TRAILERS: usize = 32 * 1024;
/// The most interim responses (1xx) to one request.
pub(crate) const MAX_INTERIM: usize = 32;
