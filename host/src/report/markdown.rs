//! One Markdown page for each requirement that a probe of the run answers: `requirements/<id>.md`.
//!
//! Foreign text stands in code spans, or as running text with every mark escaped ([`Foreign::markdown`]); never in a cell of a
//! table, in a link or in HTML.

use super::go::id_part;
use super::model::{
    Attempt, Case, CaseFacts, ObjectFact, Observation, Probe, Report, Requirement, Source, State,
};
use super::words::{counted, duration_ms, ranges};
use super::{File, text::Foreign};
use crate::model::Tier;
use std::fmt::Write as _;

/// Longest running text, in characters.
const TEXT_MAX: usize = 1_000;

/// Longest value, in characters.
const VALUE_MAX: usize = 300;

/// Values of one case that are listed.
const OBSERVATIONS_MAX: usize = 40;

/// Objects of one case that are listed.
const OBJECTS_MAX: usize = 12;

pub(super) fn render(report: &Report) -> Vec<File> {
    let answered = report
        .requirements
        .iter()
        .filter(|requirement| requirement.state != State::NotRun);
    answered
        .map(|requirement| File {
            path: format!("requirements/{}.md", id_part(&requirement.id)),
            bytes: page(report, requirement).into_bytes(),
        })
        .collect()
}

pub(super) fn page(report: &Report, requirement: &Requirement) -> String {
    let mut out = format!("# {}\n\n", requirement.id.markdown_code(100));
    let mut facts = vec![format!("**{}**", requirement.state.word())];
    match (requirement.level, &report.checklist) {
        (Some(level), Some(version)) => facts.push(format!("{level} in {version}")),
        _ => facts.push("in no checklist of this version: informs only".to_owned()),
    }
    if let Some(kar) = requirement.kar {
        facts.push(format!("KAR-{kar}"));
    }
    if let Some(tier) = requirement.tier {
        facts.push(format!("tier {tier}"));
    }
    let _ = writeln!(out, "{}\n", facts.join(" · "));
    if requirement.tier == Some(Tier::Simulated) {
        out.push_str("> What was seen on a simulation is no evidence for a submission.\n\n");
    }
    let run = &report.run;
    let _ = writeln!(
        out,
        "Run {} on Kubernetes {}, begun {}, by {}. Cluster {}, run head {}.\n",
        run.id.markdown_code(40),
        run.server_version.markdown_code(40),
        run.started.markdown_code(40),
        run.engine.markdown_code(80),
        run.cluster.markdown_code(80),
        run.head.markdown_code(80),
    );
    for problem in &report.problems {
        let _ = writeln!(
            out,
            "- **Incomplete:** {}: {}",
            problem.place.markdown(VALUE_MAX),
            problem.what.markdown(TEXT_MAX)
        );
    }
    if !report.problems.is_empty() {
        out.push('\n');
    }
    for at in &requirement.probes {
        if let Some(probe) = report.probes.get(*at) {
            probe_part(&mut out, probe);
        }
    }
    out.push_str(
        "## How to check this\n\n\
         This page repeats what the folder says. `karat replay FOLDER` computes the verdicts again from the recorded calls, without a\n\
         cluster; `karat verify FOLDER` checks a bundle with its signature.\n",
    );
    out
}

fn probe_part(out: &mut String, probe: &Probe) {
    let _ = writeln!(out, "## Probe {}\n", probe.id.markdown_code(100));
    let _ = writeln!(
        out,
        "{}, version {}, component {}.\n",
        probe.title.markdown(VALUE_MAX),
        probe.version.markdown_code(40),
        probe.digest.markdown_code(80)
    );
    if let Some(claim) = &probe.claim {
        let _ = writeln!(out, "**Claim.** {}\n", claim.markdown(TEXT_MAX));
    }
    if let Some(misleads) = &probe.misleads {
        let _ = writeln!(
            out,
            "**How a pass could mislead.** {}\n",
            misleads.markdown(TEXT_MAX)
        );
    }
    attempts(out, probe);
    let Some(attempt) = probe.counting() else {
        return;
    };
    if !attempt.left_behind.is_empty() {
        out.push_str("**Left behind:**\n");
        for object in &attempt.left_behind {
            let _ = writeln!(out, "- {}", object.markdown_code(VALUE_MAX));
        }
        out.push('\n');
    }
    if let Some(todo) = &attempt.to_do {
        let _ = writeln!(
            out,
            "**What to do.** {}.\n",
            Foreign::new(todo.as_str()).markdown(TEXT_MAX)
        );
    }
    for case in &attempt.cases {
        case_part(out, case, attempt);
    }
}

