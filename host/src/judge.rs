//! The verdict, computed by the engine: from the manifest, the recorded calls and what the door noted about them.
//!
//! Pure: no clock, no I/O, no knowledge of a cluster. The same recording gives the same judgement on any machine, which is
//! what makes a verdict checkable. What a probe concludes is a claim here, and [`judge`] asks what stands behind it:
//!
//! 1. Every required case was concluded, once for each subject it was opened for.
//! 2. A live call that matches the case's `effect` was answered while it was open.
//! 3. A negative was attempted, and the platform refused or a watch saw the whole quiet time.
//! 4. Its controls passed, on the same things, and were still alive at the end.
//! 5. A fail had its `needs`.
//! 6. `not-applicable` is allowed by the requirement and was shown or declared.
//! 7. A pass shows at least one value that the platform said first.
//! 8. The worst required case decides, of several unknown ones the first with a cause of its own; a refusal of the door or an ended budget forbids a pass.
//!
//! Rules stop careless probes, not hostile ones: a probe can make real calls and then conclude what it likes. Against that
//! stand signatures and reviewers. Look next at `timeline.rs` (which case was open when), `case.rs` (one case), `effect.rs`
//! (which calls count) and [`crate::catalog`] (what an official id asks for).

mod case;
mod controls;
mod effect;
mod observe;
#[cfg(test)]
mod tests;
mod timeline;

pub use controls::{AliveObject, alive_wanted};
pub(crate) use effect::is_authoriser;

use crate::catalog;
use crate::manifest::{Manifest, Required};
use crate::model::{CaseKey, CaseResult, Judgement, Outcome, Reason, Tier, Verdict};
use crate::recording::Recording;
use crate::recording::format::{End, Entry, Header, Reply, ReplyKind};
use case::Ruling;
use timeline::{Opened, Timeline};

/// Version of these rules. Recordings name the version they were judged by, and are judged by it again.
pub const RULES: &str = "2";

/// Longest quotation of foreign text in an explanation, in characters.
const QUOTE_MAX: usize = 200;
/// Markers listed as the reason of a tier.
const TIER_BECAUSE_MAX: usize = 32;

/// Rules of a version that this engine does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the recording was judged by rules {found}, this engine has rules {RULES}; use the karat release that wrote it"
)]
pub struct UnknownRules {
    /// Version of the recording.
    pub found: String,
}

/// The replies of a recording, where this copy has them.
pub trait Replies {
    /// What the guest saw; none when the answer is withheld from this copy.
    fn reply(&self, entry: &Entry) -> Option<Reply>;
}

impl Replies for Recording {
    fn reply(&self, entry: &Entry) -> Option<Reply> {
        Recording::reply(self, entry).ok()
    }
}

/// What is judged.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// Settings, namespaces and images of the attempt.
    pub header: &'a Header,
    /// The calls in order.
    pub entries: &'a [Entry],
    /// How it ended; none when the recording stops without an end.
    pub end: Option<&'a End>,
    /// What the guest saw.
    pub replies: &'a dyn Replies,
}

impl<'a> From<&'a Recording> for Evidence<'a> {
    fn from(recording: &'a Recording) -> Self {
        Evidence {
            header: recording.header(),
            entries: recording.entries(),
            end: recording.end(),
            replies: recording,
        }
    }
}

