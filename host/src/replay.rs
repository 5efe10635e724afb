//! Verdicts computed again from what a run left on disk: the same probe bytes, the recorded conversation, the same limits and
//! the same rules. No network, no clock, no cluster.
//!
//! The run folder is treated as hostile. What a replay shows is consistency: these probes, given these answers, give these
//! verdicts. It says nothing about where the answers came from, nor about redaction and projection, which happened before the
//! answers were recorded.
//!
//! An attempt that a budget, a trap or a stop ended cannot be computed again: such ends come at moments that no recording
//! can fix. It is replayed as far as its calls go, and its judgement is still derived anew.

use crate::component::{self, LoadError, MAX_COMPONENT_BYTES, Probe};
use crate::engine::Engine;
use crate::gate::{Door, StopSignal};
use crate::judge::{self, Evidence};
use crate::model::{AttemptRecord, Judgement, Outcome, ProbeRecord, RunRecord, Verdict};
use crate::recording::format::{Header, Limits};
use crate::recording::{self, Player, ReadOptions, Recording};
use crate::run::{GuestEnd, GuestRun, classify, run_guest};
use crate::runfolder::{self, FolderError};
use futures::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::Map;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// How much more CPU time a replay may use than the run: the reviewer's machine may be slower, and a verdict must not depend on it.
const CPU_FACTOR: u64 = 4;

/// Attempts that are replayed at one time, where there are processors for them: each holds its whole recording in memory.
const AT_ONCE: usize = 4;

/// Wall time of one replayed attempt. Waiting is replayed too, so only computing takes time.
const WALL: Duration = Duration::from_secs(120);

/// Why nothing could be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The folder holds no run that can be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder holds no such probe.
    #[error("run {run} has no probe {probe}")]
    NoProbe {
        /// Run id.
        run: String,
        /// The probe that was asked for.
        probe: String,
    },
}

/// What a replay found.
#[derive(Clone, Debug)]
pub struct ReplayReport {
    /// The run record, as it stands in the folder.
    pub record: RunRecord,
    /// Every attempt that was looked at, in the order of the record.
    pub attempts: Vec<ReplayedAttempt>,
}

impl ReplayReport {
    /// Everything that differs.
    pub fn findings(&self) -> impl Iterator<Item = &ReplayFinding> {
        self.attempts.iter().flat_map(|attempt| &attempt.findings)
    }

    /// Whether nothing differs.
    pub fn is_consistent(&self) -> bool {
        self.findings().next().is_none()
    }
}

/// One attempt.
#[derive(Clone, Debug)]
pub struct ReplayedAttempt {
    /// Probe id.
    pub probe: String,
    /// Counts from 1.
    pub attempt: u32,
    /// Verdict of the record.
    pub verdict: Option<Verdict>,
    /// How far it could be replayed.
    pub depth: Depth,
    /// Calls of the recording.
    pub calls: u64,
    /// What differs.
    pub findings: Vec<ReplayFinding>,
}

/// How far an attempt was replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The guest ran from its first call to its return, and the verdict was computed from that.
    Full,
    /// The guest ran along the recorded calls; how it ended cannot be computed again. The text says why.
    NotRecomputable(String),
    /// Nothing could be run: no recording, withheld answers, an unreadable file. The text says why.
    None(String),
}

/// One difference between what the folder says and what the replay gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayFinding {
    /// Probe id.
    pub probe: String,
    /// Counts from 1.
    pub attempt: u32,
    /// What differs: `verdict`, `case unauthorised`, `recording`, `component`.
    pub what: String,
    /// What the folder says.
    pub recorded: String,
    /// What the replay gave.
    pub replayed: String,
}

impl fmt::Display for ReplayFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} attempt {}: {}: recorded {}, replayed {}",
            self.probe, self.attempt, self.what, self.recorded, self.replayed
        )
    }
}

