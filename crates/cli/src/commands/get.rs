//! `weft get`: objects of the mesh that runs here, with their statuses. Those of a cluster are its API server's to show.

use super::meant::{self, Folder, Meant};
use crate::{
    args::{Get, TextOutput},
    print,
};
use anyhow::bail;
use comfy_table::{Table, presets::NOTHING};
use std::process::ExitCode;
use weft_cluster::policy::status::{Shown, Wanted, shown};

pub(crate) async fn run(folder: &Folder, args: Get) -> anyhow::Result<ExitCode> {
    let wanted = args.resource.as_deref().map_or_else(|| Ok(Wanted::all()), Wanted::parse)?;
    let Meant::Local(client) = meant::mesh(folder, &args.of).await? else {
        bail!("objects of a cluster are shown by kubectl get; weft get shows those of a mesh on this machine");
    };
    let (settings, objects) = client.held().await?;
    let objects = shown(objects, settings, &wanted, args.namespace.as_deref());
    let is_there = !wanted.is_one() || !objects.is_empty();
    if is_there {
        print::line(&match args.output {
            TextOutput::Json => serde_json::to_string_pretty(&objects)?,
            TextOutput::Table => render(&objects),
        });
    }
    // What is refused is no object: where it stands is told beside.
    print::manifests(&client.status().await?.problems, &[]);
    if !is_there {
        let namespace = args.namespace.map(|namespace| format!(" in the namespace {namespace}")).unwrap_or_default();
        bail!("there is no {}{namespace}", args.resource.unwrap_or_default());
    }
    Ok(ExitCode::SUCCESS)
}

/// A row for each parent of an object.
fn render(objects: &[Shown]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["NAMESPACE", "NAME", "PARENT", "CONDITION", "STATUS", "REASON"]);
    for object in objects {
        let name = format!("{}/{}", object.kind.to_ascii_lowercase(), object.name);
        let conditions = object.conditions();
        if conditions.is_empty() {
            table.add_row([object.namespace.as_str(), &name, "", "", "", ""]);
        }
        for condition in conditions {
            let status = if condition.holds { "True" } else { "False" };
            let reason = match condition.message.as_str() {
                "" => condition.reason,
                message => format!("{}: {message}", condition.reason),
            };
            table.add_row([object.namespace.as_str(), &name, &condition.parent, &condition.what, status, &reason]);
        }
    }
    table.trim_fmt()
}