/// Judges a recorded attempt.
///
/// # Errors
/// The recording names another version of the rules than [`RULES`].
pub fn judge(manifest: &Manifest, evidence: &Evidence<'_>) -> Result<Judgement, UnknownRules> {
    if evidence.header.rules != RULES {
        return Err(UnknownRules {
            found: quote(&evidence.header.rules),
        });
    }
    let timeline = Timeline::follow(manifest, evidence.entries);
    let rulings = case::rule_all(manifest, evidence, &timeline);
    let cases = results(manifest, &timeline, &rulings);
    let (tier, tier_because) = tier(evidence.entries);
    let outcome = evidence.end.map(|end| &end.outcome);
    let mut judgement = Judgement {
        verdict: None,
        reason: None,
        explanation: String::new(),
        tier,
        tier_because,
        cases,
        rules: RULES.to_owned(),
    };
    match outcome {
        Some(Outcome::Concluded | Outcome::ProbeError(_)) => {
            let whole = conclude(manifest, evidence, &timeline, &mut judgement.cases);
            judgement.verdict = Some(whole.verdict);
            judgement.reason = whole.reason;
            judgement.explanation = whole.explanation;
        }
        Some(other) => {
            let (reason, explanation) = no_verdict(other);
            judgement.reason = reason;
            judgement.explanation = explanation;
        }
        None => {
            judgement.reason = Some(Reason::Interrupted);
            judgement.explanation =
                "the recording has no end: the run was killed before the probe returned".to_owned();
        }
    }
    Ok(judgement)
}

/// The judgement of a probe that never made a call: denied, skipped, untrusted.
pub fn not_started(manifest: &Manifest, outcome: &Outcome) -> Judgement {
    let timeline = Timeline::follow(manifest, &[]);
    let (reason, explanation) = no_verdict(outcome);
    Judgement {
        verdict: None,
        reason,
        explanation,
        tier: Tier::Unmarked,
        tier_because: vec!["nothing was asked".to_owned()],
        cases: results(manifest, &timeline, &[]),
        rules: RULES.to_owned(),
    }
}

fn no_verdict(outcome: &Outcome) -> (Option<Reason>, String) {
    let reason = (*outcome == Outcome::Interrupted).then_some(Reason::Interrupted);
    let explanation = match outcome.detail() {
        Some(detail) => format!("{}: {}", outcome.word(), quote(detail)),
        None => outcome.word().to_owned(),
    };
    (reason, explanation)
}

