//! Reads a folder, the output of a run or a bundle, into a [`Report`].
//!
//! Only a folder without a readable run record is an error. Everything else that is missing or damaged becomes a
//! [`Problem`] and the rest is told: a report is most wanted when something went wrong. The folder is hostile: every list is
//! cut, all texts together have a budget, no name from inside becomes a path that [`crate::runfolder`] did not check, and
//! no link is followed below the folder. Nothing is compiled or run.

use super::conversation::{Told, tell};
use super::model::{
    Attempt, Case, CategoryCounts, Counts, Lease, Observation, Probe, Problem, REPORT_FORMAT,
    Report, Requirement, Run, Source, Standing, State, Summary,
};
use super::terminal::{conclusion_differs, what_to_do};
use super::text::{FOREIGN_MAX, Foreign};
use crate::catalog::{self, Level, REQUIREMENTS, VERSIONS};
use crate::component::MAX_COMPONENT_BYTES;
use crate::form::minor_version;
use crate::manifest::{CaseKind, Manifest, section};
use crate::model::{AttemptRecord, CaseKey, CaseResult, ProbeRecord, RunRecord};
use crate::recording::{ReadOptions, Recording, read_with, sha256_hex};
use crate::runfolder::{self, FolderError};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::Path;

/// Most probes of a report.
pub const PROBES_MAX: usize = 500;
/// Most attempts of one probe; the last ones are kept, because the last one counts.
pub const ATTEMPTS_MAX: usize = 32;
/// Most cases of one attempt.
pub const CASES_MAX: usize = 400;
/// Most observations of one case.
pub const OBSERVATIONS_MAX: usize = 200;
/// Most calls of one attempt that are kept.
pub const CALLS_MAX: usize = 6_000;
/// Most leases of one attempt that are kept.
pub const LEASES_MAX: usize = 64;
/// Recordings that are read; one of them may be as large as the format allows.
const RECORDINGS_MAX: usize = 600;
/// Entries of all recordings together; after that, no further recording is read.
const ENTRIES_MAX: usize = 2_000_000;
/// Bytes of text in a report. A run of the present suite has some 2 MB.
const TEXT_MAX: usize = 32 << 20;
/// Problems that are told one by one.
const PROBLEMS_MAX: usize = 200;
/// Texts of one list: markers, objects left behind, requirements.
const LIST_MAX: usize = 64;

/// How much foreign text a report still takes. Bounds the memory and the size of every format at once.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
}

impl Budget {
    /// Takes a text.
    pub(super) fn text(&mut self, text: &str) -> Foreign {
        // Beyond this it is cut anyway.
        let cost = text.len().min(FOREIGN_MAX);
        if cost > self.left {
            self.left = 0;
            return Foreign::new("…");
        }
        self.left -= cost;
        Foreign::new(text)
    }

    /// Takes the beginning of a text, at most so many characters.
    pub(super) fn cut(&mut self, text: &str, max: usize) -> Foreign {
        match text.char_indices().nth(max) {
            None => self.text(text),
            Some((end, _)) => {
                let more = text[end..].chars().count();
                self.text(&format!("{}… ({more} more)", &text[..end]))
            }
        }
    }

    /// Whether nothing more fits.
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }
}

/// What is read on the way.
struct Reading<'a> {
    folder: &'a Path,
    budget: Budget,
    problems: Vec<Problem>,
    untold: usize,
    recordings: usize,
    entries: usize,
    began: Option<Timestamp>,
}

/// Reads a folder.
///
/// # Errors
/// There is no run record, or it is unreadable, of another format, or contradicts itself.
pub fn open(folder: &Path) -> Result<Report, FolderError> {
    let record = runfolder::read_record(folder)?;
    Ok(of_record(folder, &record))
}

