//! HTTP to workloads, through the API server's proxy only: one request, an answer that may still arrive, many at once.
//!
//! A task of each response talks to the server and fills a bounded buffer; the guest empties it through the door. Nothing is
//! repeated and no redirect is followed. What the API server says itself (a `Status`: no endpoints, nobody listens, no such
//! service, no right) is the error `answered`; a status code is always the workload's. A workload that answers with a
//! `Status` of its own is taken for the API server, which costs it a pass and accuses nobody.

use super::address::malformed;
use super::answers::{Lost, check_head, is_json, is_status, may_be_status};
use super::target::{self, Target};
use super::wait::{News, Source};
use super::{nothing, unexpected};
use crate::cluster::{Forward, Forwarded};
use crate::gate::pieces::Pieces;
use crate::gate::{Answer, Call, Content, Door, Slot, Trouble, Wire};
use crate::recording::format::{Access, Facts, Failure, ResourceAccess, Seen};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

/// Responses that one attempt may have open at a time.
pub const RESPONSES_MAX: u32 = 64;
/// Largest body of a request in bytes.
pub const REQUEST_BODY_MAX: usize = 512 << 10;
/// Largest body of an answer in bytes; the budget `seen` usually ends before.
pub const RESPONSE_BODY_MAX: u64 = 16 << 20;
/// Headers of a request, and bytes of one of them.
const HEADERS_MAX: usize = 32;
const HEADER_MAX: usize = 4096;
/// Bytes that wait for the guest, per response.
const BUFFER_MAX: usize = 256 << 10;
/// Bytes that one read gives.
const READ_MAX: u32 = 256 << 10;
/// Arrival times that are kept.
const ARRIVALS_MAX: usize = 8192;
/// Longest time for a whole answer.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Largest body that is read to find out whether the API server itself speaks.
const STATUS_MAX: usize = 64 << 10;

/// Headers that only the door or the API server may write, or that end at the next hop.
const FORBIDDEN: &[&str] = &[
    "authorization",
    "host",
    "cookie",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "expect",
    "accept-encoding",
    "user-agent",
    "audit-id",
    "forwarded",
    "http2-settings",
];
/// The same by their beginning.
const FORBIDDEN_PREFIXES: &[&str] = &[
    "proxy-",
    "impersonate-",
    "x-remote-",
    "x-forwarded-",
    "x-kubernetes-",
    "x-stream-protocol-",
    "sec-",
];
/// Headers of answers that no guest sees: they are secrets, or those of the API server.
const UNSEEN: &[&str] = &["set-cookie", "authorization", "audit-id"];
const UNSEEN_PREFIXES: &[&str] = &["proxy-", "x-kubernetes-"];

/// One request, as the guest built it. Nothing is checked before it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// `service:<namespace>/[scheme:]<name>:<port>` or `pod:…`.
    pub target: String,
    /// Path and query.
    pub path: String,
    /// Headers in their order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Option<Vec<u8>>,
    /// A setting of type `secret` to authorise with.
    pub authorise: Option<String>,
}

impl Request {
    /// A request without headers and body.
    pub fn new(
        method: impl Into<String>,
        target: impl Into<String>,
        path: impl Into<String>,
    ) -> Request {
        Request {
            method: method.into(),
            target: target.into(),
            path: path.into(),
            ..Request::default()
        }
    }

    fn arguments(&self, timeout_ms: u32) -> Value {
        let mut arguments = json!({
            "method": self.method, "target": self.target, "path": self.path, "timeout": timeout_ms,
        });
        if !self.headers.is_empty() {
            arguments["headers"] = json!(self.headers);
        }
        if let Some(body) = &self.body {
            arguments["body"] = json!(crate::recording::format::Bytes::of(body.clone()));
        }
        if let Some(secret) = &self.authorise {
            arguments["authorise"] = json!(secret);
        }
        arguments
    }

