//! What is rendered for Kubernetes: values, injected objects, and their text.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod documented;
mod documents;
mod environment;
mod gateway_api;
mod inject;
mod install;
mod samples;
mod traffic;
mod upgrade;
mod values;
mod yaml;
