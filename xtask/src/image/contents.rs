//! What is in each image: programs, the libraries that they link, and nothing else. No package manager, no user but one, and no shell
//! but in the image that is there to look around with.

use super::{
    libraries,
    tar::{Entry, NET_ADMIN, NET_RAW},
};
use crate::{run, tools::Found};
use anyhow::Context;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

pub(super) struct Content {
    pub(super) name: &'static str,
    /// Where it is in the image, and which of our programs it is.
    programs: &'static [(&'static str, &'static str, u32)],
    /// Programs of the machine: the folder in the image, and their names.
    foreign: &'static [(&'static str, &'static str)],
    /// Other names of programs, in the folder of each.
    names: &'static [(&'static str, &'static str)],
    /// Whether there is what iptables loads by name.
    extended: bool,
    entrypoint: &'static [&'static str],
    user: u32,
}

/// Linkerd's paths, so that either project's injector can use the other's image. Only what changes rules has capabilities: a program whose
/// file has some does not start where the container lacks them.
const PROXY: &[(&str, &str, u32)] = &[
    ("usr/lib/linkerd/linkerd2-proxy", "weft-proxy", 0),
    ("usr/lib/linkerd/linkerd2-proxy-init", "weft-init", NET_ADMIN | NET_RAW),
    ("usr/lib/linkerd/weft-init", "weft-init", 0),
];
/// Names of the last of these, and of what puts rules in force: nft, and iptables over nftables, one program under many names.
const NAMES: &[(&str, &str)] = &[
    ("usr/lib/linkerd/linkerd2-proxy-identity", "weft-init"),
    ("usr/lib/linkerd/linkerd2-network-validator", "weft-init"),
    ("usr/lib/linkerd/linkerd-await", "weft-init"),
    ("bin/sleep", "../usr/lib/linkerd/weft-init"),
    ("usr/sbin/iptables-nft", IPTABLES),
    ("usr/sbin/iptables-nft-save", IPTABLES),
    ("usr/sbin/iptables-nft-restore", IPTABLES),
    ("usr/sbin/ip6tables-nft", IPTABLES),
    ("usr/sbin/ip6tables-nft-save", IPTABLES),
    ("usr/sbin/ip6tables-nft-restore", IPTABLES),
];
const IPTABLES: &str = "xtables-nft-multi";
/// What iptables loads by name for our rules.
const EXTENSIONS: &[&str] = &["tcp", "multiport", "comment", "owner", "mark", "standard", "REDIRECT", "NAT"];

/// What people look into a pod with. The kubelet's probes of it are `touch`.
const DEBUG: &[(&str, &str)] = &[
    ("bin", "sh"),
    ("bin", "cat"),
    ("bin", "ls"),
    ("bin", "sleep"),
    ("bin", "touch"),
    ("usr/bin", "curl"),
    ("usr/bin", "ss"),
    ("usr/bin", "tcpdump"),
    ("usr/sbin", "ip"),
    ("usr/sbin", "nft"),
];

pub(super) const ALL: &[Content] = &[
    Content {
        name: "controller",
        programs: &[("weft", "weft", 0)],
        foreign: &[],
        names: &[],
        extended: false,
        entrypoint: &["/weft"],
        user: 2103,
    },
    Content {
        name: "proxy",
        programs: PROXY,
        foreign: &[("usr/sbin", "nft"), ("usr/sbin", IPTABLES)],
        names: NAMES,
        extended: true,
        entrypoint: &["/usr/lib/linkerd/linkerd2-proxy-identity"],
        user: 2102,
    },
    Content {
        name: "demo",
        programs: &[("weft-demo", "weft-demo", 0)],
        foreign: &[],
        // As emojivoto's manifest has it.
        names: &[("usr/local/bin/emojivoto-vote-bot", "../../../weft-demo")],
        extended: false,
        entrypoint: &["/weft-demo"],
        user: 65532,
    },
    Content {
        name: "debug",
        programs: &[],
        foreign: DEBUG,
        names: &[],
        extended: false,
        // Whatever passes in the pod, line by line, until somebody looks closer.
        entrypoint: &["/usr/bin/tcpdump", "-i", "any", "-n", "-l", "-Z", "root"],
        user: 0,
    },
];

impl Content {
    pub(super) fn config(&self) -> Value {
        json!({
            "Entrypoint": self.entrypoint,
            "User": format!("{0}:{0}", self.user),
            "WorkingDir": "/",
            "Labels": { "org.opencontainers.image.title": format!("weft/{}", self.name) },
        })
    }

