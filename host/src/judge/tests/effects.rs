//! Rules 1 and 2: required cases are concluded, and a live call stands behind each.

use super::*;

#[test]
fn rule_1_required_cases_are_concluded_for_each_subject() {
    let mut second = case("second", CaseKind::Observation, &["list pods"]);
    let both = |second: &Case| manifest(vec![positive(), second.clone()]);
    let look = |tape: Tape| tape.open("second").ok("list pods").held();
    table(
        &both(&second),
        vec![
            ("both", look(Tape::new().works()), PASS),
            ("in another order", look(Tape::new()).works(), PASS),
            ("one is missing", Tape::new().works(), because(NotExercised)),
            ("none at all", Tape::new(), because(NotExercised)),
            (
                "one is left open",
                Tape::new().works().open("second").ok("list pods"),
                because(NotExercised),
            ),
            (
                "one subject of two is left open",
                look(Tape::new().works())
                    .open_for("second", "b")
                    .ok("list pods"),
                because(NotExercised),
            ),
            (
                "two subjects",
                look(Tape::new().works())
                    .open_for("second", "b")
                    .ok("list pods")
                    .held(),
                PASS,
            ),
            (
                "one subject of two failed",
                look(Tape::new().works())
                    .open_for("second", "b")
                    .ok("list pods")
                    .conclude(Conclusion::Fail),
                FAIL,
            ),
        ],
    );
    second.required = Required::IfOpened;
    table(
        &both(&second),
        vec![
            ("if opened, and not opened", Tape::new().works(), PASS),
            (
                "if opened, and left open",
                Tape::new().works().open("second"),
                because(NotExercised),
            ),
            (
                "if opened, and failed",
                Tape::new()
                    .works()
                    .open("second")
                    .ok("list pods")
                    .conclude(Conclusion::Fail),
                FAIL,
            ),
        ],
    );
    second.required = Required::Optional;
    table(
        &both(&second),
        vec![
            (
                "optional, and left open",
                Tape::new().works().open("second"),
                PASS,
            ),
            (
                "optional, and failed",
                Tape::new()
                    .works()
                    .open("second")
                    .ok("list pods")
                    .conclude(Conclusion::Fail),
                PASS,
            ),
        ],
    );
    second.required = Required::IfOpened;
    let mut first = positive();
    first.required = Required::Optional;
    table(
        &manifest(vec![first, second]),
        vec![(
            "nothing that is required",
            Tape::new().works(),
            because(NotExercised),
        )],
    );
}

#[test]
fn rule_1_a_recording_that_breaks_the_order_of_cases_never_passes() {
    let manifest = manifest(vec![positive()]);
    table(
        &manifest,
        vec![
            (
                "undeclared",
                Tape::new().open("nonsense").works(),
                because(ProbeError),
            ),
            (
                "second while open",
                Tape::new()
                    .open("works")
                    .open_for("works", "b")
                    .pod("n", "i")
                    .held(),
                because(ProbeError),
            ),
            ("twice", Tape::new().works().works(), because(ProbeError)),
            (
                "concluded when closed",
                Tape::new().works().conclude(Conclusion::Pass),
                because(ProbeError),
            ),
            (
                "shown when closed",
                Tape::new().works().observe("x"),
                because(ProbeError),
            ),
        ],
    );
    // What the door refused did not happen, and is forgiven outside of cases.
    let refused = |tape: Tape, id: &str| {
        tape.push(
            draft(function::CASES_OPEN, json!({"id": id, "subject": ""})),
            Err(Failure::Refused("no".to_owned())),
        )
    };
    let forgiven = refused(Tape::new(), "nonsense").works();
    assert_eq!(forgiven.verdict(&manifest), PASS);
    let inside = refused(Tape::new().open("works"), "works")
        .pod("n", "i")
        .held();
    assert_eq!(inside.verdict(&manifest), because(ProbeError));
}

