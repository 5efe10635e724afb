//! What a report says, as plain data: every format is written from this one value, and `report.json` is this value.
//!
//! Foreign text has the type [`Foreign`], which cannot be printed without naming the sink. Times are milliseconds since the
//! attempt began, unless a field says otherwise. How it is made from a folder: [`super::open()`].

use super::text::Foreign;
use crate::catalog::{Category, Level};
use crate::model::{Reach, Reason, RunRecord, Tier, Usage, Verdict};
use crate::recording::format::ReplyKind;
use schemars::JsonSchema;
use serde::Serialize;

/// Format of `report.json`, `major.minor`: a field raises the minor version, a meaning the major one.
pub const REPORT_FORMAT: &str = "1.0";

/// Everything that is known of a run, for people and machines.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// Format of this file, `major.minor`.
    pub format: &'static str,
    /// The run itself.
    pub run: Run,
    /// The version of the checklist whose levels are shown, such as `1.37`: that of the cluster. None where the version is
    /// not known to this release; there are no levels then.
    pub checklist: Option<String>,
    /// What the run says, counted.
    pub summary: Summary,
    /// Every requirement of the checklist, and everything else that a probe of the run answers.
    pub requirements: Vec<Requirement>,
    /// The probes in the order of the plan.
    pub probes: Vec<Probe>,
    /// What is missing, damaged or left out. A report with problems is no whole report.
    pub problems: Vec<Problem>,
    /// The record that this was made from, for the format that shares its words with the program.
    #[serde(skip)]
    pub(super) record: RunRecord,
}

/// The run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Run {
    /// Run id.
    pub id: Foreign,
    /// The reviewer's nonce, if one was given.
    pub nonce: Option<Foreign>,
    /// Engine version.
    pub engine: Foreign,
    /// When it began, RFC 3339.
    pub started: Foreign,
    /// When it ended; none after a crash.
    pub ended: Option<Foreign>,
    /// From begin to end in milliseconds, where both are known.
    pub took_ms: Option<u64>,
    /// uid of the cluster's `kube-system` namespace.
    pub cluster: Foreign,
    /// Version of the server.
    pub server_version: Foreign,
    /// Reach that was allowed.
    pub reach: Reach,
    /// The run head, 64 hexadecimal digits.
    pub head: Foreign,
}

/// What the engine says of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Every probe that answers it passed, or the others do not apply.
    Pass,
    /// A probe failed.
    Fail,
    /// Its condition does not arise.
    NotApplicable,
    /// Could not tell; also where a probe ended without a verdict.
    Unknown,
    /// No probe of this run answers it.
    NotRun,
}

impl State {
    /// All, in the order of tables.
    pub const ALL: [State; 5] = [
        State::Pass,
        State::Fail,
        State::Unknown,
        State::NotApplicable,
        State::NotRun,
    ];

    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            State::Pass => "pass",
            State::Fail => "fail",
            State::NotApplicable => "not applicable",
            State::Unknown => "unknown",
            State::NotRun => "not run",
        }
    }

    /// The word of formats: `not-run`.
    pub fn key(self) -> &'static str {
        match self {
            State::Pass => "pass",
            State::Fail => "fail",
            State::NotApplicable => "not-applicable",
            State::Unknown => "unknown",
            State::NotRun => "not-run",
        }
    }
}

impl From<Option<Verdict>> for State {
    fn from(verdict: Option<Verdict>) -> Self {
        match verdict {
            Some(Verdict::Pass) => State::Pass,
            Some(Verdict::Fail) => State::Fail,
            Some(Verdict::NotApplicable) => State::NotApplicable,
            Some(Verdict::Unknown) | None => State::Unknown,
        }
    }
}

/// Numbers of requirements by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Counts {
    /// That passed.
    pub pass: usize,
    /// That failed.
    pub fail: usize,
    /// That could not be told.
    pub unknown: usize,
    /// That do not apply.
    pub not_applicable: usize,
    /// That no probe of the run answers.
    pub not_run: usize,
}

