//! Where the mesh's own programs are.

use crate::Error;
use std::{env, path::PathBuf};

/// Finds a program of the mesh beside this one, then in `PATH`.
///
/// # Errors
/// It is in neither.
pub fn find_program(program: &'static str) -> Result<PathBuf, Error> {
    let own = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    let path = env::var_os("PATH").unwrap_or_default();
    own.into_iter()
        .chain(env::split_paths(&path))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or(Error::NoProgram { program })
}
