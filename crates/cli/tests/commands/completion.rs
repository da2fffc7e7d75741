//! `weft completion`, by the shells themselves.

use crate::lab::Home;
use std::{env, process::Command};

/// What a shell says after it has run this.
fn shell(home: &Home, program: &str, script: &str) -> String {
    let weft = std::path::Path::new(env!("CARGO_BIN_EXE_weft"));
    let path = format!("{}:{}", weft.parent().unwrap().display(), env::var("PATH").unwrap());
    let mut command = Command::new(program);
    command.args(["-c", script]).env("PATH", path).env("HOME", &home.0).env_remove("KUBECONFIG");
    let output =
        command.output().unwrap_or_else(|e| panic!("{program} is missing, which `cargo xtask test` installs: {e}"));
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let home = Home::new();
    // As the line editor calls it: the words, which of them is written, and the one before.
    let asked = |words: &str, last: &str, before: &str| {
        let script = format!(
            "source <(weft completion bash); COMP_WORDS=({words} '{last}'); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); \
             $(complete -p weft | sed 's/.*-F \\([^ ]*\\).*/\\1/') weft '{last}' {before}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        shell(&home, "bash", &script).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(asked("weft", "uninst", "weft"), ["uninstall"]);
    assert!(asked("weft", "", "weft").contains(&"check".to_owned()));
    assert!(!asked("weft", "", "weft").contains(&"control-plane".to_owned()), "what is no word of people's");
    assert_eq!(asked("weft install", "--identity-issuer-k", "install"), ["--identity-issuer-key-file"]);
    assert_eq!(asked("weft check --output", "j", "--output"), ["json"]);
}

#[test]
fn zsh_reads_its_script() {
    let home = Home::new();
    let script =
        "autoload -U compinit; compinit -u -d $HOME/.dump; source <(weft completion zsh); print ${_comps[weft]}";
    assert_eq!(shell(&home, "zsh", script).trim(), "_weft");
}

#[test]
fn fish_completes_commands_and_flags() {
    let home = Home::new();
    let asked = |line: &str| shell(&home, "fish", &format!("weft completion fish | source; complete -C '{line}'"));
    assert!(asked("weft uninst").starts_with("uninstall"), "{}", asked("weft uninst"));
    assert!(asked("weft install --identity-issuer-k").starts_with("--identity-issuer-key-file"));
}

#[test]
fn only_shells_that_are_known_are_named() {
    let home = Home::new();
    let status = home.weft(&["completion", "tcsh"]).output().unwrap().status;
    assert_eq!(status.code(), Some(1), "as whatever else fails");
    let told = home.runs(&["completion", "tcsh"]);
    assert!(!told.ok && told.err.contains("[possible values: bash, zsh, fish]"), "{told:?}");
}
