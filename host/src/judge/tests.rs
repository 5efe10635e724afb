//! Each rule: what passes it, what it stops, and for which reason.

use super::*;
use crate::manifest::{Budget, Case, CaseKind, Control, Setting, SettingKind};
use crate::model::{Conclusion, Reach, Reason::*, Verdict::*};
use crate::recording::fixture;
use crate::recording::format::*;
use crate::recording::tests::{draft, end, header};
use serde_json::json;
use std::time::Duration;

// === what a probe declares ===

fn manifest(cases: Vec<Case>) -> Manifest {
    Manifest {
        id: "p".to_owned(),
        version: "1.0.0".to_owned(),
        title: String::new(),
        claim: String::new(),
        misleads: String::new(),
        contract: "0.1.0-dev.1".to_owned(),
        requirements: vec!["vendor.example/thing".to_owned()],
        reach: Reach::Sandbox,
        capabilities: Vec::new(),
        permissions: Vec::new(),
        namespaces: Vec::new(),
        images: Vec::new(),
        snapshots: Vec::new(),
        leases: Vec::new(),
        settings: Default::default(),
        budget: Budget::default(),
        cases,
    }
}

fn case(id: &str, kind: CaseKind, effect: &[&str]) -> Case {
    Case {
        id: id.to_owned(),
        kind,
        required: Required::Always,
        claim: String::new(),
        expected: String::new(),
        needs: Vec::new(),
        effect: effect.iter().map(|text| text.parse().unwrap()).collect(),
        controls: Vec::new(),
        quiet: None,
        pending: false,
        line: 1,
    }
}

fn positive() -> Case {
    case("works", CaseKind::Positive, &["create pods"])
}

fn negative() -> Case {
    let mut case = case("refuses", CaseKind::Negative, &["create pods"]);
    case.controls = vec![control(&[], false)];
    case
}

fn control(same: &[&str], alive: bool) -> Control {
    Control {
        case: "works".to_owned(),
        same: same.iter().map(|word| (*word).to_owned()).collect(),
        alive,
    }
}

fn quiet(seconds: u64) -> Case {
    let mut case = negative();
    case.quiet = Some(Duration::from_secs(seconds));
    case
}

// === what it does ===

/// A recording as a list of calls; each takes one millisecond unless time is passed.
#[derive(Clone)]
struct Tape {
    now: u64,
    calls: Vec<(EntryDraft, Reply)>,
    end: Option<EndDraft>,
    uids: u32,
}

impl Tape {
    fn new() -> Tape {
        Tape {
            now: 0,
            calls: Vec::new(),
            end: Some(end()),
            uids: 0,
        }
    }

    fn push(mut self, mut call: EntryDraft, reply: Reply) -> Tape {
        call.at_ms = self.now;
        self.now += 1;
        call.done_ms = self.now;
        if let Err(Failure::Answered { code, reason, .. }) = &reply {
            call.facts.live = true;
            call.facts.code = Some(*code);
            call.facts.reason.clone_from(reason);
        }
        self.calls.push((call, reply));
        self
    }

    fn passing(mut self, ms: u64) -> Tape {
        self.now += ms;
        self
    }

    fn open_for(self, id: &str, subject: &str) -> Tape {
        let arguments = json!({"id": id, "subject": subject});
        self.push(draft(function::CASES_OPEN, arguments), Ok(Seen::Nothing))
    }

    fn open(self, id: &str) -> Tape {
        self.open_for(id, "")
    }

    fn conclude(self, conclusion: Conclusion) -> Tape {
        let arguments = json!({"outcome": conclusion});
        self.push(
            draft(function::CASES_CONCLUDE, arguments),
            Ok(Seen::Nothing),
        )
    }

    fn observe(self, value: &str) -> Tape {
        let arguments = json!({"name": "v", "value": value});
        self.push(draft(function::CASES_OBSERVE, arguments), Ok(Seen::Nothing))
    }

