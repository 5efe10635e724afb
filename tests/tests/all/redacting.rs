//! Rules of an operator in a run, and in a copy of a finished one: what they name is gone, and the verdicts stay or there
//! is no copy.

use crate::bundle::new_key;
use anyhow::{Context as _, Result, ensure};
use karat_engine::bundle;
use karat_engine::component;
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::model::{Reach, RunRecord, Verdict};
use karat_engine::redact::Rules;
use karat_engine::redacted_copy::{CopyError, redacted_copy};
use karat_engine::replay::{Depth, replay};
use karat_engine::runfolder;
use karat_engine::verify::{Reviewer, verify};
use karat_tests::guests::{Guest, case};
use karat_tests::{folders, runs};
use kube::api::{Api, DynamicObject, PostParams};
use kube::discovery::ApiResource;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

const RULES: &str = "[[rule]]\nname = \"rack\"\nkind = \"ConfigMap\"\npath = \"metadata.annotations['example.com/rack']\"\n\
                     [[rule]]\nname = \"ticket\"\npattern = \"TICKET-[0-9]+\"\n";

/// A ConfigMap of somebody else, found by its label.
async fn plant(lab: &karat_testbed::ControlPlane, label: &str) -> Result<()> {
    let what = ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        plural: "configmaps".to_owned(),
    };
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": label, "labels": {"redacting": label}, "annotations": {"example.com/rack": "row-3-rack-17"}},
        "data": {"a": "see TICKET-4711 about row-3-rack-17", "b": "b417"},
    }))?;
    Api::<DynamicObject>::namespaced_with(lab.client().await?, "default", &what)
        .create(&PostParams::default(), &object)
        .await?;
    Ok(())
}

fn reader(label: &str) -> Guest {
    let script = json!([
        {"do": "open", "id": "reads", "subject": "row-3-rack-17"},
        {"do": "spill", "api": "v1", "resource": "configmaps", "labels": format!("redacting={label}"), "ms": 200},
        {"do": "observe", "name": "rack", "value": "row-3-rack-17"},
        {"do": "conclude", "outcome": "pass"},
        {"do": "log", "text": "closed TICKET-4711"},
    ]);
    Guest::scripted("reader", &script)
        .permit("", &["configmaps"], &["get", "list", "watch"], "cluster")
        .cases(&case("reads", "list configmaps"))
}

fn rules(text: &str) -> Arc<Rules> {
    Arc::new(Rules::parse(text, "rules.toml").expect("rules of the test"))
}

