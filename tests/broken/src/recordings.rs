//! The recordings that entries of the tables name: each probe says the same again, offline and within milliseconds, and the
//! engine judges it as the table expects.
//!
//! After a change of a probe: `cargo xtask mutants --probe ID --record`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use karat_engine::component;
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::recording::fixture;
use karat_engine::replay::replay_fixture;
use karat_tests::guests::built;

use crate::one;
use crate::table;
use crate::verdict::compare_judgement;

#[tokio::test(flavor = "multi_thread")]
async fn recorded_runs_give_the_verdicts_of_the_table_again() -> Result<()> {
    let engine = Engine::new(&EngineOptions::default())?;
    let entries = table::load(&table::folder())?;
    let mut missing: BTreeSet<(&str, &str)> = entries
        .iter()
        .flat_map(|entry| ["pass", "fail"].map(|name| (entry.probe.as_str(), name)))
        .collect();
    for entry in &entries {
        let Some(name) = &entry.record_as else {
            continue;
        };
        missing.remove(&(entry.probe.as_str(), name.as_str()));
        let what = format!(
            "{}/{name}: after a change of the probe, record anew with `cargo xtask mutants --probe {0} --record`",
            entry.probe
        );
        let probe = component::load(&engine, built(&format!("probe-{}", entry.probe))?)?;
        let path = one::recordings(&table::folder().join("../../probes"), &entry.probe)
            .join(format!("{name}.jsonl"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let judgement = replay_fixture(&engine, &probe, fixture::load(&text)?)
            .await
            .map_err(anyhow::Error::msg)
            .with_context(|| what.clone())?;
        let mut wrong = Vec::new();
        compare_judgement(entry, &judgement, &mut wrong);
        ensure!(wrong.is_empty(), "{what}: {}", wrong.join("; "));
    }
    ensure!(missing.is_empty(), "not recorded: {missing:?}");
    Ok(())
}
