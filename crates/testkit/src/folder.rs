//! A folder of a test, which goes with the value, also where the test fails.

use std::{
    fs,
    io::Result,
    ops::Deref,
    path::{Path, PathBuf},
};

pub struct Folder(PathBuf);

impl Folder {
    /// An empty one, whose name is to be its own in this process.
    pub fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("weft-{name}-{}", std::process::id()));
        // Of another process that had this number.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_where_its_test_fails() {
        let (told, path) = std::sync::mpsc::channel();
        let failing = std::thread::spawn(move || {
            let folder = Folder::new("failing").unwrap();
            fs::write(folder.join("file"), "text").unwrap();
            told.send(folder.to_owned()).unwrap();
            panic!("as a test does");
        });
        assert!(failing.join().is_err());
        assert!(!path.recv().unwrap().exists());
    }
}