    fn check(&self) -> Result<Checked, Failure> {
        let method = Method::from_bytes(self.method.as_bytes()).ok();
        let verb = method.as_ref().and_then(target::verb);
        let (Some(method), Some(verb)) = (method, verb) else {
            return Err(malformed(
                "method",
                &self.method,
                "is none of GET, HEAD, POST, PUT, PATCH, DELETE",
            ));
        };
        let (path, query) = target::split(&self.path)?;
        let access = Target::parse(&self.target)?.access(verb, path);
        if self.headers.len() > HEADERS_MAX {
            return Err(Failure::Malformed(format!(
                "{} headers; at most {HEADERS_MAX} are taken",
                self.headers.len()
            )));
        }
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| Ok((header_name(name)?, check_value(value)?.to_owned())))
            .collect::<Result<_, Failure>>()?;
        let body = self.body.clone().unwrap_or_default();
        if body.len() > REQUEST_BODY_MAX {
            return Err(Failure::Malformed(format!(
                "a body of {} bytes; at most {REQUEST_BODY_MAX} are taken",
                body.len()
            )));
        }
        if self.authorise.is_some() {
            return Err(Failure::Refused(
                "the API server removes `Authorization` before it forwards a request, so nothing can be authorised this way; \
                 ask from a pod of the sandbox"
                    .to_owned(),
            ));
        }
        Ok(Checked {
            method,
            access,
            query: query.to_owned(),
            headers,
            body,
        })
    }
}

/// A request that makes sense.
#[derive(Clone, Debug)]
struct Checked {
    method: Method,
    access: ResourceAccess,
    query: String,
    headers: Vec<(HeaderName, String)>,
    body: Vec<u8>,
}

impl Checked {
    /// The request with real values for pseudonyms, for an access that was found reachable.
    fn forward(&self, wire: &Wire, at: &ResourceAccess) -> Result<Forward, Trouble> {
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let real = wire.restore(value)?;
            let value = HeaderValue::from_str(check_value(&real)?).map_err(|_| {
                malformed("header", name.as_str(), "has a value that cannot be sent")
            })?;
            headers.push((name.clone(), value));
        }
        let body = match std::str::from_utf8(&self.body) {
            Ok(text) => wire.restore(text)?.into_bytes(),
            Err(_) => self.body.clone(),
        };
        Ok(Forward {
            method: self.method.clone(),
            path_and_query: target::address(at, &target::restored_query(wire, &self.query)?),
            headers,
            body,
            audit_id: None,
        })
    }
}

fn header_name(name: &str) -> Result<HeaderName, Failure> {
    let lower = name.to_ascii_lowercase();
    if FORBIDDEN.contains(&lower.as_str())
        || FORBIDDEN_PREFIXES
            .iter()
            .any(|front| lower.starts_with(front))
    {
        return Err(Failure::Refused(format!(
            "header `{lower}` is written by the door and the API server, or not at all"
        )));
    }
    HeaderName::from_bytes(lower.as_bytes())
        .ok()
        .filter(|name| name.as_str().len() <= 256)
        .ok_or_else(|| malformed("header", name, "is no header name"))
}

fn check_value(value: &str) -> Result<&str, Failure> {
    if value.len() > HEADER_MAX {
        return Err(malformed(
            "header value",
            value,
            "is longer than 4096 bytes",
        ));
    }
    if value
        .bytes()
        .all(|b| b == b'\t' || (b' '..0x7f).contains(&b))
    {
        return Ok(value);
    }
    Err(malformed(
        "header value",
        value,
        "holds more than printable ASCII",
    ))
}

/// An answer, perhaps still arriving. It ends when it is closed or dropped.
pub struct Response {
    number: u32,
    access: Option<ResourceAccess>,
    /// None in a replay and after `close`.
    running: Option<Running>,
}

struct Running {
    shared: Arc<Shared>,
    task: AbortHandle,
    behind: Facts,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
        // The task lives on for a moment, and must not count meanwhile.
        self.shared.lock().over();
    }
}

