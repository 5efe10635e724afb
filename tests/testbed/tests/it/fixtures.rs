//! The fixtures are what they claim: nodes become Ready, claims are allocated, exhausted pools have nothing left.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use karat_testbed::{ControlPlane, fixture_path};
use kube::Api;
use kube::api::ListParams;

use crate::control_plane::wait_running;

#[tokio::test]
async fn nodes_of_all_vendors_become_ready_together() {
    let lab = ControlPlane::builder().start().await.unwrap();
    for fixture in [
        "nvidia-nodes.yaml",
        "amd-nodes.yaml",
        "intel-nodes.yaml",
        "unknown-vendor-nodes.yaml",
        "stale-slices.yaml",
        "plain-node.yaml",
    ] {
        let applied = lab.apply(fixture).await.unwrap();
        assert!(!applied.is_empty());
        // Applying again is not an error: a test may build on what another fixture brought.
        assert_eq!(lab.apply(fixture).await.unwrap(), applied);
    }
    lab.wait_nodes_ready().await.unwrap();
    let client = lab.client().await.unwrap();
    let nodes = Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await
        .unwrap();
    assert_eq!(nodes.items.len(), 10);
    let drivers: BTreeSet<String> = Api::<ResourceSlice>::all(client)
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .map(|s| s.spec.driver)
        .collect();
    assert_eq!(drivers.len(), 4);
    assert!(
        drivers.iter().all(|d| d.ends_with(".invalid")),
        "{drivers:?}"
    );
}

#[tokio::test]
async fn an_extended_resource_in_a_fixture_reaches_the_node_status() {
    let lab = ControlPlane::builder().start().await.unwrap();
    lab.apply("device-plugin-node.yaml").await.unwrap();
    lab.wait_nodes_ready().await.unwrap();
    let node = Api::<Node>::all(lab.client().await.unwrap())
        .get("plugin-0")
        .await
        .unwrap();
    assert_eq!(
        node.status.unwrap().allocatable.unwrap()["nvidia.com/gpu"].0,
        "4"
    );
}

#[tokio::test]
async fn a_pod_with_a_claim_gets_a_device_on_a_simulated_node() {
    let lab = ControlPlane::builder().start().await.unwrap();
    lab.apply("nvidia-nodes.yaml").await.unwrap();
    lab.wait_nodes_ready().await.unwrap();
    lab.apply_yaml("claim and pod", CLAIM_AND_POD)
        .await
        .unwrap();
    wait_running(&lab, "user").await.unwrap();
    let claim = Api::<ResourceClaim>::namespaced(lab.client().await.unwrap(), "default")
        .get("one")
        .await
        .unwrap();
    let status = claim.status.unwrap();
    let device = &status.allocation.unwrap().devices.unwrap().results.unwrap()[0];
    assert_eq!(
        (
            device.driver.as_str(),
            device.pool.as_str(),
            device.device.as_str()
        ),
        ("gpu.nvidia.com.invalid", "nvidia-1", "gpu-1")
    );
    assert_eq!(status.reserved_for.unwrap()[0].name, "user");
}

#[tokio::test]
async fn an_exhausted_pool_has_nothing_left() {
    let lab = ControlPlane::builder().start().await.unwrap();
    lab.apply("exhausted-pool.yaml").await.unwrap();
    lab.wait_nodes_ready().await.unwrap();
    lab.wait_pods_running("exhausted").await.unwrap();
    lab.apply_yaml("claim and pod", &CLAIM_AND_POD.replace("nvidia-1", "exhausted-0").replace("device.attributes[\"gpu.nvidia.com.invalid\"].uuid == \"GPU-00000000-0000-4000-8000-000000000101\"", "true")).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(lab.client().await.unwrap(), "default");
    lab.wait_until("the pod is refused by the scheduler", async || {
        let pod = pods.get("user").await.map_err(|e| e.to_string())?;
        let conditions = pod.status.and_then(|s| s.conditions).unwrap_or_default();
        let refused = conditions.iter().any(|c| {
            c.type_ == "PodScheduled"
                && c.status == "False"
                && c.reason.as_deref() == Some("Unschedulable")
        });
        if refused {
            Ok(())
        } else {
            Err(format!("{conditions:?}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_bad_fixture_is_named_with_its_document() {
    let lab = karat_testbed::shared().await.unwrap();
    let good = std::fs::read_to_string(fixture_path("plain-node.yaml"))
        .unwrap()
        .replace("plain-0", "bad-fixture-0");
    let yaml = format!(
        "{good}---\napiVersion: resource.k8s.io/v1\nkind: DeviceClass\nmetadata: {{name: x}}\nspec: {{selectors: 7}}\n"
    );
    let error = lab.apply_yaml("mine.yaml", &yaml).await.unwrap_err();
    let text = format!("{error}");
    assert!(
        text.contains("mine.yaml, document 2: DeviceClass x"),
        "{text}"
    );
}

const CLAIM_AND_POD: &str = r#"
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: one}
spec:
  devices:
    requests:
    - name: gpu
      exactly:
        deviceClassName: gpu.nvidia.com
        selectors:
        - cel: {expression: 'device.attributes["gpu.nvidia.com.invalid"].uuid == "GPU-00000000-0000-4000-8000-000000000101"'}
---
apiVersion: v1
kind: Pod
metadata: {name: user}
spec:
  nodeSelector: {kubernetes.io/hostname: nvidia-1}
  tolerations:
  - {key: kwok.x-k8s.io/node, operator: Exists}
  - {key: nvidia.com/gpu, operator: Exists}
  resourceClaims: [{name: gpu, resourceClaimName: one}]
  containers: [{name: c, image: example.invalid/none, resources: {claims: [{name: gpu}]}}]
"#;
