//! What `karat product` made, as lines. Notes may quote what people and probes wrote, so all of it is made harmless here.

use crate::ui::printer::{Paint, Style};
use crate::ui::table::{Cell, Table};
use crate::ui::text::{counted, shown, shown_within};
use crate::ui::verdicts::push_wrapped;
use karat_engine::lint::Report;
use karat_engine::product::{Folder, NoteKind, Standing};

/// The table of requirements, what a person must know, and a sum.
pub(crate) fn lines(folder: &Folder, report: &Report, out: &str, paint: Paint) -> Vec<String> {
    let mut table = Table::with_heading(&["requirement", "level", "status", "probes"]);
    for decision in &folder.decisions {
        let (word, style) = match (decision.standing, decision.standing.status()) {
            (Standing::Contradicted, Some(word)) => (word, Style::Bad),
            (_, Some(word)) => (word, Style::Good),
            (Standing::NotRun, None) => ("not run", Style::Faint),
            (_, None) => ("left to you", Style::Unsure),
        };
        table.row([
            Cell::styled(shown_within(&decision.id, 64), Style::Strong),
            decision.level.to_string().into(),
            Cell::styled(word, style),
            shown_within(&decision.probes.join(", "), 80).into(),
        ]);
    }
    let mut all = table.lines(paint);
    all.push(String::new());
    for note in &folder.notes {
        let style = match note.kind {
            NoteKind::Failing => Style::Bad,
            NoteKind::Supply | NoteKind::Conflict | NoteKind::Warning => Style::Unsure,
            NoteKind::LeftOut => Style::Faint,
        };
        let word = note.kind.word();
        let text = format!(
            "{word}: {}: {}",
            shown_within(&note.subject, 80),
            shown(&note.text)
        );
        let mut wrapped = Vec::new();
        push_wrapped(&mut wrapped, "", &text);
        if let Some(first) = wrapped.first_mut() {
            *first = first.replacen(word, &paint.paint(style, word), 1);
        }
        all.extend(wrapped);
    }
    let supply = folder
        .notes
        .iter()
        .filter(|note| note.kind == NoteKind::Supply);
    all.push(format!(
        "product: {} in {}, {} to supply; lint: {}, {}",
        counted(folder.files.len(), "file"),
        shown(out),
        counted(supply.count(), "thing"),
        counted(report.errors(), "error"),
        counted(report.warnings(), "warning")
    ));
    if report.errors() + report.warnings() > 0 {
        all.push("`karat lint` shows each with what to do.".to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::samples::HOSTILE;
    use karat_engine::catalog::Level;
    use karat_engine::lint::Verdict;
    use karat_engine::product::{Decision, Note};
    use std::collections::BTreeMap;

    fn decision(id: &str, standing: Standing) -> Decision {
        Decision {
            category: "scheduling".to_owned(),
            id: id.to_owned(),
            level: Level::Must,
            standing,
            because: "x".to_owned(),
            probes: vec![id.replace('_', "-")],
            simulated: false,
            known: true,
        }
    }

    fn note(kind: NoteKind, subject: &str, text: &str) -> Note {
        Note {
            kind,
            subject: subject.to_owned(),
            text: text.to_owned(),
        }
    }

    fn folder(notes: Vec<Note>) -> (Folder, Report) {
        let folder = Folder {
            files: BTreeMap::from([("PRODUCT.yaml".to_owned(), Vec::new())]),
            notes,
            decisions: vec![
                decision("ai_inference", Standing::Shown),
                decision("gang_scheduling", Standing::Contradicted),
                decision("pod_autoscaling", Standing::Open),
                decision("cluster_autoscaling", Standing::Absent),
            ],
            version: "1.37".to_owned(),
        };
        let report = Report {
            version: None,
            findings: Vec::new(),
            dropped: 0,
            unchecked: Vec::new(),
            verdict: Verdict::Refuses,
        };
        (folder, report)
    }

    #[test]
    fn what_was_made_and_what_is_missing() {
        let (folder, report) = folder(vec![
            note(
                NoteKind::Failing,
                "gang_scheduling",
                "a MUST failed: gang-scheduling 0.1.0 failed",
            ),
            note(
                NoteKind::Supply,
                "vendorName",
                "give it in karat.toml, below [platform]",
            ),
            note(
                NoteKind::LeftOut,
                "admission-policy",
                "it answers no requirement of this form and informs only",
            ),
        ]);
        insta::assert_snapshot!(lines(&folder, &report, "v1.37/acme", Paint::Never).join("\n"));
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let (mut folder, report) = folder(vec![note(NoteKind::Conflict, HOSTILE, HOSTILE)]);
        folder.decisions[0].id = HOSTILE.to_owned();
        folder.decisions[0].probes = vec![HOSTILE.to_owned()];
        for line in lines(&folder, &report, HOSTILE, Paint::Never) {
            let odd = line.chars().any(|c| c.is_control() || c == '\u{202e}');
            assert!(!odd, "{line:?}");
            assert!(
                !line.contains(" ::error") && !line.contains("##vso["),
                "{line:?}"
            );
        }
    }
}
