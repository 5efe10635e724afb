//! A run folder with two probes, made by the engine's own writers, with one text in every place where foreign text can stand.

use crate::manifest::section;
use crate::model::*;
use crate::names::CONTRACT_VERSION;
use crate::recording::Recorder;
use crate::recording::format::*;
use crate::recording::tests::{draft, end, header};
use crate::runfolder::{RUN_FORMAT, RunFolder, RunHead, run_id};
use serde_json::json;
use std::path::Path;

const MANIFEST: &str = r#"
id = "gang-scheduling"
version = "0.1.0"
title = "Groups"
claim = "Groups start together."
misleads = "One solution is tried."
contract = "CONTRACT"
requirements = ["gang_scheduling"]
reach = "sandbox"
capabilities = ["kube-read"]
cases = [
  { id = "there", kind = "observation", required = "always", effect = ["list pods"], claim = "the thing is there", expected = "one of it" },
  { id = "works", kind = "positive", required = "always", needs = ["there"], effect = ["list pods"], claim = "the thing works", expected = "it runs" },
  { id = "works-too", kind = "positive", required = "always", needs = ["there"], effect = ["list pods"], claim = "it works again", expected = "it runs" },
  { id = "none-starts", kind = "negative", required = "always", needs = ["works"], controls = [{ case = "works", same = ["node"] }], effect = ["list pods"], claim = "nothing starts", expected = "nothing" },
]

[[permissions]]
api-groups = [""]
resources = ["pods"]
verbs = ["list"]
scope = "cluster"
why = "to look"
"#;

/// What the sample says.
pub(super) struct Sample {
    /// The foreign text.
    pub(super) text: String,
    pub(super) requirement: String,
    pub(super) verdict: Option<Verdict>,
    pub(super) reason: Option<Reason>,
    pub(super) outcome: Outcome,
    /// Verdict of the optional case.
    pub(super) optional: Verdict,
    pub(super) server_version: String,
    /// The recording has no end, and the run neither.
    pub(super) killed: bool,
    /// Calls that are there for their size.
    pub(super) filler: usize,
    before: Vec<Option<Verdict>>,
}

impl Sample {
    pub(super) fn new(text: &str) -> Sample {
        Sample {
            text: text.to_owned(),
            requirement: "gang_scheduling".to_owned(),
            verdict: Some(Verdict::Pass),
            reason: None,
            outcome: Outcome::Concluded,
            optional: Verdict::Pass,
            server_version: "v1.37.0".to_owned(),
            killed: false,
            filler: 0,
            before: Vec::new(),
        }
    }

    /// Adds an attempt before the one that counts.
    pub(super) fn attempt_before(&mut self, verdict: Option<Verdict>) {
        self.before.push(verdict);
    }

    fn component(&self) -> Vec<u8> {
        let text = MANIFEST.replace("CONTRACT", CONTRACT_VERSION);
        section::embed(b"\0asm\x0d\0\x01\0", &text).unwrap()
    }

    fn judgement(&self, verdict: Option<Verdict>) -> Judgement {
        let case = |id: &str, subject: &str, required: bool, verdict: Verdict| CaseResult {
            case: CaseKey {
                id: id.to_owned(),
                subject: subject.to_owned(),
            },
            required,
            concluded: Some(Conclusion::Unknown(format!(
                "no_accelerator: {}",
                self.text
            ))),
            verdict,
            reason: (verdict == Verdict::Unknown).then_some(Reason::InsufficientCapacity),
            explanation: self.text.clone(),
            observations: [true, false]
                .map(|from_answer| Observation {
                    name: self.text.clone(),
                    value: self.text.clone(),
                    from_answer,
                })
                .to_vec(),
            calls: vec![2, 3, 4],
        };
        Judgement {
            verdict,
            reason: self.reason,
            explanation: self.text.clone(),
            tier: Tier::Simulated,
            tier_because: vec![self.text.clone()],
            cases: vec![
                case("there", &self.text, true, Verdict::Pass),
                case("works", "", true, verdict.unwrap_or(Verdict::Unknown)),
                case("none-starts", "", false, self.optional),
            ],
            rules: crate::judge::RULES.to_owned(),
        }
    }

    fn attempt(&self, number: u32, verdict: Option<Verdict>) -> AttemptRecord {
        AttemptRecord {
            attempt: number,
            started: format!("2026-01-02T03:04:{:02}Z", 4 + number),
            outcome: self.outcome.clone(),
            judgement: self.judgement(verdict),
            usage: Usage {
                wall_ms: 500,
                calls: 9,
                ..Usage::default()
            },
            recording: Some(format!("probes/gang-scheduling/attempt-{number}")),
            head: None,
            folded: None,
            left_behind: vec![self.text.clone()],
        }
    }

