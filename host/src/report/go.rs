//! The two formats of `go test`: text of `-v`, events of `-json`. One test for each requirement that a probe of the run answers,
//! below one test for the run: `TestKarat/gang_scheduling`.
//!
//! The programme's validator refuses a submission for *any* failing test in such a file, so a test fails only where the engine
//! says that the platform failed; what could not be told is skipped, with the reason. Lines with foreign text begin with
//! words of ours, and no such text can look like a result ([`Foreign::log`]).

use super::model::{Attempt, Case, Observation, Probe, Report, Requirement, Source, State};
use super::text::Foreign;
use crate::model::Tier;
use crate::recording::sha256_hex;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The test that stands for the run, and the name of the package.
const ROOT: &str = "TestKarat";
const PACKAGE: &str = "karat";

/// Observations of a case that are written.
const OBSERVATIONS_MAX: usize = 20;

/// Markers of a simulation that are named; one would do.
const MARKERS_MAX: usize = 3;

/// Longest foreign text of a line, in characters.
const TEXT_MAX: usize = 300;

/// Which requirements a file of results holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All that a probe of the run answers.
    Everything,
    /// Only those with these ids.
    Requirements(BTreeSet<String>),
}

impl Selection {
    pub(super) fn takes(&self, requirement: &Requirement) -> bool {
        requirement.state != State::NotRun
            && match self {
                Selection::Everything => true,
                Selection::Requirements(ids) => ids.contains(requirement.id.as_data()),
            }
    }
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Pass,
    Fail,
    Skip,
}

impl Outcome {
    pub(super) fn of(state: State) -> Outcome {
        match state {
            State::Pass => Outcome::Pass,
            State::Fail => Outcome::Fail,
            State::NotApplicable | State::Unknown | State::NotRun => Outcome::Skip,
        }
    }

    /// A failing case fails a test only where it decides: an optional one is no part of the verdict, and one of an attempt
    /// that broke later is no verdict.
    pub(super) fn of_case(case: &Case, attempt: &Attempt) -> Outcome {
        match Outcome::of(case.state()) {
            Outcome::Fail if !(case.required && attempt.state() == State::Fail) => Outcome::Skip,
            outcome => outcome,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Outcome::Pass => "PASS",
            Outcome::Fail => "FAIL",
            Outcome::Skip => "SKIP",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail => "fail",
            Outcome::Skip => "skip",
        }
    }
}

/// The name of a test: `TestKarat/gang_scheduling`.
pub(super) fn test_name(requirement: &Foreign) -> String {
    format!("{ROOT}/{}", id_part(requirement))
}

/// An id as a part of a name. The slash of a vendor's id becomes a dot, since a test `a/b` would count as a part of `a`. Ids
/// are foreign: one that is none gets a name that no other id has.
pub(super) fn id_part(id: &Foreign) -> String {
    let data = id.as_data();
    let is_id = match data.split_once('/') {
        Some((_, name)) => !name.contains(['.', '/']),
        None => !data.contains('.') && data != ROOT,
    };
    harmless_name(data, is_id)
}

/// A text as a part of the name of a test that stands for no requirement.
pub(super) fn name_part(text: &Foreign) -> String {
    harmless_name(text.as_data(), true)
}

/// A name of harmless characters. Where the text has others, a digest makes it unlike every other one.
fn harmless_name(text: &str, mut is_whole: bool) -> String {
    const MAX: usize = 80;
    let mut out: String = text
        .replacen('/', ".", 1)
        .chars()
        .take(MAX)
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') {
                c
            } else {
                is_whole = false;
                '_'
            }
        })
        .collect();
    if out.starts_with('.') || out.is_empty() || out.contains("..") {
        out = out.replace('.', "_");
        is_whole = false;
    }
    if !is_whole || text.chars().count() > MAX {
        let _ = write!(out, "-{}", &sha256_hex(text.as_bytes())[..8]);
    }
    out
}

