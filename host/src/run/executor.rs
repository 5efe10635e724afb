//! One attempt of one probe: sandbox, recording, door, guest, clean-up, judgement. Every path out of the guest — return, trap,
//! budget, stop — goes through the same clean-up and ends the recording.
//!
//! The verdict is computed from the recording as it was written to disk, not from anything this module remembers.

use super::guest::{self, GuestRun};
use super::outcome::classify;
use super::{Context, settings_of};
use crate::cluster::Cluster;
use crate::component::Probe;
use crate::engine;
use crate::event::RunEventKind;
use crate::gate::{Door, LiveDoor, expiry};
use crate::grant::Effective;
use crate::journal::ObjectRef;
use crate::judge::{self, Evidence};
use crate::model::{AttemptRecord, Outcome, Usage};
use crate::recording::format::{FORMAT, Header, Limits};
use crate::recording::{self, ReadOptions, Recorder, Recording};
use crate::runfolder;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the recording's writer may take to bring the last calls to disk before the engine looks after control objects.
const SETTLE: Duration = Duration::from_secs(5);

/// Runs one attempt. Never fails: whatever goes wrong is an outcome.
pub(super) async fn attempt(
    context: Arc<Context>,
    probe: Probe,
    place: runfolder::Attempt,
) -> AttemptRecord {
    let manifest = probe.manifest();
    let number = place.number;
    context.events.send(RunEventKind::ProbeStarted {
        probe: manifest.id.clone(),
        attempt: number,
        cases: manifest.cases.len(),
    });
    let opened = match context.homes.open(manifest, &context.grants).await {
        Ok(namespaces) => {
            let effective = Effective::new(manifest, &context.grants, namespaces.values());
            let acting = if context.enforce.contains(&manifest.id) {
                let (homes, cluster) = (&context.homes, &context.probe_cluster);
                homes
                    .account(&effective, &namespaces, context.reach, cluster)
                    .await
            } else {
                Ok(context.probe_cluster.clone())
            };
            acting.map(|cluster| Attempt {
                context: &context,
                probe: &probe,
                place: &place,
                namespaces,
                effective,
                cluster,
            })
        }
        Err(refusal) => Err(refusal),
    };
    let record = match opened {
        Ok(work) => work.run().await,
        Err(refusal) => {
            let left_behind = context.homes.close(&manifest.id).await;
            not_started(&probe, number, Outcome::Denied(refusal), left_behind)
        }
    };
    context.events.send(RunEventKind::ProbeFinished {
        probe: manifest.id.clone(),
        attempt: number,
        outcome: record.outcome.clone(),
        judgement: Box::new(record.judgement.clone()),
        usage: record.usage,
    });
    for result in &record.judgement.cases {
        context.events.send(RunEventKind::CaseJudged {
            probe: manifest.id.clone(),
            result: Box::new(result.clone()),
        });
    }
    record
}

/// The record of an attempt that never reached the guest.
pub(super) fn not_started(
    probe: &Probe,
    number: u32,
    outcome: Outcome,
    left_behind: Vec<String>,
) -> AttemptRecord {
    AttemptRecord {
        attempt: number,
        started: Timestamp::now().to_string(),
        judgement: judge::not_started(probe.manifest(), &outcome),
        outcome,
        usage: Usage::default(),
        recording: None,
        head: None,
        folded: None,
        left_behind,
    }
}

struct Attempt<'a> {
    context: &'a Context,
    probe: &'a Probe,
    place: &'a runfolder::Attempt,
    namespaces: BTreeMap<String, String>,
    effective: Effective,
    /// The connection of the probe, as itself or as its account.
    cluster: Cluster,
}

