//! A cluster whose nodes get none of the images that probes start: a registry that nobody serves. Each probe says so, in the words of the
//! kubelet, long before it would have given up, and accuses nobody.

use crate::end_to_end::request;
use crate::side_by_side::suite;
use anyhow::{Context as _, Result, ensure};
use karat_engine::component::Probe;
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::grant::Grants;
use karat_engine::images::Placement;
use karat_engine::model::{AttemptRecord, Reason, Verdict};
use karat_engine::recording::{self, Recording};
use karat_engine::run::{RunRequest, run};
use karat_testbed::{AddOn, ControlPlane, KubernetesVersion, can_run_nodes, gvisor_need, not_run};
use karat_tests::runs;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const NAME: &str = "without_images::a_missing_image_is_told_by_every_probe";
/// Where all images are said to be.
const NOWHERE: &str = "127.0.0.1:1/nowhere";
/// Registries of the manifests.
const REGISTRIES: [&str; 2] = ["registry.k8s.io", "docker.io"];
/// The probe that starts no container: its pods are never scheduled.
const STARTS_NONE: &str = "admission-policy";
/// Its cases that need a pod decide nothing.
const OPTIONAL: &str = "dra-support";
/// What no table of vendors knows of the driver of the laboratory.
const DEVICE_PATHS: &str = "/dev/karat-dev-";

/// The annotations by which Prometheus finds workloads.
fn annotations(grants: &mut Grants) -> Result<()> {
    for probe in ["ai-service-metrics", "pod-autoscaling"] {
        let text = format!(
            "[[exception]]\nprobe = \"{probe}\"\n\
            annotations = [\"prometheus.io/scrape\", \"prometheus.io/port\", \"prometheus.io/path\"]\n"
        );
        grants.extend(Grants::parse(&text, "grants.toml")?);
    }
    Ok(())
}

/// How long a case was open, in milliseconds.
fn took(recording: &Recording, case: &str) -> u64 {
    let calls = || {
        let all = recording.entries().iter();
        all.filter(|entry| entry.case.as_ref().is_some_and(|key| key.id == case))
    };
    let first = calls().map(|entry| entry.at_ms).min();
    let last = calls().map(|entry| entry.done_ms).max();
    last.unwrap_or_default()
        .saturating_sub(first.unwrap_or_default())
}

/// What is wrong with an attempt; else which cases told of the image.
fn told<'a>(probe: &str, attempt: &'a AttemptRecord) -> Result<Vec<&'a str>> {
    let judgement = &attempt.judgement;
    let failed = judgement
        .cases
        .iter()
        .find(|it| it.verdict == Verdict::Fail);
    ensure!(failed.is_none(), "{probe}: {failed:#?}");
    let cases = judgement.cases.iter();
    let told: Vec<_> = cases
        .filter(|case| case.reason == Some(Reason::ImageUnavailable))
        .collect();
    for case in &told {
        let says = |part: &str| case.explanation.contains(part);
        ensure!(
            says("no image for") && says("Back-off pulling image") && says(NOWHERE),
            "{probe}: {case:#?}"
        );
    }
    let unknown = judgement.verdict == Some(Verdict::Unknown)
        && judgement.reason == Some(Reason::ImageUnavailable);
    let is_so = !told.is_empty() && (unknown || probe == OPTIONAL);
    ensure!(is_so, "{probe}: {judgement:#?}");
    Ok(told.iter().map(|case| case.case.id.as_str()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_is_told_by_every_probe() -> Result<()> {
    if let Err(why) = can_run_nodes() {
        not_run(NAME, &why);
        return Ok(());
    }
    // The only nodes are real ones, so every pod is one that a kubelet starts.
    let mut lab = ControlPlane::builder().workload_api().real_nodes(1);
    for add_on in [
        AddOn::DraDriver,
        AddOn::MetricsAdapter,
        AddOn::JobSet,
        AddOn::AgentSandbox,
    ] {
        lab = lab.with(add_on);
    }
    let lab = lab.start().await?;
    let gvisor = gvisor_need(KubernetesVersion::default());
    if gvisor.met {
        lab.apply("gvisor.yaml").await?;
    } else {
        not_run(&format!("{NAME} (workload-sandboxing)"), &gvisor.text);
    }
    lab.wait_nodes_ready().await?;
    let engine = Engine::new(&EngineOptions::default())?;
    let mut probes: Vec<Probe> = suite(&engine)?;
    probes.retain(|probe| {
        let id = &probe.manifest().id;
        *id != STARTS_NONE && (gvisor.met || *id != "workload-sandboxing")
    });
    if let Ok(only) = std::env::var("KARAT_PROBE") {
        probes.retain(|probe| probe.manifest().id == only);
    }
    let started = probes.len();
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("run");
    let paths = BTreeMap::from([("device-paths".to_owned(), DEVICE_PATHS.to_owned())]);
    let mut asked = RunRequest {
        // They take turns on the node.
        parallel: started,
        images: runs::own_images_at(Placement {
            pushed_to: Some(NOWHERE.to_owned()),
            mirrors: REGISTRIES
                .map(|from| (from.to_owned(), NOWHERE.to_owned()))
                .into(),
            ..Placement::default()
        })?,
        settings: BTreeMap::from([("secure-accelerator-access".to_owned(), paths)]),
        ..request(&engine, &lab, probes, &out).await?
    };
    annotations(&mut asked.grants)?;
    let record = run(asked).await?;
    let (mut times, mut wrong) = (String::new(), String::new());
    for probe in &record.probes {
        let attempt = probe.attempts.last().context("no attempt")?;
        match told(&probe.probe, attempt) {
            Ok(cases) => {
                let path = attempt.recording.as_ref().context("never started")?;
                let recording = recording::read(&out.join(path))?;
                // Those that rest on the one that waited say it at once.
                let all = cases.iter().map(|case| (took(&recording, case), *case));
                let (took, case) = all.max().context("no case")?;
                writeln!(times, "{took:>7} ms  {} {case}", probe.probe)?;
            }
            Err(error) => writeln!(wrong, "{error:?}\n")?,
        }
    }
    println!("until a missing image was told:\n{times}");
    ensure!(wrong.is_empty(), "{wrong}\n{times}");
    ensure!(record.probes.len() == started, "not all probes ran");
    Ok(())
}
