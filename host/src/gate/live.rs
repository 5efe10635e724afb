//! The live side of the door: what it needs to speak to a cluster, what can forbid a call, and the wire that a live action
//! gets in its hand.

use super::{Busy, Call, Trouble};
use crate::capability::address;
use crate::capability::target::Targets;
use crate::cluster::{
    Cluster, Forward, Forwarded, HttpAnswer, Opened, Pieces, Request, SendError, Socket, Streamed,
};
use crate::event::Events;
use crate::gate::freshness::Freshness;
use crate::gate::slots::Slots;
use crate::gate::snapshots::Snapshots;
use crate::gate::stop::StopSignal;
use crate::grant::Effective;
use crate::guard::{self, GuardContext};
use crate::journal::{Journal, Ledger};
use crate::lease::{Holder, Leases};
use crate::manifest::Manifest;
use crate::model::{CaseKey, Reach};
use crate::recording::Recorder;
use crate::recording::format::{Access, Failure, Limits, ResourceAccess};
use crate::redact::{Redactor, Removed};
use crate::seal::RunKey;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// How much longer a write may take when time is up or the run stops: cutting it short leaves its effect unknown.
const WRITE_GRACE: Duration = Duration::from_secs(2);

/// Everything a live door is made of.
pub struct LiveDoor {
    /// Run id.
    pub run: String,
    /// Counts from 1.
    pub attempt: u32,
    /// The probe's manifest.
    pub manifest: Arc<Manifest>,
    /// When the attempt began; the clock of recording and budget.
    pub started: Instant,
    /// Limits in force, as in the recording's header.
    pub limits: Limits,
    /// The cluster with the probe's credentials. The door counts its requests from here on.
    pub cluster: Cluster,
    /// The open recording.
    pub recorder: Recorder,
    /// What is asked for and granted.
    pub effective: Arc<Effective>,
    /// The run's redaction.
    pub redactor: Arc<Redactor>,
    /// The run's journal, with its key.
    pub journal: Journal,
    /// The run's shared snapshots.
    pub snapshots: Snapshots,
    /// The run's leases.
    pub leases: Leases,
    /// Settings as the guest sees them: operator's values, else defaults; secrets as references.
    pub settings: BTreeMap<String, String>,
    /// Sandbox namespaces by alias.
    pub namespaces: BTreeMap<String, String>,
    /// Images by name, after mirrors.
    pub images: BTreeMap<String, String>,
    /// Reach of the run.
    pub reach: Reach,
    /// The cluster's PriorityClasses with their values, read at the start of the run.
    pub priority_classes: BTreeMap<String, i64>,
    /// What the copies of pull secrets are called in the sandbox namespaces.
    pub pull_secrets: Vec<String>,
    /// Time (RFC 3339) after which a later run may sweep what this one creates; see [`expiry`].
    pub expires: String,
    /// Hears when the run stops.
    pub stop: StopSignal,
    /// Where events go.
    pub events: Events,
}

/// The time for [`LiveDoor::expires`]: `from` now, and an hour for clean-up.
pub fn expiry(from: Duration) -> String {
    let ahead = SignedDuration::try_from(from).unwrap_or(SignedDuration::from_hours(24));
    Timestamp::now()
        .saturating_add(ahead + SignedDuration::from_hours(1))
        .map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

/// [`LiveDoor`] at work.
pub(crate) struct Live {
    pub(crate) run: String,
    pub(crate) attempt: u32,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) cluster: Cluster,
    pub(crate) recorder: Mutex<Option<Recorder>>,
    pub(crate) effective: Arc<Effective>,
    pub(crate) redactor: Arc<Redactor>,
    pub(crate) journal: Journal,
    pub(crate) ledger: Ledger,
    pub(crate) snapshots: Snapshots,
    pub(crate) leases: Holder,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) namespaces: BTreeMap<String, String>,
    pub(crate) images: BTreeMap<String, String>,
    pub(crate) expires: String,
    pub(crate) stop: StopSignal,
    guard: GuardContext,
    /// Watches that are open now.
    pub(crate) open_watches: Slots,
    /// Responses that are open now.
    pub(crate) open_responses: Slots,
    /// Targets that were looked at a moment ago.
    pub(crate) targets: Targets,
    /// Logs and commands that are open now.
    pub(crate) open_streams: Slots,
    /// How new the server's answers were so far.
    pub(crate) seen: Freshness,
    wall_ms: u64,
    sandboxes: Vec<String>,
}

