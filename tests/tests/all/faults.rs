//! Faults of the API server and of what stands before it, one by one and all together, while `dra_support` runs; and those on
//! the way to containers (`containers`), while probes run that look into them.
//!
//! The verdict is the one of an undisturbed run, or `unknown` for the right reason; never a wrong one. Nothing is left in
//! the cluster, and the recording gives the same verdict again. A row whose fault did not happen fails: it shows nothing.
//! The rows are in `table`; what a lying server can still make anybody believe is said there, row by row.
//!
//! Moments are random. `KARAT_FAULT_SEED` chooses others; a failure names the seed that it had.

mod containers;
mod table;

use anyhow::{Context, Result, bail, ensure};
use karat_engine::component::{self, Probe};
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::grant::Grants;
use karat_engine::images::Images;
use karat_engine::model::{AttemptRecord, Outcome, Reach, Reason, Verdict};
use karat_engine::replay::{Depth, replay};
use karat_testbed::proxy::{Proxy, Rule};
use karat_testbed::{Component, ControlPlane, DraApi};
use karat_tests::guests::built;
use karat_tests::{runs, state};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Runs at a time: each waits most of its time, and all of them share two or three cores with a control plane.
const PARALLEL: usize = 16;
const SEED: u64 = 20_261_121;

/// One fault.
struct Row {
    name: &'static str,
    /// Gets the seed of the row.
    rules: fn(u64) -> Vec<Rule>,
    promise: Promise,
}

