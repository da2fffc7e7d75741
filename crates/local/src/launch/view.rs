//! What a process sees: mounts of its own, in a mount namespace that dies with it.
//!
//! ```text
//! open what is kept ─► hide folders ─► show what is kept ─► hide the state folder ─► show what is kept in it ─► files, /proc
//! ```
//!
//! The mounts belong to the node's user namespace, so that a program in a nested one can never take them away.

use super::{Launch, Who};
use nix::{
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sys::stat::Mode,
};
use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

const NONE: Option<&str> = None;
/// Where the texts of [`super::View::files`] lie, within the hidden state folder.
const FILES: &str = ".files";

pub(super) fn make(launch: &Launch, program: &Path) -> io::Result<()> {
    // Sent by no mount event, so that the node's mounts stay as they are.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    nix::unistd::sethostname(&launch.host_name)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, NONE)?;
    let Some(state_dir) = &launch.view.state_dir else { return Ok(()) };

    let mut named = vec![program.to_owned(), launch.working_dir.clone()];
    if matches!(launch.who, Who::Program { .. }) {
        named.extend(launch.argv.iter().skip(1).filter(|a| a.starts_with('/')).map(PathBuf::from));
    }
    let others: Vec<PathBuf> = launch.view.others.iter().filter_map(|d| d.canonicalize().ok()).collect();
    // Naming a key or a token on its command line does not show it to a program.
    let secret = |real: &Path| real.starts_with(state_dir) || others.iter().any(|o| real.starts_with(o));
    named.retain(|path| path.canonicalize().is_ok_and(|real| !secret(&real)));
    let keep: Vec<PathBuf> = launch.view.keep.iter().cloned().chain(named).collect();
    let mut hide: Vec<PathBuf> = launch.view.hide.iter().filter_map(|d| d.canonicalize().ok()).collect();
    if let Who::Program { id: Some(_), .. } | Who::Proxy { id: Some(_) } = launch.who {
        // Another user could not pass some folders above its program; it sees empty ones with just that program.
        let needed = launch.view.keep.iter().map(PathBuf::as_path).chain([program, &launch.working_dir]);
        hide.extend(needed.filter_map(closed_ancestor));
    }
    hide.sort();
    hide.dedup();
    // A hidden folder hides what is below it as well.
    let mut outermost: Vec<PathBuf> = Vec::new();
    for dir in hide {
        let shown_whole = keep.contains(&dir);
        if !shown_whole && !outermost.iter().any(|o| dir.starts_with(o)) {
            outermost.push(dir);
        }
    }
    let hidden = |path: &Path| outermost.iter().any(|o| path.starts_with(o));
    let kept: Vec<Kept> =
        keep.iter().filter(|k| hidden(k) || k.starts_with(state_dir)).filter_map(|k| Kept::open(k)).collect();
    let (in_state, elsewhere): (Vec<_>, Vec<_>) = kept.into_iter().partition(|k| k.path.starts_with(state_dir));

    for dir in &outermost {
        // Where everybody may write, everybody still may.
        let shared = dir.metadata().is_ok_and(|m| m.mode() & 0o002 != 0);
        cover(dir, if shared { "1777" } else { "755" })?;
    }
    for kept in &elsewhere {
        kept.show()?;
    }
    // Those in a hidden folder are not there any more.
    for other in others.iter().filter(|o| o.is_dir()) {
        cover(other, "755")?;
    }
    fs::create_dir_all(state_dir)?;
    cover(state_dir, "755")?;
    for kept in &in_state {
        kept.show()?;
    }
    let files = state_dir.join(FILES);
    fs::create_dir(&files)?;
    for (number, (path, text)) in launch.view.files.iter().enumerate() {
        let source = files.join(number.to_string());
        fs::write(&source, text)?;
        place(&source, path)?;
    }
    Ok(())
}

/// The outermost folder above `path` that only its owner or group may pass.
fn closed_ancestor(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    above.into_iter().find(|dir| dir.metadata().is_ok_and(|m| m.mode() & 0o001 == 0)).map(Path::to_owned)
}

/// Makes a folder empty.
pub(crate) fn cover(dir: &Path, mode: &str) -> io::Result<()> {
    let options = format!("mode={mode},size=64m");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options.as_str()))?)
}

/// Something that is held while the folder above it is covered.
struct Kept {
    path: PathBuf,
    file: OwnedFd,
    is_dir: bool,
}

impl Kept {
    /// What does not exist need not be kept.
    fn open(path: &Path) -> Option<Self> {
        let real = path.canonicalize().ok()?;
        let is_dir = real.metadata().ok()?.is_dir();
        let file = open(&real, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        Some(Self { path: real, file, is_dir })
    }

    fn show(&self) -> io::Result<()> {
        if self.path.exists() {
            // Shown with a folder above it.
            return Ok(());
        }
        if self.is_dir {
            fs::create_dir_all(&self.path)?;
        } else {
            if let Some(parent) = self.path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::File::create(&self.path)?;
        }
        let source = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(mount(Some(source.as_str()), &self.path, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?)
    }
}

/// Shows `source` in the place of `path`, or of what it links to.
fn place(source: &Path, path: &Path) -> io::Result<()> {
    let mut target = path.to_owned();
    // The link may lead into a folder that is empty now.
    for _ in 0..8 {
        let Ok(link) = fs::read_link(&target) else { break };
        target = target.parent().unwrap_or(Path::new("/")).join(link);
    }
    if !target.exists() {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::File::create(&target)?;
    }
    Ok(mount(Some(source), &target, NONE, MsFlags::MS_BIND, NONE)?)
}
