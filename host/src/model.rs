//! The nouns of a run: requirements, cases, verdicts, outcomes, attempts. Plain data, no I/O, no clock.
//!
//! Everything here may end in `run.json`; field names are part of that format. What a verdict needs is decided in
//! [`crate::judge`], never here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The engine's statement about one requirement, or one case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every required case was exercised and held.
    Pass,
    /// A required case was exercised and contradicted the claim.
    Fail,
    /// The condition of the requirement does not arise, and that was shown.
    NotApplicable,
    /// Could not tell; the reason says what would settle it.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::NotApplicable => "not-applicable",
            Verdict::Unknown => "unknown",
        })
    }
}

/// Why a verdict is what it is. The first group is given by probes, the second by the engine.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "the words are documented once, in `Reason::meaning`"
)]
pub enum Reason {
    NoAccelerator,
    UnknownAccelerator,
    SolutionAbsent,
    InsufficientCapacity,
    PermissionDenied,
    ImageUnavailable,
    ProxyUnreachable,
    AuthRequired,
    MetricDelayed,
    CompetingWorkload,
    FeatureGateOff,
    VersionSkew,
    Deadline,
    CleanupIncomplete,
    Vacuous,
    NotExercised,
    NoEffect,
    Gap,
    ControlUnrelated,
    NeedsConsent,
    ProbeError,
    Interrupted,
}

impl Reason {
    /// Every reason, in the order of the specification.
    pub const ALL: &[Reason] = &[
        Reason::NoAccelerator,
        Reason::UnknownAccelerator,
        Reason::SolutionAbsent,
        Reason::InsufficientCapacity,
        Reason::PermissionDenied,
        Reason::ImageUnavailable,
        Reason::ProxyUnreachable,
        Reason::AuthRequired,
        Reason::MetricDelayed,
        Reason::CompetingWorkload,
        Reason::FeatureGateOff,
        Reason::VersionSkew,
        Reason::Deadline,
        Reason::CleanupIncomplete,
        Reason::Vacuous,
        Reason::NotExercised,
        Reason::NoEffect,
        Reason::Gap,
        Reason::ControlUnrelated,
        Reason::NeedsConsent,
        Reason::ProbeError,
        Reason::Interrupted,
    ];

    /// The word as it stands in reports: `insufficient_capacity`.
    pub fn code(self) -> &'static str {
        match self {
            Reason::NoAccelerator => "no_accelerator",
            Reason::UnknownAccelerator => "unknown_accelerator",
            Reason::SolutionAbsent => "solution_absent",
            Reason::InsufficientCapacity => "insufficient_capacity",
            Reason::PermissionDenied => "permission_denied",
            Reason::ImageUnavailable => "image_unavailable",
            Reason::ProxyUnreachable => "proxy_unreachable",
            Reason::AuthRequired => "auth_required",
            Reason::MetricDelayed => "metric_delayed",
            Reason::CompetingWorkload => "competing_workload",
            Reason::FeatureGateOff => "feature_gate_off",
            Reason::VersionSkew => "version_skew",
            Reason::Deadline => "deadline",
            Reason::CleanupIncomplete => "cleanup_incomplete",
            Reason::Vacuous => "vacuous",
            Reason::NotExercised => "not_exercised",
            Reason::NoEffect => "no_effect",
            Reason::Gap => "gap",
            Reason::ControlUnrelated => "control_unrelated",
            Reason::NeedsConsent => "needs_consent",
            Reason::ProbeError => "probe_error",
            Reason::Interrupted => "interrupted",
        }
    }

    /// What the reason means and what to do, one sentence each, for people.
    pub fn meaning(self) -> (&'static str, &'static str) {
        match self {
            Reason::NoAccelerator => (
                "no accelerator was found",
                "run on a cluster with one, or declare the platform accelerator-free",
            ),
            Reason::UnknownAccelerator => (
                "the accelerator is in no profile",
                "add an accelerator profile for it",
            ),
            Reason::SolutionAbsent => (
                "nothing that implements the capability is installed",
                "install one of the solutions that the message names",
            ),
            Reason::InsufficientCapacity => (
                "the cluster had not enough free units",
                "free the units that the message names and run again",
            ),
            Reason::PermissionDenied => (
                "a call inside a case was not allowed, by the API server or by this program",
                "grant what the message names, or apply the RBAC that `karat plan` prints",
            ),
            Reason::ImageUnavailable => (
                "an image could not be pulled",
                "make the image reachable from the nodes",
            ),
            Reason::ProxyUnreachable => (
                "the API server's proxy could not reach the target",
                "check network policies between the control plane and the pods",
            ),
            Reason::AuthRequired => (
                "the target wants its own credentials",
                "give them as a secret setting",
            ),
            Reason::MetricDelayed => (
                "the metric did not appear in time",
                "check the scrape interval and run again",
            ),
            Reason::CompetingWorkload => (
                "other workloads changed the capacity meanwhile",
                "run again when the cluster is quieter",
            ),
            Reason::FeatureGateOff => (
                "a feature gate that the check needs is off",
                "turn it on, or accept that this cannot be told",
            ),
            Reason::VersionSkew => (
                "the cluster serves only versions that the probe does not know",
                "use a newer probe",
            ),
            Reason::Deadline => (
                "the platform was still progressing when the time was up",
                "raise the probe's wall budget or look at what was slow",
            ),
            Reason::CleanupIncomplete => (
                "objects of the run remain",
                "run `karat clean` and look at the finalizers it names",
            ),
            Reason::Vacuous => (
                "the forbidden thing could not have happened anyway",
                "look at the control case: it must pass first",
            ),
            Reason::NotExercised => (
                "a required case was never concluded",
                "look at why the probe stopped before it",
            ),
            Reason::NoEffect => (
                "no live answer stands behind the conclusion",
                "report this to the probe's author",
            ),
            Reason::Gap => (
                "a watch lost continuity during the quiet window",
                "run again; look at the API server if it persists",
            ),
            Reason::ControlUnrelated => (
                "the control case ran on something else",
                "report this to the probe's author",
            ),
            Reason::NeedsConsent => (
                "the case needs a consent that was not given",
                "give the consent that the message names",
            ),
            Reason::ProbeError => ("the probe could not work", "look at its log"),
            Reason::Interrupted => ("the run was stopped", "run again with `--resume`"),
        }
    }

    /// Reads a word; none for words that are no reason.
    pub fn parse(code: &str) -> Option<Reason> {
        Reason::ALL
            .iter()
            .copied()
            .find(|reason| reason.code() == code)
    }

    /// Whether a probe may give this reason itself.
    pub fn is_for_probes(self) -> bool {
        self < Reason::Vacuous
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

/// What the evidence rests on.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// A marker of a simulation was found.
    Simulated,
    /// No marker was found.
    Unmarked,
    /// A positive sign of real hardware was seen in this run.
    Hardware,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Tier::Simulated => "simulated",
            Tier::Unmarked => "unmarked",
            Tier::Hardware => "hardware",
        })
    }
}

