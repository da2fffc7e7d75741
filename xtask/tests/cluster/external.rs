//! A server that is no pod, behind a Service: its slices come, change and go as it does.

use crate::life::{eventually, weft};
use serde_json::Value;
use weft_testkit::kubernetes::Cluster;

const SHOP: &str = "apiVersion: v1
kind: Namespace
metadata: { name: cellar }
---
apiVersion: v1
kind: Service
metadata: { name: db, namespace: cellar, labels: { team: data } }
spec:
  ipFamilyPolicy: RequireDualStack
  selector: { app: db }
  ports: [{ name: psql, port: 5432, targetPort: psql }]
";

fn machine(ip: &str) -> String {
    format!(
        "apiVersion: workload.linkerd.io/v1beta1
kind: ExternalWorkload
metadata: {{ name: vm, namespace: cellar, labels: {{ app: db, topology.kubernetes.io/zone: east }} }}
spec:
  meshTLS: {{ identity: 'spiffe://root.local/db', serverName: db.local }}
  ports: [{{ name: psql, port: 5433 }}]
  workloadIPs: [{{ ip: {ip} }}, {{ ip: '2001:db8::1' }}]
"
    )
}

pub(crate) fn a_machine_is_behind_a_service(cluster: &Cluster) {
    cluster.apply(SHOP).unwrap();
    what_cannot_be_is_refused(cluster);
    cluster.apply(&machine("192.0.2.1")).unwrap();
    let (v4, v6) = ("192.0.2.1 5433 ", "2001:db8::1 5433 ");
    led(cluster, &[&format!("{v4}false"), &format!("{v6}false")]);
    let ready = r#"--namespace cellar patch externalworkload vm --subresource=status --type=merge --patch={"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;
    cluster.ask(ready).unwrap();
    led(cluster, &[&format!("{v4}true"), &format!("{v6}true")]);
    for slice in slices(cluster) {
        let metadata = &slice["metadata"];
        assert!(metadata["name"].as_str().unwrap().starts_with("linkerd-external-db-"), "{metadata}");
        assert_eq!(metadata["labels"]["team"], "data");
        let owner = &metadata["ownerReferences"][0];
        assert_eq!((&owner["kind"], &owner["name"]), (&"Service".into(), &"db".into()));
        assert_eq!(slice["endpoints"][0]["zone"], "east");
    }
    told(cluster);

    cluster.apply(&machine("192.0.2.2")).unwrap();
    led(cluster, &["192.0.2.2 5433 true", &format!("{v6}true")]);
    cluster.ask("--namespace cellar delete externalworkload vm").unwrap();
    led(cluster, &[]);
    cluster.apply(&machine("192.0.2.1")).unwrap();
    led(cluster, &[&format!("{v4}false"), &format!("{v6}false")]);
    cluster.ask("--namespace cellar delete service db").unwrap();
    led(cluster, &[]);
    cluster.ask("delete namespace cellar").unwrap();
}

/// What proxies are told of it, as people see it.
fn told(cluster: &Cluster) {
    let diagnosed = |words: &[&str]| {
        let output = weft(cluster, &[&["diagnostics"], words].concat());
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    eventually("its endpoint", || {
        let (_, told) = diagnosed(&["endpoints", "db.cellar.svc.cluster.local:5432", "--output=json"]);
        told.contains("\"external_workload\": \"vm\"") || told.contains("\"external_workload\":\"vm\"")
    });
    let (found, policy) = diagnosed(&["policy", "externalworkload/vm", "5433", "--namespace=cellar"]);
    assert!(found && policy.contains("all-unauthenticated"), "{policy}");
}

fn what_cannot_be_is_refused(cluster: &Cluster) {
    let refused = |manifest: &str| cluster.tried(manifest).err().map(|error| error.to_string());
    let nowhere = machine("127.0.0.1");
    let wrong = "spec.workloadIPs[0].ip: 127.0.0.1 is no address of one server for others";
    eventually("the validator to refuse", || refused(&nowhere).is_some_and(|told| told.contains(wrong)));
    let older = machine("192.0.2.1").replace("v1beta1", "v1alpha1").replace("meshTLS", "meshTls");
    let older = older.replace(", { ip: '2001:db8::1' }", "");
    let told = refused(&older).unwrap();
    assert!(told.contains("use workload.linkerd.io/v1beta1 with spec.meshTLS"), "{told}");
}

fn slices(cluster: &Cluster) -> Vec<Value> {
    let words = "--namespace cellar get endpointslices --output json \
                 --selector endpointslice.kubernetes.io/managed-by=linkerd-external-workloads-controller";
    let list: Value = serde_json::from_str(&cluster.ask(words).unwrap()).unwrap();
    list["items"].as_array().cloned().unwrap_or_default()
}

/// Waits until the slices lead to these: address, port, and whether it is ready.
fn led(cluster: &Cluster, wanted: &[&str]) {
    let found = || {
        let mut found: Vec<String> = vec![];
        for slice in slices(cluster) {
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                let (ip, port) = (endpoint["addresses"][0].as_str().unwrap(), &slice["ports"][0]["port"]);
                found.push(format!("{ip} {port} {}", endpoint["conditions"]["ready"]));
            }
        }
        found.sort();
        found
    };
    eventually(&format!("the slices to lead to {wanted:?}"), || found() == wanted);
}
