//! Logs of pods, and commands in them, as streams of bytes.
//!
//! A task of the stream talks to the server and fills a queue; the guest empties it through the door, which redacts and
//! records each piece as it is taken. What the guest gets is text in UTF-8: bytes that are none become U+FFFD, since nobody
//! can look for a secret in what he cannot read. Redaction needs whole lines, so a line is held back until its end has come,
//! and what belongs together longer than a line (`lines.rs`) until all of it is there; a secret that arrives in two pieces is
//! found like any other. A stream that breaks gives the whole lines that came, and then the error: what was cut off must not
//! look like an end.
//!
//! A guest that does not read stops the task, not the host: the queue is bounded, and the server has to wait.
//!
//! Before a stream is opened the engine reads the pod, and its node, for the facts: which pod it was, where it ran, from which
//! image, and whether that node is a simulation. Where to look next: `logs.rs`, `exec.rs`.

mod exec;
mod lines;
mod logs;

pub use exec::{Command, Execution, exit, start};
pub use logs::{LogQuery, open};

use super::address::{self, check_name, malformed};
use super::unexpected;
use super::wait::{News, Source};
use crate::cluster::Request;
use crate::gate::{About, Answer, Call, Content, Door, Live, Slot, Trouble, Wire};
use crate::manifest::values::is_dns_label;
use crate::names::DNS_LABEL_MAX;
use crate::recording::format::{
    Access, Facts, Failure, ObjectFact, ResourceAccess, Seen, function,
};
use crate::redact::Redactor;
use lines::{Lines, TooLong};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

/// Logs and commands that one attempt may have open at a time.
pub const STREAMS_MAX: u32 = 32;
/// Most bytes that one `read` gives. More than that would be a large answer in one piece, and nobody needs it.
pub const READ_MAX: u32 = 1 << 20;
/// Fewest bytes that one `read` may ask for: a character has up to four.
pub const READ_MIN: u32 = 4;
/// Bytes that wait for the guest, per stream.
const QUEUE_MAX: usize = 512 << 10;
/// Largest pod or node.
const OBJECT_MAX: u64 = 16 << 20;

/// Bytes that arrive over time. Clones are the same stream.
#[derive(Clone)]
pub struct ByteStream {
    number: u32,
    access: ResourceAccess,
    /// The pod that it comes from, for the facts of each piece.
    about: Arc<[ObjectFact]>,
    /// None in a replay.
    running: Option<(Arc<Shared>, Arc<Running>)>,
}

/// The task of a stream; it ends with the last handle.
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A place among the open streams, held as long as the stream lasts; whether its handle was dropped does not matter.
fn place(live: &Live) -> Result<Slot, Failure> {
    live.open_streams.take(STREAMS_MAX).ok_or_else(|| {
        Failure::Budget(format!(
            "{STREAMS_MAX} logs and commands are open, more than that an attempt may not have; read one to its end first"
        ))
    })
}

impl ByteStream {
    fn new(
        door: &Door,
        access: ResourceAccess,
        about: Vec<ObjectFact>,
        running: Option<(Arc<Shared>, Arc<Running>)>,
    ) -> ByteStream {
        let number = door.next_source();
        door.source_opened();
        ByteStream {
            number,
            access,
            about: about.into(),
            running,
        }
    }

    /// Ready while [`ByteStream::read`] has something to give, or the stream ended.
    pub fn source(&self) -> Source {
        let news = self.running.as_ref();
        let news = news.map(|(shared, _)| shared.news.subscribe());
        Source::new(self.number, news, None)
    }

    /// At most `max` bytes of text; empty when nothing is there at the moment, none at the end. Never waits.
    ///
    /// # Errors
    /// The stream broke, after the whole lines that came; budgets; a `max` below 4.
    pub fn read(&self, door: &Door, max: u32) -> Result<Option<Vec<u8>>, Failure> {
        let mut call = Call::new(
            function::STREAM_READ,
            json!({"stream": self.number, "max": max}),
        );
        let reply = if max < READ_MIN {
            let text = format!("a read of {max} bytes; a character needs up to {READ_MIN}");
            door.refuse(call, Failure::Malformed(text))
        } else {
            call.access = Some(Access::Resource(self.access.clone()));
            door.local(call, |live| {
                let Some((shared, _)) = &self.running else {
                    return Ok(Answer::own(Content::Nothing));
                };
                let most = max.min(READ_MAX) as usize;
                Ok(match shared.take(most, &live.redactor)? {
                    None => Answer::own(Content::Nothing),
                    Some(text) if text.is_empty() => Answer::own(Content::Own(text)),
                    Some(text) => Answer {
                        content: Content::Own(text),
                        facts: self.facts(),
                    },
                })
            })
        };
        match reply? {
            Seen::Nothing => Ok(None),
            Seen::Text(text) => Ok(Some(text.into_bytes())),
            other => unexpected(function::STREAM_READ, &other),
        }
    }

    /// The facts of an answer that came from the pod.
    fn facts(&self) -> Facts {
        Facts {
            live: true,
            code: Some(200),
            objects: self.about.to_vec(),
            ..Facts::default()
        }
    }
}

/// What waits between the task and the guest.
struct Shared {
    state: Mutex<State>,
    news: watch::Sender<News>,
    space: Notify,
}

