//! `weft check`: what is looked at, and how it came out.

use super::meant::{self, Folder, Meant};
use crate::{
    args::{Check, CheckOutput},
    print,
};
use serde_json::{Value, json};
use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::SystemTime,
};
use weft_cluster::kubernetes::connect_as_user;
use weft_control::check::{self, Line, Options, Outcome, Report, Told, What};
use weft_local::{Client, check as local};

/// Where each line is explained.
const HINTS: &str = "docs/reference/check.md";

pub(crate) async fn run(folder: &Folder, args: Check) -> anyhow::Result<ExitCode> {
    let meant = match args.pre || args.crds {
        true => {
            meant::cluster_alone(folder, &args.of.to).await?;
            Meant::Cluster
        }
        false => meant::mesh(folder, &args.of).await?,
    };
    let output = args.output;
    let mut shown = Shown { output, category: "", waits: std::io::stderr().is_terminal() };
    let report = match meant {
        Meant::Local(client) => of_the_machine(&client, args, &mut shown).await,
        Meant::Cluster => of_a_cluster(args, &mut shown).await,
    };
    match output {
        CheckOutput::Json => show(&format!("{:#}\n", json(&report))),
        CheckOutput::Table | CheckOutput::Short => show(&footer(&report)),
    }
    Ok(if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn of_the_machine(client: &Client, args: Check, shown: &mut Shown) -> Report {
    let options = local::Options {
        pods: args.proxy.then_some(args.namespace),
        wait: args.wait,
        version: version(args.expected_version),
    };
    local::check(client, &options, jiff::Timestamp::now(), &mut |told| shown.tell(&told)).await
}

async fn of_a_cluster(args: Check, shown: &mut Shown) -> Report {
    let what = match (args.pre, args.crds, args.proxy) {
        (true, ..) => What::Pre,
        (_, true, _) => What::Crds,
        (.., true) => What::DataPlane(args.namespace),
        _ => What::ControlPlane,
    };
    let to = args.of.to;
    let version = version(args.expected_version);
    let options = Options { what, namespace: to.linkerd_namespace, wait: args.wait, version };
    let client = connect_as_user(to.kubeconfig.as_deref(), to.context.as_deref()).await;
    check::run(client, &options, SystemTime::now(), &mut |told| shown.tell(&told)).await
}

fn version(expected: Option<String>) -> String {
    expected.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned())
}

/// Line by line, while it goes on.
struct Shown {
    output: CheckOutput,
    category: &'static str,
    /// Whether somebody watches who is told what is waited for.
    waits: bool,
}

impl Shown {
    fn tell(&mut self, told: &Told<'_>) {
        match told {
            Told::Waiting(check, why) if self.waits && self.output == CheckOutput::Table => {
                // Over itself, until the line that it becomes.
                let _ = write!(std::io::stderr(), "\r\x1b[K| {}: {why}", check.description);
            }
            Told::Waiting(..) => {}
            Told::Line(line) => {
                if self.waits && line.check.retried && self.output == CheckOutput::Table {
                    let _ = write!(std::io::stderr(), "\r\x1b[K");
                }
                show(&self.text(line));
            }
        }
    }

    fn text(&mut self, line: &Line) -> String {
        let is_told = match self.output {
            CheckOutput::Json => false,
            CheckOutput::Short => line.error.is_some(),
            CheckOutput::Table => true,
        };
        if !is_told {
            return String::new();
        }
        let mut text = String::new();
        if self.category != line.check.category {
            let blank = if self.category.is_empty() { "" } else { "\n" };
            self.category = line.check.category;
            text = format!("{blank}{}\n{}\n", self.category, "-".repeat(self.category.len()));
        }
        let symbol = match line.result() {
            Outcome::Success => '√',
            Outcome::Warning => '‼',
            Outcome::Error => '×',
        };
        text += &format!("{symbol} {}\n", line.check.description);
        if let Some(error) = &line.error {
            let error = error.trim_end().replace('\n', "\n    ");
            text += &format!(
                "    {error}\n    to mend it: {}\n    see {HINTS}#{} for hints\n",
                line.remedy, line.check.anchor
            );
        }
        text
    }
}

fn footer(report: &Report) -> String {
    format!("\nStatus check results are {}\n", if report.is_success() { '√' } else { '×' })
}

fn json(report: &Report) -> Value {
    let mut categories: Vec<Value> = vec![];
    for line in &report.0 {
        let mut check = json!({ "description": line.check.description, "result": line.result() });
        if let Some(error) = &line.error {
            check["hint"] = json!(format!("{HINTS}#{}", line.check.anchor));
            check["error"] = json!(format!("{error}; to mend it: {}", line.remedy));
        }
        match categories.last_mut().filter(|c| c["categoryName"] == line.check.category) {
            Some(category) => {
                if let Some(checks) = category["checks"].as_array_mut() {
                    checks.push(check);
                }
            }
            None => categories.push(json!({ "categoryName": line.check.category, "checks": [check] })),
        }
    }
    json!({ "success": report.is_success(), "categories": categories })
}

fn show(text: &str) {
    let mut out = std::io::stdout();
    // A reader that has gone does not want the rest.
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        print::error("");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let line = |description, error: Option<&str>| {
            let check = check::ALL.iter().copied().find(|check| check.description == description).unwrap();
            let remedy = check.remedy.of(&check::Installer::default());
            Line { check, error: error.map(str::to_owned), remedy }
        };
        Report(vec![
            line("can initialize the client", None),
            line("can query the Kubernetes API", Some("refused\nand more")),
            line("no unschedulable pods", Some("few")),
        ])
    }

    #[test]
    fn lines_are_shown_as_linkerds() {
        let shown = |output| {
            let mut shown = Shown { output, category: "", waits: false };
            report().0.iter().map(|line| shown.text(line)).collect::<String>() + &footer(&report())
        };
        insta::assert_snapshot!("table", shown(CheckOutput::Table));
        insta::assert_snapshot!("short", shown(CheckOutput::Short));
        insta::assert_snapshot!("json", format!("{:#}", json(&report())));
        assert!(Report(report().0[..1].to_vec()).is_success());
    }
}