/// Replays the attempts of a run; of one probe only, where one is named.
///
/// # Errors
/// The folder holds no readable run record. Everything below it is a finding.
pub async fn replay(
    engine: &Engine,
    folder: &Path,
    only: Option<&str>,
) -> Result<ReplayReport, ReplayError> {
    let record = runfolder::read_record(folder)?;
    if let Some(probe) = only
        && !record.probes.iter().any(|known| known.probe == probe)
    {
        return Err(ReplayError::NoProbe {
            run: record.run,
            probe: probe.chars().take(80).collect(),
        });
    }
    let load = |digest: &str| load(engine, folder, digest).map_err(NoComponent::Damaged);
    let attempts = replay_with(engine, folder, &record, only, load).await;
    Ok(ReplayReport { record, attempts })
}

/// Why a component cannot be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoComponent {
    /// It is not what its digest says, or no probe: a finding.
    Damaged(String),
    /// It is not there, or must not be run: then nothing can be computed again, and that is said.
    Absent(String),
}

/// Replays the attempts of a record that was read from the folder, with components from anywhere: asked once for each digest.
/// Attempts know nothing of each other, so several run at once. Everything that does not hold is a finding.
pub(crate) async fn replay_with(
    engine: &Engine,
    folder: &Path,
    record: &RunRecord,
    only: Option<&str>,
    mut load: impl FnMut(&str) -> Result<Probe, NoComponent>,
) -> Vec<ReplayedAttempt> {
    let mut components = BTreeMap::new();
    let mut jobs = Vec::new();
    for probe in &record.probes {
        if only.is_some_and(|only| only != probe.probe) {
            continue;
        }
        let loaded = components
            .entry(&probe.digest)
            .or_insert_with(|| Arc::new(load(&probe.digest)));
        let shared = Arc::new(probe.clone());
        let of = |attempt: &AttemptRecord| (shared.clone(), attempt.clone(), loaded.clone());
        jobs.extend(probe.attempts.iter().map(of));
    }
    let source = Arc::new((folder.to_path_buf(), record.clone()));
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    stream::iter(jobs)
        .map(|(probe, attempt, loaded)| {
            let (engine, source) = (engine.clone(), source.clone());
            let replay = async move {
                let work = Replay {
                    engine: &engine,
                    folder: &source.0,
                    record: &source.1,
                    probe: &probe,
                    attempt: &attempt,
                    findings: Vec::new(),
                };
                work.run(loaded.as_ref().as_ref()).await
            };
            AbortOnDropHandle::new(tokio::spawn(replay))
        })
        .buffered(processors.min(AT_ONCE))
        .map(|replayed| replayed.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic())))
        .collect()
        .await
}

/// Runs a probe along the calls of a fixture, strictly in their order, and judges them anew: a probe's verdict in a unit test,
/// without a cluster. What a probe concludes and observes is part of its calls, so it has to say the same again.
///
/// # Errors
/// The probe called something else, called less, or ended in another way than the fixture says; the text tells which.
pub async fn replay_fixture(
    engine: &Engine,
    probe: &Probe,
    fixture: Recording,
) -> Result<Judgement, String> {
    let judgement = judge::judge(probe.manifest(), &Evidence::from(&fixture))
        .map_err(|error| error.to_string())?;
    let recorded = fixture.end().map(|end| end.outcome.clone());
    let limits = slower(&fixture.header().limits);
    let door = Door::replay(Player::strict(fixture), Arc::new(probe.manifest().clone()));
    let deadline = Instant::now() + WALL;
    let done = run_guest(
        engine,
        probe,
        door.clone(),
        &limits,
        deadline,
        &StopSignal::never(),
    )
    .await;
    door.finish_replay()?;
    let replayed = classify(&done.end, &done.traces, &limits, false);
    if recorded.as_ref() != Some(&replayed) {
        let word = recorded
            .as_ref()
            .map_or_else(|| "no end".to_owned(), outcome);
        return Err(format!(
            "the probe ended with {}, the fixture says {word}",
            outcome(&replayed)
        ));
    }
    Ok(judgement)
}

/// The limits of a run on a machine that may be slower.
fn slower(limits: &Limits) -> Limits {
    Limits {
        cpu_ms: limits.cpu_ms.saturating_mul(CPU_FACTOR),
        ..limits.clone()
    }
}

