//! Rules 3 and 4: what a negative case must show, and its controls.

use super::*;

#[test]
fn rule_3_a_negative_needs_an_attempt_and_a_refusal_by_the_platform() {
    let open = || Tape::new().works().open("refuses");
    let refuse = |code, message| open().answered("create pods", code, message).held();
    table(
        &manifest(vec![positive(), negative()]),
        vec![
            ("422", refuse(422, INVALID), PASS),
            ("admission's 403", refuse(403, ADMISSION), PASS),
            (
                "a webhook's 400",
                refuse(400, "admission webhook \"w\" denied the request: no"),
                PASS,
            ),
            ("409", refuse(409, "x"), PASS),
            (
                "a dry run that is refused",
                open().dry("create pods", Err(answer(422, INVALID))).held(),
                PASS,
            ),
            (
                "a dry run that is not",
                open()
                    .dry("create pods", Ok(Seen::Text("a".to_owned())))
                    .held(),
                because(NoEffect),
            ),
            (
                "the authoriser's 403",
                refuse(403, RBAC),
                because(PermissionDenied),
            ),
            (
                "401",
                refuse(401, "Unauthorized"),
                because(PermissionDenied),
            ),
            (
                "a write to what is not there",
                refuse(404, "x"),
                because(NoEffect),
            ),
            ("405", refuse(405, "x"), because(NoEffect)),
            ("429", refuse(429, "slow down"), because(NoEffect)),
            ("500", refuse(500, "x"), because(NoEffect)),
            ("503", refuse(503, "x"), because(NoEffect)),
            (
                "nothing attempted",
                open().ok("list pods").held(),
                because(NoEffect),
            ),
            (
                "accepted",
                open().pod("node-1", "image-1").held(),
                because(NoEffect),
            ),
            (
                "one refused, one accepted",
                open()
                    .answered("create pods", 422, INVALID)
                    .pod("node-1", "image-1")
                    .held(),
                because(NoEffect),
            ),
            (
                "no answer",
                open()
                    .failed("create pods", Failure::NoAnswer(String::new()))
                    .observe("x")
                    .conclude(Conclusion::Pass),
                because(NoEffect),
            ),
            (
                "refused by the door",
                open()
                    .failed("create pods", Failure::Refused("no".to_owned()))
                    .observe("x")
                    .conclude(Conclusion::Pass),
                because(NeedsConsent),
            ),
            (
                "refused by the door, then by the platform",
                open()
                    .failed("create pods", Failure::Refused("no".to_owned()))
                    .answered("create pods", 422, INVALID)
                    .held(),
                because(NeedsConsent),
            ),
            (
                "refused before the case",
                Tape::new()
                    .works()
                    .answered("create pods", 422, INVALID)
                    .open("refuses")
                    .observe("422")
                    .conclude(Conclusion::Pass),
                because(NoEffect),
            ),
        ],
    );
    let mut reads = negative();
    reads.effect = vec!["get pods".parse().unwrap()];
    let gone = Tape::new()
        .works()
        .open("refuses")
        .answered("get pods", 404, "not found")
        .held();
    assert_eq!(gone.verdict(&manifest(vec![positive(), reads])), PASS);
    let mut evicts = negative();
    evicts.effect = vec!["create pods/eviction".parse().unwrap()];
    let blocked = Tape::new()
        .works()
        .open("refuses")
        .answered("create pods/eviction", 429, "budget")
        .held();
    assert_eq!(blocked.verdict(&manifest(vec![positive(), evicts])), PASS);
}

