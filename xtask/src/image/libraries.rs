//! Which libraries programs link, as the machine's own loader finds them.

use crate::tools::Found;
use anyhow::{Context, bail};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

/// The loader and every library of these programs, once each.
pub(super) fn of(programs: &[PathBuf], found: &Found) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut all = BTreeSet::new();
    for program in programs {
        let output = found.apply(Command::new("ldd").arg(program)).output().context("starting ldd")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains("not found") {
            bail!("{} links a library that is not here:\n{text}", program.display());
        }
        all.extend(named(&text));
    }
    Ok(all)
}

/// `libc.so.6 => /lib/…/libc.so.6 (0x…)`, `/lib64/ld-… (0x…)`; what the kernel itself brings along has no path.
fn named(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let named = line.split_once(" => ").map_or(line, |(_, path)| path);
        let path = Path::new(named.split(" (").next()?.trim());
        path.is_absolute().then(|| path.to_owned())
    };
    text.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_each_kind_of_line() {
        let text = "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/a/libc.so.6 (0x7f)\n\t/lib64/ld.so.2 (0x7f)\n\tstatically linked\n";
        assert_eq!(named(text), [Path::new("/lib/a/libc.so.6"), Path::new("/lib64/ld.so.2")]);
    }
}
