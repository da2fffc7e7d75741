//! The HTTP/2 frame gate and what glues `h2` to it.
