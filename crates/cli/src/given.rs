//! Manifests that can be read only once, because they come through a pipe: read here, before there is a mesh.

use crate::print;
use anyhow::{Context, bail};
use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};
use weft_cluster::manifest::{MAX_BYTES, MAX_MIB, Text, left_out};

/// What this process was started with.
const STDIN: [&str; 4] = ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];

/// Whether it is what this process was started with, which can be read once.
pub(crate) fn is_stdin(file: &Path) -> bool {
    STDIN.iter().any(|name| file == Path::new(name))
}

/// What `-f` names.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// Files and folders, which can be watched.
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) texts: Vec<Text>,
}

/// Reads what is neither file nor folder: standard input (`-`), pipes (`<(…)`), sockets, devices. Of a folder it is said what will be left
/// out.
pub(crate) fn read(files: &[PathBuf]) -> anyhow::Result<Given> {
    let mut given = Given::default();
    for file in files {
        if is_stdin(file) {
            // Not opened again: whoever made the pipe may have been another user.
            let name = if file == Path::new("-") { "standard input".into() } else { file.clone() };
            given.texts.push(whole(name, io::stdin().lock())?);
        } else if is_lasting(file) {
            given.paths.push(file.clone());
        } else {
            let opened = File::open(file).with_context(|| format!("opening {}", file.display()))?;
            given.texts.push(whole(file.clone(), opened)?);
        }
    }
    print::left_out(&left_out(&given.paths));
    Ok(given)
}

/// Whether it can be read again by another process; what is not there may come to be.
fn is_lasting(file: &Path) -> bool {
    match file.metadata() {
        Ok(meta) => !is_of_this_process(file) && (meta.is_file() || meta.is_dir()),
        Err(_) => true,
    }
}

fn is_of_this_process(file: &Path) -> bool {
    ["/dev/fd", "/dev/stdin", "/proc/self", "/proc/thread-self"].iter().any(|folder| file.starts_with(folder))
}

fn whole(name: PathBuf, from: impl Read) -> anyhow::Result<Text> {
    let mut bytes = Vec::new();
    let shown = name.display().to_string();
    from.take(MAX_BYTES + 1).read_to_end(&mut bytes).with_context(|| format!("reading {shown}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        bail!("{shown} has more than {MAX_MIB} MiB; split it into files and name their folder");
    }
    let text = String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{shown} is not UTF-8 text; save it as UTF-8"))?;
    Ok(Text { name, text })
}

/// Hands everything to the process that the mesh runs in: its standard input.
pub(crate) fn pass_on(texts: &[Text], mut to: impl Write) -> anyhow::Result<()> {
    Ok(to.write_all(&serde_json::to_vec(texts)?)?)
}

/// The other end of [`pass_on`].
pub(crate) fn take_over(files: &[PathBuf]) -> anyhow::Result<Given> {
    let texts = serde_json::from_reader(io::stdin().lock()).context("hearing of the manifests")?;
    // What is a pipe there is one here too, or is not there any more: neither can be watched.
    let once = |file: &&PathBuf| is_stdin(file) || is_of_this_process(file);
    let paths = files.iter().filter(|f| !once(f) && is_lasting(f)).cloned().collect();
    Ok(Given { paths, texts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_read_once_and_within_bounds() {
        let text = whole("standard input".into(), "kind: x".as_bytes()).unwrap();
        assert_eq!(text.text, "kind: x");
        let refused = whole("/dev/zero".into(), io::repeat(b'x')).unwrap_err().to_string();
        assert!(refused.starts_with("/dev/zero has more than "), "{refused}");
        let refused = whole("-".into(), [0xff].as_slice()).unwrap_err().to_string();
        assert!(refused.contains("UTF-8"), "{refused}");
        for (file, lasting) in
            [("/", true), ("/etc/passwd", true), ("/nowhere", true), ("/dev/null", false), ("/dev/stdin", false)]
        {
            assert_eq!(is_lasting(Path::new(file)), lasting, "{file}");
        }
        let mut passed = Vec::new();
        pass_on(std::slice::from_ref(&text), &mut passed).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<Text>>(&passed).unwrap(), [text]);
    }
}
