//! `weft-init`: the helpers of the proxy's image, under Linkerd's names. Which of them it is says the name that it is called by, or the
//! first argument.
//!
//! ```text
//! pod starts ─► linkerd2-proxy-init (rules)  or, with CNI, linkerd2-network-validator (are there rules?)
//!            ─► linkerd2-proxy-identity ─► linkerd2-proxy
//!            ─► linkerd-await (before the application), sleep (before the proxy's end)
//! ```
//! Small, over `transport`; it knows nothing of Kubernetes and has no part in traffic.

#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a program's last words")]

mod identity;
mod logs;
mod redirect;
mod rights;
mod validate;
mod wait;

use clap::Parser;
use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

/// One of the helpers: it gets its name and arguments as clap wants them.
type Role = fn(Vec<OsString>) -> ExitCode;

const ROLES: &[(&str, Role)] = &[
    ("linkerd2-proxy-init", |arguments| done(redirect::run(&redirect::Flags::parse_from(arguments)))),
    ("linkerd2-network-validator", |arguments| validate::run(&validate::Flags::parse_from(arguments))),
    ("linkerd-await", |arguments| wait::run(&wait::Flags::parse_from(arguments))),
    ("linkerd2-proxy-identity", |arguments| done(identity::run(&arguments))),
    ("sleep", |arguments| done(wait::sleep(&wait::Sleep::parse_from(arguments)))),
];

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = env::args_os().collect();
    let role = |arguments: &[OsString]| {
        let name = Path::new(arguments.first()?).file_name()?;
        ROLES.iter().find(|(known, _)| OsStr::new(known) == name).map(|(_, role)| *role)
    };
    if role(&arguments).is_none() && !arguments.is_empty() {
        arguments.remove(0);
    }
    if let Some(role) = role(&arguments) {
        return role(arguments);
    }
    let names: Vec<_> = ROLES.iter().map(|(name, _)| *name).collect();
    eprintln!("weft-init {}: call it as, or with the first argument: {}", env!("CARGO_PKG_VERSION"), names.join(", "));
    ExitCode::from(2)
}

fn done(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