/// Every declared case in the manifest's order, once for each subject.
fn results(manifest: &Manifest, timeline: &Timeline<'_>, rulings: &[Ruling]) -> Vec<CaseResult> {
    let mut results = Vec::new();
    for case in &manifest.cases {
        let instances: Vec<(&Opened<'_>, Option<&Ruling>)> = timeline
            .opened
            .iter()
            .enumerate()
            .filter(|(_, opened)| opened.case.id == case.id)
            .map(|(index, opened)| (opened, rulings.get(index)))
            .collect();
        if instances.is_empty() {
            results.push(CaseResult {
                case: CaseKey {
                    id: case.id.clone(),
                    subject: String::new(),
                },
                required: case.required == Required::Always,
                concluded: None,
                verdict: Verdict::Unknown,
                reason: Some(Reason::NotExercised),
                explanation: "the probe never opened this case".to_owned(),
                observations: Vec::new(),
                calls: Vec::new(),
            });
        }
        for (opened, ruling) in instances {
            let Some(ruling) = ruling else { continue };
            results.push(CaseResult {
                case: opened.key.clone(),
                required: case.required != Required::Optional,
                concluded: opened.conclusion.clone(),
                verdict: ruling.verdict,
                reason: ruling.reason,
                explanation: ruling.explanation.clone(),
                observations: ruling.observations.clone(),
                calls: timeline.calls(opened).map(|entry| entry.sequence).collect(),
            });
        }
    }
    results
}

/// Rule 8: the worst required case decides, and what forbids a pass of the whole.
fn conclude(
    manifest: &Manifest,
    evidence: &Evidence<'_>,
    timeline: &Timeline<'_>,
    cases: &mut [CaseResult],
) -> Ruling {
    let settled = settle_absent(manifest, timeline, cases);
    let required = || cases.iter().filter(|case| case.required);
    let worst = |verdict: Verdict| required().find(|case| case.verdict == verdict);
    // A case that is empty only because another one did not hold says less than the other one.
    let has_cause = |case: &&CaseResult| case.reason.is_some_and(Reason::is_for_probes);
    let unknown = || {
        let mut all = required().filter(|case| case.verdict == Verdict::Unknown);
        all.find(has_cause).or_else(|| worst(Verdict::Unknown))
    };
    if let Some(case) = worst(Verdict::Fail).or_else(unknown) {
        return Ruling::of(
            case.verdict,
            case.reason,
            format!("case {}: {}", case.case, case.explanation),
        );
    }
    let probe_error = match evidence.end.map(|end| &end.outcome) {
        Some(Outcome::ProbeError(text)) => Some(Ruling::unknown(
            Reason::ProbeError,
            format!("the probe returned an error: {}", quote(text)),
        )),
        _ => None,
    };
    if let Some(ruling) = probe_error {
        return ruling;
    }
    if let Some(breach) = &timeline.breach {
        return Ruling::unknown(Reason::ProbeError, breach.clone());
    }
    if let Some(settled) = settled {
        return settled;
    }
    let held = required()
        .filter(|case| case.verdict == Verdict::Pass)
        .count();
    if held == 0 {
        return Ruling::unknown(
            Reason::NotExercised,
            "no required case was exercised".to_owned(),
        );
    }
    if let Some(missing) = catalog::check(manifest).into_iter().next() {
        return Ruling::unknown(Reason::NotExercised, missing);
    }
    let ended = evidence
        .entries
        .iter()
        .find(|entry| entry.result == ReplyKind::Budget);
    if let Some(entry) = ended {
        return Ruling::unknown(
            Reason::Deadline,
            format!("a budget had ended at call {}", entry.sequence),
        );
    }
    Ruling::of(
        Verdict::Pass,
        None,
        match held {
            1 => "the required case held".to_owned(),
            held => format!("{held} required cases held"),
        },
    )
}

/// When a case that is always required showed that the condition does not arise, the required cases that were never opened
/// are settled with it. A case that held for one subject and does not apply to another counts as held; a case that is
/// required only if opened and does not apply counts as never opened.
fn settle_absent(
    manifest: &Manifest,
    timeline: &Timeline<'_>,
    cases: &mut [CaseResult],
) -> Option<Ruling> {
    let absent = manifest
        .cases
        .iter()
        .filter(|declared| declared.required == Required::Always)
        .find_map(|declared| {
            let mut of_case = cases.iter().filter(|case| case.case.id == declared.id);
            let shown = of_case
                .clone()
                .find(|case| case.verdict == Verdict::NotApplicable)?;
            let held = of_case.any(|case| case.verdict == Verdict::Pass);
            (!held).then(|| (shown.case.clone(), shown.explanation.clone()))
        });
    let (key, explanation) = absent?;
    for case in cases.iter_mut() {
        // An opened case without conclusion is an accident, not a decision.
        let opened = timeline
            .opened
            .iter()
            .any(|opened| opened.key.id == case.case.id);
        if case.required && !opened {
            case.verdict = Verdict::NotApplicable;
            case.reason = None;
            case.explanation =
                format!("not opened: case {key} showed that the condition does not arise");
        }
    }
    Some(Ruling::of(
        Verdict::NotApplicable,
        None,
        format!("case {key}: {explanation}"),
    ))
}

/// What the evidence rests on. `hardware` needs a positive sign, which no capability of this release can give.
fn tier(entries: &[Entry]) -> (Tier, Vec<String>) {
    let mut because: Vec<String> = Vec::new();
    for marker in entries.iter().flat_map(|entry| &entry.facts.markers) {
        let marker = quote(marker);
        if because.len() < TIER_BECAUSE_MAX && !because.contains(&marker) {
            because.push(marker);
        }
    }
    if because.is_empty() {
        let answers = entries.iter().filter(|entry| entry.facts.live).count();
        (
            Tier::Unmarked,
            vec![format!(
                "no marker of a simulation in {answers} live answers"
            )],
        )
    } else {
        (Tier::Simulated, because)
    }
}

/// Text of guests and clusters inside an explanation: short, on one line, without control characters.
pub(super) fn quote(text: &str) -> String {
    let mut quoted: String = text
        .chars()
        .take(QUOTE_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(QUOTE_MAX).is_some() {
        quoted.push('…');
    }
    quoted
}
