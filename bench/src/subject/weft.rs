//! weft-proxy as a pair, with a control plane beside each that answers for the origin alone.

use super::Pair;
use crate::{lab::Lab, load::Work};
use std::path::Path;

pub(crate) fn start(_lab: &Lab, _work: Work) -> anyhow::Result<Pair> {
    anyhow::bail!("not wired yet")
}

pub(crate) fn serve_control(_work: Work, _dir: &Path, _name: &str) -> anyhow::Result<()> {
    anyhow::bail!("not wired yet")
}
