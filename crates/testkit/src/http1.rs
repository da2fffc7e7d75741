//! HTTP/1 by hand: an origin and a client that see every byte.
