//! Rules 5, 6 and 7: a fail, a not-applicable and the shown values are earned too.

use super::*;

#[test]
fn rule_5_a_fail_is_earned_too() {
    let mut first = case("first", CaseKind::Observation, &["list nodes"]);
    first.required = Required::Optional;
    let mut works = positive();
    works.needs = vec!["first".to_owned()];
    let manifest = manifest(vec![first, works]);
    let looked = || Tape::new().open("first").ok("list nodes").held();
    let fail = |tape: Tape| tape.conclude(Conclusion::Fail);
    let open = || looked().open("works");
    table(
        &manifest,
        vec![
            (
                "it happened, and was wrong",
                fail(open().pod("n", "i")),
                FAIL,
            ),
            (
                "refused by the platform",
                fail(open().answered("create pods", 422, INVALID)),
                FAIL,
            ),
            (
                "not served",
                fail(open().answered("create pods", 404, "x")),
                FAIL,
            ),
            ("no call", fail(open()), because(NoEffect)),
            (
                "another call",
                fail(open().ok("list pods")),
                because(NoEffect),
            ),
            (
                "no answer",
                fail(open().failed("create pods", Failure::NoAnswer(String::new()))),
                because(NoEffect),
            ),
            (
                "500",
                fail(open().answered("create pods", 500, "x")),
                because(NoEffect),
            ),
            (
                "503",
                fail(open().answered("create pods", 503, "x")),
                because(NoEffect),
            ),
            (
                "429",
                fail(open().answered("create pods", 429, "x")),
                because(NoEffect),
            ),
            (
                "401",
                fail(open().answered("create pods", 401, "x")),
                because(PermissionDenied),
            ),
            (
                "the authoriser's 403",
                fail(open().answered("create pods", 403, RBAC)),
                because(PermissionDenied),
            ),
            (
                "admission's 403",
                fail(open().answered("create pods", 403, ADMISSION)),
                FAIL,
            ),
            (
                "a dry run",
                fail(open().dry("create pods", Ok(Seen::Text("a".to_owned())))),
                because(NoEffect),
            ),
            (
                "refused by the door",
                fail(
                    open()
                        .pod("n", "i")
                        .failed("create pods", Failure::Refused("no".to_owned())),
                ),
                because(NeedsConsent),
            ),
            (
                "its need was never opened",
                fail(Tape::new().open("works").pod("n", "i")),
                because(CompetingWorkload),
            ),
            (
                "its need did not pass",
                fail(
                    Tape::new()
                        .open("first")
                        .ok("list nodes")
                        .conclude(Conclusion::Fail)
                        .open("works")
                        .pod("n", "i"),
                ),
                because(CompetingWorkload),
            ),
            ("a pass does not need it", Tape::new().works(), PASS),
            (
                "nobody changed the leased nodes",
                fail(looked().lease(1).open("works").pod("n", "i")),
                FAIL,
            ),
            (
                "others changed the leased nodes",
                fail(looked().lease(1).open("works").pod("n", "i"))
                    .changed(&["1 pod of others came"]),
                because(CompetingWorkload),
            ),
        ],
    );
}

