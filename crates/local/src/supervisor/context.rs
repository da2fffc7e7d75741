//! What all parts of the supervisor share.

use super::{hands::Node, logs::LogBook, plan::Plan, plan::PodNumbers, state::StateDir, store::Store};
use crate::launch::{Ids, View, Who};
use parking_lot::Mutex;
use std::{net::IpAddr, path::PathBuf, sync::Arc};
use tokio::sync::Notify;
use weft_cluster::{index::Settings, inject};

/// The proxies' user, as in Linkerd's image.
const PROXY_USER: u32 = 2102;
/// Programs' users: this and the pod's number, where there are users to choose from.
const FIRST_PROGRAM_USER: u32 = 200_000;
/// Folders in which hosts keep sockets of other programs, and everybody's temporary files: each pod has its own.
const HIDDEN: [&str; 4] = ["/run", "/var/run", "/tmp", "/dev/shm"];
/// Variables of the supervisor that programs get.
const PASSED: [&str; 6] = ["HOME", "USER", "LOGNAME", "LANG", "TZ", "TERM"];

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) node: Node,
    pub(crate) store: Store,
    pub(crate) logs: LogBook,
    pub(crate) state: StateDir,
    pub(crate) plan: Plan,
    pub(crate) settings: Settings,
    pub(crate) control: inject::ControlPlane,
    pub(crate) weft: PathBuf,
    pub(crate) proxy: PathBuf,
    pub(crate) proxy_log: Option<String>,
    pub(crate) user: User,
    /// Of programs, `weft`'s own folder first.
    pub(crate) path: String,
    pub(crate) working_dir: PathBuf,
    pub(crate) numbers: Mutex<PodNumbers>,
    /// Pods changed: whoever reconciles looks again.
    pub(crate) changed: Notify,
}

/// Whose mesh it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum User {
    /// Every user of the machine can be had.
    Root,
    /// Only the caller's own.
    Ordinary(Ids),
}

impl Context {
    pub(crate) fn proxy_user(&self) -> Option<u32> {
        matches!(self.user, User::Root).then_some(PROXY_USER)
    }

    pub(crate) fn program(&self, number: u16) -> Who {
        match self.user {
            User::Root => {
                let id = FIRST_PROGRAM_USER + u32::from(number);
                Who::Program { id: Some(id), inside: Ids { uid: id, gid: id } }
            }
            User::Ordinary(inside) => Who::Program { id: None, inside },
        }
    }

    /// What programs and proxies see of the machine's files.
    pub(crate) fn view(&self, namespace: &str, pod: &str, ips: &[IpAddr], keep: Vec<PathBuf>) -> View {
        let domain = &self.settings.cluster_domain;
        let nsswitch = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
        let texts = [
            ("/etc/resolv.conf", super::names::resolv_conf(&self.plan.gateways(), namespace, domain)),
            ("/etc/hosts", super::names::hosts(ips, pod)),
            ("/etc/nsswitch.conf", super::names::nsswitch(&nsswitch)),
        ];
        View {
            state_dir: Some(self.state.path().to_owned()),
            hide: HIDDEN.map(PathBuf::from).into(),
            keep,
            // A file that the host lacks cannot be replaced, and is not missed.
            files: texts
                .into_iter()
                .map(|(p, t)| (PathBuf::from(p), t))
                .filter(|(p, _)| p.symlink_metadata().is_ok())
                .collect(),
        }
    }

    /// The variables that every program has, before its own.
    pub(crate) fn base_env(&self, pod: &str) -> Vec<(String, String)> {
        let passed = PASSED.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
        let own = [("PATH", self.path.as_str()), ("HOSTNAME", pod)].map(|(n, v)| (n.to_owned(), v.to_owned()));
        passed.chain(own).collect()
    }
}

/// Shared by tasks.
pub(crate) type Shared = Arc<Context>;