/// How an attempt ended, apart from what it says about the platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "detail")]
pub enum Outcome {
    /// The guest returned; a verdict stands beside this.
    Concluded,
    /// The guest returned an error: it could not work.
    ProbeError(String),
    /// The plan refused to start the probe.
    Denied(String),
    /// A budget ended it; the text names the budget.
    OverBudget(String),
    /// It trapped: panic, endless recursion, out-of-bounds access.
    Trapped(String),
    /// It was left out on purpose.
    Skipped(String),
    /// Its origin is not trusted.
    Untrusted(String),
    /// The run was stopped.
    Interrupted,
}

impl Outcome {
    /// The one word of reports.
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Concluded => "concluded",
            Outcome::ProbeError(_) => "probe-error",
            Outcome::Denied(_) => "denied",
            Outcome::OverBudget(_) => "over-budget",
            Outcome::Trapped(_) => "trapped",
            Outcome::Skipped(_) => "skipped",
            Outcome::Untrusted(_) => "untrusted",
            Outcome::Interrupted => "interrupted",
        }
    }

    /// The explanation, where there is one.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Outcome::Concluded | Outcome::Interrupted => None,
            Outcome::ProbeError(text)
            | Outcome::Denied(text)
            | Outcome::OverBudget(text)
            | Outcome::Trapped(text)
            | Outcome::Skipped(text)
            | Outcome::Untrusted(text) => Some(text),
        }
    }
}

/// What a probe concluded for a case, as the contract has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "detail")]
pub enum Conclusion {
    /// The claim held.
    Pass,
    /// The claim was contradicted.
    Fail,
    /// Could not tell: `reason_code: explanation`.
    Unknown(String),
    /// The condition does not arise.
    NotApplicable(String),
    /// A word of a later contract.
    Other(String),
}

/// One opened case: its id in the manifest and the subject it was opened for.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct CaseKey {
    /// Id in the manifest.
    pub id: String,
    /// Node, device or version; empty when there is only one.
    pub subject: String,
}

impl fmt::Display for CaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.subject.is_empty() {
            f.pad(&self.id)
        } else {
            write!(f, "{}[{}]", self.id, self.subject)
        }
    }
}

/// A value that the probe showed for a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Observation {
    /// What it is.
    pub name: String,
    /// The value, text of the guest.
    pub value: String,
    /// Whether the value occurs in an answer of the case and was not written by the run itself; otherwise it was computed by the probe.
    pub from_answer: bool,
}

/// The engine's judgement of one case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaseResult {
    /// Which case.
    pub case: CaseKey,
    /// Whether the worst-case rule includes it.
    pub required: bool,
    /// What the probe said; none when the case was never concluded.
    pub concluded: Option<Conclusion>,
    /// What the engine makes of it.
    pub verdict: Verdict,
    /// Why, where the verdict is not a plain pass or fail.
    pub reason: Option<Reason>,
    /// One or two sentences for people.
    pub explanation: String,
    /// What the probe showed.
    pub observations: Vec<Observation>,
    /// Sequence numbers of the recorded calls made while the case was open.
    pub calls: Vec<u64>,
}