#[derive(Default)]
struct State {
    /// As it came.
    raw: Lines,
    /// Redacted, and not given yet.
    ready: String,
    end: End,
}

#[derive(Default)]
enum End {
    #[default]
    Open,
    /// In good order.
    Over,
    /// Not in good order, for this reason.
    Broken(Trouble),
}

impl State {
    fn has_text(&self) -> bool {
        !self.ready.is_empty() || self.raw.has_whole()
    }

    fn news(&self) -> News {
        match &self.end {
            _ if self.has_text() => News::Some,
            End::Open => News::None,
            End::Over => News::Some,
            End::Broken(_) => News::Broken,
        }
    }
}

impl Shared {
    fn new() -> Arc<Shared> {
        Arc::new(Shared {
            state: Mutex::default(),
            news: watch::Sender::new(News::None),
            space: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what came, waiting until there is room. What is held back for redaction has a bound of its own.
    async fn push(&self, bytes: &[u8]) -> Result<(), TooLong> {
        loop {
            {
                let mut state = self.lock();
                if !state.has_text() || state.raw.len() + state.ready.len() < QUEUE_MAX {
                    state.raw.push(bytes)?;
                    self.news.send_replace(state.news());
                    return Ok(());
                }
            }
            self.space.notified().await;
        }
    }

    /// The server ended the stream in good order: what has no line end is whole as well.
    fn over(&self) {
        let mut state = self.lock();
        state.raw.finish();
        state.end = End::Over;
        self.news.send_replace(state.news());
    }

    /// It ended otherwise. Half a line could be half a secret, and is dropped.
    fn broken(&self, why: Trouble) {
        let mut state = self.lock();
        state.raw.abandon();
        state.end = End::Broken(why);
        self.news.send_replace(state.news());
    }

    /// At most `max` bytes, redacted, up to the end of a line where that is possible; none at the end.
    fn take(&self, max: usize, redactor: &Redactor) -> Result<Option<String>, Trouble> {
        let mut state = self.lock();
        if state.ready.is_empty() && state.raw.has_whole() {
            let whole = state.raw.take();
            state.ready = redactor.redact_text(&String::from_utf8_lossy(&whole));
        }
        if state.ready.is_empty() {
            return match &state.end {
                End::Open => Ok(Some(String::new())),
                End::Over => Ok(None),
                End::Broken(why) => Err(why.clone()),
            };
        }
        let given = if state.ready.len() <= max {
            std::mem::take(&mut state.ready)
        } else {
            let most = state.ready.floor_char_boundary(max);
            let at = state.ready[..most].rfind('\n').map_or(most, |at| at + 1);
            let rest = state.ready.split_off(at);
            std::mem::replace(&mut state.ready, rest)
        };
        self.news.send_replace(state.news());
        drop(state);
        self.space.notify_one();
        Ok(Some(given))
    }
}

fn too_long(_: TooLong) -> Trouble {
    Failure::Budget(format!(
        "a line, or what must be looked at together, is longer than {} KiB, and nothing is shown that could not be looked at as a whole; \
         have the pod write shorter lines",
        lines::HELD_MAX >> 10
    ))
    .into()
}

/// The address of a pod's subresource.
fn access(
    verb: &str,
    subresource: &str,
    namespace: &str,
    pod: &str,
    container: Option<&str>,
) -> Result<ResourceAccess, Failure> {
    if namespace.is_empty() {
        return Err(malformed("namespace", "", "is empty; a pod lies in one"));
    }
    check_name(pod)?;
    if let Some(container) = container
        && !is_dns_label(container, DNS_LABEL_MAX)
    {
        return Err(malformed(
            "container",
            container,
            "is not a lowercase DNS label",
        ));
    }
    let access = ResourceAccess {
        verb: verb.to_owned(),
        group: String::new(),
        version: "v1".to_owned(),
        resource: "pods".to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: pod.to_owned(),
        path: String::new(),
    };
    address::check(&access)?;
    Ok(access)
}

/// Reads the pod and its node as the engine. A pod that the server does not have is none: the request itself will say so.
async fn look_up(wire: &Wire) -> Result<About, Trouble> {
    let pod = ResourceAccess {
        verb: "get".to_owned(),
        subresource: String::new(),
        ..wire.resource()?.clone()
    };
    let answer = wire
        .look(Request::get(address::path(&pod)).limited(OBJECT_MAX))
        .await?;
    if answer.code == 404 {
        return Ok(About::default());
    }
    if answer.code != 200 {
        return Err(Trouble::Answered(answer.code, answer.body));
    }
    let read = |body: &[u8]| {
        serde_json::from_slice::<Value>(body).map_err(|e| {
            Trouble::Foreign(Failure::NoAnswer(format!(
                "the pod's object is no JSON: {e}"
            )))
        })
    };
    let pod = read(&answer.body)?;
    let mut about = About::default();
    if let Some(name) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
        check_name(name)?;
        let path = format!("/api/v1/nodes/{}", crate::cluster::encode(name));
        let answer = wire.look(Request::get(path).limited(OBJECT_MAX)).await?;
        // Who may not read nodes learns no markers from them; everything else is a server in trouble.
        match answer.code {
            200 => about.node = Some(read(&answer.body)?),
            403 | 404 => {}
            code => return Err(Trouble::Answered(code, answer.body)),
        }
    }
    about.pod = Some(pod);
    Ok(about)
}

#[cfg(test)]
mod tests;
