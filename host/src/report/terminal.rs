//! Records as text: the final table, what to do next, one probe explained, and a whole run. Pure functions of a run record
//! and of manifests; `karat run`, `karat replay`, `karat explain` and `karat report` show the same words for the same record.

mod paint;
mod table;

pub use paint::{Paint, Style};
pub use table::{Cell, Table};

use super::model::Report;
use super::text::{shown, shown_within};
use super::words::{bytes, counted, duration_ms, ranges, wrap};
use crate::model::{
    AttemptRecord, CaseResult, Conclusion, Outcome, ProbeRecord, Reason, Tier, Verdict,
};

/// Columns of running text.
const COLUMNS: usize = 100;

/// How the SDK begins the explanation of a case that rests on another one.
const NOT_TRIED: &str = "not tried: ";
/// Observations of a failed case that are shown at the end of a run.
const SEEN_LAST: usize = 2;

/// Most observations of a case that are shown.
const OBSERVATIONS_MAX: usize = 20;

/// The word for an attempt and its style: the verdict, or how it ended without one.
pub fn word(attempt: &AttemptRecord) -> (&'static str, Style) {
    match (&attempt.outcome, attempt.judgement.verdict) {
        (Outcome::Concluded | Outcome::ProbeError(_), Some(verdict)) => verdict_word(verdict),
        (outcome, _) => (outcome.word(), Style::Unsure),
    }
}

/// The word for a verdict and its style.
pub fn verdict_word(verdict: Verdict) -> (&'static str, Style) {
    match verdict {
        Verdict::Pass => ("pass", Style::Good),
        Verdict::Fail => ("fail", Style::Bad),
        Verdict::NotApplicable => ("not-applicable", Style::Good),
        Verdict::Unknown => ("unknown", Style::Unsure),
    }
}

/// One row for each probe: what it says about the platform, on what evidence, and what it cost.
pub fn table<'a>(probes: impl IntoIterator<Item = &'a ProbeRecord>) -> Table {
    let mut table = Table::with_heading(&[
        "probe", "verdict", "tier", "reason", "time", "calls", "memory", "attempt",
    ]);
    for probe in probes {
        let Some(attempt) = probe.attempts.last() else {
            table.row([
                shown_within(&probe.probe, 60).into(),
                Cell::styled("not started", Style::Unsure),
            ]);
            continue;
        };
        let (word, style) = word(attempt);
        let started = attempt.recording.is_some();
        let number = |text: String| if started { text } else { String::new() };
        table.row([
            Cell::styled(shown_within(&probe.probe, 60), Style::Strong),
            Cell::styled(word, style),
            number(tier(attempt)).into(),
            attempt
                .judgement
                .reason
                .map_or(String::new(), |reason| reason.to_string())
                .into(),
            number(duration_ms(attempt.usage.wall_ms)).into(),
            number(attempt.usage.calls.to_string()).into(),
            number(bytes(attempt.usage.peak_memory_bytes)).into(),
            which(probe).into(),
        ]);
    }
    table
}

/// Which attempt counts and what came before it: `2 of 2, after fail`. The first attempt of one needs no number.
fn which(probe: &ProbeRecord) -> String {
    let Some((last, earlier)) = probe.attempts.split_last() else {
        return String::new();
    };
    if earlier.is_empty() {
        return String::new();
    }
    let mut before: Vec<&str> = earlier.iter().map(|attempt| word(attempt).0).collect();
    before.dedup();
    format!(
        "{} of {}, after {}",
        last.attempt,
        probe.attempts.len(),
        before.join(", ")
    )
}

fn tier(attempt: &AttemptRecord) -> String {
    match attempt.judgement.verdict {
        Some(_) => attempt.judgement.tier.to_string(),
        None => String::new(),
    }
}

/// One line for the whole run: `2 probes: 1 pass, 1 fail`.
pub fn summary<'a>(probes: impl IntoIterator<Item = &'a ProbeRecord>) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    let mut all = 0;
    for probe in probes {
        all += 1;
        let word = probe
            .attempts
            .last()
            .map_or("not started", |attempt| word(attempt).0);
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    let parts: Vec<String> = counts
        .iter()
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    if parts.is_empty() {
        return "no probe was run".to_owned();
    }
    format!("{}: {}", counted(all, "probe"), parts.join(", "))
}

