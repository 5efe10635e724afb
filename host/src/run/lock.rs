//! Two runs never meet unawares: a run that writes holds one Lease object in the cluster, from before its first write until
//! everything of it is gone.
//!
//! The create decides, which the server does for one client only. A Lease is taken over when it was not renewed for its own
//! duration *as seen from here*: clocks of two machines are never compared (client-go does the same). Taking over means
//! deleting exactly the version that was watched and creating another object, so that each Lease has one owner, one seal
//! and one uid, and the journal of a dead run never names the Lease of a living one.
//!
//! A run without an answer goes on: its own calls get none either. It stops when the server says that its Lease is gone.
//! The Lease does not order probes of one run; that is the arbiter's. [`crate::run_lease`] reads it.

use super::RunError;
use crate::cluster::{ApiError, Cluster, Method, Request};
use crate::event::{Events, RunEventKind};
use crate::gate::{StopHandle, StopSignal};
use crate::journal::{Journal, JournalError};
use crate::names::{ANNOTATION_PURPOSE, ANNOTATION_STARTED, LEASE_NAME, LEASE_NAMESPACE};
use crate::run_lease::{DURATION, LOOK, Seen, lease_ref, pause, seen};
use crate::seal::{self, Stamp};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// How often a wait is told.
const TELL: Duration = Duration::from_secs(10);
/// How often the removal of the Lease is tried.
const RELEASE_TRIES: u32 = 3;

/// Whether a run that writes holds a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lock {
    /// It does not. Somebody else has to see to it that runs do not meet.
    None,
    /// It does.
    Lease(LeaseOptions),
}

/// How the Lease is taken and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOptions {
    /// After this time without renewal others may take it; at least a second. It is renewed three times as often.
    pub duration: Duration,
    /// How long to wait for another run. Zero ends at once.
    pub wait: Duration,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        LeaseOptions {
            duration: DURATION,
            wait: Duration::ZERO,
        }
    }
}

/// Getting hold of the Lease.
pub(super) struct Taking<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) options: &'a LeaseOptions,
    pub(super) events: &'a Events,
    pub(super) stop: &'a StopSignal,
    /// The run that is continued. It may be its own earlier process that died.
    pub(super) continued: Option<String>,
    /// Until when to wait.
    pub(super) until: Instant,
    /// The Lease in the way, and since when it has not changed.
    pub(super) watched: Option<(Seen, Instant)>,
}