/// Sends a request; the answer is waited for with [`Response::source`]. `timeout_ms` is for the whole answer.
///
/// # Errors
/// No permission, a target that is neither of this run nor named, too many open responses (`Budget`), a request that makes
/// no sense.
pub async fn send(door: &Door, request: &Request, timeout_ms: u32) -> Result<Response, Failure> {
    const FUNCTION: &str = "http.request.send";
    let number = door.next_source();
    let call = Call::new(FUNCTION, request.arguments(timeout_ms));
    let checked = match request.check() {
        Ok(checked) => checked,
        Err(failure) => {
            nothing(FUNCTION, door.refuse(call, failure))?;
            return Ok(Response::new(door, number, None, None));
        }
    };
    let access = checked.access.clone();
    let mut running = None;
    let (reply, _) = door
        .call(call.reaching(Access::Resource(access.clone())), |wire| {
            let running = &mut running;
            async move {
                let Some(open) = wire.live.open_responses.take(RESPONSES_MAX) else {
                    return Err(Failure::Budget(format!(
                        "{RESPONSES_MAX} responses are open, more than that an attempt may not have; close one first"
                    ))
                    .into());
                };
                let (at, behind) = target::reachable(&wire).await?;
                let forward = checked.forward(&wire, &at)?;
                let shared = Arc::new(Shared::new(open));
                let patience = Duration::from_millis(u64::from(timeout_ms)).min(TIMEOUT_MAX);
                let fetching = Fetching {
                    shared: Arc::clone(&shared),
                    wire,
                    sent: Instant::now(),
                    patience,
                };
                let task = tokio::spawn(fetching.run(forward)).abort_handle();
                let mut answer = Answer::own(Content::Nothing);
                answer.facts.objects.clone_from(&behind.objects);
                answer.facts.markers.clone_from(&behind.markers);
                *running = Some(Running {
                    shared,
                    task,
                    behind,
                });
                Ok(answer)
            }
        })
        .await;
    nothing(FUNCTION, reply)?;
    Ok(Response::new(door, number, Some(access), running))
}

impl Response {
    fn new(
        door: &Door,
        number: u32,
        access: Option<ResourceAccess>,
        running: Option<Running>,
    ) -> Response {
        door.source_opened();
        Response {
            number,
            access,
            running,
        }
    }

    /// Ready while there is news: the status, bytes, the end.
    pub fn source(&self) -> Source {
        let news = self
            .running
            .as_ref()
            .map(|running| running.shared.news.subscribe());
        Source::new(self.number, news, None)
    }

    fn call(&self, function: &'static str, mut arguments: Value) -> Call {
        arguments["response"] = json!(self.number);
        let mut call = Call::new(function, arguments);
        call.access = self.access.clone().map(Access::Resource);
        call
    }

    /// Something that the workload said.
    fn said(&self, code: u16, content: Content) -> Answer {
        let mut answer = Answer::live(content, code);
        if let Some(running) = &self.running {
            answer.facts.objects.clone_from(&running.behind.objects);
            answer.facts.markers.clone_from(&running.behind.markers);
        }
        answer
    }

    /// The status code of the workload, once it is there.
    ///
    /// # Errors
    /// `Answered` when the API server itself answered; `NoAnswer` when nobody did in time.
    pub fn status(&self, door: &Door) -> Result<Option<u16>, Failure> {
        const FUNCTION: &str = "http.response.status";
        let reply = door.local(self.call(FUNCTION, json!({})), |_| {
            let Some(running) = &self.running else {
                return Ok(Answer::own(Content::Nothing));
            };
            match running.shared.status()? {
                Some(code) => Ok(self.said(code, Content::Number(u64::from(code)))),
                None => Ok(Answer::own(Content::Nothing)),
            }
        });
        match reply? {
            Seen::Nothing => Ok(None),
            Seen::Number(code) => Ok(u16::try_from(code).ok()),
            other => unexpected(FUNCTION, &other),
        }
    }

    /// A header of the answer by its name in lower case; several of one name are joined by `, `.
    ///
    /// # Errors
    /// The attempt is over.
    pub fn header(&self, door: &Door, name: &str) -> Result<Option<String>, Failure> {
        const FUNCTION: &str = "http.response.header";
        let shown: String = name.chars().take(256).collect();
        let call = self.call(FUNCTION, json!({"name": shown})).always();
        let reply = door.local(call, |_| {
            let found = self
                .running
                .as_ref()
                .and_then(|running| running.shared.header(&shown));
            Ok(match found {
                Some((code, value)) => self.said(code, Content::Foreign(value)),
                None => Answer::own(Content::Nothing),
            })
        });
        match reply? {
            Seen::Nothing => Ok(None),
            Seen::Text(value) => Ok(Some(value)),
            other => unexpected(FUNCTION, &other),
        }
    }