fn attempts(out: &mut String, probe: &Probe) {
    if probe.attempts.is_empty() {
        out.push_str("It was not started in this run.\n\n");
        return;
    }
    if let Some(before) = probe.pass_after {
        let _ = writeln!(
            out,
            "**It passed only after an attempt that said {}.**\n",
            before.word()
        );
    }
    for attempt in &probe.attempts {
        let _ = write!(
            out,
            "- attempt {}, begun {}: **{}**, {}, {}, tier {}",
            attempt.attempt,
            attempt.started.markdown_code(40),
            attempt.word(),
            duration_ms(attempt.usage.wall_ms),
            counted(
                usize::try_from(attempt.usage.calls).unwrap_or(usize::MAX),
                "call"
            ),
            attempt.tier
        );
        if attempt.counts && probe.attempts.len() > 1 {
            out.push_str(" (this one counts)");
        }
        if let Some(reason) = attempt.reason {
            let _ = write!(out, "; `{reason}`: {}", reason.meaning().0);
        }
        if let Some(detail) = &attempt.detail {
            let _ = write!(out, "; {}", detail.markdown(TEXT_MAX));
        }
        if !attempt.explanation.is_empty() {
            let _ = write!(out, "; {}", attempt.explanation.markdown(TEXT_MAX));
        }
        out.push('\n');
    }
    out.push('\n');
}

fn case_part(out: &mut String, case: &Case, attempt: &Attempt) {
    let subject = if case.subject.is_empty() {
        String::new()
    } else {
        format!(" for {}", case.subject.markdown_code(100))
    };
    let _ = writeln!(
        out,
        "### Case {}{subject}: {}\n",
        case.id.markdown_code(100),
        case.state().word()
    );
    let kind = case
        .kind
        .map_or(String::new(), |kind| format!("{kind} case"));
    let optional = if case.required {
        ""
    } else {
        "no part of the verdict"
    };
    let kind: Vec<&str> = [kind.as_str(), optional]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    if !kind.is_empty() {
        let _ = writeln!(out, "- {}", kind.join(", "));
    }
    if let Some(claim) = &case.claim {
        let _ = writeln!(out, "- Claim: {}", claim.markdown(TEXT_MAX));
    }
    if let Some(expected) = &case.expected {
        let _ = writeln!(out, "- Expected: {}", expected.markdown(TEXT_MAX));
    }
    if let Some(reason) = case.reason {
        let (meaning, todo) = reason.meaning();
        let _ = writeln!(out, "- Reason: `{reason}`: {meaning}; {todo}");
    }
    if !case.explanation.is_empty() {
        let _ = writeln!(out, "- Because: {}", case.explanation.markdown(TEXT_MAX));
    }
    if let Some(said) = &case.said {
        let _ = writeln!(out, "- The probe said: {}", said.markdown(TEXT_MAX));
    }
    for (source, title) in [
        (Source::Answer, "Observed in answers of the cluster"),
        (Source::Probe, "Computed by the probe"),
    ] {
        let found: Vec<&Observation> = case
            .observations
            .iter()
            .filter(|observation| observation.source == source)
            .collect();
        if found.is_empty() {
            continue;
        }
        let _ = writeln!(out, "- {title}:");
        for observation in found.iter().take(OBSERVATIONS_MAX) {
            let _ = writeln!(
                out,
                "  - {}: {}",
                observation.name.markdown(100),
                observation.value.markdown_code(VALUE_MAX)
            );
        }
        let more = found.len().saturating_sub(OBSERVATIONS_MAX);
        if more > 0 {
            let _ = writeln!(out, "  - … ({more} more)");
        }
    }
    if let Some(facts) = &case.facts {
        facts_part(out, facts);
    }
    if !case.calls.is_empty() {
        let place = attempt.recording.as_ref().map_or(String::new(), |path| {
            format!(" of {}", path.markdown_code(200))
        });
        let _ = writeln!(out, "- Calls {}{place}", shortened(&ranges(&case.calls)));
    }
    out.push('\n');
}

fn shortened(ranges: &str) -> String {
    match ranges.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &ranges[..end]),
        None => ranges.to_owned(),
    }
}

fn facts_part(out: &mut String, facts: &CaseFacts) {
    let _ = write!(
        out,
        "- Noted by the door: {} answered by a server",
        counted(usize::try_from(facts.live).unwrap_or(usize::MAX), "call")
    );
    if facts.refused > 0 {
        let _ = write!(out, ", {} refused by the door", facts.refused);
    }
    out.push('\n');
    for error in &facts.errors {
        let _ = writeln!(
            out,
            "  - {} × {} {}",
            error.count,
            error.code,
            error.reason.markdown(100)
        );
    }
    for object in facts.objects.iter().take(OBJECTS_MAX) {
        let _ = writeln!(out, "  - {}", object_line(object));
    }
    let more = facts.more_objects + facts.objects.len().saturating_sub(OBJECTS_MAX) as u64;
    if more > 0 {
        let _ = writeln!(out, "  - … ({more} more objects)");
    }
}

fn object_line(object: &ObjectFact) -> String {
    let name = if object.namespace.is_empty() {
        object.name.markdown_code(120)
    } else {
        format!(
            "{} in {}",
            object.name.markdown_code(120),
            object.namespace.markdown_code(120)
        )
    };
    let mut out = format!("{} {name}", object.kind.markdown(60));
    if !object.node.is_empty() {
        let _ = write!(out, " on {}", object.node.markdown_code(120));
    }
    if !object.phases.is_empty() {
        let phases: Vec<String> = object.phases.iter().map(|p| p.markdown(40)).collect();
        let _ = write!(out, ": {}", phases.join(" → "));
    }
    if object.ours {
        out.push_str(", made by this run");
    }
    out
}