#[test]
fn rule_2_a_pass_needs_a_live_effect_inside_its_case() {
    let snapshot = |tape: Tape| {
        tape.call(
            "create pods",
            json!({}),
            |call| call.facts.live = false,
            Ok(Seen::Text("a".to_owned())),
        )
    };
    table(
        &manifest(vec![positive()]),
        vec![
            ("effect", Tape::new().works(), PASS),
            (
                "no call",
                Tape::new()
                    .open("works")
                    .observe("x")
                    .conclude(Conclusion::Pass),
                because(NoEffect),
            ),
            (
                "before the case",
                Tape::new()
                    .pod("n", "i")
                    .open("works")
                    .observe("uid-1")
                    .conclude(Conclusion::Pass),
                because(NoEffect),
            ),
            (
                "after the case",
                Tape::new()
                    .open("works")
                    .conclude(Conclusion::Pass)
                    .pod("n", "i"),
                because(NoEffect),
            ),
            (
                "another verb",
                Tape::new().open("works").ok("list pods").held(),
                because(NoEffect),
            ),
            (
                "another resource",
                Tape::new().open("works").ok("create nodes").held(),
                because(NoEffect),
            ),
            (
                "a subresource",
                Tape::new().open("works").ok("create pods/eviction").held(),
                because(NoEffect),
            ),
            (
                "a snapshot",
                snapshot(Tape::new().open("works")).held(),
                because(NoEffect),
            ),
            (
                "a dry run",
                Tape::new()
                    .open("works")
                    .dry("create pods", Ok(Seen::Text("a".to_owned())))
                    .held(),
                because(NoEffect),
            ),
            (
                "an error",
                Tape::new()
                    .open("works")
                    .answered("create pods", 422, INVALID)
                    .held(),
                because(NoEffect),
            ),
            (
                "no answer",
                Tape::new()
                    .open("works")
                    .failed("create pods", Failure::NoAnswer(String::new()))
                    .observe("x")
                    .conclude(Conclusion::Pass),
                because(NoEffect),
            ),
        ],
    );
    let mut free = case("looks", CaseKind::Observation, &[]);
    table(
        &manifest(vec![free.clone()]),
        vec![
            (
                "any live answer",
                Tape::new().open("looks").ok("list nodes").held(),
                PASS,
            ),
            (
                "a path",
                Tape::new().open("looks").ok("get /version").held(),
                PASS,
            ),
            (
                "an error is an answer too",
                Tape::new()
                    .open("looks")
                    .answered("get pods", 404, "x")
                    .held(),
                PASS,
            ),
            (
                "nothing",
                Tape::new()
                    .open("looks")
                    .observe("x")
                    .conclude(Conclusion::Pass),
                because(NoEffect),
            ),
        ],
    );
    free.effect = vec!["get /readyz".parse().unwrap()];
    table(
        &manifest(vec![free]),
        vec![
            (
                "the path",
                Tape::new().open("looks").ok("get /readyz").held(),
                PASS,
            ),
            (
                "another path",
                Tape::new().open("looks").ok("get /version").held(),
                because(NoEffect),
            ),
        ],
    );
}

#[test]
fn patterns_match_in_kubernetes_words() {
    let access = |verb: &str, group: &str, resource: &str, subresource: &str| {
        Access::Resource(ResourceAccess {
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            ..ResourceAccess::default()
        })
    };
    let claims = access("create", "resource.k8s.io", "resourceclaims", "");
    let log = access("get", "", "pods", "log");
    for (pattern, access, expected) in [
        ("create resourceclaims.resource.k8s.io", &claims, true),
        ("resourceclaims", &claims, true),
        ("delete resourceclaims", &claims, false),
        ("resourceclaims.example.com", &claims, false),
        ("create *", &claims, true),
        ("pods/log", &log, true),
        ("pods", &log, false),
        ("get pods/log", &log, true),
        ("/apis", &Access::Discovery, true),
        ("/metrics", &Access::Discovery, false),
        ("*", &Access::Discovery, false),
    ] {
        let pattern = pattern.parse().unwrap();
        assert_eq!(effect::matches(&pattern, access), expected, "{pattern}");
    }
}