/// A finished test.
struct Test {
    name: String,
    outcome: Outcome,
    began: Option<Timestamp>,
    took_ms: u64,
    /// Harmless, without the indentation.
    lines: Vec<String>,
}

impl Test {
    fn ended(&self) -> Option<Timestamp> {
        after(self.began?, self.took_ms)
    }
}

fn after(began: Timestamp, ms: u64) -> Option<Timestamp> {
    let ms = i64::try_from(ms).ok()?;
    began.checked_add(SignedDuration::from_millis(ms)).ok()
}

fn tests(report: &Report, selection: &Selection) -> (Test, Vec<Test>) {
    let children: Vec<Test> = report
        .requirements
        .iter()
        .filter(|requirement| selection.takes(requirement))
        .map(|requirement| test(report, requirement))
        .collect();
    let has = |outcome| children.iter().any(|test| test.outcome == outcome);
    let outcome = if has(Outcome::Fail) {
        Outcome::Fail
    } else if has(Outcome::Pass) {
        Outcome::Pass
    } else {
        Outcome::Skip
    };
    let run = &report.run;
    let took_ms = run.took_ms.unwrap_or_else(|| {
        let times = children.iter().map(|test| test.took_ms);
        times.fold(0, u64::saturating_add)
    });
    let mut lines = vec![
        format!("run: {}", run.id.line(TEXT_MAX)),
        format!("began: {}", run.started.line(TEXT_MAX)),
        format!("server version: {}", run.server_version.line(TEXT_MAX)),
        format!("cluster uid: {}", run.cluster.line(TEXT_MAX)),
        format!("engine: {}", run.engine.line(TEXT_MAX)),
        format!("run head: {}", run.head.line(TEXT_MAX)),
    ];
    for problem in &report.problems {
        lines.push(format!(
            "incomplete: {}: {}",
            problem.place.line(TEXT_MAX),
            problem.what.line(TEXT_MAX)
        ));
    }
    if children.is_empty() {
        lines.push("no requirement was answered".to_owned());
    }
    let root = Test {
        name: ROOT.to_owned(),
        outcome,
        began: run.started.as_data().parse().ok(),
        took_ms,
        lines,
    };
    (root, children)
}

fn test(report: &Report, requirement: &Requirement) -> Test {
    let probes: Vec<&Probe> = requirement
        .probes
        .iter()
        .filter_map(|at| report.probes.get(*at))
        .collect();
    let attempts = || probes.iter().filter_map(|probe| probe.counting());
    let mut lines = vec![about(report, requirement)];
    for probe in &probes {
        probe_lines(&mut lines, probe);
    }
    Test {
        name: test_name(&requirement.id),
        outcome: Outcome::of(requirement.state),
        began: attempts()
            .filter_map(|attempt| attempt.started.as_data().parse().ok())
            .min(),
        took_ms: attempts()
            .map(|attempt| attempt.usage.wall_ms)
            .max()
            .unwrap_or(0),
        lines,
    }
}

fn about(report: &Report, requirement: &Requirement) -> String {
    let mut out = format!("requirement {}", requirement.id.line(TEXT_MAX));
    if let Some(kar) = requirement.kar {
        let _ = write!(out, ", KAR-{kar}");
    }
    match (requirement.level, &report.checklist) {
        (Some(level), Some(version)) => {
            let _ = write!(out, ", {level} in {version}");
        }
        _ => out.push_str(", in no checklist of this version: it informs and counts for nothing"),
    }
    let _ = write!(out, ": {}", requirement.state.word());
    out
}

