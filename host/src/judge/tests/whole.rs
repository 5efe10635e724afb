//! Rule 8: the worst required case decides, and what forbids a pass of the whole.

use super::*;

#[test]
fn rule_8_the_worst_required_case_decides() {
    let cases = ["a", "b", "c"].map(|id| case(id, CaseKind::Observation, &["list pods"]));
    let manifest = manifest(cases.to_vec());
    let look = |tape: Tape, id: &str| tape.open(id).ok("list pods");
    let all = |of: [Option<Conclusion>; 3]| {
        ["a", "b", "c"]
            .into_iter()
            .zip(of)
            .fold(Tape::new(), |tape, (id, conclusion)| match conclusion {
                None => look(tape, id).held(),
                Some(conclusion) => look(tape, id).conclude(conclusion),
            })
    };
    let unknown = |text: &str| Some(Conclusion::Unknown(text.to_owned()));
    table(
        &manifest,
        vec![
            ("all held", all([None, None, None]), PASS),
            (
                "unknown beats pass",
                all([None, unknown("metric_delayed: wait"), None]),
                because(MetricDelayed),
            ),
            (
                "fail beats unknown",
                all([unknown("deadline: x"), None, Some(Conclusion::Fail)]),
                FAIL,
            ),
            (
                "the first unknown gives the reason",
                all([unknown("deadline"), unknown("image_unavailable: y"), None]),
                because(Deadline),
            ),
            (
                "a cause before what follows from it",
                look(
                    look(Tape::new(), "b").conclude(Conclusion::Unknown("deadline".to_owned())),
                    "c",
                )
                .held(),
                because(Deadline),
            ),
            (
                "a word of the engine",
                all([unknown("vacuous: x"), None, None]),
                because(ProbeError),
            ),
            (
                "a consent is the engine's to ask for",
                all([unknown("needs_consent: x"), None, None]),
                because(ProbeError),
            ),
            (
                "no word at all",
                all([unknown("dunno"), None, None]),
                because(ProbeError),
            ),
            (
                "a word of a later contract",
                all([Some(Conclusion::Other("x".to_owned())), None, None]),
                because(ProbeError),
            ),
            (
                "a permission that the server denied",
                all([unknown("permission_denied: get pods"), None, None]),
                because(PermissionDenied),
            ),
        ],
    );
    let judgement =
        all([None, unknown("insufficient_capacity: no\nfree unit"), None]).judge(&manifest);
    assert_eq!(judgement.explanation, "case b: no free unit");
}

#[test]
fn rule_8_budgets_errors_and_stops_forbid_a_pass() {
    let manifest = manifest(vec![positive()]);
    let budget = || Failure::Budget("calls".to_owned());
    table(
        &manifest,
        vec![
            (
                "a budget inside",
                Tape::new()
                    .open("works")
                    .pod("n", "i")
                    .failed("list pods", budget())
                    .observe("uid-1")
                    .conclude(Conclusion::Pass),
                because(Deadline),
            ),
            (
                "a budget outside",
                Tape::new().works().failed("list pods", budget()),
                because(Deadline),
            ),
            (
                "stopping inside",
                Tape::new()
                    .open("works")
                    .pod("n", "i")
                    .failed("list pods", Failure::Stopping)
                    .observe("uid-1")
                    .conclude(Conclusion::Pass),
                because(Interrupted),
            ),
            (
                "a refusal inside",
                Tape::new()
                    .open("works")
                    .pod("n", "i")
                    .failed("list pods", Failure::Refused("no".to_owned()))
                    .observe("uid-1")
                    .conclude(Conclusion::Pass),
                because(NeedsConsent),
            ),
            (
                "a refusal outside",
                Tape::new()
                    .failed("list pods", Failure::Refused("no".to_owned()))
                    .works(),
                PASS,
            ),
            (
                "an error of the probe",
                Tape::new()
                    .works()
                    .ended(Outcome::ProbeError("x".to_owned())),
                because(ProbeError),
            ),
            (
                "an error of the probe does not soften a fail",
                Tape::new()
                    .open("works")
                    .pod("n", "i")
                    .conclude(Conclusion::Fail)
                    .ended(Outcome::ProbeError("x".to_owned())),
                FAIL,
            ),
        ],
    );
}

