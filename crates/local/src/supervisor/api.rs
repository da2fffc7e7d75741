//! Answers other processes of the same user, over the unix socket in the state folder.

use super::{logs::Follow, start::Answers};
use crate::{
    Error, Status,
    client::Logs,
    node::protocol::Net,
    protocol::{Answer, Question},
};
use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::net::{UnixListener, UnixStream};
use weft_transport::fdpass;

const CONNECT: Duration = Duration::from_secs(5);

pub(crate) fn listen(path: &Path) -> Result<UnixListener, Error> {
    UnixListener::bind(path).map_err(Error::io(format!("listening on {}", path.display())))
}

/// Serves until dropped.
pub(crate) async fn serve(answers: Arc<Answers>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let answers = answers.clone();
                tokio::spawn(async move {
                    if let Err(error) = answers.connection(stream).await {
                        tracing::debug!(%error, "a question was not answered");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a question was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Answers {
    async fn connection(&self, stream: UnixStream) -> io::Result<()> {
        // The folder keeps other users out already; root may ask everybody.
        let peer = stream.peer_cred()?.uid();
        if peer != nix::unistd::geteuid().as_raw() && peer != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let Some(message) = fdpass::recv_async(&stream).await? else { return Ok(()) };
        let question = match serde_json::from_slice(&message.bytes) {
            Ok(question) => question,
            Err(error) => {
                return say(&stream, &Answer::Refused(format!("the question is not understood: {error}"))).await;
            }
        };
        match question {
            Question::Status => say(&stream, &Answer::Status(Box::new(self.status()))).await,
            Question::Logs(asked) => self.logs(&stream, &asked).await,
            Question::Run(run) => say(&stream, &answer(self.desired.add(&run))).await,
            Question::Down => {
                say(&stream, &Answer::Done).await?;
                self.stop.cancel();
                // Closed by the end of the mesh: that is how the other side knows.
                std::future::pending().await
            }
            Question::Hide(folder) => say(&stream, &answer(self.context.node.hide(folder).await)).await,
            Question::Settings => say(&stream, &Answer::Settings(Box::new(self.context.settings.clone()))).await,
            Question::Dial(to) => match self.context.node.dial_fd(Net::Bridge, to, CONNECT).await {
                Ok(fd) => give(&stream, &Answer::Done, &fd).await,
                Err(error) => say(&stream, &Answer::Refused(error.to_string())).await,
            },
        }
    }

    fn status(&self) -> Status {
        let (problems, ignored) = self.desired.problems();
        Status {
            state_dir: self.context.state.path().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            workloads: self.desired.workloads(),
            services: self.desired.services(),
            published: self.published.iter().map(|p| p.status()).collect(),
            control_plane: self.control_plane.status(&self.context),
            problems,
            ignored,
            egress: self.egress.status(),
        }
    }

    async fn logs(&self, stream: &UnixStream, asked: &Logs) -> io::Result<()> {
        let workloads = self.workloads(asked);
        let workload = match workloads.as_slice() {
            [] => {
                let text = format!("there is no workload or pod {:?}; `weft ps` lists them", asked.name);
                return say(stream, &Answer::Refused(text)).await;
            }
            [one] => one,
            several => {
                let names: Vec<String> = several.iter().map(|(ns, n)| format!("{ns}/{n}")).collect();
                let text = format!("{:?} is in several namespaces: {}", asked.name, names.join(", "));
                return say(stream, &Answer::Refused(text)).await;
            }
        };
        let (lines, follow) = self.context.logs.read(workload, asked);
        for line in lines {
            say(stream, &Answer::Line(line)).await?;
        }
        if asked.follow {
            return followed(stream, follow).await;
        }
        say(stream, &Answer::Done).await
    }

    /// The workloads that are meant by a name, which may be a pod's.
    fn workloads(&self, asked: &Logs) -> Vec<(String, String)> {
        let control = (self.context.settings.control_namespace.clone(), super::CONTROL_PLANE.to_owned());
        let mut found = BTreeSet::new();
        if asked.name == control.1 {
            found.insert(control);
        }
        for workload in self.desired.workloads() {
            if workload.name == asked.name || workload.pods.iter().any(|p| p.name == asked.name) {
                found.insert((workload.namespace, workload.name));
            }
        }
        found.into_iter().filter(|(ns, _)| asked.namespace.as_ref().is_none_or(|n| n == ns)).collect()
    }
}

/// Passes lines on until the mesh ends, or who follows goes, also where no line comes.
async fn followed(stream: &UnixStream, mut follow: Follow) -> io::Result<()> {
    loop {
        // Cancel-safe: a line stays with the sender until it is taken, and of who follows nothing more is wanted than its end.
        let line = tokio::select! {
            line = follow.next() => line,
            _ = fdpass::recv_async(stream) => return Ok(()),
        };
        let Some(line) = line else { return say(stream, &Answer::Done).await };
        say(stream, &Answer::Line(line)).await?;
    }
}

fn answer(result: Result<(), Error>) -> Answer {
    match result {
        Ok(()) => Answer::Done,
        Err(error) => Answer::Refused(error.to_string()),
    }
}

async fn say(stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    fdpass::send_async(stream, &serde_json::to_vec(answer)?, &[]).await
}

async fn give(stream: &UnixStream, answer: &Answer, fd: &OwnedFd) -> io::Result<()> {
    fdpass::send_async(stream, &serde_json::to_vec(answer)?, &[fd.as_fd()]).await
}

#[cfg(test)]
mod tests {
    use super::{super::logs::LogBook, *};
    use weft_testkit::folder::Folder;

    #[tokio::test]
    async fn who_follows_a_silent_log_may_go() {
        let dir = Folder::new("followed").unwrap();
        let (book, workload) = (LogBook::new(dir.to_owned()), ("shop".to_owned(), "web".to_owned()));
        let asked = Logs { namespace: None, name: "web".into(), follow: true, tail: None, source: None };
        let (_, follow) = book.read(&workload, &asked);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let following = tokio::spawn(async move { followed(&ours, follow).await });
        book.note(&workload, "web-0", "started".into());
        let heard = fdpass::recv_async(&theirs).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&heard.bytes).contains("started"));
        drop(theirs);
        // Nothing more is written.
        tokio::time::timeout(Duration::from_secs(30), following).await.expect("it is noticed").unwrap().unwrap();
    }
}
