//! The probe `dra_support` hears every answer of its recording. That the recordings give the verdicts of the tables again is
//! tested beside the tables, in `tests/broken`.

use anyhow::{Context, Result, ensure};
use karat_engine::component;
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::recording::fixture;
use karat_engine::replay::replay_fixture;
use karat_tests::guests::built;
use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_answer_is_noticed() -> Result<()> {
    let engine = Engine::new(&EngineOptions::default())?;
    let probe = component::load(&engine, built("probe-dra-support")?)?;
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../probes/dra_support/recordings/fail.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let edited = text.replace("\"code\":404", "\"code\":500");
    ensure!(edited != text, "the fixture has no 404");
    let told = replay_fixture(&engine, &probe, fixture::load(&edited)?).await;
    ensure!(told.is_err(), "{told:#?}");
    Ok(())
}
