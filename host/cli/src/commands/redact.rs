//! `karat redact`: a copy of a finished run in which more is hidden, kept only if every verdict stays the same. No cluster,
//! no network.

use super::{Context, block_on};
use crate::args::RedactArgs;
use crate::exit::Exit;
use crate::settings::redaction;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult};
use crate::ui::printer::{Paint, Style};
use crate::ui::table::{Cell, Table};
use crate::ui::text::{counted, shown_within};
use karat_engine::redacted_copy::{Copied, CopyError, redacted_copy};
use std::sync::Arc;

/// Copies and checks.
pub(crate) fn execute(context: &Context, args: &RedactArgs) -> CommandResult {
    let rules = Arc::new(redaction(&args.rules)?);
    let engine = context.engine()?;
    let work = redacted_copy(&engine, &args.run, rules, &args.out);
    let copied = block_on(work)?.map_err(|error| describe(error, args))?;
    let printer = &context.printer;
    if args.json {
        printer.json(&copied).bug("cannot write what was done")?;
    } else {
        printer.data_lines(lines(&copied, printer.out_paint()));
    }
    let out = args.out.display();
    printer.status(&format!("the copy:                    {out}"));
    printer.status(&format!("its verdicts, again:         karat replay {out}"));
    Ok(Exit::Passed)
}

fn describe(error: CopyError, args: &RedactArgs) -> CommandError {
    let folder = args.run.display();
    let doing = format!("{folder} was not copied, and nothing was written");
    match error {
        // The rules are fine and the run is, but not both together: that is the answer to the question, not wrong usage.
        CopyError::Differs { .. } => CommandError::stopped_because(Exit::Failed, error).doing(doing).hint(
            "narrow the rule that hides what the probe decides by; a value that a probe needs cannot be hidden afterwards, only before the run, with `karat run --redact`",
        ),
        CopyError::Io { .. } | CopyError::Randomness(_) => CommandError::environment(error).doing(doing),
        error => CommandError::usage(error).doing(doing),
    }
}

fn lines(copied: &Copied, paint: Paint) -> Vec<String> {
    let mut table = Table::with_heading(&[
        "probe",
        "attempt",
        "calls",
        "rewritten",
        "answers rewritten",
        "replayed",
    ]);
    for attempt in &copied.attempts {
        let (word, style) = if attempt.replayed {
            ("agrees", Style::Good)
        } else {
            ("as far as its calls go", Style::Unsure)
        };
        table.row([
            Cell::styled(shown_within(&attempt.probe, 60), Style::Strong),
            attempt.attempt.to_string().into(),
            attempt.calls.to_string().into(),
            attempt.calls_changed.to_string().into(),
            attempt.answers_changed.to_string().into(),
            Cell::styled(word, style),
        ]);
    }
    let mut out = table.lines(paint);
    out.push(String::new());
    out.push(format!(
        "run {}: {}, every verdict is the same",
        shown_within(&copied.run, 40),
        counted(copied.attempts.len(), "attempt")
    ));
    out.push(format!(
        "run head of the original  {}",
        shown_within(&copied.from, 64)
    ));
    out.push(format!(
        "run head of the copy      {}",
        shown_within(&copied.head, 64)
    ));
    out.push(format!(
        "rules (SHA-256)           {}",
        shown_within(&copied.rules, 64)
    ));
    let changed = copied
        .attempts
        .iter()
        .any(|attempt| attempt.calls_changed + attempt.answers_changed > 0);
    if !changed {
        out.push("The rules found nothing in it.".to_owned());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::samples::HOSTILE;
    use karat_engine::redacted_copy::CopiedAttempt;

    fn copied(probe: &str, changed: u64) -> Copied {
        Copied {
            run: "abcdefgh".to_owned(),
            from: "1".repeat(64),
            head: "2".repeat(64),
            rules: "3".repeat(64),
            attempts: vec![CopiedAttempt {
                probe: probe.to_owned(),
                attempt: 1,
                calls: 87,
                calls_changed: changed,
                answers_changed: changed,
                replayed: true,
            }],
        }
    }

    #[test]
    fn what_was_done_is_a_table_and_two_heads() {
        insta::assert_snapshot!(lines(&copied("dra-support", 12), Paint::Never).join("\n"));
        let none = lines(&copied("dra-support", 0), Paint::Never).join("\n");
        assert!(none.contains("found nothing"), "{none}");
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        for line in lines(&copied(HOSTILE, 1), Paint::Never) {
            assert!(
                !line.chars().any(|c| c.is_control() || c == '\u{202e}'),
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_verdict_that_would_change_is_no_wrong_usage() {
        let args = RedactArgs {
            run: "run".into(),
            rules: "rules.toml".into(),
            out: "out".into(),
            json: false,
        };
        let differs = CopyError::Differs {
            probe: "p".to_owned(),
            attempt: 1,
            what: "verdict".to_owned(),
            before: "pass".to_owned(),
            after: "unknown".to_owned(),
        };
        assert_eq!(describe(differs, &args).exit(), Exit::Failed);
        assert_eq!(describe(CopyError::NoRules, &args).exit(), Exit::Usage);
    }
}
