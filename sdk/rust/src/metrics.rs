//! Metrics of workloads and of the platform's monitoring.
//!
//! The host reads expositions strictly and gives the samples of the named series only. A number keeps its text:
//! 9223372036854775794, by which accelerators say "not supported", does not survive a double.

use crate::error::Result;
use crate::host;
use crate::kube::Object;

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the series.
    pub name: String,
    /// Labels, sorted by name.
    pub labels: Vec<(String, String)>,
    /// The value as a double.
    pub value: f64,
    /// The value as it was written.
    pub text: String,
}

/// Blank values of NVIDIA's data center GPU manager: not set, not found, not supported, not permitted, as 32 and 64 bit
/// integers and as doubles.
const SENTINELS: &[&str] = &[
    "2147483632",
    "2147483633",
    "2147483634",
    "2147483635",
    "9223372036854775792",
    "9223372036854775793",
    "9223372036854775794",
    "9223372036854775795",
    "140737488355328",
    "140737488355329",
    "140737488355330",
    "140737488355331",
    "18446744073709551615",
];

impl Sample {
    /// A sample with this text as its value. For tests.
    pub fn new(name: &str, labels: &[(&str, &str)], text: &str) -> Self {
        let mut labels: Vec<(String, String)> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        labels.sort();
        Sample {
            name: name.to_owned(),
            labels,
            value: text.parse().unwrap_or(f64::NAN),
            text: text.to_owned(),
        }
    }

    /// The value of a label; none without it.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(label, _)| label == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether the value is a measurement: finite, and none of the numbers by which exporters say that they have none.
    pub fn is_reading(&self) -> bool {
        let plain = self.text.strip_suffix(".0").unwrap_or(&self.text);
        self.value.is_finite() && !SENTINELS.contains(&plain)
    }
}

/// Reads an exposition endpoint ([`crate::http::service`], [`crate::http::pod`]) and gives the samples of the named series.
///
/// # Errors
/// Those of a request; [`crate::Error::Answered`] with an empty reason and the workload's code where it does not answer 200,
/// and with the reason `InvalidExposition` where its answer is none.
pub fn scrape(target: &str, path: &str, names: &[&str]) -> Result<Vec<Sample>> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    host::scrape(target, path, &names)
}

/// Evaluates a PromQL expression at one moment. `endpoint` is a target, with the path before `/api/v1` behind it.
///
/// # Errors
/// Those of a request; [`crate::Error::Answered`] with Prometheus' own `errorType` as the reason.
pub fn query(endpoint: &str, promql: &str) -> Result<Vec<Sample>> {
    host::promql(endpoint, promql)
}

/// A service that answers PromQL, for [`query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryApi {
    /// The system that its labels name.
    pub system: &'static str,
    /// The endpoint. Its service must be named by a permission line and a grant before it can be asked.
    pub endpoint: String,
}

/// Systems by the value of the label `app.kubernetes.io/name` or `app`, with the ports of their query API and what stands
/// before `/api/v1`.
const SYSTEMS: &[(&str, &[&str], &[u64], &str)] = &[
    ("Prometheus", &["prometheus"], &[9090, 80], ""),
    (
        "Thanos",
        &["thanos-query-frontend", "thanos-query", "thanos-querier"],
        &[9090, 10902, 9091],
        "",
    ),
    (
        "VictoriaMetrics",
        &["vmsingle", "victoria-metrics-single"],
        &[8428, 8429],
        "",
    ),
    (
        "VictoriaMetrics cluster",
        &["vmselect"],
        &[8481],
        "/select/0/prometheus",
    ),
    (
        "Mimir",
        &["mimir", "mimir-query-frontend"],
        &[8080],
        "/prometheus",
    ),
];

/// The query APIs among the services of a cluster, in their order. A label is a claim: [`query`] of `vector(1)` shows whether
/// it holds.
pub fn query_apis(services: &[Object]) -> Vec<QueryApi> {
    let found = services.iter().filter_map(|service| {
        let labels = service.at("/metadata/labels");
        let named =
            ["app.kubernetes.io/name", "app"].map(|key| labels[key].as_str().unwrap_or_default());
        let ports = service.at("/spec/ports").as_array()?;
        SYSTEMS.iter().find_map(|(system, names, numbers, prefix)| {
            names.iter().find(|name| named.contains(name))?;
            let port = numbers.iter().find(|number| {
                ports
                    .iter()
                    .any(|port| port["port"].as_u64() == Some(**number))
            })?;
            let target = crate::http::service(service.namespace(), service.name(), port);
            Some(QueryApi {
                system,
                endpoint: format!("{target}{prefix}"),
            })
        })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn query_apis_are_found_by_label_and_port() {
        let service = |name: &str, label: &str, port: u64| {
            Object::new(
                json!({"metadata": {"namespace": "monitoring", "name": name, "labels": {"app.kubernetes.io/name": label}},
                "spec": {"ports": [{"port": 1}, {"port": port}]}}),
            )
        };
        let found = query_apis(&[
            service("a", "prometheus", 9090),
            service("b", "prometheus", 9093),
            service("c", "grafana", 9090),
            service("d", "vmselect", 8481),
            Object::new(json!({"metadata": {"name": "e"}})),
        ]);
        let endpoints: Vec<&str> = found.iter().map(|api| api.endpoint.as_str()).collect();
        assert_eq!(
            endpoints,
            [
                "service:monitoring/a:9090",
                "service:monitoring/d:8481/select/0/prometheus"
            ]
        );
    }

    #[test]
    fn sentinels_are_no_readings() {
        for text in [
            "9223372036854775794",
            "2147483634",
            "140737488355330.0",
            "NaN",
            "+Inf",
        ] {
            assert!(!Sample::new("a", &[], text).is_reading(), "{text}");
        }
        for text in ["0", "41", "1e3", "2147483631"] {
            assert!(Sample::new("a", &[], text).is_reading(), "{text}");
        }
        let sample = Sample::new("a", &[("z", "1"), ("b", "2")], "1");
        assert_eq!(sample.label("z"), Some("1"));
        assert_eq!(sample.labels[0].0, "b");
    }
}
