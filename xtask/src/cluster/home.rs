//! Where a cluster keeps what must outlive its processes: one folder per name below the target folder, so that working copies do not meet.
//!
//! A cluster is alive while process 1 of its namespaces holds the lock; no number of a process is believed.

use anyhow::{Context, bail};
use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

pub(crate) struct Home {
    pub(crate) folder: PathBuf,
    name: String,
}

impl Home {
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 30 || !name.chars().all(fits) {
            bail!("a cluster's name has up to 30 lower-case letters, digits and dashes: {name:?}");
        }
        Ok(Self { folder: crate::target_dir()?.join("cluster").join(name), name: name.to_owned() })
    }

    /// As process 1 finds it, which was told the folder.
    pub(crate) fn at(folder: &Path) -> Self {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { folder: folder.to_owned(), name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// For the caller's shell.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// For the daemons; its server is the one in their own network.
    pub(crate) fn inner_kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.join("etc").join(format!("{user}.kubeconfig"))
    }

    pub(crate) fn pki(&self) -> PathBuf {
        self.folder.join("pki")
    }

    pub(crate) fn etc(&self) -> PathBuf {
        self.folder.join("etc")
    }

    pub(crate) fn log(&self, program: &str) -> PathBuf {
        self.folder.join("log").join(format!("{program}.log"))
    }

    /// Is there once everything has started.
    pub(crate) fn ready(&self) -> PathBuf {
        self.folder.join("ready")
    }

    /// The number of the process that everything ends with, as the host counts.
    pub(crate) fn pid(&self) -> PathBuf {
        self.folder.join("pid")
    }

    /// What was asked for when it was started.
    pub(crate) fn shape(&self) -> PathBuf {
        self.folder.join("shape")
    }

    /// Keeps others from starting and ending this cluster meanwhile.
    pub(crate) fn turn(&self) -> anyhow::Result<File> {
        let parent = self.folder.parent().context("the folder has no parent")?;
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        let file = File::create(parent.join(format!("{}.turn", self.name)))?;
        file.lock().context("waiting for another cargo xtask cluster")?;
        Ok(file)
    }

    /// Makes the cluster alive for as long as the file is open.
    pub(crate) fn hold(&self) -> anyhow::Result<File> {
        let file = File::create(self.folder.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(_) => bail!("the cluster {} is already running", self.name),
        }
    }

    pub(crate) fn alive(&self) -> anyhow::Result<bool> {
        let path = self.folder.join("lock");
        if !path.exists() {
            return Ok(false);
        }
        match File::open(&path)?.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", path.display())),
        }
    }

    /// The process to end, if the cluster runs.
    pub(crate) fn outer_pid(&self) -> anyhow::Result<i32> {
        let path = self.pid();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        text.trim().parse().with_context(|| format!("{} holds no number", path.display()))
    }

    /// Process 1 of the cluster's namespaces, as the host counts.
    pub(crate) fn inner_pid(&self) -> anyhow::Result<i32> {
        if !self.alive()? {
            bail!("the cluster {} does not run: cargo xtask cluster up", self.name);
        }
        let outer = self.outer_pid()?;
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).context("the cluster has no process 1")
    }
}
