//! What a run says of each requirement of a form, by rules that have no exception: only a pass that was computed again and
//! rests on no simulation is Implemented, only an earned absence is N/A, a fail is Not Implemented, and everything else is
//! left to a person.

use super::platform::{Declaration, Platform};
use super::recomputed::{Backing, Recomputed};
use crate::catalog::Level;
use crate::form::{Form, Requirement};
use crate::model::{AttemptRecord, Outcome, ProbeRecord, Tier, Verdict};
use crate::report::text::sentence;

/// Longest part of a verdict's explanation that is repeated, in characters.
const EXPLAINED_MAX: usize = 300;

/// What a run makes of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// No probe of the run answers it.
    NotRun,
    /// Shown: `Implemented`.
    Shown,
    /// Its condition does not arise, and that was shown or declared: `N/A`.
    Absent,
    /// A probe answered and nothing follows from it: a person decides.
    Open,
    /// A claim was contradicted: `Not Implemented`.
    Contradicted,
}

impl Standing {
    /// The status that is written; none where a person decides.
    pub fn status(self) -> Option<&'static str> {
        match self {
            Standing::NotRun | Standing::Open => None,
            Standing::Shown => Some("Implemented"),
            Standing::Absent => Some("N/A"),
            Standing::Contradicted => Some("Not Implemented"),
        }
    }
}

/// One requirement of the form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Category, by its key.
    pub category: String,
    /// Id.
    pub id: String,
    /// Level in the form.
    pub level: Level,
    /// What the run makes of it.
    pub standing: Standing,
    /// Why, a sentence of harmless text without its full stop; empty if nothing was run.
    pub because: String,
    /// Ids of the probes that answer it.
    pub probes: Vec<String>,
    /// Whether the result was seen on a simulation, so that it is left out of everything that is submitted.
    pub simulated: bool,
    /// Whether every probe is known from elsewhere.
    pub known: bool,
}

/// Decides each requirement, in the order of the form.
pub(super) fn decide(form: &Form, platform: &Platform, run: &Recomputed) -> Vec<Decision> {
    let requirements = form.requirements.iter();
    requirements
        .map(|requirement| one(requirement, platform.declaration(&requirement.id), run))
        .collect()
}

/// The judgement of one probe.
struct Part {
    standing: Standing,
    because: String,
    simulated: bool,
}

fn one(requirement: &Requirement, declared: Option<&Declaration>, run: &Recomputed) -> Decision {
    let probes: Vec<&ProbeRecord> = run.answering(&requirement.id).collect();
    let parts: Vec<Part> = probes
        .iter()
        .map(|probe| of_probe(probe, declared, run))
        .collect();
    let known = probes.iter().all(|probe| run.is_known(probe));
    let simulated = parts.iter().any(|part| part.simulated);
    let has = |standing| parts.iter().any(|part| part.standing == standing);
    let disagree = has(Standing::Shown) && has(Standing::Absent);
    let mut worst: Option<Part> = None;
    for part in parts {
        if worst
            .as_ref()
            .is_none_or(|worst| part.standing > worst.standing)
        {
            worst = Some(part);
        }
    }
    let (mut standing, mut because) = match worst {
        None => (Standing::NotRun, String::new()),
        Some(part) => (part.standing, part.because),
    };
    if disagree && standing == Standing::Absent {
        standing = Standing::Open;
        because = format!("one probe found it and another found it absent: {because}");
    }
    Decision {
        category: requirement.category.clone(),
        id: requirement.id.clone(),
        level: requirement.level,
        standing,
        because,
        probes: probes.iter().map(|probe| probe.probe.clone()).collect(),
        simulated,
        known,
    }
}