impl Counts {
    /// Counts one more.
    pub fn add(&mut self, state: State) {
        match state {
            State::Pass => self.pass += 1,
            State::Fail => self.fail += 1,
            State::Unknown => self.unknown += 1,
            State::NotApplicable => self.not_applicable += 1,
            State::NotRun => self.not_run += 1,
        }
    }

    /// How many are in a state.
    pub fn of(&self, state: State) -> usize {
        match state {
            State::Pass => self.pass,
            State::Fail => self.fail,
            State::Unknown => self.unknown,
            State::NotApplicable => self.not_applicable,
            State::NotRun => self.not_run,
        }
    }

    /// How many there are.
    pub fn all(&self) -> usize {
        self.pass + self.fail + self.unknown + self.not_applicable + self.not_run
    }

    /// How many a probe of the run answers.
    pub fn run(&self) -> usize {
        self.all() - self.not_run
    }
}

/// What the run says, counted.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Summary {
    /// Probes by the state of the attempt that counts.
    pub probes: Counts,
    /// Requirements that the checklist calls MUST.
    pub must: Counts,
    /// Requirements that the checklist calls SHOULD.
    pub should: Counts,
    /// Everything else that a probe answers: it informs and never counts towards conformance.
    pub others: Counts,
    /// Requirements of the checklist by category, in its order.
    pub categories: Vec<CategoryCounts>,
}

/// One category of the checklist.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CategoryCounts {
    /// Its key in the form.
    pub category: &'static str,
    /// Its requirements.
    pub counts: Counts,
}

/// Where a requirement comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// The checklist of this version lists it.
    Official,
    /// Another version of the checklist lists it, or the version is not known.
    OtherVersion,
    /// A subject of this project, without a requirement behind it.
    Extension,
    /// Of a vendor, or not known to this release.
    Foreign,
}

/// One requirement with everything that the run says of it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Requirement {
    /// Id in the form, or that of an extension or a vendor.
    pub id: Foreign,
    /// Number of its KAR.
    pub kar: Option<u16>,
    /// Where it comes from.
    pub standing: Standing,
    /// `MUST` or `SHOULD` in the checklist of this version.
    pub level: Option<&'static str>,
    /// Section of the form; the area of an extension.
    pub category: Option<&'static str>,
    /// What the run says of it.
    pub state: State,
    /// The lowest tier of the probes that decide.
    pub tier: Option<Tier>,
    /// Positions in `probes` of those that answer it.
    pub probes: Vec<usize>,
}

impl Requirement {
    /// The level, typed.
    pub fn is(&self, level: Level) -> bool {
        let word = match level {
            Level::Must => Some("MUST"),
            Level::Should => Some("SHOULD"),
            Level::Absent => None,
        };
        self.level == word
    }
}

/// The name of a category for people.
pub fn category_title(key: &str) -> &str {
    let known = [
        (Category::Accelerators, "Accelerators"),
        (Category::Networking, "Networking"),
        (
            Category::SchedulingOrchestration,
            "Scheduling and orchestration",
        ),
        (Category::Observability, "Observability"),
        (Category::Security, "Security"),
        (Category::Operator, "Operator"),
    ];
    known
        .iter()
        .find(|(category, _)| category.key() == key)
        .map_or(key, |(_, title)| title)
}

/// One probe with all its attempts.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Probe {
    /// Probe id.
    pub id: Foreign,
    /// Version of the probe.
    pub version: Foreign,
    /// Title of the probe.
    pub title: Foreign,
    /// Requirement ids it answers.
    pub requirements: Vec<Foreign>,
    /// Digest of the component, `sha256:…`.
    pub digest: Foreign,
    /// Contract it was built for.
    pub contract: Foreign,
    /// What a pass asserts; none where the manifest is not in the folder.
    pub claim: Option<Foreign>,
    /// How a pass could mislead; none where the manifest is not in the folder.
    pub misleads: Option<Foreign>,
    /// What the attempt that counts says.
    pub state: State,
    /// Whether it passed only after an attempt that did not.
    pub pass_after: Option<State>,
    /// Attempts in order; the last one counts.
    pub attempts: Vec<Attempt>,
}

