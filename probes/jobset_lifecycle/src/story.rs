//! What is seen of one set: its own states, and all Jobs that ever carried its name. The watches begin before the set is created,
//! so a Job that came and went is in the story.

use crate::sets::{ATTEMPT, OF_JOB, OF_SET, Sets};
use karat_sdk::kube::{Event, Watch};
use karat_sdk::wait::{self, Deadline};
use karat_sdk::{Object, Query, Result};
use std::time::Duration;

/// A Job that was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    uid: String,
    /// The replicated job that it says it belongs to.
    pub(crate) of: String,
    pub(crate) attempt: String,
    pub(crate) failed: bool,
    pub(crate) complete: bool,
    pub(crate) gone: bool,
}

/// How a set ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Completed,
    Failed,
}

/// The story of one set.
pub(crate) struct Story {
    jobs: Watch,
    sets: Watch,
    seen: Vec<Seen>,
    set: Option<Object>,
    /// Whether a part of it may be missing.
    pub(crate) has_gap: bool,
}

impl Story {
    /// Of the set that will have this name.
    pub(crate) fn open(sets: &Sets, name: &str) -> Result<Story> {
        let jobs = Query::new("batch/v1", "jobs")
            .in_namespace(&sets.namespace)
            .labels([OF_SET, name].join("="))
            .keep(&["/metadata/labels", "/status/conditions"])
            .watch()?;
        let own = sets.target().query();
        let own = own.keep(&["/status/conditions", "/status/restarts"]);
        let sets = own.fields(["metadata.name", name].join("=")).watch()?;
        Ok(Story {
            jobs,
            sets,
            seen: Vec::new(),
            set: None,
            has_gap: false,
        })
    }

    /// Goes on until it is as wanted, or the time is up; tells which.
    pub(crate) fn until(
        &mut self,
        time: Duration,
        mut wanted: impl FnMut(&Story) -> bool,
    ) -> Result<bool> {
        let deadline = Deadline::after(time);
        loop {
            while let Some(event) = self.jobs.poll()? {
                self.note(&event);
                // Looked at after each event, so that an order can be told.
                if wanted(self) {
                    return Ok(true);
                }
            }
            while let Some(event) = self.sets.poll()? {
                if let Some(set) = event.present() {
                    self.set = Some(set.clone());
                }
            }
            if wanted(self) {
                return Ok(true);
            }
            let left = deadline.left();
            if left.is_zero() {
                return Ok(false);
            }
            wait::any(&[&self.jobs.source(), &self.sets.source()], left)?;
        }
    }

    fn note(&mut self, event: &Event) {
        let (job, gone) = match event {
            Event::Added(job) | Event::Modified(job) => (job, false),
            Event::Deleted(job) => (job, true),
            Event::Gap(_) => {
                self.has_gap = true;
                return;
            }
            Event::Synced => return,
        };
        let at = self.seen.iter().position(|seen| seen.uid == job.uid());
        let at = at.unwrap_or_else(|| {
            self.seen.push(Seen {
                uid: job.uid().to_owned(),
                of: job.label(OF_JOB).unwrap_or_default().to_owned(),
                attempt: job.label(ATTEMPT).unwrap_or_default().to_owned(),
                failed: false,
                complete: false,
                gone: false,
            });
            self.seen.len() - 1
        });
        let is = |kind: &str| job.condition(kind).is_some_and(|is| is.status == "True");
        let seen = &mut self.seen[at];
        seen.failed |= is("Failed");
        seen.complete |= is("Complete");
        seen.gone |= gone;
    }

    /// All Jobs of a replicated job, in the order in which they were seen.
    pub(crate) fn jobs_of<'a>(&'a self, of: &'a str) -> impl Iterator<Item = &'a Seen> {
        self.seen.iter().filter(move |seen| seen.of == of)
    }

    /// Uids of all Jobs that were seen.
    pub(crate) fn uids(&self) -> impl Iterator<Item = &str> {
        self.seen.iter().map(|seen| seen.uid.as_str())
    }

    /// How the set ended, as it says; none while it goes on.
    pub(crate) fn end(&self) -> Option<End> {
        let set = self.set.as_ref()?;
        let is = |kind: &str| set.condition(kind).is_some_and(|is| is.status == "True");
        if is("Completed") {
            Some(End::Completed)
        } else {
            is("Failed").then_some(End::Failed)
        }
    }

    /// `status.restarts`.
    pub(crate) fn restarts(&self) -> u64 {
        let set = self.set.as_ref();
        set.and_then(|set| set.at("/status/restarts").as_u64())
            .unwrap_or_default()
    }

    /// Ends the watches.
    pub(crate) fn close(self) {
        self.jobs.close();
        self.sets.close();
    }
}