impl Attempt<'_> {
    async fn run(&self) -> AttemptRecord {
        let manifest = self.probe.manifest();
        let context = self.context;
        let header = self.header();
        let folder = &self.place.folder;
        let recorder = match Recorder::create(folder, &header) {
            Ok(recorder) => recorder,
            Err(error) => {
                let left_behind = context.homes.close(&manifest.id).await;
                let outcome = Outcome::Denied(format!("nothing is run unrecorded: {error}"));
                return not_started(self.probe, self.place.number, outcome, left_behind);
            }
        };
        let started = Instant::now();
        let door = self.door(&header, recorder, started);
        let done = guest::run(
            &context.engine,
            self.probe,
            door.clone(),
            &header.limits,
            door.deadline(),
            &context.stop,
        )
        .await;
        let outcome = self.outcome(&done, &door, &header.limits);
        let usage = door.usage(done.peak_memory_bytes);
        let alive = self.alive(folder, usage.calls).await;
        let left_behind = context.homes.close(&manifest.id).await;
        // Not before: who gets the nodes next must not find our pods there.
        door.release_leases();
        let head = door.finish(outcome.clone(), usage, alive, left_behind.clone());
        let (judgement, outcome, head) = match head {
            Ok(head) => self.judged(folder, outcome, head),
            Err(error) => {
                let outcome = Outcome::Trapped(format!("recording: {error}"));
                (judge::not_started(manifest, &outcome), outcome, None)
            }
        };
        AttemptRecord {
            attempt: self.place.number,
            started: header.started,
            outcome,
            judgement,
            usage,
            recording: Some(self.place.relative.clone()),
            head,
            folded: None,
            left_behind,
        }
    }

    fn header(&self) -> Header {
        let manifest = self.probe.manifest();
        let inspected = self.probe.inspected();
        let context = self.context;
        Header {
            format: FORMAT.to_owned(),
            run: context.run.clone(),
            salt: context.salt.clone(),
            nonce: context.nonce.clone(),
            probe: manifest.id.clone(),
            probe_version: manifest.version.clone(),
            component: inspected.digest.clone(),
            manifest: inspected.manifest_digest.clone(),
            contract: manifest.contract.clone(),
            engine: engine::VERSION.to_owned(),
            rules: judge::RULES.to_owned(),
            redaction: context.redactor.version(),
            attempt: self.place.number,
            started: Timestamp::now().to_string(),
            limits: Limits::from(&manifest.budget),
            settings: settings_of(manifest, &context.settings),
            namespaces: self.namespaces.clone(),
            images: context.images_of(manifest),
            granted: self.effective.digest(),
            cluster: context.identity.clone(),
        }
    }

    fn door(&self, header: &Header, recorder: Recorder, started: Instant) -> Door {
        let context = self.context;
        let manifest = Arc::new(self.probe.manifest().clone());
        Door::live(LiveDoor {
            run: context.run.clone(),
            attempt: self.place.number,
            started,
            limits: header.limits.clone(),
            cluster: self.cluster.clone(),
            recorder,
            effective: Arc::new(self.effective.clone()),
            redactor: Arc::clone(&context.redactor),
            journal: context.journal.clone(),
            snapshots: context.snapshots.clone(),
            leases: context.leases.clone(),
            settings: header.settings.clone(),
            namespaces: header.namespaces.clone(),
            images: header.images.clone(),
            reach: context.reach,
            priority_classes: context.homes.priority_classes(),
            pull_secrets: context.homes.pull_secrets(),
            expires: expiry(manifest.budget.wall),
            stop: context.stop.clone(),
            events: context.events.clone(),
            manifest,
        })
    }

    fn outcome(&self, done: &GuestRun, door: &Door, limits: &Limits) -> Outcome {
        let outcome = classify(
            &done.end,
            &done.traces,
            limits,
            self.context.stop.is_stopping(),
        );
        match (&outcome, door.budget_hit()) {
            // The guest may have returned politely; what ended its work was the budget all the same.
            (Outcome::Concluded | Outcome::ProbeError(_), Some(budget)) => {
                Outcome::OverBudget(budget)
            }
            // One that goes on calling ends by its calls, but the first budget was the cause.
            (Outcome::OverBudget(last), Some(first)) if last.starts_with("budget `") => {
                Outcome::OverBudget(first)
            }
            _ => outcome,
        }
    }

    /// Asks for the objects that controls want alive. Names of the recording are pseudonyms; the redactor knows the real ones.
    async fn alive(&self, folder: &Path, calls: u64) -> BTreeMap<String, bool> {
        let manifest = self.probe.manifest();
        let is_wanted =
            |case: &crate::manifest::Case| case.controls.iter().any(|control| control.alive);
        if !manifest.cases.iter().any(is_wanted) {
            return BTreeMap::new();
        }
        let mut alive = BTreeMap::new();
        let Some(so_far) = so_far(folder, calls).await else {
            // Without them the judge finds the controls unproved, which is the truth.
            return alive;
        };
        for wanted in judge::alive_wanted(manifest, so_far.entries()) {
            let restored =
                |text: &str| self.context.redactor.restore_text(text).unwrap_or_default();
            let object = ObjectRef {
                group: wanted.group.clone(),
                version: wanted.version.clone(),
                resource: wanted.resource.clone(),
                namespace: restored(&wanted.namespace),
                name: restored(&wanted.name),
            };
            let found = self.context.engine_cluster.find_json(&object.path()).await;
            let uid = self
                .context
                .redactor
                .restore_text(&wanted.uid)
                .unwrap_or_default();
            let lives = matches!(found, Ok(Some(found)) if found["metadata"]["uid"].as_str() == Some(uid.as_str()));
            alive.insert(wanted.uid, lives);
        }
        alive
    }

    /// Reads back what was written and judges that.
    fn judged(
        &self,
        folder: &Path,
        outcome: Outcome,
        head: String,
    ) -> (crate::model::Judgement, Outcome, Option<String>) {
        let manifest = self.probe.manifest();
        let options = ReadOptions {
            expected_head: Some(head.clone()),
            ..ReadOptions::default()
        };
        let judged = recording::read_with(folder, &options)
            .map_err(|error| error.to_string())
            .and_then(|recording| {
                judge::judge(manifest, &Evidence::from(&recording))
                    .map_err(|error| error.to_string())
            });
        match judged {
            Ok(judgement) => (judgement, outcome, Some(head)),
            Err(error) => {
                let outcome =
                    Outcome::Trapped(format!("the recording cannot be read back: {error}"));
                (judge::not_started(manifest, &outcome), outcome, Some(head))
            }
        }
    }
}

/// The recording as it stands, once all calls are on disk. None if that takes too long.
async fn so_far(folder: &Path, calls: u64) -> Option<Recording> {
    let options = ReadOptions {
        unfinished: true,
        ..ReadOptions::default()
    };
    let until = Instant::now() + SETTLE;
    loop {
        match recording::read_with(folder, &options) {
            Ok(recording) if recording.entries().len() as u64 >= calls => return Some(recording),
            other if Instant::now() >= until => return other.ok(),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
