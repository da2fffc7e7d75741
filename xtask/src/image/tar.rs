//! A tar archive as a layer wants it: owned by root and dated at the epoch, so that equal content has an equal digest.
//! Written here because no program writes file capabilities without holding them.

use anyhow::{Context, bail};
use std::{
    fs::File,
    io::{self, Read, Write},
    path::PathBuf,
};

/// One member of an archive. Paths have no leading `/`; a folder comes before what is in it.
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) content: Content,
    /// What a process may that executes the file, as bits by capability number.
    pub(crate) capabilities: u32,
}

pub(crate) enum Content {
    Folder,
    Data(Vec<u8>),
    File(PathBuf),
    Link(String),
}

impl Entry {
    pub(crate) fn folder(path: &str, mode: u32) -> Self {
        Self { path: path.to_owned(), mode, content: Content::Folder, capabilities: 0 }
    }

    pub(crate) fn data(path: &str, data: impl Into<Vec<u8>>) -> Self {
        Self { path: path.to_owned(), mode: 0o644, content: Content::Data(data.into()), capabilities: 0 }
    }

    pub(crate) fn program(path: &str, file: impl Into<PathBuf>) -> Self {
        Self { path: path.to_owned(), mode: 0o755, content: Content::File(file.into()), capabilities: 0 }
    }

    pub(crate) fn link(path: &str, to: &str) -> Self {
        Self { path: path.to_owned(), mode: 0o777, content: Content::Link(to.to_owned()), capabilities: 0 }
    }

    pub(crate) fn with_capabilities(self, capabilities: u32) -> Self {
        Self { capabilities, ..self }
    }
}

/// Capabilities as [`Entry::capabilities`] has them.
pub(crate) const NET_BIND_SERVICE: u32 = 1 << 10;
pub(crate) const NET_ADMIN: u32 = 1 << 12;
pub(crate) const NET_RAW: u32 = 1 << 13;

/// Archives are in units of this.
const BLOCK: usize = 512;

/// Writes the entries and the end of the archive.
pub(crate) fn write(to: &mut impl Write, entries: &[Entry]) -> anyhow::Result<()> {
    for entry in entries {
        write_entry(to, entry).with_context(|| format!("packing {}", entry.path))?;
    }
    to.write_all(&[0; 2 * BLOCK])?;
    Ok(())
}

fn write_entry(to: &mut impl Write, entry: &Entry) -> anyhow::Result<()> {
    if entry.capabilities != 0 {
        let record = attribute("SCHILY.xattr.security.capability", &capability(entry.capabilities));
        to.write_all(&header("pax", 0o644, b'x', record.len() as u64, "")?)?;
        padded(to, &mut record.as_slice())?;
    }
    match &entry.content {
        Content::Folder => to.write_all(&header(&format!("{}/", entry.path), entry.mode, b'5', 0, "")?)?,
        Content::Link(target) => to.write_all(&header(&entry.path, entry.mode, b'2', 0, target)?)?,
        Content::Data(data) => {
            to.write_all(&header(&entry.path, entry.mode, b'0', data.len() as u64, "")?)?;
            padded(to, &mut data.as_slice())?;
        }
        Content::File(path) => {
            let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
            let length = file.metadata()?.len();
            to.write_all(&header(&entry.path, entry.mode, b'0', length, "")?)?;
            if padded(to, &mut file)? != length {
                bail!("{} changed while it was read", path.display());
            }
        }
    }
    Ok(())
}

/// Copies everything and fills the last block.
fn padded(to: &mut impl Write, from: &mut impl Read) -> io::Result<u64> {
    let length = io::copy(from, to)?;
    let rest = (length % BLOCK as u64) as usize;
    if rest > 0 {
        to.write_all(&[0; BLOCK][rest..])?;
    }
    Ok(length)
}

fn header(path: &str, mode: u32, kind: u8, length: u64, link: &str) -> anyhow::Result<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, room: usize, bytes: &[u8]| -> anyhow::Result<()> {
        if bytes.len() > room {
            bail!("{} is too long for its field", String::from_utf8_lossy(bytes));
        }
        block[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    };
    put(0, 100, path.as_bytes())?;
    put(100, 7, format!("{mode:07o}").as_bytes())?;
    put(108, 7, b"0000000")?; // user
    put(116, 7, b"0000000")?; // group
    put(124, 11, format!("{length:011o}").as_bytes())?;
    put(136, 11, b"00000000000")?; // date
    put(148, 8, b"        ")?; // the checksum is made over spaces
    put(156, 1, &[kind])?;
    put(157, 100, link.as_bytes())?;
    put(257, 8, b"ustar\x0000")?;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// A record of an extended header; its length counts its own digits.
fn attribute(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..).map(|digits| rest + digits).find(|length| rest + length.to_string().len() == *length);
    let mut record = format!("{} {key}=", length.unwrap_or(rest)).into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// The kernel's `vfs_cap_data`, revision 2: permitted and effective from the start, nothing inheritable.
fn capability(bits: u32) -> Vec<u8> {
    const REVISION_2_EFFECTIVE: u32 = 0x0200_0001;
    [REVISION_2_EFFECTIVE, bits, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for length in 0..200 {
            let record = attribute("k", &vec![b'v'; length]);
            let digits = record.split(|b| *b == b' ').next().unwrap();
            assert_eq!(String::from_utf8_lossy(digits).parse::<usize>().unwrap(), record.len());
        }
    }

    #[test]
    fn the_tar_of_the_machine_reads_it() {
        let mut archive = vec![];
        let entries = [
            Entry::folder("bin", 0o755),
            Entry::data("bin/a", "hello").with_capabilities(1 << 12),
            Entry::link("bin/b", "a"),
        ];
        write(&mut archive, &entries).unwrap();
        assert_eq!(archive.len() % BLOCK, 0);
        let mut tar = std::process::Command::new("tar")
            .args(["-tvf", "-"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&archive).unwrap();
        let listed = tar.wait_with_output().unwrap();
        assert!(listed.status.success());
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains("bin/") && listed.contains("bin/a") && listed.contains("bin/b -> a"), "{listed}");
    }
}
