//! `weft profile`: a ServiceProfile on standard output, for `kubectl apply -f -`.

use super::{meant, print_objects};
use crate::{
    args::{ManifestFormat, Profile},
    given, print,
};
use anyhow::{anyhow, bail};
use std::{path::Path, process::ExitCode};
use weft_cluster::{
    install::told,
    manifest,
    service_profile::{Subject, open_api, proto, template},
};
use weft_model::names::CLUSTER_DOMAIN;

pub(crate) async fn run(folder: &meant::Folder, args: Profile) -> anyhow::Result<ExitCode> {
    let (mut namespace, mut domain) = ("default".to_owned(), CLUSTER_DOMAIN.to_owned());
    if !args.ignore_cluster {
        meant::cluster_alone(folder, &args.to).await?;
        let cluster = super::cluster(&args.to).await?;
        cluster.own_namespace().clone_into(&mut namespace);
        let values = told(&cluster, &args.to.linkerd_namespace).await?.unwrap_or_default();
        if let Some(of) = values["clusterDomain"].as_str().filter(|of| !of.is_empty()) {
            of.clone_into(&mut domain);
        }
    }
    let namespace = args.namespace.unwrap_or(namespace);
    let of = Subject { service: &args.service, namespace: &namespace, domain: &domain };
    of.check()?;
    let (file, made) = match (&args.open_api, &args.proto) {
        (Some(file), _) => (file, open_api(&text(file)?, of)),
        (None, Some(file)) => (file, proto(&text(file)?, of)),
        // One of the three is given.
        (None, None) => {
            if args.output == ManifestFormat::Json {
                bail!("--template --output json: a template is its comments, which JSON has not; leave out --output");
            }
            print::text(&template(of))?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    print_objects(&[made.map_err(|why| anyhow!("{}: {why}", file.display()))?], args.output)?;
    Ok(ExitCode::SUCCESS)
}

/// A file, or standard input.
fn text(file: &Path) -> anyhow::Result<String> {
    let read = given::read(&[file.to_owned()])?;
    let mut texts = read.texts;
    for path in &read.paths {
        if path.is_dir() {
            bail!("{} is a folder; name one file", path.display());
        }
        texts.extend(manifest::texts(path).map_err(|problem| anyhow!("{problem}"))?);
    }
    texts.pop().map(|text| text.text).ok_or_else(|| anyhow!("{} is empty", file.display()))
}
