//! A run from its plan to its record.
//!
//! [`plan`] works out what will be done. [`run`] prepares what all probes share, then the dispatcher starts attempts, puts
//! their ends in order and keeps `run.json` up to date; the executor runs one attempt, `guest` the guest itself, and
//! `outcome` names how it ended. Dispatcher and executor share a context that never changes, not state.

pub mod plan;

mod dispatcher;
mod executor;
mod guest;
mod homes;
pub mod lock;
mod outcome;
mod prepare;

pub(crate) use guest::{GuestRun, run as run_guest};
pub(crate) use outcome::{GuestEnd, classify};

use crate::cluster::Cluster;
use crate::component::Probe;
use crate::engine::{Engine, MAX_GUESTS};
use crate::event::Events;
use crate::gate::{Door, Snapshots, StopSignal};
use crate::grant::Grants;
use crate::images::Images;
use crate::journal::{Journal, JournalError};
use crate::lease::{Leases, NodeChoice};
use crate::manifest::{Manifest, SettingKind};
use crate::model::{ClusterRecord, Outcome, Reach, RunRecord};
use crate::recording::format::Limits;
use crate::redact::{Redactor, Rules};
use crate::run_lease::Holder;
use crate::runfolder::RunFolder;
use homes::Homes;
use lock::Lock;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Probes at one time at most: each needs its own slot of the engine's pool, and clean-up goes on beside it.
pub const PARALLEL_MAX: usize = (MAX_GUESTS / 2) as usize;

/// Everything a run needs. The caller has shown the plan and got consent.
pub struct RunRequest {
    /// The engine.
    pub engine: Engine,
    /// Probes to start, in the order of the plan.
    pub probes: Vec<Probe>,
    /// Probes that the plan left out, with the outcome that stands in the record for them.
    pub left_out: Vec<(Probe, Outcome)>,
    /// The cluster, with the engine's credentials.
    pub engine_cluster: Cluster,
    /// The cluster, with the credentials for calls of probes. Another instance, so that they cannot be mixed up.
    pub probe_cluster: Cluster,
    /// What the operator grants.
    pub grants: Grants,
    /// How far the run may go.
    pub reach: Reach,
    /// The operator's settings by probe id and key.
    pub settings: BTreeMap<String, BTreeMap<String, String>>,
    /// The program's own images, and mirrors.
    pub images: Images,
    /// The nodes that leases may take.
    pub nodes: NodeChoice,
    /// Probes at one time, at least 1; cut at [`PARALLEL_MAX`].
    pub parallel: usize,
    /// The output folder. New or empty for a new run; the folder of the run for the other modes.
    pub out: PathBuf,
    /// What to do with a run that is already there.
    pub mode: Mode,
    /// Ids of probes that get an account of their own, with exactly their effective permissions, and act as it.
    pub enforce: BTreeSet<String>,
    /// How two runs on one cluster are kept apart.
    pub lock: Lock,
    /// What the operator wants hidden beside what this program hides.
    pub redaction: Arc<Rules>,
    /// The reviewer's nonce, for a new run.
    pub nonce: Option<String>,
    /// Whether the cluster's issuer witnesses the run ([`crate::witness`]). A run that goes on keeps what it began with.
    pub witness: bool,
    /// Where events go.
    pub events: Events,
    /// Asks the run to stop: guests get two seconds, everything is removed and written.
    pub stop: StopSignal,
    /// Asks the run to stop at once. What exists stays; the journal remembers it for `karat clean`.
    pub stop_now: StopSignal,
}

/// Whether a run is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A new run.
    New,
    /// The same run again for probes whose last attempt did not pass. Attempts are added, never replaced.
    RerunFailed,
    /// The rest of a run that was interrupted: probes without a finished attempt begin anew.
    Resume,
}

