//! Pages of a product folder for people: the README with how to repeat and how to check, one page for each requirement, and
//! the full report that also names what the artefacts leave out. Pure functions; every foreign text goes through
//! [`crate::report::text::code`].

use super::decide::{Decision, Standing, which, word};
use super::recomputed::Backing;
use super::{Draft, OURS};
use crate::catalog::Level;
use crate::model::{AttemptRecord, CaseResult, ProbeRecord};
use crate::report::text::code;
use std::fmt::Write as _;

/// Name of the full report below [`OURS`].
pub(super) const REPORT: &str = "report.md";

/// Where our part of a README begins and ends. What stands around it belongs to people.
const BEGIN: &str = "<!-- karat:begin -->";
const END: &str = "<!-- karat:end -->";

/// Longest title, explanation or value that is shown, in characters.
const SHOWN_MAX: usize = 240;
/// Most observations of a case that are shown.
const OBSERVATIONS_MAX: usize = 12;

fn heading(level: Level) -> &'static str {
    match level {
        Level::Must => "MUST",
        Level::Should => "SHOULD",
        Level::Absent => "-",
    }
}

fn status(decision: &Decision) -> &'static str {
    match (decision.standing, decision.standing.status()) {
        (_, Some(status)) => status,
        (Standing::NotRun, None) => "not run",
        (_, None) => "left to a person",
    }
}

/// The README. Of one that is there, only our part is replaced; without one, ours is put behind it.
pub(super) fn readme(draft: &Draft<'_>, there: Option<&str>) -> String {
    let ours = format!("{BEGIN}\n{}{END}", our_part(draft));
    let Some(there) = there else {
        return format!("{ours}\n");
    };
    let begin = there.find(BEGIN);
    let end = begin.and_then(|begin| Some(begin + there[begin..].find(END)? + END.len()));
    match (begin, end) {
        (Some(begin), Some(end)) => format!("{}{ours}{}", &there[..begin], &there[end..]),
        _ if there.trim().is_empty() => format!("{ours}\n"),
        _ => format!("{}\n\n{ours}\n", there.trim_end()),
    }
}

fn our_part(draft: &Draft<'_>) -> String {
    let record = &draft.input.run.record;
    let mut out = String::from("# How this was shown\n\n");
    let _ = write!(
        out,
        "Made by Karat from one run, against the form of Kubernetes {}. `PRODUCT.yaml` and everything outside of `{OURS}` may be edited: in the\n\
         notes, only what stands between `[karat:` and `]` is replaced when this folder is made again, and in this file only what\n\
         stands between the two comments around this text. `{OURS}{REPORT}` is the full report, also of what was left out.\n\n",
        draft.form.version
    );
    let ended = record.ended.as_deref();
    for (name, value) in [
        ("run", record.run.as_str()),
        ("run head", &record.head),
        (
            "nonce of a reviewer",
            record.nonce.as_deref().unwrap_or("none"),
        ),
        ("began", &record.started),
        ("ended", ended.unwrap_or("it did not end")),
        ("server version", &record.cluster.server_version),
        ("cluster", &record.cluster.uid),
        ("engine", &record.engine),
    ] {
        let _ = writeln!(out, "- {name}: {}", code(value, 120));
    }
    let _ = writeln!(out, "- reach: {}", record.reach);
    out.push_str("\n| Requirement | Level | Result | Probe | Digest |\n|---|---|---|---|---|\n");
    for decision in &draft.decisions {
        let probes: Vec<&ProbeRecord> = probes_of(draft, decision).collect();
        let names = probes.iter().map(|probe| {
            let name = format!("{} {}{}", probe.probe, probe.version, which(probe));
            code(&name, 120)
        });
        let digests = probes.iter().map(|probe| code(&probe.digest, 80));
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            code(&decision.id, 64),
            heading(decision.level),
            status(decision),
            cell(names),
            cell(digests)
        );
    }
    out.push_str("\n## How to repeat it\n\n");
    out.push_str(
        "With the same version of Karat, on a cluster of this platform:\n\n```console\n$ karat run",
    );
    let _ = write!(out, " --reach {}", record.reach);
    for probe in &record.probes {
        if is_word(&probe.probe) {
            let _ = write!(out, " --probe {}", probe.probe);
        }
    }
    out.push_str(" --out karat-runs/again\n```\n\n");
    out.push_str(
        "Names and times differ, verdicts should not. A reviewer who gives a word of their own with `--nonce` finds it in the id\n\
         of the run and in every name that it creates.\n\n## How to check it\n\n",
    );
    let _ = write!(
        out,
        "With the bundle of the run ({}), without a cluster and without a network:\n\n\
         ```console\n$ karat replay BUNDLE\n$ karat lint . --form AIConformance-{}.yaml\n$ karat review . --bundle BUNDLE --form AIConformance-{}.yaml\n```\n\n\
         The first runs the same probe bytes against the recorded conversation and compares every verdict; the second says what the\n\
         validator of the programme would; the third says which entries of `PRODUCT.yaml` follow from the bundle and which rest on links or words.\n\
         A digest above names the bytes of a probe: compare it with those you trust. None of this shows where the answers came\n\
         from; a run that a reviewer starts does, or the audit log of the cluster, where each request of the run has an\n\
         audit id of the form `karat-<run>-<probe>-<sequence>-<attempt>`.\n",
        code(&record.run, 20),
        draft.form.version,
        draft.form.version
    );
    out
}

