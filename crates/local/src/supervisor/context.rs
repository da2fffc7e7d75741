//! What all parts of the supervisor share.

use super::{
    folders::Folders, hands::Node, logs::LogBook, plan::Plan, plan::PodNumbers, state::StateDir, store::Store,
};
use crate::launch::{Ids, View, Who};
use parking_lot::Mutex;
use std::{net::IpAddr, path::PathBuf, sync::Arc};
use tokio::sync::Notify;
use weft_cluster::{index::Settings, inject};

/// The proxies' user, as in Linkerd's image.
const PROXY_USER: u32 = 2102;
/// Programs' users: one of these and the pod's number, the first that the caller's user namespace has.
const FIRST_PROGRAM_USERS: [u32; 2] = [200_000, 20_000];
/// Pods have numbers below this.
const PROGRAM_USERS: u32 = 0x8000;
/// As whom a program sees itself where its only user is root of some other namespace.
const PROGRAM_INSIDE: u32 = 1000;
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
    /// Where programs may read what their user may: the user's state folders.
    pub(crate) folders: Option<Folders>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// Other users can be had: programs' begin with this one.
    Root { programs: u32 },
    /// Only the caller's own, which programs see as this one.
    Ordinary(Ids),
}

impl User {
    /// The caller; `map` is its `/proc/self/uid_map`, since root of a container may have few users or none but itself.
    pub(crate) fn of(uid: u32, gid: u32, map: &str) -> Self {
        if uid != 0 {
            return Self::Ordinary(Ids { uid, gid });
        }
        let has = |first: u32, count: u32| {
            extents(map).any(|(start, length)| {
                start <= first && u64::from(first) + u64::from(count) <= u64::from(start) + u64::from(length)
            })
        };
        let programs = FIRST_PROGRAM_USERS.into_iter().find(|first| has(*first, PROGRAM_USERS));
        match programs.filter(|_| has(PROXY_USER, 1)) {
            Some(programs) => Self::Root { programs },
            None => Self::Ordinary(Ids { uid: PROGRAM_INSIDE, gid: PROGRAM_INSIDE }),
        }
    }
}

/// The ranges of ids that a user namespace has, from the text of its map.
pub(crate) fn extents(map: &str) -> impl Iterator<Item = (u32, u32)> {
    map.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let first = fields.next()?.parse().ok()?;
        Some((first, fields.nth(1)?.parse().ok()?))
    })
}

impl Context {
    pub(crate) fn proxy_user(&self) -> Option<u32> {
        matches!(self.user, User::Root { .. }).then_some(PROXY_USER)
    }

    pub(crate) fn program(&self, number: u16) -> Who {
        match self.user {
            User::Root { programs } => {
                let id = programs + u32::from(number);
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
            others: self.folders.as_ref().map(|f| f.others(self.state.path())).unwrap_or_default(),
            hide: HIDDEN
                .map(PathBuf::from)
                .into_iter()
                .chain(self.folders.iter().map(|f| f.list().to_owned()))
                .collect(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_of_a_container_has_the_users_that_it_has() {
        assert_eq!(User::of(0, 0, "         0          0 4294967295\n"), User::Root { programs: 200_000 });
        assert_eq!(User::of(0, 0, "0 100000 65536\n"), User::Root { programs: 20_000 });
        let alone = User::Ordinary(Ids { uid: PROGRAM_INSIDE, gid: PROGRAM_INSIDE });
        assert_eq!(User::of(0, 0, "0 1001 1\n"), alone);
        assert_eq!(User::of(0, 0, "0 1001 1\n1 100000 999\n"), alone);
        let own = Ids { uid: 1001, gid: 100 };
        assert_eq!(User::of(1001, 100, "0 0 4294967295\n"), User::Ordinary(own));
        assert_eq!(extents("0 100000 65536\n70000 5 2\nnonsense\n").collect::<Vec<_>>(), [(0, 65536), (70000, 2)]);
    }
}
