//! Words as Linkerd's command line takes them, in the way that clap reads them.
//!
//! Flags of a cluster may stand before the command (`weft --context west check`), a switch may say what it is (`--ha=true`), and
//! processes of the control plane take one dash where Go's programs do.

use super::Args;
use clap::{Arg, ArgAction, Command, CommandFactory};
use std::{ffi::OsString, iter::Peekable, vec::IntoIter};

/// Flags that every command of Linkerd's has, each with a value.
const OF_CLUSTERS: [&str; 4] = ["--kubeconfig", "--context", "--linkerd-namespace", "-L"];
const STATE: &str = "--state";
/// What stands behind it is no word of ours.
const REST: &str = "--";

/// The arguments of this process, the program among them.
pub(crate) fn as_clap_reads(arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_some_and(|command| command == "control-plane") {
        return arguments.into_iter().map(with_two_dashes).collect();
    }
    let mut words = arguments.into_iter().peekable();
    let mut program: Vec<OsString> = words.next().into_iter().collect();
    let (before, of_cluster) = leading(&mut words);
    program.extend(before);
    let mut own: Vec<OsString> = words.collect();
    let end = own.iter().position(|word| word == REST).unwrap_or(own.len());
    let rest = own.split_off(end);
    own.extend(of_cluster);
    let command = meant(Args::command(), &own);
    program.extend(own.into_iter().filter_map(|word| switched(&command, word)));
    program.extend(rest);
    program
}

/// What stands before the command: the rest, and what belongs behind it.
fn leading(words: &mut Peekable<IntoIter<OsString>>) -> (Vec<OsString>, Vec<OsString>) {
    let (mut before, mut of_cluster) = (vec![], vec![]);
    while let Some(word) = words.next_if(|word| word.to_string_lossy().starts_with('-') && word != REST) {
        let text = word.to_string_lossy();
        let name = text.split_once('=').map_or(&*text, |(name, _)| name);
        let is_short = text.starts_with("-L") && text.len() > 2;
        let to = if OF_CLUSTERS.contains(&name) || is_short { &mut of_cluster } else { &mut before };
        let has_value = name == text && !is_short && (name == STATE || OF_CLUSTERS.contains(&name));
        to.push(word.clone());
        if has_value {
            to.extend(words.next());
        }
    }
    (before, of_cluster)
}

/// The command that the first words name.
fn meant(mut command: Command, words: &[OsString]) -> Command {
    for word in words {
        match command.find_subcommand(word) {
            Some(found) => command = found.clone(),
            None => break,
        }
    }
    command
}

/// A switch that says what it is, without that; nothing if it says no.
fn switched(command: &Command, word: OsString) -> Option<OsString> {
    let said = || {
        let (name, value) = word.to_str()?.strip_prefix("--")?.split_once('=')?;
        let is = |arg: &&Arg| arg.get_long() == Some(name) && matches!(arg.get_action(), ArgAction::SetTrue);
        command.get_arguments().find(is)?;
        // Go's words for truth values.
        match value {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(Some(format!("--{name}").into())),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(None),
            _ => None,
        }
    };
    said().unwrap_or_else(|| Some(word.clone()))
}

/// Values of Linkerd's chart (`destinationController.additionalArgs`) have one or two.
fn with_two_dashes(argument: OsString) -> OsString {
    match argument.to_str() {
        Some(text) if text.len() > 2 && text.starts_with('-') && !text.starts_with("--") => format!("-{text}").into(),
        _ => argument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command as Words, ControlPlaneMode};
    use clap::Parser;

    fn written(words: &str) -> Vec<OsString> {
        as_clap_reads(std::iter::once("weft").chain(words.split(' ')).map(OsString::from).collect())
    }

    #[test]
    fn processes_of_the_control_plane_take_one_dash_as_well() {
        for flag in ["-ext-endpoint-zone-weights", "--ext-endpoint-zone-weights", "-ext-endpoint-zone-weights=true"] {
            let words = written(&format!("control-plane destination {flag}"));
            let Ok(Words::ControlPlane(process)) = Args::try_parse_from(words).map(|args| args.command) else {
                panic!("{flag}")
            };
            let ControlPlaneMode::Destination { ext_endpoint_zone_weights, .. } = process.mode else { panic!() };
            assert!(ext_endpoint_zone_weights, "{flag}");
        }
        assert!(Args::try_parse_from(written("-up")).is_err());
    }

    #[test]
    fn flags_of_a_cluster_may_stand_before_the_command_and_switches_say_what_they_are() {
        for (words, expected) in [
            ("--context west check --proxy", "check --proxy --context west"),
            ("--context=west -Lmesh --state s -L mesh uninstall", "--state s uninstall --context=west -Lmesh -L mesh"),
            ("--kubeconfig f diagnostics endpoints a:1", "diagnostics endpoints a:1 --kubeconfig f"),
            ("--context west run --name a -- b --ha=true", "run --name a --context west -- b --ha=true"),
            ("install --ha=true --crds=false --disable-heartbeat=1", "install --ha --disable-heartbeat"),
            ("check --proxy=T --namespace=true", "check --proxy --namespace=true"),
            ("install --ha=maybe --native-sidecar=false", "install --ha=maybe --native-sidecar=false"),
            ("inject --manual=f --native-sidecar=false -", "inject --native-sidecar=false -"),
            ("--help", "--help"),
            ("--context", "--context"),
        ] {
            let expected: Vec<OsString> = ["weft"].into_iter().chain(expected.split(' ')).map(OsString::from).collect();
            assert_eq!(written(words), expected, "{words}");
        }
        let Words::Check(check) = Args::parse_from(written("--context west -L mesh check --proxy=true")).command else {
            panic!()
        };
        assert_eq!(check.of.to.context.as_deref(), Some("west"));
        assert_eq!((check.of.to.linkerd_namespace.as_str(), check.proxy), ("mesh", true));
    }
}
