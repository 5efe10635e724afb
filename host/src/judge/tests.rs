//! Each rule: what passes it, what it stops, and for which reason.

mod conclusions;
mod effects;
mod negatives;
mod properties;
mod whole;

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
        let mut call = draft(function::WAIT_ANY, json!({"sources": [1], "timeout": ms}));
        if ready.is_empty() {
            call.facts.proved = vec![1];
        }
        tape.push(call, Ok(Seen::Ready(ready.to_vec())))
    }

    /// A wait without news that proves a watch.
    fn wait_for(self, watch: u32, ms: u64) -> Tape {
        let mut tape = self.wait(ms, &[]);
        if let Some((call, _)) = tape.calls.last_mut() {
            call.facts.proved = vec![watch];
        }
        tape
    }

    fn lease(self, number: u32) -> Tape {
        let mut call = draft(function::LEASES_ACQUIRE, json!({"names": ["a"]}));
        call.facts.lease = Some(LeaseFact {
            number,
            ..LeaseFact::default()
        });
        self.push(call, Ok(Seen::Text("{}".to_owned())))
    }

    fn release(self, number: u32) -> Tape {
        let call = draft(function::LEASES_RELEASE, json!({"lease": number}));
        self.push(call, Ok(Seen::Nothing))
    }

    /// What others changed, found with the last call.
    fn changed(mut self, words: &[&str]) -> Tape {
        let (call, _) = self.calls.last_mut().unwrap();
        call.facts.changed = words.iter().map(|word| (*word).to_owned()).collect();
        self
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