#[test]
fn rule_3_what_a_container_told_counts_and_that_it_could_not_be_asked_does_not() {
    let mut inside = negative();
    inside.effect = vec![
        "get pods/log".parse().unwrap(),
        "create pods/exec".parse().unwrap(),
    ];
    let open = || Tape::new().works().open("refuses");
    let at = |tape: Tape, what: &str, function: &str, reply: Reply| {
        let says = !matches!(reply, Ok(Seen::Nothing)) && reply.is_ok();
        tape.call(
            what,
            json!({}),
            |call| {
                function.clone_into(&mut call.function);
                call.facts.live = says || function.ends_with("open") || function.ends_with("start");
            },
            reply,
        )
    };
    let told = |tape: Tape| {
        let reply = Ok(Seen::Text("errno=EPERM".to_owned()));
        at(tape, "get pods/log", function::STREAM_READ, reply).held()
    };
    let opened = |tape: Tape| {
        at(
            tape,
            "get pods/log",
            "pods.log-query.open",
            Ok(Seen::Nothing),
        )
    };
    let started = |tape: Tape| {
        at(
            tape,
            "create pods/exec",
            "pods.command.start",
            Ok(Seen::Nothing),
        )
    };
    let shown = |tape: Tape, value: &str| tape.observe(value).conclude(Conclusion::Pass);
    let gave_up = |tape: Tape| tape.conclude(Conclusion::Fail);
    table(
        &manifest(vec![positive(), inside.clone()]),
        vec![
            ("a log that tells", told(opened(open())), PASS),
            (
                "a command that ends, whatever its code",
                shown(
                    at(
                        started(open()),
                        "create pods/exec",
                        function::EXECUTION_EXIT,
                        Ok(Seen::Number(13)),
                    ),
                    "13",
                ),
                PASS,
            ),
            (
                "a log that says nothing",
                shown(
                    at(
                        opened(open()),
                        "get pods/log",
                        function::STREAM_READ,
                        Ok(Seen::Nothing),
                    ),
                    "x",
                ),
                because(NoEffect),
            ),
            (
                "a pod that is gone",
                open().answered("get pods/log", 404, "not found").held(),
                because(NoEffect),
            ),
            (
                "a container that has not started",
                open()
                    .answered("get pods/log", 400, "waiting to start")
                    .held(),
                because(NoEffect),
            ),
            (
                "a command that cannot be started",
                started(open())
                    .answered("create pods/exec", 500, "no such file")
                    .held(),
                because(NoEffect),
            ),
            (
                "the authoriser's 403",
                open().answered("create pods/exec", 403, RBAC).held(),
                because(PermissionDenied),
            ),
            (
                "admission's 403 to the command itself",
                open().answered("create pods/exec", 403, ADMISSION).held(),
                PASS,
            ),
            (
                "a fail that rests on a log that cannot be had",
                gave_up(open().answered("get pods/log", 404, "not found")),
                because(NoEffect),
            ),
        ],
    );
    let mut alone = inside.clone();
    alone.controls.clear();
    let verdict = told(opened(open())).verdict(&manifest(vec![positive(), alone]));
    assert_eq!(
        verdict,
        because(NoEffect),
        "nothing shows that it could succeed"
    );
    // Quiet time is asked for where it is declared.
    let mut waits = inside;
    waits.quiet = Some(Duration::from_secs(5));
    let verdict = told(opened(open())).verdict(&manifest(vec![positive(), waits]));
    assert_eq!(verdict, because(NoEffect));
}

