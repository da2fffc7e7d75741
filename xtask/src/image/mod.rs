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
    for content in contents::ALL {
        let image = oci::Image {
            name: options.name(content.name),
            entries: content.entries(&built, &stripped, &found)?,
            config: content.config(),
        };
        let file = into.join(format!("{}.tar", content.name));
        image.write(&file, if options.layers { oci::Form::OciBesideLayer } else { oci::Form::Oci })?;
        eprintln!("xtask: {} in {} ({} MB)", image.name, file.display(), fs::metadata(&file)?.len() / 1_000_000);
    }
    fs::remove_dir_all(&stripped).context("removing the copies without symbols")
}

impl Options {
    /// What an image is pulled by.
    fn name(&self, image: &str) -> String {
        let prefix = self.registry.as_ref().map(|registry| format!("{}/", registry.trim_end_matches('/')));
        format!("{}weft/{image}:{}", prefix.unwrap_or_default(), self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn a_registry_stands_in_front_of_every_name() {
        let names = |words: &[&str]| {
            let options = Words::parse_from([&["image", "--tag=v1"], words].concat()).options;
            contents::ALL.iter().map(|content| options.name(content.name)).collect::<Vec<_>>()
        };
        for name in ["weft/controller:v1", "weft/proxy:v1", "weft/demo:v1"] {
            assert!(names(&[]).iter().any(|known| known == name), "{name}");
        }
        for registry in ["--registry=registry.example/mesh", "--registry=registry.example/mesh/"] {
            for (name, plain) in names(&[registry]).into_iter().zip(names(&[])) {
                assert_eq!(name, format!("registry.example/mesh/{plain}"));
            }
        }
    }

    /// The name is what whoever loads the archive finds in it.
    #[test]
    fn an_archive_says_its_name() {
        let folder = std::env::temp_dir().join(format!("weft-image-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let content = contents::ALL.first().unwrap();
        let name = "registry.example/mesh/weft/controller:v1";
        let image = oci::Image { name: name.to_owned(), entries: vec![], config: content.config() };
        let file = folder.join("image.tar");
        image.write(&file, oci::Form::Oci).unwrap();
        let archive = fs::read(&file).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(String::from_utf8_lossy(&archive).contains(&format!("\"{name}\"")));
    }
}
