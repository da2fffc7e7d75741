//! `weft logs`.

use super::client;
use crate::{args, print};
use std::{io, path::PathBuf, process::ExitCode};
use weft_local::{
    Error,
    client::{LogLine, Logs, Source},
};

pub(crate) async fn run(state: Option<PathBuf>, args: args::Logs) -> anyhow::Result<ExitCode> {
    let args::Logs { name, follow, tail, proxy } = args;
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
        None => (None, name),
    };
    let source = proxy.then_some(Source::Proxy);
    let (client, asked) = (client(state)?, Logs { namespace, name, follow, tail, source });
    match client.logs(asked.clone()).await {
        Ok(mut lines) => {
            while let Some(line) = lines.recv().await {
                if show(&line).is_err() {
                    break;
                }
            }
        }
        Err(Error::NotRunning { state_dir }) => {
            let lines = client.left_logs(&asked)?;
            print::error(&format!("no mesh runs in {}; this is what was left", state_dir.display()));
            // A reader that goes away is no fault.
            let _ = lines.iter().try_for_each(show);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(line: &LogLine) -> io::Result<()> {
    let mark = match line.source {
        Source::Program => "",
        Source::Proxy => " proxy:",
        Source::Mesh => " weft:",
    };
    print::try_line(&format!("{}{mark} {}", line.pod, line.text))
}
