//! `cargo xtask soak`: what takes too long for the test command.

use crate::{cargo, demo, run as run_command, tools};

pub(crate) fn run(minutes: u64) -> anyhow::Result<()> {
    let found = tools::ensure(tools::TEST)?;
    demo::build(&["--release"])?;
    let mut command = cargo();
    command
        .args(["test", "--release", "--package", "weft-local", "--test", "mesh", "--", "--ignored", "--nocapture"])
        .env("WEFT_SOAK_MINUTES", minutes.to_string());
    run_command(found.apply(&mut command))
}
