//! A run from a component to a verdict on a real API server, and back from its folder to the same verdict without one.

use anyhow::{Context, Result};
use karat_engine::cluster::{Cluster, ConnectOptions};
use karat_engine::component::{self, Probe};
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::event::{Events, RunEventKind};
use karat_engine::gate::StopSignal;
use karat_engine::grant::Grants;
use karat_engine::images::Images;
use karat_engine::lease::NodeChoice;
use karat_engine::model::{Outcome, Reach, RunRecord, Verdict};
use karat_engine::replay::{Depth, replay};
use karat_engine::run::lock::Lock;
use karat_engine::run::{Mode, RunError, RunRequest, run};
use karat_testbed::ControlPlane;
use karat_tests::guests::{Guest, case};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
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

pub(crate) async fn request(
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
        images: Images::default(),
        nodes: NodeChoice::default(),
        parallel: 4,
        out: out.to_owned(),
        mode: Mode::New,
        // Tests share a cluster, and look at what belongs to their own run.
        lock: Lock::None,
        enforce: BTreeSet::new(),
        redaction: std::sync::Arc::default(),
        nonce: Some("reviewer-1".to_owned()),
        witness: false,
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

/// A probe that reads and then waits as long as it may.
fn patient(id: &str, ms: u32) -> Guest {
    let script = json!([
        {"do": "open", "id": "alive"},
        {"do": "get", "api": "v1", "resource": "namespaces", "name": "kube-system"},
        {"do": "sleep", "ms": ms},
        {"do": "observe", "name": "kind", "value": "Namespace"},
        {"do": "conclude", "outcome": "pass"},
    ]);
    Guest::scripted(id, &script).cases(&case("alive", "get namespaces"))
}

fn wrapped(engine: &Engine, guest: &Guest) -> Result<Probe> {
    Ok(component::load(engine, guest.component()?)?)
}

fn attempts(record: &RunRecord, probe: &str) -> Vec<(u32, &'static str, Option<Verdict>)> {
    let found = record.probes.iter().find(|record| record.probe == probe);
    found
        .map(|record| &record.attempts[..])
        .unwrap_or_default()
        .iter()
        .map(|attempt| {
            (
                attempt.attempt,
                attempt.outcome.word(),
                attempt.judgement.verdict,
            )
        })
        .collect()
}

/// Stops a run when its probe waits, resumes it, and looks at both attempts in the record.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_run_cleans_up_and_is_resumed_with_new_attempts() -> Result<()> {
    let engine = engine()?;
    let plane = karat_testbed::shared().await?;
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("run");
    let setting = |ms: u32| {
        let script = patient("patient", ms);
        let namespaced = script.namespace("main");
        wrapped(&engine, &namespaced)
    };
    let probes = vec![setting(600_000)?, wrapped(&engine, &patient("later", 0))?];

    let (handle, signal) = StopSignal::pair();
    let (events, mut stream) = Events::channel();
    let mut first = request(&engine, plane, probes.clone(), &out).await?;
    first.parallel = 1;
    first.stop = signal;
    first.events = events;
    let stopping = tokio::spawn(async move {
        while let Some(event) = stream.recv().await {
            // The wait is an entry only when it ends, so the call before it is the last that is heard of.
            if matches!(&event.kind, RunEventKind::Called { function, .. } if function == "kube-read.query.get")
            {
                handle.stop();
            }
        }
    });
    let record = run(first).await?;
    stopping.await?;
    assert_eq!(attempts(&record, "patient"), [(1, "interrupted", None)]);
    assert_eq!(attempts(&record, "later"), [(1, "interrupted", None)]);
    assert!(record.ended.is_some() && record.probes[0].attempts[0].left_behind.is_empty());
    let report = replay(&engine, &out, None).await?;
    assert!(report.is_consistent(), "{:#?}", report.attempts);
    assert!(matches!(
        report.attempts[0].depth,
        Depth::NotRecomputable(_)
    ));

    // Another set of probes is another run.
    let mut other = request(&engine, plane, vec![setting(1)?], &out).await?;
    other.mode = Mode::Resume;
    assert!(matches!(run(other).await, Err(RunError::Changed { .. })));

    let mut resumed = request(&engine, plane, probes, &out).await?;
    resumed.mode = Mode::Resume;
    let (handle, signal) = StopSignal::pair();
    let (events, mut stream) = Events::channel();
    resumed.stop = signal;
    resumed.events = events;
    let stopping = tokio::spawn(async move {
        let mut later_is_done = false;
        let mut patient_waits = false;
        while let Some(event) = stream.recv().await {
            match &event.kind {
                RunEventKind::ProbeFinished { probe, .. } if probe == "later" => {
                    later_is_done = true
                }
                RunEventKind::Called {
                    probe, function, ..
                } if probe == "patient" && function == "kube-read.query.get" => {
                    patient_waits = true;
                }
                _ => {}
            }
            if later_is_done && patient_waits {
                handle.stop();
            }
        }
    });
    let record = run(resumed).await?;
    stopping.await?;
    assert_eq!(
        attempts(&record, "patient"),
        [(1, "interrupted", None), (2, "interrupted", None)]
    );
    assert_eq!(
        attempts(&record, "later"),
        [
            (1, "interrupted", None),
            (2, "concluded", Some(Verdict::Pass))
        ]
    );
    let report = replay(&engine, &out, None).await?;
    assert!(report.is_consistent(), "{:#?}", report.attempts);
    assert_eq!(report.attempts.len(), 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_probes_are_rerun_and_passed_ones_are_not() -> Result<()> {
    let engine = engine()?;
    let plane = karat_testbed::shared().await?;
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("run");
    let probes = vec![
        wrapped(&engine, &Guest::attacking("gives-up", "error"))?,
        wrapped(&engine, &patient("passes", 0))?,
    ];
    let record = run(request(&engine, plane, probes.clone(), &out).await?).await?;
    assert_eq!(attempts(&record, "passes").len(), 1);
    let before = record.head.clone();

    let mut again = request(&engine, plane, probes, &out).await?;
    again.mode = Mode::RerunFailed;
    let record = run(again).await?;
    assert_eq!(attempts(&record, "passes").len(), 1);
    assert_eq!(
        attempts(&record, "gives-up"),
        [
            (1, "probe-error", Some(Verdict::Unknown)),
            (2, "probe-error", Some(Verdict::Unknown))
        ]
    );
    assert_ne!(
        record.head, before,
        "each attempt is folded into the run's head"
    );
    assert!(replay(&engine, &out, None).await?.is_consistent());
    Ok(())
}

/// What a vendor might change after the run, each in a copy of its own.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_edited_after_the_run_is_found() -> Result<()> {
    let engine = engine()?;
    let plane = karat_testbed::shared().await?;
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("run");
    let script = json!([
        {"do": "open", "id": "alive"},
        {"do": "get", "api": "v1", "resource": "namespaces", "name": "kube-system"},
        {"do": "conclude", "outcome": "fail"},
    ]);
    let guest = Guest::scripted("fails", &script).cases(&case("alive", "get namespaces"));
    let record = run(request(&engine, plane, vec![wrapped(&engine, &guest)?], &out).await?).await?;
    assert_eq!(
        record.probes[0].attempts[0].judgement.verdict,
        Some(Verdict::Fail),
        "{}",
        explained(&record)
    );
    assert!(replay(&engine, &out, None).await?.is_consistent());

    let attempt = out.join(
        record.probes[0].attempts[0]
            .recording
            .as_ref()
            .context("recorded")?,
    );
    let mut files: Vec<_> = std::fs::read_dir(attempt.join("blobs"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.extend(
        std::fs::read_dir(out.join("components"))?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<std::io::Result<Vec<_>>>()?,
    );
    for file in files {
        let whole = std::fs::read(&file)?;
        let mut edited = whole.clone();
        let middle = edited.len() / 2;
        edited[middle] ^= 0x20;
        std::fs::write(&file, &edited)?;
        let report = replay(&engine, &out, None).await?;
        assert!(
            !report.is_consistent(),
            "an edit of {} was not found",
            file.display()
        );
        std::fs::write(&file, &whole)?;
    }
    // The lines, packed anew: flipping a packed byte may leave every line as it was (2 of 700 do), which edits nothing.
    let recording = attempt.join("recording.jsonl.zst");
    let packed = std::fs::read(&recording)?;
    let lines = zstd::decode_all(packed.as_slice())?;
    for place in [lines.len() / 4, lines.len() / 2, lines.len() - 3] {
        let mut edited = lines.clone();
        edited[place] ^= 0x20;
        std::fs::write(&recording, zstd::encode_all(edited.as_slice(), 3)?)?;
        let report = replay(&engine, &out, None).await?;
        assert!(!report.is_consistent(), "byte {place} of the lines");
    }
    std::fs::write(&recording, &packed)?;

    let path = out.join("run.json");
    let text = std::fs::read_to_string(&path)?;
    for (from, to) in [
        (r#""verdict": "fail""#, r#""verdict": "pass""#),
        (r#""kind": "fail""#, r#""kind": "pass""#),
        (r#""tier": "unmarked""#, r#""tier": "hardware""#),
        (r#""tier": "simulated""#, r#""tier": "hardware""#),
        (r#""requests": 1"#, r#""requests": 7"#),
        (
            r#""title": "A guest of the tests""#,
            r#""title": "A better guest""#,
        ),
    ] {
        if !text.contains(from) {
            continue;
        }
        std::fs::write(&path, text.replacen(from, to, 1))?;
        let report = replay(&engine, &out, None).await?;
        assert!(
            !report.is_consistent(),
            "{from} became {to} and was not found"
        );
        assert!(
            report
                .findings()
                .all(|finding| finding.recorded != finding.replayed)
        );
    }
    std::fs::write(&path, &text)?;
    assert!(replay(&engine, &out, None).await?.is_consistent());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_the_plan_left_out_stands_in_the_record() -> Result<()> {
    let engine = engine()?;
    let plane = karat_testbed::shared().await?;
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("run");
    let mut request = request(
        &engine,
        plane,
        vec![wrapped(&engine, &patient("runs", 0))?],
        &out,
    )
    .await?;
    let denied = Outcome::Denied("needs a grant".to_owned());
    request.left_out = vec![(wrapped(&engine, &patient("denied", 0))?, denied.clone())];
    let record = run(request).await?;
    assert_eq!(
        attempts(&record, "runs"),
        [(1, "concluded", Some(Verdict::Pass))]
    );
    assert_eq!(attempts(&record, "denied"), [(1, "denied", None)]);
    let report = replay(&engine, &out, None).await?;
    assert!(report.is_consistent(), "{:#?}", report.attempts);
    assert!(matches!(report.attempts[1].depth, Depth::None(_)));
    Ok(())
}
