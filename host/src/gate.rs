//! The door: every function that a probe may call goes through `Door::call`, and nothing else reaches outside.
//!
//! Out: count, budgets, deadline, stopping → permission ([`crate::grant`]) → guard ([`crate::guard`]) → real values for
//! pseudonyms → live, or the recording. In: size cap → redact → facts → reduce → record → guest → event. The guest gets
//! exactly the reply that was recorded; refused calls are recorded too. In a replay the live action never runs.
//!
//! Capabilities ([`crate::capability`]) build a `Call` and the live action, and get back a reply; they cannot hand
//! anything to a guest that did not pass here. What the door refuses to do: decide verdicts ([`crate::judge`]), or speak HTTP
//! ([`crate::cluster`]).

pub(crate) mod facts;
pub(crate) mod freshness;
pub(crate) mod keep;
mod live;
pub(crate) mod pieces;
pub(crate) mod reduce;
mod slots;
pub(crate) mod snapshots;
mod stop;

pub(crate) use facts::{MARKERS_MAX, is_played};
pub(crate) use live::{Live, Wire};
pub use live::{LiveDoor, expiry};
pub(crate) use slots::Slot;
pub use snapshots::Snapshots;
pub use stop::{StopHandle, StopSignal};

use crate::event::{Events, RunEventKind};
use crate::guard::PatchKind;
use crate::manifest::Manifest;
use crate::model::{CaseKey, Outcome, Usage};
use crate::recording::format::{
    Access, Bytes, EndDraft, EntryDraft, Facts, Failure, Limits, ObjectFact, Reply, Seen,
};
use crate::recording::{Player, Recorder, sha256_hex};
use keep::Keep;
use live::Stage;
use reduce::{Broken, Reducer};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Largest arguments of one call in bytes of JSON. An object in etcd has at most 1.5 MiB, a request of ours far less.
pub const ARGUMENTS_MAX: usize = 1 << 20;
/// Longest time of an attempt that is spent waiting for leases without counting against the wall budget.
pub const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// How often a probe may go on calling after a budget is used up, before it is ended.
const DEAF_MAX: u64 = 64;

/// Why an attempt must end now: the caller traps the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The guest does something else than was recorded. The text shows both sides.
    Diverged(String),
    /// The recording cannot be written or read any more: what is not recorded must not be seen.
    Unrecorded(String),
    /// A budget is used up and the guest does not return. The text names the budget.
    OverBudget(String),
}

/// One call of a guest on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Interface, resource and function: `kube-read.query.get`.
    pub(crate) function: &'static str,
    /// The arguments as the guest gave them.
    pub(crate) arguments: Value,
    /// What it reaches for.
    pub(crate) access: Option<Access>,
    /// Further access that it needs, checked but not recorded: a watch lists first.
    pub(crate) also: Option<Access>,
    /// Projection of the answer.
    pub(crate) keep: Keep,
    /// Body of a write, as the guest gave it.
    pub(crate) body: Option<Value>,
    /// Kind of patch.
    pub(crate) patch: Option<PatchKind>,
    /// Label selector of a list, watch or deletion, as the guest gave it. The guard may narrow it.
    pub(crate) labels: String,
    /// Whether it may change something, and so is not cut short.
    pub(crate) write: bool,
    /// Whether it is a dry run.
    pub(crate) dry_run: bool,
    /// Whether the answer must be as new as what was seen before: a read, and the first page of a list.
    pub(crate) newest: bool,
    /// The number of the watch it belongs to.
    pub(crate) watch: Option<u32>,
    /// Has no error in the contract, so it is answered even when the run ends or time is up.
    pub(crate) always: bool,
}

impl Call {
    pub(crate) fn new(function: &'static str, arguments: Value) -> Call {
        Call {
            function,
            arguments,
            access: None,
            also: None,
            keep: Keep::default(),
            body: None,
            patch: None,
            labels: String::new(),
            write: false,
            dry_run: false,
            newest: false,
            watch: None,
            always: false,
        }
    }

    pub(crate) fn reaching(mut self, access: Access) -> Call {
        self.access = Some(access);
        self
    }

    pub(crate) fn keeping(mut self, keep: &Keep) -> Call {
        self.keep = keep.clone();
        self
    }

    pub(crate) fn always(mut self) -> Call {
        self.always = true;
        self
    }
}

/// What a live action brings home, before anything is taken away from it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) content: Content,
    pub(crate) facts: Facts,
}