/// The component as it lies in the folder, if its bytes are those that its digest names.
pub(crate) fn load(engine: &Engine, folder: &Path, digest: &str) -> Result<Probe, String> {
    let path = runfolder::component_path(folder, digest).map_err(|error| error.to_string())?;
    let file =
        std::fs::File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut bytes = Vec::new();
    file.take(MAX_COMPONENT_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let found = component::digest(&bytes);
    if found != digest {
        return Err(format!("{}: its bytes have digest {found}", path.display()));
    }
    component::load(engine, bytes).map_err(|error: LoadError| error.to_string())
}

struct Replay<'a> {
    engine: &'a Engine,
    folder: &'a Path,
    record: &'a RunRecord,
    probe: &'a ProbeRecord,
    attempt: &'a AttemptRecord,
    findings: Vec<ReplayFinding>,
}

impl Replay<'_> {
    async fn run(mut self, loaded: Result<&Probe, &NoComponent>) -> ReplayedAttempt {
        let (depth, calls) = self.replayed(loaded).await;
        ReplayedAttempt {
            probe: self.probe.probe.clone(),
            attempt: self.attempt.attempt,
            verdict: self.attempt.judgement.verdict,
            depth,
            calls,
            findings: self.findings,
        }
    }

    fn find(
        &mut self,
        what: impl Into<String>,
        recorded: impl Into<String>,
        replayed: impl Into<String>,
    ) {
        self.findings.push(ReplayFinding {
            probe: self.probe.probe.clone(),
            attempt: self.attempt.attempt,
            what: what.into(),
            recorded: recorded.into(),
            replayed: replayed.into(),
        });
    }

    /// Notes a difference between two texts, if there is one.
    fn same(&mut self, what: &str, recorded: &str, replayed: &str) {
        if recorded != replayed {
            self.find(what, recorded, replayed);
        }
    }

    /// Notes each field in which two structs differ.
    fn same_fields<T: Serialize>(&mut self, what: &str, recorded: &T, replayed: &T) {
        let fields = |value: &T| serde_json::to_value(value).unwrap_or_default();
        let (recorded, replayed) = (fields(recorded), fields(replayed));
        let names = recorded.as_object().into_iter().flat_map(Map::keys);
        for name in names.filter(|name| recorded[*name] != replayed[*name]) {
            self.find(
                format!("{what}: {name}"),
                recorded[name].to_string(),
                replayed[name].to_string(),
            );
        }
    }

    async fn replayed(&mut self, loaded: Result<&Probe, &NoComponent>) -> (Depth, u64) {
        let Some(relative) = &self.attempt.recording else {
            let why = format!("no recording: {}", self.attempt.outcome.word());
            return self.without_recording(why);
        };
        if self.attempt.head.is_none() {
            // What a killed run leaves: the recording has no end, so nothing may rest on it.
            return self.without_recording("its recording was cut off".to_owned());
        }
        let read = self.read(relative);
        let recording = match read {
            Ok(recording) => recording,
            Err(error) => {
                self.find(
                    "recording",
                    "a chain of hashes that ends in its head",
                    error.clone(),
                );
                return (Depth::None(error), 0);
            }
        };
        let calls = recording.entries().len() as u64;
        self.check_header(recording.header());
        self.check_end(&recording);
        let probe = match loaded {
            Ok(probe) => probe,
            Err(NoComponent::Absent(why)) => return (Depth::None(why.clone()), calls),
            Err(NoComponent::Damaged(error)) => {
                self.find("component", self.probe.digest.clone(), error);
                return (Depth::None(error.clone()), calls);
            }
        };
        self.check_manifest(&recording, probe);
        self.check_judgement(&recording, probe);
        (self.check_guest(recording, probe).await, calls)
    }

    /// An attempt that never reached the guest has nothing to stand on, so it must not claim anything.
    fn without_recording(&mut self, why: String) -> (Depth, u64) {
        let judgement = &self.attempt.judgement;
        let claims = judgement
            .cases
            .iter()
            .find(|case| case.verdict != Verdict::Unknown || case.concluded.is_some());
        if let Some(verdict) = judgement.verdict {
            self.find("verdict", show(Some(verdict)), format!("none: {why}"));
        } else if let Some(case) = claims {
            self.find(
                format!("case {}", case.case),
                case.verdict.to_string(),
                format!("nothing: {why}"),
            );
        }
        (Depth::None(why), 0)
    }

    fn read(&self, relative: &str) -> Result<Recording, String> {
        let path =
            runfolder::recording(self.folder, relative).map_err(|error| error.to_string())?;
        let options = ReadOptions {
            expected_head: self.attempt.head.clone(),
            withheld: true,
            ..ReadOptions::default()
        };
        recording::read_with(&path, &options).map_err(|error| error.to_string())
    }

    /// What the header says about itself must be what the record says about it.
    fn check_header(&mut self, header: &Header) {
        let (record, probe, attempt) = (self.record, self.probe, self.attempt);
        let nonce = |nonce: &Option<String>| nonce.clone().unwrap_or_else(|| "none".to_owned());
        for (what, recorded, found) in [
            ("run id", record.run.as_str(), header.run.as_str()),
            ("salt", &record.salt, &header.salt),
            ("nonce", &nonce(&record.nonce), &nonce(&header.nonce)),
            ("engine", &record.engine, &header.engine),
            ("cluster", &record.cluster.uid, &header.cluster.uid),
            (
                "server version",
                &record.cluster.server_version,
                &header.cluster.server_version,
            ),
            ("probe", &probe.probe, &header.probe),
            ("probe version", &probe.version, &header.probe_version),
            ("component", &probe.digest, &header.component),
            ("contract", &probe.contract, &header.contract),
            (
                "attempt",
                &attempt.attempt.to_string(),
                &header.attempt.to_string(),
            ),
            ("start", &attempt.started, &header.started),
            ("rules", &attempt.judgement.rules, &header.rules),
        ] {
            self.same(what, recorded, found);
        }
    }

    fn check_end(&mut self, recording: &Recording) {
        let Some(end) = recording.end() else { return };
        let attempt = self.attempt;
        if end.outcome != attempt.outcome {
            self.find("outcome", outcome(&attempt.outcome), outcome(&end.outcome));
        }
        self.same_fields("usage", &attempt.usage, &end.usage);
        if end.left_behind != attempt.left_behind {
            self.find(
                "left behind",
                attempt.left_behind.join(", "),
                end.left_behind.join(", "),
            );
        }
    }

    fn check_manifest(&mut self, recording: &Recording, probe: &Probe) {
        let manifest = probe.manifest();
        self.same(
            "manifest",
            &recording.header().manifest,
            &probe.inspected().manifest_digest,
        );
        self.same("title", &self.probe.title, &manifest.title);
        self.same(
            "requirements",
            &self.probe.requirements.join(", "),
            &manifest.requirements.join(", "),
        );
        let asked = Limits::from(&manifest.budget);
        self.same_fields("limits", &recording.header().limits, &asked);
    }

    /// Judges the recorded calls again and compares verdict, reasons and every case.
    fn check_judgement(&mut self, recording: &Recording, probe: &Probe) {
        let again = match judge::judge(probe.manifest(), &Evidence::from(recording)) {
            Ok(again) => again,
            Err(error) => {
                self.find("rules", recording.header().rules.clone(), error.to_string());
                return;
            }
        };
        let then = &self.attempt.judgement;
        if recording.withheld().is_empty() {
            for (what, recorded, replayed) in differences(then, &again) {
                self.find(what, recorded, replayed);
            }
        } else if again.verdict != then.verdict && again.verdict != Some(Verdict::Unknown) {
            // Without all answers some observations cannot be found again, so a pass may become an unknown here. What the
            // facts alone contradict is a difference all the same.
            self.find("verdict", show(then.verdict), show(again.verdict));
        }
    }

    /// Runs the guest along its recorded calls.
    async fn check_guest(&mut self, recording: Recording, probe: &Probe) -> Depth {
        let withheld = recording.withheld().len();
        let entries = recording.entries().len() as u64;
        if withheld > 0 {
            return Depth::None(format!(
                "{withheld} of {entries} answers are withheld from this copy"
            ));
        }
        let recorded = recording.end().map(|end| end.outcome.clone());
        let limits = slower(&recording.header().limits);
        let manifest = Arc::new(probe.manifest().clone());
        let door = Door::replay(Player::strict(recording), manifest);
        let deadline = Instant::now() + WALL;
        let done = run_guest(
            self.engine,
            probe,
            door.clone(),
            &limits,
            deadline,
            &StopSignal::never(),
        )
        .await;
        match recorded {
            Some(Outcome::Concluded | Outcome::ProbeError(_)) => {
                self.check_return(&done, &door, &limits);
                Depth::Full
            }
            other => {
                self.check_part(&done, &door, entries);
                let word = other.map_or("killed", |outcome| outcome.word());
                Depth::NotRecomputable(word.to_owned())
            }
        }
    }

    /// A guest that returned then must return the same now, after the same calls.
    fn check_return(&mut self, done: &GuestRun, door: &Door, limits: &Limits) {
        let replayed = classify(&done.end, &done.traces, limits, false);
        if let Err(text) = door.finish_replay() {
            self.find("calls", "each one made, in order", text);
        } else if replayed != self.attempt.outcome {
            self.find(
                "outcome",
                outcome(&self.attempt.outcome),
                outcome(&replayed),
            );
        }
    }

    /// A guest that was cut off must at least get to its last recorded call; what it does then is not known.
    fn check_part(&mut self, done: &GuestRun, door: &Door, entries: u64) {
        let calls = door.usage(0).calls;
        if calls > entries {
            return;
        }
        if let Err(text) = door.finish_replay() {
            let cut_off_again = matches!(done.end, GuestEnd::WallOver | GuestEnd::Stopped);
            if !cut_off_again {
                self.find("calls", "each one made, in order", text);
            }
        }
    }
}