/// What a probe says, in lines that begin with words of ours.
fn probe_lines(lines: &mut Vec<String>, probe: &Probe) {
    lines.push(format!(
        "probe {} {}, {}",
        probe.id.line(TEXT_MAX),
        probe.version.line(TEXT_MAX),
        probe.digest.line(TEXT_MAX)
    ));
    if let Some(claim) = &probe.claim {
        lines.push(format!("claim: {}", claim.line(TEXT_MAX)));
    }
    let Some(attempt) = probe.counting() else {
        lines.push("it was not started".to_owned());
        return;
    };
    lines.push(attempt_line(probe, attempt));
    lines.extend(because(attempt));
    if attempt.verdict.is_some() {
        lines.push(tier_line(attempt));
    }
    for case in &attempt.cases {
        case_lines(lines, case);
    }
    if let Some(todo) = &attempt.to_do {
        lines.push(format!("to do: {todo}"));
    }
}

fn attempt_line(probe: &Probe, attempt: &Attempt) -> String {
    let mut out = format!(
        "attempt {}, began {}: {}",
        attempt.attempt,
        attempt.started.line(TEXT_MAX),
        attempt.word()
    );
    if let Some(before) = probe.pass_after {
        let _ = write!(out, ", after an attempt that said {}", before.word());
    }
    out
}

/// Why an attempt is no plain pass.
pub(super) fn because(attempt: &Attempt) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(reason) = attempt.reason {
        lines.push(format!("reason: {reason}: {}", reason.meaning().0));
    }
    if let Some(detail) = &attempt.detail {
        lines.push(format!("ended: {}", detail.line(TEXT_MAX)));
    }
    if !attempt.explanation.is_empty() {
        lines.push(format!("because: {}", attempt.explanation.line(TEXT_MAX)));
    }
    lines
}

/// On what the evidence rests.
pub(super) fn tier_line(attempt: &Attempt) -> String {
    let because: Vec<String> = attempt
        .tier_because
        .iter()
        .take(MARKERS_MAX)
        .map(|text| text.line(TEXT_MAX))
        .collect();
    let mut out = format!("tier: {}", attempt.tier);
    if !because.is_empty() {
        let _ = write!(out, ", because of {}", because.join(", "));
    }
    let more = attempt.tier_because.len().saturating_sub(MARKERS_MAX);
    if more > 0 {
        let _ = write!(out, " and {more} more");
    }
    if attempt.tier == Tier::Simulated {
        out.push_str("; what was seen on a simulation is no evidence for a submission");
    }
    out
}

/// A case in lines: what it says, what was expected, what was observed.
pub(super) fn case_lines(lines: &mut Vec<String>, case: &Case) {
    let mut head = format!("case {}: {}", case_name(case), case.state().word());
    if !case.required {
        head.push_str(", no part of the verdict");
    }
    if let Some(claim) = &case.claim {
        let _ = write!(head, ": {}", claim.line(TEXT_MAX));
    }
    lines.push(head);
    if let Some(reason) = case.reason {
        lines.push(format!("  reason: {reason}: {}", reason.meaning().0));
    }
    if !case.explanation.is_empty() {
        lines.push(format!("  because: {}", case.explanation.line(TEXT_MAX)));
    }
    if let Some(expected) = &case.expected {
        lines.push(format!("  expected: {}", expected.line(TEXT_MAX)));
    }
    for observation in case.observations.iter().take(OBSERVATIONS_MAX) {
        lines.push(format!("  {}", observed(observation)));
    }
    let more = case.observations.len().saturating_sub(OBSERVATIONS_MAX);
    if more > 0 {
        lines.push(format!("  observed: … ({more} more)"));
    }
}

fn observed(observation: &Observation) -> String {
    let source = match observation.source {
        Source::Answer => "observed",
        Source::Probe => "computed by the probe",
    };
    format!(
        "{source}: {} = {}",
        observation.name.line(80),
        observation.value.line(TEXT_MAX)
    )
}

/// A case with its subject, on one line.
pub(super) fn case_name(case: &Case) -> String {
    if case.subject.is_empty() {
        case.id.line(80)
    } else {
        format!("{}[{}]", case.id.line(80), case.subject.line(80))
    }
}