/// As [`open`], for a run record that was read already.
pub fn of_record(folder: &Path, record: &RunRecord) -> Report {
    let mut reading = Reading {
        folder,
        budget: Budget { left: TEXT_MAX },
        problems: Vec::new(),
        untold: 0,
        recordings: 0,
        entries: 0,
        began: record.started.parse().ok(),
    };
    let run = reading.run(record);
    let mut probes: Vec<Probe> = record
        .probes
        .iter()
        .take(PROBES_MAX)
        .map(|probe| reading.probe(probe))
        .collect();
    let more = record.probes.len().saturating_sub(PROBES_MAX);
    if more > 0 {
        reading.problem(
            "run.json",
            &format!("{more} more probes are not in this report"),
        );
    }
    find_holders(&mut probes);
    let checklist = minor_version(&record.cluster.server_version)
        .filter(|version| VERSIONS.contains(&version.as_str()));
    if checklist.is_none() {
        reading.problem(
            "run.json",
            &format!(
                "the version of the server is `{}`: there is no checklist for it, and so there are no levels",
                record.cluster.server_version
            ),
        );
    }
    let requirements = requirements(&probes, checklist.as_deref());
    let summary = summary(&probes, &requirements);
    if reading.budget.is_spent() {
        reading.problem(
            "the folder",
            "it holds more text than a report takes; the rest is left out",
        );
    }
    Report {
        format: REPORT_FORMAT,
        run,
        checklist,
        summary,
        requirements,
        probes,
        problems: reading.into_problems(),
        record: record.clone(),
    }
}