    /// Our programs lose their symbols on the way; `stripped` is where to.
    pub(super) fn entries(&self, built: &Path, stripped: &Path, found: &Found) -> anyhow::Result<Vec<Entry>> {
        fs::create_dir_all(stripped)?;
        let mut files: BTreeMap<String, Entry> = BTreeMap::new();
        let mut add = |entry: Entry| files.insert(entry.path.clone(), entry);
        let mut linked = vec![];
        for (path, program, capabilities) in self.programs {
            let small = stripped.join(program);
            let program = built.join(program);
            run(found.apply(Command::new("strip").arg("-o").arg(&small).arg(&program)))
                .with_context(|| format!("{} is needed", program.display()))?;
            add(Entry::program(path, &small).with_capabilities(*capabilities));
            linked.push(small);
        }
        for (folder, program) in self.foreign {
            let file = found.program(program).with_context(|| format!("{program} is missing"))?;
            add(Entry::program(&format!("{folder}/{program}"), &file));
            linked.push(file);
        }
        for (path, to) in self.names {
            add(Entry::link(path, to));
        }
        if self.extended {
            for file in extensions(found)? {
                add(Entry::program(&in_image(&file)?, &file));
                linked.push(file);
            }
        }
        for library in libraries::of(&linked, found)? {
            add(Entry::program(&in_image(&library)?, &library));
        }
        let (mut users, mut groups) = ("root:x:0:0:root:/:/none\n".to_owned(), "root:x:0:\n".to_owned());
        if self.user != 0 {
            users += &format!("weft:x:{0}:{0}:weft:/:/none\n", self.user);
            groups += &format!("weft:x:{}:\n", self.user);
        }
        add(Entry::data("etc/passwd", users));
        add(Entry::data("etc/group", groups));
        let mut entries = folders(files.keys());
        entries.push(Entry::folder("tmp", 0o1777));
        entries.extend(files.into_values());
        Ok(entries)
    }
}

fn extensions(found: &Found) -> anyhow::Result<Vec<PathBuf>> {
    let folder = found.library_folder("xtables").context("iptables' extensions are missing (Debian: iptables)")?;
    let file = |name: &&str| folder.join(format!("libxt_{name}.so"));
    Ok(EXTENSIONS.iter().map(file).filter(|file| file.is_file()).collect())
}

/// Where a file of this machine is in the image: where it is here, but for folders that packages were unpacked into.
fn in_image(file: &Path) -> anyhow::Result<String> {
    let text = file.to_str().context("a library's path is no text")?;
    let at = ["/usr/lib/", "/lib/", "/lib64/"].iter().filter_map(|root| text.find(root)).min();
    Ok(text.get(at.context("a library is in no folder for libraries")? + 1..).unwrap_or(text).to_owned())
}

/// The folders that these files are in, each behind the one that it is in.
fn folders<'p>(paths: impl Iterator<Item = &'p String>) -> Vec<Entry> {
    let mut all: Vec<String> = paths
        .flat_map(|path| Path::new(path).ancestors().skip(1))
        .filter_map(|folder| folder.to_str().filter(|text| !text.is_empty()))
        .map(str::to_owned)
        .collect();
    all.sort();
    all.dedup();
    all.iter().map(|folder| Entry::folder(folder, 0o755)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dockerfile_gives_the_same() {
        let text = fs::read_to_string(crate::root().join("Dockerfile")).unwrap();
        let ignored = fs::read_to_string(crate::root().join(".dockerignore")).unwrap();
        assert!(ignored.lines().any(|line| line == "target"), "gigabytes would go to the engine first");
        let base = text.lines().find_map(|line| line.strip_prefix("ARG BASE=")).unwrap();
        assert!(base.starts_with("gcr.io/distroless/static-debian") && base.contains(':'), "{base}");
        for Content { name, entrypoint, user, .. } in ALL {
            let stage = text.split("\nFROM ").find(|stage| stage.contains(&format!(" AS {name}\n"))).unwrap();
            assert!(stage.starts_with("${BASE} "), "{stage}");
            let words = entrypoint.join("\", \"");
            let expected =
                format!("COPY --from=build /rootfs/{name}/ /\nUSER {user}:{user}\nENTRYPOINT [\"{words}\"]\n");
            assert!(format!("{stage}\n").contains(&expected), "{stage}");
        }
    }

    #[test]
    fn folders_stand_in_front_of_what_they_hold() {
        let paths = ["usr/lib/a/b".to_owned(), "usr/sbin/c".to_owned(), "d".to_owned()];
        let folders: Vec<_> = folders(paths.iter()).into_iter().map(|entry| entry.path).collect();
        assert_eq!(folders, ["usr", "usr/lib", "usr/lib/a", "usr/sbin"]);
    }

    #[test]
    fn libraries_keep_their_place() {
        assert_eq!(in_image(Path::new("/lib64/ld.so")).unwrap(), "lib64/ld.so");
        assert_eq!(in_image(Path::new("/home/u/.cache/weft/debian/usr/lib/x/y.so")).unwrap(), "usr/lib/x/y.so");
        assert!(in_image(Path::new("/opt/y.so")).is_err());
    }
}
