//! The registry of what data cannot say: rules of the proxy and controllers made in Rust, by name.
//!
//! To add one, write a function and a line in its table. What can be said in YAML does not belong here.

use std::future::Future;
use std::pin::Pin;

use anyhow::{Context as _, Result};
use karat_testbed::proxy::Rule;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::actors::Notes;

/// Rules in layers: each layer is a proxy of its own, the first one next to the API server.
pub type Layers = Vec<Vec<Rule>>;

type MakeLayers = fn() -> Layers;

/// What runs a controller until it is dropped. It says when it looks; before that the run does not begin.
pub type Controller = fn(Client, Value, Notes, oneshot::Sender<()>) -> Playing;
/// A controller at work.
pub type Playing = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

const RULES: &[(&str, MakeLayers)] = &[("flawed-objects-are-accepted", flawed_objects)];

const CONTROLLERS: &[(&str, Controller)] = &[
    ("also-preempts", |client, with, notes, ready| {
        Box::pin(crate::units::also_preempts(client, with, notes, ready))
    }),
    ("double-books", |client, with, notes, ready| {
        Box::pin(crate::units::double_books(client, with, notes, ready))
    }),
    ("shrinks-the-node", |client, with, notes, ready| {
        Box::pin(crate::units::shrinks_the_node(client, with, notes, ready))
    }),
];

/// The rules of this name.
///
/// # Errors
/// If there are none.
pub fn rules(name: &str) -> Result<Layers> {
    let found = RULES.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, make)| make())
        .with_context(|| format!("rules {name}: not known; there are {}", names(RULES)))
}

/// The controller of this name.
///
/// # Errors
/// If there is none.
pub fn controller(name: &str) -> Result<Controller> {
    let found = CONTROLLERS.iter().find(|(known, _)| *known == name);
    found.map(|(_, controller)| *controller).with_context(|| {
        format!(
            "controller {name}: not known; there are {}",
            names(CONTROLLERS)
        )
    })
}

fn names<T>(all: &[(&str, T)]) -> String {
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

/// A server that takes flawed objects of `resource.k8s.io`: one layer mends what is about to be created under a name that
/// begins with `bad-` and notes the flaw in an annotation, the next shows the flaw as if it had been stored.
fn flawed_objects() -> Layers {
    const FLAW: &str = "lab.example/flaw";
    const GROUP: &str = "^/apis/resource\\.k8s\\.io/";
    let mend = |object: &mut Value| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if !name.starts_with("bad-") {
            return;
        }
        let flaw = object["spec"].to_string();
        object["metadata"]["annotations"][FLAW] = json!(flaw);
        if object["kind"] == "ResourceSlice" {
            object["spec"]["devices"][0]["name"] = json!("device-0");
        } else {
            let class = json!({"deviceClassName": "none.example"});
            object["spec"]["devices"]["requests"] = json!([{"name": "mended", "exactly": class}]);
        }
    };
    let show = |object: &mut Value| {
        let annotations = object.pointer_mut("/metadata/annotations");
        let flaw = annotations
            .and_then(Value::as_object_mut)
            .and_then(|annotations| annotations.remove(FLAW));
        if let Some(flaw) = flaw.as_ref().and_then(Value::as_str) {
            object["spec"] = serde_json::from_str(flaw).unwrap_or_default();
        }
        true
    };
    vec![
        vec![Rule::on("POST", GROUP).rewrite_request(mend)],
        vec![Rule::on("*", GROUP).rewrite_objects(show)],
    ]
}