fn of_probe(probe: &ProbeRecord, declared: Option<&Declaration>, run: &Recomputed) -> Part {
    let name = format!(
        "{} {}",
        sentence(&probe.probe, 60),
        sentence(&probe.version, 40)
    );
    let open = |because: String| Part {
        standing: Standing::Open,
        because,
        simulated: false,
    };
    let Some(attempt) = probe.attempts.last() else {
        return open(format!("{name} was never started"));
    };
    let name = format!("{name}{}", which(probe));
    let judged = &attempt.judgement;
    let explained = sentence(&judged.explanation, EXPLAINED_MAX);
    let explained = explained.trim_end_matches('.');
    let with = |text: String| match explained {
        "" => text,
        explained => format!("{text}: {explained}"),
    };
    match (&attempt.outcome, judged.verdict) {
        (_, Some(Verdict::Fail)) => Part {
            standing: Standing::Contradicted,
            because: with(format!("{name} failed")),
            simulated: judged.tier == Tier::Simulated,
        },
        (Outcome::Concluded, Some(verdict @ (Verdict::Pass | Verdict::NotApplicable))) => {
            let said = match verdict {
                Verdict::Pass => format!("{name} passed with {}", cases(attempt)),
                _ => with(format!("{name} found that the condition does not arise")),
            };
            let standing = match verdict {
                Verdict::Pass => Standing::Shown,
                _ => Standing::Absent,
            };
            counts(probe, attempt, declared, run, standing, &said, &name)
        }
        (_, Some(Verdict::Unknown)) => {
            let reason = judged.reason.map(|reason| format!(" ({reason})"));
            open(with(format!(
                "{name} could not tell{}",
                reason.unwrap_or_default()
            )))
        }
        (outcome, _) => {
            let detail = outcome.detail().map_or_else(String::new, |detail| {
                format!(": {}", sentence(detail, EXPLAINED_MAX))
            });
            open(format!("{name} ended as {}{detail}", outcome.word()))
        }
    }
}

/// Whether a pass or an absence may be submitted.
fn counts(
    probe: &ProbeRecord,
    attempt: &AttemptRecord,
    declared: Option<&Declaration>,
    run: &Recomputed,
    standing: Standing,
    said: &str,
    name: &str,
) -> Part {
    let judged = &attempt.judgement;
    let markers: Vec<String> = judged
        .tier_because
        .iter()
        .take(3)
        .map(|marker| sentence(marker, 80))
        .collect();
    let markers = match markers.join("; ") {
        text if text.is_empty() => text,
        text => format!(" ({text})"),
    };
    let not = |because: String, simulated| Part {
        standing: Standing::Open,
        because,
        simulated,
    };
    match (judged.tier, declared) {
        (Tier::Simulated, _) => {
            return not(
                format!(
                    "what {name} saw is a simulation{markers}, which shows nothing of a platform"
                ),
                true,
            );
        }
        (Tier::Unmarked, None) => {
            return not(
                format!(
                    "{name} saw no positive sign of real hardware, and karat.toml has no declaration for it"
                ),
                false,
            );
        }
        (Tier::Unmarked | Tier::Hardware, _) => {}
    }
    if let Backing::Partly(why) | Backing::Differs(why) = run.backing(probe, attempt) {
        return not(
            format!(
                "what {name} saw could not be computed again: {}",
                sentence(why, 160)
            ),
            false,
        );
    }
    let rests = match (judged.tier, declared) {
        (Tier::Unmarked, Some(declared)) => format!(
            "no marker of a simulation; {} declares: '{}'",
            sentence(&declared.by, 120),
            sentence(&declared.text, 600).trim_end_matches('.')
        ),
        _ => format!("on hardware{markers}"),
    };
    Part {
        standing,
        because: format!("{said}, {rests}"),
        simulated: false,
    }
}

fn cases(attempt: &AttemptRecord) -> String {
    let all = attempt.judgement.cases.iter();
    let (passed, required) = all
        .filter(|case| case.required)
        .fold((0, 0), |(passed, all), case| {
            (passed + usize::from(case.verdict == Verdict::Pass), all + 1)
        });
    format!("{passed} of {required} required cases")
}

/// Which attempt counts and how those before it ended: ` (attempt 2 of 2, after fail)`.
pub(super) fn which(probe: &ProbeRecord) -> String {
    let Some((last, earlier)) = probe.attempts.split_last() else {
        return String::new();
    };
    if earlier.is_empty() {
        return String::new();
    }
    let before: Vec<String> = earlier.iter().map(word).collect();
    format!(
        " (attempt {} of {}, after {})",
        last.attempt,
        probe.attempts.len(),
        before.join(", ")
    )
}

/// The verdict of an attempt, or how it ended without one.
pub(crate) fn word(attempt: &AttemptRecord) -> String {
    match (&attempt.outcome, attempt.judgement.verdict) {
        (Outcome::Concluded | Outcome::ProbeError(_), Some(verdict)) => verdict.to_string(),
        (outcome, _) => outcome.word().to_owned(),
    }
}
