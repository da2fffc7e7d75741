//! Command lines as people type them: those of `README.md` and of the pages in `docs/`, each of which the life of the mesh goes through.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    env,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use weft_testkit::kubernetes::{Cluster, built};

/// The pages whose commands are run.
const PAGES: [&str; 4] = ["README.md", "docs/getting-started.md", "docs/upgrade.md", "docs/certificates.md"];
/// Commands that have a life of their own.
const HELM: &str = "helm ";
/// What no test may download.
const GATEWAY_API: &str =
    "https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.4.1/standard-install.yaml";

/// A terminal whose kubectl and weft are those of the test, in a folder of its own.
pub(crate) struct Terminal<'c> {
    cluster: &'c Cluster,
    folder: PathBuf,
    path: String,
    documented: BTreeSet<String>,
    typed: RefCell<BTreeSet<String>>,
}

impl<'c> Terminal<'c> {
    pub(crate) fn open(cluster: &'c Cluster) -> Self {
        Self::of(cluster, "terminal", &PAGES)
    }

    /// Another one, for other pages, whose folder of programs a test may put some in.
    pub(crate) fn of(cluster: &'c Cluster, name: &str, pages: &[&str]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder); // of an earlier run
        fs::create_dir_all(&folder).unwrap();
        // The pages' folder is that of the tree.
        symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts"), folder.join("charts")).unwrap();
        let programs = [built("weft").unwrap(), cluster.program("kubectl")];
        let mut path = format!("{}:", folder.join("bin").display());
        for program in &programs {
            path += &format!("{}:", program.parent().unwrap().display());
        }
        path += &env::var("PATH").unwrap();
        Self { cluster, folder, path, documented: documented(pages), typed: RefCell::default() }
    }

    /// A program that is called as it would be if somebody had installed it.
    pub(crate) fn installs(&self, name: &str, script: &str) {
        let bin = self.folder.join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join(name), script).unwrap();
        fs::set_permissions(bin.join(name), Permissions::from_mode(0o755)).unwrap();
    }

    /// Puts a file into the folder, or one below it.
    pub(crate) fn has(&self, name: &str, text: &str) {
        let file = self.folder.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// Types a line of the pages, which has to succeed; what it has printed. `more` stands behind weft's own flags: what a test's
    /// images and node want besides.
    pub(crate) fn types(&self, line: &str, more: &str) -> String {
        self.types_and_hears(line, more).0
    }

    /// The same with what was said besides.
    pub(crate) fn types_and_hears(&self, line: &str, more: &str) -> (String, String) {
        heard(line, &self.runs(line, more, ""))
    }

    /// Types a line of the pages and, in the same shell, one that shows what it has done there.
    pub(crate) fn types_before(&self, line: &str, next: &str) -> String {
        heard(line, &self.runs(line, "", next)).0
    }

    /// The same of a line that has to fail; what it has said.
    pub(crate) fn types_in_vain(&self, line: &str, more: &str) -> String {
        let output = self.runs(line, more, "");
        assert!(!output.status.success(), "{line}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs a line that stands on no page.
    pub(crate) fn tries(&self, line: &str) -> Output {
        self.shell(line)
    }

    fn runs(&self, line: &str, more: &str, next: &str) -> Output {
        assert!(self.documented.contains(line), "no page has this command: {line}");
        self.typed.borrow_mut().insert(line.to_owned());
        let gateway_api = self.cluster.gateway_api("standard").display().to_string();
        let mut run = line.replace(GATEWAY_API, &gateway_api);
        if !more.is_empty() {
            assert!(run.starts_with("weft ") || run.starts_with(HELM), "{line}");
            let end = run.find(" | ").unwrap_or(run.len());
            run.insert_str(end, &format!(" {more}"));
        }
        run += &format!("\n{next}");
        self.shell(&run)
    }

    fn shell(&self, run: &str) -> Output {
        let mut shell = Command::new("bash");
        shell.args(["-e", "-o", "pipefail", "-c", run]).current_dir(&self.folder).stdin(Stdio::null());
        shell.env("PATH", &self.path).env("KUBECONFIG", &self.cluster.kubeconfig);
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            shell.env(variable, self.folder.join("helm"));
        }
        // A mesh that its user runs on this machine is none of the test's.
        shell.env("WEFT_STATE", self.folder.join("state"));
        shell.output().unwrap()
    }

    /// The lines of the pages that begin so, a root before what it signs.
    pub(crate) fn documented(&self, begin: &str) -> Vec<String> {
        let mut lines: Vec<String> = self.documented.iter().filter(|line| line.starts_with(begin)).cloned().collect();
        lines.sort_by_key(|line| line.contains("-CA "));
        lines
    }

    /// Every command of the pages has been typed, but for Helm's.
    pub(crate) fn is_complete(&self) {
        self.has_typed_all(|line| !line.starts_with(HELM));
    }

    /// Every command of Helm's has been typed.
    pub(crate) fn is_complete_of_helm(&self) {
        self.has_typed_all(|line| line.starts_with(HELM));
    }

    fn has_typed_all(&self, is_wanted: impl Fn(&str) -> bool) {
        let typed = self.typed.borrow();
        let missing: Vec<_> = self.documented.difference(&typed).filter(|line| is_wanted(line)).collect();
        assert!(missing.is_empty(), "commands of the pages that no test runs: {missing:?}");
    }
}

fn heard(line: &str, output: &Output) -> (String, String) {
    assert!(output.status.success(), "{line}: {output:?}");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The lines of all fenced blocks for a shell, without what stands behind them for people.
fn documented(pages: &[&str]) -> BTreeSet<String> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut lines = BTreeSet::new();
    for page in pages {
        let text = fs::read_to_string(tree.join(page)).unwrap();
        let before = lines.len();
        let mut is_within = false;
        for line in text.lines() {
            match line.strip_prefix("```") {
                Some(kind) => is_within = !is_within && kind == "sh",
                None if is_within => {
                    let command = line.split_once("  #").map_or(line, |(command, _)| command.trim_end());
                    lines.insert(command.to_owned());
                }
                None => {}
            }
        }
        assert!(lines.len() > before, "{page} has no commands");
    }
    lines
}