impl Reading<'_> {
    /// Notes a problem. The texts come out of their own small budget, so that they are told in any case.
    fn problem(&mut self, place: &str, what: &str) {
        if self.problems.len() >= PROBLEMS_MAX {
            self.untold += 1;
            return;
        }
        let mut own = Budget { left: 4 << 10 };
        self.problems.push(Problem {
            place: own.cut(place, 200),
            what: own.cut(what, 800),
        });
    }

    fn into_problems(mut self) -> Vec<Problem> {
        if self.untold > 0 {
            self.problems.push(Problem {
                place: "this report".into(),
                what: format!("{} more problems are not listed", self.untold).into(),
            });
        }
        self.problems
    }

    fn texts(&mut self, list: &[String]) -> Vec<Foreign> {
        list.iter()
            .take(LIST_MAX)
            .map(|text| self.budget.text(text))
            .collect()
    }

    fn run(&mut self, record: &RunRecord) -> Run {
        let ended: Option<Timestamp> = record.ended.as_deref().and_then(|text| text.parse().ok());
        if record.ended.is_none() {
            self.problem("run.json", "the run did not come to its end");
        }
        Run {
            id: self.budget.text(&record.run),
            nonce: record.nonce.as_deref().map(|text| self.budget.text(text)),
            engine: self.budget.text(&record.engine),
            started: self.budget.text(&record.started),
            ended: record.ended.as_deref().map(|text| self.budget.text(text)),
            took_ms: self
                .began
                .zip(ended)
                .and_then(|(began, ended)| since(began, ended)),
            cluster: self.budget.text(&record.cluster.uid),
            server_version: self.budget.text(&record.cluster.server_version),
            reach: record.reach,
            head: self.budget.text(&record.head),
        }
    }

    fn probe(&mut self, record: &ProbeRecord) -> Probe {
        let left_out = record.attempts.len().saturating_sub(ATTEMPTS_MAX);
        if left_out > 0 {
            let what = format!("the first {left_out} attempts are not in this report");
            self.problem(&record.probe, &what);
        }
        let has_run = record
            .attempts
            .iter()
            .any(|attempt| attempt.recording.is_some());
        let manifest = self.manifest(record, has_run);
        let attempts: Vec<Attempt> = record
            .attempts
            .iter()
            .enumerate()
            .skip(left_out)
            .map(|(at, attempt)| {
                let counts = at + 1 == record.attempts.len();
                self.attempt(record, attempt, counts, manifest.as_ref())
            })
            .collect();
        let state = attempts.last().map_or(State::NotRun, Attempt::state);
        let pass_after = attempts
            .iter()
            .rev()
            .skip(1)
            .map(Attempt::state)
            .find(|before| *before != State::Pass)
            .filter(|_| state == State::Pass);
        Probe {
            id: self.budget.text(&record.probe),
            version: self.budget.text(&record.version),
            title: self.budget.text(&record.title),
            requirements: self.texts(&record.requirements),
            digest: self.budget.text(&record.digest),
            contract: self.budget.text(&record.contract),
            claim: manifest.as_ref().map(|m| self.budget.text(&m.claim)),
            misleads: manifest.as_ref().map(|m| self.budget.text(&m.misleads)),
            state,
            pass_after,
            attempts,
        }
    }

    /// The manifest of a probe as it ran, out of the component in the folder. It is read, not compiled.
    fn manifest(&mut self, record: &ProbeRecord, wanted: bool) -> Option<Manifest> {
        match manifest(self.folder, &record.digest) {
            Ok(manifest) => Some(manifest),
            // A probe that was never started is not kept.
            Err(None) if !wanted => None,
            Err(cause) => {
                let cause = cause.unwrap_or_else(|| {
                    "its component is not in the folder; claims and expectations are missing here".to_owned()
                });
                self.problem(&record.probe, &cause);
                None
            }
        }
    }

    fn attempt(
        &mut self,
        probe: &ProbeRecord,
        record: &AttemptRecord,
        counts: bool,
        manifest: Option<&Manifest>,
    ) -> Attempt {
        let judgement = &record.judgement;
        let place = format!("{} attempt {}", probe.probe, record.attempt);
        let kept = judgement.cases.len().min(CASES_MAX);
        if kept < judgement.cases.len() {
            let more = judgement.cases.len() - kept;
            self.problem(&place, &format!("{more} more cases are not in this report"));
        }
        let position: BTreeMap<CaseKey, usize> = judgement.cases[..kept]
            .iter()
            .enumerate()
            .map(|(at, case)| (case.case.clone(), at))
            .collect();
        let told = self.conversation(&place, record, &position);
        let (conversation, leases, mut spans) = match told {
            Some(told) => (Some(told.conversation), told.leases, Some(told.cases)),
            None => (None, Vec::new(), None),
        };
        let cases = judgement.cases[..kept]
            .iter()
            .map(|case| {
                let span = spans.as_mut().map(|spans| spans.remove(&case.case));
                self.case(&place, case, manifest, span)
            })
            .collect();
        let started: Option<Timestamp> = record.started.parse().ok();
        Attempt {
            attempt: record.attempt,
            counts,
            started: self.budget.text(&record.started),
            offset_ms: self
                .began
                .zip(started)
                .and_then(|(began, started)| since(began, started)),
            outcome: record.outcome.word(),
            detail: record.outcome.detail().map(|text| self.budget.text(text)),
            verdict: judgement.verdict,
            reason: judgement.reason,
            meaning: judgement.reason.map(|reason| reason.meaning().0),
            to_do: what_to_do(record),
            explanation: self.budget.text(&judgement.explanation),
            tier: judgement.tier,
            tier_because: self.texts(&judgement.tier_because),
            rules: self.budget.text(&judgement.rules),
            usage: record.usage,
            recording: record
                .recording
                .as_deref()
                .map(|text| self.budget.text(text)),
            head: record.head.as_deref().map(|text| self.budget.text(text)),
            left_behind: self.texts(&record.left_behind),
            cases,
            leases,
            conversation,
        }
    }

    fn conversation(
        &mut self,
        place: &str,
        record: &AttemptRecord,
        position: &BTreeMap<CaseKey, usize>,
    ) -> Option<Told> {
        let relative = record.recording.as_deref()?;
        if self.recordings >= RECORDINGS_MAX || self.entries >= ENTRIES_MAX {
            self.problem(
                place,
                "its recording is not read: the folder holds more than a report takes",
            );
            return None;
        }
        self.recordings += 1;
        match recording(self.folder, relative, record) {
            Err(cause) => {
                self.problem(place, &format!("its conversation cannot be shown: {cause}"));
                None
            }
            Ok(recording) => {
                self.entries += recording.entries().len();
                let told = tell(&recording, position, CALLS_MAX, &mut self.budget);
                if recording.end().is_none() {
                    self.problem(
                        place,
                        "its recording has no end: the run was killed meanwhile",
                    );
                }
                let withheld = recording.withheld().len();
                if withheld > 0 {
                    let what = format!("{withheld} answers are not in this copy");
                    self.problem(place, &what);
                }
                Some(told)
            }
        }
    }

    fn case(
        &mut self,
        place: &str,
        result: &CaseResult,
        manifest: Option<&Manifest>,
        span: Option<Option<super::conversation::Span>>,
    ) -> Case {
        let declared = manifest
            .and_then(|manifest| manifest.cases.iter().find(|case| case.id == result.case.id));
        let more = result.observations.len().saturating_sub(OBSERVATIONS_MAX);
        if more > 0 {
            let what = format!(
                "{more} more observations of case {} are not in this report",
                result.case
            );
            self.problem(place, &what);
        }
        let known = span.is_some();
        let span = span.flatten();
        let (began_ms, ended_ms) = span
            .as_ref()
            .map_or((None, None), |span| (Some(span.began_ms), span.ended_ms));
        Case {
            id: self.budget.text(&result.case.id),
            subject: self.budget.text(&result.case.subject),
            kind: declared.map(|case| match case.kind {
                CaseKind::Observation => "observation",
                CaseKind::Positive => "positive",
                CaseKind::Negative => "negative",
            }),
            required: result.required,
            claim: declared.map(|case| self.budget.text(&case.claim)),
            expected: declared.map(|case| self.budget.text(&case.expected)),
            verdict: result.verdict,
            reason: result.reason,
            explanation: self.budget.text(&result.explanation),
            said: conclusion_differs(result).map(|text| self.budget.text(&text)),
            observations: result
                .observations
                .iter()
                .take(OBSERVATIONS_MAX)
                .map(|observation| Observation {
                    name: self.budget.text(&observation.name),
                    value: self.budget.text(&observation.value),
                    source: if observation.from_answer {
                        Source::Answer
                    } else {
                        Source::Probe
                    },
                })
                .collect(),
            facts: span
                .map(|span| span.facts)
                .or_else(|| known.then(Default::default)),
            calls: result.calls.iter().take(CALLS_MAX).copied().collect(),
            began_ms,
            ended_ms,
        }
    }
}