#[test]
fn rule_8_an_attempt_that_broke_has_no_verdict() {
    let manifest = manifest(vec![positive()]);
    for outcome in [
        Outcome::Trapped("x".to_owned()),
        Outcome::OverBudget("wall".to_owned()),
        Outcome::Denied("x".to_owned()),
        Outcome::Untrusted("x".to_owned()),
        Outcome::Skipped("x".to_owned()),
    ] {
        let judgement = Tape::new().works().ended(outcome.clone()).judge(&manifest);
        assert_eq!(
            (judgement.verdict, judgement.reason),
            (None, None),
            "{outcome:?}"
        );
        assert!(judgement.explanation.starts_with(outcome.word()));
        assert_eq!(
            judgement.cases[0].verdict, Pass,
            "the case itself still stands"
        );
        assert_eq!(not_started(&manifest, &outcome).verdict, None);
    }
    let interrupted = Tape::new().works().ended(Outcome::Interrupted);
    assert_eq!(interrupted.verdict(&manifest), (None, Some(Interrupted)));
    let mut killed = Tape::new().open("works").pod("n", "i");
    killed.end = None;
    let judgement = killed.judge(&manifest);
    assert_eq!(
        (judgement.verdict, judgement.reason),
        (None, Some(Interrupted))
    );
    assert_eq!(judgement.cases[0].reason, Some(Interrupted));
}

#[test]
fn rule_8_an_official_id_needs_its_cases() {
    let mut short = manifest(vec![positive()]);
    short.requirements = vec!["dra_support".to_owned()];
    let judgement = Tape::new().works().judge(&short);
    assert_eq!((judgement.verdict, judgement.reason), because(NotExercised));
    assert!(
        judgement.explanation.contains("1 negative case"),
        "{}",
        judgement.explanation
    );
    let mut whole = manifest(vec![positive(), negative()]);
    whole.requirements = vec!["dra_support".to_owned()];
    assert!(catalog::check(&whole).is_empty());
    let tape = Tape::new()
        .works()
        .open("refuses")
        .answered("create pods", 422, INVALID)
        .held();
    assert_eq!(tape.verdict(&whole), PASS);
    whole.cases[1].required = Required::IfOpened;
    assert_eq!(catalog::check(&whole).len(), 1);
    whole.requirements = vec!["no_such_thing".to_owned(), "vendor.example/x".to_owned()];
    assert!(catalog::check(&whole)[0].contains("is in no checklist"));
    assert_eq!(catalog::check(&whole).len(), 1);
}

#[test]
fn the_tier_follows_markers() {
    let manifest = manifest(vec![positive()]);
    let judgement = Tape::new().works().judge(&manifest);
    assert_eq!(judgement.tier, Tier::Unmarked);
    let marked = |name: &str| {
        let mut tape = Tape::new().works();
        tape.calls[1].0.facts.markers = vec![name.to_owned(), name.to_owned()];
        tape
    };
    let judgement = marked("kwok: Node n\u{1b}[31m").judge(&manifest);
    assert_eq!(judgement.tier, Tier::Simulated);
    assert_eq!(judgement.tier_because, ["kwok: Node n [31m"]);
    assert_eq!(judgement.verdict, Some(Pass), "a tier is no verdict");
}

#[test]
fn other_rules_are_refused_by_name() {
    let recording = fixture::build(
        Header {
            rules: "7".to_owned(),
            ..header()
        },
        Vec::new(),
        Some(end()),
    )
    .unwrap();
    let error = judge(&manifest(vec![positive()]), &Evidence::from(&recording)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("rules 7, this engine has rules 2")
    );
}
