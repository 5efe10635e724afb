//! Compares what a probe said with what it must say. Pure.

use karat_engine::model::{AttemptRecord, CaseResult, Judgement, Outcome, Verdict};
use serde::Serialize;

use crate::table::Entry;

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// A broken cluster, and the probe said what it must.
    Found,
    /// A conforming cluster, and the probe said what it must.
    Cleared,
    /// The probe did not say what it must, or could not be asked.
    Missed,
    /// The probe accused a conforming cluster.
    FalseAccusation,
}

impl Mark {
    /// For people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Cleared => "not accused",
            Self::Missed => "MISSED",
            Self::FalseAccusation => "FALSE ACCUSATION",
        }
    }
}

/// The mark, and everything that is not as expected.
#[must_use]
pub fn compare(entry: &Entry, attempt: &AttemptRecord) -> (Mark, Vec<String>) {
    let judgement = &attempt.judgement;
    let mut wrong = Vec::new();
    if attempt.outcome != Outcome::Concluded {
        let detail = attempt.outcome.detail().unwrap_or_default();
        wrong.push(format!("{}: {detail}", attempt.outcome.word()));
    }
    compare_judgement(entry, judgement, &mut wrong);
    if !attempt.left_behind.is_empty() && entry.leaves.is_none() {
        wrong.push(format!("left behind: {}", attempt.left_behind.join(", ")));
    }
    let accused = judgement.verdict == Some(Verdict::Fail)
        || judgement.cases.iter().any(|c| c.verdict == Verdict::Fail);
    let mark = match (entry.conforming, wrong.is_empty()) {
        (true, _) if accused => Mark::FalseAccusation,
        (true, true) => Mark::Cleared,
        (false, true) => Mark::Found,
        (_, false) => Mark::Missed,
    };
    if mark == Mark::FalseAccusation {
        for case in judgement
            .cases
            .iter()
            .filter(|c| c.verdict == Verdict::Fail)
        {
            wrong.push(format!("case {} failed: {}", case.case, told(case)));
        }
    }
    (mark, wrong)
}

/// What of a judgement is not as expected.
pub(crate) fn compare_judgement(entry: &Entry, judgement: &Judgement, wrong: &mut Vec<String>) {
    let expected = entry.expect.verdict();
    if !expected.fits(judgement.verdict, judgement.reason) {
        wrong.push(format!(
            "expected {expected}, got {}",
            said(judgement.verdict, judgement.reason)
        ));
    }
    if let Some(part) = &entry.expect.explains
        && !judgement.explanation.contains(part)
    {
        wrong.push(format!(
            "{part:?} is not in the explanation: {}",
            judgement.explanation
        ));
    }
    if let Some(tier) = entry.expect.tier
        && tier != judgement.tier
    {
        wrong.push(format!("expected tier {tier}, got {}", judgement.tier));
    }
    compare_cases(entry, &judgement.cases, wrong);
}

fn compare_cases(entry: &Entry, cases: &[CaseResult], wrong: &mut Vec<String>) {
    // A case with several subjects is as bad as its worst.
    let worst = |id: &str| {
        let of = cases.iter().filter(|case| case.case.id == id);
        of.max_by_key(|case| match case.verdict {
            Verdict::Pass => 0,
            Verdict::NotApplicable => 1,
            Verdict::Unknown => 2,
            Verdict::Fail => 3,
        })
    };
    for (id, expected) in &entry.expect.cases {
        match worst(id) {
            None => wrong.push(format!("case {id}: the probe has none of that name")),
            Some(case) if expected.fits(Some(case.verdict), case.reason) => {}
            Some(case) => wrong.push(format!(
                "case {id}: expected {expected}, got {}: {}",
                said(Some(case.verdict), case.reason),
                told(case)
            )),
        }
    }
    for (id, part) in &entry.expect.says {
        let mut of = cases.iter().filter(|case| case.case.id == *id);
        if !of.any(|case| told(case).contains(part.as_str())) {
            let all: Vec<String> = cases
                .iter()
                .filter(|c| c.case.id == *id)
                .map(told)
                .collect();
            wrong.push(format!(
                "case {id}: {part:?} is not in: {}",
                all.join(" / ")
            ));
        }
    }
    for (id, observations) in &entry.expect.observes {
        for (name, value) in observations {
            let mut of = cases.iter().filter(|case| case.case.id == *id);
            let found = of.find_map(|case| {
                let mut all = case.observations.iter();
                all.find(|o| o.name == *name).map(|o| o.value.as_str())
            });
            if found != Some(value) {
                wrong.push(format!(
                    "case {id}: expected {name} = {value:?}, got {found:?}"
                ));
            }
        }
    }
}