/// The forms of answers.
#[derive(Debug)]
pub(crate) enum Content {
    /// No result.
    Nothing,
    /// Text of the engine itself: a name, a time, a setting.
    Own(String),
    /// One object of the server.
    Object(Vec<u8>),
    /// A document of the server that was put together here: discovery.
    Document(Value),
    /// A page of a list of the server; the text is the API version of its items.
    List(Vec<u8>, String),
    /// Objects that were redacted when they were spooled.
    Spooled(Vec<Value>, String),
    /// A watch event with an object.
    Event(&'static str, Value),
    /// A watch event with text: `synced`, `gap`.
    Mark(&'static str, String),
    /// Positions of ready sources.
    Ready(Vec<u32>),
    /// A number.
    Number(u64),
    /// A path outside the resource API.
    Raw(crate::cluster::HttpAnswer),
    /// A part of a body, redacted when it came in ([`pieces`]).
    Piece(Vec<u8>),
    /// Text of somebody else, not yet redacted.
    Foreign(String),
    /// Numbers.
    Numbers(Vec<u32>),
    /// A document of a workload whose names and labels were redacted.
    Readings(String),
    /// A stream of a pod was opened. What the engine read of the pod and of its node goes into the facts alone.
    Opened(Box<About>),
}

/// What a stream of a pod is about, as far as the engine could read it.
#[derive(Debug, Default)]
pub(crate) struct About {
    /// The pod.
    pub(crate) pod: Option<Value>,
    /// Its node.
    pub(crate) node: Option<Value>,
}

impl Answer {
    /// Something the engine knows by itself.
    pub(crate) fn own(content: Content) -> Answer {
        Answer {
            content,
            facts: Facts::default(),
        }
    }

    /// Something that the server said to this very call.
    pub(crate) fn live(content: Content, code: u16) -> Answer {
        Answer {
            content,
            facts: Facts {
                live: true,
                code: Some(code),
                ..Facts::default()
            },
        }
    }
}

/// Why a live action brings nothing home.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// A failure whose text is ours.
    Failure(Failure),
    /// A failure whose text may name things of the cluster.
    Foreign(Failure),
    /// The server answered with an error.
    Answered(u16, Vec<u8>),
    /// No usable answer.
    Send(crate::cluster::SendError),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Failure(failure)
    }
}

impl From<crate::cluster::SendError> for Trouble {
    fn from(error: crate::cluster::SendError) -> Self {
        Trouble::Send(error)
    }
}

/// What a capability learns beside the reply.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    /// Token of a list's next page.
    pub(crate) next: String,
    /// The pod that a stream is about, redacted.
    pub(crate) about: Vec<ObjectFact>,
}

/// The door of one attempt. Cheap to clone; all clones are the same door.
#[derive(Clone)]
pub struct Door {
    core: Arc<Core>,
}

struct Core {
    mode: Mode,
    manifest: Arc<Manifest>,
    limits: Limits,
    probe: String,
    events: Events,
    started: Instant,
    state: Mutex<State>,
}

enum Mode {
    Live(Arc<Live>),
    Replay(Box<Mutex<Option<Player>>>),
}

/// What the door counts. The same in a recording and in its replay.
#[derive(Debug, Default)]
pub(crate) struct State {
    calls: u64,
    seen: u64,
    busy: bool,
    sequence: u64,
    budget: Option<String>,
    ended: Option<Ended>,
    /// The open case and what was opened so far.
    pub(crate) case: Option<CaseKey>,
    pub(crate) opened: BTreeSet<CaseKey>,
    /// Bytes written to the log.
    pub(crate) logged: u64,
    /// Whether the note that the log is full was written.
    pub(crate) log_full: bool,
    cursors: u32,
    /// Watches and streams.
    sources: u32,
    /// Time that does not count against the wall budget, since the attempt waited for others of the run.
    paused: Duration,
}

/// Keeps the wall budget from running out while the attempt waits for others of the run.
pub(crate) struct Pause<'a> {
    door: &'a Door,
    began: Instant,
    lent: Duration,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        // What was lent and not needed goes back.
        let unused = self.lent.saturating_sub(self.began.elapsed());
        let mut state = self.door.state();
        state.paused = state.paused.saturating_sub(unused);
    }
}