/// For every probe that did not pass: what happened and what to do.
pub fn next_steps<'a>(
    probes: impl IntoIterator<Item = &'a ProbeRecord>,
    folder: &str,
    paint: Paint,
) -> Vec<String> {
    let mut lines = Vec::new();
    for probe in probes {
        let Some(attempt) = probe.attempts.last() else {
            continue;
        };
        if attempt.outcome == Outcome::Concluded
            && matches!(
                attempt.judgement.verdict,
                Some(Verdict::Pass | Verdict::NotApplicable)
            )
        {
            continue;
        }
        let (word, style) = word(attempt);
        let id = shown_within(&probe.probe, 60);
        lines.push(format!(
            "{}  {}",
            paint.paint(Style::Strong, &id),
            paint.paint(style, word)
        ));
        lines.extend(why(attempt).into_iter().map(|line| format!("  {line}")));
        if let Some(todo) = what_to_do(attempt) {
            push_wrapped(&mut lines, "  to do: ", &todo);
        }
        push_wrapped(
            &mut lines,
            "  more:  ",
            &format!("karat explain {id} --run {folder}"),
        );
    }
    lines
}

/// Why an attempt ended as it did: the explanation, and the required cases that decided.
fn why(attempt: &AttemptRecord) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(detail) = attempt.outcome.detail() {
        push_wrapped(&mut lines, "", &shown(detail));
    }
    let deciding: Vec<&CaseResult> = cases(attempt)
        .filter(|case| {
            case.required && !matches!(case.verdict, Verdict::Pass | Verdict::NotApplicable)
        })
        .collect();
    // The judgement's explanation is often that of the deciding case, which follows anyway.
    if let Some(said) = explanation(attempt)
        && !deciding
            .iter()
            .any(|case| !case.explanation.is_empty() && said.contains(&case.explanation))
    {
        push_wrapped(&mut lines, "", &shown(said));
    }
    let ended = |case: &CaseResult| {
        let reason = case
            .reason
            .map_or(String::new(), |reason| format!(" ({reason})"));
        format!("{}{reason}", verdict_word(case.verdict).0)
    };
    let name = |case: &CaseResult| shown(&case.case.to_string());
    let mut deciding = deciding.into_iter().peekable();
    while let Some(case) = deciding.next() {
        let explanation = if case.explanation.is_empty() {
            String::new()
        } else {
            format!(": {}", shown(&case.explanation))
        };
        let text = format!("{} {}{explanation}", name(case), ended(case));
        push_wrapped(&mut lines, "case ", &text);
        let mut rest = Vec::new();
        while let Some(next) = deciding.next_if(|next| rests_on(next, case)) {
            rest.push(name(next));
        }
        if !rest.is_empty() {
            let plural = if rest.len() > 1 { "cases " } else { "case " };
            let text = format!(
                "{} {}: not tried, because of that",
                rest.join(", "),
                ended(case)
            );
            push_wrapped(&mut lines, plural, &text);
        }
        if case.verdict == Verdict::Fail {
            // What was seen last is what the probe gave up on.
            let skip = case.observations.len().saturating_sub(SEEN_LAST);
            for observation in case.observations.iter().skip(skip) {
                let name = shown_within(&observation.name, 80);
                let text = format!("{name} = {}", shown(&observation.value));
                push_wrapped(&mut lines, "     seen: ", &text);
            }
        }
    }
    lines
}

/// Whether a case was not tried for the reason that another one tells in full. Explanations may be cut at their end.
fn rests_on(case: &CaseResult, other: &CaseResult) -> bool {
    let told = other.explanation.as_str();
    let is_told = |why: &str| match (why.strip_suffix('…'), told.strip_suffix('…')) {
        (Some(begin), _) if told.starts_with(begin) => true,
        (_, Some(begin)) => why.starts_with(begin),
        _ => why == told,
    };
    let why = case.explanation.strip_prefix(NOT_TRIED);
    case.verdict == other.verdict && case.reason == other.reason && why.is_some_and(is_told)
}

/// The judgement's explanation, where it says more than how the attempt ended.
fn explanation(attempt: &AttemptRecord) -> Option<&str> {
    let said = attempt.judgement.explanation.as_str();
    let repeated = attempt
        .outcome
        .detail()
        .is_some_and(|detail| said.contains(detail));
    (!said.is_empty() && !repeated).then_some(said)
}

/// The cases that tell something: where an attempt ended before its time, those it never came to do not.
fn cases(attempt: &AttemptRecord) -> impl Iterator<Item = &CaseResult> {
    let done = attempt.outcome == Outcome::Concluded;
    attempt
        .judgement
        .cases
        .iter()
        .filter(move |case| done || case.concluded.is_some() || !case.calls.is_empty())
}

