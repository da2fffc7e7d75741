//! Two meshes of one user: the programs of neither see the other's state folder.

use crate::harness::{Mesh, NOBODY, User, deployment, users, weft};
use nix::sys::signal::Signal;
use std::{
    fs,
    os::unix::fs::chown,
    path::PathBuf,
    process::{Child, Stdio},
};
use weft_local::Client;

/// Says again and again which files it finds below LOOK.
const LOOK: &str = r#"
import os, time
base = os.environ["LOOK"]
while True:
    found = [os.path.relpath(os.path.join(d, f), base) for d, _, fs in os.walk(base) for f in fs]
    print("FOUND", sorted(found), flush=True)
    time.sleep(0.02)
"#;

/// A place that programs see, unlike the folders of temporary files.
struct Place(PathBuf);

impl Place {
    fn new(user: User) -> Self {
        let place = PathBuf::from(format!("/var/tmp/weft-two-{}-{user:?}", std::process::id()));
        fs::create_dir(&place).unwrap();
        fs::write(place.join("witness"), "").unwrap();
        if user == User::Ordinary {
            chown(&place, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Self(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Another mesh. Dropping it kills it.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn programs_see_no_state_folder_of_their_users_meshes() {
    for user in users() {
        let place = Place::new(user);
        let look = format!("env: [{{name: LOOK, value: {}}}]", place.0.display());
        let manifests = deployment("early", 1, "", "[python3, DIR/look.py]", &look);
        let mut mesh = Mesh::up(user, &manifests, &[("look.py", LOOK)], &[]);
        mesh.ready(&["early"]);
        assert_eq!(mesh.said("early", "FOUND "), "['witness']", "{user:?}");

        // A mesh that comes later, in a folder that nobody knew of.
        let state = place.0.join("state");
        let other = mesh.dir.join("other.yaml");
        fs::write(&other, deployment("other", 1, "", "[sleep, '1000']", "")).unwrap();
        let mut up = weft(user, &state);
        up.arg("up").arg("-f").arg(&other).current_dir("/").stdin(Stdio::null()).stderr(Stdio::null());
        let mut other = Other(up.spawn().unwrap());
        let client = Client::new(Some(state.clone())).unwrap();
        mesh.until("the other mesh to run", |mesh| {
            let status = mesh.wait(client.status());
            status.is_ok_and(|s| s.workloads.iter().any(|w| w.ready == 1))
        });
        assert!(state.join("ca").is_dir() && fs::read_dir(state.join("run/pods")).unwrap().count() == 1, "{user:?}");
        sees_nothing(&mut mesh, user, "early", &place);

        // One that is not running, from a program that comes later.
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(other.0.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        other.0.wait().unwrap();
        mesh.write("manifests/app.yaml", &(manifests.clone() + &manifests.replace("early", "late")));
        mesh.ready(&["late"]);
        sees_nothing(&mut mesh, user, "late", &place);
    }
}

/// Looks at what a program has found so far, and a few times more.
fn sees_nothing(mesh: &mut Mesh, user: User, name: &str, place: &Place) {
    let found = |mesh: &Mesh| mesh.output(name).into_iter().filter(|l| l.starts_with("FOUND")).collect::<Vec<_>>();
    let before = found(mesh).len();
    mesh.until("more looks", |mesh| found(mesh).len() > before + 5);
    // The empty folder itself is no secret, nor is its lock.
    let secret = |line: &&String| !["FOUND ['witness']", "FOUND ['state/lock', 'witness']"].contains(&line.as_str());
    let all = found(mesh);
    assert_eq!(all.iter().find(secret), None, "{user:?} {name} in {}", place.0.display());
    assert_eq!(all.last().unwrap(), "FOUND ['witness']", "{user:?} {name}");
}