impl Door {
    /// A door to a cluster.
    pub fn live(door: LiveDoor) -> Door {
        let events = door.events.clone();
        Door {
            core: Arc::new(Core {
                manifest: Arc::clone(&door.manifest),
                limits: door.limits.clone(),
                probe: door.manifest.id.clone(),
                events,
                started: door.started,
                state: Mutex::default(),
                mode: Mode::Live(Arc::new(Live::new(door))),
            }),
        }
    }

    /// A door that opens onto a recording: no cluster, no time, no budget but the recorded ones.
    pub fn replay(player: Player, manifest: Arc<Manifest>) -> Door {
        Door {
            core: Arc::new(Core {
                limits: player.header().limits.clone(),
                probe: manifest.id.clone(),
                manifest,
                events: Events::silent(),
                started: Instant::now(),
                state: Mutex::default(),
                mode: Mode::Replay(Box::new(Mutex::new(Some(player)))),
            }),
        }
    }

    /// Why the attempt must end now, if it must. To be asked after every call of the guest.
    pub fn ended(&self) -> Option<Ended> {
        self.state().ended.clone()
    }

    /// The first budget that was used up, whether or not the guest went on.
    pub fn budget_hit(&self) -> Option<String> {
        self.state().budget.clone()
    }

    /// When the wall budget ends. Later, the longer the attempt waited for leases.
    pub fn deadline(&self) -> Instant {
        self.core.started + Duration::from_millis(self.core.limits.wall_ms) + self.paused()
    }

    /// Time that does not count against the wall budget.
    pub(crate) fn paused(&self) -> Duration {
        self.state().paused
    }