/// What the user can do about an attempt that did not pass.
pub fn what_to_do(attempt: &AttemptRecord) -> Option<String> {
    let of_reason = |reason: Reason| reason.meaning().1.to_owned();
    match &attempt.outcome {
        Outcome::Denied(_) => Some(
            "mend what is named above: a grant, a permission of your account, or a policy of the cluster".to_owned(),
        ),
        Outcome::OverBudget(_) => Some(
            "look at what was slow; if the platform is healthy, report this to the probe's author".to_owned(),
        ),
        Outcome::Trapped(_) => {
            Some("this is a mistake of the probe, not of the platform; report it to its author".to_owned())
        }
        Outcome::Untrusted(_) => Some("use a probe from a source that you trust".to_owned()),
        Outcome::Interrupted => Some(of_reason(Reason::Interrupted)),
        Outcome::Skipped(_) => None,
        Outcome::ProbeError(_) | Outcome::Concluded => match (attempt.judgement.reason, attempt.judgement.verdict) {
            (Some(reason), _) => Some(of_reason(reason)),
            (None, Some(Verdict::Fail)) => {
                Some("the platform contradicts the claim; mend what the case names and run again".to_owned())
            }
            _ => None,
        },
    }
}

/// One probe of a run in full.
pub fn explained(probe: &ProbeRecord, paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(attempt) = probe.attempts.last() else {
        return vec!["it was not started in this run".to_owned()];
    };
    let (word, style) = word(attempt);
    let which = match which(probe).as_str() {
        "" => String::new(),
        which => format!(" (attempt {which})"),
    };
    lines.push(format!("verdict  {}{which}", paint.paint(style, word)));
    if attempt.judgement.verdict.is_some() {
        let because: Vec<String> = attempt
            .judgement
            .tier_because
            .iter()
            .map(|text| shown(text))
            .collect();
        let because = if because.is_empty() {
            String::new()
        } else {
            format!(", because of {}", because.join(", "))
        };
        push_wrapped(
            &mut lines,
            "tier     ",
            &format!("{}{because}", attempt.judgement.tier),
        );
        if attempt.judgement.tier == Tier::Simulated {
            lines.push("         a simulated pass is never written into a submission".to_owned());
        }
    }
    if let Some(reason) = attempt.judgement.reason {
        push_wrapped(
            &mut lines,
            "reason   ",
            &format!("{reason}: {}", reason.meaning().0),
        );
    }
    for (label, text) in [
        ("ended    ", attempt.outcome.detail().unwrap_or_default()),
        ("why      ", explanation(attempt).unwrap_or_default()),
    ] {
        if !text.is_empty() {
            push_wrapped(&mut lines, label, &shown(text));
        }
    }
    if let Some(todo) = what_to_do(attempt) {
        push_wrapped(&mut lines, "to do    ", &todo);
    }
    for object in &attempt.left_behind {
        push_wrapped(&mut lines, "left     ", &shown(object));
    }
    for case in cases(attempt) {
        lines.push(String::new());
        case_lines(&mut lines, case, paint);
    }
    if let [earlier @ .., _] = &probe.attempts[..]
        && !earlier.is_empty()
    {
        lines.push(String::new());
        lines.push("earlier attempts, which stay in the record".to_owned());
        for attempt in earlier {
            earlier_lines(&mut lines, attempt, paint);
        }
    }
    if let Some(recording) = &attempt.recording {
        lines.push(String::new());
        lines.push(format!(
            "The calls are in {}, rules {}.",
            shown(recording),
            shown(&attempt.judgement.rules)
        ));
    }
    lines
}

/// An attempt that no longer counts: when, what came of it and why, and where its calls are.
fn earlier_lines(lines: &mut Vec<String>, attempt: &AttemptRecord, paint: Paint) {
    let (word, style) = word(attempt);
    lines.push(format!(
        "attempt {}, {}  {}",
        attempt.attempt,
        shown_within(&attempt.started, 40),
        paint.paint(style, word)
    ));
    lines.extend(why(attempt).into_iter().map(|line| format!("  {line}")));
    if let Some(recording) = &attempt.recording {
        lines.push(format!("  calls in {}", shown(recording)));
    }
}

