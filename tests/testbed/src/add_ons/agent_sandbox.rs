//! Agent Sandbox with its extensions.
//!
//! It reads no configuration file and has no webhooks. Definitions come from its module; this release has one version of them.

use serde_json::{Value, json};

use super::controllers::{Controller, Place};

pub(super) static AGENT_SANDBOX: Controller = Controller {
    name: "agent-sandbox",
    namespace: "agent-sandbox-system",
    module: "sigs.k8s.io/agent-sandbox",
    definitions: "k8s/crds",
    webhooks: "",
    serves: &[],
    pods_with: None,
    converts: &[],
    args: &[],
    flags: Some(flags),
    config,
};

fn flags(place: &Place) -> Vec<String> {
    vec![
        "--extensions=true".to_owned(),
        "--metrics-bind-address=0".to_owned(),
        format!("--health-probe-bind-address={}", place.health()),
    ]
}

/// Read by nobody but the laboratory, which finds it here again.
fn config(place: &Place) -> Value {
    json!({ "health": { "healthProbeBindAddress": place.health() } })
}