    /// Stops the clock of the wall budget for at most so long, and in all for [`PAUSE_MAX`].
    pub(crate) fn pause(&self, most: Duration) -> Pause<'_> {
        let mut state = self.state();
        let lent = most.min(PAUSE_MAX.saturating_sub(state.paused));
        state.paused += lent;
        drop(state);
        Pause {
            door: self,
            began: Instant::now(),
            lent,
        }
    }

    /// Gives back the leases that the attempt still holds. For its end, after its objects are gone.
    pub fn release_leases(&self) {
        if let Mode::Live(live) = &self.core.mode {
            live.leases.release_all();
        }
    }

    /// What the attempt used so far. The engine knows the memory.
    pub fn usage(&self, peak_memory_bytes: u64) -> Usage {
        let state = self.state();
        Usage {
            wall_ms: self.elapsed_ms(),
            calls: state.calls,
            seen_bytes: state.seen,
            peak_memory_bytes,
            requests: match &self.core.mode {
                Mode::Live(live) => live.cluster.requests(),
                Mode::Replay(_) => 0,
            },
        }
    }

    /// The open case, if the guest left one open.
    pub fn open_case(&self) -> Option<CaseKey> {
        self.state().case.clone()
    }

    /// Closes a live door: writes the end of the recording and gives its head. Later calls of the guest end the attempt.
    ///
    /// # Errors
    /// The recording could not be written, now or earlier, or this door is a replay or already closed.
    pub fn finish(
        &self,
        outcome: Outcome,
        usage: Usage,
        alive: BTreeMap<String, bool>,
        left_behind: Vec<String>,
    ) -> Result<String, String> {
        let Mode::Live(live) = &self.core.mode else {
            return Err("a replay writes no recording".to_owned());
        };
        let recorder = lock(&live.recorder).take();
        let recorder = recorder.ok_or_else(|| "the recording is already closed".to_owned())?;
        recorder
            .finish(EndDraft {
                outcome,
                usage,
                alive,
                left_behind,
            })
            .map_err(|e| e.to_string())
    }

    /// Ends a replay: the sequence numbers of recorded calls that were not made. Only a fixture may have such calls.
    ///
    /// # Errors
    /// Recorded calls of a strict replay were not made, the replay diverged before, or this door is live.
    pub fn finish_replay(&self) -> Result<Vec<u64>, String> {
        if let Some(Ended::Diverged(text) | Ended::Unrecorded(text)) = self.ended() {
            return Err(text);
        }
        let Mode::Replay(player) = &self.core.mode else {
            return Err("this door is live".to_owned());
        };
        let player = lock(player).take();
        let player = player.ok_or_else(|| "the replay is already over".to_owned())?;
        player.finish().map_err(|e| e.to_string())
    }

    /// One call whose live action has its answer ready, for measuring the door without a cluster.
    #[doc(hidden)]
    pub async fn measure(&self, object: Vec<u8>) -> Reply {
        let call = Call::new("bench.measure", json!({"name": "a"}));
        let live = |_| async { Ok(Answer::live(Content::Object(object), 200)) };
        self.call(call, live).await.0
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.core.manifest
    }

    pub(crate) fn events(&self) -> &Events {
        &self.core.events
    }

    pub(crate) fn probe(&self) -> &str {
        &self.core.probe
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.core.state)
    }

    pub(crate) fn elapsed_ms(&self) -> u64 {
        millis(self.core.started.elapsed())
    }

    /// The number that the next cursor gets. Taken for good by [`Door::cursor_opened`], so that refused ones leave no hole.
    pub(crate) fn next_cursor(&self) -> u32 {
        self.state().cursors + 1
    }

    pub(crate) fn cursor_opened(&self) {
        self.state().cursors += 1;
    }

    /// As [`Door::next_cursor`], for watches, streams and responses, which share their numbers: a wait names them all.
    pub(crate) fn next_source(&self) -> u32 {
        self.state().sources + 1
    }

    pub(crate) fn source_opened(&self) {
        self.state().sources += 1;
    }

    /// One call that may wait. `live` does the work; it is not run in a replay, nor when the door refuses.
    pub(crate) async fn call<F, Fut>(&self, call: Call, live: F) -> (Reply, Extras)
    where
        F: FnOnce(Wire) -> Fut,
        Fut: Future<Output = Result<Answer, Trouble>>,
    {
        let began = match self.begin(call) {
            Ok(began) => began,
            Err(reply) => return (reply, Extras::default()),
        };
        let Began { call, stage, at_ms } = began;
        let outcome = match self.admit(&call, &stage) {
            Ok(wire) => {
                stage
                    .live
                    .bounded(call.write, self.deadline(), live(wire))
                    .await
            }
            Err(failure) => Err(Trouble::Failure(failure)),
        };
        self.settle(call, &stage, at_ms, outcome)
    }

    /// The synchronous twin, for what needs no cluster.
    pub(crate) fn local(
        &self,
        call: Call,
        live: impl FnOnce(&Live) -> Result<Answer, Trouble>,
    ) -> Reply {
        let began = match self.begin(call) {
            Ok(began) => began,
            Err(reply) => return reply,
        };
        let Began { call, stage, at_ms } = began;
        let outcome = match self.admit(&call, &stage) {
            Ok(_) => live(&stage.live),
            Err(failure) => Err(Trouble::Failure(failure)),
        };
        self.settle(call, &stage, at_ms, outcome).0
    }

    /// A call that makes no sense, found before anything else was looked at.
    pub(crate) fn refuse(&self, call: Call, failure: Failure) -> Reply {
        self.local(call, |_| Err(Trouble::Failure(failure)))
    }

    /// Counts the call; in a replay, answers it.
    fn begin(&self, mut call: Call) -> Result<Began, Reply> {
        let too_large = clamp_arguments(&mut call.arguments);
        let at_ms = self.elapsed_ms();
        let mut state = self.state();
        if state.ended.is_some() {
            return Err(Err(Failure::Stopping));
        }
        state.calls += 1;
        let live = match &self.core.mode {
            Mode::Live(live) => Arc::clone(live),
            Mode::Replay(player) => {
                drop(state);
                return Err(self.play(player, &call));
            }
        };
        if state.busy {
            // The contract is synchronous; a second call at once would mix up sequence numbers.
            drop(state);
            self.end(Ended::Unrecorded(
                "two calls of one probe at the same time".to_owned(),
            ));
            return Err(Err(Failure::Stopping));
        }
        state.busy = true;
        let sequence = state.sequence + 1;
        let case_before = state.case.clone();
        drop(state);
        Ok(Began {
            stage: Stage {
                live,
                sequence,
                too_large,
                case_before,
                began: Instant::now(),
                sent: Arc::default(),
                _busy: Busy(Arc::clone(&self.core)),
            },
            call,
            at_ms,
        })
    }

    /// The way out: everything that can forbid the call.
    fn admit(&self, call: &Call, stage: &Stage) -> Result<Wire, Failure> {
        if let Some(bytes) = stage.too_large {
            return Err(Failure::Malformed(format!(
                "the arguments of {} are {bytes} bytes; at most {ARGUMENTS_MAX} are taken",
                call.function
            )));
        }
        if let Some(text) = self.over_calls(call) {
            return Err(Failure::Budget(text));
        }
        if !call.always {
            if stage.live.stop.is_stopping() {
                return Err(Failure::Stopping);
            }
            if Instant::now() >= self.deadline() {
                return Err(self.out_of_time());
            }
        }
        stage.live.admit(call, stage)
    }

    /// Whether the budget of calls is used up. A guest that does not care, or that cannot be told because the function has
    /// no error, is ended; in a replay at the same call as in the recording.
    fn over_calls(&self, call: &Call) -> Option<String> {
        let limit = self.core.limits.calls;
        let mut state = self.state();
        if state.calls <= limit {
            return None;
        }
        let text = format!(
            "budget `calls`: all {limit} host calls are used up; `calls` under [budget] in probe.toml sets the limit"
        );
        if call.always || state.calls - limit > DEAF_MAX {
            state
                .ended
                .get_or_insert_with(|| Ended::OverBudget(text.clone()));
        }
        Some(text)
    }

    fn out_of_time(&self) -> Failure {
        Failure::Budget(live::wall_text(self.core.limits.wall_ms))
    }

    /// The way in: what remains of the answer is recorded and given to the guest.
    fn settle(
        &self,
        call: Call,
        stage: &Stage,
        at_ms: u64,
        outcome: Result<Answer, Trouble>,
    ) -> (Reply, Extras) {
        let live = &stage.live;
        let mut extras = Extras::default();
        let room = self
            .core
            .limits
            .seen_bytes
            .saturating_sub(self.state().seen);
        let (group, resource) = match &call.access {
            Some(Access::Resource(at)) => (at.group.as_str(), at.resource.as_str()),
            _ => ("", ""),
        };
        let reducer = Reducer {
            redactor: &live.redactor,
            keep: &call.keep,
            ledger: &live.ledger,
            group,
            resource,
            room,
            seen: &live.seen,
            newest: call.newest,
        };
        let (mut reply, mut facts) = match outcome {
            Ok(Answer { content, mut facts }) => {
                let reply = shape(&reducer, content, &mut facts, &mut extras);
                (reply, facts)
            }
            Err(trouble) => self.failed(&reducer, trouble),
        };
        facts.dry_run = call.dry_run;
        facts.watch = call.watch;
        if let Err(Failure::Answered { code, reason, .. }) = &reply {
            facts.live = true;
            facts.code = Some(*code);
            facts.reason.clone_from(reason);
        }
        let mut bytes = seen_bytes(&reply);
        if bytes > room && !call.always {
            reply = Err(self.overflow(bytes, room));
            bytes = seen_bytes(&reply);
            facts = Facts {
                dry_run: call.dry_run,
                watch: call.watch,
                ..Facts::default()
            };
        }
        if let Err(Failure::Budget(text)) = &reply {
            self.state().budget.get_or_insert_with(|| text.clone());
        }
        let case = {
            let mut state = self.state();
            state.seen += bytes;
            stage.case_before.clone().or_else(|| state.case.clone())
        };
        let done_ms = self.elapsed_ms();
        let event = self.event(&call, stage, &reply, bytes);
        let draft = EntryDraft {
            at_ms,
            done_ms,
            case,
            function: call.function.to_owned(),
            arguments: call.arguments,
            access: call.access,
            facts,
            tries: stage.tries(),
        };
        if let Err(cause) = self.record(live, draft, &reply) {
            self.end(Ended::Unrecorded(cause));
            return (Err(Failure::Stopping), Extras::default());
        }
        self.core.events.send(event);
        (reply, extras)
    }

    fn failed(&self, reducer: &Reducer<'_>, trouble: Trouble) -> (Reply, Facts) {
        let redacted = |text: &str| reducer.redactor.redact_text(text);
        let failure = match trouble {
            Trouble::Failure(failure) => failure,
            Trouble::Foreign(failure) => match failure {
                Failure::Refused(text) => Failure::Refused(redacted(&text)),
                Failure::NoAnswer(text) => Failure::NoAnswer(redacted(&text)),
                Failure::Malformed(text) => Failure::Malformed(redacted(&text)),
                Failure::Other(text) => Failure::Other(redacted(&text)),
                Failure::Budget(text) => Failure::Budget(redacted(&text)),
                Failure::Answered { .. } | Failure::Expired | Failure::Stopping => failure,
            },
            Trouble::Answered(code, body) => reducer.failure(code, &body),
            Trouble::Send(error @ crate::cluster::SendError::NoAnswer { .. }) => {
                Failure::NoAnswer(redacted(&error.to_string()))
            }
            Trouble::Send(error @ crate::cluster::SendError::TooLarge { .. }) => {
                Failure::Budget(format!("{error}; narrow the query"))
            }
        };
        (Err(failure), Facts::default())
    }

    fn overflow(&self, bytes: u64, room: u64) -> Failure {
        Failure::Budget(format!(
            "budget `seen`: an answer of {bytes} bytes does not fit into the {room} that are left of {}; keep fewer fields, \
             narrow the query, or raise `seen` under [budget] in probe.toml",
            self.core.limits.seen_bytes
        ))
    }

    fn record(&self, live: &Live, draft: EntryDraft, reply: &Reply) -> Result<(), String> {
        let mut recorder = lock(&live.recorder);
        let recorder: &mut Recorder = recorder
            .as_mut()
            .ok_or_else(|| "the recording is closed".to_owned())?;
        let sequence = recorder.append(draft, reply).map_err(|e| e.to_string())?;
        self.state().sequence = sequence;
        Ok(())
    }

    fn event(&self, call: &Call, stage: &Stage, reply: &Reply, bytes: u64) -> RunEventKind {
        RunEventKind::Called {
            probe: self.core.probe.clone(),
            sequence: stage.sequence,
            function: call.function.to_owned(),
            target: call.access.as_ref().map(target).unwrap_or_default(),
            outcome: outcome_words(reply),
            took_us: u64::try_from(stage.began.elapsed().as_micros()).unwrap_or(u64::MAX),
            bytes,
        }
    }

    fn play(&self, player: &Mutex<Option<Player>>, call: &Call) -> Reply {
        let mut player = lock(player);
        let Some(player) = player.as_mut() else {
            return Err(Failure::Stopping);
        };
        match player.next(call.function, &call.arguments) {
            Ok(played) => {
                let mut state = self.state();
                state.seen += seen_bytes(&played.reply);
                if let Err(Failure::Budget(text)) = &played.reply {
                    state.budget.get_or_insert_with(|| text.clone());
                }
                drop(state);
                self.over_calls(call);
                played.reply
            }
            Err(error) => {
                let text = error.to_string();
                self.end(match error {
                    crate::recording::PlayError::Divergence(_) => Ended::Diverged(text),
                    crate::recording::PlayError::Record(_) => Ended::Unrecorded(text),
                });
                Err(Failure::Stopping)
            }
        }
    }

    fn end(&self, why: Ended) {
        self.state().ended.get_or_insert(why);
    }
}

