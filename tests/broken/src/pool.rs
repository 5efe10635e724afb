//! Runs many entries: workers with one control plane each, which take the entries that it fits.
//!
//! A worker stays with its control plane while there are entries for it, so few are started; two workers may each have one
//! of the same kind. A control plane in which something stayed is thrown away.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use karat_testbed::ControlPlane;
use karat_tests::state::{self, State};

use crate::data::LabData;
use crate::lab;
use crate::one::{self, Done, Surroundings};
use crate::table::Entry;

/// What happens meanwhile.
pub enum Progress<'a> {
    /// A control plane is started for these entries.
    Starting(&'a [Entry]),
    /// An entry begins.
    Begun(&'a Entry),
    /// An entry is done.
    Done(&'a Done),
    /// A control plane is thrown away, and why.
    Spoilt(&'a Entry, String),
}

/// Runs all entries with so many control planes at one time, and says what happens.
pub async fn run(
    entries: Vec<Entry>,
    workers: usize,
    around: &Surroundings,
    tell: &(impl Fn(Progress<'_>) + Sync),
) -> Vec<Done> {
    let queue = Queue::new(entries);
    let workers = (0..workers.max(1)).map(|_| work(&queue, around, tell));
    let done = futures::future::join_all(workers).await;
    done.into_iter().flatten().collect()
}

async fn work(
    queue: &Queue,
    around: &Surroundings,
    tell: &(impl Fn(Progress<'_>) + Sync),
) -> Vec<Done> {
    let mut all = Vec::new();
    let mut lab: Option<Lab> = None;
    while let Some(batch) = queue.take(lab.as_ref().map(|lab| &lab.data)) {
        let began = Instant::now();
        let data = &batch[0].lab;
        if lab.as_ref().is_none_or(|lab| lab.data != *data) {
            tell(Progress::Starting(&batch));
            discard(lab.take()).await;
            match Lab::start(data).await {
                Ok(started) => lab = Some(started),
                Err(error) => {
                    let error = error.context("start the control plane");
                    for entry in &batch {
                        let done = Done::broken_off(entry, &error, began.elapsed());
                        tell(Progress::Done(&done));
                        all.push(done);
                    }
                    continue;
                }
            }
        }
        let Some(current) = &lab else { continue };
        let mut spoilt = false;
        let at_once = data.together.unwrap_or(1).max(1);
        let mut running = futures::stream::iter(&batch)
            .map(|entry| current.run(entry, around, tell))
            .buffer_unordered(at_once);
        while let Some((done, fit)) = running.next().await {
            tell(Progress::Done(&done));
            if let Err(why) = fit {
                tell(Progress::Spoilt(&done.entry, why));
                spoilt = true;
            }
            all.push(done);
        }
        drop(running);
        if spoilt {
            discard(lab.take()).await;
        }
    }
    discard(lab).await;
    all
}

/// Stopping kills processes and waits for them, which must not happen on a thread of the runtime.
async fn discard(lab: Option<Lab>) {
    let _ = tokio::task::spawn_blocking(move || drop(lab)).await;
}

struct Lab {
    data: LabData,
    plane: ControlPlane,
    before: State,
}

impl Lab {
    async fn start(data: &LabData) -> Result<Self> {
        let plane = lab::start(data).await?;
        let client = plane.client().await?;
        let before = state::of(&client).await.context("look at the cluster")?;
        Ok(Self {
            data: data.clone(),
            plane,
            before,
        })
    }

    /// The result, and why the control plane cannot be used again, if so.
    async fn run(
        &self,
        entry: &Entry,
        around: &Surroundings,
        tell: &(impl Fn(Progress<'_>) + Sync),
    ) -> (Done, Result<(), String>) {
        tell(Progress::Begun(entry));
        let began = Instant::now();
        let before = entry.alone().then_some(&self.before);
        match one::run(&self.plane, entry, before, around).await {
            Ok(done) if done.changed.is_empty() => (done, Ok(())),
            Ok(done) => {
                let why = done.changed.first().cloned().unwrap_or_default();
                (done, Err(why))
            }
            Err(error) => {
                let done = Done::broken_off(entry, &error, began.elapsed());
                (done, Err(format!("{error:#}")))
            }
        }
    }
}

/// Entries by control plane.
struct Queue(Mutex<BTreeMap<LabData, VecDeque<Entry>>>);

impl Queue {
    fn new(entries: Vec<Entry>) -> Self {
        let mut groups: BTreeMap<LabData, VecDeque<Entry>> = BTreeMap::new();
        for entry in entries {
            groups
                .entry(entry.lab.clone())
                .or_default()
                .push_back(entry);
        }
        Self(Mutex::new(groups))
    }

    /// What a worker does next: something for the control plane that it has, else for the one that is wanted most.
    fn take(&self, have: Option<&LabData>) -> Option<Vec<Entry>> {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|_, left| !left.is_empty());
        let most = groups.iter().max_by_key(|(_, left)| left.len());
        let wanted = match have.filter(|have| groups.contains_key(have)) {
            Some(have) => have.clone(),
            None => most?.0.clone(),
        };
        let left = groups.get_mut(&wanted)?;
        if left.front()?.alone() {
            return left.pop_front().map(|entry| vec![entry]);
        }
        let (together, alone) = left.drain(..).partition(|entry| !entry.alone());
        *left = alone;
        Some(Vec::from_iter::<VecDeque<Entry>>(together))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Crowd, Make};

    fn entry(name: &str, lab: &LabData, touches: bool) -> Entry {
        let crowd = touches.then(Crowd::default);
        Entry {
            probe: "p".into(),
            name: name.into(),
            what: "w".into(),
            conforming: true,
            careless: None,
            lab: lab.clone(),
            make: Make {
                crowd,
                ..Make::default()
            },
            expect: crate::data::Expect::default(),
            reach: karat_engine::model::Reach::Read,
            settings: BTreeMap::new(),
            exceptions: None,
            record_as: None,
            known_miss: None,
            leaves: None,
        }
    }

    fn names(batch: Option<Vec<Entry>>) -> Vec<String> {
        let batch = batch.unwrap_or_default().into_iter();
        batch.map(|entry| entry.name).collect()
    }

    #[test]
    fn a_worker_keeps_its_control_plane_and_runs_together_what_may() {
        let shared = LabData {
            together: Some(4),
            ..LabData::default()
        };
        let own = LabData {
            workload_api: true,
            ..LabData::default()
        };
        let queue = Queue::new(vec![
            entry("a", &own, false),
            entry("b", &shared, false),
            entry("c", &shared, true),
            entry("d", &shared, false),
            entry("e", &own, false),
        ]);
        assert_eq!(names(queue.take(None)), ["b", "d"]);
        assert_eq!(names(queue.take(Some(&shared))), ["c"]);
        assert_eq!(names(queue.take(Some(&own))), ["a"]);
        assert_eq!(names(queue.take(Some(&shared))), ["e"]);
        assert!(queue.take(Some(&own)).is_none());
    }
}