impl Taking<'_> {
    /// Returns when nobody holds the Lease, or somebody who seems dead. Writes nothing but a dry run, so that a run that
    /// cannot begin leaves no trace.
    pub(super) async fn free(&mut self) -> Result<(), RunError> {
        self.wait(false).await?;
        let sample = self.body("00000000", "", &Timestamp::now().to_string());
        let path = format!("{}?dryRun=All", lease_ref().collection_path());
        match self.cluster.create_json(&path, &sample).await {
            Err(error) if !error.is_conflict() => Err(lock(&error, "create")),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Waits until no Lease is in the way. `remove` takes a dead one away; else it is only seen.
    async fn wait(&mut self, remove: bool) -> Result<(), RunError> {
        let mut renewed = false;
        let mut told: Option<Instant> = None;
        loop {
            let Some(lease) = seen(self.cluster).await.map_err(|e| lock(&e, "get"))? else {
                return Ok(());
            };
            let now = Instant::now();
            let since = match &self.watched {
                Some((known, since)) if *known == lease => *since,
                known => {
                    renewed = known.as_ref().is_some_and(|(old, _)| old.uid == lease.uid);
                    self.watched = Some((lease.clone(), now));
                    now
                }
            };
            let holder = &lease.holder;
            if now.duration_since(since) >= holder.duration {
                if !remove {
                    return Ok(());
                }
                self.take_away(&lease).await?;
            }
            // Continuing a run that was just killed is the common case, and the only holder in the way is its own ghost.
            let own = self.continued.as_ref() == Some(&holder.run);
            let until = if own && !renewed {
                self.until.max(since + holder.duration + 2 * LOOK)
            } else {
                self.until
            };
            if now >= until {
                return Err(RunError::Held {
                    holder: holder.clone(),
                    waited: self.options.wait,
                    own,
                });
            }
            if told.is_none_or(|told| now.duration_since(told) >= TELL) {
                told = Some(now);
                let left = until.saturating_duration_since(now);
                self.events.send(RunEventKind::Waiting {
                    holder: holder.run.clone(),
                    since: holder.since.clone(),
                    purpose: holder.purpose.clone(),
                    left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
                });
            }
            tokio::select! {
                () = sleep(pause(holder.duration)) => {}
                () = self.stop.stopped() => return Err(RunError::StoppedWaiting { holder: holder.run.clone() }),
            }
        }
    }

    /// Deletes exactly the version that was watched: a holder that renewed in the meantime keeps it.
    async fn take_away(&self, lease: &Seen) -> Result<(), RunError> {
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "preconditions": {"uid": lease.uid, "resourceVersion": lease.version},
        });
        let body = options.to_string().into_bytes();
        let request = Request::with_body(Method::Delete, lease_ref().path(), body);
        match self.cluster.send_json(&request).await {
            Err(e) if !e.is_not_found() && !e.is_conflict() => Err(lock(&e, "delete")),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Takes the Lease for the run of the journal and keeps it.
    pub(super) async fn take(
        &mut self,
        journal: &Journal,
        purpose: &str,
        expires: &str,
    ) -> Result<Held, RunError> {
        let object = lease_ref();
        loop {
            self.wait(true).await?;
            if self.continued.is_some() && journal.ledger().entry(&object).is_some() {
                // The Lease of the earlier process is gone by now.
                journal.gone(&object)?;
            }
            let (book, noted) = (journal.clone(), object.clone());
            tokio::task::spawn_blocking(move || book.intend(&noted, ""))
                .await
                .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
            let head = journal.head();
            let mut body = self.body(&head.run, purpose, "");
            Stamp {
                key: &head.key,
                run: &head.run,
                probe: None,
                expires,
            }
            .apply(&object, &mut body, &[]);
            // The stamp removes what others wrote below our prefix, so these come after it.
            let annotations = &mut body["metadata"]["annotations"];
            annotations[ANNOTATION_STARTED] = Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string()
                .into();
            annotations[ANNOTATION_PURPOSE] = purpose.into();
            let path = object.collection_path();
            let made = match self.cluster.create_json(&path, &body).await {
                Ok(made) => made,
                // Somebody was faster.
                Err(e) if e.is_conflict() => {
                    journal.refused(&object, "")?;
                    continue;
                }
                Err(e) if e.code().is_some_and(|code| code < 500) => {
                    journal.refused(&object, "")?;
                    return Err(lock(&e, "create"));
                }
                Err(e) => self.after_no_answer(journal, e).await?,
            };
            let uid = made["metadata"]["uid"].as_str().unwrap_or_default();
            journal.created(&object, "", uid)?;
            return Ok(Held::keep(self, journal.clone(), uid.to_owned()));
        }
    }

    /// The server may or may not have made it.
    async fn after_no_answer(&self, journal: &Journal, error: ApiError) -> Result<Value, RunError> {
        let object = lease_ref();
        let head = journal.head();
        match self.cluster.find_json(&object.path()).await {
            Ok(Some(found))
                if seal::carried(&found)
                    .is_some_and(|text| seal::verify(&head.key, &head.run, &object, text)) =>
            {
                Ok(found)
            }
            _ => Err(lock(&error, "create")),
        }
    }

    fn body(&self, run: &str, purpose: &str, started: &str) -> Value {
        let now = micro_time();
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": LEASE_NAME, "namespace": LEASE_NAMESPACE, "annotations": {
                ANNOTATION_STARTED: started, ANNOTATION_PURPOSE: purpose,
            }},
            "spec": {
                "holderIdentity": run,
                "leaseDurationSeconds": self.options.duration.as_secs().max(1),
                "acquireTime": now, "renewTime": now,
            },
        })
    }
}

