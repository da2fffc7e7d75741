//! The reference of all variables, made from the table.

use super::table::{Acts, Default, Form, SECTIONS};
use std::fmt::Write;

/// `docs/reference/proxy-env.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "# The environment of weft-proxy\n\n\
         Made from `crates/proxy/src/config/table.rs`; do not edit. To make it anew:\n\
         `WEFT_UPDATE=1 cargo test -p weft-proxy --test proxy env`.\n\n\
         An empty value counts as not set. All values are checked before a port opens; if any is wrong, all problems are\n\
         reported and the exit status is 64. Durations are a number with `ms`, `s`, `m`, `h` or `d`; lists are separated by commas.\n\
         \"no\" under *acts* means that this build lacks the function: a warning at start names such variables when they are set.\n",
    );
    for (title, vars) in SECTIONS {
        // Writing to a string cannot fail.
        let _ = write!(out, "\n## {title}\n\n| variable | form | default | acts | meaning |\n|---|---|---|---|---|\n");
        for var in *vars {
            let default = match var.default {
                Default::Value("") => "empty".to_owned(),
                Default::Value(text) => format!("`{text}`"),
                Default::Unset => "–".to_owned(),
                Default::Required => "required".to_owned(),
                Default::Derived(text) => text.to_owned(),
            };
            let acts = match var.acts {
                Acts::Yes => "yes",
                Acts::NotBuilt => "no",
                Acts::Ignored => "never",
            };
            let _ = writeln!(out, "| `{}` | {} | {default} | {acts} | {} |", var.name, form(var.form), var.doc);
        }
    }
    out
}

fn form(form: Form) -> String {
    match form {
        Form::Duration => "duration".into(),
        Form::Bool => "`true` or `false`".into(),
        Form::Number => "number".into(),
        Form::Ratio => "number, > 0, ≤ 1".into(),
        Form::Ports => "ports `N` or `A-B`".into(),
        Form::Networks => "networks".into(),
        Form::Ips => "IP addresses".into(),
        Form::SocketAddr => "`ip:port`".into(),
        Form::SocketAddrs => "`ip:port`, `ip:port`".into(),
        Form::Address => "`ip:port` or `name:port`".into(),
        Form::Name => "name".into(),
        Form::Suffixes => "DNS suffixes".into(),
        Form::Path => "path".into(),
        Form::Text => "text".into(),
        Form::Pem => "PEM".into(),
        Form::OneOf(values) => values.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", "),
    }
}
