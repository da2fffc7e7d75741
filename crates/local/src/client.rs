//! Asks a running mesh, over the unix socket in its state folder.

use crate::{
    Error, Status,
    protocol::{Answer, Question},
    supervisor::{
        logs::{LogBook, Workload},
        state,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::{TcpStream, UnixStream},
    sync::mpsc,
};
use weft_cluster::{
    Event, Key, Object,
    index::Settings,
    source::{self, Resync},
};
use weft_transport::fdpass;

/// Asks a mesh; each call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    state_dir: PathBuf,
}

/// A program to add to a running mesh: `weft run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub namespace: String,
    pub name: String,
    pub replicas: u32,
    /// Gets a Service of the same name, and a readiness probe that connects.
    pub port: Option<u16>,
    pub command: Vec<String>,
    pub env: Vec<(String, String)>,
    pub working_dir: Option<PathBuf>,
}

/// A line that a program or a proxy wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub time: jiff::Timestamp,
    pub pod: String,
    pub source: Source,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    Program,
    Proxy,
    /// The mesh itself: starts, ends, restarts.
    Mesh,
}

/// Which lines of which workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// A workload or a pod; `linkerd/control-plane` is the control plane. Without a namespace it is looked for in all.
    pub namespace: Option<String>,
    pub name: String,
    pub follow: bool,
    /// The last so many.
    pub tail: Option<usize>,
    /// `None`: of programs and of the mesh.
    pub source: Option<Source>,
}

/// Lines that wait for who asked.
const BACKLOG: usize = 256;
/// How long it may take to hear of everything that there is.
const HELD: Duration = Duration::from_secs(30);

impl Client {
    /// For the mesh of a state folder; `None` is the usual one.
    ///
    /// # Errors
    /// There is no usual folder. Whether a mesh runs shows with the first question.
    pub fn new(state_dir: Option<PathBuf>) -> Result<Self, Error> {
        Ok(Self { state_dir: state_dir.map_or_else(state::usual, Ok)? })
    }

    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Whether a mesh runs in the folder that can be asked.
    pub async fn runs(&self) -> bool {
        UnixStream::connect(state::api_socket(&self.state_dir)).await.is_ok()
    }

    /// # Errors
    /// No mesh runs.
    pub async fn status(&self) -> Result<Status, Error> {
        match self.ask(&Question::Status).await? {
            (_, Answer::Status(status), _) => Ok(*status),
            (_, other, _) => Err(unexpected(other)),
        }
    }

    /// The lines that are kept, then, if asked, those that come; ends when the receiver is dropped.
    ///
    /// # Errors
    /// No mesh runs, or it knows no such workload.
    pub async fn logs(&self, logs: Logs) -> Result<mpsc::Receiver<LogLine>, Error> {
        let (stream, mut answer, _) = self.ask(&Question::Logs(logs)).await?;
        let (sender, lines) = mpsc::channel(BACKLOG);
        if let Answer::Refused(text) = answer {
            return Err(Error::Refused(text));
        }
        tokio::spawn(async move {
            while let Answer::Line(line) = answer {
                if sender.send(line).await.is_err() {
                    return;
                }
                let heard = tokio::select! {
                    heard = hear(&stream) => heard,
                    () = sender.closed() => return,
                };
                answer = match heard {
                    Ok((next, _)) => next,
                    // The mesh has ended, and with it what it writes.
                    Err(_) => return,
                };
            }
        });
        Ok(lines)
    }

    /// The lines that a mesh which has ended left in its folder.
    ///
    /// # Errors
    /// There are none of such a workload or pod.
    pub fn left_logs(&self, asked: &Logs) -> Result<Vec<LogLine>, Error> {
        let book = LogBook::new(state::logs(&self.state_dir));
        let kept = book.kept();
        let meant = |(namespace, _): &&Workload| asked.namespace.as_ref().is_none_or(|n| n == namespace);
        let found: Vec<(&Workload, Vec<LogLine>)> = kept
            .iter()
            .filter(meant)
            .map(|w| (w, book.read(w, asked).0))
            .filter(|(_, lines)| !lines.is_empty())
            .collect();
        match found.as_slice() {
            [(_, lines)] => Ok(lines.clone()),
            [] => {
                let names: Vec<String> = kept.iter().map(|(ns, n)| format!("{ns}/{n}")).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Err(Error::Refused(format!(
                    "no mesh runs in {}, and none left lines of {:?} there; workloads that left some: {names}",
                    self.state_dir.display(),
                    asked.name
                )))
            }
            several => {
                let names: Vec<String> = several.iter().map(|((ns, n), _)| format!("{ns}/{n}")).collect();
                Err(Error::Refused(format!("{:?} is in several namespaces: {}", asked.name, names.join(", "))))
            }
        }
    }