#[test]
fn rule_3_quiet_time_is_seen_by_a_watch_without_gap() {
    let watched = || {
        Tape::new()
            .works()
            .open("refuses")
            .open_watch()
            .next("synced")
    };
    let attempt = |tape: Tape| tape.pod("node-1", "image-1");
    let show = |tape: Tape| tape.observe("uid-2").conclude(Conclusion::Pass);
    let rows = vec![
        ("whole", show(attempt(watched()).wait(30_000, &[])), PASS),
        (
            "asked without waiting: the stream may hang",
            show(attempt(watched()).passing(30_000).next("")),
            because(NoEffect),
        ),
        (
            "another watch was proved",
            show(
                attempt(watched())
                    .watch(function::WATCH_OPEN, 2, "")
                    .wait_for(2, 30_000),
            ),
            because(NoEffect),
        ),
        (
            "the wait ended with news",
            show(attempt(watched()).wait(30_000, &[0])),
            because(NoEffect),
        ),
        (
            "events do not break it",
            show(
                attempt(watched())
                    .passing(10_000)
                    .next("modified")
                    .wait(20_000, &[]),
            ),
            PASS,
        ),
        (
            "in two looks",
            show(attempt(watched()).wait(10_000, &[]).wait(20_000, &[])),
            PASS,
        ),
        (
            "too short",
            show(attempt(watched()).wait(29_000, &[])),
            because(NoEffect),
        ),
        (
            "time before the attempt",
            show(attempt(watched().passing(29_000)).wait(5_000, &[])),
            because(NoEffect),
        ),
        (
            "never read",
            show(attempt(watched()).passing(30_000)),
            because(NoEffect),
        ),
        (
            "never synced",
            show(attempt(Tape::new().works().open("refuses").open_watch()).wait(30_000, &[])),
            because(NoEffect),
        ),
        (
            "no watch",
            show(attempt(Tape::new().works().open("refuses")).passing(60_000)),
            because(NoEffect),
        ),
        (
            "no attempt",
            watched()
                .wait(30_000, &[])
                .observe("x")
                .conclude(Conclusion::Pass),
            because(NoEffect),
        ),
        (
            "gap",
            show(
                attempt(watched())
                    .passing(20_000)
                    .next("gap")
                    .next("synced")
                    .wait(20_000, &[]),
            ),
            because(Gap),
        ),
        (
            "gap, and then the whole time",
            show(
                attempt(watched())
                    .next("gap")
                    .next("synced")
                    .wait(30_000, &[]),
            ),
            PASS,
        ),
        (
            "gap at the end",
            show(attempt(watched()).passing(30_000).next("gap")),
            because(Gap),
        ),
        (
            "closed too early",
            show(
                attempt(watched())
                    .wait(5_000, &[])
                    .watch(function::WATCH_CLOSE, 1, "")
                    .wait(30_000, &[]),
            ),
            because(NoEffect),
        ),
        (
            "an error of the watch",
            show(
                attempt(watched())
                    .passing(20_000)
                    .call(
                        "watch pods",
                        json!({}),
                        |c| {
                            function::WATCH_NEXT.clone_into(&mut c.function);
                            c.facts.watch = Some(1);
                        },
                        Err(Failure::Expired),
                    )
                    .wait(20_000, &[]),
            ),
            because(Gap),
        ),
        (
            "the watch began before the case",
            show(
                attempt(
                    Tape::new()
                        .works()
                        .open_watch()
                        .next("synced")
                        .open("refuses"),
                )
                .wait(30_000, &[]),
            ),
            PASS,
        ),
        (
            "another watch",
            show(
                attempt(watched())
                    .passing(30_000)
                    .watch(function::WATCH_NEXT, 2, ""),
            ),
            because(NoEffect),
        ),
        (
            "refused at once needs no watch",
            Tape::new()
                .works()
                .open("refuses")
                .answered("create pods", 422, INVALID)
                .held(),
            PASS,
        ),
    ];
    table(&manifest(vec![positive(), quiet(30)]), rows);
    // The watch that the effect names, where it names one.
    let mut named = quiet(30);
    named.effect.push("watch nodes".parse().unwrap());
    let other = show(attempt(watched()).wait(30_000, &[]));
    assert_eq!(
        other.verdict(&manifest(vec![positive(), named])),
        because(NoEffect)
    );
}

#[test]
fn rule_4_controls_passed_on_the_same_things_and_live() {
    let refuse = |tape: Tape| {
        tape.open("refuses")
            .answered("create pods", 422, INVALID)
            .held()
    };
    let two = manifest(vec![positive(), negative()]);
    table(
        &two,
        vec![
            ("control passed", refuse(Tape::new().works()), PASS),
            (
                "control after the negative",
                refuse(Tape::new()).works(),
                PASS,
            ),
            (
                "control has no effect",
                refuse(
                    Tape::new()
                        .open("works")
                        .observe("x")
                        .conclude(Conclusion::Pass),
                ),
                because(NoEffect),
            ),
        ],
    );
    // The control is optional here, so that its own verdict does not decide.
    let with = |same: &[&str], alive| {
        let mut control_case = positive();
        control_case.required = Required::Optional;
        let mut negative = quiet(1);
        negative.controls = vec![control(same, alive)];
        manifest(vec![control_case, negative])
    };
    let try_on = |tape: Tape, node: &str, image: &str| {
        tape.open("refuses")
            .open_watch()
            .next("synced")
            .pod(node, image)
            .wait(1_000, &[])
            .observe("uid-2")
            .conclude(Conclusion::Pass)
    };
    let plain = with(&[], false);
    table(
        &plain,
        vec![
            ("never opened", refuse(Tape::new()), because(Vacuous)),
            (
                "failed",
                refuse(
                    Tape::new()
                        .open("works")
                        .pod("n", "i")
                        .conclude(Conclusion::Fail),
                ),
                because(Vacuous),
            ),
            (
                "without effect",
                refuse(
                    Tape::new()
                        .open("works")
                        .observe("x")
                        .conclude(Conclusion::Pass),
                ),
                because(Vacuous),
            ),
            (
                "left open",
                Tape::new().open("works").pod("n", "i"),
                because(NotExercised),
            ),
        ],
    );
    table(
        &with(&["node", "image"], false),
        vec![
            (
                "same node, same image",
                try_on(Tape::new().works(), "node-1", "image-1"),
                PASS,
            ),
            (
                "another node",
                try_on(Tape::new().works(), "node-2", "image-1"),
                because(ControlUnrelated),
            ),
            (
                "another image",
                try_on(Tape::new().works(), "node-1", "image-2"),
                because(ControlUnrelated),
            ),
            (
                "no node at all",
                refuse(Tape::new().works()),
                because(ControlUnrelated),
            ),
        ],
    );
    table(
        &with(&["lease"], false),
        vec![
            (
                "no lease at all",
                try_on(Tape::new().works(), "node-1", "image-1"),
                because(ControlUnrelated),
            ),
            (
                "one lease over both",
                try_on(Tape::new().lease(1).works(), "node-1", "image-1"),
                PASS,
            ),
            (
                "given back between them",
                try_on(
                    Tape::new().lease(1).works().release(1).lease(2),
                    "node-1",
                    "image-1",
                ),
                because(ControlUnrelated),
            ),
            (
                "taken only after the control",
                try_on(Tape::new().works().lease(1), "node-1", "image-1"),
                because(ControlUnrelated),
            ),
            (
                "given back before the control ended",
                try_on(
                    Tape::new().lease(1).release(1).works().lease(2),
                    "node-1",
                    "image-1",
                ),
                because(ControlUnrelated),
            ),
        ],
    );
    let alive = with(&["node"], true);
    let both = || try_on(Tape::new().works(), "node-1", "image-1");
    table(
        &alive,
        vec![
            ("alive", both().alive("uid-1", true), PASS),
            ("gone", both().alive("uid-1", false), because(Vacuous)),
            ("not asked", both(), because(Vacuous)),
            (
                "taken away by the control itself",
                try_on(
                    Tape::new()
                        .open("works")
                        .pod("node-1", "image-1")
                        .observe("uid-1")
                        .call(
                            "delete pods",
                            json!({}),
                            |c| {
                                if let Some(Access::Resource(a)) = &mut c.access {
                                    "pod-1".clone_into(&mut a.name)
                                }
                            },
                            Ok(Seen::Nothing),
                        )
                        .conclude(Conclusion::Pass),
                    "node-1",
                    "image-1",
                )
                .alive("uid-1", true),
                because(Vacuous),
            ),
        ],
    );
    let recording = fixture::build(header(), both().calls, None).unwrap();
    let wanted = alive_wanted(&alive, recording.entries());
    assert_eq!(wanted.len(), 1);
    assert_eq!(
        (wanted[0].uid.as_str(), wanted[0].name.as_str()),
        ("uid-1", "pod-1")
    );
    assert!(alive_wanted(&plain, recording.entries()).is_empty());
}

