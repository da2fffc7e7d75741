//! `weft diagnostics` of a mesh on this machine.

use crate::lab::Home;

/// Selects nobody.
const NOBODY: &str = "apiVersion: v1
kind: Service
metadata: {name: nobody, namespace: shop}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
";

#[test]
fn a_service_without_endpoints_is_said_to_have_none() {
    let home = Home::new();
    home.mesh_of(NOBODY);
    let endpoints = ["diagnostics", "endpoints", "nobody.shop.svc.cluster.local:80"];
    let told = home.runs(&endpoints);
    // Beside the output, which stays empty for programs.
    assert!(told.ok && told.out.is_empty() && told.err == "No endpoints found.\n", "{told:?}");
    let told = home.runs(&[&endpoints[..], &["-o", "json"]].concat());
    assert!(told.ok && told.out == "[]\n" && told.err.is_empty(), "{told:?}");
}