/// What can stand in a command as it is.
fn is_word(text: &str) -> bool {
    let mut bytes = text.bytes();
    !text.is_empty()
        && text.len() <= 100
        && !text.starts_with('-')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
}

fn cell(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        "-".to_owned()
    } else {
        items.join("<br>")
    }
}

fn probes_of<'a>(
    draft: &'a Draft<'_>,
    decision: &'a Decision,
) -> impl Iterator<Item = &'a ProbeRecord> {
    let probes = draft.input.run.record.probes.iter();
    probes.filter(|probe| decision.probes.contains(&probe.probe))
}

/// The page about one requirement: what was claimed, tried and seen.
pub(super) fn requirement(decision: &Decision, draft: &Draft<'_>) -> String {
    let record = &draft.input.run.record;
    let mut out = format!(
        "# {}\n\n{} of the form for Kubernetes {}. Result: **{}**.\n\n",
        code(&decision.id, 64),
        heading(decision.level),
        draft.form.version,
        status(decision)
    );
    let _ = writeln!(
        out,
        "- why: {}\n- run: {}, head {}, server {}, cluster {}",
        code(&decision.because, 1200),
        code(&record.run, 20),
        code(&record.head, 64),
        code(&record.cluster.server_version, 40),
        code(&record.cluster.uid, 60)
    );
    for probe in probes_of(draft, decision) {
        of_probe(&mut out, probe, draft);
    }
    out.push_str("\nHow to repeat and how to check this: [README](../README.md).\n");
    out
}

fn of_probe(out: &mut String, probe: &ProbeRecord, draft: &Draft<'_>) {
    let _ = write!(
        out,
        "\n## Probe {}\n\n{}\n\n- version {}, contract {}\n- digest {}\n",
        code(&probe.probe, 100),
        code(&probe.title, SHOWN_MAX),
        code(&probe.version, 40),
        code(&probe.contract, 40),
        code(&probe.digest, 80)
    );
    for attempt in &probe.attempts {
        let counts = probe.attempts.last() == Some(attempt);
        of_attempt(out, probe, attempt, counts, draft);
    }
}

fn of_attempt(
    out: &mut String,
    probe: &ProbeRecord,
    attempt: &AttemptRecord,
    counts: bool,
    draft: &Draft<'_>,
) {
    let judged = &attempt.judgement;
    let _ = write!(
        out,
        "\n### Attempt {} of {}: {}{}\n\n- began {}, took {} ms, {} calls, {} requests\n- tier {}",
        attempt.attempt,
        probe.attempts.len(),
        word(attempt),
        if counts { " (counts)" } else { "" },
        code(&attempt.started, 40),
        attempt.usage.wall_ms,
        attempt.usage.calls,
        attempt.usage.requests,
        judged.tier
    );
    for marker in judged.tier_because.iter().take(8) {
        let _ = write!(out, ", {}", code(marker, 100));
    }
    let _ = writeln!(out, "\n- verdict rules {}", code(&judged.rules, 20));
    if !judged.explanation.is_empty() {
        let _ = writeln!(out, "- {}", code(&judged.explanation, 600));
    }
    let again = match draft.input.run.backing(probe, attempt) {
        Backing::Full => "computed again from its recording, and it agrees".to_owned(),
        Backing::Partly(why) => format!("not wholly computed again: {}", code(why, 160)),
        Backing::Differs(what) => format!("**differs when computed again**: {}", code(what, 160)),
    };
    let _ = writeln!(out, "- {again}");
    if let Some(head) = &attempt.head {
        let _ = writeln!(out, "- head of the recording {}", code(head, 64));
    }
    if !attempt.left_behind.is_empty() {
        let _ = writeln!(
            out,
            "- {} objects could not be removed",
            attempt.left_behind.len()
        );
    }
    if !judged.cases.is_empty() {
        out.push('\n');
    }
    for case in &judged.cases {
        of_case(out, case);
    }
}

