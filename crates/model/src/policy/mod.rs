//! How traffic is treated: on the server's side ([`inbound`]), on the client's side ([`outbound`]), and the matches and
//! filters that both use ([`route`]).

pub mod inbound;
pub mod outbound;
pub mod route;