    /// At most `max` bytes of the body (and never more than 256 KiB); empty when nothing is there at the moment, none at the
    /// end.
    ///
    /// # Errors
    /// As [`Response::status`], and `NoAnswer` when the body broke off; what came before was given.
    pub fn read(&self, door: &Door, max: u32) -> Result<Option<Vec<u8>>, Failure> {
        const FUNCTION: &str = "http.response.read";
        let reply = door.local(self.call(FUNCTION, json!({"max": max})), |_| {
            let Some(running) = &self.running else {
                return Ok(Answer::own(Content::Nothing));
            };
            if max == 0 {
                return Err(Failure::Malformed("0 bytes cannot be read".to_owned()).into());
            }
            match running.shared.read(max.min(READ_MAX) as usize)? {
                None => Ok(Answer::own(Content::Nothing)),
                Some((_, bytes)) if bytes.is_empty() => Ok(Answer::own(Content::Piece(bytes))),
                Some((code, bytes)) => Ok(self.said(code, Content::Piece(bytes))),
            }
        });
        match reply? {
            Seen::Nothing => Ok(None),
            Seen::Bytes(bytes) => match bytes.bytes() {
                Some(bytes) => Ok(Some(bytes)),
                None => unexpected(FUNCTION, &Seen::Bytes(bytes)),
            },
            other => unexpected(FUNCTION, &other),
        }
    }

    /// When each chunk of the body arrived, in milliseconds since the request was sent. At most 8192 are kept.
    ///
    /// # Errors
    /// The attempt is over.
    pub fn arrivals(&self, door: &Door) -> Result<Vec<u32>, Failure> {
        const FUNCTION: &str = "http.response.arrivals";
        let call = Call::new(FUNCTION, json!({"response": self.number})).always();
        let reply = door.local(call, |_| {
            let arrivals = self
                .running
                .as_ref()
                .map(|running| running.shared.lock().arrivals.clone());
            Ok(Answer::own(Content::Numbers(arrivals.unwrap_or_default())))
        });
        match reply? {
            Seen::Numbers(numbers) => Ok(numbers),
            other => unexpected(FUNCTION, &other),
        }
    }

    /// Gives the connection up. A source of it is never ready again.
    ///
    /// # Errors
    /// The attempt is over.
    pub fn close(&mut self, door: &Door) -> Result<(), Failure> {
        const FUNCTION: &str = "http.response.close";
        let call = Call::new(FUNCTION, json!({"response": self.number})).always();
        self.running = None;
        nothing(
            FUNCTION,
            door.local(call, |_| Ok(Answer::own(Content::Nothing))),
        )
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
    head: Option<(u16, HeaderMap)>,
    head_seen: bool,
    pieces: Pieces,
    arrivals: Vec<u32>,
    ended: bool,
    end_seen: bool,
    /// Why there is no (further) answer.
    failed: Option<Lost>,
    open: Option<Slot>,
}

impl State {
    fn news(&self) -> News {
        let new_head = self.head.is_some() && !self.head_seen;
        let new_end = (self.ended || self.failed.is_some()) && !self.end_seen;
        if new_head || new_end || self.pieces.is_ready() {
            News::Some
        } else {
            News::None
        }
    }

