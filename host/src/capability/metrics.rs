//! Metrics of the cluster: expositions of workloads, read whole and strictly, of which only the named series reach the guest,
//! and expressions that a monitoring system evaluates, looked at by `promql.rs` before.
//!
//! A scrape is one GET through the same door, targets and checks as those of `target.rs`. Names and labels are redacted
//! like any document; a value is a number and keeps its text. What is no exposition is an answer of the workload that says
//! so, with the line (`InvalidExposition`), and never a reading.

use super::address::{self, malformed};
use super::answers::fetch;
use super::exposition::{self, Format, Sample};
use super::promql::{self, Granted};
use super::target::{self, Target};
use super::text;
use crate::gate::{Answer, Call, Content, Door, Trouble};
use crate::recording::format::{Access, Failure, ResourceAccess};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

/// Series that one scrape may name.
const NAMES_MAX: usize = 64;
/// How long a scrape may take.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a scrape asks for.
const ACCEPT: &str =
    "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.8,*/*;q=0.1";
/// How long a query may take, for Prometheus and for us.
const QUERY_PATIENCE: &str = "10s";
const QUERY_TIMEOUT: Duration = Duration::from_secs(15);
/// Samples of one query.
const POINTS_MAX: usize = 500;
/// Samples of one reading that a recording may hold.
const READINGS_MAX: usize = 100_000;

/// Samples of one reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Samples(Vec<Sample>);

impl Samples {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Name of a series; empty beyond the end.
    pub fn name(&self, at: usize) -> &str {
        self.0.get(at).map_or("", |sample| &sample.name)
    }

    /// Labels, sorted by name; none beyond the end.
    pub fn labels(&self, at: usize) -> &[(String, String)] {
        self.0.get(at).map_or(&[], |sample| &sample.labels)
    }

    /// The value as a double; NaN beyond the end.
    pub fn value(&self, at: usize) -> f64 {
        exposition::number_of(self.text(at)).unwrap_or(f64::NAN)
    }

    /// The value as it was written; empty beyond the end.
    pub fn text(&self, at: usize) -> &str {
        self.0.get(at).map_or("", |sample| &sample.text)
    }

    /// From the document that stands in a recording.
    fn read(document: &str) -> Option<Samples> {
        let document: Value = serde_json::from_str(document).ok()?;
        let samples = document
            .as_array()
            .filter(|all| all.len() <= READINGS_MAX)?;
        let sample = |sample: &Value| {
            let labels = sample["labels"].as_object()?.iter();
            let labels = labels.map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
            Some(Sample {
                name: sample["name"].as_str()?.to_owned(),
                labels: labels.collect::<Option<_>>()?,
                text: sample["value"].as_str()?.to_owned(),
            })
        };
        samples
            .iter()
            .map(sample)
            .collect::<Option<_>>()
            .map(Samples)
    }
}

/// Reads an exposition endpoint and gives the samples of the named series.
///
/// # Errors
/// As for a request of `http`; `Answered` with the workload's code where it does not answer 200, and with the reason
/// `InvalidExposition` where what it answers is none.
pub async fn scrape(
    door: &Door,
    target: &str,
    path: &str,
    names: &[String],
) -> Result<Samples, Failure> {
    const FUNCTION: &str = "metrics.scrape";
    let shown: Vec<&String> = names.iter().take(NAMES_MAX + 1).collect();
    let call = Call::new(
        FUNCTION,
        json!({"target": target, "path": path, "names": shown}),
    );
    let checked = check_names(names).and_then(|()| {
        let (path, query) = target::split(path)?;
        Ok((Target::parse(target)?.access("get", path), query.to_owned()))
    });
    let (access, query) = match checked {
        Ok(checked) => checked,
        Err(failure) => return samples(FUNCTION, text(FUNCTION, door.refuse(call, failure))),
    };
    let (reply, _) = door
        .call(call.reaching(Access::Resource(access)), |wire| async move {
            let query = target::restored_query(&wire, &query)?;
            let (fetched, behind) = fetch(&wire, &query, ACCEPT, SCRAPE_TIMEOUT).await?;
            if fetched.code != 200 {
                return Err(Trouble::Answered(fetched.code, fetched.body));
            }
            let found = read(&fetched.content_type, &fetched.body, names)
                .map_err(|(line, why)| invalid(&line, &why))?;
            let document = document(&wire.live.redactor, found);
            let mut answer = Answer::live(Content::Readings(document), fetched.code);
            answer.facts.objects = behind.objects;
            answer.facts.markers = behind.markers;
            Ok(answer)
        })
        .await;
    samples(FUNCTION, text(FUNCTION, reply))
}