impl Live {
    pub(super) fn new(door: LiveDoor) -> Live {
        let sandboxes: Vec<String> = door.namespaces.values().cloned().collect();
        Live {
            open_watches: Slots::default(),
            open_responses: Slots::default(),
            targets: Targets::default(),
            open_streams: Slots::default(),
            seen: Freshness::default(),
            guard: GuardContext {
                run: door.run.clone(),
                probe: door.manifest.id.clone(),
                namespaces: sandboxes.clone(),
                reach: door.reach,
                effective: Arc::clone(&door.effective),
                images: door.images.values().cloned().collect(),
                ledger: door.journal.ledger(),
                priority_classes: door.priority_classes,
                pull_secrets: door.pull_secrets,
            },
            wall_ms: door.limits.wall_ms,
            sandboxes,
            leases: door.leases.holder(&door.manifest.id),
            ledger: door.journal.ledger(),
            recorder: Mutex::new(Some(door.recorder)),
            cluster: door.cluster.with_own_counter(),
            run: door.run,
            attempt: door.attempt,
            manifest: door.manifest,
            effective: door.effective,
            redactor: door.redactor,
            journal: door.journal,
            snapshots: door.snapshots,
            settings: door.settings,
            namespaces: door.namespaces,
            images: door.images,
            expires: door.expires,
            stop: door.stop,
        }
    }

    /// The run's key.
    pub(crate) fn key(&self) -> &RunKey {
        &self.journal.head().key
    }

    /// Whether a namespace is a sandbox of this attempt.
    pub(crate) fn is_sandbox(&self, namespace: &str) -> bool {
        self.sandboxes.iter().any(|own| own == namespace)
    }

    /// Permission, guard, real values: in this order nothing of a forbidden call is ever resolved.
    pub(super) fn admit(self: &Arc<Self>, call: &Call, stage: &Stage) -> Result<Wire, Failure> {
        let refused = |text: String| Failure::Refused(self.redactor.redact_text(&text));
        let mut wire = Wire {
            live: Arc::clone(self),
            sequence: stage.sequence,
            sent: Arc::clone(&stage.sent),
            access: call
                .access
                .as_ref()
                .map(|access| self.real(access))
                .transpose()?,
            body: call.body.clone(),
            labels: self.redactor.restore_text(&call.labels).map_err(removed)?,
        };
        if let Some(body) = &mut wire.body {
            self.redactor.restore(body).map_err(removed)?;
        }
        let also = call
            .also
            .as_ref()
            .map(|access| self.real(access))
            .transpose()?;
        for access in wire.access.iter().chain(&also) {
            if let Access::Resource(at) = access {
                // A pseudonym may stand for anything; what comes out of it is checked like what came in.
                address::check(at)?;
            }
            self.effective
                .allows(access)
                .map_err(|refusal| refused(refusal.to_string()))?;
        }
        for access in also.iter().chain(&wire.access) {
            match access {
                Access::Resource(at) => {
                    let is_main = Some(access) == wire.access.as_ref();
                    let mut request = guard::Request {
                        access: at,
                        body: if is_main { wire.body.as_mut() } else { None },
                        patch: if is_main { call.patch } else { None },
                        labels: std::mem::take(&mut wire.labels),
                    };
                    let checked = guard::check(&mut request, &self.guard);
                    wire.labels = request.labels;
                    checked.map_err(|refusal| refused(refusal.to_string()))?;
                }
                Access::NonResource { path } => {
                    guard::check_path(path).map_err(|refusal| refused(refusal.to_string()))?;
                }
                Access::Discovery => {}
            }
        }
        Ok(wire)
    }

    fn real(&self, access: &Access) -> Result<Access, Failure> {
        let restore = |text: &str| self.redactor.restore_text(text).map_err(removed);
        Ok(match access {
            Access::Resource(at) => Access::Resource(ResourceAccess {
                namespace: restore(&at.namespace)?,
                name: restore(&at.name)?,
                path: restore(&at.path)?,
                ..at.clone()
            }),
            other => other.clone(),
        })
    }

    /// Ends work that outlives the attempt's time or the run.
    pub(super) async fn bounded<T>(
        &self,
        is_write: bool,
        deadline: Instant,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        let grace = if is_write {
            WRITE_GRACE
        } else {
            Duration::ZERO
        };
        tokio::select! {
            biased;
            result = work => result,
            () = sleep_until(deadline + grace) => {
                Err(Failure::Budget(wall_text(self.wall_ms)).into())
            }
            () = async { self.stop.stopped().await; sleep(grace).await } => Err(Failure::Stopping.into()),
        }
    }
}

fn removed(error: Removed) -> Failure {
    Failure::Malformed(error.to_string())
}

/// The words for a wall budget that is used up.
pub(super) fn wall_text(wall_ms: u64) -> String {
    format!(
        "budget `wall`: the {} s of this probe are over; `wall` under [budget] in probe.toml sets the limit",
        wall_ms / 1000
    )
}

/// One call on its way.
pub(super) struct Stage {
    pub(super) live: Arc<Live>,
    pub(super) sequence: u64,
    pub(super) too_large: Option<usize>,
    pub(super) case_before: Option<CaseKey>,
    pub(super) began: Instant,
    pub(super) sent: Arc<Sent>,
    pub(super) _busy: Busy,
}

impl Stage {
    /// How often the most repeated request of the call was sent; 0 when it needed none.
    pub(super) fn tries(&self) -> u32 {
        self.sent.tries.load(Ordering::Relaxed)
    }
}

/// Counts the requests of one call.
#[derive(Debug, Default)]
pub(super) struct Sent {
    requests: AtomicU32,
    tries: AtomicU32,
}