#[test]
fn rule_4_the_control_of_the_same_subject_counts() {
    let mut control_case = positive();
    control_case.required = Required::Optional;
    let mut negative = quiet(1);
    negative.controls = vec![control(&["node"], false)];
    let manifest = manifest(vec![control_case, negative]);
    let tape = Tape::new()
        .open_for("works", "a")
        .pod("node-a", "i")
        .held()
        .open_for("works", "b")
        .pod("node-b", "i")
        .held()
        .open_for("refuses", "a")
        .open_watch()
        .next("synced")
        .pod("node-b", "i")
        .wait(1_000, &[])
        .observe("uid-3")
        .conclude(Conclusion::Pass);
    assert_eq!(tape.verdict(&manifest), because(ControlUnrelated));
}

#[test]
fn rule_4_the_same_object_is_one_that_both_named() {
    let mut reads = case("refuses", CaseKind::Negative, &["get pods"]);
    reads.controls = vec![control(&["object"], false)];
    let manifest = manifest(vec![positive(), reads]);
    let on = |verb: &'static str, uid: &'static str, ours: bool| {
        move |tape: Tape| {
            tape.call(
                verb,
                json!({}),
                |call| {
                    if let Some(Access::Resource(access)) = &mut call.access
                        && access.verb == "get"
                    {
                        "o".clone_into(&mut access.name);
                    }
                    call.facts.objects.push(ObjectFact {
                        kind: "Pod".to_owned(),
                        name: "o".to_owned(),
                        uid: uid.to_owned(),
                        ours,
                        ..ObjectFact::default()
                    });
                },
                Ok(Seen::Text("seen".to_owned())),
            )
        }
    };
    let ending = |tape: Tape| tape.answered("get pods", 403, ADMISSION).held();
    let start = || Tape::new().works().open("refuses");
    let same = ending(on("get pods", "uid-1", false)(start()));
    assert_eq!(same.verdict(&manifest), PASS);
    let other = ending(on("get pods", "uid-9", true)(start()));
    assert_eq!(other.verdict(&manifest), because(ControlUnrelated));
    let listed = ending(on("list pods", "uid-1", false)(start()));
    assert_eq!(listed.verdict(&manifest), because(ControlUnrelated));
}
