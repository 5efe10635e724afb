//! The add-on `metrics-adapter`: gauges of pods, as the add-on `prometheus` has them, as `custom.metrics.k8s.io`. A
//! HorizontalPodAutoscaler finds it there as it finds any other, through the API server's aggregation layer. Another one, or a faulty one,
//! is described by [`AdapterSettings`].

use serde::Deserialize;
use serde_json::json;

use super::in_pod::{DATA, InPod, NAMESPACE};
use crate::add_ons::AddOn;
use crate::control_plane::{ControlPlane, START_DEADLINE};
use crate::error::Result;

/// Static objects: account, rights, Service.
const FIXTURE: &str = "metrics-adapter.yaml";
/// What it serves.
const GROUP: &str = "custom.metrics.k8s.io";
/// Where it listens.
const PORT: u16 = 6443;

/// How an adapter departs from one that serves each gauge of a pod under its own name, as `v1beta2`. All fields may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AdapterSettings {
    /// Whether it is registered as `v1beta1`.
    pub older: bool,
    /// What stands before the names of series in those of metrics.
    pub prefix: Option<String>,
    /// A value that it gives whatever Prometheus says.
    pub constant: Option<String>,
    /// How old the values are that it gives, `5m`.
    pub lag: Option<String>,
    /// The pod whose values every pod gets, `namespace/name`.
    pub of: Option<String>,
    /// Whether it keeps the first value of a pod for ever.
    pub frozen: bool,
    /// Whether it keeps the greatest value of a pod for ever.
    pub peak: bool,
}

impl AdapterSettings {
    /// From YAML.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn parse(yaml: &str) -> std::result::Result<Self, String> {
        serde_yaml_ng::from_str(yaml).map_err(|e| e.to_string())
    }

    fn version(&self) -> &'static str {
        if self.older { "v1beta1" } else { "v1beta2" }
    }

    fn flags(&self) -> Vec<String> {
        let texts = [
            ("prefix", &self.prefix),
            ("constant", &self.constant),
            ("lag", &self.lag),
            ("of", &self.of),
        ];
        let switches = [("frozen", self.frozen), ("peak", self.peak)];
        let texts = texts
            .into_iter()
            .filter_map(|(name, text)| Some(format!("--{name}={}", text.as_ref()?)));
        let switches = switches
            .into_iter()
            .filter(|(_, on)| *on)
            .map(|(name, _)| format!("--{name}"));
        texts.chain(switches).collect()
    }

    fn registration(&self) -> serde_json::Value {
        let version = self.version();
        json!({
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": { "name": format!("{version}.{GROUP}") },
            "spec": {
                "group": GROUP,
                "version": version,
                "groupPriorityMinimum": 100,
                "versionPriority": 200,
                "insecureSkipTLSVerify": true,
                "service": { "name": "metrics-adapter", "namespace": NAMESPACE },
            },
        })
    }
}

impl ControlPlane {
    pub(crate) async fn start_metrics_adapter(&self) -> Result<()> {
        let settings = &self.config.metrics_adapter;
        self.apply(FIXTURE).await?;
        let registration = settings.registration().to_string();
        self.apply_yaml("metrics-adapter", &registration).await?;
        let mut args = vec![
            "--prometheus=http://prometheus.monitoring.svc.cluster.local:9090".to_owned(),
            format!("--secure-port={PORT}"),
            format!("--cert-dir={DATA}"),
        ];
        args.extend(settings.flags());
        self.run_in_pod(InPod {
            add_on: AddOn::MetricsAdapter,
            namespace: NAMESPACE,
            args,
            port: PORT,
            ready: None,
            files: json!({}),
        })
        .await?;
        let Some(node) = self.real_nodes().first() else {
            return Ok(());
        };
        let client = self.client().await?;
        let path = format!("/apis/{GROUP}/{}", settings.version());
        self.wait(
            "custom.metrics.k8s.io is served",
            &node.log("kubelet"),
            START_DEADLINE,
            async || {
                let asked = http::Request::get(&path)
                    .body(Vec::new())
                    .map_err(|e| e.to_string())?;
                let served = client.request_text(asked).await;
                served.map(drop).map_err(|e| e.to_string())
            },
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn departures_are_read_strictly_and_end_up_in_flags_and_registration() {
        let settings =
            AdapterSettings::parse("{older: true, constant: \"50\", peak: true}").unwrap();
        assert_eq!(settings.flags(), ["--constant=50", "--peak"]);
        let registration = settings.registration();
        assert_eq!(
            registration["metadata"]["name"],
            "v1beta1.custom.metrics.k8s.io"
        );
        assert!(AdapterSettings::parse("constand: \"50\"").is_err());
        let usual = AdapterSettings::parse("{}").unwrap();
        assert!(usual.flags().is_empty());
        assert_eq!(usual.version(), "v1beta2");
    }
}
