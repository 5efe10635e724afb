//! The entries of a checklist, each set against the bundles: what a claim rests on.

use super::Sentence;
use crate::form::{self, Entry, minor_version};
use crate::lint::PRODUCT;
use crate::model::{Outcome, ProbeRecord, Tier, Verdict};
use crate::product::{Backing, Notes, Recomputed, is_ours, word};
use serde::Serialize;
use std::path::Path;

/// What a claim rests on, the firmest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Support {
    /// A known probe, computed again to the same verdict.
    Recomputed,
    /// The same, of a probe that is not known here.
    Foreign,
    /// A bundle that could not be computed again as a whole.
    InPart,
    /// Files in the folder.
    Files,
    /// Links alone, which were not followed.
    Links,
    /// Nothing but the status.
    Words,
    /// A bundle says otherwise.
    Contradicted,
    /// Nothing is claimed.
    NotClaimed,
}

impl Support {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Support::Recomputed => "computed again",
            Support::Foreign => "computed again, by an unknown probe",
            Support::InPart => "computed again in part",
            Support::Files => "files",
            Support::Links => "links alone",
            Support::Words => "words alone",
            Support::Contradicted => "**contradicted**",
            Support::NotClaimed => "nothing claimed",
        }
    }
}

/// One entry of the checklist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReviewedRequirement {
    /// Line in `PRODUCT.yaml`.
    pub line: u32,
    /// Id, as written.
    pub id: String,
    /// Level, as written.
    pub level: String,
    /// Status, as written.
    pub status: String,
    /// What it rests on.
    pub support: Support,
    /// What the bundles say.
    pub says: Sentence,
}

/// What a checklist adds to a review.
#[derive(Default)]
pub(super) struct Found {
    pub(super) requirements: Vec<ReviewedRequirement>,
    pub(super) wrong: Vec<Sentence>,
    pub(super) look_at: Vec<Sentence>,
}

/// Looks at the entries. A checklist that cannot be read has been reported by the lint.
pub(super) fn look(
    folder: &Path,
    version: Option<&str>,
    bundles: &[(String, Recomputed)],
) -> Found {
    let mut found = Found::default();
    let path = folder.join(PRODUCT);
    let is_file = std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
    let list = is_file
        .then(|| form::read_file(&path, PRODUCT))
        .and_then(Result::ok)
        .and_then(|text| form::read_product(PRODUCT, &text).ok());
    let Some(list) = list else {
        return found;
    };
    // A bundle of another version shows nothing for this one.
    let mut fitting = Vec::new();
    for (_, run) in bundles {
        let server = &run.record.cluster.server_version;
        if version.is_some() && minor_version(server).as_deref() != version {
            let said = Sentence::of("run ")
                .quote(&run.record.run)
                .and(" is of a server ")
                .quote(server)
                .and(format!(
                    " and supports nothing for {}",
                    version.unwrap_or_default()
                ));
            found.look_at.push(said);
        } else {
            fitting.push(run);
        }
    }
    for entry in &list.entries {
        let claim = Claim::of(&entry.status.text);
        let (support, says) = support(entry, claim, &fitting);
        if support == Support::Contradicted {
            let said = Sentence::quoting(format!("{PRODUCT}:{}", entry.line))
                .and(" ")
                .quote(&entry.id.text)
                .and(" is claimed to be ")
                .quote(&entry.status.text)
                .and(", and ")
                .then(says.clone());
            found.wrong.push(said);
        }
        if claim != Claim::None {
            doubts(entry, &fitting, &mut found.look_at);
        }
        found.requirements.push(ReviewedRequirement {
            line: entry.line,
            id: entry.id.text.clone(),
            level: entry.level.text.clone(),
            status: entry.status.text.clone(),
            support,
            says,
        });
    }
    found
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    Implemented,
    Absent,
    None,
}

impl Claim {
    fn of(status: &str) -> Claim {
        match status {
            "Implemented" => Claim::Implemented,
            "N/A" => Claim::Absent,
            _ => Claim::None,
        }
    }
}

