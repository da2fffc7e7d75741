//! `weft authz`: the authorizations that apply to a workload, in Linkerd's columns.

use super::{diagnostics::columns, meant::Folder, policy};
use crate::{args::Authz, print};
use std::process::ExitCode;
use weft_cluster::can;

const COLUMNS: [&str; 4] = ["ROUTE", "SERVER", "AUTHORIZATION_POLICY", "SERVER_AUTHORIZATION"];

pub(crate) async fn run(folder: &Folder, args: Authz) -> anyhow::Result<ExitCode> {
    let source = match args.files.as_slice() {
        [] => policy::of_mesh(folder, &args.of).await?,
        files => policy::of_files(files, args.namespace.as_deref(), None)?,
    };
    let resource = args.resource.join("/");
    let namespace = args.namespace.as_deref().unwrap_or(&source.namespace);
    let rows = can::authorizations(&source.index, &resource, namespace)?;
    let rows = rows.into_iter().map(|granted| {
        let can::Granted { server, route, authorization_policy, server_authorization } = granted;
        let route = route.unwrap_or_else(|| "*".to_owned());
        [route, server, authorization_policy.unwrap_or_default(), server_authorization.unwrap_or_default()]
    });
    print::text(&columns(COLUMNS, rows, 2))?;
    Ok(ExitCode::SUCCESS)
}
