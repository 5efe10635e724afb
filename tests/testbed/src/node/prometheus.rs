//! The add-on `prometheus`: a real Prometheus in a pod, which discovers pods by the API server and fetches those that ask for it
//! by annotation.
//!
//! It is a pod, and not a process of the host, because the API server's proxy leads to pods only (`in_pod` has how). A faulty one is
//! described by [`PrometheusSettings`].

use serde::Deserialize;
use serde_json::{Value, json};

use super::in_pod::{DATA, FILES, InPod, NAMESPACE};
use crate::add_ons::AddOn;
use crate::control_plane::{ControlPlane, START_DEADLINE};
use crate::error::Result;

/// Static objects: account, rights, Service.
const FIXTURE: &str = "prometheus.yaml";
/// How often everything is fetched. Clusters wait 15 s to a minute; tests should not.
const INTERVAL: &str = "2s";

/// How a Prometheus departs from one that fetches every pod with `prometheus.io/scrape`. All fields may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PrometheusSettings {
    /// How often everything is fetched, `30s`.
    pub interval: Option<String>,
    /// Further `relabel_configs` of targets.
    pub relabel: Vec<Value>,
    /// `metric_relabel_configs` of what was fetched.
    pub metric_relabel: Vec<Value>,
    /// Recording rules.
    pub rules: Vec<Value>,
    /// Whether Services with the annotation are fetched as well, so that a pod behind one is fetched twice.
    pub services: bool,
    /// Whether it wants a name and a password, which nobody has.
    pub login: bool,
}

impl PrometheusSettings {
    /// From YAML.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn parse(yaml: &str) -> std::result::Result<Self, String> {
        serde_yaml_ng::from_str(yaml).map_err(|e| e.to_string())
    }

    /// Its files by name.
    fn files(&self) -> Value {
        let relabel = |role: &str| {
            let mut all = conventional(role);
            all.extend(self.relabel.iter().cloned());
            all
        };
        let job = |name: &str, sd: &str, role: &str| {
            json!({
                "job_name": name,
                "kubernetes_sd_configs": [{ "role": sd }],
                "relabel_configs": relabel(role),
                "metric_relabel_configs": self.metric_relabel,
            })
        };
        let mut jobs = vec![job("kubernetes-pods", "pod", "pod")];
        if self.services {
            jobs.push(job("kubernetes-services", "endpointslice", "service"));
        }
        let interval = self.interval.as_deref().unwrap_or(INTERVAL);
        let config = json!({
            "global": { "scrape_interval": interval, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL },
            "rule_files": [format!("{FILES}/rules.yml")],
            "scrape_configs": jobs,
        });
        let rules = json!({ "groups": [{ "name": "recorded", "rules": self.rules }] });
        let web = if self.login {
            // The hash of a password that stands in the tests of the algorithm.
            json!({ "basic_auth_users": { "somebody": "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW" } })
        } else {
            json!({})
        };
        // JSON is YAML.
        json!({
            "prometheus.yml": config.to_string(),
            "rules.yml": rules.to_string(),
            "web.yml": web.to_string(),
        })
    }
}

/// The relabelling that everybody uses for annotations of pods, or of services.
fn conventional(role: &str) -> Vec<Value> {
    let annotation =
        |name: &str| format!("__meta_kubernetes_{role}_annotation_prometheus_io_{name}");
    vec![
        json!({ "source_labels": [annotation("scrape")], "action": "keep", "regex": "true" }),
        json!({ "source_labels": ["__meta_kubernetes_pod_phase"], "action": "drop", "regex": "Pending|Succeeded|Failed|Completed" }),
        json!({ "source_labels": [annotation("path")], "action": "replace", "regex": "(.+)", "target_label": "__metrics_path__" }),
        json!({ "source_labels": ["__address__", annotation("port")], "action": "replace", "regex": "([^:]+)(?::\\d+)?;(\\d+)",
            "replacement": "$1:$2", "target_label": "__address__" }),
        json!({ "source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace" }),
        json!({ "source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod" }),
    ]
}

impl ControlPlane {
    pub(crate) async fn start_prometheus(&self) -> Result<()> {
        self.apply(FIXTURE).await?;
        let args = [
            format!("--config.file={FILES}/prometheus.yml"),
            format!("--web.config.file={FILES}/web.yml"),
            format!("--storage.tsdb.path={DATA}"),
            "--storage.tsdb.retention.time=2h".to_owned(),
        ];
        self.run_in_pod(InPod {
            add_on: AddOn::Prometheus,
            namespace: NAMESPACE,
            args: args.into(),
            port: 9090,
            ready: None,
            files: self.config.prometheus.files(),
        })
        .await?;
        let Some(node) = self.real_nodes().first() else {
            return Ok(());
        };
        let client = self.client().await?;
        self.wait(
            "prometheus answers through the API server's proxy",
            &node.log("kubelet"),
            START_DEADLINE,
            async || {
                let ready = http::Request::get(
                    "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/-/ready",
                )
                .body(Vec::new())
                .map_err(|e| e.to_string())?;
                match client.request_text(ready).await {
                    Ok(_) => Ok(()),
                    Err(kube::Error::Api(answer))
                        if self.config.prometheus.login && answer.code == 401 =>
                    {
                        Ok(())
                    }
                    Err(e) => Err(e.to_string()),
                }
            },
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn departures_are_read_strictly_and_end_up_in_the_files() {
        let settings = PrometheusSettings::parse(
            "relabel: [{action: drop, regex: x}]\nservices: true\nlogin: true\nrules: [{record: a, expr: b}]\n",
        )
        .unwrap();
        let files = settings.files();
        let config: Value =
            serde_json::from_str(files["prometheus.yml"].as_str().unwrap()).unwrap();
        let jobs = config["scrape_configs"].as_array().unwrap();
        assert_eq!(jobs.len(), 2);
        for job in jobs {
            let last = job["relabel_configs"].as_array().unwrap().last().unwrap();
            assert_eq!(last["action"], "drop");
        }
        assert!(files["rules.yml"].as_str().unwrap().contains("\"a\""));
        assert!(files["web.yml"].as_str().unwrap().contains("somebody"));
        assert!(PrometheusSettings::parse("relable: []").is_err());
        assert_eq!(
            PrometheusSettings::parse("{}"),
            Ok(PrometheusSettings::default())
        );
    }
}