struct Began {
    call: Call,
    stage: Stage,
    at_ms: u64,
}

/// Marks the door as busy with a call, also when the call's future is dropped.
pub(crate) struct Busy(Arc<Core>);

impl Drop for Busy {
    fn drop(&mut self) {
        lock(&self.0.state).busy = false;
    }
}

/// From content to what the guest sees.
fn shape(reducer: &Reducer<'_>, content: Content, facts: &mut Facts, extras: &mut Extras) -> Reply {
    let reduced = match content {
        Content::Nothing => Ok(Seen::Nothing),
        Content::Own(text) => Ok(Seen::Text(text)),
        Content::Object(body) => reducer.object(&body, facts).map(Seen::Text),
        Content::Document(mut value) => {
            reducer.redactor.redact("", "", &mut value);
            Ok(Seen::Text(value.to_string()))
        }
        Content::List(body, api_version) => reducer.list(&body, &api_version, facts).map(|page| {
            extras.next = page.next;
            Seen::Page {
                objects: page.objects,
                position: page.position,
            }
        }),
        Content::Spooled(objects, position) => Ok(Seen::Page {
            objects: objects
                .into_iter()
                .map(|mut object| {
                    reducer.keep.apply(&mut object);
                    object.to_string()
                })
                .collect(),
            position,
        }),
        Content::Event(kind, object) => {
            facts.event = kind.to_owned();
            reducer.value(object, facts).map(|text| Seen::Event {
                kind: kind.to_owned(),
                text,
            })
        }
        Content::Mark(kind, text) => {
            facts.event = kind.to_owned();
            Ok(Seen::Event {
                kind: kind.to_owned(),
                text: reducer.redactor.redact_text(&text),
            })
        }
        Content::Ready(positions) => Ok(Seen::Ready(positions)),
        Content::Number(number) => Ok(Seen::Number(number)),
        Content::Piece(bytes) => Ok(Seen::Bytes(Bytes::of(bytes))),
        Content::Foreign(text) => Ok(Seen::Text(reducer.redactor.redact_text(&text))),
        Content::Numbers(numbers) => Ok(Seen::Numbers(numbers)),
        Content::Readings(text) => Ok(Seen::Text(text)),
        Content::Raw(answer) => Ok(Seen::Raw {
            code: answer.code,
            content_type: answer.content_type,
            body: reducer
                .redactor
                .redact_text(&String::from_utf8_lossy(&answer.body)),
        }),
        Content::Opened(about) => {
            let About { pod, node } = *about;
            reducer.about(pod, node, facts);
            extras.about.clone_from(&facts.objects);
            Ok(Seen::Nothing)
        }
    };
    reduced.map_err(|broken| match broken {
        Broken::Overflow => Failure::Budget(format!(
            "budget `seen`: the answer does not fit into the {} bytes that are left; keep fewer fields, narrow the query, \
             or raise `seen` under [budget] in probe.toml",
            reducer.room
        )),
        Broken::Shape(cause) => Failure::NoAnswer(reducer.redactor.redact_text(&cause)),
    })
}

