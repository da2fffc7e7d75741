//! What the suite leaves out: where a redirect leads, which path the server sees, and what the statuses of routes say. The routes are the
//! suite's own, and so are the pods.

use serde_json::Value;
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};
use weft_testkit::kubernetes::Cluster;

const NAMESPACE: &str = "gateway-conformance-mesh";
/// As long as the suite waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked of one of the suite's routes.
pub(crate) struct Case {
    /// Without it the case is left out.
    pub(crate) feature: &'static str,
    manifest: &'static str,
    /// A path, and what the echo program then tells.
    asked: &'static [(&'static str, &'static [&'static str])],
}

pub(crate) const CASES: &[Case] = &[
    Case {
        feature: "MeshHTTPRouteRedirectPath",
        manifest: "httproute-redirect-path.yaml",
        asked: &[
            ("/original-prefix/lemon", &["StatusCode=302", "Location:http://echo/replacement-prefix/lemon"]),
            ("/original-prefix/a?b=c", &["StatusCode=302", "Location:http://echo/replacement-prefix/a?b=c"]),
            ("/full/path/original", &["StatusCode=302", "Location:http://echo/full-path-replacement"]),
            ("/path-and-host", &["StatusCode=302", "Location:http://example.org/replacement-prefix"]),
            ("/path-and-status", &["StatusCode=301", "Location:http://echo/replacement-prefix"]),
            ("/full-path-and-host", &["StatusCode=302", "Location:http://example.org/replacement-full"]),
            ("/full-path-and-status", &["StatusCode=301", "Location:http://echo/replacement-full"]),
        ],
    },
    Case {
        feature: "MeshHTTPRouteRedirectPort",
        manifest: "httproute-redirect-port.yaml",
        asked: &[
            ("/port", &["StatusCode=302", "Location:http://echo:8083/port"]),
            ("/port-and-host", &["StatusCode=302", "Location:http://example.org:8083/port-and-host"]),
            ("/port-and-status", &["StatusCode=301", "Location:http://echo:8083/port-and-status"]),
        ],
    },
    Case {
        feature: "MeshHTTPRouteSchemeRedirect",
        manifest: "httproute-redirect-scheme.yaml",
        asked: &[
            ("/scheme", &["StatusCode=302", "Location:https://echo/scheme"]),
            ("/scheme-and-host", &["StatusCode=302", "Location:https://example.org/scheme-and-host"]),
            ("/scheme-and-status", &["StatusCode=301", "Location:https://echo/scheme-and-status"]),
        ],
    },
    Case {
        feature: "MeshHTTPRouteRewritePath",
        manifest: "httproute-rewrite-path.yaml",
        asked: &[
            ("/prefix/one/two", &["StatusCode=200", "URL=/one/two", "Hostname=echo-v1-"]),
            ("/prefix/one/two?a=b", &["StatusCode=200", "URL=/one/two?a=b"]),
            ("/strip-prefix/three", &["StatusCode=200", "URL=/three"]),
            ("/strip-prefix", &["StatusCode=200", "URL=/"]),
            ("/full/one/two", &["StatusCode=200", "URL=/one"]),
            ("/full/rewrite-path-and-modify-headers/test", &["StatusCode=200", "URL=/test"]),
            ("/prefix/rewrite-path-and-modify-headers/one", &["StatusCode=200", "URL=/prefix/one"]),
        ],
    },
];

impl Case {
    /// Applies the route, asks, and takes it away.
    pub(crate) fn holds(&self, cluster: &Cluster, folder: &Path) {
        let manifest = fs::read_to_string(folder.join("mesh").join(self.manifest)).unwrap();
        cluster.apply(&manifest).unwrap();
        for (path, expected) in self.asked {
            let words =
                format!("--namespace {NAMESPACE} exec deploy/echo-v1 --container echo -- client http://echo{path}");
            eventually(&format!("{path} of {}", self.manifest), || {
                let told = cluster.ask(&words).map_err(|error| error.to_string())?;
                let missing = expected.iter().find(|end| !told.lines().any(|line| tells(line, end)));
                missing.map_or(Ok(()), |end| Err(format!("{end} is missing in\n{told}")))
            });
        }
        eventually(&format!("statuses of {}", self.manifest), || has_statuses(cluster));
        cluster.ask(&format!("--namespace {NAMESPACE} delete httproutes --all")).unwrap();
    }
}

/// Whether a line of the echo program has this at its end, or begins it with a pod's name.
fn tells(line: &str, expected: &str) -> bool {
    line.ends_with(expected) || (expected.ends_with('-') && line.contains(expected))
}

/// Each parent of each route has its status: echoed, of the newest generation, taken and with all that it refers to.
fn has_statuses(cluster: &Cluster) -> Result<(), String> {
    let list = cluster.ask(&format!("--namespace {NAMESPACE} get httproutes --output json")).unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    let routes = list["items"].as_array().filter(|routes| !routes.is_empty()).ok_or("there is no route")?;
    for route in routes {
        for parent in route["spec"]["parentRefs"].as_array().into_iter().flatten() {
            let statuses = route["status"]["parents"].as_array().into_iter().flatten();
            let own = statuses.filter(|status| status["controllerName"] == "linkerd.io/policy-controller");
            let status = own.filter(|status| status["parentRef"] == *parent).collect::<Vec<_>>();
            let [status] = status.as_slice() else { return Err(format!("no one status of {parent} in {route}")) };
            for kind in ["Accepted", "ResolvedRefs"] {
                let conditions = status["conditions"].as_array().into_iter().flatten();
                let holds = conditions.filter(|condition| condition["type"] == kind).all(|condition| {
                    condition["status"] == "True" && condition["observedGeneration"] == route["metadata"]["generation"]
                });
                let named = status["conditions"].to_string().contains(kind);
                if !(holds && named) {
                    return Err(format!("{kind} does not hold: {status}"));
                }
            }
        }
    }
    Ok(())
}

fn eventually(what: &str, holds: impl Fn() -> Result<(), String>) {
    let start = Instant::now();
    while let Err(error) = holds() {
        assert!(start.elapsed() < PATIENCE, "{what}: {error}");
        thread::sleep(Duration::from_millis(200));
    }
}
