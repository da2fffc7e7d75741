//! `weft` as people call it: the program itself, in a home of its own, with neighbours of the test.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod away;
mod check;
mod completion;
mod diagnostics;
mod documented;
mod download;
mod inject;
mod kubeconfig;
mod lab;
mod meant;
mod policy;
mod profile;
mod prune;
