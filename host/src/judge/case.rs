//! Rules one case: what the probe concluded, against what stands behind it.

use super::controls::{self, Broken};
use super::effect::{self, Refusal};
use super::observe::Texts;
use super::timeline::{Opened, Timeline};
use super::{Evidence, quote};
use crate::catalog::{NotApplicableBy, not_applicable_by};
use crate::manifest::{CaseKind, Manifest, SettingKind};
use crate::model::{Conclusion, Observation, Outcome, Reason, Verdict};
use crate::recording::format::{Entry, Failure, ReplyKind, Seen, function};

/// The engine's verdict on a case or on the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ruling {
    pub(super) verdict: Verdict,
    pub(super) reason: Option<Reason>,
    pub(super) explanation: String,
    pub(super) observations: Vec<Observation>,
}

impl Ruling {
    pub(super) fn of(verdict: Verdict, reason: Option<Reason>, explanation: String) -> Ruling {
        Ruling {
            verdict,
            reason,
            explanation,
            observations: Vec::new(),
        }
    }

    pub(super) fn unknown(reason: Reason, explanation: String) -> Ruling {
        Ruling::of(Verdict::Unknown, Some(reason), explanation)
    }
}

/// Name of the observation in which a probe says what contradicts the claim; the SDKs write it with every fail.
const CONTRADICTION: &str = "contradiction";

/// Why a conclusion does not stand.
type Refuted = (Reason, String);

/// Rules every opened case, in the order of [`Timeline::opened`].
pub(super) fn rule_all(
    manifest: &Manifest,
    evidence: &Evidence<'_>,
    timeline: &Timeline<'_>,
) -> Vec<Ruling> {
    let judge = Judge {
        manifest,
        evidence,
        timeline,
        texts: Texts::new(evidence),
    };
    let mut rulings: Vec<Ruling> = timeline
        .opened
        .iter()
        .map(|opened| judge.alone(opened))
        .collect();
    // Controls are positive cases, so passes of all others are final before the first negative is ruled.
    let negatives: Vec<(usize, Refuted)> = timeline
        .opened
        .iter()
        .enumerate()
        .filter(|(index, opened)| {
            opened.case.kind == CaseKind::Negative && rulings[*index].verdict == Verdict::Pass
        })
        .filter_map(|(index, opened)| {
            let refuted = judge.controls(opened, &rulings)?;
            Some((index, refuted))
        })
        .collect();
    for (index, refuted) in negatives {
        rulings[index].refute(refuted);
    }
    // Only now is it final what passed; a fail that turns unknown takes no pass away from anybody.
    let fails: Vec<(usize, Refuted)> = timeline
        .opened
        .iter()
        .enumerate()
        .filter(|(index, _)| rulings[*index].verdict == Verdict::Fail)
        .filter_map(|(index, opened)| {
            let refuted = judge
                .needs(opened, &rulings)
                .or_else(|| judge.undisturbed(opened))?;
            Some((index, refuted))
        })
        .collect();
    for (index, refuted) in fails {
        rulings[index].refute(refuted);
    }
    rulings
}

impl Ruling {
    fn refute(&mut self, (reason, explanation): Refuted) {
        self.verdict = Verdict::Unknown;
        self.reason = Some(reason);
        self.explanation = explanation;
    }
}

struct Judge<'a> {
    manifest: &'a Manifest,
    evidence: &'a Evidence<'a>,
    timeline: &'a Timeline<'a>,
    texts: Texts<'a>,
}

