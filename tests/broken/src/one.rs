//! One entry from start to end: make the cluster, let the probe look at it, take everything away, compare.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use karat_engine::grant::Grants;
use karat_engine::images::Images;
use karat_engine::model::{AttemptRecord, Reason, Verdict};
use karat_engine::recording::fixture;
use karat_testbed::ControlPlane;
use karat_testbed::proxy::{Proxy, Rule};
use karat_tests::{runs, state};

use crate::actors::{self, Actor};
use crate::named;
use crate::place::{self, place};
use crate::table::Entry;
use crate::verdict::{Mark, compare, said};

/// A run that takes longer hangs; the longest budget of a probe is far below.
const DEADLINE: Duration = Duration::from_secs(15 * 60);
/// How long what a run made may take to go, beyond what the engine waits for.
const SETTLE: Duration = Duration::from_secs(30);

/// Where the wrapped probes are, and what to do with recordings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Folder with `probe-ID.wasm`.
    pub components: PathBuf,
    /// Folder with the probes' sources, if recordings shall be written there.
    pub record_below: Option<PathBuf>,
    /// The images of the program, which the real nodes have.
    pub images: Images,
}

/// What became of an entry.
#[derive(Clone, Debug)]
pub struct Done {
    /// Which one.
    pub entry: Entry,
    /// Whether it was right.
    pub mark: Mark,
    /// What was said.
    pub verdict: Option<Verdict>,
    /// Why.
    pub reason: Option<Reason>,
    /// For people.
    pub explanation: String,
    /// Cases with what was said about them.
    pub cases: BTreeMap<String, String>,
    /// What is not as expected.
    pub wrong: Vec<String>,
    /// What the ingredients did.
    pub notes: Vec<String>,
    /// What of the cluster is not as it was before; empty where nobody looked.
    pub changed: Vec<String>,
    /// How long all of it took.
    pub took: Duration,
}

impl Done {
    /// An entry whose cluster this machine cannot have.
    #[must_use]
    pub fn not_run(entry: &Entry, why: &str) -> Self {
        Self {
            mark: Mark::NotRun,
            wrong: Vec::new(),
            notes: vec![why.to_owned()],
            ..Self::broken_off(entry, &anyhow::Error::msg("not run"), Duration::ZERO)
        }
    }

    /// An entry that could not be run to its end.
    #[must_use]
    pub fn broken_off(entry: &Entry, error: &anyhow::Error, took: Duration) -> Self {
        Self {
            entry: entry.clone(),
            mark: Mark::Missed,
            verdict: None,
            reason: None,
            explanation: String::new(),
            cases: BTreeMap::new(),
            wrong: vec![format!("could not be run: {error:#}")],
            notes: Vec::new(),
            changed: Vec::new(),
            took,
        }
    }
}

/// Makes the cluster of an entry, runs its probe and compares. What stays in the control plane is in the result.
///
/// # Errors
/// If the cluster cannot be made or restored, or the run cannot be prepared. The control plane is of no use then.
pub async fn run(
    lab: &ControlPlane,
    entry: &Entry,
    before: Option<&state::State>,
    around: &Surroundings,
) -> Result<Done> {
    let began = Instant::now();
    let placed = place(lab, &entry.make).await.context("make the cluster")?;
    let looked = looked_at(lab, entry, around).await;
    placed.remove().await.context("restore the cluster")?;
    let (run, attempt, mut notes) = looked?;
    let changed = changes(lab, before, &run).await?;
    let (mut mark, mut wrong) = compare(entry, &attempt);
    let leaked: Vec<&String> = changed.iter().filter(|c| c.contains(&run)).collect();
    if !leaked.is_empty() && entry.leaves.is_none() {
        wrong.push(format!("leaked: {leaked:?}"));
        if mark != Mark::FalseAccusation {
            mark = Mark::Missed;
        }
    }
    notes.extend(changed.iter().map(|c| format!("afterwards: {c}")));
    let judgement = &attempt.judgement;
    let mut cases: BTreeMap<String, String> = BTreeMap::new();
    for case in &judgement.cases {
        let text = said(Some(case.verdict), case.reason);
        cases.insert(case.case.to_string(), text);
    }
    Ok(Done {
        entry: entry.clone(),
        mark,
        verdict: judgement.verdict,
        reason: judgement.reason,
        explanation: judgement.explanation.clone(),
        cases,
        wrong,
        notes,
        changed,
        took: began.elapsed(),
    })
}

/// The run itself, with all that watches and changes it.
async fn looked_at(
    lab: &ControlPlane,
    entry: &Entry,
    around: &Surroundings,
) -> Result<(String, AttemptRecord, Vec<String>)> {
    let proxies = proxies(lab, entry).await?;
    let kubeconfig = proxies
        .last()
        .map_or_else(|| lab.kubeconfig(), |proxy| proxy.kubeconfig().to_owned());
    let client = lab.client().await?;
    let mut acting = Vec::new();
    let mut paused = Vec::new();
    for controller in &entry.make.controllers {
        let mut controller = controller.clone();
        if let Some(name) = &controller.pause {
            let program = crate::lab::Suspended::named(name)?;
            controller.pids = program.processes(lab);
            paused.push(program);
        }
        acting.push(actors::start(client.clone(), &controller).await?);
    }
    let run = attempt(&kubeconfig, entry, around).await;
    let mut notes = Vec::new();
    for mut actor in acting {
        for object in actor.stop().await.iter().rev() {
            place::remove(lab, &client, object)
                .await
                .with_context(|| format!("{}: take away what it made", actor.label()))?;
        }
        notes.extend(did(&actor));
    }
    for program in paused {
        program.resume(lab).await?;
    }
    notes.extend(unused(&proxies, entry));
    // Its drop waits for a thread, and so must not happen on one of the runtime's.
    tokio::task::spawn_blocking(move || drop(proxies)).await?;
    let (run, attempt) = run?;
    Ok((run, attempt, notes))
}

