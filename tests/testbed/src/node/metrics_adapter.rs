//! The add-on `metrics-adapter`: gauges of pods, as the add-on `prometheus` has them, as `custom.metrics.k8s.io`. A
//! HorizontalPodAutoscaler finds it there as it finds any other, through the API server's aggregation layer.

use serde_json::json;

use super::in_pod::{DATA, InPod};
use crate::add_ons::AddOn;
use crate::control_plane::{ControlPlane, START_DEADLINE};
use crate::error::Result;

/// Static objects: account, rights, Service, APIService.
const FIXTURE: &str = "metrics-adapter.yaml";
/// Where it listens.
const PORT: u16 = 6443;

impl ControlPlane {
    pub(crate) async fn start_metrics_adapter(&self) -> Result<()> {
        self.apply(FIXTURE).await?;
        let mut args = vec![
            "--prometheus=http://prometheus.monitoring.svc.cluster.local:9090".to_owned(),
            format!("--secure-port={PORT}"),
            format!("--cert-dir={DATA}"),
        ];
        args.extend(self.config.adapter_flags.iter().cloned());
        self.run_in_pod(InPod {
            add_on: AddOn::MetricsAdapter,
            args,
            port: PORT,
            files: json!({}),
        })
        .await?;
        let Some(node) = self.real_nodes().first() else {
            return Ok(());
        };
        let client = self.client().await?;
        self.wait(
            "custom.metrics.k8s.io is served",
            &node.log("kubelet"),
            START_DEADLINE,
            async || {
                let asked = http::Request::get("/apis/custom.metrics.k8s.io/v1beta2")
                    .body(Vec::new())
                    .map_err(|e| e.to_string())?;
                let served = client.request_text(asked).await;
                served.map(drop).map_err(|e| e.to_string())
            },
        )
        .await
    }
}