fn support(entry: &Entry, claim: Claim, bundles: &[&Recomputed]) -> (Support, Sentence) {
    if claim == Claim::None {
        return (Support::NotClaimed, Sentence::default());
    }
    let mut best: Option<(Support, Sentence)> = None;
    for run in bundles {
        for probe in run.answering(&entry.id.text) {
            let (support, says) = of_probe(run, probe, claim);
            // One that contradicts is enough, whatever others say.
            let counts = match &best {
                None => true,
                Some((known, _)) => *known != Support::Contradicted && support > *known,
            };
            if counts {
                best = Some((support, says));
            }
        }
    }
    best.unwrap_or_else(|| {
        let others: Vec<&str> = entry
            .evidence
            .iter()
            .map(|text| text.text.trim())
            .filter(|text| !text.is_empty())
            .collect();
        let is_link = |text: &&&str| text.starts_with("http://") || text.starts_with("https://");
        let links = others.iter().filter(is_link).count();
        let support = if others.is_empty() {
            Support::Words
        } else if links == others.len() {
            Support::Links
        } else {
            Support::Files
        };
        (support, Sentence::default())
    })
}

fn of_probe(run: &Recomputed, probe: &ProbeRecord, claim: Claim) -> (Support, Sentence) {
    let name = || {
        Sentence::quoting(&probe.probe)
            .and(" of run ")
            .quote(&run.record.run)
    };
    let Some(attempt) = probe.attempts.last() else {
        return (Support::Contradicted, name().and(" was never started"));
    };
    let judged = &attempt.judgement;
    let wanted = match claim {
        Claim::Implemented => Verdict::Pass,
        Claim::Absent | Claim::None => Verdict::NotApplicable,
    };
    let says = name().and(format!(" says {}", word(attempt)));
    if attempt.outcome != Outcome::Concluded || judged.verdict != Some(wanted) {
        return (Support::Contradicted, says);
    }
    if judged.tier == Tier::Simulated {
        let because = judged.tier_because.join("; ");
        return (
            Support::Contradicted,
            says.and(" on a simulation: ").quote(because),
        );
    }
    match run.backing(probe, attempt) {
        Backing::Differs(what) => (
            Support::Contradicted,
            says.and(", and differs when computed again: ").quote(what),
        ),
        Backing::Partly(why) => (Support::InPart, says.and("; ").quote(why)),
        Backing::Full if run.is_known(probe) => (Support::Recomputed, says),
        Backing::Full => (Support::Foreign, says),
    }
}

/// What a person has to look at in a claim.
fn doubts(entry: &Entry, bundles: &[&Recomputed], look_at: &mut Vec<Sentence>) {
    let id = &entry.id.text;
    let place = || Sentence::quoting(id).and(": ");
    for run in bundles {
        for probe in run.answering(id) {
            let Some(attempt) = probe.attempts.last() else {
                continue;
            };
            if attempt.judgement.tier == Tier::Unmarked {
                look_at.push(place().and(
                    "no positive sign of real hardware was seen, so that it rests on the declaration in the notes",
                ));
            }
            if probe.attempts.len() > 1 {
                let earlier: Vec<String> = probe.attempts[..probe.attempts.len() - 1]
                    .iter()
                    .map(word)
                    .collect();
                look_at.push(place().and(format!(
                    "attempt {} of {} counts, before it: {}",
                    attempt.attempt,
                    probe.attempts.len(),
                    earlier.join(", ")
                )));
            }
        }
    }
    let notes = Notes::of(&entry.notes.text);
    let ours = entry.evidence.iter().any(|text| is_ours(&text.text));
    let has_bundle = bundles.iter().any(|run| run.answering(id).next().is_some());
    if !has_bundle && (ours || notes.status().is_some_and(|status| !status.is_empty())) {
        look_at.push(place().and(
            "the entry speaks of a run of Karat, and no bundle of it was given: what it says was not checked",
        ));
    }
    let cited = |run: &&Recomputed| notes.cites(&run.record.run);
    if has_bundle && notes.status().is_some() && !bundles.iter().any(cited) {
        look_at.push(place().and("the notes speak of another run than the bundle"));
    }
    if has_bundle
        && notes
            .status()
            .is_some_and(|status| status != entry.status.text)
    {
        look_at.push(place().and("a person set another status than the run"));
    }
}
