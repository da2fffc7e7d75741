//! `cargo xtask image`: packs the images of the mesh without a container engine: what goes in ([`contents`], [`libraries`]), as a layer
//! ([`tar`]), as an image ([`oci`]).

mod contents;
mod libraries;
pub(crate) mod oci;
pub(crate) mod tar;

use crate::{demo, dist, target_dir, tools};
use anyhow::Context;
use clap::Args;
use std::{fs, path::PathBuf};

#[derive(Args)]
pub(crate) struct Options {
    /// Stands in front of the images' names: `registry.example/mesh` gives `registry.example/mesh/weft/proxy`.
    #[arg(long)]
    registry: Option<String>,
    /// The tag of all images.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// What cargo builds: dist is what is shipped, dev what the tests have built already.
    #[arg(long, default_value = "dist")]
    profile: String,
    /// Packs the programs as they are found.
    #[arg(long)]
    no_build: bool,
    /// Keeps each image's only layer beside it, for those who build with a Dockerfile.
    #[arg(long)]
    layers: bool,
    /// Where the archives go; without it, `images` in the target folder.
    #[arg(long)]
    into: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let found = tools::ensure(tools::IMAGE)?;
    if !options.no_build {
        match options.profile.as_str() {
            "dist" => dist::all()?,
            other => demo::build(&["--profile", other])?,
        }
    }
    let target = target_dir()?;
    let built = target.join(if options.profile == "dev" { "debug" } else { &options.profile });
    let into = options.into.clone().unwrap_or_else(|| target.join("images"));
    fs::create_dir_all(&into).with_context(|| format!("creating {}", into.display()))?;
    let stripped = into.join("stripped");
    let prefix = options.registry.as_ref().map(|registry| format!("{registry}/")).unwrap_or_default();
    for content in contents::ALL {
        let image = oci::Image {
            name: format!("{prefix}weft/{}:{}", content.name, options.tag),
            entries: content.entries(&built, &stripped, &found)?,
            config: content.config(),
        };
        let file = into.join(format!("{}.tar", content.name));
        image.write(&file, if options.layers { oci::Form::OciBesideLayer } else { oci::Form::Oci })?;
        eprintln!("xtask: {} in {} ({} MB)", image.name, file.display(), fs::metadata(&file)?.len() / 1_000_000);
    }
    fs::remove_dir_all(&stripped).context("removing the copies without symbols")
}
