//! `docs/reference/commands.md`: every command with its arguments and flags, as clap knows them.

use clap::{Arg, ArgAction, Command};
use std::fmt::Write;

const HEAD: &str = "# The commands of weft

Made from the words that `weft` reads; do not edit. To make it anew:
`WEFT_UPDATE=1 cargo test --workspace --bins the_reference_is_what_the_commands_read`.

Exit status 0 is success and 1 any failure, words that are not understood included; of `weft policy` 1 is \"denied\" or \"not as
expected\", and 2 any failure. What goes on is told on standard error.
Commands that ask a mesh mean the one that is named, by `--local`, `--state DIR`, `--kubeconfig FILE` or `--context NAME`; else the one
that runs in the state folder; else the cluster of the kubeconfig. Where there are both the chosen one is named, and the commands that
print what changes a cluster (`install`, `upgrade`, `prune`, `uninstall`, `inject --manual`) want it named. `--kubeconfig`, `--context` and
`--linkerd-namespace` may stand before the command as well, and what is on or off may say so (`--ha=true`).
";

pub(super) fn markdown(mut root: Command) -> String {
    root.build();
    let mut text = HEAD.to_owned();
    let globals: Vec<&Arg> = root.get_arguments().filter(|arg| arg.is_global_set()).collect();
    let _ = write!(text, "\n## Flags of every command\n\n{}", table(globals.into_iter()));
    commands(&root, "weft", &mut text);
    text
}

/// Each command of `of`, and behind it those that it has itself.
fn commands(of: &Command, path: &str, text: &mut String) {
    for command in of.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        let about = sentence(&command.get_about().map(ToString::to_string).unwrap_or_default());
        let path = format!("{path} {}", command.get_name());
        let _ = write!(text, "\n## {path}\n\n{about}\n");
        let own = |arg: &&Arg| !arg.is_global_set() && !arg.is_hide_set() && !is_usual(arg);
        let arguments: Vec<&Arg> = command.get_arguments().filter(own).collect();
        if !arguments.is_empty() {
            let _ = write!(text, "\n{}", table(arguments.into_iter()));
        }
        commands(command, &path, text);
    }
}

/// What clap gives every command.
fn is_usual(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
}

fn table<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let mut text = "| flag | default | meaning |\n|---|---|---|\n".to_owned();
    for arg in arguments.filter(|arg| !is_usual(arg)) {
        let _ = writeln!(text, "| {} | {} | {} |", cell(&shown(arg)), cell(&default(arg)), cell(&meaning(arg)));
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// `-n, --namespace NAMESPACE`.
fn shown(arg: &Arg) -> String {
    let value = if arg.get_action().takes_values() {
        let names = arg.get_value_names().unwrap_or_default();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        names.join(" ")
    } else {
        String::new()
    };
    let many = if arg.is_positional() && arg.get_num_args().is_some_and(|n| n.max_values() > 1) { "…" } else { "" };
    let flags = [arg.get_short().map(|short| format!("-{short}")), arg.get_long().map(|long| format!("--{long}"))];
    let flags: Vec<String> = flags.into_iter().flatten().collect();
    format!("`{}`", [flags.join(", "), value + many].join(" ").trim())
}

fn default(arg: &Arg) -> String {
    let values: Vec<String> = arg.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
    let is_switch = !arg.get_action().takes_values();
    match arg.get_env() {
        Some(env) if values.is_empty() => format!("`${}`", env.to_string_lossy()),
        Some(env) => format!("`${}`, or `{}`", env.to_string_lossy(), values.join(",")),
        None if values.is_empty() || is_switch => String::new(),
        None => format!("`{}`", values.join(",")),
    }
}

fn meaning(arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let possible = arg.get_possible_values();
    if arg.get_action().takes_values() && !possible.is_empty() {
        let names: Vec<String> = possible.iter().map(|value| format!("`{}`", value.get_name())).collect();
        text = [sentence(&text), format!("One of {}", names.join(", "))].join(" ").trim().to_owned();
    }
    sentence(&text)
}

/// clap takes away the stop at the end.
fn sentence(text: &str) -> String {
    let stops = text.is_empty() || text.ends_with(['.', ']', ':', '?']);
    format!("{text}{}", if stops { "" } else { "." })
}

#[cfg(test)]
mod tests {
    use super::super::Args;
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_reference_is_what_the_commands_read() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/commands.md");
        let made = markdown(Args::command());
        if std::env::var_os("WEFT_UPDATE").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let stands = std::fs::read_to_string(path).unwrap_or_default();
        assert!(made == stands, "docs/reference/commands.md is not what the commands read: run with WEFT_UPDATE=1");
    }
}
