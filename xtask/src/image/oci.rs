//! An image as one file: an OCI layout in a tar, which also holds the older `manifest.json`, so that every container engine loads it.

use super::tar::{self, Entry};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
    process::Command,
};

/// What an image is, apart from how it is written down.
pub(crate) struct Image {
    /// With its tag: `weft/proxy:dev`.
    pub(crate) name: String,
    pub(crate) entries: Vec<Entry>,
    /// `Entrypoint`, `Env`, `User` and the like.
    pub(crate) config: Value,
}

/// What is written besides the blobs and the older `manifest.json`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Oci,
    /// The layer as a file of its own, too.
    OciBesideLayer,
    /// Nothing: containerd completes an image's name to what the kubelet asks for only where there is no newer layout.
    Older,
}

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Image {
    /// Writes the image to a file. It has one layer, which is not compressed: what is packed here is mostly loaded on the same machine.
    pub(crate) fn write(&self, file: &Path, form: Form) -> anyhow::Result<()> {
        let (name, tag) = self.name.rsplit_once(':').context("an image's name has a tag")?;
        let layer = file.with_extension("layer");
        let mut writer = BufWriter::new(File::create(&layer).with_context(|| format!("creating {}", layer.display()))?);
        tar::write(&mut writer, &self.entries)?;
        writer.into_inner().map_err(|e| e.into_error())?;
        let layer_digest = digest_of(&layer)?;

        let config = json!({
            "architecture": architecture()?,
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        });
        let config = Blob::new(file, &config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(CONFIG),
            "layers": [{ "mediaType": LAYER, "digest": format!("sha256:{layer_digest}"), "size": fs::metadata(&layer)?.len() }],
        });
        let manifest = Blob::new(file, &manifest)?;
        let mut entry = manifest.descriptor(MANIFEST);
        entry["annotations"] =
            json!({ "io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        let older = json!([{
            "Config": config.path(),
            "RepoTags": [format!("{name}:{tag}")],
            "Layers": [format!("blobs/sha256/{layer_digest}")],
        }]);

        let mut entries = vec![
            Entry::folder("blobs", 0o755),
            Entry::folder("blobs/sha256", 0o755),
            Entry::data(&config.path(), config.bytes.clone()),
            Entry::data(&manifest.path(), manifest.bytes.clone()),
            Entry::program(&format!("blobs/sha256/{layer_digest}"), &layer),
            Entry::data("manifest.json", older.to_string()),
        ];
        if form != Form::Older {
            entries.push(Entry::data("index.json", index.to_string()));
            entries.push(Entry::data("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#));
        }
        let mut writer = BufWriter::new(File::create(file).with_context(|| format!("creating {}", file.display()))?);
        tar::write(&mut writer, &entries)?;
        writer.flush()?;
        if form != Form::OciBesideLayer {
            fs::remove_file(&layer)?;
        }
        Ok(())
    }
}

/// A small document of the image, known by its digest.
struct Blob {
    bytes: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(beside: &Path, document: &Value) -> anyhow::Result<Self> {
        let bytes = document.to_string().into_bytes();
        let file = beside.with_extension("blob");
        fs::write(&file, &bytes)?;
        let digest = digest_of(&file)?;
        fs::remove_file(&file)?;
        Ok(Self { bytes, digest })
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self, media: &str) -> Value {
        json!({ "mediaType": media, "digest": format!("sha256:{}", self.digest), "size": self.bytes.len() })
    }
}

/// By the program of the machine: chores link no cryptography, so that they are built in seconds.
fn digest_of(file: &Path) -> anyhow::Result<String> {
    let output = Command::new("sha256sum").arg(file).output().context("starting sha256sum")?;
    let text = String::from_utf8(output.stdout)?;
    match text.split_whitespace().next() {
        Some(digest) if output.status.success() && digest.len() == 64 => Ok(digest.to_owned()),
        _ => bail!("sha256sum could not read {}", file.display()),
    }
}

/// As images name what this machine is.
fn architecture() -> anyhow::Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no images are packed for {other}"),
    }
}
