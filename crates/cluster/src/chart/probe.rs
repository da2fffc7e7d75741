//! The installation under one assignment of values, with stand-ins where Go has to do what we do.

use super::variable::{Assignment, BASE64, Variables, stand_in};
use crate::{inject::PROXY, install::CONFIG, label, values::Values};
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

/// Objects by kind and name.
pub(super) type Rendered = BTreeMap<String, Rc<Value>>;

/// An entry of a list that stands for a template of its own.
pub(super) const INCLUDED: &str = "⟦include⟧";
/// An entry of a list that stands for the most worker threads, which may be none.
pub(super) const MOST_WORKERS: &str = "⟦workers⟧";
/// What is no object but a part of several.
pub(super) const PART: &str = "part";

pub(super) struct Probe<'r> {
    pub(super) variables: Variables,
    render: &'r dyn Fn(&Values) -> Vec<Value>,
    seen: RefCell<HashMap<Assignment, Rc<Rendered>>>,
    /// Kinds and names in the order in which they are applied.
    pub(super) order: Vec<String>,
}

impl<'r> Probe<'r> {
    pub(super) fn new(variables: Variables, render: &'r dyn Fn(&Values) -> Vec<Value>) -> Self {
        let base = variables.base();
        let objects = render(&variables.values(&base));
        let parts = objects
            .iter()
            .filter(|object| object["kind"] == "Deployment")
            .map(|object| format!("{PART} {}", component(object)));
        let order = parts.chain(objects.iter().map(key)).collect();
        Self { variables, render, seen: RefCell::default(), order }
    }

    /// The file that an object is written to: that of the part of the control plane that it belongs to.
    pub(super) fn file(&self, key: &str) -> String {
        let base = self.rendered(&self.variables.base());
        match (key.split_once(' '), base.get(key).map(|object| component(object))) {
            (Some(("CustomResourceDefinition", name)), _) => name.to_owned(),
            (Some(("PodMonitor", _)), _) => "podmonitor".to_owned(),
            (_, Some("controller")) => "config".to_owned(),
            (_, Some("") | None) => "access".to_owned(),
            (_, Some(component)) => component.to_owned(),
        }
    }

    pub(super) fn rendered(&self, assignment: &Assignment) -> Rc<Rendered> {
        if let Some(seen) = self.seen.borrow().get(assignment) {
            return seen.clone();
        }
        let base = self.variables.base();
        let first = (*assignment != base).then(|| self.rendered(&base));
        let mut rendered = Rendered::new();
        for mut object in (self.render)(&self.variables.values(assignment)) {
            let key = key(&object);
            self.variables.put_stand_ins(&mut object);
            for (name, part) in apart(&mut object) {
                rendered.insert(name, Rc::new(part));
            }
            rendered.insert(key, Rc::new(object));
        }
        // What is the same is kept once.
        if let Some(first) = first {
            for (key, object) in &mut rendered {
                if let Some(same) = first.get(key).filter(|same| *same == object) {
                    *object = same.clone();
                }
            }
        }
        let rendered = Rc::new(rendered);
        self.seen.borrow_mut().insert(assignment.clone(), rendered.clone());
        rendered
    }
}

fn key(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

pub(super) fn component(object: &Value) -> &str {
    object["metadata"]["labels"][label::COMPONENT].as_str().unwrap_or_default()
}

/// Puts stand-ins where Go computes, and takes out what has a template of its own.
fn apart(object: &mut Value) -> Vec<(String, Value)> {
    match object["kind"].as_str() {
        Some("Deployment") => {
            let component = component(object).to_owned();
            let pod = &mut object["spec"]["template"]["spec"];
            let mut parts = vec![];
            for list in ["initContainers", "containers"] {
                for container in pod[list].as_array_mut().into_iter().flatten().filter(|c| c["name"] == PROXY) {
                    workers(container, &component);
                    let name = format!("{PART} {component}");
                    let part = std::mem::replace(container, json!({ "name": PROXY, INCLUDED: component }));
                    parts.push((name, json!([part])));
                }
            }
            parts
        }
        Some("MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration") => {
            for hook in object["webhooks"].as_array_mut().into_iter().flatten() {
                let Some(bundle) = hook["clientConfig"].get_mut("caBundle") else { continue };
                if let Ok(bytes) = serde_json::from_value::<k8s_openapi::ByteString>(bundle.take()) {
                    *bundle = json!(BASE64.to_owned() + &String::from_utf8_lossy(&bytes.0));
                }
            }
            vec![]
        }
        Some("ConfigMap") if object["metadata"]["name"] == CONFIG => {
            object["data"]["values"] = json!(stand_in("config"));
            vec![]
        }
        _ => vec![],
    }
}

/// How many there are is reckoned from quantities.
fn workers(container: &mut Value, component: &str) {
    let Some(env) = container["env"].as_array_mut() else { return };
    let is = |variable: &Value, name: &str| variable["name"] == format!("LINKERD2_PROXY_{name}");
    for variable in env.iter_mut() {
        for (name, which) in [("CORES", "one"), ("CORES_MIN", "least")] {
            if is(variable, name) {
                variable["value"] = json!(stand_in(&format!("workers {which} {component}")));
            }
        }
    }
    env.retain(|variable| !is(variable, "CORES_MAX"));
    if let Some(at) = env.iter().position(|variable| is(variable, "CORES_MIN")) {
        env.insert(at + 1, json!({ MOST_WORKERS: component }));
    }
}
