//! Records as text. The words are the engine's, [`karat_engine::report::terminal`], so that a report of a run says the same as
//! the run said; what they look like is reviewed here, in the snapshots of the program.

pub(crate) use karat_engine::report::terminal::{
    explained, next_steps, push_wrapped, summary, table, verdict_word,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::printer::Paint;
    use crate::ui::samples::{HOSTILE, probe_record};
    use karat_engine::model::{Conclusion, Outcome, ProbeRecord, Reason, Verdict};

    fn all() -> Vec<ProbeRecord> {
        vec![
            probe_record("dra-support", Some(Verdict::Pass), Outcome::Concluded),
            probe_record("gang", Some(Verdict::Unknown), Outcome::Concluded),
            probe_record("metrics", Some(Verdict::Fail), Outcome::Concluded),
            probe_record(
                "greedy",
                None,
                Outcome::OverBudget("wall time of 5 min".into()),
            ),
            probe_record(
                "broken",
                None,
                Outcome::Trapped("call stack exhausted".into()),
            ),
            probe_record(
                "refused",
                None,
                Outcome::Denied("line 4 of grants.toml would grant it".into()),
            ),
        ]
    }

    #[test]
    fn the_final_table() {
        let mut probes = all();
        probes[5].attempts[0].recording = None;
        let mut again = probes[1].attempts[0].clone();
        again.attempt = 2;
        probes[1].attempts.push(again);
        insta::assert_snapshot!(table(&probes).lines(Paint::Never).join("\n"));
        assert_eq!(
            summary(&probes),
            "6 probes: 1 pass, 1 unknown, 1 fail, 1 over-budget, 1 trapped, 1 denied"
        );
    }

    #[test]
    fn what_to_do_next() {
        insta::assert_snapshot!(next_steps(&all(), "karat-runs/x", Paint::Never).join("\n"));
    }

    #[test]
    fn what_was_not_tried_is_told_once() {
        let mut probe = probe_record("gang", Some(Verdict::Unknown), Outcome::Concluded);
        let cases = &mut probe.attempts[0].judgement.cases;
        let mut case = cases[1].clone();
        case.required = true;
        case.verdict = Verdict::Unknown;
        case.reason = Some(Reason::SolutionAbsent);
        let of = |id: &str, explanation: &str| {
            let mut case = case.clone();
            case.case.id = id.to_owned();
            case.explanation = explanation.to_owned();
            case
        };
        *cases = vec![
            of(
                "registered",
                "no operator is installed, neither this nor that",
            ),
            of(
                "running",
                "not tried: no operator is installed, neither this nor that",
            ),
            of("heals", "not tried: no operator is installed, neit…"),
            of("cleans", "not tried: no namespace"),
        ];
        let lines = next_steps([&probe], "karat-runs/x", Paint::Never);
        let of_cases = lines
            .iter()
            .filter(|line| line.trim_start().starts_with("case"));
        let words = |line: &String| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let found: Vec<String> = of_cases.map(words).collect();
        assert_eq!(found.len(), 3, "{lines:?}");
        assert!(found[0].starts_with("case registered"), "{}", found[0]);
        assert!(found[1].starts_with("cases running"), "{}", found[1]);
        assert!(
            found[1].contains("heals") && found[1].ends_with("because of that"),
            "{}",
            found[1]
        );
        assert!(found[2].starts_with("case cleans"), "{}", found[2]);
    }

    #[test]
    fn a_probe_explained() {
        insta::assert_snapshot!(explained(&all()[1], Paint::Never).join("\n"));
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let mut probe = probe_record(HOSTILE, Some(Verdict::Unknown), Outcome::Concluded);
        let attempt = &mut probe.attempts[0];
        attempt.judgement.explanation = HOSTILE.to_owned();
        attempt.judgement.tier_because = vec![HOSTILE.to_owned()];
        attempt.left_behind = vec![HOSTILE.to_owned()];
        let case = &mut attempt.judgement.cases[1];
        case.case.id = HOSTILE.to_owned();
        case.case.subject = HOSTILE.to_owned();
        case.explanation = HOSTILE.to_owned();
        case.observations[0].name = HOSTILE.to_owned();
        case.observations[0].value = HOSTILE.to_owned();
        case.concluded = Some(Conclusion::Other(HOSTILE.to_owned()));
        let mut lines = explained(&probe, Paint::Never);
        lines.extend(next_steps([&probe], "karat-runs/x", Paint::Never));
        lines.extend(table([&probe]).lines(Paint::Never));
        for line in &lines {
            assert!(
                !line
                    .chars()
                    .any(|c| c.is_control() || c == '\u{202e}' || c == '\u{200b}'),
                "{line:?}"
            );
            assert!(!line.trim_start().starts_with("::error"), "{line:?}");
            assert!(!line.contains("##vso["), "{line:?}");
        }
        insta::assert_snapshot!(lines.join("\n"));
    }
}
