//! A home with what a person has in it, and the neighbours that a command asks.

use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};
use weft_cluster::{Event, index::Settings, manifest, source};
use weft_local::Status;
use weft_testkit::api_server::FakeApi;
use weft_transport::fdpass;

/// Removed with the value.
pub(crate) struct Home(pub(crate) PathBuf);

impl Home {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        // Short: a unix socket's path is.
        let name = format!("weft-home-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// `weft`, to which nothing of the machine's user matters.
    pub(crate) fn weft(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        command.args(words).env("HOME", &self.0).current_dir(&self.0).stdin(Stdio::null());
        for name in ["KUBECONFIG", "XDG_STATE_HOME", "WEFT_STATE", "LINKERD_NAMESPACE"] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn runs(&self, words: &[&str]) -> Told {
        self.weft(words).output().unwrap().into()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.join(".local/state/weft")
    }

    /// Writes the kubeconfig of a cluster as the person's usual one.
    pub(crate) fn configure(&self, api: &FakeApi) -> PathBuf {
        let file = self.0.join(".kube/config");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, api.kubeconfig()).unwrap();
        file
    }

    /// A mesh that runs in the usual state folder and tells this, to whoever asks, until the process ends.
    pub(crate) fn mesh(&self, status: &Status) {
        answer(&self.state(), status);
    }

    /// One that tells its objects instead, those of a manifest.
    pub(crate) fn mesh_of(&self, manifest: &str) {
        replies(&self.state(), &json!({ "Settings": Settings::default() }));
        let loaded = manifest::load_text(Path::new("mesh.yaml"), manifest);
        assert_eq!(loaded.problems, []);
        let events = loaded.objects.into_iter().map(|located| Event::Apply(located.object));
        let lines: String = events.chain([Event::Synced]).map(|event| source::encode(&event)).collect();
        let listener = UnixListener::bind(self.state().join("run/events.sock")).unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.write_all(lines.as_bytes());
            }
        });
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Answers questions as the supervisor of a state folder does.
pub(crate) fn answer(state: &Path, status: &Status) {
    replies(state, &json!({ "Status": status }));
}

fn replies(state: &Path, answer: &Value) {
    let socket = state.join("run/api.sock");
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    let answer = serde_json::to_vec(answer).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Who only looks whether somebody listens says nothing.
            if let Ok(Some(_)) = fdpass::recv(&stream) {
                let _ = fdpass::send(&stream, &answer, &[]);
            }
        }
    });
}

/// What a command has said.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) ok: bool,
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Told {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            ok: output.status.success(),
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

/// Runs a command with this on its standard input, which it need not read to the end.
pub(crate) fn fed(mut command: Command, text: &[u8]) -> Told {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(text);
    child.wait_with_output().unwrap().into()
}