/// Every difference between two judgements, for people.
fn differences(then: &Judgement, again: &Judgement) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut note = |what: String, recorded: String, replayed: String| {
        if recorded != replayed {
            found.push((what, recorded, replayed));
        }
    };
    let reason = |judgement: &Judgement| {
        judgement
            .reason
            .map_or_else(String::new, |reason| reason.to_string())
    };
    note(
        "verdict".to_owned(),
        show(then.verdict),
        show(again.verdict),
    );
    note("reason".to_owned(), reason(then), reason(again));
    note(
        "explanation".to_owned(),
        then.explanation.clone(),
        again.explanation.clone(),
    );
    note(
        "tier".to_owned(),
        then.tier.to_string(),
        again.tier.to_string(),
    );
    note(
        "tier markers".to_owned(),
        then.tier_because.join("; "),
        again.tier_because.join("; "),
    );
    let cases = then.cases.len().max(again.cases.len());
    for at in 0..cases {
        match (then.cases.get(at), again.cases.get(at)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b))
                if a.case == b.case && (a.verdict, a.reason) == (b.verdict, b.reason) =>
            {
                note(
                    format!("details of case {}", a.case),
                    format!("{a:?}"),
                    format!("{b:?}"),
                );
            }
            (a, b) => {
                let text = |case: Option<&crate::model::CaseResult>| {
                    case.map_or_else(
                        || "none".to_owned(),
                        |case| match case.reason {
                            Some(reason) => {
                                format!("{} ({reason}) for {}", case.verdict, case.case)
                            }
                            None => format!("{} for {}", case.verdict, case.case),
                        },
                    )
                };
                let name = a
                    .or(b)
                    .map_or_else(String::new, |case| case.case.to_string());
                note(format!("case {name}"), text(a), text(b));
            }
        }
    }
    found
}

fn show(verdict: Option<Verdict>) -> String {
    verdict.map_or_else(|| "no verdict".to_owned(), |verdict| verdict.to_string())
}

fn outcome(outcome: &Outcome) -> String {
    match outcome.detail() {
        Some(detail) => format!("{}: {detail}", outcome.word()),
        None => outcome.word().to_owned(),
    }
}
