//! The add-on `metrics-server`: what nodes and running pods use, as `metrics.k8s.io`.
//!
//! A process on the host, which reaches the kubelets as the API server does. The API server finds it by a Service of type ExternalName
//! that names the machine itself. It needs two readings, ten seconds apart, before it has a value.

use std::path::PathBuf;

use serde_json::json;

use super::AddOn;
use crate::apply::apply_values;
use crate::control_plane::{ControlPlane, START_DEADLINE};
use crate::error::{Result, TestbedError};
use crate::pki::write_private;
use crate::state::free_ports;
use crate::supervise::Launch;

/// Its name everywhere.
const NAME: &str = AddOn::MetricsServer.name();
/// What it serves.
const SERVED: &str = "/apis/metrics.k8s.io/v1beta1";

impl ControlPlane {
    pub(super) fn metrics_server_log(&self) -> PathBuf {
        self.state_dir().join("log").join(format!("{NAME}.log"))
    }

    pub(super) async fn start_metrics_server(&self) -> Result<()> {
        let port = free_ports(1)?[0];
        let dir = self.state_dir().join(NAME);
        std::fs::create_dir_all(&dir).map_err(TestbedError::io(&dir))?;
        let server = self.pki.local_server()?;
        write_private(&dir.join("tls.crt"), &server.cert_pem)?;
        write_private(&dir.join("tls.key"), &server.key_pem)?;
        let user = self.pki.client(NAME, &["system:masters"])?;
        let kubeconfig = dir.join("kubeconfig");
        write_private(&kubeconfig, &self.pki.kubeconfig(&self.url(), Some(&user)))?;
        let mut args: Vec<String> = ["", "authentication-", "authorization-"]
            .map(|of| format!("--{of}kubeconfig={}", kubeconfig.display()))
            .into();
        args.extend([
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", dir.join("tls.crt").display()),
            format!("--tls-private-key-file={}", dir.join("tls.key").display()),
            format!(
                "--kubelet-certificate-authority={}",
                self.pki.path("ca.crt").display()
            ),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--metric-resolution=10s".to_owned(),
            // A reading must not take longer than the time between two.
            "--kubelet-request-timeout=5s".to_owned(),
        ]);
        let launch = Launch {
            program: self.programs.path(NAME),
            args: args.into_iter().map(Into::into).collect(),
            log: self.metrics_server_log(),
        };
        self.supervisor.start(NAME, launch)?;
        let objects = [
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": { "name": NAME, "namespace": "kube-system" },
                "spec": { "type": "ExternalName", "externalName": "localhost", "ports": [{ "port": port }] },
            }),
            json!({
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": { "name": "v1beta1.metrics.k8s.io" },
                "spec": {
                    "group": "metrics.k8s.io",
                    "version": "v1beta1",
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "insecureSkipTLSVerify": true,
                    "service": { "name": NAME, "namespace": "kube-system", "port": port },
                },
            }),
        ];
        let client = self.client().await?;
        apply_values(&client, NAME, objects).await?;
        self.wait(
            "metrics.k8s.io is served",
            &self.metrics_server_log(),
            START_DEADLINE,
            async || {
                let asked = http::Request::get(SERVED)
                    .body(Vec::new())
                    .map_err(|e| e.to_string())?;
                let served = client.request_text(asked).await;
                served.map(drop).map_err(|e| e.to_string())
            },
        )
        .await
    }
}
