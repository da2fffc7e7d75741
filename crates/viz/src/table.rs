//! Edges as a table for a terminal. What is not known is shown as `–`, never as zero.

use crate::edges::{Edge, Edges};
use comfy_table::{Cell, CellAlignment, Color, Table, presets::UTF8_HORIZONTAL_ONLY};

/// A table at most `width` columns wide.
pub fn edges(edges: &Edges, width: u16, colour: bool) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_width(width);
    if !colour {
        table.force_no_tty();
    }
    table.set_header([
        "from",
        "to",
        "kind",
        "success",
        "req/s",
        "p50",
        "p95",
        "p99",
        "secured",
        "client → server identity",
    ]);
    for edge in &edges.edges {
        table.add_row(row(edge));
    }
    for column in 3..=7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// How much of the traffic between workloads is mTLS, for a headline.
pub fn share(edges: &Edges) -> String {
    match edges.mtls_share {
        // Rounded down: 100 means all of them.
        Some(share) => format!("{:.0} % of connections between workloads are mTLS", (share * 100.0).floor()),
        None => "no connection between workloads yet: how many are mTLS is not known".into(),
    }
}

/// A line for each edge where failures begin.
pub fn origins(edges: &Edges) -> String {
    let line = |edge: &&Edge| {
        let failed = edge.success_rate.map_or(0.0, |rate| (1.0 - rate) * 100.0);
        format!("▲ {} fails {failed:.1} % of the {:.1} req/s from {}\n", edge.to, edge.rps, edge.from)
    };
    edges.origins().iter().map(line).collect()
}

fn row(edge: &Edge) -> Vec<Cell> {
    let success = match edge.success_rate {
        Some(rate) => format!("{:.1} %", rate * 100.0),
        None => "–".into(),
    };
    let millis = |value: Option<f64>| value.map_or_else(|| "–".into(), |v| format!("{v:.0} ms"));
    let success = if edge.fails() { Cell::new(format!("▲ {success}")).fg(Color::Red) } else { Cell::new(success) };
    let secured = if edge.mtls { Cell::new("mTLS") } else { Cell::new("✗ plain").fg(Color::Yellow) };
    let identities =
        if edge.mtls { format!("{} → {}", short(&edge.client_id), short(&edge.server_id)) } else { "–".into() };
    vec![
        Cell::new(named(&edge.from, &edge.from_namespace, &edge.to_namespace)),
        Cell::new(named(&edge.to, &edge.to_namespace, &edge.from_namespace)),
        Cell::new(&edge.protocol),
        success,
        Cell::new(format!("{:.1}", edge.rps)),
        Cell::new(millis(edge.p50_ms)),
        Cell::new(millis(edge.p95_ms)),
        Cell::new(millis(edge.p99_ms)),
        secured,
        Cell::new(identities),
    ]
}

/// The namespace only where both ends differ.
fn named(name: &str, namespace: &str, other: &str) -> String {
    if namespace == other { name.to_owned() } else { format!("{name}.{namespace}") }
}

/// Account and namespace of an identity: `web.emojivoto`.
fn short(identity: &str) -> &str {
    identity.split_once(".serviceaccount.").map_or(identity, |(account, _)| account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_this() {
        let edge = |to: &str, success_rate, mtls| Edge {
            from: "web".into(),
            from_namespace: "emojivoto".into(),
            to: to.into(),
            to_namespace: "emojivoto".into(),
            protocol: "grpc".into(),
            success_rate,
            rps: 1.96,
            p50_ms: Some(1.0),
            p95_ms: Some(4.2),
            p99_ms: None,
            mtls,
            client_id: "web.emojivoto.serviceaccount.identity.linkerd.cluster.local".into(),
            server_id: format!("{to}.emojivoto.serviceaccount.identity.linkerd.cluster.local"),
        };
        let all = Edges {
            edges: vec![edge("emoji", Some(1.0), true), edge("voting", Some(0.842), true), edge("db", None, false)],
            mtls_share: Some(0.67),
        };
        insta::assert_snapshot!(edges(&all, 120, false));
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        let share = |mtls_share| share(&Edges { edges: vec![], mtls_share });
        assert_eq!(share(Some(0.5)), "50 % of connections between workloads are mTLS");
        // Rounding must not hide a connection in the clear.
        assert_eq!(share(Some(0.999)), "99 % of connections between workloads are mTLS");
        assert_eq!(share(Some(1.0)), "100 % of connections between workloads are mTLS");
        assert_eq!(share(None), "no connection between workloads yet: how many are mTLS is not known");
    }
}