/// Everything that was said about a case.
fn told(case: &CaseResult) -> String {
    let observations = case.observations.iter();
    let observations = observations.map(|o| format!("{} = {}", o.name, o.value));
    let all = std::iter::once(case.explanation.clone()).chain(observations);
    all.collect::<Vec<_>>().join("; ")
}

/// A verdict with its reason, for people.
#[must_use]
pub fn said(verdict: Option<Verdict>, reason: Option<karat_engine::model::Reason>) -> String {
    let verdict = verdict.map_or_else(|| "no verdict".to_owned(), |v| v.to_string());
    match reason {
        Some(reason) => format!("{verdict} {reason}"),
        None => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn case(id: &str, subject: &str, verdict: &str) -> Value {
        json!({"case": {"id": id, "subject": subject}, "required": true, "concluded": null, "verdict": verdict,
            "reason": null, "explanation": format!("{id} {verdict}"), "calls": [],
            "observations": [{"name": "seen", "value": "7", "from_answer": true}]})
    }

    fn attempt(verdict: &str, reason: Value, cases: &[Value]) -> AttemptRecord {
        serde_json::from_value(json!({"attempt": 1, "started": "", "outcome": {"kind": "concluded"},
            "judgement": {"verdict": verdict, "reason": reason, "explanation": "case a: so", "tier": "unmarked",
                "tier_because": [], "cases": cases, "rules": "1"},
            "usage": {"wall_ms": 0, "calls": 0, "seen_bytes": 0, "peak_memory_bytes": 0, "requests": 0},
            "recording": null, "head": null, "folded": null, "left_behind": []}))
        .unwrap()
    }

    fn entry(conforming: bool, expect: &str) -> Entry {
        Entry {
            probe: "p".into(),
            name: "n".into(),
            what: "w".into(),
            conforming,
            careless: None,
            lab: crate::data::LabData::default(),
            make: crate::data::Make::default(),
            expect: serde_yaml_ng::from_str(expect).unwrap(),
            reach: karat_engine::model::Reach::Read,
            settings: std::collections::BTreeMap::new(),
            exceptions: None,
            record_as: None,
            known_miss: None,
            leaves: None,
        }
    }

    #[test]
    fn a_fault_is_found_only_for_the_right_reason() {
        let expect = "{verdict: fail, explains: case a, cases: {a: fail, b: pass}, says: {a: a fail}, observes: {b: {seen: '7'}}}";
        let broken = entry(false, expect);
        let cases = [
            case("a", "x", "pass"),
            case("a", "y", "fail"),
            case("b", "", "pass"),
        ];
        let right = attempt("fail", Value::Null, &cases);
        assert_eq!(compare(&broken, &right), (Mark::Found, vec![]));

        let other = [case("a", "", "pass"), case("b", "", "fail")];
        let (mark, wrong) = compare(&broken, &attempt("fail", Value::Null, &other));
        assert_eq!((mark, wrong.len()), (Mark::Missed, 3), "{wrong:?}");
        let (mark, _) = compare(&broken, &attempt("pass", Value::Null, &[]));
        assert_eq!(mark, Mark::Missed);
    }

    #[test]
    fn an_accusation_of_a_conforming_cluster_is_false_even_where_the_whole_passes() {
        let fine = entry(true, "{}");
        let pass = attempt("pass", Value::Null, &[case("a", "", "pass")]);
        assert_eq!(compare(&fine, &pass).0, Mark::Cleared);
        let optional = attempt("pass", Value::Null, &[case("a", "", "fail")]);
        assert_eq!(compare(&fine, &optional).0, Mark::FalseAccusation);
        let unsure = attempt("unknown", json!("gap"), &[]);
        assert_eq!(compare(&fine, &unsure).0, Mark::Missed);
    }

    #[test]
    fn what_was_left_behind_is_told() {
        let mut pass = attempt("pass", Value::Null, &[]);
        pass.left_behind.push("pods/a".into());
        let (mark, wrong) = compare(&entry(true, "{}"), &pass);
        assert_eq!(mark, Mark::Missed);
        assert!(wrong[0].contains("pods/a"));
    }
}