    /// A call with access; `verb resource[/subresource]`.
    fn call(
        self,
        what: &str,
        arguments: serde_json::Value,
        edit: impl FnOnce(&mut EntryDraft),
        reply: Reply,
    ) -> Tape {
        let (verb, rest) = what.split_once(' ').unwrap();
        let mut call = draft(&format!("kube.{verb}"), arguments);
        call.access = Some(if rest.starts_with('/') {
            Access::NonResource {
                path: rest.to_owned(),
            }
        } else {
            let (resource, subresource) = rest.split_once('/').unwrap_or((rest, ""));
            Access::Resource(ResourceAccess {
                verb: verb.to_owned(),
                version: "v1".to_owned(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                namespace: "ns".to_owned(),
                ..ResourceAccess::default()
            })
        });
        call.facts.live = true;
        edit(&mut call);
        self.push(call, reply)
    }

    /// A live call that succeeds, with an answer that holds `seen-<n>`.
    fn ok(self, what: &str) -> Tape {
        let text = format!("seen-{}", self.calls.len());
        self.call(what, json!({}), |_| {}, Ok(Seen::Text(text)))
    }

    fn answered(self, what: &str, code: u16, message: &str) -> Tape {
        self.call(what, json!({}), |_| {}, Err(answer(code, message)))
    }

    fn dry(self, what: &str, reply: Reply) -> Tape {
        self.call(what, json!({}), |call| call.facts.dry_run = true, reply)
    }

    fn failed(self, what: &str, failure: Failure) -> Tape {
        self.call(
            what,
            json!({}),
            |call| call.facts.live = false,
            Err(failure),
        )
    }

    /// A pod created on a node; its uid is `uid-<n>`.
    fn pod(mut self, node: &str, image: &str) -> Tape {
        self.uids += 1;
        let uid = format!("uid-{}", self.uids);
        let object = ObjectFact {
            kind: "Pod".to_owned(),
            namespace: "ns".to_owned(),
            name: format!("pod-{}", self.uids),
            uid: uid.clone(),
            node: node.to_owned(),
            images: vec![image.to_owned()],
            ours: true,
            ..ObjectFact::default()
        };
        self.call(
            "create pods",
            json!({}),
            |call| call.facts.objects.push(object),
            Ok(Seen::Text(uid)),
        )
    }

    fn watch(self, name: &str, number: u32, event: &str) -> Tape {
        let reply = match event {
            "" => Ok(Seen::Nothing),
            kind => Ok(Seen::Event {
                kind: kind.to_owned(),
                text: "{}".to_owned(),
            }),
        };
        self.call(
            "watch pods",
            json!({"watch": number}),
            |call| {
                name.clone_into(&mut call.function);
                call.facts.watch = Some(number);
                event.clone_into(&mut call.facts.event);
                call.facts.live = name == function::WATCH_OPEN || !event.is_empty();
            },
            reply,
        )
    }

    fn open_watch(self) -> Tape {
        self.watch(function::WATCH_OPEN, 1, "")
    }

    fn next(self, event: &str) -> Tape {
        self.watch(function::WATCH_NEXT, 1, event)
    }

    fn wait(self, ms: u64, ready: &[u32]) -> Tape {
        let mut tape = self.passing(ms);
        tape.now -= 1;
        let call = draft(function::WAIT_ANY, json!({"sources": [1], "timeout": ms}));
        tape.push(call, Ok(Seen::Ready(ready.to_vec())))
    }

    fn setting(self, key: &str, value: Option<&str>) -> Tape {
        let reply = value.map_or(Seen::Nothing, |value| Seen::Text(value.to_owned()));
        self.push(
            draft(function::SETTINGS_GET, json!({"key": key})),
            Ok(reply),
        )
    }

    /// Shows the last answer's own word and concludes.
    fn held(self) -> Tape {
        let text = match &self.calls.last().unwrap().1 {
            Ok(Seen::Text(text)) => text.clone(),
            Err(Failure::Answered { code, .. }) => code.to_string(),
            _ => panic!("the last call has no text"),
        };
        self.observe(&text).conclude(Conclusion::Pass)
    }

    /// The control case, as it should be.
    fn works(self) -> Tape {
        self.open("works").pod("node-1", "image-1").held()
    }

    fn ended(mut self, outcome: Outcome) -> Tape {
        self.end.as_mut().unwrap().outcome = outcome;
        self
    }

    fn alive(mut self, uid: &str, alive: bool) -> Tape {
        self.end
            .as_mut()
            .unwrap()
            .alive
            .insert(uid.to_owned(), alive);
        self
    }

    fn judge(&self, manifest: &Manifest) -> Judgement {
        let recording = fixture::build(header(), self.calls.clone(), self.end.clone()).unwrap();
        judge(manifest, &Evidence::from(&recording)).unwrap()
    }

    fn verdict(&self, manifest: &Manifest) -> (Option<Verdict>, Option<Reason>) {
        let judgement = self.judge(manifest);
        (judgement.verdict, judgement.reason)
    }
}

fn answer(code: u16, message: &str) -> Failure {
    Failure::Answered {
        code,
        reason: String::new(),
        message: message.to_owned(),
        body: String::new(),
    }
}

const INVALID: &str = "Pod \"x\" is invalid: spec: Required value";
const ADMISSION: &str = "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\"";
const RBAC: &str = "pods is forbidden: User \"u\" cannot create resource \"pods\" in API group \"\" in the namespace \"ns\"";

type Row<'a> = (&'a str, Tape, (Option<Verdict>, Option<Reason>));

