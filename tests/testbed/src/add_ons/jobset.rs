//! JobSet.

use serde_json::{Value, json};

use super::controllers::{Controller, Place};

pub(super) static JOBSET: Controller = Controller {
    name: "jobset",
    namespace: "jobset-system",
    module: "sigs.k8s.io/jobset",
    definitions: "config/components/crd/bases",
    webhooks: "config/components/webhook/manifests.yaml",
    serves: &[],
    pods_with: Some("jobset.sigs.k8s.io/jobset-name"),
    converts: &[],
    args: &[],
    flags: None,
    config,
};

fn config(place: &Place) -> Value {
    json!({
        "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "health": { "healthProbeBindAddress": place.health() },
        "metrics": { "bindAddress": "0" },
        "webhook": place.webhook(),
        "leaderElection": place.leader_election(&JOBSET, "6d4f6a47.jobset.x-k8s.io"),
        "internalCertManagement": { "enable": false },
        "clientConnection": { "qps": 500, "burst": 1000 },
    })
}
