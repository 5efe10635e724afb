//! Hostile guests: each a real component. The host is unharmed, the next probe runs, and the message names the cause.

use anyhow::{Result, ensure};
use karat_engine::component::{self, LoadError};
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::model::{Outcome, Reach, Reason, Verdict};
use karat_engine::recording::format::{Failure, ReplyKind, Seen};
use karat_tests::guests::{Guest, case};
use karat_tests::{runs, state};
use serde_json::json;

/// The attack, the budget it runs in, and what the outcome must say.
const ATTACKS: &[(&str, &str, &str, &str)] = &[
    ("endless-loop", "cpu = \"300ms\"", "over-budget", "cpu"),
    ("memory-bomb", "memory = \"16Mi\"", "over-budget", "memory"),
    ("stack-overflow", "", "trapped", "stack"),
    ("wasm-stack-overflow", "", "trapped", "stack"),
    ("panic", "", "trapped", "unreachable"),
    ("trap", "", "trapped", "unreachable"),
    ("sleep-for-ever", "wall = \"2s\"", "over-budget", "wall"),
    ("a-million-calls", "calls = 2000", "over-budget", "calls"),
    (
        "huge-argument",
        "memory = \"256Mi\"",
        "over-budget",
        "argument too large",
    ),
    ("ten-thousand-handles", "", "over-budget", "handles"),
    ("foreign-handle", "", "trapped", "handle"),
];

