//! Fixed data for tests: probes, records and plans, some of them with hostile text.

use karat_engine::event::{RunEvent, RunEventKind};
use karat_engine::manifest::section;
use karat_engine::model::*;
use karat_engine::names::CONTRACT_VERSION;

/// Text that tries everything a guest might try against a terminal or a log.
pub(crate) const HOSTILE: &str =
    "x\u{1b}[2J\u{1b}[31m\n::error::boo ##vso[task.x]y\u{202e}ssap\u{200b}\r";

/// A component that holds nothing but a manifest.
pub(crate) fn component(id: &str, version: &str) -> Vec<u8> {
    component_with(id, version, "some_requirement")
}

/// The same, answering a requirement.
pub(crate) fn component_with(id: &str, version: &str, requirement: &str) -> Vec<u8> {
    section::embed(
        b"\0asm\x0d\0\x01\0",
        &manifest_text(id, version, requirement),
    )
    .unwrap()
}

/// A manifest with a bit of everything.
pub(crate) fn manifest_text(id: &str, version: &str, requirement: &str) -> String {
    format!(
        r#"
id = "{id}"
version = "{version}"
title = "Claims are allocated"
claim = "A claim for a device is allocated by the scheduler."
misleads = "A simulated driver allocates as well as a real one."
contract = "{CONTRACT_VERSION}"
requirements = ["{requirement}"]
reach = "cluster-objects"
capabilities = ["kube-read", "kube-write"]
namespaces = [{{ alias = "main", pod-security = "restricted", pods = 4 }}]
cases = [
  {{ id = "served", kind = "observation", required = "always", effect = ["get /version"], claim = "the API is served", expected = "v1" }},
  {{ id = "allocated", kind = "positive", required = "always", needs = ["served"], effect = ["get resourceclaims.resource.k8s.io"], claim = "a claim is allocated", expected = "status.allocation is set", pending = true }},
]

[[permissions]]
api-groups = ["resource.k8s.io"]
resources = ["resourceclaims"]
verbs = ["get", "list", "watch", "create", "delete"]
scope = "sandbox"
why = "to make a claim and see it allocated"

[[permissions]]
api-groups = ["resource.k8s.io"]
resources = ["deviceclasses"]
verbs = ["create", "delete"]
scope = "cluster"
why = "a class of its own keeps the check away from real devices"

[[permissions]]
non-resource = ["/version"]
optional = true
why = "to report the version"

[settings]
patience = {{ type = "duration", default = "60s", help = "how long a claim may take" }}
"#
    )
}

/// A record of one probe with one attempt.
pub(crate) fn probe_record(id: &str, verdict: Option<Verdict>, outcome: Outcome) -> ProbeRecord {
    let reason = (verdict == Some(Verdict::Unknown)).then_some(Reason::InsufficientCapacity);
    ProbeRecord {
        probe: id.to_owned(),
        version: "0.1.0".to_owned(),
        title: "Claims are allocated".to_owned(),
        requirements: vec!["dra_support".to_owned()],
        digest: format!("sha256:{}", "ab".repeat(32)),
        contract: CONTRACT_VERSION.to_owned(),
        attempts: vec![AttemptRecord {
            attempt: 1,
            started: "2026-01-02T03:04:05Z".to_owned(),
            outcome,
            judgement: judgement(verdict, reason),
            usage: Usage {
                wall_ms: 12_345,
                calls: 87,
                seen_bytes: 123_456,
                peak_memory_bytes: 1_310_720,
                requests: 91,
            },
            recording: Some(format!("probes/{id}/attempt-1")),
            head: Some("cd".repeat(32)),
            folded: Some(1),
            left_behind: Vec::new(),
        }],
    }
}

/// A judgement with two cases.
pub(crate) fn judgement(verdict: Option<Verdict>, reason: Option<Reason>) -> Judgement {
    let case = |id: &str, verdict: Verdict, reason: Option<Reason>, explanation: &str| CaseResult {
        case: CaseKey {
            id: id.to_owned(),
            subject: String::new(),
        },
        required: true,
        concluded: Some(Conclusion::Pass),
        verdict,
        reason,
        explanation: explanation.to_owned(),
        observations: vec![
            Observation {
                name: "version".to_owned(),
                value: "v1".to_owned(),
                from_answer: true,
            },
            Observation {
                name: "count".to_owned(),
                value: "3".to_owned(),
                from_answer: false,
            },
        ],
        calls: vec![1, 2, 5],
    };
    Judgement {
        verdict,
        reason,
        explanation: match verdict {
            Some(Verdict::Pass) | None => String::new(),
            Some(_) => "no node had two free units".to_owned(),
        },
        tier: Tier::Simulated,
        tier_because: vec!["kwok node kwok-0".to_owned()],
        cases: vec![
            case("served", Verdict::Pass, None, ""),
            case(
                "allocated",
                verdict.unwrap_or(Verdict::Unknown),
                reason,
                "no node had two free units",
            ),
        ],
        rules: "1.0".to_owned(),
    }
}