    /// The end was seen: the response no longer counts as open.
    fn over(&mut self) {
        self.end_seen = true;
        self.open = None;
    }
}

impl Shared {
    fn new(open: Slot) -> Shared {
        Shared {
            state: Mutex::new(State {
                open: Some(open),
                ..State::default()
            }),
            news: watch::Sender::new(News::None),
            space: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        self.news.send_replace(state.news());
    }

    fn status(&self) -> Result<Option<u16>, Trouble> {
        let mut state = self.lock();
        let result = match (&state.head, &state.failed) {
            (Some((code, _)), _) => {
                let code = *code;
                state.head_seen = true;
                Ok(Some(code))
            }
            (None, Some(lost)) => {
                let trouble = Trouble::from(lost);
                state.over();
                Err(trouble)
            }
            (None, None) => Ok(None),
        };
        self.news.send_replace(state.news());
        result
    }

    fn header(&self, name: &str) -> Option<(u16, String)> {
        let state = self.lock();
        let (code, headers) = state.head.as_ref()?;
        if UNSEEN.contains(&name) || UNSEEN_PREFIXES.iter().any(|front| name.starts_with(front)) {
            return None;
        }
        let values: Vec<String> = headers
            .get_all(HeaderName::from_bytes(name.as_bytes()).ok()?)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        (!values.is_empty()).then(|| (*code, values.join(", ")))
    }

    fn read(&self, max: usize) -> Result<Option<(u16, Vec<u8>)>, Trouble> {
        let mut state = self.lock();
        let code = state.head.as_ref().map_or(0, |(code, _)| *code);
        let bytes = state.pieces.take(max);
        let result = if !bytes.is_empty() {
            Ok(Some((code, bytes)))
        } else if let Some(lost) = &state.failed {
            let trouble = Trouble::from(lost);
            state.over();
            Err(trouble)
        } else if state.ended {
            state.over();
            Ok(None)
        } else {
            Ok(Some((code, Vec::new())))
        };
        self.news.send_replace(state.news());
        drop(state);
        self.space.notify_one();
        result
    }
}

/// The task of a response.
struct Fetching {
    shared: Arc<Shared>,
    wire: Wire,
    sent: Instant,
    patience: Duration,
}

impl Fetching {
    async fn run(self, forward: Forward) {
        let until = self.sent + self.patience;
        let result = match timeout_at(until, self.fetch(&forward)).await {
            Ok(result) => result,
            Err(_) => Err(Lost::Silence(format!(
                "the answer was not complete within {} ms",
                self.patience.as_millis()
            ))),
        };
        let redactor = &self.wire.live.redactor;
        self.shared.change(|state| {
            state.pieces.end(redactor);
            match result {
                Ok(()) => state.ended = true,
                Err(lost) => state.failed = Some(lost),
            }
        });
    }

    async fn fetch(&self, forward: &Forward) -> Result<(), Lost> {
        let answer = self.wire.forward(forward.clone()).await;
        let mut answer = answer.map_err(|error| Lost::Silence(error.to_string()))?;
        check_head(&answer)?;
        let mut total = 0;
        let mut early = Vec::new();
        if may_be_status(&answer) {
            // Whose words these are is known when all of them are there.
            let mut all = Vec::new();
            let mut ended = false;
            while all.len() <= STATUS_MAX {
                let Some(chunk) = self.chunk(&mut answer, &mut total).await? else {
                    ended = true;
                    break;
                };
                all.extend_from_slice(&chunk);
            }
            if ended && is_status(answer.code, &all) {
                if answer.code == 429 {
                    self.wire.live.cluster.heed(&answer.headers);
                }
                return Err(Lost::Status(answer.code, all));
            }
            early = all;
            if ended {
                self.head(&answer);
                self.push(&early).await;
                return Ok(());
            }
        }
        self.head(&answer);
        self.push(&early).await;
        while let Some(chunk) = self.chunk(&mut answer, &mut total).await? {
            self.push(&chunk).await;
        }
        Ok(())
    }

    async fn chunk(
        &self,
        answer: &mut Forwarded,
        total: &mut u64,
    ) -> Result<Option<bytes::Bytes>, Lost> {
        let chunk = answer.chunk().await.map_err(|cause| {
            Lost::Silence(format!("the body broke off after {total} bytes: {cause}"))
        })?;
        if let Some(chunk) = &chunk {
            *total += chunk.len() as u64;
            if *total > RESPONSE_BODY_MAX {
                return Err(Lost::Silence(format!(
                    "the body is larger than {RESPONSE_BODY_MAX} bytes, and the rest was not read"
                )));
            }
            let at = u32::try_from(self.sent.elapsed().as_millis()).unwrap_or(u32::MAX);
            let mut state = self.shared.lock();
            if state.arrivals.len() < ARRIVALS_MAX {
                state.arrivals.push(at);
            }
        }
        Ok(chunk)
    }

    fn head(&self, answer: &Forwarded) {
        let is_document = is_json(&answer.headers);
        self.shared.change(|state| {
            state.pieces = Pieces::new(is_document);
            state.head = Some((answer.code, answer.headers.clone()));
        });
    }

    /// Waits until there is room for more.
    async fn push(&self, bytes: &[u8]) {
        loop {
            let space = self.shared.space.notified();
            let is_full = {
                let state = self.shared.lock();
                state.pieces.is_ready() && state.pieces.len() > BUFFER_MAX
            };
            if !is_full {
                break;
            }
            space.await;
        }
        if !bytes.is_empty() {
            let redactor = &self.wire.live.redactor;
            self.shared
                .change(|state| state.pieces.push(redactor, bytes));
        }
    }
}

#[cfg(test)]
mod tests;
