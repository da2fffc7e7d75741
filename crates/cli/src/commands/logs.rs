//! `weft logs`.

use super::client;
use crate::{args, print};
use std::{path::PathBuf, process::ExitCode};
use weft_local::client::{Logs, Source};

pub(crate) async fn run(state: Option<PathBuf>, args: args::Logs) -> anyhow::Result<ExitCode> {
    let args::Logs { name, follow, tail, proxy } = args;
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
        None => (None, name),
    };
    let source = proxy.then_some(Source::Proxy);
    let mut lines = client(state)?.logs(Logs { namespace, name, follow, tail, source }).await?;
    while let Some(line) = lines.recv().await {
        let mark = match line.source {
            Source::Program => "",
            Source::Proxy => " proxy:",
            Source::Mesh => " weft:",
        };
        if print::try_line(&format!("{}{mark} {}", line.pod, line.text)).is_err() {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}
