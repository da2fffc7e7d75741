//! What was done with manifests, in Linkerd's words: scripts read them.

use super::{Changed, Report, Skip};
use std::fmt::Write;

const FINE: &str = "√";
const WARNING: &str = "‼";

/// What `weft inject` says, between empty lines that keep it apart from the manifests; `verbose` tells what is fine as well.
pub fn injected(changed: &Changed, verbose: bool) -> String {
    let reports = &changed.reports;
    let named = |found: fn(&Report) -> bool| {
        let names: Vec<String> = reports.iter().filter(|r| found(r)).map(Report::resource).collect();
        (!names.is_empty()).then(|| (names.len(), names.join(", ")))
    };
    let disabled = named(|r| r.skipped.contains(&Skip::Disabled));
    let udp = named(|r| r.udp && r.is_injected());
    let any = reports.iter().any(|r| r.is_injected() || r.annotatable);
    let checks = [
        // Objects that fail these two are not printed at all.
        (None, "pods do not use host networking"),
        (None, "pods do not have a 3rd party proxy or initContainer already injected"),
        (
            disabled.map(|(_, names)| format!("\"linkerd.io/inject: disabled\" annotation set on {names}")),
            "pods are not annotated to disable injection",
        ),
        ((!any).then(|| "no supported objects found".to_owned()), "at least one resource can be injected or annotated"),
        (
            udp.map(|(count, names)| format!("{names} {} \"protocol: UDP\"", if count == 1 { "uses" } else { "use" })),
            "pod specs do not include UDP ports",
        ),
    ];
    let mut out = "\n".to_owned();
    let mut told = verbose;
    for (wrong, fine) in checks {
        match wrong {
            Some(wrong) => {
                told = true;
                let _ = writeln!(out, "{WARNING} {wrong}");
            }
            None if verbose => {
                let _ = writeln!(out, "{FINE} {fine}");
            }
            None => {}
        }
    }
    for (object, warning) in &changed.warnings {
        told = true;
        let _ = writeln!(out, "{WARNING} {object}: {}: {}", warning.key, warning.message);
    }
    if told {
        out.push('\n');
    }
    for report in reports {
        let done = if report.is_injected() {
            "injected"
        } else if report.annotated {
            "annotated"
        } else {
            "skipped"
        };
        line(report, done, &mut out);
    }
    out.push('\n');
    out
}

/// What `weft uninject` says.
pub fn uninjected(changed: &Changed) -> String {
    let mut out = "\n".to_owned();
    for report in &changed.reports {
        line(report, if report.uninjected { "uninjected" } else { "skipped" }, &mut out);
    }
    out.push('\n');
    out
}

fn line(report: &Report, done: &str, out: &mut String) {
    let _ = if report.kind.is_empty() {
        writeln!(out, "document missing \"kind\" field, skipped")
    } else {
        writeln!(out, "{} \"{}\" {done}", report.kind, report.name)
    };
}