fn since(began: Timestamp, ended: Timestamp) -> Option<u64> {
    u64::try_from(ended.as_millisecond().checked_sub(began.as_millisecond())?).ok()
}

/// The manifest in a component of the folder. No text means that there is no such file.
fn manifest(folder: &Path, digest: &str) -> Result<Manifest, Option<String>> {
    let path =
        runfolder::component_path(folder, digest).map_err(|error| Some(error.to_string()))?;
    let Ok(found) = fs::symlink_metadata(&path) else {
        return Err(None);
    };
    let wrong = |what: &str| {
        Some(format!(
            "its component {what}; claims and expectations are missing here"
        ))
    };
    if !found.is_file() || path.parent().is_some_and(is_link) {
        return Err(wrong("is no plain file"));
    }
    if found.len() > MAX_COMPONENT_BYTES as u64 {
        return Err(wrong("is too large"));
    }
    let mut bytes = Vec::new();
    let read = fs::File::open(&path).and_then(|file| {
        file.take(MAX_COMPONENT_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
    });
    if let Err(error) = read {
        return Err(wrong(&format!("cannot be read: {error}")));
    }
    if digest.strip_prefix("sha256:") != Some(sha256_hex(&bytes).as_str()) {
        return Err(wrong("has other bytes than its name says"));
    }
    let text =
        section::extract(&bytes).map_err(|error| wrong(&format!("has no manifest: {error}")))?;
    Manifest::parse(text, "karat:manifest").map_err(|error| {
        wrong(&format!(
            "has a manifest that this release does not read: {error}"
        ))
    })
}

fn recording(folder: &Path, relative: &str, record: &AttemptRecord) -> Result<Recording, String> {
    let path = runfolder::recording(folder, relative).map_err(|error| error.to_string())?;
    for part in path.ancestors().take(3) {
        if is_link(part) {
            return Err("a link stands on the way to it, and none is followed".to_owned());
        }
    }
    let options = ReadOptions {
        expected_head: record.head.clone(),
        // Without a head, the run was killed while the attempt went on.
        unfinished: record.head.is_none(),
        withheld: true,
    };
    read_with(&path, &options).map_err(|error| chain(&error))
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next.filter(|_| text.len() < 2_000) {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Finds who held something of each lease while it was waited for: a node or a lock that was granted in the end.
fn find_holders(probes: &mut [Probe]) {
    struct Held {
        probe: usize,
        from: u64,
        until: u64,
        things: BTreeSet<String>,
    }
    let things = |lease: &Lease| -> BTreeSet<String> {
        let nodes = lease
            .nodes
            .iter()
            .map(|node| format!("node {}", node.as_data()));
        let locks = lease
            .locks
            .iter()
            .map(|lock| format!("lock {}", lock.as_data()));
        nodes.chain(locks).collect()
    };
    let mut held = Vec::new();
    for (probe, found) in probes.iter().enumerate() {
        for attempt in &found.attempts {
            let Some(offset) = attempt.offset_ms else {
                continue;
            };
            for lease in attempt.leases.iter().filter(|lease| lease.granted) {
                held.push(Held {
                    probe,
                    from: offset.saturating_add(lease.answered_ms),
                    until: offset.saturating_add(lease.released_ms),
                    things: things(lease),
                });
            }
        }
    }
    // Quadratic in leases; a folder that holds absurdly many is not worth it.
    if held.len() > 2_000 {
        return;
    }
    for (probe, found) in probes.iter_mut().enumerate() {
        for attempt in &mut found.attempts {
            let Some(offset) = attempt.offset_ms else {
                continue;
            };
            for lease in &mut attempt.leases {
                // What takes less was not waited for.
                if lease.waited_ms() < 100 {
                    continue;
                }
                let wanted = things(lease);
                let (from, until) = (
                    offset.saturating_add(lease.asked_ms),
                    offset.saturating_add(lease.answered_ms),
                );
                let holders: BTreeSet<usize> = held
                    .iter()
                    .filter(|other| other.probe != probe)
                    .filter(|other| other.from < until && from < other.until)
                    .filter(|other| !other.things.is_disjoint(&wanted))
                    .map(|other| other.probe)
                    .collect();
                lease.after = holders.into_iter().collect();
            }
        }
    }
}

/// Every requirement of the checklist, then everything else that a probe answers.
fn requirements(probes: &[Probe], checklist: Option<&str>) -> Vec<Requirement> {
    let mut answered: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, probe) in probes.iter().enumerate() {
        for id in &probe.requirements {
            let known = answered.entry(id.as_data()).or_default();
            if known.last() != Some(&at) {
                known.push(at);
            }
        }
    }
    let mut out = Vec::new();
    for row in REQUIREMENTS {
        let level = checklist.and_then(|version| row.level(version));
        let listed = matches!(level, Some(Level::Must | Level::Should));
        let by = answered.remove(row.id).unwrap_or_default();
        if !listed && by.is_empty() {
            continue;
        }
        out.push(Requirement {
            id: row.id.into(),
            kar: row.kar,
            standing: if listed {
                Standing::Official
            } else {
                Standing::OtherVersion
            },
            level: match level {
                Some(Level::Must) => Some("MUST"),
                Some(Level::Should) => Some("SHOULD"),
                Some(Level::Absent) | None => None,
            },
            category: Some(row.category.key()),
            ..requirement(probes, by)
        });
    }
    for (id, by) in answered {
        let extension = catalog::extension_of(id);
        out.push(Requirement {
            id: id.into(),
            standing: if extension.is_some() {
                Standing::Extension
            } else {
                Standing::Foreign
            },
            category: extension.map(|row| row.area),
            ..requirement(probes, by)
        });
    }
    out
}

/// The worst probe decides. What does not apply says nothing beside a probe that tells something.
fn requirement(probes: &[Probe], by: Vec<usize>) -> Requirement {
    let states: Vec<State> = by.iter().map(|at| probes[*at].state).collect();
    let has = |state: State| states.contains(&state);
    let state = if states.iter().all(|state| *state == State::NotRun) {
        State::NotRun
    } else if has(State::Fail) {
        State::Fail
    } else if has(State::Unknown) || has(State::NotRun) {
        State::Unknown
    } else if has(State::Pass) {
        State::Pass
    } else {
        State::NotApplicable
    };
    let tier = by
        .iter()
        .filter_map(|at| probes[*at].counting())
        .filter(|attempt| attempt.verdict.is_some())
        .map(|attempt| attempt.tier)
        .min();
    Requirement {
        id: Foreign::default(),
        kar: None,
        standing: Standing::Foreign,
        level: None,
        category: None,
        state,
        tier,
        probes: by,
    }
}

fn summary(probes: &[Probe], requirements: &[Requirement]) -> Summary {
    let mut summary = Summary::default();
    for probe in probes {
        summary.probes.add(probe.state);
    }
    for requirement in requirements {
        let counts = if requirement.is(Level::Must) {
            &mut summary.must
        } else if requirement.is(Level::Should) {
            &mut summary.should
        } else {
            &mut summary.others
        };
        counts.add(requirement.state);
        let (Standing::Official, Some(key)) = (requirement.standing, requirement.category) else {
            continue;
        };
        match summary
            .categories
            .iter_mut()
            .find(|known| known.category == key)
        {
            Some(known) => known.counts.add(requirement.state),
            None => {
                let mut counts = Counts::default();
                counts.add(requirement.state);
                summary.categories.push(CategoryCounts {
                    category: key,
                    counts,
                });
            }
        }
    }
    summary
}