/// Seconds as `go test` writes them after a test.
fn seconds(ms: u64) -> String {
    format!("{}.{:02}", ms / 1000, ms % 1000 / 10)
}

/// Seconds as `go test` writes them after a package.
fn package_seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn run_line(test: &Test) -> String {
    format!("=== RUN   {}", test.name)
}

fn log_line(line: &str) -> String {
    // The words of ours come first, so nothing foreign begins a line; asked again, since a reader looks behind blanks.
    format!("    karat: {}", Foreign::new(line).log(usize::MAX))
}

fn result_line(test: &Test, indent: &str) -> String {
    format!(
        "{indent}--- {}: {} ({}s)",
        test.outcome.word(),
        test.name,
        seconds(test.took_ms)
    )
}

fn closing(root: &Test) -> [String; 2] {
    let took = package_seconds(root.took_ms);
    match root.outcome {
        Outcome::Fail => ["FAIL".to_owned(), format!("FAIL\t{PACKAGE}\t{took}s")],
        Outcome::Pass | Outcome::Skip => ["PASS".to_owned(), format!("ok  \t{PACKAGE}\t{took}s")],
    }
}

/// `e2e.log`.
pub(super) fn text(report: &Report, selection: &Selection) -> String {
    let (root, children) = tests(report, selection);
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    for test in std::iter::once(&root).chain(&children) {
        line(run_line(test));
        for text in &test.lines {
            line(log_line(text));
        }
    }
    line(result_line(&root, ""));
    for test in &children {
        line(result_line(test, "    "));
    }
    closing(&root).into_iter().for_each(line);
    out
}

/// One event of `go test -json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Event<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    action: &'a str,
    package: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed: Option<f64>,
}

/// `results.json`.
pub(super) fn events(report: &Report, selection: &Selection) -> Result<String, serde_json::Error> {
    let (root, children) = tests(report, selection);
    let mut out = String::new();
    let mut event = |time: Option<Timestamp>,
                     action: &str,
                     test: Option<&str>,
                     output: Option<String>,
                     took_ms: Option<u64>|
     -> Result<(), serde_json::Error> {
        let event = Event {
            time: time.map(|time| time.to_string()),
            action,
            package: PACKAGE,
            test,
            output: output.map(|text| text + "\n"),
            elapsed: took_ms.map(elapsed),
        };
        out.push_str(&serde_json::to_string(&event)?);
        out.push('\n');
        Ok(())
    };
    event(root.began, "start", None, None, None)?;
    for test in std::iter::once(&root).chain(&children) {
        let name = Some(test.name.as_str());
        event(test.began, "run", name, None, None)?;
        event(test.began, "output", name, Some(run_line(test)), None)?;
        let known = test.ended().or(test.began);
        for line in &test.lines {
            event(known, "output", name, Some(log_line(line)), None)?;
        }
    }
    let ended = root.ended().or(root.began);
    let indents = std::iter::once("").chain(std::iter::repeat("    "));
    for (test, indent) in std::iter::once(&root).chain(&children).zip(indents) {
        let name = Some(test.name.as_str());
        event(ended, "output", name, Some(result_line(test, indent)), None)?;
    }
    for test in children.iter().chain(std::iter::once(&root)) {
        let name = Some(test.name.as_str());
        event(ended, test.outcome.action(), name, None, Some(test.took_ms))?;
    }
    for line in closing(&root) {
        event(ended, "output", None, Some(line), None)?;
    }
    let action = match root.outcome {
        Outcome::Fail => "fail",
        Outcome::Pass | Outcome::Skip => "pass",
    };
    event(ended, action, None, None, Some(root.took_ms))?;
    Ok(out)
}

/// Seconds with hundredths. No run is as long as a number of this kind is exact.
fn elapsed(ms: u64) -> f64 {
    let hundredths = u32::try_from(ms / 10).unwrap_or(u32::MAX);
    f64::from(hundredths) / 100.0
}
