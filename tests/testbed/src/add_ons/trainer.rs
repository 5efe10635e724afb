//! Kubeflow Trainer.

use serde_json::{Value, json};

use super::controllers::{Controller, Place};

pub(super) static TRAINER: Controller = Controller {
    name: "trainer",
    namespace: "kubeflow-system",
    module: "github.com/kubeflow/trainer/v2",
    definitions: "manifests/base/crds",
    webhooks: "manifests/base/webhook/manifests.yaml",
    serves: &[],
    pods_with: None,
    converts: &[],
    args: &[],
    flags: None,
    config,
};

fn config(place: &Place) -> Value {
    json!({
        "apiVersion": "config.trainer.kubeflow.org/v1alpha1",
        "kind": "Configuration",
        "health": { "healthProbeBindAddress": place.health() },
        "metrics": { "bindAddress": "0", "secureServing": false },
        // It knows no folder of certificates; see `controllers::launch`.
        "webhook": { "host": "127.0.0.1", "port": place.webhook_port },
        "leaderElection": place.leader_election(&TRAINER, "trainer.kubeflow.org"),
        "certManagement": { "enable": false },
        "clientConnection": { "qps": 500, "burst": 1000 },
    })
}