fn case_lines(lines: &mut Vec<String>, case: &CaseResult, paint: Paint) {
    let (word, style) = verdict_word(case.verdict);
    let optional = if case.required {
        ""
    } else {
        ", not part of the verdict"
    };
    let name = paint.paint(Style::Strong, &shown(&case.case.to_string()));
    lines.push(format!(
        "case {name}  {}{optional}",
        paint.paint(style, word)
    ));
    if let Some(said) = conclusion_differs(case) {
        push_wrapped(lines, "  the probe said ", &shown(&said));
    }
    if let Some(reason) = case.reason {
        push_wrapped(
            lines,
            "  reason  ",
            &format!("{reason}: {}", reason.meaning().0),
        );
    }
    if !case.explanation.is_empty() {
        push_wrapped(lines, "  why     ", &shown(&case.explanation));
    }
    for observation in case.observations.iter().take(OBSERVATIONS_MAX) {
        let source = if observation.from_answer {
            ""
        } else {
            "  (computed by the probe)"
        };
        let text = format!(
            "{} = {}{source}",
            shown_within(&observation.name, 80),
            shown(&observation.value)
        );
        push_wrapped(lines, "  seen    ", &text);
    }
    if case.observations.len() > OBSERVATIONS_MAX {
        lines.push(format!(
            "  seen    … ({} more)",
            case.observations.len() - OBSERVATIONS_MAX
        ));
    }
    if !case.calls.is_empty() {
        push_wrapped(lines, "  calls   ", &ranges(&case.calls));
    }
}

/// What the probe said, where the engine says something else; foreign text, as it is.
pub(super) fn conclusion_differs(case: &CaseResult) -> Option<String> {
    let said = case.concluded.as_ref()?;
    let (word, detail) = conclusion(said);
    let same = matches!(
        (said, case.verdict),
        (Conclusion::Pass, Verdict::Pass)
            | (Conclusion::Fail, Verdict::Fail)
            | (Conclusion::Unknown(_), Verdict::Unknown)
            | (Conclusion::NotApplicable(_), Verdict::NotApplicable)
    );
    (!same).then(|| {
        if detail.is_empty() {
            word.to_owned()
        } else {
            format!("{word}: {detail}")
        }
    })
}

/// A conclusion's word and its explanation.
fn conclusion(conclusion: &Conclusion) -> (&'static str, &str) {
    match conclusion {
        Conclusion::Pass => ("pass", ""),
        Conclusion::Fail => ("fail", ""),
        Conclusion::Unknown(text) => ("unknown", text),
        Conclusion::NotApplicable(text) => ("not-applicable", text),
        Conclusion::Other(text) => ("a word of a later contract", text),
    }
}

/// Adds text behind a label; further lines stand under the first word.
pub fn push_wrapped(lines: &mut Vec<String>, label: &str, text: &str) {
    let indent = " ".repeat(label.len());
    for (number, piece) in wrap(text, COLUMNS - label.len().min(40))
        .into_iter()
        .enumerate()
    {
        lines.push(format!(
            "{}{piece}",
            if number == 0 { label } else { &indent }
        ));
    }
}

/// A whole run: what it was, what is missing, the final table, what to do next.
pub(super) fn lines(report: &Report, paint: Paint) -> Vec<String> {
    let run = &report.run;
    let took = run.took_ms.map_or("without an end".to_owned(), duration_ms);
    let mut out = vec![format!(
        "{}  Kubernetes {}, began {}, {took}",
        paint.paint(Style::Strong, &format!("run {}", run.id.line(40))),
        run.server_version.line(40),
        run.started.line(40),
    )];
    if let Some(version) = &report.checklist {
        for (level, counts) in [
            ("MUST", &report.summary.must),
            ("SHOULD", &report.summary.should),
        ] {
            if counts.all() > 0 {
                out.push(format!(
                    "{level} of {version}: {} of {} answered, {} pass, {} fail, {} unknown, {} not applicable",
                    counts.run(),
                    counts.all(),
                    counts.pass,
                    counts.fail,
                    counts.unknown,
                    counts.not_applicable
                ));
            }
        }
    }
    for problem in &report.problems {
        let place = problem.place.line(80);
        let label = format!("{}  ", paint.paint(Style::Unsure, "incomplete:"));
        out.push(format!("{label}{place}: {}", problem.what.line(400)));
    }
    let probes = || report.record.probes.iter().take(super::open::PROBES_MAX);
    out.push(String::new());
    out.extend(table(probes()).lines(paint));
    out.push(String::new());
    out.push(summary(probes()));
    let steps = next_steps(probes(), "FOLDER", paint);
    if !steps.is_empty() {
        out.push(String::new());
        out.extend(steps);
    }
    out
}