/// Bytes of a reply that count against the budget `seen`: the text that the guest gets.
fn seen_bytes(reply: &Reply) -> u64 {
    let bytes = match reply {
        Ok(Seen::Nothing | Seen::Number(_)) => 0,
        Ok(Seen::Text(text)) => text.len(),
        Ok(Seen::Page { objects, position }) => {
            objects.iter().map(String::len).sum::<usize>() + position.len()
        }
        Ok(Seen::Event { text, .. }) => text.len(),
        Ok(Seen::Ready(numbers) | Seen::Numbers(numbers)) => numbers.len() * 4,
        Ok(Seen::Bytes(bytes)) => bytes.len(),
        Ok(Seen::Raw {
            content_type, body, ..
        }) => content_type.len() + body.len(),
        Err(Failure::Answered {
            reason,
            message,
            body,
            ..
        }) => reason.len() + message.len() + body.len(),
        // The door's own words are short and must always fit.
        Err(_) => 0,
    };
    bytes as u64
}

/// Replaces arguments that are too large by their size and digest, so that a recording cannot be flooded and a replay
/// still compares them. Gives the size then.
fn clamp_arguments(arguments: &mut Value) -> Option<usize> {
    // Most calls have a few words; measuring them by writing them out would cost more than the call.
    if rough_size(arguments) <= ARGUMENTS_MAX / 6 {
        return None;
    }
    let text = arguments.to_string();
    if text.len() <= ARGUMENTS_MAX {
        return None;
    }
    *arguments = json!({"bytes": text.len(), "sha256": sha256_hex(text.as_bytes())});
    Some(text.len())
}

