//! `cargo xtask test`: everything that must hold, in the order in which it fails soonest.

use crate::{cargo, cluster, demo, foreign, tidy, tools};
use anyhow::Context;
use clap::Args;
use std::{path::PathBuf, time::Instant};

/// Names somebody else's proxy for the mixed pairs (docs/mixed-pairs.md).
const PEER: &str = "WEFT_LINKERD2_PROXY";

#[derive(Args)]
pub(crate) struct Options {
    /// Only tests whose name holds this, without the checks before.
    filter: Option<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let found = tools::ensure(tools::TEST)?;
    let filter = options.filter.as_deref();
    // Cargo runs each suite in the folder of its package.
    let peer = std::env::var_os(PEER).map(PathBuf::from);
    let peer =
        peer.map(|file| file.canonicalize().with_context(|| format!("{PEER}: {}", file.display()))).transpose()?;
    let mut report = vec![];
    let mut phase = |name: &'static str, work: &mut dyn FnMut() -> anyhow::Result<()>| {
        eprintln!("xtask: {name}");
        let start = Instant::now();
        let done = work();
        report.push(format!("{name}: {:.1} min", start.elapsed().as_secs_f64() / 60.0));
        done
    };
    let done = (|| {
        if filter.is_none() {
            phase("format", &mut || crate::run(cargo().args(["fmt", "--all", "--check"])))?;
            phase("tidy", &mut tidy::run)?;
            phase("lints", &mut || {
                crate::run(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
            })?;
        }
        let mut others = None;
        phase("tools", &mut || {
            others = Some(foreign::ensure(foreign::TEST)?);
            Ok(())
        })?;
        if filter.is_none() {
            // Here, because nothing of cargo's is built meanwhile; with a filter the suite that needs it builds it.
            phase("kubernetes", &mut cluster::prepare)?;
        }
        // The suites start the programs of the mesh, which cargo builds for tests of their own package only.
        phase("build", &mut || demo::build(&[]))?;
        phase("tests", &mut || {
            let mut command = cargo();
            command.args(["test", "--workspace", "--no-fail-fast"]).args(filter);
            command.envs(others.as_ref().map(|folder| ("WEFT_TOOLS", folder)));
            command.envs(peer.as_ref().map(|program| (PEER, program)));
            crate::run(found.apply(&mut command))
        })
    })();
    eprintln!("xtask: {}", report.join(", "));
    done
}