/// A probe that behaves, to show that the host still works.
fn harmless(id: &str) -> Guest {
    let script = json!([
        {"do": "open", "id": "alive"},
        {"do": "get", "api": "v1", "resource": "namespaces", "name": "kube-system"},
        {"do": "observe", "name": "kind", "value": "Namespace"},
        {"do": "conclude", "outcome": "pass"},
    ]);
    Guest::scripted(id, &script).cases(&case("alive", "get namespaces"))
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_on_the_host_end_with_their_cause_and_harm_nobody() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let mut guests = Vec::new();
    for (attack, budget, _, _) in ATTACKS {
        guests.push(Guest::attacking(attack, attack).budget(budget));
        guests.push(harmless(&format!("after-{attack}")));
    }
    guests.push(Guest::table_bomb("table-bomb")?);
    guests.push(harmless("after-table-bomb"));
    let run = runs::guests(&lab.kubeconfig(), &guests, Reach::Sandbox).await?;
    for (attack, _, word, cause) in
        ATTACKS
            .iter()
            .chain(&[("table-bomb", "", "over-budget", "table")])
    {
        let attempt = run.attempt(attack);
        let detail = attempt.outcome.detail().unwrap_or_default();
        assert_eq!(attempt.outcome.word(), *word, "{attack}: {detail}");
        assert!(detail.contains(cause), "{attack}: {detail}");
        assert_eq!(
            attempt.judgement.verdict, None,
            "{attack}: a broken probe says nothing about the platform"
        );
        let next = run.attempt(&format!("after-{attack}"));
        assert_eq!(
            next.judgement.verdict,
            Some(Verdict::Pass),
            "after {attack}: {}",
            next.judgement.explanation
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_are_cut_at_their_limit() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let guests = [
        Guest::attacking("log-flood", "log-flood"),
        Guest::attacking("ten-thousand-watches", "ten-thousand-watches"),
    ];
    let run = runs::guests(&lab.kubeconfig(), &guests, Reach::Sandbox).await?;

    let flood = run.recording("log-flood")?;
    let kept: usize = flood
        .entries()
        .iter()
        .map(|entry| entry.arguments["text"].as_str().map_or(0, str::len))
        .sum();
    assert!(
        kept <= (1 << 20) + (8 << 10),
        "{kept} bytes of log were kept"
    );

    let detail = match &run.attempt("ten-thousand-watches").outcome {
        Outcome::ProbeError(text) | Outcome::OverBudget(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    assert!(detail.contains("watches"), "{detail}");
    Ok(())
}

/// A lock that is taken and never given back, and ten thousand more asked for: the next probe gets it all the same.
#[tokio::test(flavor = "multi_thread")]
async fn leases_that_are_never_given_back_end_with_the_attempt() -> Result<()> {
    const MINE: &str = "[[leases]]\nname = \"mine\"\nlock = \"preemption\"\nfor = \"1s\"\n";
    let lab = karat_testbed::shared().await?;
    let greedy = |id: &str, attack: &str| Guest::attacking(id, attack).lines(MINE);
    let after = json!([
        {"do": "acquire", "names": ["mine"], "ms": 120_000},
        {"do": "open", "id": "alive"},
        {"do": "get", "api": "v1", "resource": "namespaces", "name": "kube-system"},
        {"do": "observe", "name": "kind", "value": "Namespace"},
        {"do": "conclude", "outcome": "pass"},
    ]);
    let guests = [
        greedy("greedy", "ten-thousand-leases").budget("calls = 20000"),
        greedy("cut-off", "ten-thousand-leases").budget("calls = 500"),
        Guest::scripted("after", &after)
            .lines(MINE)
            .cases(&case("alive", "get namespaces")),
    ];
    for guest in &guests {
        // Each after the other, so that nobody is busy waiting for the first.
        let alone = std::slice::from_ref(guest);
        let run = runs::guests(&lab.kubeconfig(), alone, Reach::Sandbox).await?;
        let record = run.record;
        let outcome = &record.probes[0].attempts[0].outcome;
        match record.probes[0].probe.as_str() {
            "cut-off" => assert_eq!(outcome.word(), "over-budget", "{outcome:?}"),
            name => assert_eq!(outcome, &Outcome::Concluded, "{name}"),
        }
    }
    let run = runs::guests(&lab.kubeconfig(), &guests, Reach::Sandbox).await?;
    let attempt = run.attempt("after");
    assert_eq!(
        attempt.judgement.verdict,
        Some(Verdict::Pass),
        "{}",
        attempt.judgement.explanation
    );
    assert!(run.record.leases.is_some_and(|leases| leases.held >= 2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_must_be_earned() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let dry = json!([
        {"do": "open", "id": "lie"},
        {"do": "create", "api": "v1", "resource": "configmaps", "ns": "${ns:main}", "dry": true,
         "body": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dry-${run}"}}},
        {"do": "observe", "name": "kind", "value": "ConfigMap"},
        {"do": "conclude", "outcome": "pass"},
    ]);
    let own_words = json!([
        {"do": "open", "id": "lie"},
        {"do": "create", "api": "v1", "resource": "configmaps", "ns": "${ns:main}",
         "body": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "own-${run}"}, "data": {"proof": "written by the probe itself"}}},
        {"do": "observe", "name": "proof", "value": "written by the probe itself"},
        {"do": "conclude", "outcome": "pass"},
    ]);
    let outside = json!([
        {"do": "get", "api": "v1", "resource": "namespaces", "name": "kube-system"},
        {"do": "open", "id": "lie"},
        {"do": "observe", "name": "kind", "value": "Namespace"},
        {"do": "conclude", "outcome": "pass"},
    ]);
    let configmaps = |guest: Guest| {
        guest
            .namespace("main")
            .permit("", &["configmaps"], &["get", "create"], "sandbox")
            .cases(&case("lie", "create configmaps"))
    };
    let guests = [
        Guest::attacking("no-effect", "pass-without-effect").cases(&case("lie", "list namespaces")),
        Guest::scripted("outside", &outside).cases(&case("lie", "get namespaces")),
        configmaps(Guest::scripted("dry-run", &dry)),
        configmaps(Guest::scripted("own-words", &own_words)),
        Guest::attacking("dropped", "nothing").cases(&case("lie", "list namespaces")),
    ];
    let run = runs::guests(&lab.kubeconfig(), &guests, Reach::Sandbox).await?;
    for (probe, reason) in [
        ("no-effect", Reason::NoEffect),
        ("outside", Reason::NoEffect),
        ("dry-run", Reason::NoEffect),
        ("own-words", Reason::NoEffect),
        ("dropped", Reason::NotExercised),
    ] {
        let judgement = &run.attempt(probe).judgement;
        assert_eq!(
            judgement.verdict,
            Some(Verdict::Unknown),
            "{probe}: {}",
            judgement.explanation
        );
        assert_eq!(
            judgement.reason,
            Some(reason),
            "{probe}: {}",
            judgement.explanation
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_cases_cannot_be_open_at_once() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let run = runs::guests(
        &lab.kubeconfig(),
        &[Guest::attacking("two-cases", "two-cases-at-once")],
        Reach::Sandbox,
    )
    .await?;
    let attempt = run.attempt("two-cases");
    let Outcome::ProbeError(text) = &attempt.outcome else {
        panic!("{:?}", attempt.outcome)
    };
    assert!(text.contains("Refused") && text.contains("lie"), "{text}");
    assert_ne!(attempt.judgement.verdict, Some(Verdict::Pass));
    Ok(())
}

/// Calls that reach for what is not theirs. Each is refused by the door, says why, and never reaches the server.
#[tokio::test(flavor = "multi_thread")]
async fn reaching_out_is_refused_and_changes_nothing() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let client = lab.client().await?;
    let long = "x".repeat(300);
    let config_map =
        |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let steps = json!([
        {"do": "create", "api": "v1", "resource": "configmaps", "ns": "default", "body": config_map("outside-${run}")},
        {"do": "create", "api": "v1", "resource": "configmaps", "ns": "${ns:main}", "body": config_map("not-a-name-of-the-run")},
        {"do": "delete", "api": "v1", "resource": "configmaps", "ns": "kube-system", "name": "extension-apiserver-authentication"},
        {"do": "delete", "api": "v1", "resource": "namespaces", "name": "default"},
        {"do": "get", "api": "v1", "resource": "secrets", "ns": "kube-system", "name": "any"},
        {"do": "list", "api": "v1", "resource": "secrets", "ns": "kube-system"},
        {"do": "get", "api": "v1", "resource": "configmaps", "ns": "${ns:main}", "name": "../../../secrets/x"},
        {"do": "get", "api": "v1", "resource": "configmaps", "ns": "${ns:main}", "name": "a%2f..%2fb"},
        {"do": "get", "api": "v1", "resource": "configmaps", "ns": "${ns:main}", "name": ""},
        {"do": "get", "api": "v1", "resource": "configmaps", "ns": "${ns:main}", "name": long},
        {"do": "get", "api": "v1", "resource": "configmaps", "ns": "../kube-system", "name": "x"},
        {"do": "get", "api": "v1/../v1", "resource": "configmaps", "ns": "${ns:main}", "name": "x"},
        {"do": "get", "api": "v1", "resource": "../secrets", "ns": "${ns:main}", "name": "x"},
        {"do": "raw", "path": "/../api/v1/secrets"},
        {"do": "raw", "path": "/version?x=/api/v1/secrets"},
        {"do": "raw", "path": "/metrics"},
        {"do": "list", "api": "v1", "resource": "pods"},
    ]);
    let guest = Guest::scripted("overreach", &steps)
        .namespace("main")
        .permit(
            "",
            &["configmaps"],
            &["get", "list", "create", "delete"],
            "sandbox",
        )
        .permit("", &["secrets"], &["get", "list"], "cluster")
        .permit_paths(&["/version"]);
    let before = state::of(&client).await?;
    let run = runs::guests(&lab.kubeconfig(), &[guest], Reach::Sandbox).await?;
    let alone = |state| state::without_other_runs(state, &run.record.run);
    let lines = state::differences(&alone(before), &alone(state::of(&client).await?));
    ensure!(lines.is_empty(), "{}", lines.join("\n"));

    let recording = run.recording("overreach")?;
    let calls: Vec<_> = recording
        .entries()
        .iter()
        .filter(|entry| entry.function.starts_with("kube-"))
        .collect();
    assert_eq!(
        calls.len(),
        steps.as_array().map_or(0, Vec::len),
        "refused calls are recorded too"
    );
    for call in calls {
        assert!(
            matches!(call.result, ReplyKind::Refused | ReplyKind::Malformed),
            "{} {}: {:?}",
            call.function,
            call.arguments,
            call.result
        );
        assert!(
            !call.facts.live,
            "{} {} reached the server",
            call.function, call.arguments
        );
        let reply = recording.reply(call)?;
        let Err(failure) = reply else {
            panic!("{reply:?}")
        };
        // A refusal names the line that would grant it, the row of the guards that nothing opens, or what to use instead.
        match failure {
            Failure::Refused(text) => assert!(
                ["probe.toml", "guard", "run.name"]
                    .iter()
                    .any(|word| text.contains(word)),
                "{text}"
            ),
            Failure::Malformed(text) => assert!(!text.is_empty()),
            other => panic!("{other:?}"),
        }
    }
    Ok(())
}

/// A number of calls of every kind works for a probe that stays within its lines, so that the refusals above mean something.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_granted_works() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let steps = json!([
        {"do": "open", "id": "works"},
        {"do": "create", "api": "v1", "resource": "configmaps", "ns": "${ns:main}",
         "body": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c-${run}", "labels": {"a": "b"}}}},
        {"do": "patch", "api": "v1", "resource": "configmaps", "ns": "${ns:main}", "name": "c-${run}", "kind": "merge", "body": {"data": {"k": "v"}}},
        {"do": "list", "api": "v1", "resource": "configmaps", "ns": "${ns:main}", "labels": "a=b"},
        {"do": "get", "api": "v1", "resource": "namespaces", "name": "kube-system"},
        {"do": "observe", "name": "kind", "value": "Namespace"},
        {"do": "conclude", "outcome": "pass"},
        {"do": "delete-collection", "api": "v1", "resource": "configmaps", "ns": "${ns:main}", "labels": "a=b"},
        {"do": "raw", "path": "/version"},
        {"do": "discover"},
    ]);
    let guest = Guest::scripted("within", &steps)
        .namespace("main")
        .permit(
            "",
            &["configmaps"],
            &["list", "create", "patch", "deletecollection"],
            "sandbox",
        )
        .permit_paths(&["/version"])
        .cases(&case("works", "create configmaps"));
    let run = runs::guests(&lab.kubeconfig(), &[guest], Reach::Sandbox).await?;
    let recording = run.recording("within")?;
    for entry in recording.entries() {
        assert_eq!(
            entry.result,
            ReplyKind::Ok,
            "{} {}: {:?}",
            entry.function,
            entry.arguments,
            recording.reply(entry)?
        );
    }
    let version = recording
        .entries()
        .iter()
        .find(|entry| entry.function == "kube-read.raw")
        .map(|entry| recording.reply(entry));
    assert!(
        matches!(version, Some(Ok(Ok(Seen::Raw { code: 200, .. })))),
        "{version:?}"
    );
    assert_eq!(run.attempt("within").judgement.verdict, Some(Verdict::Pass));
    Ok(())
}

/// WASI is not linked: a component that wants it is refused before it runs, by name.
#[test]
fn imports_of_wasi_are_refused_at_load() -> Result<()> {
    let component = wat::parse_str(
        r#"(component
            (import "wasi:filesystem/preopens@0.2.0" (instance (export "get-directories" (func)))))"#,
    )?;
    let component =
        karat_engine::manifest::section::embed(&component, &harmless("wasi").manifest())?;
    let engine = Engine::new(&EngineOptions::default())?;
    let error = component::load(&engine, component)
        .err()
        .map(|error: LoadError| error.to_string());
    assert!(
        error
            .as_deref()
            .is_some_and(|text| text.contains("wasi:filesystem/preopens")),
        "{error:?}"
    );
    Ok(())
}
