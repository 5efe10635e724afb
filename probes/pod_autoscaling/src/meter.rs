//! What the platform says the gauge is: the custom metric of a pod, and the autoscaler that reads it.
//!
//! A metric under the gauge's own name is read from custom.metrics.k8s.io. One that the operator named otherwise is no line of the
//! manifest, so it is read where the autoscaler shows it.

use crate::manifest::settings;
use crate::place::MOST;
use crate::workload::{EVERY, GAUGE, LOW, Workload};
use karat_sdk::discovery::Discovery;
use karat_sdk::{
    Case, Conclusion, Error, Object, Query, Reason, Result, Target, Value, inventory, json, run,
    wait,
};
use std::time::Duration;

const GROUP: &str = "custom.metrics.k8s.io";
/// Newest first. Autoscalers know both.
const VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];
/// Groups of other pipelines, which are not used.
const OTHERS: [&str; 2] = ["external.metrics.k8s.io", "keda.sh"];
/// What the autoscaler aims at, for the average of all pods. Twice the low level and more, also where it is counted thrice.
pub(crate) const TARGET: u64 = 20;
/// A metric that is so many times beyond the target, or more, must be acted on.
pub(crate) const BEYOND: u64 = 2;
/// Adapters add up what was read twice. That is no fault here, as long as all levels are counted so often.
const MOST_TIMES: u64 = 3;

/// The metric, known to the platform.
pub(crate) struct Meter {
    query: Query,
    metric: String,
    autoscalers: Query,
    /// How often the gauge is counted in the metric.
    times: u64,
}

/// What the platform says of the metric, in thousandths, or why it says nothing.
pub(crate) type Level = std::result::Result<u64, String>;

/// Creates the autoscaler, and waits until the platform knows the metric with the value that the pod serves.
pub(crate) fn find(
    case: &Case,
    workload: &Workload,
    found: &mut Option<Meter>,
) -> Result<Conclusion> {
    let metric = settings::METRIC.get_or(GAUGE.to_owned())?;
    let discovery = Discovery::read()?;
    let Some(version) = discovery.newest(GROUP, &VERSIONS)? else {
        return Ok(absent(&discovery));
    };
    let api_version = format!("{GROUP}/{version}");
    case.observe("served as", &api_version);
    let autoscalers =
        Target::new("autoscaling/v2", "horizontalpodautoscalers").in_namespace(&workload.namespace);
    let made = autoscalers.create(&autoscaler(&workload.name, &metric))?;
    case.observe("autoscaler", made.uid());
    let mut meter = Meter {
        query: Query::new(&api_version, &format!("pods/{GAUGE}")).in_namespace(&workload.namespace),
        autoscalers: autoscalers.query(),
        metric,
        times: 1,
    };
    let limit = settings::METRIC_WAIT.get_or(Duration::from_secs(600))?;
    let mut last = Err("nothing was asked".to_owned());
    let known = wait::poll(EVERY, limit, "the metric of the pod", || {
        last = meter.level(&workload.first)?;
        let level = last.as_ref().copied().unwrap_or_default();
        let times = level / (LOW * 1000);
        Ok((level % (LOW * 1000) == 0 && (1..=MOST_TIMES).contains(&times)).then_some(times))
    });
    match known {
        Ok(times) => {
            case.observe("metric", &meter.metric);
            case.observe("value", shown(LOW * 1000 * times));
            case.observe("times that the gauge is counted", times);
            meter.times = times;
            *found = Some(meter);
            Ok(Conclusion::Pass)
        }
        Err(error) if error.is_deadline() => Ok(meter.not_known(&last, workload, limit.as_secs())),
        Err(error) => Err(error),
    }
}

/// There is no API for metrics of pods.
fn absent(discovery: &Discovery) -> Conclusion {
    let others: Vec<&str> = OTHERS
        .into_iter()
        .filter(|group| !discovery.versions(group).is_empty())
        .collect();
    let beside = if others.is_empty() {
        String::new()
    } else {
        format!("; {} is, which this probe does not use", others.join(", "))
    };
    Conclusion::unknown(
        Reason::SolutionAbsent,
        format!(
            "{GROUP} is not served{beside}; install an adapter for metrics of pods, such as prometheus-adapter"
        ),
    )
}

