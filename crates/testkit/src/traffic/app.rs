//! The app whose traffic is looked at, by the names under which its parts are put into a mesh.

/// The namespace of all of it.
pub const NAMESPACE: &str = "traffic";
/// Where the clients are told what to ask.
pub const ASKED: u16 = 9000;
/// The clients: an account each.
pub const CLIENTS: [&str; 2] = ["client", "guest"];

const CONTAINER: &str = "
      - name: main
        image: weft/demo:test
        imagePullPolicy: Never";

/// What stands for the program, as a container names it.
const DEMO: &str = "DEMO";

/// The clients, each with a Service of its name; `client` loads `web` and `next` all the time. `demo` is the program, as a container
/// names it.
pub fn clients(demo: &str) -> String {
    let client = |name: &str, more: &str| {
        let container = format!(
            "{CONTAINER}
        command: ['{DEMO}', ask{more}]
        readinessProbe: {{ httpGet: {{ path: /load, port: {ASKED} }}, periodSeconds: 1 }}"
        );
        workload(name, 1, &container) + &service(name, name, "", &format!("port: {ASKED}"))
    };
    (client(CLIENTS[0], ", '--load=web:80/load', '--load=next:80/load'") + &client(CLIENTS[1], "")).replace(DEMO, demo)
}

/// The servers and what leads to them. Nobody loads `other`, which leads to the pods of `next`.
pub(super) fn servers() -> Vec<(&'static str, String)> {
    vec![
        ("web", server("web", 2)),
        ("next", server("next", 1)),
        ("web-service", web_service("")),
        ("next-service", service("next", "next", "", PORT)),
        ("other-service", other_service("")),
    ]
}

const PORT: &str = "port: 80, targetPort: http";

/// The Service `web` with these annotations.
pub(super) fn web_service(annotations: &str) -> String {
    service("web", "web", annotations, PORT)
}

/// The Service `other` with these annotations.
pub(super) fn other_service(annotations: &str) -> String {
    service("other", "next", annotations, PORT)
}

/// The servers `web`, none of them.
pub(super) fn none_of_web() -> String {
    server("web", 0)
}

/// A Service `gone` in front of the pods of `next`.
pub(super) fn gone_service() -> String {
    service("gone", "next", "", PORT)
}

fn server(name: &str, replicas: u32) -> String {
    let container = format!(
        "{CONTAINER}
        # It is still asked for a moment when it is told to end, until that is known everywhere.
        command: ['{DEMO}', echo, '--leave-quiet-ms=5000']
        ports: [{{ containerPort: 8080, name: http }}]
        # A stage limits how often anybody asks, probes too.
        readinessProbe: {{ httpGet: {{ path: /ready, port: http }}, periodSeconds: 1, failureThreshold: 20 }}"
    );
    workload(name, replicas, &container)
}

fn workload(name: &str, replicas: u32, container: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: ServiceAccount
metadata: {{ name: {name}, namespace: {NAMESPACE} }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name}, namespace: {NAMESPACE} }}
spec:
  replicas: {replicas}
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata: {{ labels: {{ app: {name} }} }}
    spec:
      serviceAccountName: {name}
      containers:{container}
"
    )
}

fn service(name: &str, app: &str, annotations: &str, port: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: {NAMESPACE}, annotations: {{ {annotations} }} }}
spec: {{ selector: {{ app: {app} }}, ports: [{{ {port} }}] }}
"
    )
}
