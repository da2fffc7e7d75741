//! Every message survives the way to the wire and back ([`roundtrip`]), and none survives the loss of what it needs
//! ([`refusals`]).

mod any;
mod policies;
mod refusals;
mod roundtrip;
mod tap;