impl Probe {
    /// The attempt that counts; none when the probe was not started.
    pub fn counting(&self) -> Option<&Attempt> {
        self.attempts.last()
    }
}

/// One attempt.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Attempt {
    /// Counts from 1.
    pub attempt: u32,
    /// Whether this is the attempt that counts.
    pub counts: bool,
    /// When it began, RFC 3339.
    pub started: Foreign,
    /// Milliseconds from the start of the run, where both times are known.
    pub offset_ms: Option<u64>,
    /// How it ended: `concluded`, `trapped`, …
    pub outcome: &'static str,
    /// More about how it ended.
    pub detail: Option<Foreign>,
    /// The verdict; none when the attempt ended without one.
    pub verdict: Option<Verdict>,
    /// The reason behind an `unknown`.
    pub reason: Option<Reason>,
    /// What the reason means.
    pub meaning: Option<&'static str>,
    /// What to do next, where there is something to do.
    pub to_do: Option<String>,
    /// The engine's explanation.
    pub explanation: Foreign,
    /// What the evidence rests on.
    pub tier: Tier,
    /// Which markers decided the tier.
    pub tier_because: Vec<Foreign>,
    /// Version of the verdict rules.
    pub rules: Foreign,
    /// What it used.
    pub usage: Usage,
    /// Path of the recording below the folder; none when the probe was never started.
    pub recording: Option<Foreign>,
    /// Hash of the recording's last line.
    pub head: Option<Foreign>,
    /// Objects that could not be removed.
    pub left_behind: Vec<Foreign>,
    /// The cases in the manifest's order, once for each subject.
    pub cases: Vec<Case>,
    /// What it waited for and held.
    pub leases: Vec<Lease>,
    /// The calls; none when the recording is not there or damaged. They stand in the recording, not in `report.json`.
    #[serde(skip)]
    pub conversation: Option<Conversation>,
}

impl Attempt {
    /// What it says. An attempt that broke says nothing about the platform.
    pub fn state(&self) -> State {
        match self.outcome {
            "concluded" | "probe-error" => State::from(self.verdict),
            _ => State::Unknown,
        }
    }

    /// The one word: the verdict, or how it ended without one.
    pub fn word(&self) -> &'static str {
        match (self.outcome, self.verdict) {
            ("concluded" | "probe-error", Some(_)) => self.state().word(),
            (outcome, _) => outcome,
        }
    }
}

/// One case of an attempt.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Case {
    /// Id in the manifest.
    pub id: Foreign,
    /// Node, device or version; empty when there is only one.
    pub subject: Foreign,
    /// `observation`, `positive` or `negative`; none where the manifest is not in the folder.
    pub kind: Option<&'static str>,
    /// Whether the verdict includes it.
    pub required: bool,
    /// The claim; none where the manifest is not in the folder.
    pub claim: Option<Foreign>,
    /// What is expected; none where the manifest is not in the folder.
    pub expected: Option<Foreign>,
    /// What the engine makes of it.
    pub verdict: Verdict,
    /// Why, where the verdict is not a plain pass or fail.
    pub reason: Option<Reason>,
    /// The engine's explanation.
    pub explanation: Foreign,
    /// What the probe said, where the engine says something else.
    pub said: Option<Foreign>,
    /// What the probe showed, in its order.
    pub observations: Vec<Observation>,
    /// What the door itself noted meanwhile; none where the recording is not there.
    pub facts: Option<CaseFacts>,
    /// Sequence numbers of the calls made while the case was open.
    pub calls: Vec<u64>,
    /// When it was opened; none where the recording does not show it.
    pub began_ms: Option<u64>,
    /// When it was concluded.
    pub ended_ms: Option<u64>,
}

impl Case {
    /// What it says.
    pub fn state(&self) -> State {
        State::from(Some(self.verdict))
    }
}

/// A value that the probe showed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Observation {
    /// What it is.
    pub name: Foreign,
    /// The value.
    pub value: Foreign,
    /// Where it comes from.
    pub source: Source,
}