/// What a run under the fault must come to.
enum Promise {
    /// The verdict of an undisturbed run.
    Same,
    /// Nothing can be said, for this reason.
    Unknown(Reason),
    /// One of the two: it depends on the moment.
    SameOrUnknown,
    /// The server lies in a way that no client can see through, and what it shows does not conform. The text is a part of
    /// what the probe says.
    Fail(&'static str),
    /// The probe is not started. The text is a part of the reason.
    NotStarted(&'static str),
}

fn seed() -> u64 {
    let given = std::env::var("KARAT_FAULT_SEED").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(SEED)
}

#[derive(Clone)]
struct Bench {
    engine: Engine,
    probe: Probe,
    grants: Grants,
    settings: BTreeMap<String, BTreeMap<String, String>>,
    images: Images,
}

impl Bench {
    fn new() -> Result<Bench> {
        Bench::of(&Engine::new(&EngineOptions::default())?, "dra-support")
    }

    /// For one probe, with what it asks for and no more.
    fn of(engine: &Engine, probe: &str) -> Result<Bench> {
        Ok(Bench {
            engine: engine.clone(),
            probe: component::load(engine, built(&format!("probe-{probe}"))?)?,
            grants: Grants::none(),
            settings: BTreeMap::new(),
            images: Images::default(),
        })
    }

    /// Runs the probe through a proxy; gives the run's id.
    async fn check(&self, proxy: &Proxy, promise: &Promise) -> Result<String> {
        let run = runs::run_loaded(
            proxy.kubeconfig(),
            self.engine.clone(),
            vec![self.probe.clone()],
            Reach::ClusterObjects,
            self.grants.clone(),
            self.settings.clone(),
            self.images.clone(),
        )
        .await?;
        let attempt = run.attempt(&self.probe.manifest().id);
        let told = || told(attempt);
        ensure!(
            attempt.left_behind.is_empty(),
            "left behind: {:?}\n{}",
            attempt.left_behind,
            told()
        );
        keeps(promise, attempt).with_context(told)?;
        if attempt.recording.is_some() {
            let again = replay(&self.engine, &run.folder(), None).await?;
            let findings: Vec<String> = again.findings().map(ToString::to_string).collect();
            ensure!(findings.is_empty(), "replayed: {findings:?}\n{}", told());
            let depth = &again.attempts.last().context("nothing was replayed")?.depth;
            ensure!(*depth == Depth::Full, "replayed: {depth:?}\n{}", told());
        }
        Ok(run.record.run)
    }
}

fn keeps(promise: &Promise, attempt: &AttemptRecord) -> Result<()> {
    let judgement = &attempt.judgement;
    if let Promise::NotStarted(why) = promise {
        let Outcome::Denied(text) = &attempt.outcome else {
            bail!("the probe was started");
        };
        ensure!(text.contains(why), "not started because of: {text}");
        return Ok(());
    }
    ensure!(attempt.outcome == Outcome::Concluded, "it did not conclude");
    let failed = judgement
        .cases
        .iter()
        .filter(|case| case.verdict == Verdict::Fail);
    let said: Vec<String> = failed
        .flat_map(|case| &case.observations)
        .filter(|observation| observation.name == "contradiction")
        .map(|observation| observation.value.clone())
        .collect();
    if let Promise::Fail(want) = promise {
        ensure!(judgement.verdict == Some(Verdict::Fail), "it did not fail");
        ensure!(said.iter().any(|text| text.contains(want)), "{said:?}");
        return Ok(());
    }
    ensure!(said.is_empty(), "an innocent server is accused: {said:?}");
    let is_right = match (judgement.verdict, promise) {
        (Some(Verdict::Pass), Promise::Same | Promise::SameOrUnknown) => true,
        (Some(Verdict::Unknown), Promise::Unknown(reason)) => judgement.reason == Some(*reason),
        // Time ran out on a server that did not answer; nothing else may be given as the reason.
        (Some(Verdict::Unknown), Promise::SameOrUnknown) => {
            judgement.reason == Some(Reason::Deadline)
        }
        _ => false,
    };
    ensure!(is_right, "not what was promised");
    Ok(())
}

fn told(attempt: &AttemptRecord) -> String {
    use std::fmt::Write as _;
    let judgement = &attempt.judgement;
    let mut text = format!(
        "{:?} {:?} {:?}: {}",
        attempt.outcome, judgement.verdict, judgement.reason, judgement.explanation
    );
    for case in &judgement.cases {
        let _ = write!(
            text,
            "\n  {} {:?} {:?}: {}",
            case.case, case.verdict, case.reason, case.explanation
        );
    }
    text
}

async fn before(lab: &ControlPlane, rules: Vec<Rule>) -> Result<Proxy> {
    let proxy = rules
        .into_iter()
        .fold(lab.proxy(), |proxy, rule| proxy.rule(rule));
    Ok(proxy.start().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_makes_a_verdict_wrong() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let bench = Bench::new()?;
    let places = Arc::new(Semaphore::new(PARALLEL));
    let seed = seed();
    let only = std::env::var("KARAT_FAULT").unwrap_or_default();
    let mut rows = JoinSet::new();
    for (at, row) in table::rows().into_iter().enumerate() {
        if !row.name.contains(&only) {
            continue;
        }
        let (bench, places) = (bench.clone(), Arc::clone(&places));
        rows.spawn(async move {
            let _place = places.acquire().await;
            let rules = (row.rules)(seed.wrapping_add(at as u64));
            let went = async {
                let proxy = before(lab, rules).await?;
                let run = bench.check(&proxy, &row.promise).await?;
                let hits = proxy.hits();
                let fired = match row.promise {
                    // Chance decides which of several faults come before the end.
                    Promise::SameOrUnknown => hits.iter().any(|hits| *hits > 0),
                    _ => !hits.contains(&0),
                };
                ensure!(fired, "a fault never happened: {hits:?}");
                Ok(run)
            };
            went.await
                .map_err(|error| format!("{}: {error:?}", row.name))
        });
    }
    let mut runs = Vec::new();
    let mut wrong = Vec::new();
    while let Some(row) = rows.join_next().await {
        match row? {
            Ok(run) => runs.push(run),
            Err(text) => wrong.push(text),
        }
    }
    // What a run makes has its id in its name, or lies in a namespace that has.
    let left = state::of(&lab.client().await?).await?;
    let ours = |key: &&String| runs.iter().any(|run| key.contains(run.as_str()));
    let left: Vec<&String> = left.keys().filter(ours).collect();
    if !left.is_empty() {
        wrong.push(format!("left in the cluster: {left:?}"));
    }
    ensure!(
        wrong.is_empty(),
        "{} of {} rows, seed {seed}:\n\n{}",
        wrong.len(),
        runs.len() + wrong.len(),
        wrong.join("\n\n")
    );
    Ok(())
}

/// Needs a control plane of its own: nobody else likes it to go away.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_makes_no_verdict_wrong() -> Result<()> {
    let lab = ControlPlane::builder().dra(DraApi::All).start().await?;
    let bench = Bench::new()?;
    let client = lab.client().await?;
    let before_it = state::of(&client).await?;
    let proxy = before(&lab, Vec::new()).await?;
    let among = 60;
    let moment = karat_testbed::proxy::Dice::new(seed()).below(among) as usize;
    let restart = async {
        let is_due = || {
            let seen = proxy.seen();
            let ours = seen
                .iter()
                .filter(|seen| seen.uri.contains("resource.k8s.io"));
            ours.count() > moment
        };
        while !is_due() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        lab.restart(Component::ApiServer).await
    };
    let (run, restarted) = tokio::join!(bench.check(&proxy, &Promise::SameOrUnknown), restart);
    restarted?;
    run.with_context(|| format!("restarted at request {moment}, seed {}", seed()))?;
    let differences = state::differences(&before_it, &state::of(&client).await?);
    ensure!(differences.is_empty(), "{differences:#?}");
    Ok(())
}
