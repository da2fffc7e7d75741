//! `cargo xtask test`: everything that must hold, in the order in which it fails soonest.

use crate::{cargo, demo, foreign, tidy, tools};
use std::time::Instant;

pub(crate) fn run(filter: Option<&str>) -> anyhow::Result<()> {
    let found = tools::ensure(tools::TEST)?;
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
            others = Some(foreign::ensure()?);
            Ok(())
        })?;
        // The suites start the programs of the mesh, which cargo builds for tests of their own package only.
        phase("build", &mut || demo::build(&[]))?;
        phase("tests", &mut || {
            let mut command = cargo();
            command.args(["test", "--workspace", "--no-fail-fast"]).args(filter);
            command.envs(others.as_ref().map(|folder| ("WEFT_TOOLS", folder)));
            crate::run(found.apply(&mut command))
        })
    })();
    eprintln!("xtask: {}", report.join(", "));
    done
}
