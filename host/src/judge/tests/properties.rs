//! What holds for every conversation: nothing that is missing, moved or broken turns into a pass or an accusation.

use super::*;

/// A whole pass with everything that rules ask for.
fn whole() -> (Manifest, Tape) {
    let mut looks = case("looks", CaseKind::Observation, &[]);
    looks.required = Required::Always;
    let mut alive = quiet(1);
    alive.controls = vec![control(&["node"], true)];
    let mut refuses = negative();
    refuses.id = "also".to_owned();
    let tape = Tape::new()
        .ok("list nodes")
        .open("looks")
        .ok("list pods")
        .held()
        .works()
        .open("refuses")
        .open_watch()
        .next("synced")
        .pod("node-1", "image-1")
        .wait(1_500, &[])
        .observe("uid-2")
        .conclude(Conclusion::Pass)
        .open("also")
        .answered("create pods", 422, INVALID)
        .held()
        .alive("uid-1", true);
    (manifest(vec![looks, positive(), alive, refuses]), tape)
}

#[test]
fn a_whole_conversation_passes() {
    let (manifest, tape) = whole();
    let judgement = tape.judge(&manifest);
    assert_eq!(judgement.verdict, Some(Pass), "{}", judgement.explanation);
    assert_eq!(judgement.explanation, "4 required cases held");
    assert!(
        judgement
            .cases
            .iter()
            .all(|case| case.required && case.verdict == Pass)
    );
    assert_eq!(judgement, tape.judge(&manifest), "judging has no memory");
}

#[test]
fn no_conversation_with_a_call_missing_fails_and_few_pass() {
    let (manifest, tape) = whole();
    let mut passed = Vec::new();
    for index in 0..tape.calls.len() {
        let mut less = tape.clone();
        let removed = less.calls.remove(index).0.function;
        let judgement = less.judge(&manifest);
        assert_ne!(judgement.verdict, Some(Fail), "without {removed}");
        if judgement.verdict == Some(Pass) {
            passed.push(index);
        }
    }
    // Only the set-up call, which proves nothing, can be missing.
    assert_eq!(passed, [0]);
}

#[test]
fn no_prefix_passes() {
    let (manifest, tape) = whole();
    for length in 0..tape.calls.len() {
        let mut prefix = tape.clone();
        prefix.calls.truncate(length);
        assert_ne!(
            prefix.judge(&manifest).verdict,
            Some(Pass),
            "{length} calls"
        );
    }
}

#[test]
fn dropping_or_weakening_a_case_never_passes() {
    let (manifest, tape) = whole();
    for dropped in &manifest.cases {
        let (mut calls, mut inside) = (Vec::new(), false);
        for call in &tape.calls {
            if call.0.function == function::CASES_OPEN {
                inside = call.0.arguments["id"] == dropped.id.as_str();
            }
            if !inside {
                calls.push(call.clone());
            }
            if call.0.function == function::CASES_CONCLUDE {
                inside = false;
            }
        }
        let mut less = tape.clone();
        less.calls = calls;
        assert_ne!(
            less.judge(&manifest).verdict,
            Some(Pass),
            "without {}",
            dropped.id
        );
    }
    for index in 0..tape.calls.len() {
        for conclusion in [
            Conclusion::Fail,
            Conclusion::Unknown("deadline: x".to_owned()),
            Conclusion::NotApplicable("x".to_owned()),
            Conclusion::Other("x".to_owned()),
        ] {
            let mut other = tape.clone();
            if other.calls[index].0.function == function::CASES_CONCLUDE {
                other.calls[index].0.arguments = json!({"outcome": conclusion});
                assert_ne!(other.judge(&manifest).verdict, Some(Pass));
            }
        }
    }
}

#[test]
fn swapping_two_calls_never_gives_a_fail() {
    let (manifest, tape) = whole();
    for index in 1..tape.calls.len() {
        let mut swapped = tape.clone();
        swapped.calls.swap(index - 1, index);
        assert_ne!(swapped.judge(&manifest).verdict, Some(Fail));
    }
}

#[test]
fn no_refusal_outage_or_budget_anywhere_turns_a_pass_into_a_fail() {
    let (manifest, tape) = whole();
    for index in 0..tape.calls.len() {
        for failure in [
            Failure::Refused(String::new()),
            Failure::NoAnswer(String::new()),
            Failure::Expired,
            Failure::Budget(String::new()),
            Failure::Stopping,
            Failure::Malformed(String::new()),
            answer(500, ""),
            answer(429, ""),
            answer(403, RBAC),
        ] {
            let mut worse = tape.clone();
            worse.calls[index].1 = Err(failure);
            let verdict = worse.judge(&manifest).verdict;
            assert_ne!(verdict, Some(Fail), "call {index}");
        }
    }
}

#[test]
fn foreign_text_stays_short_and_on_one_line() {
    let long = format!("a\n\u{1b}[2J{}", "x".repeat(10_000));
    let quoted = quote(&long);
    assert!(quoted.chars().count() <= QUOTE_MAX + 1);
    assert!(!quoted.chars().any(char::is_control));
    assert_eq!(quote("größe"), "größe");
}