/// The engine's judgement of one attempt of one probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Judgement {
    /// The verdict; none when the attempt ended without one (trap, budget, refusal to start).
    pub verdict: Option<Verdict>,
    /// The reason behind an `unknown`.
    pub reason: Option<Reason>,
    /// One or two sentences for people.
    pub explanation: String,
    /// What the evidence rests on.
    pub tier: Tier,
    /// Which markers decided the tier.
    pub tier_because: Vec<String>,
    /// Every declared case, in the manifest's order, once for each subject.
    pub cases: Vec<CaseResult>,
    /// Version of the verdict rules.
    pub rules: String,
}

/// What an attempt used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// Host calls.
    pub calls: u64,
    /// Bytes of answers that the guest saw.
    pub seen_bytes: u64,
    /// Largest linear memory in bytes.
    pub peak_memory_bytes: u64,
    /// Requests sent to the API server.
    pub requests: u64,
}

/// One attempt of one probe, as it stands in `run.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptRecord {
    /// Counts from 1; a rerun adds, never replaces.
    pub attempt: u32,
    /// When it began, RFC 3339.
    pub started: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What the engine makes of it.
    pub judgement: Judgement,
    /// What it used.
    pub usage: Usage,
    /// Path of the recording below the run folder; none when the probe was never started.
    pub recording: Option<String>,
    /// Hash of the recording's last line, 64 hexadecimal digits; none while it runs, after a crash, and without a recording.
    pub head: Option<String>,
    /// Which place this recording took in the run head, counting from 1; none as long as `head` is none.
    pub folded: Option<u32>,
    /// Objects that could not be removed.
    pub left_behind: Vec<String>,
}

/// One probe of a run with all its attempts. The last one counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeRecord {
    /// Probe id.
    pub probe: String,
    /// Version of the probe.
    pub version: String,
    /// Title of the probe.
    pub title: String,
    /// Requirement ids it answers.
    pub requirements: Vec<String>,
    /// Digest of the component, `sha256:…`.
    pub digest: String,
    /// Contract it was built for.
    pub contract: String,
    /// Attempts in order.
    pub attempts: Vec<AttemptRecord>,
}

/// The record of a run: `run.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunRecord {
    /// Format of this file, `major.minor`.
    pub format: String,
    /// Run id.
    pub run: String,
    /// Random part of the run id, hex; with the nonce it gives the id again.
    pub salt: String,
    /// The reviewer's nonce, if one was given.
    pub nonce: Option<String>,
    /// Engine version.
    pub engine: String,
    /// SHA-256 over probes, permissions, settings, mirrors and reach. A run is continued only with the same.
    pub plan: String,
    /// When the run began, RFC 3339.
    pub started: String,
    /// When everything in it was there, right before the last of what the run made is removed; none while it runs or after a
    /// crash.
    pub ended: Option<String>,
    /// The cluster.
    pub cluster: ClusterRecord,
    /// Reach that was allowed.
    pub reach: Reach,
    /// Hash that folds in each recording's head in the order in which the probes ended.
    pub head: String,
    /// The probes in the order of the plan.
    pub probes: Vec<ProbeRecord>,
    /// How long its leases made it take; none while it runs or after a crash. Of the last part, where a run was continued.
    #[serde(default)]
    pub leases: Option<LeaseRecord>,
    /// That this is a copy in which more was hidden, once for each time; empty for the original.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redacted: Vec<RedactionRecord>,
}

/// That a run was copied, and more was hidden in the copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RedactionRecord {
    /// Run head of what was copied, 64 hexadecimal digits.
    pub from: String,
    /// SHA-256 of the file of rules, 64 hexadecimal digits.
    pub rules: String,
}

/// How long a run had to take because of its leases, and how long it took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseRecord {
    /// Leases that were held.
    pub held: u64,
    /// The longest path, reckoned from the manifests.
    pub planned_ms: u64,
    /// The longest path, reckoned from what was really held and how long each probe worked.
    pub bound_ms: u64,
    /// From the start of the first probe to the end of the last, clean-up of each included.
    pub wall_ms: u64,
}

/// What identifies the cluster of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterRecord {
    /// uid of the `kube-system` namespace, which serves as the cluster's id.
    pub uid: String,
    /// `gitVersion` of the server.
    pub server_version: String,
}

/// How far a run may go, in rising order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Touches nothing.
    Read,
    /// Writes only in namespaces of its own.
    #[default]
    Sandbox,
    /// Creates labelled cluster-scoped objects and removes them.
    ClusterObjects,
    /// May change the number of nodes.
    Disruptive,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Reach::Read => "read",
            Reach::Sandbox => "sandbox",
            Reach::ClusterObjects => "cluster-objects",
            Reach::Disruptive => "disruptive",
        })
    }
}
