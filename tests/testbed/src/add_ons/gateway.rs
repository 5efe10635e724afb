//! The add-on `gateway`: the kinds of Gateway API and of its inference extension, and the endpoint picker of one InferencePool.
//!
//! The picker runs in a pod of the first real node, whose kubelet asks for its health by gRPC; it says that it serves when it has seen
//! the pool. There is no gateway: nobody accepts Gateways and routes, and requests reach the picker only from a client that speaks
//! `ext_proc`. The definitions are read from the module cache, as those of operators.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde_json::{Value, json};

use super::AddOn;
use super::controllers::{KEPT, definitions_in, write_kept};
use crate::apply::apply_values;
use crate::control_plane::{ControlPlane, START_DEADLINE};
use crate::error::{Result, TestbedError};
use crate::gobuild::{self, Go, Progress};
use crate::node::in_pod::{FILES, InPod};
use crate::version::GATEWAY;

/// Its name as an add-on.
const NAME: &str = AddOn::Gateway.name();
/// Pool, account, rights and Service of the picker.
const FIXTURE: &str = "gateway.yaml";
/// Where the picker and its pool are.
const NAMESPACE: &str = "inference";
/// Where it answers to a gateway, and where to questions for its health.
const PORT: u16 = 9002;
const HEALTH: u16 = 9003;
/// Modules with definitions, and where they have them.
const DEFINITIONS: [(&str, &str); 2] = [
    ("sigs.k8s.io/gateway-api", "config/crd/standard"),
    (
        "sigs.k8s.io/gateway-api-inference-extension",
        "config/crd/bases",
    ),
];

/// The folder with the definitions, if it is among `names`; what is not there yet is read from the module cache.
pub(crate) fn manifests(
    names: &[&'static str],
    go: &std::result::Result<Go, String>,
    progress: Progress<'_>,
) -> Result<BTreeMap<&'static str, PathBuf>> {
    if !names.contains(&NAME) {
        return Ok(BTreeMap::new());
    }
    let go = go.as_ref().map_err(|why| TestbedError::ProgramMissing {
        program: format!("manifests of {NAME}"),
        looked: why.clone(),
        hint: "install Go 1.26 or newer: they come from its Go modules".into(),
    })?;
    let folder = gobuild::folder(&GATEWAY, go)?.join("manifests").join(NAME);
    if !folder.join(KEPT[0]).is_file() {
        progress(&format!("{NAME}: reading its manifests"));
        let module = tempfile::tempdir().map_err(TestbedError::io("temporary folder"))?;
        gobuild::write_module(&GATEWAY, module.path())?;
        let mut all = Vec::new();
        for (path, dir) in DEFINITIONS {
            let place = gobuild::module_dir(module.path(), path)?;
            all.extend(definitions_in(&place.join(dir))?);
        }
        all.retain(is_definition);
        write_kept(&folder, KEPT[0], all)?;
    }
    Ok(BTreeMap::from([(NAME, folder)]))
}

/// Beside its definitions a module may have policies for them.
fn is_definition(object: &Value) -> bool {
    object["kind"] == "CustomResourceDefinition"
}

/// What the picker goes by: the queues, the caches and the prefixes of the servers.
fn config() -> Value {
    let scorers = [
        "queue-scorer",
        "kv-cache-utilization-scorer",
        "prefix-cache-scorer",
    ];
    json!({
        "apiVersion": "inference.networking.x-k8s.io/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": scorers.map(|scorer| json!({ "type": scorer })),
        "schedulingProfiles": [{
            "name": "default",
            "plugins": scorers.map(|scorer| json!({ "pluginRef": scorer })),
        }],
    })
}

impl ControlPlane {
    pub(super) async fn start_gateway(&self) -> Result<()> {
        let Some(node) = self.real_nodes().first() else {
            return Ok(());
        };
        let log = node.log("kubelet");
        self.define_gateway(&log).await?;
        self.apply(FIXTURE).await?;
        let args = [
            "--pool-name=pool".to_owned(),
            format!("--pool-namespace={NAMESPACE}"),
            format!("--grpc-port={PORT}"),
            format!("--grpc-health-port={HEALTH}"),
            format!("--config-file={FILES}/config.yaml"),
            "--metrics-endpoint-auth=false".to_owned(),
            "--tracing=false".to_owned(),
        ];
        self.run_in_pod(InPod {
            add_on: AddOn::Gateway,
            namespace: NAMESPACE,
            args: args.into(),
            port: PORT,
            ready: Some(json!({ "grpc": { "port": HEALTH, "service": "inference-extension" } })),
            // JSON is YAML.
            files: json!({ "config.yaml": config().to_string() }),
        })
        .await?;
        let deployments: Api<Deployment> = Api::namespaced(self.client().await?, NAMESPACE);
        self.wait(
            "the endpoint picker serves its pool",
            &log,
            START_DEADLINE,
            async || {
                let found = deployments.get(NAME).await.map_err(|e| e.to_string())?;
                let status = found.status.unwrap_or_default();
                match status.ready_replicas {
                    Some(1) => Ok(()),
                    _ => Err("not ready".to_owned()),
                }
            },
        )
        .await
    }

    async fn define_gateway(&self, log: &Path) -> Result<()> {
        let client = self.client().await?;
        let definitions = self.kept(NAME, KEPT[0])?;
        apply_values(&client, NAME, definitions.iter().cloned()).await?;
        self.wait_established(log, &definitions).await
    }
}