#[test]
fn rule_6_not_applicable_is_allowed_and_shown_or_declared() {
    let for_id = |id: &str| {
        let mut manifest = manifest(vec![
            case("detect", CaseKind::Observation, &["list pods"]),
            positive(),
        ]);
        manifest.requirements = vec![id.to_owned()];
        for (key, kind, default) in [
            ("none-here", SettingKind::Bool, Some("false")),
            ("by-default", SettingKind::Bool, Some("true")),
            ("text", SettingKind::String, None),
        ] {
            let setting = Setting {
                kind,
                default: default.map(str::to_owned),
                help: String::new(),
            };
            manifest.settings.insert(key.to_owned(), setting);
        }
        manifest
    };
    let na = |tape: Tape| tape.conclude(Conclusion::NotApplicable("none here".to_owned()));
    let open = || Tape::new().open("detect");
    let na_for = (Some(NotApplicable), None);
    let conditional = for_id("gpu_sharing");
    table(
        &conditional,
        vec![
            ("a live answer", na(open().ok("list pods")), na_for),
            (
                "declared",
                na(open().setting("none-here", Some("true"))),
                na_for,
            ),
            ("no answer", na(open()), because(NoEffect)),
            (
                "an error",
                na(open().answered("list pods", 403, RBAC)),
                because(NoEffect),
            ),
            (
                "a snapshot",
                na(open().call(
                    "list pods",
                    json!({}),
                    |c| c.facts.live = false,
                    Ok(Seen::Nothing),
                )),
                because(NoEffect),
            ),
            (
                "before the case",
                na(Tape::new().ok("list pods").open("detect")),
                because(NoEffect),
            ),
            (
                "a switch that is off",
                na(open().setting("none-here", Some("false"))),
                because(NoEffect),
            ),
            (
                "a switch that is on by default",
                na(open().setting("by-default", Some("true"))),
                because(NoEffect),
            ),
            (
                "a text",
                na(open().setting("text", Some("true"))),
                because(NoEffect),
            ),
            (
                "no setting at all",
                na(open().setting("other", Some("true"))),
                because(NoEffect),
            ),
            (
                "refused by the door",
                na(open()
                    .ok("list pods")
                    .failed("list nodes", Failure::Refused("no".to_owned()))),
                because(NeedsConsent),
            ),
            (
                "another case failed",
                na(open().ok("list pods"))
                    .open("works")
                    .pod("n", "i")
                    .conclude(Conclusion::Fail),
                FAIL,
            ),
            (
                "another case was left open",
                na(open().ok("list pods")).open("works").pod("n", "i"),
                because(NotExercised),
            ),
            (
                "it never becomes a pass",
                na(open().ok("list pods")).works(),
                na_for,
            ),
            (
                "for one subject of two",
                na(Tape::new().open_for("detect", "a").ok("list pods"))
                    .open_for("detect", "b")
                    .ok("list pods")
                    .held()
                    .works(),
                PASS,
            ),
        ],
    );
    let judgement = na(open().ok("list pods")).judge(&conditional);
    let unopened = judgement.cases.last().unwrap();
    assert_eq!(unopened.verdict, NotApplicable);
    assert!(unopened.explanation.contains("detect"));
    table(
        &for_id("dra_support"),
        vec![
            (
                "never for this wording",
                na(open().ok("list pods")),
                because(SolutionAbsent),
            ),
            (
                "not even declared",
                na(open().setting("none-here", Some("true"))),
                because(SolutionAbsent),
            ),
        ],
    );
    table(
        &for_id("accelerator_metrics"),
        vec![
            (
                "hardware: an answer is not enough",
                na(open().ok("list pods")),
                because(SolutionAbsent),
            ),
            (
                "hardware: declared",
                na(open().setting("none-here", Some("true"))),
                na_for,
            ),
        ],
    );
    let mut both = for_id("gpu_sharing");
    both.requirements.push("dra_support".to_owned());
    assert_eq!(
        na(open().ok("list pods")).verdict(&both),
        because(SolutionAbsent)
    );
    let mut lenient = conditional.clone();
    lenient.cases[0].required = Required::IfOpened;
    let neutral = na(open().ok("list pods"));
    assert_eq!(neutral.verdict(&lenient), because(NotExercised));
}