    /// Adds a program, or replaces the one that was added under this name.
    ///
    /// # Errors
    /// No mesh runs, or a manifest has a workload of this name.
    pub async fn run(&self, run: Run) -> Result<(), Error> {
        self.done(&Question::Run(run)).await.map(drop)
    }

    /// Ends the mesh and waits until it has ended.
    ///
    /// # Errors
    /// No mesh runs.
    pub async fn down(&self) -> Result<(), Error> {
        let (stream, _) = self.done(&Question::Down).await?;
        // Nothing more is said; the end of the connection is the end of the mesh.
        let _ = hear(&stream).await;
        Ok(())
    }

    /// A connection to an address inside the mesh, made from the node: proxies' port 4191, the control plane's admin port.
    ///
    /// # Errors
    /// No mesh runs, or the address refuses.
    pub async fn dial(&self, addr: SocketAddr) -> Result<TcpStream, Error> {
        let (_, fds) = self.done(&Question::Dial(addr)).await?;
        let socket = fds.into_iter().next().ok_or_else(|| Error::Answer("no socket".into()))?;
        TcpStream::from_std(socket.into()).map_err(Error::io("using a socket of the mesh"))
    }

    /// What holds for the whole mesh, and everything that its control plane is told of, at this moment.
    ///
    /// # Errors
    /// No mesh runs, or it does not tell everything in time.
    pub async fn held(&self) -> Result<(Settings, Vec<Object>), Error> {
        let settings = match self.ask(&Question::Settings).await? {
            (_, Answer::Settings(settings), _) => *settings,
            (_, other, _) => return Err(unexpected(other)),
        };
        let held = tokio::time::timeout(HELD, self.objects()).await;
        let objects = held.map_err(|_| Error::Answer(format!("not all of its objects within {HELD:?}")))??;
        Ok((settings, objects))
    }

    /// As the control plane hears of them.
    async fn objects(&self) -> Result<Vec<Object>, Error> {
        let socket = state::events_socket(&self.state_dir);
        let stream = UnixStream::connect(socket).await.map_err(Error::io("asking the mesh for its objects"))?;
        let limit = u64::try_from(source::MAX_LINE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        let (mut reader, mut resync) = (BufReader::new(stream), Resync::default());
        let mut objects: BTreeMap<Key, Object> = BTreeMap::new();
        loop {
            let mut line = String::new();
            let read = (&mut reader).take(limit).read_line(&mut line).await;
            if read.map_err(Error::io("hearing of the mesh's objects"))? == 0 {
                return Err(Error::Answer("not all of its objects: it has ended".into()));
            }
            for event in resync.line(line.trim_end()).map_err(|e| Error::Answer(e.to_string()))? {
                match event {
                    Event::Apply(object) => drop(objects.insert(object.key(), object)),
                    Event::Delete(key) => drop(objects.remove(&key)),
                    Event::Refused(refused) => drop(objects.remove(&refused.key)),
                    Event::Synced => return Ok(objects.into_values().collect()),
                }
            }
        }
    }

    /// Says what needs no answer but that it was done.
    pub(crate) async fn tell(&self, question: &Question) -> Result<(), Error> {
        self.done(question).await.map(drop)
    }

    async fn done(&self, question: &Question) -> Result<(UnixStream, Vec<OwnedFd>), Error> {
        match self.ask(question).await? {
            (stream, Answer::Done, fds) => Ok((stream, fds)),
            (_, other, _) => Err(unexpected(other)),
        }
    }

    async fn ask(&self, question: &Question) -> Result<(UnixStream, Answer, Vec<OwnedFd>), Error> {
        let stream = UnixStream::connect(state::api_socket(&self.state_dir)).await.map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => Error::Io { what: "asking the mesh".into(), error: e },
            _ => Error::NotRunning { state_dir: self.state_dir.clone() },
        })?;
        let bytes = serde_json::to_vec(question).map_err(|e| Error::Answer(e.to_string()))?;
        fdpass::send_async(&stream, &bytes, &[]).await.map_err(Error::io("asking the mesh"))?;
        let (answer, fds) = hear(&stream).await?;
        Ok((stream, answer, fds))
    }
}

async fn hear(stream: &UnixStream) -> Result<(Answer, Vec<OwnedFd>), Error> {
    let message = fdpass::recv_async(stream).await.map_err(Error::io("hearing from the mesh"))?;
    let message = message.ok_or_else(|| Error::Answer("nothing: it has ended".into()))?;
    let answer = serde_json::from_slice(&message.bytes).map_err(|e| Error::Answer(e.to_string()))?;
    Ok((answer, message.fds))
}

fn unexpected(answer: Answer) -> Error {
    match answer {
        Answer::Refused(text) => Error::Refused(text),
        other => Error::Answer(format!("{other:?}")),
    }
}
