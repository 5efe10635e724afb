//! Watches: the present objects as `added`, then `synced`, then every change; and `gap` whenever continuity was lost.
//!
//! A task of the watch talks to the server and fills a queue; the guest empties it through the door, which redacts, reduces
//! and records each event as it is taken. A stream that ends and resumes at its resource version is no gap; one that
//! cannot is, and the present objects follow again. A guest that does not read stops the task, not the host: the queue is
//! bounded, the server then drops the watch, and what was lost shows as a gap.
//!
//! Events that come twice are given once; events that come in a wrong order are a gap, since nobody knows what else is
//! wrong then.
//!
//! A stream that hangs says nothing, and so does a quiet cluster. `Proof` tells them apart: a second stream of one second,
//! opened where the first one stands, delivers what was missed and ends in good order.

use super::kube_read::{Checked, PAGE, Query, page};
use super::wait::{News, PROVED_FROM, Proof, Source};
use super::{address, nothing, unexpected};
use crate::cluster::{HttpAnswer, Request, Streamed};
use crate::gate::freshness;
use crate::gate::keep::Keep;
use crate::gate::reduce::each_item;
use crate::gate::{Answer, Call, Content, Door, Slot, Trouble, Wire};
use crate::recording::format::{Access, Failure, ResourceAccess, Seen, function};
use serde::Deserialize;
use serde_json::{Value, json};
use std::cmp;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

/// Watches that one attempt may have open at a time.
pub const WATCHES_MAX: u32 = 32;
/// Bytes of events that wait for the guest, per watch.
const QUEUE_MAX: usize = 2 << 20;
/// Largest page of the present objects; with [`WATCHES_MAX`] this bounds the host's memory.
const PAGE_MAX: u64 = 4 << 20;
/// After how long the server ends a stream by itself. Short, so that a stream that hangs is noticed soon.
const STREAM_SECONDS: u64 = 30;
/// Silence after which a stream counts as hanging: the server should have ended it.
const STALL: Duration = Duration::from_secs(STREAM_SECONDS + 10);
/// The same for a stream that proves.
const PROOF_STALL: Duration = Duration::from_secs(5);
/// A stream that proves and ends earlier was not ended by the server's clock.
const PROOF_LASTS: Duration = Duration::from_millis(800);
/// How long a broken stream may take to resume before the guest is told that it is blind.
const RESUME_WITHIN: Duration = Duration::from_secs(5);
/// Longest pause between two attempts to list again.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// One event as the guest sees it: kind (`added`, `modified`, `deleted`, `synced`, `gap`) and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The kind.
    pub kind: String,
    /// The object in JSON, the resource version, or the reason of a gap.
    pub text: String,
}

/// A running watch. It ends when it is closed or dropped.
pub struct Watch {
    number: u32,
    access: Option<ResourceAccess>,
    keep: Keep,
    /// None in a replay and after `close`.
    running: Option<Running>,
}

