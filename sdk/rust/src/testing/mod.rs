//! A fake cluster for native unit tests, so that every branch of a probe is tested in milliseconds.
//!
//! ```
//! use karat_sdk::testing::{self, FakeCluster};
//! use karat_sdk::{CaseId, Probe, Query, Result};
//!
//! const MANIFEST: &str = r#"
//! id = "example"
//! cases = [{ id = "namespaces", kind = "positive", required = "always", effect = ["get namespaces"] }]
//! [[permissions]]
//! api-groups = [""]
//! resources = ["namespaces"]
//! verbs = ["get"]
//! scope = "cluster"
//! "#;
//! const NAMESPACES: CaseId = CaseId::from_manifest("namespaces");
//!
//! struct Example;
//! impl Probe for Example {
//!     fn check() -> Result<()> {
//!         let case = NAMESPACES.open("")?;
//!         let found = Query::new("v1", "namespaces").get("kube-system")?;
//!         case.observe("uid", found.uid());
//!         case.pass()
//!     }
//! }
//!
//! let run = testing::run::<Example>(MANIFEST, FakeCluster::new("v1.37.0"));
//! run.assert_passed(&["namespaces"]);
//! run.assert_earned();
//! testing::assert_faults_are_no_fail::<Example>(MANIFEST, || FakeCluster::new("v1.37.0"));
//! ```
//!
//! Time is virtual: a wait of ten minutes takes none. A call that `probe.toml` does not ask for is refused, as the door would.
//! [`Run::assert_earned`] looks for passes that the engine would not believe.

mod asserts;
mod attempt;
mod cluster;
pub mod dra;
pub mod gang;
mod leases;
mod manifest;
pub(crate) mod pods;
mod selector;
#[cfg(test)]
mod tests;
mod workload;

pub use asserts::assert_faults_are_no_fail;
pub(crate) use attempt::{if_running, with};
pub use cluster::{Admission, FakeCluster, Fault};
pub use pods::{FakeLog, FakeResult, PodRequest};
pub use workload::Answering;

use crate::Probe;
use crate::case::Conclusion;
use crate::error::Error;
use manifest::Manifest;
use serde_json::Value;

/// The run id of every run on a fake cluster.
pub const RUN_ID: &str = attempt::RUN;

/// Something that can become ready, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceId {
    Watch(usize),
    Stream(usize),
    Response(usize),
}

/// What a probe did on a fake cluster.
#[derive(Debug)]
pub struct Run {
    /// What `check` gave.
    pub result: Result<(), Error>,
    /// The cases in the order of their opening.
    pub cases: Vec<CaseRecord>,
    /// The calls to the cluster in their order.
    pub calls: Vec<Call>,
    /// Level and text of the log lines.
    pub log: Vec<(String, String)>,
    /// Names of the leases that were taken, in their order, and whether each was given back.
    pub leases: Vec<(Vec<String>, bool)>,
    /// The cluster afterwards.
    pub cluster: FakeCluster,
    manifest: Manifest,
}

/// One opened case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseRecord {
    /// Id of the manifest.
    pub id: String,
    /// Subject it was opened for.
    pub subject: String,
    /// Names and values shown.
    pub observations: Vec<(String, String)>,
    /// What it concluded.
    pub conclusion: Option<Conclusion>,
}

/// One call to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Position in [`Run::cases`] of the case that was open.
    pub case: Option<usize>,
    /// `get`, `list`, `create`, …
    pub verb: String,
    /// API group.
    pub group: String,
    /// Plural resource, or the path of a `raw` call.
    pub resource: String,
    /// Namespace, empty for none.
    pub namespace: String,
    /// Name, empty for none.
    pub name: String,
    /// Whether it was a dry run.
    pub dry_run: bool,
    /// Whether the server answered.
    pub live: bool,
    /// HTTP status, 0 for none.
    pub code: u16,
    /// The body that was sent.
    pub sent: String,
    /// The text that came back.
    pub seen: String,
}

/// Runs a probe with its manifest on a fake cluster.
///
/// # Panics
/// When the manifest is no TOML, or another probe is running on this thread.
pub fn run<P: Probe>(manifest: &str, cluster: FakeCluster) -> Run {
    run_with::<P>(manifest, cluster, &[])
}

/// As [`run`], with settings of the operator.
///
/// # Panics
/// As [`run`].
pub fn run_with<P: Probe>(manifest: &str, cluster: FakeCluster, settings: &[(&str, &str)]) -> Run {
    let manifest = Manifest::parse(manifest).unwrap_or_else(|error| panic!("probe.toml: {error}"));
    let settings = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let attempt = attempt::Attempt::new(cluster, manifest, settings);
    let (attempt, result) = attempt::during(attempt, P::check);
    Run {
        result,
        cases: attempt.cases,
        calls: attempt.calls,
        log: attempt.log,
        leases: attempt.leases,
        cluster: attempt.cluster,
        manifest: attempt.manifest,
    }
}

impl Run {
    /// The first case of this id.
    pub fn case(&self, id: &str) -> Option<&CaseRecord> {
        self.cases.iter().find(|case| case.id == id)
    }

