//! Add-ons that run in a pod of the first real node: what the API server's proxy or its aggregation layer must reach.
//!
//! The image is the testbed's own `tool`; the program lies on the node and is mounted, so nothing is packed or pulled.

use serde_json::{Value, json};

use crate::add_ons::AddOn;
use crate::control_plane::ControlPlane;
use crate::error::{Result, TestbedError};
use crate::images::TOOL;

/// Where the program is mounted.
const PROGRAM: &str = "/program";
/// Where its files are mounted.
pub(crate) const FILES: &str = "/files";
/// Where it may write.
pub(super) const DATA: &str = "/data";
/// Namespace of those that have to do with metrics.
pub(super) const NAMESPACE: &str = "monitoring";

/// A program in a pod. Its account has its name, and is made by a fixture.
pub(crate) struct InPod {
    pub(crate) add_on: AddOn,
    pub(crate) namespace: &'static str,
    pub(crate) args: Vec<String>,
    pub(crate) port: u16,
    /// How the kubelet asks whether it is ready; by connecting to the port where nothing is said.
    pub(crate) ready: Option<Value>,
    /// Files by name.
    pub(crate) files: Value,
}

impl ControlPlane {
    /// Makes its ConfigMap and its Deployment. Whether it works is for the caller to see.
    pub(crate) async fn run_in_pod(&self, pod: InPod) -> Result<()> {
        let name = pod.add_on.name();
        let program = self.programs.path(name);
        let folder = program
            .parent()
            .ok_or_else(|| TestbedError::CannotRun {
                what: name.into(),
                cause: format!("{} is in no folder", program.display()),
                hint: "this is a mistake of the testbed".into(),
            })?
            .display()
            .to_string();
        let mut ready = pod
            .ready
            .unwrap_or(json!({ "tcpSocket": { "port": "web" } }));
        ready["periodSeconds"] = json!(1);
        let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
        let named = json!({ "app.kubernetes.io/name": name });
        let node = self.real_nodes().first().map(super::RealNode::name);
        let objects = [
            json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": { "name": name, "namespace": pod.namespace },
                "data": pod.files,
            }),
            json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": { "name": name, "namespace": pod.namespace, "labels": named },
                "spec": {
                    "replicas": 1,
                    "selector": { "matchLabels": named },
                    "template": {
                        "metadata": { "labels": named },
                        "spec": {
                            "serviceAccountName": name,
                            "terminationGracePeriodSeconds": 1,
                            // Whatever else stands on nodes, it runs where a kubelet is.
                            "nodeSelector": { "kubernetes.io/hostname": node },
                            "securityContext": { "runAsUser": 65532, "runAsNonRoot": true },
                            "containers": [{
                                "name": name,
                                "image": TOOL,
                                "imagePullPolicy": "Never",
                                "command": [format!("{PROGRAM}/{name}")],
                                "args": pod.args,
                                "ports": [{ "name": "web", "containerPort": pod.port }],
                                "env": [
                                    { "name": "NAMESPACE", "valueFrom": field("metadata.namespace") },
                                    { "name": "POD_NAME", "valueFrom": field("metadata.name") },
                                ],
                                "readinessProbe": ready,
                                "volumeMounts": [
                                    { "name": "program", "mountPath": PROGRAM, "readOnly": true },
                                    { "name": "files", "mountPath": FILES, "readOnly": true },
                                    { "name": "data", "mountPath": DATA },
                                ],
                            }],
                            "volumes": [
                                { "name": "program", "hostPath": { "path": folder, "type": "Directory" } },
                                { "name": "files", "configMap": { "name": name } },
                                { "name": "data", "emptyDir": {} },
                            ],
                        },
                    },
                },
            }),
        ];
        let text: Vec<String> = objects.iter().map(Value::to_string).collect();
        self.apply_yaml(name, &text.join("\n---\n")).await?;
        Ok(())
    }
}
