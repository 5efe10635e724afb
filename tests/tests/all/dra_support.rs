//! The recorded runs of the probe `dra-support`. The clusters that it must not accuse, and those that are wrong in exactly one
//! way, are entries of `tests/broken/dra_support.yaml`, which also says which of them are recorded.

use anyhow::{Context, Result, ensure};
use karat_engine::component;
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::model::Verdict;
use karat_engine::recording::fixture;
use karat_engine::replay::replay_fixture;
use karat_tests::guests::built;
use std::path::{Path, PathBuf};

fn fixture_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../probes/dra_support/recordings")
        .join(format!("{name}.jsonl"))
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_runs_give_the_same_verdicts_again() -> Result<()> {
    let engine = Engine::new(&EngineOptions::default())?;
    let probe = component::load(&engine, built("probe-dra-support")?)?;
    for (name, verdict, explanation) in [
        ("pass", Verdict::Pass, "8 required cases held"),
        (
            "fail",
            Verdict::Fail,
            "case served: the probe contradicts the claim: resource.k8s.io/v1 is not served",
        ),
    ] {
        let path = fixture_file(name);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let judgement = replay_fixture(&engine, &probe, fixture::load(&text)?)
            .await
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("{name}: after a change of the probe, record anew with `cargo xtask mutants --probe dra-support --record`"))?;
        ensure!(
            judgement.verdict == Some(verdict) && judgement.explanation.contains(explanation),
            "{name}: {judgement:#?}"
        );
    }

    // A probe that hears another answer says something else, and that is noticed.
    let text = std::fs::read_to_string(fixture_file("fail"))?;
    let edited = text.replace("\"code\":404", "\"code\":500");
    ensure!(edited != text, "the fixture has no 404");
    let told = replay_fixture(&engine, &probe, fixture::load(&edited)?).await;
    ensure!(told.is_err(), "{told:#?}");
    Ok(())
}
