//! What of values that were given to Linkerd's control plane weft's can be given.

use super::{
    Values,
    layer::{Problem, problem, remove},
};
use serde_json::Value;

/// Values that are of no use to another project's programs.
pub(crate) const OF_LINKERDS_IMAGES: [&str; 8] = [
    "controllerImage",
    "controllerImageVersion",
    "proxy.image.name",
    "proxy.image.version",
    "proxyInit.image",
    "policyController.image",
    "debugContainer.image.name",
    "debugContainer.image.version",
];
/// Values that ask for definitions of the Gateway API. Linkerd's, which are there by then, stay: they are of another channel, and
/// routes may have what ours lack.
const OF_DEFINITIONS: [&str; 4] = ["installGatewayAPI", "enableHttpRoutes", "enableTcpRoutes", "enableTlsRoutes"];
/// Each round takes out one value at least; no tree of values has as many.
const ROUNDS: usize = 1_000;

/// What is left of `given`, and all that is left out.
pub fn carried(mut given: Value) -> (Value, Vec<Problem>) {
    let mut left_out = vec![];
    for path in OF_LINKERDS_IMAGES {
        if let Some(value) = remove(&mut given, path)
            && !value.is_null()
        {
            let remedy = "weft's images are used; name where they are pulled from by --registry";
            left_out.push(problem(path, "it names an image of Linkerd's", remedy));
        }
    }
    for path in OF_DEFINITIONS {
        if let Some(value) = remove(&mut given, path)
            && value == true
        {
            let remedy = "nothing is to be done";
            left_out.push(problem(path, "the Gateway API's definitions of Linkerd's stay as they are", remedy));
        }
    }
    for _ in 0..ROUNDS {
        let Err(problems) = Values::from_layers([given.clone()]) else { break };
        let before = left_out.len();
        for found in problems.0 {
            if remove_near(&mut given, &found.path) {
                left_out.push(found);
            }
        }
        if left_out.len() == before {
            break;
        }
    }
    (given, left_out)
}

/// The value at the path, or the nearest around it that was given: what is wrong within a list goes with the list.
fn remove_near(tree: &mut Value, path: &str) -> bool {
    let mut path = path;
    loop {
        if remove(tree, path).is_some() {
            return true;
        }
        match path.rsplit_once(['.', '[']) {
            Some((around, _)) => path = around,
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_cannot_be_carried_is_left_out_by_name() {
        let given = json!({
            "controllerImage": "cr.l5d.io/linkerd/controller", "controllerReplicas": 3, "cniEnabled": true,
            "disableHeartBeat": true, "installGatewayAPI": true, "enableTcpRoutes": false, "heartbeatSchedule": "0 1 * * *", "proxyInit": {"image": {"version": "v2.4.3"}, "runAsRoot": true},
            "proxy": {"resources": {"cpu": {"request": "100m", "limit": "a lot"}}, "accessLog": "apache", "shiny": {"new": 1}},
            "tolerations": "none", "podLabels": {"team": "mesh"}, "clusterNetworks": "10.0.0.0/99",
        });
        let (kept, left_out) = carried(given);
        let expected = json!({
            "controllerReplicas": 3, "disableHeartBeat": true, "proxyInit": {"runAsRoot": true},
            "proxy": {"resources": {"cpu": {"request": "100m"}}, "accessLog": "apache"}, "podLabels": {"team": "mesh"},
        });
        let mut without_empty = kept.clone();
        without_empty["proxy"].as_object_mut().unwrap().retain(|_, v| *v != json!({}));
        assert_eq!(without_empty, expected);
        Values::from_layers([kept]).unwrap();
        let mut paths: Vec<&str> = left_out.iter().map(|problem| problem.path.as_str()).collect();
        paths.sort_unstable();
        let expected = [
            "clusterNetworks",
            "cniEnabled",
            "controllerImage",
            "heartbeatSchedule",
            "installGatewayAPI",
            "proxy.resources.cpu.limit",
            "proxy.shiny",
            "proxyInit.image",
            "tolerations",
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn what_can_be_carried_is_kept_whole() {
        let given = super::super::highly_available();
        assert_eq!(carried(given.clone()), (given, vec![]));
    }
}