#[test]
fn rule_7_a_pass_shows_a_value_that_the_platform_said_first() {
    let create = |tape: Tape, sent: &str, got: &str| {
        tape.call(
            "create pods",
            json!({"manifest": sent}),
            |_| {},
            Ok(Seen::Text(got.to_owned())),
        )
    };
    let open = || Tape::new().open("works");
    let show = |tape: Tape, value: &str| tape.observe(value).conclude(Conclusion::Pass);
    table(
        &manifest(vec![positive()]),
        vec![
            (
                "said",
                show(create(open(), "{}", r#"{"uid":"abc"}"#), "abc"),
                PASS,
            ),
            (
                "inside of JSON",
                show(create(open(), "{}", r#"{"m":"a \"b\""}"#), "a \"b\""),
                PASS,
            ),
            (
                "nothing shown",
                create(open(), "{}", "abc").conclude(Conclusion::Pass),
                because(NoEffect),
            ),
            (
                "the position of a page",
                show(
                    open().call(
                        "create pods",
                        json!({}),
                        |_| {},
                        Ok(Seen::Page {
                            objects: Vec::new(),
                            position: "4711".to_owned(),
                        }),
                    ),
                    "4711",
                ),
                PASS,
            ),
            (
                "empty",
                show(create(open(), "{}", "abc"), ""),
                because(NoEffect),
            ),
            (
                "computed",
                show(create(open(), "{}", "abc"), "3 pods"),
                because(NoEffect),
            ),
            (
                "part of a word",
                show(create(open(), "{}", "abcdef"), "abc"),
                because(NoEffect),
            ),
            (
                "echoed",
                show(
                    create(open(), r#"{"label":"mine"}"#, r#"{"label":"mine"}"#),
                    "mine",
                ),
                because(NoEffect),
            ),
            (
                "written before the case",
                show(
                    create(create(Tape::new(), "mine", "x").open("works"), "{}", "mine"),
                    "mine",
                ),
                because(NoEffect),
            ),
            (
                "said before it was sent",
                show(
                    create(
                        Tape::new()
                            .call(
                                "get pods",
                                json!({}),
                                |_| {},
                                Ok(Seen::Text("theirs".to_owned())),
                            )
                            .open("works"),
                        "theirs",
                        "theirs",
                    ),
                    "theirs",
                ),
                PASS,
            ),
            (
                "shown before it was said",
                create(open().observe("abc"), "{}", "abc").conclude(Conclusion::Pass),
                because(NoEffect),
            ),
            (
                "said in another case",
                show(
                    create(create(Tape::new(), "{}", "abc").open("works"), "{}", "x"),
                    "abc",
                ),
                because(NoEffect),
            ),
            (
                "not live",
                show(
                    create(open(), "{}", "x").call(
                        "list pods",
                        json!({}),
                        |c| c.facts.live = false,
                        Ok(Seen::Text("abc".to_owned())),
                    ),
                    "abc",
                ),
                because(NoEffect),
            ),
            (
                "one of two",
                show(create(open(), "{}", "abc").observe("computed"), "abc"),
                PASS,
            ),
            (
                "the run's own id",
                show(create(open(), "{}", "abcdefgh"), "abcdefgh"),
                because(NoEffect),
            ),
            (
                "shown twice",
                show(create(open(), "{}", "abc").observe("abc"), "abc"),
                PASS,
            ),
        ],
    );
    let tape = show(create(open(), "{}", "abc").observe("computed"), "abc");
    let judgement = tape.judge(&manifest(vec![positive()]));
    let marks: Vec<bool> = judgement.cases[0]
        .observations
        .iter()
        .map(|o| o.from_answer)
        .collect();
    assert_eq!(marks, [false, true]);
}

#[test]
fn rule_7_withheld_answers_are_named() {
    struct Nothing;
    impl Replies for Nothing {
        fn reply(&self, _: &Entry) -> Option<Reply> {
            None
        }
    }
    let manifest = manifest(vec![positive()]);
    let tape = Tape::new().works();
    let recording = fixture::build(header(), tape.calls, tape.end).unwrap();
    let judgement = judge(
        &manifest,
        &Evidence {
            replies: &Nothing,
            ..Evidence::from(&recording)
        },
    )
    .unwrap();
    assert_eq!(judgement.verdict, Some(Unknown));
    assert!(
        judgement.explanation.contains("withheld"),
        "{}",
        judgement.explanation
    );
}
