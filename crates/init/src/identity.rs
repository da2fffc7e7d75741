//! `linkerd2-proxy-identity`: the entrypoint of the proxy's image, which becomes the proxy. Key and signing request are made by the proxy
//! itself, which also checks its environment and says what is wrong with it.

use anyhow::Context;
use std::{env, ffi::OsString, os::unix::process::CommandExt, process::Command};

/// Beside this program, as the image has it.
const PROXY: &str = "linkerd2-proxy";

pub(crate) fn run(arguments: &[OsString]) -> anyhow::Result<()> {
    let proxy = env::current_exe().context("finding this program's folder")?.with_file_name(PROXY);
    let error = Command::new(&proxy).args(arguments.iter().skip(1)).exec();
    Err(error).with_context(|| format!("starting {}", proxy.display()))
}