    /// What the first case of this id concluded.
    pub fn conclusion(&self, id: &str) -> Option<&Conclusion> {
        self.case(id)?.conclusion.as_ref()
    }

    /// The value shown under this name in the first case of this id.
    pub fn observed(&self, id: &str, name: &str) -> Option<&str> {
        self.case(id)?
            .observations
            .iter()
            .find(|(have, _)| have == name)
            .map(|(_, value)| value.as_str())
    }

    /// Objects of the run that are still there, without its namespaces.
    pub fn left_behind(&self, resources: &[&str]) -> Vec<Value> {
        resources
            .iter()
            .flat_map(|resource| self.cluster.objects(resource))
            .filter(|object| object["metadata"]["labels"]["karat.internal/run"] == RUN_ID)
            .collect()
    }

    /// Every case by id with its conclusion, for comparing in a test.
    pub fn conclusions(&self) -> Vec<(&str, Option<&Conclusion>)> {
        self.cases
            .iter()
            .map(|case| (case.id.as_str(), case.conclusion.as_ref()))
            .collect()
    }

    /// What the engine's rules would say against this run: required cases without conclusion, passes without a live call that
    /// matches their effect, passes that show nothing the server said, negatives whose control did not pass.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if let Err(error) = &self.result {
            complaints.push(format!("check: {error}"));
        }
        for declared in &self.manifest.cases {
            let opened = self.cases.iter().any(|case| case.id == declared.id);
            if declared.required == "always" && !opened {
                complaints.push(format!("{}: not exercised", declared.id));
            }
        }
        for (at, case) in self.cases.iter().enumerate() {
            let Some(declared) = self.manifest.cases.iter().find(|have| have.id == case.id) else {
                continue;
            };
            if case.conclusion != Some(Conclusion::Pass) {
                continue;
            }
            let calls: Vec<&Call> = self
                .calls
                .iter()
                .filter(|call| call.case == Some(at))
                .collect();
            let effects: Vec<&&Call> = calls
                .iter()
                .filter(|call| {
                    call.live
                        && declared
                            .effect
                            .iter()
                            .any(|effect| matches_effect(effect, call))
                })
                .filter(|call| !call.dry_run || call.code >= 400)
                .collect();
            if effects.is_empty() {
                complaints.push(format!("{}: no effect", case.id));
            }
            if calls.iter().any(|call| call.code == 0 && !call.live) {
                complaints.push(format!("{}: a call was refused or lost", case.id));
            }
            let shown = case.observations.iter().any(|(_, value)| {
                !value.is_empty()
                    && calls.iter().any(|call| {
                        call.seen.contains(value.as_str()) || call.code.to_string() == *value
                    })
                    && !self
                        .calls
                        .iter()
                        .any(|call| call.sent.contains(value.as_str()))
            });
            if !shown && declared.kind != "negative" {
                complaints.push(format!("{}: shows no value of an answer", case.id));
            }
            if declared.kind == "negative" {
                // What a container told of its own attempt stands for a refusal, and is none of the log or command itself.
                let is_inside =
                    |call: &Call| matches!(call.resource.as_str(), "pods/log" | "pods/exec");
                let refused = effects.iter().any(|call| {
                    if is_inside(call) {
                        call.code == 200 && !call.seen.is_empty()
                    } else {
                        (400..500).contains(&call.code)
                    }
                });
                let accepted = effects.iter().any(|call| {
                    call.code == 200
                        && !is_inside(call)
                        && matches!(call.verb.as_str(), "create" | "update" | "patch")
                });
                if !refused && declared.quiet.is_none() {
                    complaints.push(format!("{}: nothing was refused", case.id));
                }
                if accepted && declared.quiet.is_none() {
                    complaints.push(format!("{}: something was accepted", case.id));
                }
                for control in &declared.controls {
                    if self.conclusion(&control.case) != Some(&Conclusion::Pass) {
                        complaints.push(format!(
                            "{}: control {} did not pass",
                            case.id, control.case
                        ));
                    }
                }
            }
        }
        complaints
    }

    /// Asserts that the engine would believe every pass of this run.
    ///
    /// # Panics
    /// With the complaints, when there are any.
    pub fn assert_earned(&self) {
        let complaints = self.complaints();
        assert!(complaints.is_empty(), "{complaints:#?}\n{:#?}", self.cases);
    }
}

/// Whether a call matches `[verb ]resource[/subresource][.group]`, or a path.
fn matches_effect(pattern: &str, call: &Call) -> bool {
    let (verb, rest) = match pattern.split_once(' ') {
        Some((verb, rest)) => (Some(verb), rest),
        None => (None, pattern),
    };
    if verb.is_some_and(|verb| verb != call.verb) {
        return false;
    }
    if rest.starts_with('/') {
        return rest == call.resource;
    }
    match rest.split_once('.') {
        Some((resource, group)) => {
            (resource == "*" || resource == call.resource) && group == call.group
        }
        None => rest == "*" || rest == call.resource,
    }
}