/// Where an observed value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// It occurs in an answer of the case and was not written by the run itself.
    Answer,
    /// The probe computed it: nothing but the probe vouches for it.
    Probe,
}

/// What the door noted while a case was open. No probe can write these.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct CaseFacts {
    /// Calls that a server answered.
    pub live: u64,
    /// Errors among them, each with how often it came.
    pub errors: Vec<ErrorFact>,
    /// Calls that the door refused.
    pub refused: u64,
    /// Objects in the answers, the first ones.
    pub objects: Vec<ObjectFact>,
    /// How many more objects there were.
    pub more_objects: u64,
}

/// An error of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ErrorFact {
    /// HTTP status.
    pub code: u16,
    /// `status.reason`.
    pub reason: Foreign,
    /// How often.
    pub count: u64,
}

/// An object in the answers of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ObjectFact {
    /// Kind.
    pub kind: Foreign,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: Foreign,
    /// Name.
    pub name: Foreign,
    /// uid.
    pub uid: Foreign,
    /// The node of a pod, as last seen.
    pub node: Foreign,
    /// The phases it went through, as seen.
    pub phases: Vec<Foreign>,
    /// Whether this run made it.
    pub ours: bool,
}

/// Something that an attempt had for itself for a while.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Lease {
    /// The names of the manifest.
    pub names: Vec<Foreign>,
    /// When it was asked for.
    pub asked_ms: u64,
    /// When it was granted or refused.
    pub answered_ms: u64,
    /// Whether it was granted.
    pub granted: bool,
    /// When it was given back, at the latest the end of the attempt.
    pub released_ms: u64,
    /// Its nodes.
    pub nodes: Vec<Foreign>,
    /// Its locks.
    pub locks: Vec<Foreign>,
    /// Positions in `probes` of those that held some of it while this one waited.
    pub after: Vec<usize>,
}

impl Lease {
    /// How long it was waited for.
    pub fn waited_ms(&self) -> u64 {
        self.answered_ms.saturating_sub(self.asked_ms)
    }
}

/// The calls of one attempt.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// In order; at most [`super::open::CALLS_MAX`].
    pub calls: Vec<Call>,
    /// How many more there are in the recording.
    pub more: u64,
    /// Whether the recording has an end.
    pub finished: bool,
    /// How many answers are not in this copy.
    pub withheld: u64,
    /// When the last call was over.
    pub ended_ms: u64,
}

/// One call of the guest.
#[derive(Clone, Debug)]
pub struct Call {
    /// Counts from 1.
    pub sequence: u64,
    /// When it came in.
    pub at_ms: u64,
    /// Until the guest had its answer.
    pub took_ms: u64,
    /// Position in [`Attempt::cases`] of the case that was open.
    pub case: Option<usize>,
    /// Interface, resource and function.
    pub function: Foreign,
    /// What it reached for: `list pods in namespace x`.
    pub target: Foreign,
    /// The arguments as JSON.
    pub arguments: Foreign,
    /// How it ended.
    pub result: ReplyKind,
    /// Whether a server answered this very call.
    pub live: bool,
    /// Whether it was a dry run.
    pub dry_run: bool,
    /// HTTP status.
    pub code: Option<u16>,
    /// `status.reason` of an error.
    pub reason: Foreign,
    /// Kind of a watch event.
    pub event: Foreign,
    /// The objects of the answer, the first ones, in words.
    pub objects: Vec<Foreign>,
    /// How many more.
    pub more_objects: u64,
    /// Anything else that the door noted: markers of a simulation, a lease, what others changed.
    pub notes: Vec<Foreign>,
    /// The message of a failure, or a short answer.
    pub answer: Option<Foreign>,
    /// Whether the answer is not in this copy.
    pub withheld: bool,
    /// How often it was sent.
    pub tries: u32,
}

/// Something that is missing, damaged or left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// Where: a probe, an attempt, a file.
    pub place: Foreign,
    /// What is wrong.
    pub what: Foreign,
}