fn holding(folder: &Path, words: &[&str]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (path, bytes) in folders::files(folder)? {
        // The script of the guest is a setting with the words in it, and part of its component.
        if path.extension().is_some_and(|end| end == "wasm") {
            continue;
        }
        for word in words {
            if bytes
                .windows(word.len())
                .any(|window| window == word.as_bytes())
            {
                found.push(format!("{word} in {}", path.display()));
            }
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_hides_more_and_replays_to_the_same_verdict() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    plant(lab, "copied").await?;
    let run = runs::guests(&lab.kubeconfig(), &[reader("copied")], Reach::Sandbox).await?;
    ensure!(run.attempt("reader").judgement.verdict == Some(Verdict::Pass));
    let words = ["row-3-rack-17", "TICKET-4711"];
    ensure!(!holding(&run.folder(), &words)?.is_empty());
    let before = folders::files(&run.folder())?;

    let engine = Engine::new(&EngineOptions::default())?;
    let place = tempfile::tempdir()?;
    let out = place.path().join("new/copy");
    let copied = redacted_copy(&engine, &run.folder(), rules(RULES), &out).await?;
    ensure!(
        folders::files(&run.folder())? == before,
        "the original was changed"
    );
    ensure!(copied.from == run.record.head && copied.head != run.record.head);
    ensure!(copied.attempts.len() == 1 && copied.attempts[0].replayed);
    ensure!(
        copied.attempts[0].answers_changed >= 4 && copied.attempts[0].calls_changed >= 4,
        "{copied:?}"
    );
    let found = holding(&out, &words)?;
    ensure!(found.is_empty(), "{found:#?}");

    let record: RunRecord = runfolder::read_record(&out)?;
    ensure!(record.run == run.record.run && record.head == copied.head);
    ensure!(record.redacted.len() == 1 && record.redacted[0].from == run.record.head);
    ensure!(record.redacted[0].rules == copied.rules);
    let case = &record.probes[0].attempts[0].judgement.cases[0];
    ensure!(case.case.subject.starts_with("redacted-"), "{case:?}");
    ensure!(
        case.observations
            .iter()
            .any(|one| one.name == "rack" && one.from_answer),
        "{case:?}"
    );
    let names: Vec<String> = std::fs::read_dir(&out)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    ensure!(names == ["components", "probes", "run.json"], "{names:?}");
    let report = replay(&engine, &out, None).await?;
    ensure!(
        report.is_consistent() && report.attempts[0].depth == Depth::Full,
        "{report:#?}"
    );

    // A place that is taken, and a copy of the copy.
    let again = redacted_copy(&engine, &out, rules(RULES), &out).await;
    ensure!(matches!(again, Err(CopyError::Exists { .. })), "{again:?}");
    let second = place.path().join("second");
    let more = rules("[[rule]]\nname = \"log\"\npattern = \"closed\"\n");
    redacted_copy(&engine, &out, more, &second).await?;
    let record = runfolder::read_record(&second)?;
    ensure!(record.redacted.len() == 2 && record.redacted[1].from == copied.head);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_bundle_becomes_a_bundle_of_its_own() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    plant(lab, "published").await?;
    let guest = reader("published");
    let run = runs::guests(
        &lab.kubeconfig(),
        std::slice::from_ref(&guest),
        Reach::Sandbox,
    )
    .await?;
    let place = tempfile::tempdir()?;
    let (original, copy, published) = (
        place.path().join("bundle"),
        place.path().join("copy"),
        place.path().join("published"),
    );
    let key = new_key()?;
    bundle::create(&run.folder(), &original, Some(&key))?;

    let engine = Engine::new(&EngineOptions::default())?;
    redacted_copy(&engine, &original, rules(RULES), &copy).await?;
    for part in ["statement.json", "signatures"] {
        ensure!(original.join(part).exists(), "{part}");
        ensure!(!copy.join(part).exists(), "{part} is of the original");
    }
    bundle::create(&copy, &published, Some(&key))?;
    let found = holding(&published, &["row-3-rack-17", "TICKET-4711"])?;
    ensure!(found.is_empty(), "{found:#?}");

    let probe = component::load(&engine, guest.component()?)?;
    let reviewer = Reviewer {
        keys: vec![key.public()],
        ..Reviewer::trusting([probe.digest().to_owned()])
    };
    for (folder, copies) in [(&original, 0), (&published, 1)] {
        let report = verify(&engine, folder, &reviewer).await?;
        ensure!(report.holds(), "{report:#?}");
        let record = report.record.context("no record")?;
        ensure!(record.redacted.len() == copies, "{:?}", record.redacted);
        ensure!(record.probes[0].attempts[0].judgement.verdict == Some(Verdict::Pass));
    }
    // The statement of the original speaks of another run head.
    std::fs::copy(
        original.join("statement.json"),
        published.join("statement.json"),
    )?;
    let report = verify(&engine, &published, &reviewer).await?;
    ensure!(!report.findings.is_empty(), "{report:#?}");
    Ok(())
}

/// The first hides a word of an answer that the probe shows as its proof; the second one that its log has in a text that was
/// cut, where nobody can tell what it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_would_change_a_verdict_or_a_call_is_refused_without_a_trace() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    plant(lab, "refused").await?;
    let script = json!([
        {"do": "open", "id": "reads"},
        {"do": "get", "api": "v1", "resource": "configmaps", "ns": "default", "name": "refused"},
        {"do": "observe", "name": "ticket", "value": "TICKET-4711"},
        {"do": "conclude", "outcome": "pass"},
    ]);
    let guest = Guest::scripted("shows", &script)
        .permit("", &["configmaps"], &["get"], "cluster")
        .cases(&case("reads", "get configmaps"));
    let run = runs::guests(&lab.kubeconfig(), &[guest], Reach::Sandbox).await?;
    ensure!(run.attempt("shows").judgement.verdict == Some(Verdict::Pass));
    let engine = Engine::new(&EngineOptions::default())?;
    let place = tempfile::tempdir()?;
    let out = place.path().join("copy");
    for (text, differs) in [
        (
            "[[rule]]\nname = \"a\"\npattern = \"see TICKET-[0-9]+\"\n",
            "verdict",
        ),
        ("[[rule]]\nname = \"a\"\npath = \"data.b\"\n", "calls"),
    ] {
        match redacted_copy(&engine, &run.folder(), rules(text), &out).await {
            Err(CopyError::Differs {
                probe,
                attempt,
                what,
                ..
            }) => {
                ensure!(
                    (probe.as_str(), attempt, what.as_str()) == ("shows", 1, differs),
                    "{probe} {attempt} {what}"
                );
            }
            other => panic!("{differs}: {other:?}"),
        }
        ensure!(
            std::fs::read_dir(place.path())?.next().is_none(),
            "something is left"
        );
    }
    let none = redacted_copy(&engine, &run.folder(), Arc::default(), &out).await;
    ensure!(matches!(none, Err(CopyError::NoRules)), "{none:?}");
    Ok(())
}

/// The same rules before the run: nothing is ever written.
#[tokio::test(flavor = "multi_thread")]
async fn rules_of_a_run_hide_before_anything_is_written() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    plant(lab, "hidden").await?;
    let guest = reader("hidden");
    let run = runs::redacting(&lab.kubeconfig(), &[guest], rules(RULES)).await?;
    let recording = run.recording("reader")?;
    let digest = rules(RULES)
        .digest()
        .map(str::to_owned)
        .context("no digest")?;
    ensure!(
        recording
            .header()
            .redaction
            .ends_with(&format!("+{digest}")),
        "{}",
        recording.header().redaction
    );
    for entry in recording
        .entries()
        .iter()
        .filter(|entry| entry.function.starts_with("kube-read"))
    {
        let reply = format!("{:?}", recording.reply(entry)?);
        ensure!(
            !reply.contains("rack-17") && !reply.contains("TICKET"),
            "{reply}"
        );
    }
    Ok(())
}
