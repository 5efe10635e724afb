//! Kueue.

use serde_json::{Value, json};

use super::controllers::{Controller, Place};

pub(super) static KUEUE: Controller = Controller {
    name: "kueue",
    namespace: "kueue-system",
    module: "sigs.k8s.io/kueue",
    definitions: "config/components/crd/bases",
    webhooks: "config/components/webhook/manifests.yaml",
    // Those of the integrations below; a webhook of an integration that is off answers nothing.
    serves: &["batch-v1-job", "kueue-x-k8s-io", "jobset-x-k8s-io"],
    pods_with: None,
    // With one for ResourceFlavors too, the server says that they are not convertible.
    converts: &[
        "localqueues",
        "clusterqueues",
        "cohorts",
        "workloads",
        "multikueueclusters",
    ],
    args: &["--feature-gates=VisibilityOnDemand=false"],
    flags: None,
    config,
};

fn config(place: &Place) -> Value {
    json!({
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": KUEUE.namespace,
        "health": { "healthProbeBindAddress": place.health() },
        "metrics": { "bindAddress": "0" },
        "webhook": place.webhook(),
        "leaderElection": place.leader_election(&KUEUE, "c1f6bfd2.kueue.x-k8s.io"),
        "internalCertManagement": { "enable": false },
        "clientConnection": { "qps": 500, "burst": 1000 },
        "integrations": { "frameworks": ["batch/job", "jobset.x-k8s.io/jobset"] },
    })
}
