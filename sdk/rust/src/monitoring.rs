//! How a workload asks the platform's monitoring to read it: by a monitor of the Prometheus operator, by Google's PodMonitoring, or
//! by the annotations that a bare Prometheus looks for.
//!
//! All of them make somebody else's program fetch it, so the operator of Karat must have opened them. What the monitoring then says is
//! read with [`crate::metrics`].

use crate::case::{Conclusion, Reason};
use crate::discovery::Discovery;
use crate::error::{Error, Result};
use crate::kube::{Object, Query, Target};
use serde_json::{Value, json};

const OPERATOR: &str = "monitoring.coreos.com";
const GOOGLE: &str = "monitoring.googleapis.com";

/// A kind of monitor.
#[derive(Debug)]
struct Kind {
    by: &'static str,
    setting: &'static str,
    group: &'static str,
    resource: &'static str,
    kind: &'static str,
    endpoints: &'static str,
    /// Where a Prometheus of the operator says which ones it takes.
    selector: &'static str,
}

const KINDS: [Kind; 3] = [
    Kind {
        by: "a ServiceMonitor",
        setting: "service-monitor",
        group: OPERATOR,
        resource: "servicemonitors",
        kind: "ServiceMonitor",
        endpoints: "endpoints",
        selector: "/spec/serviceMonitorSelector",
    },
    Kind {
        by: "a PodMonitor",
        setting: "pod-monitor",
        group: OPERATOR,
        resource: "podmonitors",
        kind: "PodMonitor",
        endpoints: "podMetricsEndpoints",
        selector: "/spec/podMonitorSelector",
    },
    Kind {
        by: "a PodMonitoring",
        setting: "pod-monitoring",
        group: GOOGLE,
        resource: "podmonitorings",
        kind: "PodMonitoring",
        endpoints: "endpoints",
        selector: "",
    },
];

/// A way of asking.
#[derive(Debug)]
pub struct Way {
    /// None for annotations.
    kind: Option<&'static Kind>,
    /// Labels that the platform wants to see on a monitor.
    labels: Value,
}

/// What asks.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// Namespace of the workload.
    pub namespace: &'a str,
    /// Name of the monitor, and value of the label.
    pub name: &'a str,
    /// Label of pods and Service by which the monitor selects.
    pub label: &'a str,
    /// Name of the port.
    pub port: &'a str,
    /// Where the metrics are.
    pub path: &'a str,
}

impl Way {
    /// The way that fits the cluster, or the one that the operator named: `annotations`, `service-monitor`, `pod-monitor`,
    /// `pod-monitoring`.
    ///
    /// # Errors
    /// Those of the server and of the door, where the Prometheus operator is asked which monitors it takes.
    pub fn choose(discovery: &Discovery, wanted: Option<&str>) -> Result<Self> {
        let is_served = |kind: &&Kind| {
            discovery
                .resource(kind.group, "v1", kind.resource)
                .is_some()
        };
        let prometheuses = if discovery.resource(OPERATOR, "v1", "prometheuses").is_some() {
            Query::new(&format!("{OPERATOR}/v1"), "prometheuses").list()?
        } else {
            Vec::new()
        };
        let kind = match wanted {
            Some("annotations") => None,
            Some(word) => KINDS.iter().find(|kind| kind.setting == word),
            None => {
                // One that a Prometheus takes, before one that is only served.
                let taken = |kind: &&Kind| {
                    is_served(kind)
                        && prometheuses
                            .iter()
                            .any(|it| it.at(kind.selector).is_object())
                };
                KINDS
                    .iter()
                    .find(taken)
                    .or_else(|| KINDS.iter().find(is_served))
            }
        };
        Ok(Way {
            labels: kind.map_or_else(
                || json!({}),
                |kind| wanted_labels(&prometheuses, kind.selector),
            ),
            kind,
        })
    }

    /// Whether it asks by [`annotations`], which the caller puts on the workload.
    pub fn is_annotations(&self) -> bool {
        self.kind.is_none()
    }

    /// Whether it needs a Service before the workload.
    pub fn wants_service(&self) -> bool {
        self.kind.is_some_and(|kind| kind.kind == "ServiceMonitor")
    }

    /// In the reader's words; annotations have other words where they are put.
    pub fn by(&self) -> &'static str {
        self.kind.map_or(
            "the annotations prometheus.io/scrape, port and path",
            |kind| kind.by,
        )
    }

    /// The labels that the platform wants to see on a monitor, as JSON; empty for annotations.
    pub fn labels(&self) -> String {
        if self.is_annotations() {
            String::new()
        } else {
            self.labels.to_string()
        }
    }

    /// Creates the monitor; nothing for annotations.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn create(&self, of: &Endpoint<'_>) -> Result<()> {
        let Some(kind) = self.kind else {
            return Ok(());
        };
        let mut labels = self.labels.clone();
        labels[of.label] = json!(of.name);
        let mut endpoint = json!({"port": of.port, "interval": "15s"});
        endpoint["path"] = json!(of.path);
        let mut object = json!({
            "apiVersion": format!("{}/v1", kind.group), "kind": kind.kind,
            "metadata": {"name": of.name, "labels": labels},
            "spec": {"selector": {"matchLabels": {of.label: of.name}}},
        });
        object["spec"][kind.endpoints] = json!([endpoint]);
        Target::new(&format!("{}/v1", kind.group), kind.resource)
            .in_namespace(of.namespace)
            .create(&object)
            .map(drop)
    }
}

/// What a bare Prometheus looks for.
pub fn annotations(port: u16, path: &str) -> Value {
    json!({
        "prometheus.io/scrape": "true",
        "prometheus.io/port": port.to_string(),
        "prometheus.io/path": path,
    })
}

/// What it is worth that the cluster does not take what a workload asks by: no more than that this way does not lead anywhere.
///
/// # Errors
/// Those after which nothing can go on, and refusals of Karat, which name the line that opens this way.
pub fn refused(error: Error) -> Result<Conclusion> {
    match error.conclusion() {
        Conclusion::Fail(text) => Ok(Conclusion::unknown(
            Reason::SolutionAbsent,
            format!(
                "the workload could not ask to be read; try another way with the setting `ask-by`: {text}"
            ),
        )),
        _ => Err(error),
    }
}

/// The labels by which the Prometheus objects select monitors.
fn wanted_labels(prometheuses: &[Object], selector: &str) -> Value {
    let mut labels = json!({});
    for one in prometheuses {
        let selector = one.at(selector);
        if let Some(all) = selector["matchLabels"].as_object() {
            for (key, value) in all {
                labels[key.as_str()] = value.clone();
            }
        }
        for expression in selector["matchExpressions"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let Some(key) = expression["key"].as_str() else {
                continue;
            };
            match expression["operator"].as_str() {
                Some("In") => labels[key] = expression["values"][0].clone(),
                Some("Exists") => labels[key] = json!("true"),
                _ => {}
            }
        }
    }
    labels
}