const PASS: (Option<Verdict>, Option<Reason>) = (Some(Pass), None);
const FAIL: (Option<Verdict>, Option<Reason>) = (Some(Fail), None);

fn because(reason: Reason) -> (Option<Verdict>, Option<Reason>) {
    (Some(Unknown), Some(reason))
}

fn table(manifest: &Manifest, rows: Vec<Row<'_>>) {
    for (name, tape, expected) in rows {
        let judgement = tape.judge(manifest);
        assert_eq!(
            (judgement.verdict, judgement.reason),
            expected,
            "{name}: {}",
            judgement.explanation
        );
        assert!(!judgement.explanation.is_empty(), "{name}");
    }
}

// === the rules ===

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
        (
            "whole",
            show(attempt(watched()).passing(30_000).next("")),
            PASS,
        ),
        ("waited", show(attempt(watched()).wait(30_000, &[])), PASS),
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
                    .passing(20_000)
                    .next(""),
            ),
            PASS,
        ),
        (
            "in two looks",
            show(
                attempt(watched())
                    .passing(10_000)
                    .next("")
                    .passing(20_000)
                    .next(""),
            ),
            PASS,
        ),
        (
            "too short",
            show(attempt(watched()).passing(29_000).next("")),
            because(NoEffect),
        ),
        (
            "time before the attempt",
            show(attempt(watched().passing(29_000)).passing(5_000).next("")),
            because(NoEffect),
        ),
        (
            "never read",
            show(attempt(watched()).passing(30_000)),
            because(NoEffect),
        ),
        (
            "never synced",
            show(
                attempt(Tape::new().works().open("refuses").open_watch())
                    .passing(30_000)
                    .next(""),
            ),
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
                .passing(30_000)
                .next("")
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
                    .passing(20_000)
                    .next(""),
            ),
            because(Gap),
        ),
        (
            "gap, and then the whole time",
            show(
                attempt(watched())
                    .next("gap")
                    .next("synced")
                    .passing(30_000)
                    .next(""),
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
                    .passing(5_000)
                    .next("")
                    .watch(function::WATCH_CLOSE, 1, "")
                    .passing(30_000)
                    .next(""),
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
                    .passing(20_000)
                    .next(""),
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
                .passing(30_000)
                .next(""),
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
    let other = show(attempt(watched()).passing(30_000).next(""));
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
            .passing(1_000)
            .next("")
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
        vec![(
            "leases are not recorded yet",
            try_on(Tape::new().works(), "node-1", "image-1"),
            because(ControlUnrelated),
        )],
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
        .passing(1_000)
        .next("")
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
            .contains("rules 7, this engine has rules 1")
    );
}

// === properties ===

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
