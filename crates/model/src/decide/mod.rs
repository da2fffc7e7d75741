//! The decisions of the mesh as pure functions: the proxies, the servers, the CLI and the tests call the same ones.

pub mod admit;
pub mod authorize;
pub mod backoff;
pub mod bandwidth;
pub mod breaker;
pub mod cidr;
pub mod deadline;
pub mod field;
pub mod filter;
pub mod forwarded;
pub mod host;
pub mod lease;
pub mod lifetime;
pub mod path;
pub mod pick;
pub mod profile;
pub mod rate_limit;
pub mod retry;
pub mod retry_budget;
pub mod route;
pub mod server_first;
pub mod tap;
pub mod terms;
