//! The whole suite at once on one cluster: every probe passes that can pass there, and no pod lies on a node that its probe does
//! not hold. Nodes are played, and on a machine that can, one of them is real: then pods run, too.

use crate::end_to_end::request;
use anyhow::{Context as _, Result, ensure};
use karat_engine::component::{self, Probe};
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::images::Images;
use karat_engine::lease::NodeChoice;
use karat_engine::model::Verdict;
use karat_engine::recording::{self, Recording};
use karat_engine::run::{RunRequest, run};
use karat_testbed::{ControlPlane, KubernetesVersion, can_run_nodes, gvisor_need, not_run};
use karat_tests::{guests, runs};
use std::collections::BTreeSet;
use std::path::Path;

const FIXTURES: [&str; 3] = ["nvidia-nodes.yaml", "amd-nodes.yaml", "intel-nodes.yaml"];

/// Probes that this cluster lacks something for; they must leave the others alone all the same.
const LACK: [&str; 6] = [
    "agent-sandbox-lifecycle",
    "ai-service-metrics",
    "jobset-lifecycle",
    "pod-autoscaling",
    "robust-controller",
    "secure-accelerator-access",
];
/// Those that need pods which run.
const INSIDE: [&str; 3] = [
    "inplace-pod-resize",
    "model-readiness",
    "workload-sandboxing",
];

/// Every probe of the repository.
pub(crate) fn suite(engine: &Engine) -> Result<Vec<Probe>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../probes");
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        names.push(entry?.file_name().to_string_lossy().replace('_', "-"));
    }
    names
        .iter()
        .map(|name| {
            let bytes = guests::built(&format!("probe-{name}"))?;
            Ok(component::load(engine, bytes)?)
        })
        .collect()
}

/// The pods of this attempt that lie on nodes which no lease of the attempt names, and how many pods lie anywhere.
fn astray(recording: &Recording) -> (Vec<String>, usize) {
    let facts = || recording.entries().iter().map(|entry| &entry.facts);
    let leased: BTreeSet<&str> = facts()
        .filter_map(|facts| facts.lease.as_ref())
        .flat_map(|lease| lease.nodes.iter().map(String::as_str))
        .collect();
    let placed: BTreeSet<(&str, &str)> = facts()
        .flat_map(|facts| &facts.objects)
        .filter(|object| object.ours && object.kind == "Pod" && !object.node.is_empty())
        .map(|object| (object.name.as_str(), object.node.as_str()))
        .collect();
    let astray = placed.iter().filter(|(_, node)| !leased.contains(node));
    (
        astray
            .map(|(pod, node)| format!("{pod} on {node}"))
            .collect(),
        placed.len(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pod_of_a_probe_lies_on_a_node_of_another() -> Result<()> {
    const NAME: &str = "side_by_side::no_pod_of_a_probe_lies_on_a_node_of_another";
    let can = can_run_nodes();
    let gvisor = gvisor_need(KubernetesVersion::default());
    let mut builder = ControlPlane::builder().workload_api();
    let mut own = Images::default();
    let mut fixtures = FIXTURES.to_vec();
    if can.is_ok() && gvisor.met {
        builder = builder.real_nodes(1);
        fixtures.push("gvisor.yaml");
        own = runs::own_images(|_| {})?;
    } else {
        let why = can.err().unwrap_or(gvisor.text);
        not_run(&format!("{NAME} (pods that run)"), &why);
    }
    let runs = own != Images::default();
    let plane = builder.start().await?;
    for fixture in fixtures {
        plane.apply(fixture).await?;
    }
    plane.wait_nodes_ready().await?;
    let engine = Engine::new(&EngineOptions::default())?;
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("run");
    let probes = suite(&engine)?;
    let record = run(RunRequest {
        parallel: probes.len(),
        images: own,
        nodes: NodeChoice::default(),
        ..request(&engine, &plane, probes, &out).await?
    })
    .await?;
    let mut pods = 0;
    for probe in &record.probes {
        let attempt = probe.attempts.last().context("no attempt")?;
        let judgement = &attempt.judgement;
        let id = probe.probe.as_str();
        let can = !LACK.contains(&id) && (runs || !INSIDE.contains(&id));
        ensure!(
            !can || judgement.verdict == Some(Verdict::Pass),
            "{}: {judgement:#?}",
            probe.probe
        );
        let path = attempt.recording.as_ref().context("never started")?;
        let (astray, placed) = astray(&recording::read(&out.join(path))?);
        ensure!(astray.is_empty(), "{}: {astray:?}", probe.probe);
        pods += placed;
    }
    ensure!(pods > 20, "{pods} pods were placed, which shows nothing");
    Ok(())
}
