//! `weft down`.

use super::client;
use crate::print;
use std::{path::PathBuf, process::ExitCode};

pub(crate) async fn run(state: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    client(state)?.down().await?;
    print::error("the mesh has ended");
    Ok(ExitCode::SUCCESS)
}
