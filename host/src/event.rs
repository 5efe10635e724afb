//! Everything the outside may know about a run while it goes on: the only bridge between the engine and whoever shows,
//! counts or exports it. Events are facts in the past tense; a report never needs them, it is made from the run record.

use crate::model::{CaseKey, CaseResult, Judgement, Outcome, Usage};
use jiff::Timestamp;

/// One event with its time.
#[derive(Clone, Debug)]
pub struct RunEvent {
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub kind: RunEventKind,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum RunEventKind {
    /// The engine speaks to this cluster.
    ClusterReached {
        /// `gitVersion` of the server.
        server_version: String,
        /// Address of the server, for people.
        server: String,
    },
    /// The run has an id, and its folder exists.
    RunStarted {
        /// Run id.
        run: String,
        /// Probes that will be started, in order.
        probes: Vec<String>,
    },
    /// A phase of preparation began: `inventory`, `preflight`, `home namespace`, …
    Preparing {
        /// What is being prepared.
        what: String,
    },
    /// Another run holds the cluster's Lease, and this one waits for it.
    Waiting {
        /// Run id of the other one, text of the cluster.
        holder: String,
        /// Since when it holds the Lease, RFC 3339; text of the cluster.
        since: String,
        /// What it says that it is for; text of the cluster.
        purpose: String,
        /// How long this run goes on waiting, in milliseconds.
        left_ms: u64,
    },
    /// An attempt began.
    ProbeStarted {
        /// Probe id.
        probe: String,
        /// Counts from 1.
        attempt: u32,
        /// Declared cases.
        cases: usize,
    },
    /// The probe opened a case.
    CaseOpened {
        /// Probe id.
        probe: String,
        /// The case.
        case: CaseKey,
        /// The claim, from the manifest.
        claim: String,
    },
    /// The probe concluded a case; the engine's own judgement comes at the end.
    CaseConcluded {
        /// Probe id.
        probe: String,
        /// The case.
        case: CaseKey,
        /// `pass`, `fail`, `unknown`, …: the probe's word.
        word: String,
    },
    /// A call went through the door.
    Called {
        /// Probe id.
        probe: String,
        /// Sequence number in the recording.
        sequence: u64,
        /// `kube-read.query.get`.
        function: String,
        /// Verb, resource and name for people; empty for calls that reach nothing.
        target: String,
        /// `ok`, `answered 404`, `refused`, …
        outcome: String,
        /// Time in microseconds.
        took_us: u64,
        /// Bytes the guest saw.
        bytes: u64,
    },
    /// The probe wrote a log line (already redacted).
    Logged {
        /// Probe id.
        probe: String,
        /// `debug`, `info`, `warn` or `error`.
        level: String,
        /// Text of the guest.
        text: String,
    },
    /// The probe waits for a lease; sent again when the reason changes.
    LeaseAwaited {
        /// Probe id.
        probe: String,
        /// `waits for 3 nodes held by priority-preemption`.
        why: String,
    },
    /// The probe got a lease.
    LeaseGranted {
        /// Probe id.
        probe: String,
        /// How many nodes.
        nodes: usize,
        /// Which locks.
        locks: Vec<String>,
        /// How long it waited, in milliseconds.
        waited_ms: u64,
    },
    /// The probe gave a lease back, or its attempt ended.
    LeaseReleased {
        /// Probe id.
        probe: String,
        /// How long it was held, in milliseconds.
        held_ms: u64,
    },
    /// An attempt ended and was judged.
    ProbeFinished {
        /// Probe id.
        probe: String,
        /// Counts from 1.
        attempt: u32,
        /// How it ended.
        outcome: Outcome,
        /// What the engine makes of it.
        judgement: Box<Judgement>,
        /// What it used.
        usage: Usage,
    },
    /// A case of a finished attempt, judged.
    CaseJudged {
        /// Probe id.
        probe: String,
        /// The judgement.
        result: Box<CaseResult>,
    },
    /// The run was asked to stop.
    Stopping {
        /// Name of the signal or the cause.
        cause: String,
    },
    /// Objects are being removed.
    CleaningUp {
        /// How many of ours remain.
        remaining: usize,
        /// One of them, for people.
        example: String,
    },
    /// Something the user should know and that stops nothing.
    Warned {
        /// One sentence.
        text: String,
    },
    /// The run is over; everything is written.
    RunFinished {
        /// Objects that could not be removed.
        left_behind: Vec<String>,
    },
}

/// Where events go. Cheap to clone; sending never waits and never fails.
#[derive(Clone, Default)]
pub struct Events {
    sender: Option<tokio::sync::mpsc::UnboundedSender<RunEvent>>,
}

impl Events {
    /// A sender and the stream that the caller reads.
    pub fn channel() -> (Events, tokio::sync::mpsc::UnboundedReceiver<RunEvent>) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        (
            Events {
                sender: Some(sender),
            },
            receiver,
        )
    }

    /// Drops every event; for replays and tests.
    pub fn silent() -> Events {
        Events::default()
    }

    /// Sends one event with the present time.
    pub fn send(&self, kind: RunEventKind) {
        if let Some(sender) = &self.sender {
            // A reader that went away must not stop a run.
            let _ = sender.send(RunEvent {
                at: Timestamp::now(),
                kind,
            });
        }
    }
}
