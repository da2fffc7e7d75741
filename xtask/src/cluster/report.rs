//! `cargo xtask cluster report`: the life of a mesh in a cluster, of programs as they are shipped; writes `docs/cluster-report.md`.

use crate::{cargo, demo, dist, run as run_command, tools};
use clap::Args;

/// Which test lives it.
const LIFE: &str = "life::a_mesh_is_installed_used_and_taken_away";

#[derive(Args)]
pub(crate) struct Options {
    /// Which programs: dist is what is shipped, dev what tests are built with.
    #[arg(long, default_value = "dist", value_parser = ["dist", "dev"])]
    profile: String,
    /// Takes the programs as they are found.
    #[arg(long)]
    no_build: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let found = tools::ensure(tools::TEST)?;
    super::prepare()?;
    if !options.no_build {
        match options.profile.as_str() {
            "dist" => dist::all()?,
            _ => demo::build(&[])?,
        }
    }
    let mut life = cargo();
    life.args(["test", "--workspace", "--test", "cluster", "--", "--exact", LIFE]);
    life.env("WEFT_REPORT", "1").env("WEFT_PROFILE", &options.profile);
    run_command(found.apply(&mut life))
}
