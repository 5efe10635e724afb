//! What `karat verify` found, as lines: one for each finding, then what was computed again, then what no bundle can show.

use super::printer::{Paint, Style};
use super::table::{Cell, Table};
use super::text::{counted, shown, shown_within};
use super::verdicts::{push_wrapped, verdict_word};
use karat_engine::replay::{Depth, ReplayedAttempt};
use karat_engine::verify::{Finding, Signed, VerifyReport};
use karat_engine::witness::{Grade, Witnessed};

/// Everything, for people.
pub(crate) fn lines(report: &VerifyReport, paint: Paint) -> Vec<String> {
    let mut out = Vec::new();
    if !report.attempts.is_empty() {
        out.extend(attempts(&report.attempts, "computed again", "no").lines(paint));
        out.push(String::new());
    }
    if !report.answered.is_empty() {
        out.extend(requirements(report).lines(paint));
        out.push(String::new());
    }
    for (word, style, found) in [
        ("wrong", Style::Bad, &report.findings),
        ("not checked", Style::Unsure, &report.unchecked),
    ] {
        for finding in found {
            let label = format!("{} ", paint.paint(style, word));
            push_wrapped(&mut out, &label, &told(finding));
        }
    }
    if let Signed::By { keys } = &report.signed {
        for key in keys {
            out.push(format!(
                "{} by {}",
                paint.paint(Style::Good, "signed"),
                shown(key)
            ));
        }
    }
    if report.record.is_some() {
        push_wrapped(&mut out, "witness ", &witness(&report.witnessed, paint));
    }
    let run = report.record.as_ref().map_or_else(
        || "this bundle".to_owned(),
        |record| format!("run {}", shown_within(&record.run, 40)),
    );
    let wrong = report.findings.len();
    let (style, answer) = match (wrong, report.unchecked.is_empty()) {
        (0, true) => (
            Style::Good,
            format!("{run}: the bundle holds, every verdict was computed again"),
        ),
        (0, false) => (
            Style::Unsure,
            format!("{run}: nothing is wrong, but not everything could be checked"),
        ),
        _ => (
            Style::Bad,
            format!(
                "{run}: the bundle does not hold, {}",
                counted(wrong, "finding")
            ),
        ),
    };
    out.push(paint.paint(style, &answer));
    out.push(String::new());
    out.push("what this cannot show".to_owned());
    for sentence in report.limits_of_proof() {
        push_wrapped(&mut out, "  ", &shown(&sentence));
    }
    out
}

/// Whose word the witness is.
fn witness(witnessed: &Witnessed, paint: Paint) -> String {
    let style = match witnessed.grade {
        Grade::None | Grade::SelfAsserted => Style::Unsure,
        Grade::Pinned | Grade::Issuer => Style::Good,
    };
    let word = paint.paint(style, witnessed.grade.word());
    let quoted = |text: &Option<String>| shown_within(text.as_deref().unwrap_or_default(), 200);
    let whose = match witnessed.grade {
        Grade::None => return word,
        Grade::SelfAsserted => "with keys from the bundle itself".to_owned(),
        Grade::Pinned => "with keys that you gave".to_owned(),
        Grade::Issuer => format!(
            "with keys that the issuer published at {}",
            quoted(&witnessed.fetched)
        ),
    };
    format!(
        "{word}: {} of {}, {whose}, from {} to {}",
        counted(witnessed.tokens, "token"),
        quoted(&witnessed.issuer),
        quoted(&witnessed.first),
        quoted(&witnessed.last)
    )
}

fn told(finding: &Finding) -> String {
    format!(
        "[{}] {}: {}",
        finding.check.word(),
        shown_within(&finding.subject, 200),
        shown(&finding.message)
    )
}

/// The attempts that were computed again. `title` heads the column that says how far, and `none` stands there for not at all.
pub(crate) fn attempts(found: &[ReplayedAttempt], title: &str, none: &str) -> Table {
    let mut table = Table::with_heading(&["probe", "attempt", "verdict", "calls", title]);
    for attempt in found {
        let (word, style) = match (&attempt.depth, attempt.findings.is_empty()) {
            (_, false) => ("DIFFERS", Style::Bad),
            (Depth::Full, true) => ("agrees", Style::Good),
            (Depth::NotRecomputable(_), true) => ("as far as its calls go", Style::Unsure),
            (Depth::None(_), true) => (none, Style::Unsure),
        };
        table.row([
            Cell::styled(shown_within(&attempt.probe, 60), Style::Strong),
            attempt.attempt.to_string().into(),
            attempt
                .verdict
                .map_or("none".to_owned(), |verdict| verdict.to_string())
                .into(),
            attempt.calls.to_string().into(),
            Cell::styled(word, style),
        ]);
    }
    table
}

fn requirements(report: &VerifyReport) -> Table {
    let mut table = Table::with_heading(&[
        "requirement",
        "level",
        "verdict",
        "rests on",
        "computed again",
    ]);
    for one in &report.answered {
        let verdict = match one.verdict {
            Some(verdict) => {
                let (word, style) = verdict_word(verdict);
                Cell::styled(word, style)
            }
            None => Cell::styled("none", Style::Unsure),
        };
        table.row([
            Cell::styled(shown_within(&one.id, 60), Style::Strong),
            one.level.to_owned().into(),
            verdict,
            one.tier
                .map_or_else(String::new, |tier| tier.to_string())
                .into(),
            if one.recomputed { "yes" } else { "no" }.to_owned().into(),
        ]);
    }
    table
}