impl Judge<'_> {
    /// Rules a case by its own calls alone.
    fn alone(&self, opened: &Opened<'_>) -> Ruling {
        let shown = self.texts.shown(opened);
        let mut ruling = match &opened.conclusion {
            None => self.unconcluded(),
            Some(Conclusion::Pass) => self
                .pass(opened)
                .and_then(|explanation| {
                    if shown.observations.iter().any(|shown| shown.from_answer) {
                        return Ok(explanation);
                    }
                    Err((Reason::NoEffect, no_value(&shown)))
                })
                .map_or_else(
                    |(reason, text)| Ruling::unknown(reason, text),
                    |text| Ruling::of(Verdict::Pass, None, text),
                ),
            Some(Conclusion::Fail) => self.fail(opened).map_or_else(
                |(reason, text)| Ruling::unknown(reason, text),
                |call| {
                    let said = shown.observations.iter().rev();
                    let said = said
                        .filter(|shown| shown.name == CONTRADICTION)
                        .find_map(|shown| {
                            (!shown.value.is_empty()).then(|| format!(": {}", quote(&shown.value)))
                        });
                    let said = said.unwrap_or_default();
                    let text =
                        format!("the probe contradicts the claim{said} ({call} was answered)");
                    Ruling::of(Verdict::Fail, None, text)
                },
            ),
            Some(Conclusion::Unknown(text)) => unknown(text),
            Some(Conclusion::NotApplicable(text)) => self.not_applicable(opened, text),
            Some(Conclusion::Other(text)) => Ruling::unknown(
                Reason::ProbeError,
                format!(
                    "the probe concluded something that these rules do not know: {}",
                    quote(text)
                ),
            ),
        };
        ruling.observations = shown.observations;
        ruling
    }

    fn unconcluded(&self) -> Ruling {
        match self.evidence.end.map(|end| &end.outcome) {
            None | Some(Outcome::Interrupted) => Ruling::unknown(
                Reason::Interrupted,
                "the run stopped while the case was open".to_owned(),
            ),
            Some(_) => Ruling::unknown(
                Reason::NotExercised,
                "the case was opened and never concluded".to_owned(),
            ),
        }
    }

    /// Rules 2 and 3, and what forbids a pass.
    fn pass(&self, opened: &Opened<'_>) -> Result<String, Refuted> {
        self.obstacle(opened)?;
        let effects = || effect::effects(self.timeline, opened);
        match opened.case.kind {
            CaseKind::Observation => effects()
                .find(|entry| effect::answered(entry))
                .map(|entry| format!("{} was answered", named(entry)))
                .ok_or_else(|| self.no_effect(opened)),
            CaseKind::Positive => effects()
                .find(|entry| effect::happened(entry))
                .map(|entry| format!("{} was answered", named(entry)))
                .ok_or_else(|| self.no_effect(opened)),
            CaseKind::Negative => self.negative(opened),
        }
    }

    /// Rule 3.
    fn negative(&self, opened: &Opened<'_>) -> Result<String, Refuted> {
        let attempts: Vec<&Entry> = effect::attempts(self.timeline, opened)
            .filter(|entry| effect::answered(entry))
            .collect();
        if attempts.is_empty() {
            return Err(self.no_effect(opened));
        }
        let accepted = attempts.iter().find(|entry| {
            effect::happened(entry)
                && !effect::is_inside(entry)
                && matches!(effect::verb(entry), "create" | "update" | "patch")
        });
        let refusals = || {
            attempts
                .iter()
                .filter_map(|entry| Some((*entry, effect::refusal(entry, self.evidence.replies)?)))
        };
        let refused = refusals().find(|(_, refusal)| *refusal == Refusal::Platform);
        if let (Some((entry, _)), None) = (refused, accepted) {
            return Ok(format!("{} was refused by the platform", named(entry)));
        }
        let report = attempts.iter().rfind(|entry| effect::is_report(entry));
        if let (Some(entry), None, None) = (report, accepted, opened.case.quiet) {
            // Only a control shows that the container would have told of success.
            if opened.case.controls.is_empty() {
                return Err((
                    Reason::NoEffect,
                    format!(
                        "{} tells what a container tried, and the case declares no control that could have succeeded",
                        named(entry)
                    ),
                ));
            }
            return Ok(format!(
                "{} told what came of the attempt inside the container",
                named(entry)
            ));
        }
        if let Some(wanted) = opened.case.quiet
            && let Some(first) = attempts.iter().find(|entry| effect::happened(entry))
        {
            let quiet = effect::quiet(self.evidence, self.timeline, opened, first.done_ms);
            if quiet.covers(wanted) {
                return Ok(format!(
                    "after {} a watch saw {} ms without a gap",
                    named(first),
                    quiet.longest_ms
                ));
            }
            let (longest, wanted) = (quiet.longest_ms, wanted.as_millis());
            return Err(if quiet.gap {
                (
                    Reason::Gap,
                    format!(
                        "a watch lost continuity; the longest stretch without a gap was {longest} of {wanted} ms"
                    ),
                )
            } else if quiet.watched {
                (
                    Reason::NoEffect,
                    format!("a watch was waited for over {longest} of the declared {wanted} ms"),
                )
            } else {
                (
                    Reason::NoEffect,
                    format!(
                        "no watch was waited for and proved alive during the declared {wanted} ms"
                    ),
                )
            });
        }
        if let Some(entry) = accepted {
            return Err((
                Reason::NoEffect,
                format!(
                    "{} was accepted, and the case declares no quiet time",
                    named(entry)
                ),
            ));
        }
        if let Some((entry, refusal)) = refusals().next() {
            return Err(match refusal {
                Refusal::Permission => (
                    Reason::PermissionDenied,
                    format!(
                        "{} was refused to us by the authoriser, not by what the case is about",
                        named(entry)
                    ),
                ),
                _ => (
                    Reason::NoEffect,
                    format!("{} failed for another reason than a refusal", named(entry)),
                ),
            });
        }
        Err((
            Reason::NoEffect,
            format!(
                "{} was answered and not refused, and the case declares no quiet time",
                named(attempts[0])
            ),
        ))
    }

    /// Rules 2 and 5, without `needs`. Gives the call that says something about the platform.
    fn fail(&self, opened: &Opened<'_>) -> Result<String, Refuted> {
        self.obstacle(opened)?;
        let matching: Vec<&Entry> = match opened.case.kind {
            CaseKind::Negative => effect::attempts(self.timeline, opened).collect(),
            _ => effect::effects(self.timeline, opened).collect(),
        };
        if let Some(entry) = matching
            .iter()
            .find(|entry| effect::is_definite(entry, self.evidence.replies))
        {
            return Ok(named(entry));
        }
        let forbidden = matching.iter().find(|entry| {
            effect::refusal(entry, self.evidence.replies) == Some(Refusal::Permission)
        });
        Err(match forbidden {
            Some(entry) => (
                Reason::PermissionDenied,
                format!("{} was refused to us by the authoriser", named(entry)),
            ),
            None => self.no_effect(opened),
        })
    }

    /// Rule 6.
    fn not_applicable(&self, opened: &Opened<'_>, text: &str) -> Ruling {
        let declared = self.declared(opened);
        for id in &self.manifest.requirements {
            let allowed = match not_applicable_by(id) {
                NotApplicableBy::AnswerOrDeclaration => true,
                NotApplicableBy::Declaration => declared.is_some(),
                NotApplicableBy::Never => false,
            };
            if !allowed {
                return Ruling::unknown(
                    Reason::SolutionAbsent,
                    format!(
                        "requirement {} allows no not-applicable here; the probe says: {}",
                        quote(id),
                        quote(text)
                    ),
                );
            }
        }
        if let Some(key) = declared {
            return Ruling::of(
                Verdict::NotApplicable,
                None,
                format!("{} (declared by the operator: {key})", quote(text)),
            );
        }
        let live = self
            .timeline
            .calls(opened)
            .find(|entry| entry.access.is_some() && effect::happened(entry));
        match (self.obstacle(opened), live) {
            (Err((reason, cause)), _) => Ruling::unknown(reason, cause),
            (Ok(()), Some(entry)) => Ruling::of(
                Verdict::NotApplicable,
                None,
                format!("{} ({} was answered)", quote(text), named(entry)),
            ),
            (Ok(()), None) => Ruling::unknown(
                Reason::NoEffect,
                format!(
                    "no live answer shows the absence; the probe says: {}",
                    quote(text)
                ),
            ),
        }
    }

    /// The setting by which the operator declared the absence: a switch of the manifest, read in this case, that is on
    /// because the operator turned it on and not by default.
    fn declared(&self, opened: &Opened<'_>) -> Option<&str> {
        self.timeline.calls(opened).find_map(|entry| {
            if entry.function != function::SETTINGS_GET {
                return None;
            }
            let key = entry.arguments.get("key")?.as_str()?;
            let (key, setting) = self.manifest.settings.get_key_value(key)?;
            let seen = self.evidence.replies.reply(entry);
            let on = setting.kind == SettingKind::Bool
                && setting.default.as_deref() != Some("true")
                && seen == Some(Ok(Seen::Text("true".to_owned())));
            on.then_some(key.as_str())
        })
    }

    /// What forbids a conclusion about the platform: it was not the platform that said no.
    fn obstacle(&self, opened: &Opened<'_>) -> Result<(), Refuted> {
        for entry in self.timeline.calls(opened) {
            match entry.result {
                ReplyKind::Refused => {
                    let text = match self.evidence.replies.reply(entry) {
                        Some(Err(Failure::Refused(text))) => format!(": {}", quote(&text)),
                        _ => String::new(),
                    };
                    // A call that reaches for something can be granted; anything else is a mistake of the probe.
                    let reason = if entry.access.is_some() {
                        Reason::NeedsConsent
                    } else {
                        Reason::ProbeError
                    };
                    return Err((reason, format!("the door refused {}{text}", named(entry))));
                }
                ReplyKind::Budget => {
                    return Err((
                        Reason::Deadline,
                        format!("a budget ended at {}", named(entry)),
                    ));
                }
                ReplyKind::Stopping => {
                    return Err((
                        Reason::Interrupted,
                        format!("the run was stopping at {}", named(entry)),
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn no_effect(&self, opened: &Opened<'_>) -> Refuted {
        let wanted: Vec<String> = opened
            .case
            .effect
            .iter()
            .map(|pattern| format!("`{pattern}`"))
            .collect();
        let wanted = if wanted.is_empty() {
            "live call".to_owned()
        } else {
            format!("live call of the kind {}", wanted.join(" or "))
        };
        let how = match (opened.case.kind, &opened.conclusion) {
            (CaseKind::Positive, Some(Conclusion::Pass)) => "succeeded",
            (_, Some(Conclusion::Fail)) => "got an answer that says something about the platform",
            _ => "was answered",
        };
        (
            Reason::NoEffect,
            format!("no {wanted} {how} while the case was open"),
        )
    }

    /// Rule 4.
    fn controls(&self, opened: &Opened<'_>, rulings: &[Ruling]) -> Option<Refuted> {
        for control in &opened.case.controls {
            let passed: Vec<&Opened<'_>> = self
                .timeline
                .opened
                .iter()
                .zip(rulings)
                .filter(|(other, ruling)| {
                    other.case.id == control.case
                        && other.case.kind == CaseKind::Positive
                        && ruling.verdict == Verdict::Pass
                })
                .map(|(other, _)| other)
                .collect();
            let end = self.evidence.end;
            match controls::check(self.timeline, end, opened, control, &passed) {
                Ok(()) => {}
                Err(Broken::Vacuous(cause)) => return Some((Reason::Vacuous, cause)),
                Err(Broken::Unrelated(cause)) => return Some((Reason::ControlUnrelated, cause)),
            }
        }
        None
    }

    /// Rule 5: who fails on leased nodes must have had them undisturbed.
    fn undisturbed(&self, opened: &Opened<'_>) -> Option<Refuted> {
        let changed = self.timeline.changed(opened);
        (!changed.is_empty()).then(|| {
            let text = format!(
                "others changed the leased nodes before the case ended: {}",
                quote(&changed.join(", "))
            );
            (Reason::CompetingWorkload, text)
        })
    }

    /// Rule 5.
    fn needs(&self, opened: &Opened<'_>, rulings: &[Ruling]) -> Option<Refuted> {
        for need in &opened.case.needs {
            let of_need = || {
                self.timeline
                    .opened
                    .iter()
                    .zip(rulings)
                    .filter(|(other, _)| other.case.id == *need)
            };
            let same_subject = of_need().find(|(other, _)| other.key.subject == opened.key.subject);
            let met = match same_subject {
                Some((_, ruling)) => ruling.verdict == Verdict::Pass,
                None => {
                    of_need().next().is_some()
                        && of_need().all(|(_, ruling)| ruling.verdict == Verdict::Pass)
                }
            };
            if !met {
                return Some((
                    Reason::CompetingWorkload,
                    format!("the probe says fail, but case {need}, which it needs, did not pass"),
                ));
            }
        }
        None
    }
}

/// An `unknown` of the probe: `reason_code: what would settle it`.
fn unknown(text: &str) -> Ruling {
    let (code, rest) = text.split_once(':').unwrap_or((text, ""));
    let rest = rest.trim();
    match Reason::parse(code.trim()) {
        Some(reason) if reason.is_for_probes() => {
            let explanation = if rest.is_empty() {
                reason.meaning().0.to_owned()
            } else {
                quote(rest)
            };
            Ruling::unknown(reason, explanation)
        }
        Some(reason) => Ruling::unknown(
            Reason::ProbeError,
            format!(
                "the probe gave the reason {reason}, which is the engine's to give: {}",
                quote(rest)
            ),
        ),
        None => Ruling::unknown(
            Reason::ProbeError,
            format!("the probe gave no known reason: {}", quote(text)),
        ),
    }
}

fn no_value(shown: &super::observe::Shown) -> String {
    if shown.withheld > 0 {
        return format!(
            "{} answers of the case are withheld in this copy, so the shown values could not be looked up in them",
            shown.withheld
        );
    }
    if shown.observations.is_empty() {
        return "the probe showed no value for its pass".to_owned();
    }
    "no shown value occurs in an answer of the case; all were computed or written by the probe"
        .to_owned()
}

/// A call for people: its number, its verb and its target.
fn named(entry: &Entry) -> String {
    use crate::recording::format::Access;
    let target = match &entry.access {
        Some(Access::Resource(access)) => {
            let mut target = format!("{} {}", access.verb, access.resource);
            if !access.subresource.is_empty() {
                target.push('/');
                target.push_str(&access.subresource);
            }
            if !access.group.is_empty() {
                target.push('.');
                target.push_str(&access.group);
            }
            target
        }
        Some(Access::NonResource { path }) => format!("get {path}"),
        Some(Access::Discovery) => "discovery".to_owned(),
        None => entry.function.clone(),
    };
    format!("call {} ({})", entry.sequence, quote(&target))
}
