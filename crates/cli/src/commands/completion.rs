//! `weft completion`: what makes a shell complete weft's words.

use crate::{
    args::{Args, Completion, Shell},
    print,
};
use clap::{Command, CommandFactory};
use clap_complete::shells::{Bash, Fish, Zsh};
use std::process::ExitCode;

pub(crate) fn run(args: &Completion) -> anyhow::Result<ExitCode> {
    print::text(&script(args.shell))?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> String {
    let (mut words, mut script) = (of_people(&Args::command()), vec![]);
    match shell {
        Shell::Bash => clap_complete::generate(Bash, &mut words, "weft", &mut script),
        Shell::Zsh => clap_complete::generate(Zsh, &mut words, "weft", &mut script),
        Shell::Fish => clap_complete::generate(Fish, &mut words, "weft", &mut script),
    }
    String::from_utf8_lossy(&script).into_owned()
}

/// Without the commands that no person types.
fn of_people(all: &Command) -> Command {
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set());
    Command::new("weft").args(all.get_arguments()).subcommands(shown)
}
