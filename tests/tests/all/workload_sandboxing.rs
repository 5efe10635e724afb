//! The probe `workload_sandboxing` on a node whose pods run, through the whole engine and back from the recording. More clusters,
//! and what it must say of them, are in `tests/broken/workload_sandboxing.yaml`.

use anyhow::{Result, ensure};
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::model::{Reach, Verdict};
use karat_engine::replay::{Depth, replay};
use karat_testbed::{
    ControlPlane, KubernetesVersion, RuntimeHandler, can_run_nodes, gvisor_need, not_run,
};
use karat_tests::guests::built;
use karat_tests::runs::{self, Run};
use std::collections::BTreeMap;

const PROBE: &str = "workload-sandboxing";

/// A run of the probe on a laboratory whose handler `gvisor` is as the builder says.
async fn run_on(lab: &ControlPlane) -> Result<Run> {
    lab.apply("gvisor.yaml").await?;
    runs::run_with_images(
        &lab.kubeconfig(),
        vec![built("probe-workload-sandboxing")?],
        Reach::Sandbox,
        BTreeMap::new(),
        runs::own_images(|_| {})?,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_passes_and_its_verdict_replays_offline() -> Result<()> {
    const NAME: &str = "workload_sandboxing::a_sandbox_passes_and_its_verdict_replays_offline";
    if let Err(why) = can_run_nodes() {
        not_run(NAME, &why);
        return Ok(());
    }
    let lab = ControlPlane::builder().real_nodes(1).start().await?;
    let gvisor = gvisor_need(KubernetesVersion::default());
    if !gvisor.met {
        not_run(NAME, &gvisor.text);
        return Ok(());
    }
    let run = run_on(&lab).await?;
    let attempt = run.attempt(PROBE);
    ensure!(
        attempt.judgement.verdict == Some(Verdict::Pass) && attempt.left_behind.is_empty(),
        "{:#?} {:?}",
        attempt.judgement,
        attempt.left_behind
    );
    // Nothing of the cluster is needed any more.
    drop(lab);
    let engine = Engine::new(&EngineOptions::default())?;
    let again = replay(&engine, &run.folder(), None).await?;
    ensure!(again.is_consistent(), "{:#?}", again.attempts);
    ensure!(again.attempts[0].depth == Depth::Full);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_containers_under_the_name_of_a_sandbox_fail_by_their_kernel_alone() -> Result<()> {
    const NAME: &str = "workload_sandboxing::plain_containers_under_the_name_of_a_sandbox_fail_by_their_kernel_alone";
    if let Err(why) = can_run_nodes() {
        not_run(NAME, &why);
        return Ok(());
    }
    let lab = ControlPlane::builder()
        .real_nodes(1)
        .runtime_handler("gvisor", RuntimeHandler::Runc)
        .start()
        .await?;
    let run = run_on(&lab).await?;
    let judgement = &run.attempt(PROBE).judgement;
    let failed: Vec<&str> = judgement
        .cases
        .iter()
        .filter(|case| case.verdict == Verdict::Fail)
        .map(|case| case.case.id.as_str())
        .collect();
    ensure!(failed == ["kernel"], "{judgement:#?}");
    ensure!(judgement.verdict == Some(Verdict::Fail), "{judgement:#?}");
    Ok(())
}
