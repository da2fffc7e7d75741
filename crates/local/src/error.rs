//! Why a mesh does not start or an answer does not come.

use std::{io, path::PathBuf};

/// The text of each names what to do, where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("another mesh runs in {} (pid {pid}); end it with `weft down`, or name another folder with --state", state_dir.display())]
    AlreadyRunning { state_dir: PathBuf, pid: String },
    #[error("no mesh runs in {}; start one with `weft up` or `weft demo`", state_dir.display())]
    NotRunning { state_dir: PathBuf },
    /// What is wrong with each manifest is in the text.
    #[error("there is nothing to run:\n{0}")]
    NothingToRun(String),
    /// The same.
    #[error(
        "the mesh is not started, since it would let through what the manifests keep from going: this says who may call whom, or what may leave, or may have, and is refused\n{0}\nmend it, or take it out of the manifests"
    )]
    AccessRefused(String),
    #[error(
        "the state folder {} was removed or replaced while its mesh ran, so that no command reached the mesh any more: it has ended", state_dir.display()
    )]
    StateFolderGone { state_dir: PathBuf },
    #[error("neither XDG_STATE_HOME nor HOME is set; name a folder with --state")]
    NoStateFolder,
    #[error("{program} was not found beside weft nor in PATH")]
    NoProgram { program: &'static str },
    #[error("the kernel forbids user namespaces: {remedy}")]
    NoUserNamespaces { remedy: String },
    #[error(
        "nft was not found; install nftables (Debian: apt-get install nftables) or name its folder in WEFT_TOOLS_PATH"
    )]
    NoNft,
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
    #[error("certificate authority: {0}")]
    Ca(#[from] weft_control::ca::Error),
    /// The namespaces' own process ended or does not answer.
    #[error("the mesh's node process {0}")]
    Node(String),
    #[error("{0}")]
    Refused(String),
    #[error("the mesh answered what this version of weft does not understand: {0}")]
    Answer(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |error| Self::Io { what: what.into(), error }
    }
}