fn tries_of<T>(opened: &Result<Opened<T>, SendError>) -> u32 {
    match opened {
        Ok(Opened::Stream(_, tries)) => *tries,
        Ok(Opened::Answer(answer)) => answer.tries,
        Err(error) => error.tries(),
    }
}

/// What a live action speaks through. Every request carries the audit id of its call.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) live: Arc<Live>,
    sequence: u64,
    sent: Arc<Sent>,
    /// What the call reaches for, with real values.
    pub(crate) access: Option<Access>,
    /// The body, with real values and as the guard completed it.
    pub(crate) body: Option<Value>,
    /// The label selector, with real values and as the guard narrowed it.
    pub(crate) labels: String,
}

impl Wire {
    /// The resource that the call reaches for; only for calls that have one.
    pub(crate) fn resource(&self) -> Result<&ResourceAccess, Trouble> {
        match &self.access {
            Some(Access::Resource(at)) => Ok(at),
            _ => Err(Failure::Malformed("the call names no resource".to_owned()).into()),
        }
    }

    /// Real values for pseudonyms in a text: selectors, paths.
    pub(crate) fn restore(&self, text: &str) -> Result<String, Trouble> {
        let restored = self.live.redactor.restore_text(text).map_err(removed)?;
        Ok(restored)
    }

    /// Sends one request.
    pub(crate) async fn send(&self, mut request: Request) -> Result<HttpAnswer, SendError> {
        request.audit_id = Some(self.audit_id());
        let result = self.live.cluster.send(&request).await;
        let tries = match &result {
            Ok(answer) => answer.tries,
            Err(error) => error.tries(),
        };
        self.sent.tries.fetch_max(tries, Ordering::Relaxed);
        result
    }

    /// As [`Wire::send`], for what the door itself must know before it may write: the uid of an object, or whether a
    /// creation took effect. It is the engine that asks, so a probe with an account of its own needs no right for it.
    pub(crate) async fn look(&self, mut request: Request) -> Result<HttpAnswer, SendError> {
        request.audit_id = Some(self.audit_id());
        let result = self.live.cluster.as_itself().send(&request).await;
        let tries = match &result {
            Ok(answer) => answer.tries,
            Err(error) => error.tries(),
        };
        self.sent.tries.fetch_max(tries, Ordering::Relaxed);
        result
    }

    /// As [`Wire::look`], and answers other than 2xx are troubles.
    pub(crate) async fn look_at(&self, request: Request) -> Result<HttpAnswer, Trouble> {
        let answer = self.look(request).await?;
        if (200..300).contains(&answer.code) {
            Ok(answer)
        } else {
            Err(Trouble::Answered(answer.code, answer.body))
        }
    }

    /// As [`Wire::send`], and answers other than 2xx are troubles.
    pub(crate) async fn ask(&self, request: Request) -> Result<HttpAnswer, Trouble> {
        let answer = self.send(request).await?;
        if (200..300).contains(&answer.code) {
            Ok(answer)
        } else {
            Err(Trouble::Answered(answer.code, answer.body))
        }
    }

    /// Opens a stream of lines.
    pub(crate) async fn stream(&self, mut request: Request) -> Result<Streamed, SendError> {
        request.audit_id = Some(self.audit_id());
        self.sent.tries.fetch_max(1, Ordering::Relaxed);
        self.live.cluster.stream(&request).await
    }

    /// Sends one request to a workload, once, and gives the answer's head.
    pub(crate) async fn forward(&self, mut forward: Forward) -> Result<Forwarded, SendError> {
        forward.audit_id = Some(self.audit_id());
        self.sent.tries.fetch_max(1, Ordering::Relaxed);
        self.live.cluster.forward(&forward).await
    }

    /// Opens a body that is read piece by piece.
    pub(crate) async fn pieces(&self, mut request: Request) -> Result<Opened<Pieces>, SendError> {
        request.audit_id = Some(self.audit_id());
        let opened = self.live.cluster.pieces(&request).await;
        self.note_tries(tries_of(&opened));
        opened
    }

    /// Opens a WebSocket.
    pub(crate) async fn socket(&self, mut request: Request) -> Result<Opened<Socket>, SendError> {
        request.audit_id = Some(self.audit_id());
        let opened = self.live.cluster.socket(&request).await;
        self.note_tries(tries_of(&opened));
        opened
    }

    /// A lookup showed that an unanswered request took effect.
    pub(crate) fn note_tries(&self, tries: u32) {
        self.sent.tries.fetch_max(tries, Ordering::Relaxed);
    }

    /// `karat-<run>-<probe>-<sequence>-<attempt>`; later requests of the same call have `.2`, `.3` behind the sequence.
    fn audit_id(&self) -> String {
        let number = self.sent.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let part = if number == 1 {
            String::new()
        } else {
            format!(".{number}")
        };
        format!(
            "karat-{}-{}-{}{part}-{}",
            self.live.run, self.live.manifest.id, self.sequence, self.live.attempt
        )
    }
}
