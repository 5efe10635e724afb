//! `karat replay`: the verdicts of a finished run, computed again from its recordings. No cluster, no network.

use super::{Context, block_on};
use crate::args::ReplayArgs;
use crate::exit::Exit;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult, Hint as _};
use crate::ui::printer::Paint;
use crate::ui::text::{counted, shown, shown_within};
use crate::ui::verdicts::push_wrapped;
use crate::ui::verify::attempts;
use karat_engine::model::Verdict;
use karat_engine::replay::{Depth, ReplayReport, replay};
use serde::Serialize;

#[derive(Serialize)]
struct Found<'a> {
    run: &'a str,
    consistent: bool,
    attempts: Vec<FoundAttempt<'a>>,
}

#[derive(Serialize)]
struct FoundAttempt<'a> {
    probe: &'a str,
    attempt: u32,
    verdict: Option<Verdict>,
    /// `full`, `not-recomputable` or `none`.
    replayed: &'static str,
    /// Why it was not replayed in full.
    why: Option<&'a str>,
    calls: u64,
    findings: Vec<FoundDifference<'a>>,
}

#[derive(Serialize)]
struct FoundDifference<'a> {
    what: &'a str,
    recorded: &'a str,
    replayed: &'a str,
}

/// Replays and compares.
pub(crate) fn execute(context: &Context, args: &ReplayArgs) -> CommandResult {
    let engine = context.engine()?;
    let folder = args.run.display().to_string();
    let report = block_on(replay(&engine, &args.run, None))?
        .usage(format!("cannot replay {folder}"))
        .hint("give the output folder of a run; `karat run` names it at the end")?;
    let printer = &context.printer;
    if args.json {
        printer
            .json(&found(&report))
            .bug("cannot write what was found")?;
    } else {
        printer.data_lines(lines(&report, printer.out_paint()));
    }
    exit(&report)
}

/// 0 if everything was computed again and agrees, 1 if something differs, 2 if something could not be computed again.
fn exit(report: &ReplayReport) -> Result<Exit, CommandError> {
    if !report.is_consistent() {
        return Ok(Exit::Failed);
    }
    let all = report
        .attempts
        .iter()
        .all(|attempt| attempt.depth == Depth::Full);
    Ok(if all && !report.attempts.is_empty() {
        Exit::Passed
    } else {
        Exit::Unclear
    })
}

fn depth(depth: &Depth) -> (&'static str, Option<&str>) {
    match depth {
        Depth::Full => ("full", None),
        Depth::NotRecomputable(why) => ("not-recomputable", Some(why)),
        Depth::None(why) => ("none", Some(why)),
    }
}

fn found(report: &ReplayReport) -> Found<'_> {
    Found {
        run: &report.record.run,
        consistent: report.is_consistent(),
        attempts: report
            .attempts
            .iter()
            .map(|attempt| {
                let (replayed, why) = depth(&attempt.depth);
                FoundAttempt {
                    probe: &attempt.probe,
                    attempt: attempt.attempt,
                    verdict: attempt.verdict,
                    replayed,
                    why,
                    calls: attempt.calls,
                    findings: attempt
                        .findings
                        .iter()
                        .map(|finding| FoundDifference {
                            what: &finding.what,
                            recorded: &finding.recorded,
                            replayed: &finding.replayed,
                        })
                        .collect(),
                }
            })
            .collect(),
    }
}

fn lines(report: &ReplayReport, paint: Paint) -> Vec<String> {
    let mut out = attempts(&report.attempts, "replayed", "not at all").lines(paint);
    out.push(String::new());
    for attempt in &report.attempts {
        let name = format!(
            "{} attempt {}: ",
            shown_within(&attempt.probe, 60),
            attempt.attempt
        );
        if let (_, Some(why)) = depth(&attempt.depth) {
            push_wrapped(&mut out, "", &format!("{name}{}", shown(why)));
        }
        for finding in &attempt.findings {
            let text = format!(
                "{name}{}: recorded {}, replayed {}",
                shown_within(&finding.what, 80),
                shown(&finding.recorded),
                shown(&finding.replayed)
            );
            push_wrapped(&mut out, "", &text);
        }
    }
    let findings = report.findings().count();
    out.push(if findings == 0 {
        format!(
            "run {}: {}, nothing differs",
            shown_within(&report.record.run, 40),
            counted(report.attempts.len(), "attempt")
        )
    } else {
        format!(
            "run {}: {} between the record and its replay",
            shown_within(&report.record.run, 40),
            counted(findings, "difference")
        )
    });
    out.push(
        "A replay shows that these probes, given these answers, give these verdicts; not where the answers came from."
            .to_owned(),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::samples::{HOSTILE, run_record};
    use karat_engine::replay::{ReplayFinding, ReplayedAttempt};

    fn report(attempts: Vec<ReplayedAttempt>) -> ReplayReport {
        ReplayReport {
            record: run_record(Vec::new()),
            attempts,
        }
    }

    fn attempt(depth: Depth, findings: Vec<ReplayFinding>) -> ReplayedAttempt {
        ReplayedAttempt {
            probe: "dra-support".to_owned(),
            attempt: 1,
            verdict: Some(Verdict::Pass),
            depth,
            calls: 87,
            findings,
        }
    }

    fn finding(text: &str) -> ReplayFinding {
        ReplayFinding {
            probe: "dra-support".to_owned(),
            attempt: 1,
            what: "verdict".to_owned(),
            recorded: text.to_owned(),
            replayed: "fail".to_owned(),
        }
    }

    #[test]
    fn an_edited_run_differs() {
        let report = report(vec![
            attempt(Depth::Full, Vec::new()),
            attempt(Depth::Full, vec![finding("pass")]),
            attempt(
                Depth::NotRecomputable("its wall time was up".to_owned()),
                Vec::new(),
            ),
            attempt(
                Depth::None("the recording is not there".to_owned()),
                Vec::new(),
            ),
        ]);
        insta::assert_snapshot!(lines(&report, Paint::Never).join("\n"));
        assert_eq!(exit(&report).unwrap(), Exit::Failed);
        let json = serde_json::to_value(found(&report)).unwrap();
        assert_eq!(json["consistent"], false);
        assert_eq!(json["attempts"][2]["replayed"], "not-recomputable");
    }

    #[test]
    fn what_cannot_be_computed_again_is_not_a_success() {
        assert_eq!(
            exit(&report(vec![attempt(Depth::Full, Vec::new())])).unwrap(),
            Exit::Passed
        );
        let half = attempt(Depth::NotRecomputable("x".to_owned()), Vec::new());
        assert_eq!(exit(&report(vec![half])).unwrap(), Exit::Unclear);
        assert_eq!(exit(&report(Vec::new())).unwrap(), Exit::Unclear);
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let report = report(vec![attempt(
            Depth::None(HOSTILE.to_owned()),
            vec![finding(HOSTILE)],
        )]);
        for line in lines(&report, Paint::Never) {
            assert!(
                !line.chars().any(|c| c.is_control() || c == '\u{202e}'),
                "{line:?}"
            );
        }
    }
}