fn rough_size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| rough_size(item) + 1).sum(),
        Value::Object(map) => map
            .iter()
            .map(|(key, item)| key.len() + 4 + rough_size(item))
            .sum(),
        _ => 24,
    }
}

/// A call's target in a few words, for people.
fn target(access: &Access) -> String {
    match access {
        Access::Resource(at) => {
            let mut text = format!("{} {}", at.verb, at.resource);
            for (sign, part) in [
                ("/", &at.subresource),
                (".", &at.group),
                (" ", &at.namespace),
                (if at.namespace.is_empty() { " " } else { "/" }, &at.name),
                ("", &at.path),
            ] {
                if !part.is_empty() {
                    text.push_str(sign);
                    text.push_str(part);
                }
            }
            text
        }
        Access::NonResource { path } => format!("get {path}"),
        Access::Discovery => "discovery".to_owned(),
    }
}

fn outcome_words(reply: &Reply) -> String {
    match reply {
        Ok(_) => "ok".to_owned(),
        Err(Failure::Answered { code, reason, .. }) => {
            format!("answered {code} {reason}").trim_end().to_owned()
        }
        Err(Failure::Refused(_)) => "refused".to_owned(),
        Err(Failure::NoAnswer(_)) => "no answer".to_owned(),
        Err(Failure::Expired) => "expired".to_owned(),
        Err(Failure::Budget(_)) => "over budget".to_owned(),
        Err(Failure::Stopping) => "stopping".to_owned(),
        Err(Failure::Malformed(_)) => "malformed".to_owned(),
        Err(Failure::Other(text)) => text.split(':').next().unwrap_or_default().to_owned(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
