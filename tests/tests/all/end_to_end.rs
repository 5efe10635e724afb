//! A run from a component to a verdict on a real API server, and back from its folder to the same verdict without one.

use anyhow::{Context, Result};
use karat_engine::cluster::{Cluster, ConnectOptions};
use karat_engine::component::{self, Probe};
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::event::Events;
use karat_engine::gate::StopSignal;
use karat_engine::grant::Grants;
use karat_engine::model::{Outcome, Reach, RunRecord, Verdict};
use karat_engine::replay::{Depth, replay};
use karat_engine::run::{Mode, RunRequest, run};
use karat_testbed::ControlPlane;
use std::collections::BTreeMap;
use std::path::Path;

fn engine() -> Result<Engine> {
    Ok(Engine::new(&EngineOptions::default())?)
}

/// A probe as `cargo xtask probes` built it.
fn built(engine: &Engine, name: &str) -> Result<Probe> {
    let path = karat_tests::guests::target_dir().join(format!("components/{name}.wasm"));
    let bytes = std::fs::read(&path).with_context(|| {
        format!(
            "{} is missing; build it with `cargo xtask probes`",
            path.display()
        )
    })?;
    Ok(component::load(engine, bytes)?)
}

async fn request(
    engine: &Engine,
    plane: &ControlPlane,
    probes: Vec<Probe>,
    out: &Path,
) -> Result<RunRequest> {
    let engine_cluster = Cluster::connect(ConnectOptions {
        kubeconfig: Some(plane.kubeconfig()),
        ..ConnectOptions::default()
    })
    .await?;
    let probe_cluster = Cluster::connect(ConnectOptions {
        kubeconfig: Some(plane.kubeconfig()),
        pace: Some(engine_cluster.pace()),
        ..ConnectOptions::default()
    })
    .await?;
    let mut grants = Grants::none();
    for probe in &probes {
        grants.extend(Grants::all_asked(probe.manifest()));
    }
    Ok(RunRequest {
        engine: engine.clone(),
        probes,
        left_out: Vec::new(),
        engine_cluster,
        probe_cluster,
        grants,
        reach: Reach::ClusterObjects,
        settings: BTreeMap::new(),
        mirrors: BTreeMap::new(),
        parallel: 4,
        out: out.to_owned(),
        mode: Mode::New,
        nonce: Some("reviewer-1".to_owned()),
        events: Events::silent(),
        stop: StopSignal::never(),
        stop_now: StopSignal::never(),
    })
}

fn explained(record: &RunRecord) -> String {
    let probes = record.probes.iter().flat_map(|probe| &probe.attempts);
    probes
        .map(|attempt| format!("{:?} {:#?}\n", attempt.outcome, attempt.judgement))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_probe_passes_and_its_verdict_replays_offline() -> Result<()> {
    let engine = engine()?;
    let plane = karat_testbed::shared().await?;
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("run");
    let probe = built(&engine, "smallest-probe")?;
    let record = run(request(&engine, plane, vec![probe], &out).await?).await?;

    let attempt = &record.probes[0].attempts[0];
    assert_eq!(
        attempt.outcome,
        Outcome::Concluded,
        "{}",
        explained(&record)
    );
    assert_eq!(
        attempt.judgement.verdict,
        Some(Verdict::Pass),
        "{}",
        explained(&record)
    );
    assert!(
        attempt.usage.calls > 0
            && attempt.usage.requests > 0
            && attempt.usage.peak_memory_bytes > 0
    );
    assert!(record.ended.is_some());

    let report = replay(&engine, &out, None).await?;
    assert!(report.is_consistent(), "{:#?}", report.attempts);
    assert_eq!(report.attempts[0].depth, Depth::Full);
    assert_eq!(report.attempts[0].calls, attempt.usage.calls);
    Ok(())
}
