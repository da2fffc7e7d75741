//! Edges as a table for a terminal. What is not known is shown as `–`, never as zero.

use crate::edges::{Edge, Edges};
use comfy_table::{
    Cell, CellAlignment, Color, ContentArrangement, Table,
    presets::{NOTHING, UTF8_HORIZONTAL_ONLY},
};

const HEADER: [&str; 9] = ["from", "to", "kind", "success", "req/s", "p50", "p95", "p99", "secured"];
const IDENTITIES: &str = "client → server identity";

/// A table at most `width` columns wide. Where identities do not fit beside the numbers they stand below.
pub fn edges(edges: &Edges, width: u16, colour: bool) -> String {
    let fits = |table: &Table| table.lines().all(|line| line.chars().count() <= usize::from(width));
    if fits(&table(edges, true, false)) {
        return table(edges, true, colour).to_string();
    }
    let mut narrow = table(edges, false, colour);
    if !fits(&table(edges, false, false)) {
        narrow.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    let mut text = narrow.to_string();
    let secured: Vec<&Edge> = edges.edges.iter().filter(|edge| edge.mtls).collect();
    if !secured.is_empty() {
        text.push_str(&format!("\n {IDENTITIES}"));
    }
    for edge in secured {
        text.push_str(&format!("\n {}", identities(edge)));
    }
    text
}

/// A table without rules and identities for little room: at most `width` columns and `height` lines, the rest is cut.
pub fn compact(edges: &Edges, width: u16, height: u16, colour: bool) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    if !colour {
        table.force_no_tty();
    }
    table.set_content_arrangement(ContentArrangement::Disabled);
    // From what matters most; how many of them the width has room for is found out.
    let columns = [0, 1, 3, 8, 4, 6];
    for count in (1..=columns.len()).rev() {
        let chosen: Vec<usize> = columns.iter().copied().take(count).collect();
        let pick = |cells: Vec<Cell>| -> Vec<Cell> { chosen.iter().filter_map(|i| cells.get(*i).cloned()).collect() };
        let mut table = table.clone();
        table.set_header(pick(HEADER.map(Cell::new).into()));
        for edge in edges.edges.iter().take(usize::from(height.saturating_sub(1))) {
            table.add_row(pick(row(edge, false)));
        }
        let mut bare = table.clone();
        bare.force_no_tty();
        if count == 1 || bare.lines().all(|line| line.trim_end().chars().count() <= usize::from(width)) {
            return table.trim_fmt();
        }
    }
    String::new()
}

fn table(edges: &Edges, with_identities: bool, colour: bool) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    if !colour {
        table.force_no_tty();
    }
    table.set_header(HEADER.into_iter().chain(with_identities.then_some(IDENTITIES)));
    for edge in &edges.edges {
        table.add_row(row(edge, with_identities));
    }
    for column in 3..=7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
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

fn row(edge: &Edge, with_identities: bool) -> Vec<Cell> {
    let success = match edge.success_rate {
        Some(rate) => format!("{:.1} %", rate * 100.0),
        None => "–".into(),
    };
    let millis = |value: Option<f64>| value.map_or_else(|| "–".into(), |v| format!("{v:.0} ms"));
    let success = if edge.fails() { Cell::new(format!("▲ {success}")).fg(Color::Red) } else { Cell::new(success) };
    let secured = if edge.mtls { Cell::new("mTLS") } else { Cell::new("✗ plain").fg(Color::Yellow) };
    let mut cells = vec![
        Cell::new(named(&edge.from, &edge.from_namespace, &edge.to_namespace)),
        Cell::new(named(&edge.to, &edge.to_namespace, &edge.from_namespace)),
        Cell::new(&edge.protocol),
        success,
        Cell::new(format!("{:.1}", edge.rps)),
        Cell::new(millis(edge.p50_ms)),
        Cell::new(millis(edge.p95_ms)),
        Cell::new(millis(edge.p99_ms)),
        secured,
    ];
    if with_identities {
        cells.push(Cell::new(identities(edge)));
    }
    cells
}

fn identities(edge: &Edge) -> String {
    if edge.mtls { format!("{} → {}", short(&edge.client_id), short(&edge.server_id)) } else { "–".into() }
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
        let narrow = edges(&all, 80, false);
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        insta::assert_snapshot!("narrow", narrow);
        // Names longer than that are broken, never the frame.
        let squeezed = edges(&all, 60, false);
        assert!(squeezed.lines().all(|line| line.chars().count() <= 60), "{squeezed}");
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