/// A record of a run.
pub(crate) fn run_record(probes: Vec<ProbeRecord>) -> RunRecord {
    RunRecord {
        leases: None,
        redacted: Vec::new(),
        format: "1.0".to_owned(),
        run: "k7f2mq3a".to_owned(),
        salt: "00".repeat(16),
        nonce: None,
        engine: "0.1.0-dev".to_owned(),
        plan: "ab".repeat(32),
        started: "2026-01-02T03:04:05Z".to_owned(),
        ended: Some("2026-01-02T03:04:25Z".to_owned()),
        cluster: ClusterRecord {
            uid: "u-1".to_owned(),
            server_version: "v1.37.0".to_owned(),
        },
        reach: Reach::ClusterObjects,
        head: "ef".repeat(32),
        probes,
    }
}

/// The events of a short run, with fixed times.
pub(crate) fn events() -> Vec<RunEvent> {
    let probe = || "dra-support".to_owned();
    let case = |id: &str| CaseKey {
        id: id.to_owned(),
        subject: String::new(),
    };
    let judged = judgement(Some(Verdict::Unknown), Some(Reason::InsufficientCapacity));
    let kinds = vec![
        RunEventKind::ClusterReached {
            server_version: "v1.37.0".to_owned(),
            server: "https://10.0.0.1:6443/".to_owned(),
        },
        RunEventKind::Preparing {
            what: "inventory".to_owned(),
        },
        RunEventKind::RunStarted {
            run: "k7f2mq3a".to_owned(),
            probes: vec![probe()],
        },
        RunEventKind::ProbeStarted {
            probe: probe(),
            attempt: 1,
            cases: 2,
        },
        RunEventKind::CaseOpened {
            probe: probe(),
            case: case("served"),
            claim: "the API is served".to_owned(),
        },
        RunEventKind::Called {
            probe: probe(),
            sequence: 1,
            function: "kube-read.discover".to_owned(),
            target: "discovery".to_owned(),
            outcome: "ok".to_owned(),
            took_us: 4_321,
            bytes: 2_048,
        },
        RunEventKind::CaseConcluded {
            probe: probe(),
            case: case("served"),
            word: "pass".to_owned(),
        },
        RunEventKind::CaseOpened {
            probe: probe(),
            case: case("allocated"),
            claim: "a claim is allocated".to_owned(),
        },
        RunEventKind::Logged {
            probe: probe(),
            level: "info".to_owned(),
            text: "no node has two free units".to_owned(),
        },
        RunEventKind::CaseConcluded {
            probe: probe(),
            case: case("allocated"),
            word: "pass".to_owned(),
        },
        RunEventKind::Warned {
            text: "nodes may not be listed".to_owned(),
        },
        RunEventKind::ProbeFinished {
            probe: probe(),
            attempt: 1,
            outcome: Outcome::Concluded,
            judgement: Box::new(judged.clone()),
            usage: Usage {
                wall_ms: 9_000,
                calls: 12,
                ..Usage::default()
            },
        },
        RunEventKind::CaseJudged {
            probe: probe(),
            result: Box::new(judged.cases[0].clone()),
        },
        RunEventKind::CaseJudged {
            probe: probe(),
            result: Box::new(judged.cases[1].clone()),
        },
        RunEventKind::CleaningUp {
            remaining: 2,
            example: "namespace karat-k7f2mq3a-home".to_owned(),
        },
        RunEventKind::RunFinished {
            left_behind: vec!["namespace karat-k7f2mq3a-dra-support-main".to_owned()],
        },
    ];
    let start = 1_767_322_800_000;
    (0..)
        .zip(kinds)
        .map(|(number, kind)| RunEvent {
            at: jiff::Timestamp::from_millisecond(start + number * 750).unwrap(),
            kind,
        })
        .collect()
}