fn autoscaler(name: &str, metric: &str) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": run::name("scale")},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 1,
            "maxReplicas": MOST,
            "metrics": [{"type": "Pods", "pods": {
                "metric": {"name": metric},
                "target": {"type": "AverageValue", "averageValue": TARGET.to_string()},
            }}],
            // At once in both directions: what is asked is whether, not how smoothly.
            "behavior": {
                "scaleUp": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": MOST, "periodSeconds": 15}]},
                "scaleDown": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
            },
        },
    })
}

/// Thousandths as they are read.
pub(crate) fn shown(milli: u64) -> String {
    if milli.is_multiple_of(1000) {
        (milli / 1000).to_string()
    } else {
        format!("{milli}m")
    }
}

fn quantity(value: &Value) -> Level {
    let text = value.as_str().unwrap_or_default();
    inventory::milli(text).ok_or_else(|| format!("a value `{text}` that is no quantity"))
}

impl Meter {
    fn is_plain(&self) -> bool {
        self.metric == GAUGE
    }

    /// The autoscaler as it is.
    pub(crate) fn autoscaler(&self) -> Result<Object> {
        self.autoscalers.get(&run::name("scale"))
    }

    /// What an autoscaler shows as the average.
    pub(crate) fn average(&self, autoscaler: &Object) -> Level {
        let current = autoscaler
            .items("/status/currentMetrics")
            .iter()
            .find(|one| one["pods"]["metric"]["name"] == self.metric.as_str());
        if let Some(current) = current {
            return quantity(&current["pods"]["current"]["averageValue"]);
        }
        Err(match autoscaler.condition("ScalingActive") {
            Some(active) => format!("{}: {}", active.reason, active.message),
            None => "no autoscaler looked at it".to_owned(),
        })
    }

    /// The metric of a pod; where it has another name, the average that the autoscaler shows.
    pub(crate) fn level(&self, pod: &Object) -> Result<Level> {
        if !self.is_plain() {
            return Ok(self.average(&self.autoscaler()?));
        }
        match self.query.get(pod.name()) {
            Ok(list) => Ok(match list.items("/items") {
                [] => Err("an empty list".to_owned()),
                [one, ..] => quantity(&one["value"]),
            }),
            // An adapter that does not know it yet, or is in trouble. Who may not ask is told so.
            Err(Error::Answered(answer)) if !matches!(answer.code, 401 | 403) => {
                Ok(Err(format!("{} {}", answer.code, answer.message)))
            }
            Err(Error::NoAnswer(text)) => Ok(Err(text)),
            Err(error) => Err(error),
        }
    }

    /// Whether a level is so far beyond the target that more pods must be wanted.
    pub(crate) fn is_beyond(level: &Level) -> bool {
        matches!(level, Ok(level) if *level >= BEYOND * TARGET * 1000)
    }

    /// Whether a level is that of pods which are low.
    pub(crate) fn is_low(&self, level: &Level) -> bool {
        matches!(level, Ok(level) if *level <= LOW * 1000 * self.times)
    }

    /// Where the metric is looked for, in words.
    pub(crate) fn place(&self) -> String {
        if self.is_plain() {
            format!("{GROUP} says of the pod")
        } else {
            format!("the autoscaler says of `{}`", self.metric)
        }
    }

    fn not_known(&self, last: &Level, workload: &Workload, seconds: u64) -> Conclusion {
        match last {
            Ok(level) if self.is_plain() => Conclusion::fail(format!(
                "{} {}, and {} serves {LOW}, for {seconds} s",
                self.place(),
                shown(*level),
                workload.first
            )),
            Ok(level) => Conclusion::unknown(
                Reason::MetricDelayed,
                format!(
                    "{} {}, and the pod serves {LOW}: name the metric that is its gauge `{GAUGE}` with the setting `metric`",
                    self.place(),
                    shown(*level)
                ),
            ),
            Err(why) => Conclusion::unknown(
                Reason::MetricDelayed,
                format!(
                    "the platform has no metric `{}` of the pod after {seconds} s ({why}); say with the settings `metric` and `ask-by` what the \
                     adapter calls the gauge `{GAUGE}` and how a workload asks to be read",
                    self.metric
                ),
            ),
        }
    }
}
