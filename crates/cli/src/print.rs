//! Everything that goes to the terminal: answers to standard output, the rest to standard error.

use anyhow::anyhow;
use rustix::termios::{isatty, tcgetwinsize};
use std::{
    io::{self, Write},
    path::PathBuf,
    sync::OnceLock,
};
use weft_cluster::manifest::{Ignored, Problem};

/// Why a line could not be written.
static CUT: OnceLock<io::Error> = OnceLock::new();

/// A reader that goes away (`weft ps | head`) is no fault; any other is told at the end, see [`cut`].
pub(crate) fn line(text: &str) {
    if let Err(error) = try_line(text)
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = CUT.set(error);
    }
}

/// Whether a [`line`] is not there, though its reader is.
///
/// # Errors
/// One is not.
pub(crate) fn cut() -> anyhow::Result<()> {
    CUT.get().map_or(Ok(()), |error| Err(full(error)))
}

fn full(error: &io::Error) -> anyhow::Error {
    anyhow!("standard output takes no more: {error}; what it has is cut off, do not apply it, and make room first")
}

/// A whole text; a reader that has gone does not want the rest of it.
///
/// # Errors
/// It cannot be written, and less than all of it is there.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(full(&error)),
        _ => Ok(()),
    }
}

/// For what goes on until nobody reads it any more.
pub(crate) fn try_line(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

pub(crate) fn error(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Columns and rows of the terminal that standard output is, if it is one.
pub(crate) fn terminal() -> Option<(u16, u16)> {
    let out = io::stdout();
    if !isatty(&out) {
        return None;
    }
    let size = tcgetwinsize(&out).map_or((0, 0), |size| (size.ws_col, size.ws_row));
    // Some do not know their size.
    Some(if size.0 == 0 || size.1 == 0 { (120, 40) } else { size })
}

/// Puts `text` in place of what the terminal shows.
pub(crate) fn replace(text: &str) {
    let mut out = io::stdout().lock();
    let _ = write!(out, "\x1b[H\x1b[2J{text}");
    let _ = out.flush();
}

/// What of the manifests is refused and ignored, a line or two each.
pub(crate) fn manifests(problems: &[Problem], ignored: &[Ignored]) {
    for problem in problems {
        error(&problem.to_string());
    }
    for field in ignored {
        error(&field.to_string());
    }
}

/// Names in one line.
const NAMES: usize = 5;

/// What is hidden in folders of manifests, in a line.
pub(crate) fn left_out(hidden: &[PathBuf]) {
    if hidden.is_empty() {
        return;
    }
    let names: Vec<String> = hidden.iter().take(NAMES).map(|path| path.display().to_string()).collect();
    let more = match hidden.len().saturating_sub(NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    error(&format!("left out, since it is hidden: {}{more}; name by itself what is meant", names.join(", ")));
}
