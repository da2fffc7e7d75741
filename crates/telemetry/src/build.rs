//! Which build of weft this is.

use crate::{Labels, Registry, Shard};

/// Version, commit and profile of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    pub version: &'static str,
    /// Empty when the build did not say (`WEFT_GIT_SHA`).
    pub git_sha: &'static str,
    pub profile: &'static str,
}

/// The build that is running.
pub fn build_info() -> BuildInfo {
    BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        git_sha: option_env!("WEFT_GIT_SHA").unwrap_or_default(),
        profile: if cfg!(debug_assertions) { "debug" } else { "release" },
    }
}

/// Adds `proxy_build_info`, always 1: a level, so that a process that takes over adds nothing of the old one to it.
pub fn register(registry: &Registry) {
    let build = build_info();
    let labels = Labels::new()
        .with("version", build.version)
        .with("git_sha", build.git_sha)
        .with("profile", build.profile)
        .with("vendor", "weft");
    registry.level("proxy_build_info", "Which build of the proxy is running").pinned(Shard::ADMIN, &labels).set(1.0);
}
