//! The HTTP/1 codec.