    /// The record without its recordings.
    pub(super) fn record(&self) -> RunRecord {
        let salt = [7u8; 16];
        let component = self.component();
        let mut attempts: Vec<AttemptRecord> = (1..)
            .zip(self.before.iter().chain([&self.verdict]))
            .map(|(number, verdict)| self.attempt(number, *verdict))
            .collect();
        for attempt in attempts.iter_mut().rev().skip(1) {
            attempt.outcome = Outcome::Concluded;
        }
        let probe = |id: &str, requirement: &str, attempts| ProbeRecord {
            probe: id.to_owned(),
            version: self.text.clone(),
            title: self.text.clone(),
            requirements: vec![requirement.to_owned()],
            digest: crate::component::digest(&component),
            contract: self.text.clone(),
            attempts,
        };
        let mut other = self.attempt(1, Some(Verdict::Pass));
        other.outcome = Outcome::Concluded;
        other.recording = Some("probes/vendor.example.other/attempt-1".to_owned());
        RunRecord {
            leases: None,
            redacted: Vec::new(),
            format: RUN_FORMAT.to_owned(),
            run: run_id(&salt, Some(&self.text)),
            salt: data_encoding::HEXLOWER.encode(&salt),
            nonce: Some(self.text.clone()),
            engine: self.text.clone(),
            plan: "0".repeat(64),
            started: "2026-01-02T03:04:05Z".to_owned(),
            ended: (!self.killed).then(|| "2026-01-02T03:04:25Z".to_owned()),
            cluster: ClusterRecord {
                uid: self.text.clone(),
                server_version: self.server_version.clone(),
            },
            reach: Reach::Sandbox,
            head: RunHead::new().text(),
            probes: vec![
                probe("gang-scheduling", &self.requirement, attempts),
                probe("vendor.example/other", "vendor.example/other", vec![other]),
            ],
        }
    }

    /// The folder.
    pub(super) fn write(&self) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(temp.path()).unwrap();
        let component = self.component();
        folder
            .keep_component(&crate::component::digest(&component), &component)
            .unwrap();
        let mut record = self.record();
        let mut head = RunHead::new();
        for probe in &mut record.probes {
            for attempt in &mut probe.attempts {
                let place = folder.new_attempt(&probe.probe).unwrap();
                let recorded = self.recording(&place.folder, &probe.probe);
                if let Some(recorded) = recorded {
                    attempt.folded = Some(head.fold(&recorded).unwrap());
                    attempt.head = Some(recorded);
                }
            }
        }
        record.head = head.text();
        folder.write_record(&record).unwrap();
        temp
    }

    fn recording(&self, place: &Path, probe: &str) -> Option<String> {
        let text = self.text.as_str();
        // A long answer is not opened, which would be another page.
        let said = if text.len() > 1_000 { "long" } else { text };
        let mut recorder = Recorder::create(place, &header()).unwrap();
        let mut call =
            |function: &str, arguments, at: u64, done: u64, facts: Facts, reply: Reply| {
                let mut draft = draft(function, arguments);
                (draft.at_ms, draft.done_ms) = (at, done);
                draft.facts = facts;
                if draft.facts.live {
                    draft.access = Some(Access::Resource(ResourceAccess {
                        verb: "list".to_owned(),
                        version: "v1".to_owned(),
                        resource: "pods".to_owned(),
                        name: text.to_owned(),
                        ..ResourceAccess::default()
                    }));
                }
                recorder.append(draft, &reply).unwrap();
            };
        let nothing = || Ok(Seen::Nothing);
        let live = |code: u16| Facts {
            live: true,
            code: Some(code),
            reason: if code < 400 {
                String::new()
            } else {
                text.to_owned()
            },
            objects: vec![ObjectFact {
                kind: text.to_owned(),
                namespace: text.to_owned(),
                name: text.to_owned(),
                uid: "u".to_owned(),
                node: text.to_owned(),
                phase: text.to_owned(),
                images: Vec::new(),
                ours: true,
            }],
            markers: vec![text.to_owned()],
            ..Facts::default()
        };
        call(
            "log.write",
            json!({"text": text}),
            1,
            1,
            Facts::default(),
            nothing(),
        );
        call(
            "cases.open",
            json!({"id": "there", "subject": text}),
            10,
            10,
            Facts::default(),
            nothing(),
        );
        call(
            "kube-read.cursor.next",
            json!({"keep": text}),
            11,
            20,
            live(200),
            Ok(Seen::Text(said.to_owned())),
        );
        let failure = Failure::Answered {
            code: 403,
            reason: said.to_owned(),
            message: said.to_owned(),
            body: said.to_owned(),
        };
        call(
            "kube-read.query.get",
            json!({}),
            21,
            30,
            live(403),
            Err(failure),
        );
        call(
            "cases.case.observe",
            json!({"name": text, "value": text}),
            31,
            31,
            Facts::default(),
            nothing(),
        );
        call(
            "cases.case.conclude",
            json!({"outcome": {"kind": "pass"}}),
            35,
            40,
            Facts::default(),
            nothing(),
        );
        let granted = Facts {
            lease: Some(LeaseFact {
                number: 1,
                nodes: vec!["node-1".to_owned()],
                ..LeaseFact::default()
            }),
            ..Facts::default()
        };
        // The first waits while the second, which began at the same time, has the node.
        let (asked, had) = if probe == "gang-scheduling" {
            (50, 200)
        } else {
            (0, 1)
        };
        call(
            "leases.acquire",
            json!({"names": ["units"], "timeout": 9}),
            asked,
            had,
            granted,
            Ok(Seen::Text(said.to_owned())),
        );
        for _ in 0..self.filler {
            call(
                "kube-write.target.create",
                json!({"body": "x".repeat(2_000)}),
                210,
                220,
                live(201),
                nothing(),
            );
        }
        call(
            "leases.lease.release",
            json!({"lease": 1}),
            400,
            400,
            Facts::default(),
            nothing(),
        );
        call(
            "run.id",
            json!({}),
            401,
            401,
            Facts::default(),
            Err(Failure::Refused(said.to_owned())),
        );
        if self.killed && probe == "gang-scheduling" {
            drop(recorder);
            return None;
        }
        Some(recorder.finish(end()).unwrap())
    }
}
