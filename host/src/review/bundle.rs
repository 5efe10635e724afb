//! One bundle: what holds, what differs, what could not be computed again, and whether it answers a nonce.

use super::Sentence;
use crate::model::Tier;
use crate::product::{Recomputed, Weight, word};
use crate::replay::Depth;
use serde::Serialize;

/// Whether a run answers the word of a reviewer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NonceCheck {
    /// None was asked for.
    NotAsked,
    /// The run id and so every name of the run follow from it.
    Answers,
    /// The run has none.
    Missing,
    /// The run has another.
    Other,
}

impl NonceCheck {
    /// Compares. That the run id follows from the nonce has been checked when the record was read.
    pub(super) fn of(run: &Recomputed, asked: Option<&str>) -> NonceCheck {
        match (asked, run.record.nonce.as_deref()) {
            (None, _) => NonceCheck::NotAsked,
            (Some(asked), Some(there)) if asked == there => NonceCheck::Answers,
            (Some(_), Some(_)) => NonceCheck::Other,
            (Some(_), None) => NonceCheck::Missing,
        }
    }
}

/// What was looked at of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReviewedBundle {
    /// As the caller named it.
    pub name: String,
    /// Run id.
    pub run: String,
    /// Run head.
    pub head: String,
    /// When the run began.
    pub started: String,
    /// Version of the server.
    pub server_version: String,
    /// The cluster.
    pub cluster: String,
    /// Version of the engine that ran.
    pub engine: String,
    /// The nonce of the run, where it has one.
    pub nonce: Option<String>,
    /// Whether it is the one that was asked for.
    pub nonce_check: NonceCheck,
    /// All attempts.
    pub attempts: Vec<ReviewedAttempt>,
    /// What else was found out: signature, witness.
    pub statements: Vec<Sentence>,
}

impl ReviewedBundle {
    /// Whether all of it was computed again, by probes that are known.
    pub(super) fn is_whole(&self) -> bool {
        !self.attempts.is_empty()
            && self
                .attempts
                .iter()
                .all(|attempt| attempt.again == "agrees" && attempt.known)
    }
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReviewedAttempt {
    /// Probe id.
    pub probe: String,
    /// Counts from 1.
    pub attempt: u32,
    /// Whether it is the one that counts.
    pub counts: bool,
    /// The verdict of the record, or how it ended.
    pub verdict: String,
    /// What the evidence rests on.
    pub tier: Tier,
    /// `agrees`, `differs`, `in part` or `not`.
    pub again: &'static str,
    /// Why it is not `agrees`.
    pub why: Option<String>,
    /// Whether its component is known to the reader.
    pub known: bool,
}

/// What a bundle adds to a review.
pub(super) struct Found {
    pub(super) bundle: ReviewedBundle,
    pub(super) wrong: Vec<Sentence>,
    pub(super) withheld: Vec<Sentence>,
    pub(super) look_at: Vec<Sentence>,
}

/// Looks at a bundle.
pub(super) fn look(name: &str, run: &Recomputed, nonce: Option<&str>) -> Found {
    let record = &run.record;
    let (mut wrong, mut withheld, mut look_at) = (Vec::new(), Vec::new(), Vec::new());
    for text in run.contradictions() {
        wrong.push(
            Sentence::of("run ")
                .quote(&record.run)
                .and(": ")
                .quote(text),
        );
    }
    let nonce_check = NonceCheck::of(run, nonce);
    match nonce_check {
        NonceCheck::Missing | NonceCheck::Other => wrong.push(
            Sentence::of("run ")
                .quote(&record.run)
                .and(" does not answer the nonce ")
                .quote(nonce.unwrap_or_default()),
        ),
        NonceCheck::NotAsked | NonceCheck::Answers => {}
    }
    let mut attempts = Vec::new();
    for probe in &record.probes {
        let known = run.is_known(probe);
        if !known {
            let said = Sentence::of("probe ")
                .quote(&probe.probe)
                .and(" is ")
                .quote(&probe.digest)
                .and(", which is not known here: its verdicts are worth as much as whoever vouches for these bytes");
            look_at.push(said);
        }
        for attempt in &probe.attempts {
            let found = run.attempt(&probe.probe, attempt.attempt);
            let (again, why) = match found.map(|found| (&found.depth, found.differences.first())) {
                None => ("not", Some("nobody computed it again".to_owned())),
                Some((_, Some(difference))) => ("differs", Some(difference.clone())),
                Some((Depth::Full, None)) => ("agrees", None),
                Some((Depth::NotRecomputable(why), None)) => ("in part", Some(why.clone())),
                Some((Depth::None(why), None)) => ("not", Some(why.clone())),
            };
            if let (Some(why), "not" | "in part") = (&why, again) {
                let said = Sentence::of("probe ")
                    .quote(&probe.probe)
                    .and(format!(" attempt {}: ", attempt.attempt))
                    .quote(why);
                withheld.push(said);
            }
            attempts.push(ReviewedAttempt {
                probe: probe.probe.clone(),
                attempt: attempt.attempt,
                counts: probe.attempts.last() == Some(attempt),
                verdict: word(attempt),
                tier: attempt.judgement.tier,
                again,
                why,
                known,
            });
        }
    }
    if record.ended.is_none() {
        let said = Sentence::of("run ")
            .quote(&record.run)
            .and(" did not come to its end");
        look_at.push(said);
    }
    let statements = run.statements.iter().map(|statement| {
        Sentence::of(format!("{}: ", statement.weight.word())).quote(&statement.text)
    });
    let open = run.statements.iter();
    let open = open.filter(|statement| statement.weight == Weight::Open);
    look_at.extend(open.map(|statement| Sentence::quoting(&statement.text)));
    Found {
        bundle: ReviewedBundle {
            name: name.to_owned(),
            run: record.run.clone(),
            head: record.head.clone(),
            started: record.started.clone(),
            server_version: record.cluster.server_version.clone(),
            cluster: record.cluster.uid.clone(),
            engine: record.engine.clone(),
            nonce: record.nonce.clone(),
            nonce_check,
            attempts,
            statements: statements.collect(),
        },
        wrong,
        withheld,
        look_at,
    }
}