struct Running {
    shared: Arc<Shared>,
    task: AbortHandle,
    _open: Slot,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Begins a watch: the first page of the present objects is read before this returns, so that a forbidden or unknown
/// resource is an error here.
///
/// # Errors
/// No permission to list and watch, too many open watches (`Budget`), a query that makes no sense, the server's refusal.
pub async fn open_watch(door: &Door, query: &Query) -> Result<Watch, Failure> {
    let number = door.next_source();
    let mut call = Call::new(function::WATCH_OPEN, query.arguments());
    call.watch = Some(number);
    let checked = match query.check().and_then(Checked::of_collection) {
        Ok(checked) => checked,
        Err(failure) => {
            nothing(function::WATCH_OPEN, door.refuse(call, failure))?;
            return Ok(Watch::new(door, number, None, None));
        }
    };
    let access = checked.access("watch", "");
    call.labels.clone_from(&checked.labels);
    call.also = Some(Access::Resource(checked.access("list", "")));
    let mut running = None;
    let (reply, _) = door
        .call(call.reaching(Access::Resource(access)), |wire| {
            let (running, checked) = (&mut running, checked.clone());
            async move {
                let Some(open) = wire.live.open_watches.take(WATCHES_MAX) else {
                    return Err(Failure::Budget(format!(
                        "{WATCHES_MAX} watches are open, more than that an attempt may not have; close one first"
                    ))
                    .into());
                };
                let mut limit = PAGE;
                let at = &checked.resource;
                let floor = wire.live.seen.newest(&at.group, &at.resource);
                let answer = page(&wire, &checked, &mut limit, PAGE_MAX, "").await?;
                if answer.code != 200 {
                    return Err(Trouble::Answered(answer.code, answer.body));
                }
                let position = freshness::position(&answer.body);
                if freshness::is_older(&position, floor) {
                    return Err(Failure::NoAnswer(past(&position, floor)).into());
                }
                let shared = Arc::new(Shared::new());
                let follower = Follower {
                    wire,
                    checked,
                    shared: Arc::clone(&shared),
                    limit,
                };
                let task = tokio::spawn(follower.run(answer)).abort_handle();
                *running = Some(Running {
                    shared,
                    task,
                    _open: open,
                });
                Ok(Answer::live(Content::Nothing, 200))
            }
        })
        .await;
    nothing(function::WATCH_OPEN, reply)?;
    Ok(Watch::new(door, number, Some(checked), running))
}

impl Watch {
    fn new(door: &Door, number: u32, checked: Option<Checked>, running: Option<Running>) -> Watch {
        door.source_opened();
        Watch {
            number,
            access: checked.as_ref().map(|checked| checked.access("watch", "")),
            keep: checked.map(|checked| checked.keep).unwrap_or_default(),
            running,
        }
    }

    /// Ready while [`Watch::next`] has something to give.
    pub fn source(&self) -> Source {
        let shared = self.running.as_ref().map(|running| &running.shared);
        let news = shared.map(|shared| shared.news.subscribe());
        let proof = shared.map(|shared| Proof {
            demanded: Arc::clone(&shared.demanded),
            proved: shared.proved.subscribe(),
        });
        Source::new(self.number, news, proof)
    }

    /// The next event, none when there is nothing at the moment. Never waits.
    ///
    /// # Errors
    /// The server ended the watch for good, for instance because the resource is gone; budgets.
    pub fn next(&self, door: &Door) -> Result<Option<Event>, Failure> {
        let mut call = Call::new(function::WATCH_NEXT, json!({"watch": self.number}));
        call.watch = Some(self.number);
        call.access = self.access.clone().map(Access::Resource);
        let reply = door.local(call.keeping(&self.keep), |_| match &self.running {
            Some(running) => running.shared.take(),
            None => Ok(Answer::own(Content::Nothing)),
        });
        match reply? {
            Seen::Nothing => Ok(None),
            Seen::Event { kind, text } => Ok(Some(Event { kind, text })),
            other => unexpected(function::WATCH_NEXT, &other),
        }
    }

