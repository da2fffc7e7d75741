//! HTTP/2 with prior knowledge, by hyper.
