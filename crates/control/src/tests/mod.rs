//! The whole control plane over real sockets: a fake API server on one side, `wire`'s clients over mTLS on the other.

mod answers;
mod certificates;
mod connections;
mod diagnostics;
mod external;
mod identity;
mod injector;
mod kubernetes;
mod lab;
mod places;
mod steps;
mod webhook;
