//! What is left of a run when somebody has computed it again: the record, and how far each attempt of it holds. Product
//! folders and reviews are made of this, never of a record alone, which is a file that anybody can edit.

use crate::bundle::STATEMENT_FILE;
use crate::engine::Engine;
use crate::model::{AttemptRecord, ProbeRecord, RunRecord};
use crate::replay::{Depth, ReplayError, ReplayedAttempt, replay_with};
use crate::runfolder;
use crate::verify::{self, Check, Finding, Reviewer, Signed, VerifyReport};
use std::collections::BTreeSet;
use std::path::Path;

/// A run that was computed again.
#[derive(Clone, Debug)]
pub struct Recomputed {
    /// The record as it stands in the bundle.
    pub record: RunRecord,
    /// Every attempt of the record that was looked at.
    pub attempts: Vec<RecomputedAttempt>,
    /// Digests of the components that the reader knows from elsewhere: those of the program, or of a list of a reviewer.
    pub known: BTreeSet<String>,
    /// What else was found out about the bundle, one sentence each: its signature, its witness.
    pub statements: Vec<Statement>,
}

/// How far one attempt holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecomputedAttempt {
    /// Probe id.
    pub probe: String,
    /// Counts from 1.
    pub attempt: u32,
    /// How far it was computed again.
    pub depth: Depth,
    /// What differs from the record, one sentence each. May quote the bundle.
    pub differences: Vec<String>,
}

impl RecomputedAttempt {
    fn of(found: &ReplayedAttempt) -> RecomputedAttempt {
        let differences = found.findings.iter().map(|difference| {
            format!(
                "{}: recorded {}, computed again {}",
                difference.what, difference.recorded, difference.replayed
            )
        });
        RecomputedAttempt {
            probe: found.probe.clone(),
            attempt: found.attempt,
            depth: found.depth.clone(),
            differences: differences.collect(),
        }
    }
}

/// A finding that does not belong to one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Whether it speaks for the bundle, against it, or neither.
    pub weight: Weight,
    /// A sentence. May quote the bundle.
    pub text: String,
}

/// What a statement does to a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It was checked and holds.
    Holds,
    /// It was checked and does not hold.
    Breaks,
    /// It was not checked, or could not be.
    Open,
}

impl Weight {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Weight::Holds => "holds",
            Weight::Breaks => "broken",
            Weight::Open => "open",
        }
    }
}

/// How far the attempt of a probe that counts was computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing<'a> {
    /// From the first call to the end, and it agrees.
    Full,
    /// Nothing differs, and not all of it could be computed again; the text says why.
    Partly(&'a str),
    /// Something differs; the first difference.
    Differs(&'a str),
}

impl Recomputed {
    /// Computes a bundle or a run folder again. A bundle is verified, with everything that belongs to it; a run folder has no
    /// statement and is only replayed. Components that the reviewer does not trust are run only if they say so: a
    /// stranger's bundle brings a stranger's code, however well it is confined.
    ///
    /// # Errors
    /// There is no run record that can be read. Everything below it is a finding.
    pub async fn compute(
        engine: &Engine,
        folder: &Path,
        reviewer: &Reviewer,
    ) -> Result<Recomputed, ReplayError> {
        let mut run = Recomputed {
            record: runfolder::read_record(folder)?,
            attempts: Vec::new(),
            known: reviewer.trusted.keys().cloned().collect(),
            statements: Vec::new(),
        };
        if !folder.join(STATEMENT_FILE).is_file() {
            let load = |digest: &str| verify::component(engine, folder, reviewer, digest);
            let attempts = replay_with(engine, folder, &run.record, None, load).await;
            run.attempts = attempts.iter().map(RecomputedAttempt::of).collect();
            return Ok(run);
        }
        match verify::verify(engine, folder, reviewer).await {
            Ok(report) => {
                run.statements = statements(&report);
                run.attempts = report.attempts.iter().map(RecomputedAttempt::of).collect();
            }
            Err(error) => run.statements.push(Statement {
                weight: Weight::Breaks,
                text: error.to_string(),
            }),
        }
        Ok(run)
    }

    /// What was found for one attempt.
    pub fn attempt(&self, probe: &str, attempt: u32) -> Option<&RecomputedAttempt> {
        let mut attempts = self.attempts.iter();
        attempts.find(|found| found.probe == probe && found.attempt == attempt)
    }

    /// How far the attempt that counts holds.
    pub fn backing(&self, probe: &ProbeRecord, attempt: &AttemptRecord) -> Backing<'_> {
        let Some(found) = self.attempt(&probe.probe, attempt.attempt) else {
            return Backing::Partly("nobody computed it again");
        };
        match (&found.depth, found.differences.first()) {
            (_, Some(difference)) => Backing::Differs(difference),
            (Depth::Full, None) => Backing::Full,
            (Depth::NotRecomputable(why) | Depth::None(why), None) => Backing::Partly(why),
        }
    }

    /// Whether a component is known from elsewhere.
    pub fn is_known(&self, probe: &ProbeRecord) -> bool {
        self.known.contains(&probe.digest)
    }

    /// Probes that answer a requirement, in the order of the plan.
    pub fn answering<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a ProbeRecord> {
        let probes = self.record.probes.iter();
        probes.filter(move |probe| probe.requirements.iter().any(|known| known == id))
    }

    /// Everything that does not hold, one sentence each. May quote the bundle.
    pub fn contradictions(&self) -> Vec<String> {
        let of_attempts = self.attempts.iter().flat_map(|attempt| {
            let name = format!("{} attempt {}", attempt.probe, attempt.attempt);
            attempt
                .differences
                .iter()
                .map(move |text| format!("{name}: {text}"))
        });
        let broken = self
            .statements
            .iter()
            .filter(|statement| statement.weight == Weight::Breaks);
        broken
            .map(|statement| statement.text.clone())
            .chain(of_attempts)
            .collect()
    }
}

/// What was found about a bundle as a whole; what belongs to one attempt stands there.
fn statements(report: &VerifyReport) -> Vec<Statement> {
    let told = |weight: Weight, found: &Finding| Statement {
        weight,
        text: format!(
            "{}, {}: {}",
            found.check.word(),
            found.subject,
            found.message
        ),
    };
    let of_bundle = |found: &&Finding| found.check != Check::Replay;
    let broken = report.findings.iter().filter(of_bundle);
    let open = report.unchecked.iter().filter(of_bundle);
    let mut statements: Vec<Statement> = broken
        .map(|found| told(Weight::Breaks, found))
        .chain(open.map(|found| told(Weight::Open, found)))
        .collect();
    let (weight, text) = match &report.signed {
        Signed::By { keys } => (
            Weight::Holds,
            format!("signed by the key {}", keys.join(", ")),
        ),
        Signed::Unknown { claimed } => (
            Weight::Open,
            format!(
                "its signature was not checked: no key was given (it claims {})",
                claimed.join(", ")
            ),
        ),
        Signed::No => (Weight::Open, "nobody signed it".to_owned()),
    };
    statements.push(Statement { weight, text });
    statements
}