/// Evaluates a PromQL expression at one moment. `endpoint` is a target, with the path before `/api/v1` behind it.
///
/// # Errors
/// As for a request of `http`; an expression that is not allowed; `Answered` with Prometheus' `errorType` as the reason, or
/// with `InvalidResponse`.
pub async fn query(door: &Door, endpoint: &str, promql: &str) -> Result<Samples, Failure> {
    const FUNCTION: &str = "metrics.query";
    let call = Call::new(FUNCTION, json!({"endpoint": endpoint, "promql": promql}));
    let access = match endpoint_of(endpoint) {
        Ok(access) => access,
        Err(failure) => return samples(FUNCTION, text(FUNCTION, door.refuse(call, failure))),
    };
    let (reply, _) = door
        .call(call.reaching(Access::Resource(access)), |wire| async move {
            let live = &wire.live;
            let granted = Granted {
                run: &live.run,
                namespaces: live.namespaces.values().map(String::as_str).collect(),
                matchers: live.effective.matchers(wire.resource()?),
            };
            let sent = promql::check(&wire.restore(promql)?, &granted)?;
            let limit = (POINTS_MAX + 1).to_string();
            let query = address::query(&[
                ("query", &sent),
                ("timeout", QUERY_PATIENCE),
                ("limit", &limit),
            ]);
            let query = query.strip_prefix('?').unwrap_or(&query);
            let (fetched, behind) = fetch(&wire, query, "application/json", QUERY_TIMEOUT).await?;
            let found = answer(fetched.code, fetched.body)?;
            if found.len() > POINTS_MAX {
                return Err(Failure::Budget(format!(
                    "the answer has more than {POINTS_MAX} samples; aggregate them or name more labels"
                ))
                .into());
            }
            let document = document(&live.redactor, found);
            let mut answer = Answer::live(Content::Readings(document), fetched.code);
            answer.facts.objects = behind.objects;
            answer.facts.markers = behind.markers;
            Ok(answer)
        })
        .await;
    samples(FUNCTION, text(FUNCTION, reply))
}

/// `service:<namespace>/<name>:<port>[/prefix]`.
fn endpoint_of(endpoint: &str) -> Result<ResourceAccess, Failure> {
    let after = endpoint.find('/').map_or(endpoint.len(), |at| at + 1);
    let (target, prefix) = match endpoint[after..].find('/') {
        Some(at) => endpoint.split_at(after + at),
        None => (endpoint, ""),
    };
    let path = format!(
        "{}/api/v1/query",
        prefix.strip_suffix('/').unwrap_or(prefix)
    );
    if prefix.contains('?') {
        return Err(malformed("endpoint", endpoint, "has a query"));
    }
    target::check_path(&path)?;
    Ok(Target::parse(target)?.access("get", &path))
}

/// What Prometheus' HTTP API said.
fn answer(code: u16, body: Vec<u8>) -> Result<Vec<Sample>, Trouble> {
    let parsed = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    if parsed["status"] == "error" {
        let text = |key: &str| parsed[key].as_str().unwrap_or("unknown").to_owned();
        return Err(said(code, &text("errorType"), &text("error"), &[]));
    }
    if code != 200 {
        return Err(Trouble::Answered(code, body));
    }
    let invalid = |why: &str| said(200, "InvalidResponse", why, &[]);
    if parsed["status"] != "success" {
        return Err(invalid("the answer is not that of Prometheus' HTTP API"));
    }
    let data = &parsed["data"];
    let value = |point: &Value| {
        let text = point[1]
            .as_str()
            .filter(|text| exposition::number_of(text).is_some());
        text.map(str::to_owned)
            .ok_or_else(|| invalid("a value is no number"))
    };
    match data["resultType"].as_str() {
        Some("scalar") => Ok(vec![Sample {
            name: String::new(),
            labels: Vec::new(),
            text: value(&data["result"])?,
        }]),
        Some("vector") => {
            let series = data["result"].as_array();
            let series = series.ok_or_else(|| invalid("the vector is no list"))?;
            series
                .iter()
                .map(|one| {
                    let metric = one["metric"].as_object();
                    let metric = metric.ok_or_else(|| invalid("a sample has no labels"))?;
                    if one.get("histogram").is_some() {
                        return Err(invalid("a native histogram is no number"));
                    }
                    let mut labels = Vec::new();
                    let mut name = String::new();
                    for (label, text) in metric {
                        let text = text.as_str();
                        let text = text
                            .ok_or_else(|| invalid("a label is no text"))?
                            .to_owned();
                        if label == "__name__" {
                            name = text;
                        } else {
                            labels.push((label.clone(), text));
                        }
                    }
                    labels.sort();
                    Ok(Sample {
                        name,
                        labels,
                        text: value(&one["value"])?,
                    })
                })
                .collect()
        }
        _ => Err(invalid("the result is neither a vector nor a scalar")),
    }
}