/// Why a run could not be done, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The folder of the run.
    #[error(transparent)]
    Folder(#[from] crate::runfolder::FolderError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No random bytes.
    #[error(transparent)]
    Randomness(#[from] crate::seal::NoRandomness),
    /// The cluster does not say who it is.
    #[error("cluster {server}: {cause}")]
    Identity {
        /// Address of the server.
        server: String,
        /// What is wrong.
        cause: String,
    },
    /// The run in the folder cannot be continued with what is asked for now.
    #[error(
        "run {run} cannot be continued: {what} was {before} then and is {now} now; start a new run in another folder"
    )]
    Changed {
        /// Run id.
        run: String,
        /// What differs.
        what: &'static str,
        /// Then.
        before: String,
        /// Now.
        now: String,
    },
    /// Another run holds the cluster's Lease.
    #[error("run {} holds Lease default/karat-run{}{}{}", holder.run, since(holder), purpose(holder), how_long(*waited, *own))]
    Held {
        /// Who.
        holder: Holder,
        /// How long this run waited.
        waited: Duration,
        /// Whether it is the same run: another process of it is still going.
        own: bool,
    },
    /// The run was stopped while it waited.
    #[error("stopped while it waited for run {holder}; nothing was started")]
    StoppedWaiting {
        /// Run id.
        holder: String,
    },
    /// The Lease cannot be used.
    #[error(
        "Lease default/karat-run, by which two runs on one cluster are kept apart, cannot be used: {cause}"
    )]
    Lock {
        /// Whether the account may not.
        forbidden: bool,
        /// What was tried: `get`, `create`, `delete`.
        verb: String,
        /// What the server said.
        cause: String,
    },
    /// The Lease was taken away; the run stopped as after a signal.
    #[error(
        "run {run} lost its Lease{} and stopped; what it had created is removed, and what ended before stands in the record",
        by(holder)
    )]
    LockLost {
        /// Run id.
        run: String,
        /// Who has it now; empty when it was deleted.
        holder: String,
    },
    /// What all probes share could not be prepared.
    #[error("run cannot be prepared: {0}")]
    Prepare(String),
    /// A defect of this program, found while attempts ran; what exists was still removed.
    #[error("a task of the run failed: {0}; this is a defect of karat, please report it")]
    Defect(String),
    /// The run was told to stop at once.
    #[error("run {run} was stopped before its clean-up; `karat clean {}` removes what it left", folder.display())]
    StoppedNow {
        /// Run id.
        run: String,
        /// Folder of the run.
        folder: PathBuf,
    },
}

fn since(holder: &Holder) -> String {
    match holder.since.as_str() {
        "" => String::new(),
        since => format!(" since {since}"),
    }
}

fn purpose(holder: &Holder) -> String {
    match holder.purpose.as_str() {
        "" => String::new(),
        purpose => format!(" for {purpose}"),
    }
}

fn how_long(waited: Duration, own: bool) -> String {
    let own = if own {
        "; it is the run to be continued, and another process of it is still going"
    } else {
        ""
    };
    match waited.as_secs() {
        0 => own.to_owned(),
        seconds => format!("{own}; it did not let go within {seconds} s"),
    }
}

fn by(holder: &str) -> String {
    match holder {
        "" => String::new(),
        holder => format!(" to run {holder}"),
    }
}

/// What all attempts of a run share.
struct Context {
    engine: Engine,
    run: String,
    salt: String,
    nonce: Option<String>,
    identity: ClusterRecord,
    engine_cluster: Cluster,
    probe_cluster: Cluster,
    grants: Grants,
    reach: Reach,
    enforce: BTreeSet<String>,
    settings: BTreeMap<String, BTreeMap<String, String>>,
    images: Images,
    redactor: Arc<Redactor>,
    journal: Journal,
    snapshots: Snapshots,
    leases: Leases,
    homes: Homes,
    folder: RunFolder,
    events: Events,
    stop: StopSignal,
}

impl Context {
    /// Images of a manifest by name. That all are there was looked at before anything was created.
    fn images_of(&self, manifest: &Manifest) -> BTreeMap<String, String> {
        self.images.of(manifest).unwrap_or_default()
    }
}

/// Settings as the guest sees them: the operator's values, else the defaults of the manifest; secrets as references.
fn settings_of(
    manifest: &Manifest,
    given: &BTreeMap<String, BTreeMap<String, String>>,
) -> BTreeMap<String, String> {
    let given = given.get(&manifest.id);
    manifest
        .settings
        .iter()
        .filter_map(|(key, setting)| {
            let value = given
                .and_then(|given| given.get(key))
                .or(setting.default.as_ref())?;
            Some(match setting.kind {
                SettingKind::Secret => (key.clone(), format!("secret:{key}")),
                _ => (key.clone(), value.clone()),
            })
        })
        .collect()
}

/// Runs one guest behind a door of the caller's making, outside of any run, and says how it ended. Nothing is judged, and a
/// live door is left open. For benches, and for those who embed the engine with a door of their own.
pub async fn guest_behind(engine: &Engine, probe: &Probe, door: &Door, limits: &Limits) -> Outcome {
    let stop = StopSignal::never();
    let done = run_guest(engine, probe, door.clone(), limits, door.deadline(), &stop).await;
    classify(&done.end, &done.traces, limits, false)
}

/// Runs probes and gives the record, which also lies in the output folder.
///
/// # Errors
/// [`RunError`]: what went wrong around the probes. Whatever goes wrong in one of them is an outcome in the record.
pub async fn run(request: RunRequest) -> Result<RunRecord, RunError> {
    let prepared = prepare::prepare(request).await?;
    dispatcher::dispatch(prepared).await
}
