//! `weft inject` and `weft uninject`: manifests in, manifests out, and what was done on standard error.

mod options;

use super::meant::{Folder, cluster_to_change};
use crate::{
    args::{Inject, ManifestFormat, Uninject},
    given, print,
};
use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};
use weft_cluster::{
    download::{download, is_url},
    inject::{Change, Changed, Format, Mesh, change, injected, uninjected},
    install::{Author, Source, of_proxies},
    manifest::{self, Text},
    values::{Values, carried},
};

/// What goes to standard output and to standard error.
#[derive(Debug, Default)]
struct Done {
    out: String,
    err: String,
    failed: bool,
}

pub(crate) async fn run(folder: &Folder, args: Inject) -> anyhow::Result<ExitCode> {
    if args.disable_identity {
        bail!(
            "--disable-identity is no longer possible: a proxy without identity could not speak to the mesh; remove it"
        );
    }
    let annotations = options::annotations(&args.options)?;
    read_once(&args)?;
    let texts = texts(&args.from).await?;
    let report = |changed: &Changed| injected(changed, args.verbose);
    if !args.manual {
        return told(all(&texts, Change::Annotate(&annotations), args.output, report));
    }
    let Known { values, anchors_pem } = known(folder, &args).await?;
    let sha256 = weft_control::sha256(anchors_pem.as_bytes());
    let namespace = args.to.linkerd_namespace.as_str();
    let mesh = Mesh { values: &values, namespace, anchors_pem: &anchors_pem, anchors_sha256: &sha256 };
    told(all(&texts, Change::Manual(&annotations, mesh), args.output, report))
}

pub(crate) async fn undo(args: Uninject) -> anyhow::Result<ExitCode> {
    told(all(&texts(&args.from).await?, Change::Uninject, args.output, uninjected))
}

/// Standard input has one reader.
fn read_once(args: &Inject) -> anyhow::Result<()> {
    let files = args.values.iter().chain(&args.identity_trust_anchors_file).map(PathBuf::as_path);
    let readers = [Path::new(&args.from)].into_iter().chain(files).filter(|file| given::is_stdin(file)).count();
    if readers > 1 {
        bail!("standard input is named {readers} times, and can be read once; name files for the others");
    }
    Ok(())
}

/// What proxies that are written by hand have from their installation.
struct Known {
    values: Values,
    anchors_pem: String,
}

/// What the cluster says, and the files that are named above it.
async fn known(folder: &Folder, args: &Inject) -> anyhow::Result<Known> {
    let read = |file: &Path| match given::is_stdin(file) {
        true => std::io::read_to_string(std::io::stdin()).context("reading standard input"),
        false => std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display())),
    };
    let (mut layers, mut anchors_pem) = (vec![], None);
    if !args.ignore_cluster {
        let cluster = cluster_to_change(folder, &args.to).await?;
        let stored = of_proxies(Source::Cluster(&cluster), &args.to.linkerd_namespace).await?;
        let (values, left_out) = match stored.by {
            Author::Weft => (stored.values, vec![]),
            // This command's proxies belong to Linkerd's control plane, of whose images they are not.
            Author::Linkerd => carried(without_version(stored.values)),
        };
        for problem in left_out {
            print::error(&format!("weft: a value of Linkerd's that is left out: {problem}"));
        }
        layers.push(values);
        anchors_pem = Some(stored.anchors_pem);
    }
    for file in &args.values {
        layers.push(Values::layer(&read(file)?).map_err(|problems| anyhow!("{}: {problems}", file.display()))?);
    }
    let values =
        Values::from_layers(layers).map_err(|problems| anyhow!("the values of the installation: {problems}"))?;
    if let Some(file) = &args.identity_trust_anchors_file {
        let pem = read(file)?;
        if !pem.contains("-----BEGIN CERTIFICATE-----") {
            bail!("{} holds no certificate; name a file with PEM certificates", file.display());
        }
        anchors_pem = Some(pem);
    }
    let anchors_pem = anchors_pem.ok_or_else(|| {
        anyhow!(
            "--manual --ignore-cluster: whom the proxies trust is known to the cluster alone; name a file with PEM certificates by \
             --identity-trust-anchors-file, or leave out --ignore-cluster"
        )
    })?;
    Ok(Known { values, anchors_pem })
}

fn without_version(mut values: Value) -> Value {
    if let Some(values) = values.as_object_mut() {
        values.remove("linkerdVersion");
    }
    values
}

/// Everything that `from` names, read.
async fn texts(from: &str) -> anyhow::Result<Vec<Text>> {
    if is_url(from) {
        return Ok(vec![download(from).await?]);
    }
    let given = given::read(&[from.into()])?;
    let mut texts = given.texts;
    for path in given.paths {
        let read = manifest::texts(&path).map_err(|problem| anyhow::anyhow!("{problem}"))?;
        if read.is_empty() {
            bail!("{} holds no manifest (.yaml, .yml or .json)", path.display());
        }
        texts.extend(read);
    }
    Ok(texts)
}

/// Changes all texts; where one cannot be changed nothing is printed that could be applied.
fn all(texts: &[Text], what: Change<'_>, format: ManifestFormat, report: impl Fn(&Changed) -> String) -> Done {
    let mut done = Done::default();
    let format = match format {
        ManifestFormat::Yaml => Format::Yaml,
        ManifestFormat::Json => Format::Json,
    };
    for Text { name, text } in texts {
        match change(text, what, format) {
            Ok(changed) => {
                done.err += &report(&changed);
                done.out += &changed.text;
            }
            Err(error) => {
                done.failed = true;
                let _ = writeln!(done.err, "Error transforming resources in {}:\n{error}", name.display());
            }
        }
    }
    if done.failed {
        done.out.clear();
    }
    done
}

fn told(done: Done) -> anyhow::Result<ExitCode> {
    print::text(&done.out)?;
    print::error(done.err.trim_end_matches('\n'));
    if !done.failed {
        // Separates what kubectl says at the end of the pipe.
        print::error("");
    }
    Ok(if done.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests;