fn samples(function: &str, document: Result<String, Failure>) -> Result<Samples, Failure> {
    let document = document?;
    Samples::read(&document).ok_or_else(|| {
        Failure::Malformed(format!(
            "the recorded answer of {function} is no list of samples"
        ))
    })
}

fn check_names(names: &[String]) -> Result<(), Failure> {
    if names.is_empty() || names.len() > NAMES_MAX {
        return Err(Failure::Malformed(format!(
            "{} names of series; between 1 and {NAMES_MAX} are taken",
            names.len()
        )));
    }
    match names.iter().find(|name| !exposition::is_name(name)) {
        Some(name) => Err(malformed(
            "series",
            name,
            "is no name of a series; there are no patterns",
        )),
        None => Ok(()),
    }
}

/// The samples of an exposition, or the line that is wrong and why.
fn read(
    content_type: &str,
    body: &[u8],
    names: &[String],
) -> Result<Vec<Sample>, (String, String)> {
    let format = Format::of(content_type).map_err(|why| (String::new(), why))?;
    let text = std::str::from_utf8(body).map_err(|e| {
        (
            String::new(),
            format!("the text is no UTF-8 at byte {}", e.valid_up_to()),
        )
    })?;
    let names: HashSet<&str> = names.iter().map(String::as_str).collect();
    exposition::parse(text, format, &names).map_err(|wrong| {
        let line = text.lines().nth(wrong.line - 1).unwrap_or_default();
        (line.chars().take(200).collect(), wrong.to_string())
    })
}

/// The workload answered something that is no exposition.
fn invalid(line: &str, why: &str) -> Trouble {
    said(200, "InvalidExposition", why, &[line])
}

/// An answer of a workload in the form in which errors are told.
fn said(code: u16, reason: &str, message: &str, lines: &[&str]) -> Trouble {
    let causes: Vec<Value> = lines
        .iter()
        .map(|line| json!({"reason": "Line", "message": line}))
        .collect();
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": reason, "message": message, "details": {"causes": causes},
    });
    Trouble::Answered(code, status.to_string().into_bytes())
}

/// Samples in JSON: names and labels redacted, numbers as they are.
fn document(redactor: &crate::redact::Redactor, samples: Vec<Sample>) -> String {
    let all: Vec<Value> = samples
        .into_iter()
        .map(|sample| {
            let labels: serde_json::Map<String, Value> = sample
                .labels
                .into_iter()
                .map(|(key, value)| (key, Value::String(value)))
                .collect();
            let mut labels = Value::Object(labels);
            redactor.redact_value(&mut labels);
            json!({"name": sample.name, "labels": labels, "value": sample.text})
        })
        .collect();
    Value::from(all).to_string()
}

/// Both readers of outside text in this module, for fuzzing: an exposition, and an expression with its way to the wire.
#[doc(hidden)]
pub fn read_anything(text: &str) {
    for kind in ["text/plain", "application/openmetrics-text"] {
        let names: Vec<String> = text
            .split(['{', ' ', '\n'])
            .take(8)
            .map(str::to_owned)
            .collect();
        for sample in read(kind, text.as_bytes(), &names).unwrap_or_default() {
            assert!(exposition::number_of(&sample.text).is_some());
            assert!(sample.labels.is_sorted());
        }
    }
    let granted = Granted {
        run: "abcdefgh",
        namespaces: Vec::new(),
        matchers: std::collections::BTreeSet::from(["job=\"dcgm\""]),
    };
    if let Ok(sent) = promql::check(text, &granted) {
        assert_eq!(promql::check(&sent, &granted).as_ref(), Ok(&sent));
    }
}

#[cfg(test)]
mod tests;
