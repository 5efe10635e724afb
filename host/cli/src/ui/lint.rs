//! Findings of `karat lint` as lines. Every one quotes a folder that may be hostile, so all of it is made harmless here.

use crate::ui::printer::{Paint, Style};
use crate::ui::text::{counted, shown, shown_within};
use crate::ui::verdicts::push_wrapped;
use karat_engine::lint::rules::{Rule, Severity};
use karat_engine::lint::{Finding, Report, Verdict};

/// Longest name of a file that is shown, in characters.
const FILE_MAX: usize = 120;

/// All of a report; the last line is its sum.
pub(crate) fn lines(report: &Report, paint: Paint) -> Vec<String> {
    let mut out = Vec::new();
    for finding in &report.findings {
        out.push(head(finding, paint));
        push_wrapped(&mut out, "  ", &shown(&finding.message));
        push_wrapped(&mut out, "  hint: ", &shown(&finding.hint));
    }
    if report.dropped > 0 {
        out.push(format!(
            "… and {} that are not listed",
            counted(report.dropped, "finding")
        ));
    }
    for open in &report.unchecked {
        push_wrapped(&mut out, "not checked: ", &shown(open));
    }
    out.push(sum(report));
    out
}

fn head(finding: &Finding, paint: Paint) -> String {
    let file = shown_within(&finding.file, FILE_MAX);
    let place = match finding.line {
        0 => file,
        line => format!("{file}:{line}"),
    };
    let style = match finding.rule.severity {
        Severity::Error => Style::Bad,
        Severity::Warning => Style::Unsure,
    };
    let word = paint.paint(style, finding.rule.severity.word());
    format!(
        "{}: {word} {}",
        paint.paint(Style::Strong, &place),
        finding.rule.id
    )
}

fn sum(report: &Report) -> String {
    let verdict = match report.verdict {
        Verdict::Accepts => "the programme's validator would accept this",
        Verdict::Refuses => "the programme's validator would refuse this",
        Verdict::Unknown => "whether the programme's validator would accept this is not known",
    };
    format!(
        "lint: {}, {}; {verdict}",
        counted(report.errors(), "error"),
        counted(report.warnings(), "warning")
    )
}

/// A rule for `--explain`.
pub(crate) fn explained(rule: &Rule, paint: Paint) -> Vec<String> {
    let mut out = vec![format!(
        "{} ({})",
        paint.paint(Style::Strong, rule.id),
        rule.severity.word()
    )];
    push_wrapped(&mut out, "finds      ", rule.what);
    push_wrapped(&mut out, "why        ", rule.why);
    push_wrapped(&mut out, "programme  ", rule.programme.sentence());
    push_wrapped(&mut out, "do         ", rule.todo);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::samples::HOSTILE;
    use karat_engine::lint::rules::rule;

    fn finding(id: &str, line: u32, text: &str) -> Finding {
        let rule = rule(id).unwrap();
        Finding {
            file: text.to_owned(),
            line,
            rule,
            message: text.to_owned(),
            hint: rule.todo.to_owned(),
        }
    }

    fn report(findings: Vec<Finding>) -> Report {
        Report {
            version: Some("1.37".to_owned()),
            findings,
            dropped: 2,
            unchecked: vec!["that 3 links lead somewhere".to_owned()],
            verdict: Verdict::Refuses,
        }
    }

    #[test]
    fn findings_end_in_a_sum() {
        let mut all = report(vec![
            finding("must-not-implemented", 12, "PRODUCT.yaml"),
            finding("artifact-failing", 0, "e2e.log"),
            finding("must-na", 40, "PRODUCT.yaml"),
        ]);
        insta::assert_snapshot!(lines(&all, Paint::Never).join("\n"));
        all.findings.truncate(1);
        all.verdict = Verdict::Unknown;
        assert_eq!(
            sum(&all),
            "lint: 1 error, 0 warnings; whether the programme's validator would accept this is not known"
        );
    }

    #[test]
    fn a_rule_explains_itself() {
        let rule = rule("artifact-failing").unwrap();
        insta::assert_snapshot!(explained(rule, Paint::Never).join("\n"));
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let mut hostile = finding("id-unknown", 1, HOSTILE);
        hostile.hint = HOSTILE.to_owned();
        for line in lines(&report(vec![hostile]), Paint::Never) {
            assert!(
                !line.chars().any(|c| c.is_control() || c == '\u{202e}'),
                "{line:?}"
            );
            assert!(
                !line.contains("::error") && !line.contains("##vso["),
                "{line:?}"
            );
        }
    }
}
