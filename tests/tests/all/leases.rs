//! Leases on a real cluster: two probes that want the only node alone never have it at one time, and both finish.

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use karat_engine::model::{Reach, Tier, Verdict};
use karat_engine::recording::Recording;
use karat_engine::recording::format::{Entry, Failure, Reply, Seen, function};
use karat_testbed::ControlPlane;
use karat_tests::guests::{Guest, case};
use karat_tests::runs;
use serde_json::{Value, json};

const ALONE: &str =
    "[[leases]]\nname = \"mine\"\nnodes = \"1\"\nunits = \"all\"\nalone = true\nfor = \"2s\"\n";

/// Takes the node, looks at the clock before and after its work, and concludes with `outcome`.
fn taker(id: &str, outcome: &str, lines: &str) -> Guest {
    let script = json!([
        {"do": "acquire", "names": ["mine"], "ms": 120_000},
        {"do": "now"},
        {"do": "open", "id": "alive"},
        {"do": "get", "api": "v1", "resource": "namespaces", "name": "kube-system"},
        {"do": "observe", "name": "kind", "value": "Namespace"},
        {"do": "sleep", "ms": 1500},
        {"do": "conclude", "outcome": outcome},
        {"do": "now"},
        {"do": "release"},
    ]);
    Guest::scripted(id, &script)
        .lines(lines)
        .cases(&case("alive", "get namespaces"))
}

fn text(recording: &Recording, entry: &Entry) -> Result<String> {
    let reply: Reply = recording.reply(entry)?;
    match reply {
        Ok(Seen::Text(text)) => Ok(text),
        other => anyhow::bail!("{}: {other:?}", entry.function),
    }
}

/// When a probe had looked at the clock for the first and for the last time, while it held its lease.
fn held(recording: &Recording) -> Result<(Timestamp, Timestamp)> {
    let clocks = recording.entries().iter();
    let times: Vec<Timestamp> = clocks
        .filter(|entry| entry.function == "clock.now")
        .map(|entry| Ok(text(recording, entry)?.parse()?))
        .collect::<Result<_>>()?;
    Ok((
        *times.first().context("no clock")?,
        *times.last().context("no clock")?,
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_probes_that_want_one_node_alone_take_turns() -> Result<()> {
    let lab = ControlPlane::builder().start().await?;
    lab.apply("device-plugin-node.yaml").await?;
    lab.wait_nodes_ready().await?;
    let guests = [
        taker("first", "pass", ALONE),
        taker("second", "pass", ALONE),
    ];
    let run = runs::guests(&lab.kubeconfig(), &guests, Reach::Sandbox).await?;
    let mut spans = Vec::new();
    for probe in ["first", "second"] {
        let judgement = &run.attempt(probe).judgement;
        assert_eq!(
            judgement.verdict,
            Some(Verdict::Pass),
            "{probe}: {}",
            judgement.explanation
        );
        let recording = run.recording(probe)?;
        let taken = recording
            .entries()
            .iter()
            .find(|entry| entry.function == function::LEASES_ACQUIRE);
        let taken = taken.context("no lease was taken")?;
        let fact = taken.facts.lease.as_ref().context("nothing was granted")?;
        assert_eq!((fact.number, fact.nodes.len()), (1, 1));
        assert!(fact.units.values().sum::<u64>() > 0, "{:?}", fact.units);
        let granted: Value = serde_json::from_str(&text(&recording, taken)?)?;
        let name = granted["nodes"][0]["name"].as_str().unwrap_or_default();
        assert!(name.starts_with("node-"), "{name} is no pseudonym");
        assert_eq!(fact.nodes, [name]);
        // The probe never read this node; the lease alone tells that nobody runs anything there.
        let marker = format!("simulated node: {name} was leased");
        assert_eq!(taken.facts.markers, [marker]);
        assert_eq!(judgement.tier, Tier::Simulated);
        spans.push(held(&recording)?);
    }
    spans.sort();
    assert!(spans[0].1 <= spans[1].0, "both held the node: {spans:?}");
    let leases = run
        .record
        .leases
        .context("the record says nothing of leases")?;
    assert_eq!(
        (leases.held, leases.planned_ms),
        (2, 4_000),
        "two of 2 s on one node"
    );
    assert!(
        leases.bound_ms >= 3_000 && leases.wall_ms >= leases.bound_ms,
        "{leases:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_said_and_an_undisturbed_fail_stays_one() -> Result<()> {
    let lab = ControlPlane::builder().start().await?;
    lab.apply("plain-node.yaml").await?;
    lab.wait_nodes_ready().await?;
    let never = ALONE.replace("nodes = \"1\"", "nodes = \"3\"");
    let alone = ALONE.replace("units = \"all\"\n", "");
    let guests = [
        taker("never", "pass", &never),
        taker("fails", "fail", &alone),
    ];
    let run = runs::guests(&lab.kubeconfig(), &guests, Reach::Sandbox).await?;
    let recording = run.recording("never")?;
    let mut asked = recording.entries().iter();
    let asked = asked.find(|entry| entry.function == function::LEASES_ACQUIRE);
    let reply = recording.reply(asked.context("no lease was asked for")?)?;
    let Err(Failure::Other(text)) = reply else {
        anyhow::bail!("{reply:?}");
    };
    assert!(
        text.starts_with("unavailable: 3 Ready, schedulable worker nodes"),
        "{text}"
    );
    let judgement = &run.attempt("fails").judgement;
    let (verdict, explanation) = (judgement.verdict, &judgement.explanation);
    assert_eq!(verdict, Some(Verdict::Fail), "{explanation}");
    Ok(())
}
