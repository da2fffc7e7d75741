//! The page for one machine, followed by an ordinary user: its manifests are taken, its commands do what it says, and those of the
//! README are among them.

use crate::harness::{NOBODY, PATIENCE, User, alone, get, programs, users};
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::{fs::chown, process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const PAGE: &str = include_str!("../../../../docs/one-machine.md");
const README: &str = include_str!("../../../../README.md");

/// Lines of the fenced blocks of a kind, block by block.
fn blocks(text: &str, kind: &str) -> Vec<Vec<String>> {
    let (mut blocks, mut within) = (vec![], false);
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(of) if !within && of == kind => {
                within = true;
                blocks.push(vec![]);
            }
            Some(_) => within = false,
            None if within => blocks.last_mut().unwrap().push(line.to_owned()),
            None => {}
        }
    }
    blocks
}

/// A person at a shell, in a folder of their own.
struct Person {
    home: PathBuf,
    user: User,
    /// In place of the page's.
    port: u16,
}

impl Person {
    fn types(&self, line: &str) -> (bool, String) {
        let line = line.replace("8080:", &format!("{}:", self.port));
        let mut shell = Command::new("bash");
        shell.args(["-c", &line]).current_dir(&self.home).stdin(Stdio::null()).env("HOME", &self.home);
        let path = std::env::var("PATH").unwrap();
        shell.env("PATH", format!("{}:{path}", programs().display()));
        for name in ["KUBECONFIG", "XDG_STATE_HOME", "WEFT_STATE"] {
            shell.env_remove(name);
        }
        if self.user == User::Ordinary {
            shell.uid(NOBODY).gid(NOBODY);
        }
        let output = shell.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    fn until(&self, line: &str, wanted: &str) -> String {
        let start = Instant::now();
        loop {
            let (ok, told) = self.types(line);
            if ok && told.contains(wanted) {
                return told;
            }
            assert!(start.elapsed() < PATIENCE, "{line}: {told}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.types("weft down");
        let _ = fs::remove_dir_all(&self.home);
    }
}

#[test]
fn a_mesh_is_used_as_the_page_says() {
    let _alone = alone();
    let home = std::env::temp_dir().join(format!("weft-page-{}", std::process::id()));
    fs::create_dir_all(home.join("manifests")).unwrap();
    // Somebody without rights, where the test may choose.
    let user = *users().last().unwrap();
    if user == User::Ordinary {
        for folder in [home.clone(), home.join("manifests")] {
            chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let person = Person { home, user, port };
    let manifests = blocks(PAGE, "yaml");
    let write = |name: &str, at: usize| {
        assert!(PAGE.contains(&format!("`manifests/{name}`")));
        fs::write(person.home.join("manifests").join(name), manifests[at].join("\n")).unwrap();
    };
    write("shop.yaml", 0);
    let mut typed = vec![];
    for line in blocks(PAGE, "sh").concat() {
        if line.starts_with("weft authz") {
            write("policy.yaml", 1);
            person.until("weft policy can deploy/client svc/web:80", "AuthorizationPolicy/web");
        }
        let (ok, told) = person.types(&line);
        assert!(ok, "{line}: {told}");
        let wanted = match line.split(' ').nth(1).unwrap() {
            "ps" => "client",
            "check" => "Status check results are √",
            "authz" => "web",
            "policy" => "allowed",
            _ => "",
        };
        assert!(told.contains(wanted), "{line}: {told}");
        if line.starts_with("weft up") {
            let shown = get(SocketAddr::from(([127, 0, 0, 1], port)), "/").unwrap();
            assert!(shown.starts_with("HTTP/1.1 200"), "{shown}");
            person.until("weft logs client", "answer 200");
        }
        if line.starts_with("weft policy") {
            let (ok, told) = person.types("weft policy can sa/web svc/web:80");
            assert!(!ok && told.contains("denied"), "nobody else: {told}");
        }
        if line.starts_with("weft run") {
            person.until("weft ps", "api");
        }
        typed.push(line);
    }
    assert!(!person.types("weft ps").0, "it is down");

    // What the README says of one machine is said there, if shorter.
    let own = README.split("## Your own programs").nth(1).unwrap().split("## ").next().unwrap();
    for line in blocks(own, "").concat() {
        let command = line.split(" #").next().unwrap().trim_end().to_owned();
        let begins: String = command.split(' ').take(2).collect::<Vec<_>>().join(" ");
        assert!(typed.iter().any(|line| line.starts_with(&begins)), "no page has this command: {command}");
    }
}
