//! Fakes for the neighbours of a proxy, in process and on port 0: a control plane, a certificate authority, origins and clients;
//! and the real things that a suite may ask for: pods in namespaces, a Kubernetes. [`traffic`] is what two suites prove alike.
//!
//! For tests only: nothing that ships depends on this. Fakes record what they saw; they never judge it.

#![forbid(unsafe_code)]

pub mod api_server;
pub mod ca;
pub mod collector;
pub mod control;
pub mod exposition;
pub mod folder;
pub mod frames;
pub mod http1;
pub mod http2;
pub mod kubernetes;
pub mod lab;
pub mod policy;
pub mod spire;
pub mod traffic;