    /// Ends the watch. A source of it is never ready again.
    ///
    /// # Errors
    /// The attempt is over.
    pub fn close(&mut self, door: &Door) -> Result<(), Failure> {
        let mut call = Call::new(function::WATCH_CLOSE, json!({"watch": self.number})).always();
        call.watch = Some(self.number);
        self.running = None;
        let reply = door.local(call, |_| Ok(Answer::own(Content::Nothing)));
        nothing(function::WATCH_CLOSE, reply)
    }
}

/// What waits between the task and the guest.
struct Shared {
    queue: Mutex<Queue>,
    news: watch::Sender<News>,
    space: Notify,
    /// Somebody wants to know whether the stream still lives.
    demanded: Arc<Notify>,
    /// How often it was found to.
    proved: watch::Sender<u64>,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Queued>,
    bytes: usize,
    /// The watch is over for good.
    failed: Option<(u16, Vec<u8>)>,
}

impl Queue {
    fn news(&self) -> News {
        let gap = |event: &Queued| matches!(event, Queued::Mark("gap", _));
        if self.failed.is_some() || self.events.iter().any(gap) {
            News::Broken
        } else if self.events.is_empty() {
            News::None
        } else {
            News::Some
        }
    }
}

enum Queued {
    /// One of the present objects.
    Item(String),
    /// A line of the stream, with its kind.
    Line(&'static str, Vec<u8>),
    /// `synced` or `gap`.
    Mark(&'static str, String),
}

impl Queued {
    fn bytes(&self) -> usize {
        match self {
            Queued::Item(text) | Queued::Mark(_, text) => text.len(),
            Queued::Line(_, line) => line.len(),
        }
    }
}

impl Shared {
    fn new() -> Shared {
        Shared {
            queue: Mutex::default(),
            news: watch::Sender::new(News::None),
            space: Notify::new(),
            demanded: Arc::default(),
            proved: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room; a single event always fits into an empty queue.
    async fn push(&self, event: Queued) {
        let bytes = event.bytes();
        loop {
            {
                let mut queue = self.lock();
                if queue.events.is_empty() || queue.bytes + bytes <= QUEUE_MAX {
                    queue.bytes += bytes;
                    queue.events.push_back(event);
                    self.news.send_replace(queue.news());
                    return;
                }
            }
            self.space.notified().await;
        }
    }

    fn fail(&self, answer: HttpAnswer) {
        let mut queue = self.lock();
        queue.failed = Some((answer.code, answer.body));
        self.news.send_replace(queue.news());
    }

    fn take(&self) -> Result<Answer, Trouble> {
        let event = {
            let mut queue = self.lock();
            let event = queue.events.pop_front();
            match &event {
                Some(event) => {
                    queue.bytes -= event.bytes();
                    self.news.send_replace(queue.news());
                }
                None => {
                    if let Some((code, body)) = &queue.failed {
                        return Err(Trouble::Answered(*code, body.clone()));
                    }
                }
            }
            event
        };
        self.space.notify_one();
        let unreadable = |e: serde_json::Error| {
            Trouble::Foreign(Failure::NoAnswer(format!("an event is no JSON: {e}")))
        };
        Ok(match event {
            None => Answer::own(Content::Nothing),
            Some(Queued::Item(text)) => {
                let object = serde_json::from_str(&text).map_err(unreadable)?;
                Answer::live(Content::Event("added", object), 200)
            }
            Some(Queued::Line(kind, line)) => {
                let mut line: Value = serde_json::from_slice(&line).map_err(unreadable)?;
                Answer::live(Content::Event(kind, line["object"].take()), 200)
            }
            Some(Queued::Mark("gap", reason)) => Answer::own(Content::Mark("gap", reason)),
            Some(Queued::Mark(kind, text)) => Answer::live(Content::Mark(kind, text), 200),
        })
    }
}

/// The task of a watch.
struct Follower {
    wire: Wire,
    checked: Checked,
    shared: Arc<Shared>,
    limit: u32,
}

/// Why listing or following stopped.
enum Lost {
    /// Continuity is lost, for this reason.
    Gap(String),
    /// The server says no, for good.
    Failed(HttpAnswer),
}

/// The part of a line that the follower needs.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: LineObject,
}

#[derive(Deserialize)]
struct LineObject {
    #[serde(default)]
    metadata: LineMeta,
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

#[derive(Default, Deserialize)]
struct LineMeta {
    #[serde(default, rename = "resourceVersion")]
    resource_version: String,
}

impl Follower {
    async fn run(mut self, first: HttpAnswer) {
        let mut first = Some(first);
        let mut failures = 0_u32;
        loop {
            let lost = match self.list(first.take()).await {
                Ok(version) => {
                    failures = 0;
                    self.shared
                        .push(Queued::Mark("synced", version.clone()))
                        .await;
                    self.follow(version).await
                }
                Err(lost) => {
                    failures += 1;
                    lost
                }
            };
            match lost {
                Lost::Gap(reason) => self.gap(reason).await,
                Lost::Failed(answer) => return self.shared.fail(answer),
            }
            let pause = self.wire.live.cluster.back_off() * 2_u32.pow(failures.min(8));
            sleep(pause.min(PAUSE_MAX)).await;
        }
    }

    /// One gap is enough until something was seen again.
    async fn gap(&self, reason: String) {
        let is_known = matches!(
            self.shared.lock().events.back(),
            Some(Queued::Mark("gap", _))
        );
        if !is_known {
            self.shared.push(Queued::Mark("gap", reason)).await;
        }
    }

    /// Delivers the present objects; gives the resource version of that state.
    async fn list(&mut self, first: Option<HttpAnswer>) -> Result<String, Lost> {
        let mut answer = first;
        let mut next = String::new();
        loop {
            let floor = match &answer {
                // Looked at when it came.
                Some(_) => 0,
                None => self.floor(),
            };
            let got = match answer.take() {
                Some(answer) => answer,
                None => page(&self.wire, &self.checked, &mut self.limit, PAGE_MAX, &next)
                    .await
                    .map_err(|trouble| Lost::Gap(reason("listing again", &trouble)))?,
            };
            match got.code {
                200 => {}
                410 => return Err(Lost::Gap("the list expired while it was read".to_owned())),
                429 | 500.. => return Err(Lost::Gap(format!("listing again: HTTP {}", got.code))),
                _ => return Err(Lost::Failed(got)),
            }
            let mut items = Vec::new();
            let api_version = self.checked.resource.api_version();
            let head = each_item(&got.body, &api_version, |item| {
                items.push(item.to_string());
                Some(())
            })
            .map_err(|_| Lost::Gap("the server answered something that is no list".to_owned()))?;
            drop(got);
            if next.is_empty() && freshness::is_older(&head.position, floor) {
                return Err(Lost::Gap(past(&head.position, floor)));
            }
            for item in items {
                self.shared.push(Queued::Item(item)).await;
            }
            if head.next.is_empty() {
                return Ok(head.position);
            }
            next = head.next;
        }
    }

    /// What the guest knows already; a list must not be older.
    fn floor(&self) -> u64 {
        let at = &self.checked.resource;
        self.wire.live.seen.newest(&at.group, &at.resource)
    }

    /// Delivers changes from a resource version on, over as many streams as it takes.
    async fn follow(&self, mut version: String) -> Lost {
        let mut broken_since: Option<Instant> = None;
        let mut failures = 0_u32;
        let mut purpose = Purpose::Follow;
        loop {
            let why = match self.stream(&mut version, &mut broken_since, purpose).await {
                Ok(Ended::Demanded) => {
                    purpose = Purpose::Prove;
                    continue;
                }
                Ok(Ended::Proved) => {
                    purpose = Purpose::Follow;
                    failures = 0;
                    self.shared.proved.send_modify(|times| *times += 1);
                    continue;
                }
                Ok(Ended::ByServer) => {
                    // As it does all the time.
                    failures = 0;
                    "the stream ended at once".to_owned()
                }
                Err(Stream::Lost(lost)) => return lost,
                Err(Stream::Broken(why)) => {
                    failures += 1;
                    why
                }
            };
            let since = *broken_since.get_or_insert_with(Instant::now);
            if since.elapsed() > RESUME_WITHIN || failures > 12 {
                return Lost::Gap(format!("the watch could not be resumed: {why}"));
            }
            let pause = self.wire.live.cluster.back_off() * 2_u32.pow(failures.min(3));
            sleep(pause).await;
        }
    }

    /// One stream, until it ends in good order, or until a stream that proves is wanted.
    async fn stream(
        &self,
        version: &mut String,
        broken_since: &mut Option<Instant>,
        purpose: Purpose,
    ) -> Result<Ended, Stream> {
        let broken = |why: String| Err(Stream::Broken(why));
        let path = self
            .path(version, purpose)
            .map_err(|_| Stream::Lost(Lost::Gap("the watch has no path any more".to_owned())))?;
        let opened = timeout(RESUME_WITHIN, self.wire.stream(Request::get(path))).await;
        let mut lines = match opened {
            Ok(Ok(Streamed::Lines(lines))) => lines,
            Ok(Ok(Streamed::Answer(answer))) => {
                return match answer.code {
                    410 => Err(Stream::Lost(expired())),
                    429 | 500.. => broken(format!("HTTP {}", answer.code)),
                    _ => Err(Stream::Lost(Lost::Failed(answer))),
                };
            }
            Ok(Err(error)) => return broken(error.to_string()),
            Err(_) => return broken("the server did not accept the watch in time".to_owned()),
        };
        let opened_at = Instant::now();
        let (stall, lasts) = match purpose {
            Purpose::Follow => (STALL, RESUME_WITHIN),
            Purpose::Prove => (PROOF_STALL, PROOF_LASTS),
        };
        loop {
            let next = tokio::select! {
                next = timeout(stall, lines.next()) => next,
                () = self.shared.demanded.notified(), if purpose == Purpose::Follow => {
                    return Ok(Ended::Demanded);
                }
            };
            let line = match next {
                Ok(Ok(Some(line))) => line,
                Ok(Ok(None)) => {
                    // Streams that end as soon as they begin are a fault of something in between.
                    if opened_at.elapsed() > lasts {
                        *broken_since = None;
                        if purpose == Purpose::Prove {
                            return Ok(Ended::Proved);
                        }
                    }
                    return Ok(Ended::ByServer);
                }
                Ok(Err(error)) => return broken(error.to_string()),
                Err(_) => {
                    let quiet = stall.as_secs();
                    return Err(Stream::Lost(Lost::Gap(format!(
                        "the stream hung for {quiet} s"
                    ))));
                }
            };
            let Ok(head) = serde_json::from_slice::<Line>(&line) else {
                return broken("the server sent a line that is no event".to_owned());
            };
            let kind = match head.kind.as_str() {
                "ADDED" => "added",
                "MODIFIED" => "modified",
                "DELETED" => "deleted",
                "BOOKMARK" => "",
                "ERROR" if head.object.code == 410 => return Err(Stream::Lost(expired())),
                "ERROR" => {
                    let text = format!("the server reported: {}", head.object.message);
                    return Err(Stream::Lost(Lost::Gap(text)));
                }
                _ => return broken("the server sent an event of an unknown kind".to_owned()),
            };
            let at = head.object.metadata.resource_version;
            match order(version, &at) {
                // Delivered already, or before the list.
                cmp::Ordering::Equal if !kind.is_empty() => continue,
                cmp::Ordering::Less => {
                    return Err(Stream::Lost(Lost::Gap(format!(
                        "events came out of order: resource version {at} after {version}"
                    ))));
                }
                _ => {}
            }
            if !at.is_empty() {
                *version = at;
            }
            *broken_since = None;
            if !kind.is_empty() {
                self.shared.push(Queued::Line(kind, line)).await;
            }
        }
    }

    fn path(&self, version: &str, purpose: Purpose) -> Result<String, Trouble> {
        let seconds = match purpose {
            Purpose::Follow => STREAM_SECONDS.to_string(),
            Purpose::Prove => PROVED_FROM.as_secs().to_string(),
        };
        let query = address::query(&[
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("labelSelector", &self.wire.labels),
            ("fieldSelector", &self.wire.restore(&self.checked.fields)?),
            ("resourceVersion", version),
            ("timeoutSeconds", &seconds),
        ]);
        Ok(address::path(self.wire.resource()?) + &query)
    }
}

/// What a stream is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To hear of changes.
    Follow,
    /// To find out what a silent stream missed.
    Prove,
}

/// How a stream ended in good order.
enum Ended {
    ByServer,
    /// A proof is wanted.
    Demanded,
    /// It was the proof.
    Proved,
}

enum Stream {
    /// May be resumed.
    Broken(String),
    /// May not.
    Lost(Lost),
}

/// Where an event stands to what was delivered before. Resource versions of Kubernetes grow from event to event; where they
/// are no numbers, as some aggregated servers have it, the stream is trusted.
fn order(before: &str, at: &str) -> cmp::Ordering {
    match (before.parse::<u64>(), at.parse::<u64>()) {
        (Ok(before), Ok(at)) => at.cmp(&before),
        _ => cmp::Ordering::Greater,
    }
}

fn past(position: &str, floor: u64) -> String {
    format!("the list has resource version {position}, and {floor} was seen before")
}

fn expired() -> Lost {
    Lost::Gap("the server forgot the resource version (410 Gone)".to_owned())
}

fn reason(doing: &str, trouble: &Trouble) -> String {
    match trouble {
        Trouble::Send(error) => format!("{doing}: {error}"),
        Trouble::Answered(code, _) => format!("{doing}: HTTP {code}"),
        Trouble::Failure(failure) | Trouble::Foreign(failure) => format!("{doing}: {failure:?}"),
    }
}

#[cfg(test)]
mod tests;