fn of_case(out: &mut String, case: &CaseResult) {
    let reason = case
        .reason
        .map_or_else(String::new, |reason| format!(" ({reason})"));
    let _ = write!(
        out,
        "- {}: **{}**{reason}{}",
        code(&case.case.to_string(), 120),
        case.verdict,
        if case.required { "" } else { ", not required" }
    );
    if !case.explanation.is_empty() {
        let _ = write!(out, ", {}", code(&case.explanation, SHOWN_MAX));
    }
    let _ = writeln!(out, ", {} calls", case.calls.len());
    for seen in case.observations.iter().take(OBSERVATIONS_MAX) {
        let _ = writeln!(
            out,
            "  - {}: {} ({})",
            code(&seen.name, 80),
            code(&seen.value, SHOWN_MAX),
            if seen.from_answer {
                "in an answer of the cluster"
            } else {
                "computed by the probe"
            }
        );
    }
    let left = case.observations.len().saturating_sub(OBSERVATIONS_MAX);
    if left > 0 {
        let _ = writeln!(out, "  - and {left} more in the bundle");
    }
}

/// Requirements of a probe that are in the artefacts.
fn in_artefacts<'a>(
    draft: &'a Draft<'_>,
    probe: &'a ProbeRecord,
) -> impl Iterator<Item = String> + 'a {
    let ids = probe.requirements.iter();
    ids.filter(|id| draft.submitted.contains(*id))
        .map(|id| code(id, 64))
}

/// The full report: every probe of the run, and what is in the artefacts.
pub(super) fn report(draft: &Draft<'_>) -> String {
    let record = &draft.input.run.record;
    let mut out = format!(
        "# Full report of run {}\n\nEvery probe of the run, whether it counts for this form or not.\n\n\
         | Probe | Requirements | Result | Tier | Attempt | In the artefacts |\n|---|---|---|---|---|---|\n",
        code(&record.run, 20)
    );
    for probe in &record.probes {
        let last = probe.attempts.last();
        let requirements = probe.requirements.iter().map(|id| code(id, 64));
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            code(&probe.probe, 100),
            cell(requirements),
            last.map_or_else(|| "not started".to_owned(), word),
            last.map_or_else(
                || "-".to_owned(),
                |attempt| attempt.judgement.tier.to_string()
            ),
            match (last, which(probe)) {
                (None, _) => "-".to_owned(),
                (Some(_), earlier) if earlier.is_empty() => "1".to_owned(),
                (Some(_), earlier) => earlier.trim_matches([' ', '(', ')']).to_owned(),
            },
            cell(in_artefacts(draft, probe))
        );
    }
    if !draft.left_out.is_empty() {
        out.push_str("\n## Left out of the artefacts, and why\n\n");
        for (what, why) in &draft.left_out {
            let _ = writeln!(out, "- {}: {}", code(what, 100), code(why, 400));
        }
    }
    let mut first = true;
    for probe in &record.probes {
        let Some(attempt) = probe.attempts.last() else {
            continue;
        };
        let is_out = |id: &String| draft.left_out.contains_key(id);
        if !is_out(&probe.probe) && !probe.requirements.iter().any(is_out) {
            continue;
        }
        if first {
            out.push_str("\n## What those say\n");
            first = false;
        }
        let _ = write!(out, "\n### {}\n\n", code(&probe.probe, 100));
        if !attempt.judgement.explanation.is_empty() {
            let _ = writeln!(out, "- {}", code(&attempt.judgement.explanation, 600));
        }
        for case in &attempt.judgement.cases {
            of_case(&mut out, case);
        }
    }
    out
}
