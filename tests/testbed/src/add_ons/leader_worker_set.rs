//! LeaderWorkerSet.

use serde_json::{Value, json};

use super::controllers::{Controller, Place};

pub(super) static LEADER_WORKER_SET: Controller = Controller {
    name: "lws",
    namespace: "lws-system",
    module: "sigs.k8s.io/lws",
    definitions: "config/crd/bases",
    webhooks: "config/webhook/manifests.yaml",
    serves: &[],
    pods_with: Some("leaderworkerset.sigs.k8s.io/name"),
    converts: &[],
    args: &[],
    flags: None,
    config,
};

fn config(place: &Place) -> Value {
    json!({
        "apiVersion": "config.lws.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "health": { "healthProbeBindAddress": place.health() },
        "metrics": { "bindAddress": "0" },
        "webhook": place.webhook(),
        "leaderElection": place.leader_election(&LEADER_WORKER_SET, "b8b2488c.x-k8s.io"),
        "internalCertManagement": { "enable": false },
        "clientConnection": { "qps": 500, "burst": 1000 },
    })
}
