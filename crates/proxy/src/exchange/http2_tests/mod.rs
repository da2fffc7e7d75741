//! Exchanges that touch HTTP/2, on loopback: a real client, a connection that this proxy serves, a direction that decides
//! what the test says, and a real server.

mod again;
mod attacks;
mod costs;
mod course;
mod endings;
pub(super) mod fake;
mod from_http1;
mod keepalive;
mod refusals;
mod resets;
mod to_http1;
mod to_http2;
