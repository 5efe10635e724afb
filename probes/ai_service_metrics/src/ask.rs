//! How the workload asks to be read: by a monitor of the Prometheus operator, by Google's PodMonitoring, or by the annotations that
//! a bare Prometheus looks for. All of them make somebody else's program fetch it, so the operator of Karat must have opened them.

use crate::manifest::settings;
use crate::stub::{LABEL, PATH, PORT, PORT_NAME, Stub};
use karat_sdk::discovery::Discovery;
use karat_sdk::kube::PatchKind;
use karat_sdk::{Conclusion, Error, Object, Query, Reason, Result, Target, Value, json};

const OPERATOR: &str = "monitoring.coreos.com";
const GOOGLE: &str = "monitoring.googleapis.com";

/// How, and what else is worth saying of it.
pub(crate) struct Asked {
    /// In the reader's words.
    pub(crate) by: &'static str,
    /// What the platform wanted to see on it.
    pub(crate) labels: String,
}

/// A kind of monitor.
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

/// Asks in the way that fits the cluster, or that the operator named.
pub(crate) fn ask(discovery: &Discovery, stub: &Stub) -> Result<Asked> {
    let wanted = settings::ASK_BY.get()?;
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
    let kind = match wanted.as_deref() {
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
    match kind {
        Some(kind) => monitor(kind, &prometheuses, stub),
        None => annotate(stub),
    }
}

/// What it is worth that the cluster does not take what the workload asks by: no more than that this way does not lead anywhere.
///
/// # Errors
/// Those after which nothing can go on, and refusals of Karat, which name the line that opens this way.
pub(crate) fn refused(error: Error) -> Result<Conclusion> {
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

fn monitor(kind: &Kind, prometheuses: &[Object], stub: &Stub) -> Result<Asked> {
    let mut labels = wanted_labels(prometheuses, kind.selector);
    let shown = labels.to_string();
    labels[LABEL] = json!(stub.name);
    let mut endpoint = json!({"port": PORT_NAME, "interval": "15s"});
    endpoint["path"] = json!(PATH);
    let mut object = json!({
        "apiVersion": format!("{}/v1", kind.group), "kind": kind.kind,
        "metadata": {"name": stub.name, "labels": labels},
        "spec": {"selector": {"matchLabels": {LABEL: stub.name}}},
    });
    object["spec"][kind.endpoints] = json!([endpoint]);
    Target::new(&format!("{}/v1", kind.group), kind.resource)
        .in_namespace(&stub.namespace)
        .create(&object)?;
    Ok(Asked {
        by: kind.by,
        labels: shown,
    })
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

fn annotate(stub: &Stub) -> Result<Asked> {
    let body = json!({"metadata": {"annotations": {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": PORT.to_string(),
        "prometheus.io/path": PATH,
    }}});
    // Some look for them on pods, some on Services.
    for resource in ["pods", "services"] {
        Target::new("v1", resource)
            .in_namespace(&stub.namespace)
            .patch(&stub.name, PatchKind::Merge, &body)?;
    }
    Ok(Asked {
        by: "the annotations prometheus.io/scrape, port and path on the pod and its Service",
        labels: String::new(),
    })
}