/// `metav1.MicroTime`.
fn micro_time() -> String {
    Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
        .to_string()
}

fn lock(error: &ApiError, verb: &str) -> RunError {
    RunError::Lock {
        forbidden: error.is_forbidden(),
        verb: verb.to_owned(),
        cause: error.to_string(),
    }
}

/// The Lease in the hands of this run. Dropped without [`Held::release`], it is no longer renewed and stays until others
/// see that.
pub(super) struct Held {
    cluster: Cluster,
    journal: Journal,
    uid: String,
    keeper: JoinHandle<()>,
    lost: Arc<OnceLock<String>>,
    stop: StopSignal,
}

impl Held {
    fn keep(taking: &Taking<'_>, journal: Journal, uid: String) -> Held {
        let (handle, stop) = StopSignal::pair();
        let lost = Arc::new(OnceLock::new());
        let keeper = Keeper {
            cluster: taking.cluster.clone(),
            uid: uid.clone(),
            duration: taking.options.duration.max(Duration::from_secs(1)),
            events: taking.events.clone(),
            lost: Arc::clone(&lost),
            handle,
        };
        Held {
            cluster: taking.cluster.clone(),
            journal,
            uid,
            keeper: tokio::spawn(keeper.work()),
            lost,
            stop,
        }
    }

    /// Comes when the Lease is lost.
    pub(super) fn lost_signal(&self) -> StopSignal {
        self.stop.clone()
    }

    /// Who has it now, once it is lost.
    pub(super) fn lost_to(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    /// Removes the Lease. Gives what remains, in words.
    pub(super) async fn release(self) -> Result<Option<String>, JournalError> {
        self.keeper.abort();
        let object = lease_ref();
        let mut tries = 0;
        let mut back_off = self.cluster.back_off();
        while self.lost_to().is_none() {
            tries += 1;
            match self.cluster.delete_uid(&object.path(), &self.uid).await {
                Ok(_) => break,
                Err(e) if tries >= RELEASE_TRIES => {
                    return Ok(Some(format!(
                        "{object} ({e}; others take it when it was not renewed for its duration)"
                    )));
                }
                Err(_) => {
                    sleep(back_off).await;
                    back_off *= 2;
                }
            }
        }
        self.journal.gone(&object)?;
        Ok(None)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Renews the Lease until it is lost.
struct Keeper {
    cluster: Cluster,
    uid: String,
    duration: Duration,
    events: Events,
    lost: Arc<OnceLock<String>>,
    handle: StopHandle,
}

impl Keeper {
    async fn work(self) {
        let object = lease_ref();
        let mut warned = false;
        let mut next = self.duration / 3;
        loop {
            sleep(next).await;
            // The uid makes the server refuse the Lease of anybody else.
            let patch = json!({"metadata": {"uid": self.uid}, "spec": {"renewTime": micro_time()}});
            let path = object.path();
            let renewal = self.cluster.merge_json(&path, &patch);
            let cause = match timeout(self.duration / 2, renewal).await {
                Ok(Ok(_)) => {
                    next = self.duration / 3;
                    warned = false;
                    continue;
                }
                Ok(Err(e)) if e.is_not_found() || e.is_conflict() => break,
                Ok(Err(e)) => e.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            next = self.duration / 10;
            if !warned {
                warned = true;
                let text = format!("{object} could not be renewed, trying on: {cause}");
                self.events.send(RunEventKind::Warned { text });
            }
        }
        let holder = match seen(&self.cluster).await {
            Ok(Some(now)) => now.holder.run,
            Ok(None) | Err(_) => String::new(),
        };
        let cause = if holder.is_empty() {
            "the run's Lease was deleted".to_owned()
        } else {
            format!("run {holder} has taken the Lease")
        };
        self.events.send(RunEventKind::Stopping { cause });
        let _ = self.lost.set(holder);
        self.handle.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_form_of_kubernetes() {
        let text = micro_time();
        assert_eq!(text.len(), "2026-01-02T03:04:05.000000Z".len(), "{text}");
        assert!(text.parse::<Timestamp>().is_ok(), "{text}");
    }
}
