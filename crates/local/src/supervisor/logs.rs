//! What programs and proxies write, kept with a bound per workload and passed to who follows.

use crate::client::{LogLine, Logs, Source};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt},
    net::unix::pipe,
    sync::broadcast,
};

/// Of one file; a workload has two, the older one whole.
const FILE_BYTES: u64 = 4 << 20;
/// Longer lines are cut.
const LINE_BYTES: u64 = 16 << 10;
/// Lines that who follows may lag behind; then some are lost to it.
const BACKLOG: usize = 1024;

/// The logs of all workloads. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct LogBook {
    dir: PathBuf,
    open: Arc<Mutex<HashMap<Workload, Book>>>,
    lines: broadcast::Sender<(Workload, LogLine)>,
}

/// Namespace and name.
pub(crate) type Workload = (String, String);

#[derive(Debug)]
struct Book {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl LogBook {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, open: Arc::default(), lines: broadcast::channel(BACKLOG).0 }
    }

    pub(crate) fn write(&self, workload: &Workload, line: LogLine) {
        if let Err(error) = self.keep(workload, &line) {
            tracing::warn!(workload = workload.1, %error, "a line of the log was not kept");
        }
        // Nobody follows.
        let _ = self.lines.send((workload.clone(), line));
    }

    /// Says something of the mesh itself about a pod.
    pub(crate) fn note(&self, workload: &Workload, pod: &str, text: String) {
        let line = LogLine { time: jiff::Timestamp::now(), pod: pod.to_owned(), source: Source::Mesh, text };
        self.write(workload, line);
    }

    fn keep(&self, workload: &Workload, line: &LogLine) -> io::Result<()> {
        let mut open = self.open.lock();
        if !open.contains_key(workload) {
            open.insert(workload.clone(), Book::open(self.path(workload))?);
        }
        let Some(book) = open.get_mut(workload) else { return Ok(()) };
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        book.write(&text)
    }

    fn path(&self, (namespace, name): &Workload) -> PathBuf {
        self.dir.join(namespace).join(format!("{name}.log"))
    }

    /// Reads what `output` brings until its last writer is gone.
    pub(crate) fn collect(&self, workload: Workload, pod: String, source: Source, output: OwnedFd) -> io::Result<()> {
        let reader = pipe::Receiver::from_owned_fd(output)?;
        let book = self.clone();
        tokio::spawn(async move {
            let mut reader = tokio::io::BufReader::new(reader);
            let mut bytes = Vec::new();
            // A cut line goes on as the next one.
            while (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut bytes).await.is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
                book.write(&workload, LogLine { time: jiff::Timestamp::now(), pod: pod.clone(), source, text });
                bytes.clear();
            }
        });
        Ok(())
    }

    /// The workloads that have written something, of meshes before as well.
    pub(crate) fn kept(&self) -> Vec<Workload> {
        let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
        let name = |path: &Path| Some(path.file_stem()?.to_str()?.to_owned());
        let mut found: Vec<Workload> = entries(&self.dir)
            .filter_map(|dir| Some((dir.file_name()?.to_str()?.to_owned(), dir)))
            .flat_map(|(namespace, dir)| {
                let logs = entries(&dir).filter(|file| file.extension().is_some_and(|e| e == "log"));
                logs.filter_map(|file| Some((namespace.clone(), name(&file)?))).collect::<Vec<_>>()
            })
            .collect();
        found.sort();
        found
    }

    /// The kept lines that are asked for, and a receiver of all lines from then on.
    pub(crate) fn read(&self, workload: &Workload, asked: &Logs) -> (Vec<LogLine>, Follow) {
        // Written under the same lock, so that no line is missed or comes twice.
        let _open = self.open.lock();
        let follow = self.lines.subscribe();
        let path = self.path(workload);
        let mut lines = VecDeque::new();
        for path in [older(&path), path] {
            let Ok(file) = File::open(path) else { continue };
            for line in BufReader::new(file).lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str::<LogLine>(&line) else { continue };
                if matches(asked, workload, &line) {
                    lines.push_back(line);
                    if asked.tail.is_some_and(|tail| lines.len() > tail) {
                        lines.pop_front();
                    }
                }
            }
        }
        (lines.into(), Follow { receiver: follow, workload: workload.clone(), asked: asked.clone() })
    }
}

/// The lines of one workload as they come.
#[derive(Debug)]
pub(crate) struct Follow {
    receiver: broadcast::Receiver<(Workload, LogLine)>,
    workload: Workload,
    asked: Logs,
}

impl Follow {
    /// `None` when the mesh ends.
    pub(crate) async fn next(&mut self) -> Option<LogLine> {
        loop {
            match self.receiver.recv().await {
                Ok((workload, line)) if workload == self.workload && matches(&self.asked, &workload, &line) => {
                    return Some(line);
                }
                Ok(_) => {}
                // Who reads must not take what it got for everything. Of which workload they were nobody knows any more.
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    let text = format!("up to {lost} lines are left out: they came faster than they were read");
                    let (time, pod) = (jiff::Timestamp::now(), self.workload.1.clone());
                    return Some(LogLine { time, pod, source: Source::Mesh, text });
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

fn matches(asked: &Logs, workload: &Workload, line: &LogLine) -> bool {
    let source = match asked.source {
        None => line.source != Source::Proxy,
        Some(source) => line.source == source,
    };
    source && (asked.name == workload.1 || asked.name == line.pod)
}

impl Book {
    fn open(path: PathBuf) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = append(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if self.bytes.saturating_add(length) > FILE_BYTES {
            fs::rename(&self.path, older(&self.path))?;
            self.file = append(&self.path)?;
            self.bytes = 0;
        }
        self.file.write_all(text)?;
        self.bytes += length;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_testkit::folder::Folder;

    #[test]
    fn logs_are_bounded_and_keep_the_newest() {
        let dir = Folder::new("logs").unwrap();
        let book = LogBook::new(dir.to_owned());
        let workload = ("shop".to_owned(), "web".to_owned());
        let long = "x".repeat(1 << 14);
        for number in 0..1000 {
            let pod = if number % 2 == 0 { "web-0" } else { "web-1" };
            book.note(&workload, pod, format!("{number} {long}"));
        }
        let size: u64 = fs::read_dir(dir.join("shop")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(size <= 2 * FILE_BYTES, "{size}");
        let asked = |name: &str, tail| Logs { namespace: None, name: name.into(), follow: false, tail, source: None };
        let numbers = |asked: &Logs| -> Vec<String> {
            let (lines, _) = book.read(&workload, asked);
            lines.iter().map(|l| l.text.split_whitespace().next().unwrap().to_owned()).collect()
        };
        assert_eq!(numbers(&asked("web", Some(3))), ["997", "998", "999"]);
        assert_eq!(numbers(&asked("web-1", Some(2))), ["997", "999"]);
        assert!(numbers(&asked("web", None)).len() > 256, "the older file counts as well");
    }
}