/// The run's id, and what became of the probe.
async fn attempt(
    kubeconfig: &Path,
    entry: &Entry,
    around: &Surroundings,
) -> Result<(String, AttemptRecord)> {
    let file = around
        .components
        .join(format!("probe-{}.wasm", entry.probe));
    let component = std::fs::read(&file)
        .with_context(|| format!("{}: build it with `cargo xtask probes`", file.display()))?;
    let settings = BTreeMap::from([(entry.probe.clone(), entry.settings.clone())]);
    let running = runs::run_with(
        kubeconfig,
        vec![component],
        entry.reach,
        exceptions(entry)?,
        settings,
        around.images.clone(),
    );
    let run = tokio::time::timeout(DEADLINE, running)
        .await
        .with_context(|| format!("no end after {} s", DEADLINE.as_secs()))??;
    let found = run.record.probes.iter().find(|p| p.probe == entry.probe);
    let attempt = found
        .and_then(|probe| probe.attempts.last())
        .with_context(|| format!("{}: its id is not {}", file.display(), entry.probe))?;
    if let (Some(below), Some(name)) = (&around.record_below, &entry.record_as) {
        let folder = recordings(below, &entry.probe);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let text = fixture::export(&run.recording(&entry.probe)?)?;
        let path = folder.join(format!("{name}.jsonl"));
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok((run.record.run.clone(), attempt.clone()))
}

/// What the operator of an entry opens beside what its probe asks for.
///
/// # Errors
/// If it is no text of a grants file.
pub(crate) fn exceptions(entry: &Entry) -> Result<Grants> {
    let Some(text) = &entry.exceptions else {
        return Ok(Grants::none());
    };
    Ok(Grants::parse(text, "exceptions")?)
}

/// Where the recordings of a probe lie, below the folder of all probes.
pub(crate) fn recordings(below: &Path, probe: &str) -> PathBuf {
    below.join(probe.replace('-', "_")).join("recordings")
}

/// The proxies, the one next to the API server first.
async fn proxies(lab: &ControlPlane, entry: &Entry) -> Result<Vec<Proxy>> {
    let make = &entry.make;
    let mut layers: Vec<Vec<Rule>> = Vec::new();
    for name in &make.rules {
        layers.extend(named::rules(name)?);
    }
    let mut written: Vec<Rule> = make
        .proxy
        .iter()
        .map(crate::rules::RuleData::rule)
        .collect::<Result<_>>()?;
    written.extend(make.version.as_deref().map(Rule::version));
    layers.extend((!written.is_empty()).then_some(written));
    let mut proxies: Vec<Proxy> = Vec::new();
    for rules in layers {
        let mut builder = lab.proxy();
        if let Some(below) = proxies.last() {
            builder = builder.forward_with(below.kubeconfig());
        }
        let builder = rules.into_iter().fold(builder, |b, rule| b.rule(rule));
        proxies.push(builder.start().await?);
    }
    Ok(proxies)
}

/// A fault that never came about proves nothing, so it is told.
fn unused(proxies: &[Proxy], entry: &Entry) -> Vec<String> {
    let Some(outermost) = proxies.last() else {
        return Vec::new();
    };
    let seen = outermost.seen();
    let rules = entry.make.proxy.iter().enumerate();
    rules
        .filter(|(i, _)| !seen.iter().any(|s| s.rule == Some(*i)))
        .map(|(i, rule)| format!("rule {} for {} was never used", i + 1, rule.path.as_str()))
        .collect()
}

fn did(actor: &Actor) -> Vec<String> {
    let notes = actor.notes();
    if notes.is_empty() {
        vec![format!("{}: never acted", actor.label())]
    } else {
        notes
    }
}

/// What is not as it was, once nothing moves any more. Without a state of before, only what is of this run.
async fn changes(
    lab: &ControlPlane,
    before: Option<&state::State>,
    run: &str,
) -> Result<Vec<String>> {
    let client = lab.client().await?;
    let began = Instant::now();
    loop {
        let changed = match (state::of(&client).await, before) {
            (Ok(now), Some(before)) => state::differences(before, &now),
            (Ok(mut now), None) => {
                now.retain(|object, _| object.contains(run));
                state::differences(&state::State::new(), &now)
            }
            // Discovery may still name what has just gone.
            (Err(error), _) => vec![format!("cannot be looked at: {error:#}")],
        };
        if changed.is_empty() || began.elapsed() > SETTLE {
            return Ok(changed);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
