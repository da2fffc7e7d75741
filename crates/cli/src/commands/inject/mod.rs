//! `weft inject` and `weft uninject`: manifests in, manifests out, and what was done on standard error.

mod options;

use crate::{
    args::{Inject, ManifestFormat, Uninject},
    given, print,
};
use anyhow::{Context, bail};
use std::{
    fmt::Write,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};
use weft_cluster::{
    download::{download, is_url},
    inject::{Annotations, Change, Changed, Format, Mesh, change, injected, uninjected},
    manifest::{self, Text},
    values::Values,
};

/// What goes to standard output and to standard error.
#[derive(Debug, Default)]
struct Done {
    out: String,
    err: String,
    failed: bool,
}

pub(crate) async fn run(args: Inject) -> anyhow::Result<ExitCode> {
    if args.disable_identity {
        bail!(
            "--disable-identity is no longer possible: a proxy without identity could not speak to the mesh; remove it"
        );
    }
    let annotations = options::annotations(&args.options)?;
    let texts = texts(&args.from).await?;
    let done = match &args.identity_trust_anchors_file {
        Some(file) if args.manual => by_hand(&texts, &args, &annotations, file)?,
        _ => all(&texts, Change::Annotate(&annotations), args.output, |changed| injected(changed, args.verbose)),
    };
    told(done)
}

pub(crate) async fn undo(args: Uninject) -> anyhow::Result<ExitCode> {
    told(all(&texts(&args.from).await?, Change::Uninject, args.output, uninjected))
}

/// The proxies of an installation that this process knows by its values only.
fn by_hand(texts: &[Text], args: &Inject, annotations: &Annotations, anchors: &Path) -> anyhow::Result<Done> {
    let read = |file: &Path| std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()));
    let pem = read(anchors)?;
    if !pem.contains("-----BEGIN CERTIFICATE-----") {
        bail!("{} holds no certificate; name a file with PEM certificates", anchors.display());
    }
    let layers = args.values.iter().map(|file| Ok((file, read(file)?))).collect::<anyhow::Result<Vec<_>>>()?;
    let values = values(&layers)?;
    let sha256 = weft_control::sha256(pem.as_bytes());
    let namespace = args.linkerd_namespace.as_str();
    let mesh = Mesh { values: &values, namespace, anchors_pem: &pem, anchors_sha256: &sha256 };
    let change = Change::Manual(annotations, mesh);
    Ok(all(texts, change, args.output, |changed| injected(changed, args.verbose)))
}

fn values(layers: &[(&PathBuf, String)]) -> anyhow::Result<Values> {
    match layers {
        [] => Ok(Values::default()),
        layers => {
            let texts: Vec<&str> = layers.iter().map(|(_, text)| text.as_str()).collect();
            let files: Vec<String> = layers.iter().map(|(file, _)| file.display().to_string()).collect();
            Values::from_yamls(&texts).map_err(|problems| anyhow::anyhow!("{}: {problems}", files.join(", ")))
        }
    }
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
    let mut out = std::io::stdout();
    // A reader that has gone does not want the rest.
    let _ = out.write_all(done.out.as_bytes()).and_then(|()| out.flush());
    print::error(done.err.trim_end_matches('\n'));
    if !done.failed {
        // Separates what kubectl says at the end of the pipe.
        print::error("");
    }
    Ok(if done.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests;
