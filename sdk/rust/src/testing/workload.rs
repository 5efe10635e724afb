//! Workloads of the fake cluster: what answers behind a service or pod, what it exposes, and what a monitoring system says.

use super::Call;
use super::attempt::Attempt;
use super::cluster::{FakeCluster, Fault};
use crate::error::{Answer, Error, Result};
use crate::http::Request;
use crate::metrics::Sample;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How a workload answers one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answering {
    code: u16,
    headers: Vec<(String, String)>,
    /// When each chunk arrives after the request, and the chunk.
    chunks: Vec<(Duration, Vec<u8>)>,
    broken: bool,
}

impl Answering {
    /// This code with this body, at once.
    pub fn text(code: u16, body: &str) -> Self {
        Answering {
            code,
            chunks: vec![(Duration::ZERO, body.as_bytes().to_vec())],
            ..Answering::default()
        }
    }

    /// This code with this JSON, at once.
    pub fn json(code: u16, body: &Value) -> Self {
        Answering::text(code, &body.to_string()).header("content-type", "application/json")
    }

    /// This code, with a body that [`Answering::chunk`] adds.
    pub fn arriving(code: u16) -> Self {
        Answering {
            code,
            ..Answering::default()
        }
    }

    /// Adds a header by its lower-case name.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a chunk that arrives so long after the request.
    #[must_use]
    pub fn chunk(mut self, after: Duration, bytes: &str) -> Self {
        self.chunks.push((after, bytes.as_bytes().to_vec()));
        self
    }

    /// Breaks off behind the last chunk.
    #[must_use]
    pub fn break_off(mut self) -> Self {
        self.broken = true;
        self
    }
}

type Serve = Box<dyn FnMut(&mut FakeCluster, &Request) -> Answering>;
type Read = Box<dyn FnMut(&mut FakeCluster, &str) -> Vec<Sample>>;

/// Everything that answers in a fake cluster, by target.
#[derive(Default)]
pub(super) struct Workloads {
    serving: BTreeMap<String, Serve>,
    exposing: BTreeMap<String, Read>,
    knowing: BTreeMap<String, Read>,
}

impl FakeCluster {
    /// Answers requests to a target ([`crate::http::service`], [`crate::http::pod`]).
    pub fn workload(
        &mut self,
        target: &str,
        serve: impl FnMut(&mut FakeCluster, &Request) -> Answering + 'static,
    ) -> &mut Self {
        self.workloads
            .serving
            .insert(target.to_owned(), Box::new(serve));
        self
    }

    /// What a target exposes as metrics; the text that the closure gets is the path.
    pub fn exposes(
        &mut self,
        target: &str,
        read: impl FnMut(&mut FakeCluster, &str) -> Vec<Sample> + 'static,
    ) -> &mut Self {
        self.workloads
            .exposing
            .insert(target.to_owned(), Box::new(read));
        self
    }

    /// What an endpoint answers to PromQL; the text that the closure gets is the expression.
    pub fn knows(
        &mut self,
        endpoint: &str,
        read: impl FnMut(&mut FakeCluster, &str) -> Vec<Sample> + 'static,
    ) -> &mut Self {
        self.workloads
            .knowing
            .insert(endpoint.to_owned(), Box::new(read));
        self
    }
}

/// An answer on its way to the probe.
pub(super) struct ResponseState {
    sent: Duration,
    timeout: Duration,
    answer: Result<Answering>,
    call: Call,
    head_seen: bool,
    taken: usize,
    offset: usize,
    end_seen: bool,
    closed: bool,
}

impl ResponseState {
    /// The moment of the next news that was not seen yet; none when there is nothing more.
    pub(super) fn next(&self) -> Option<Duration> {
        if self.closed || self.end_seen {
            return None;
        }
        let end = self.sent + self.timeout;
        let Ok(answer) = &self.answer else {
            return Some(self.sent);
        };
        if !self.head_seen {
            return Some(self.sent);
        }
        let last = answer
            .chunks
            .iter()
            .map(|(at, _)| *at)
            .max()
            .unwrap_or_default();
        let at = answer.chunks.get(self.taken).map_or(last, |(at, _)| *at);
        Some((self.sent + at).min(end))
    }

    /// Whether there is news now.
    pub(super) fn is_ready(&self, now: Duration) -> bool {
        self.next().is_some_and(|at| at <= now)
    }
}

fn word(method: &str) -> &'static str {
    match method {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "get",
    }
}

/// Resource, namespace and name of a target.
fn parts(target: &str) -> Result<(&'static str, &str, &str)> {
    let wrong = || {
        Error::Malformed(format!(
            "target {target:?} is no service or pod with a port"
        ))
    };
    let (kind, rest) = target.split_once(':').ok_or_else(wrong)?;
    let (namespace, name) = rest.split_once('/').ok_or_else(wrong)?;
    let resource = match kind {
        "service" => "services/proxy",
        "pod" => "pods/proxy",
        _ => return Err(wrong()),
    };
    if name.contains(':') && !name.contains('/') {
        Ok((resource, namespace, name))
    } else {
        Err(wrong())
    }
}

fn missing(target: &str) -> Error {
    let message = format!("{target} not found");
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound", "message": message});
    Error::Answered(Answer {
        code: 404,
        reason: "NotFound".to_owned(),
        message,
        body: body.to_string(),
    })
}

impl Attempt {
    fn reach(&mut self, verb: &str, target: &str, path: &str, sent: String) -> Result<Call> {
        let (resource, namespace, name) = parts(target)?;
        self.cluster.now += Duration::from_millis(1);
        let call = Call {
            case: self.open,
            verb: verb.to_owned(),
            group: String::new(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            dry_run: false,
            live: false,
            code: 0,
            sent,
            seen: String::new(),
        };
        let path = path.split('?').next().unwrap_or_default();
        let sandbox = self.is_sandbox(namespace);
        if self
            .manifest
            .allows_workload(resource, verb, sandbox, namespace, name, path)
        {
            return Ok(call);
        }
        self.calls.push(call);
        Err(Error::Refused(format!(
            "probe.toml has no permission line for {verb} {resource} of {name} in namespace {namespace} with path {path}"
        )))
    }

    pub(crate) fn send_request(&mut self, request: &Request, timeout_ms: u32) -> Result<usize> {
        let verb = word(&request.method);
        let body = request.body.clone().unwrap_or_default();
        let text = format!("{} {}", request.path, String::from_utf8_lossy(&body));
        let call = self.reach(verb, &request.target, &request.path, text)?;
        let resource = call.resource.clone();
        let serve = |attempt: &mut Attempt| {
            let found = attempt.cluster.workloads.serving.remove(&request.target);
            let Some(mut serve) = found else {
                return Err(missing(&request.target));
            };
            let answer = serve(&mut attempt.cluster, request);
            let kept = &mut attempt.cluster.workloads.serving;
            kept.entry(request.target.clone()).or_insert(serve);
            Ok(answer)
        };
        let answer = match self.cluster.fault(verb, &resource) {
            Some(Fault::Answer(code, reason, message)) => Err(Error::Answered(Answer {
                code,
                reason: reason.to_owned(),
                message: message.to_owned(),
                body: String::new(),
            })),
            Some(Fault::Lost | Fault::Expired) => {
                Err(Error::NoAnswer("connection reset by peer".into()))
            }
            Some(Fault::LostAfter) => {
                serve(self)?;
                Err(Error::NoAnswer("connection reset by peer".into()))
            }
            Some(Fault::Swallowed) => Ok(Answering::text(200, "")),
            None => serve(self),
        };
        self.responses.push(ResponseState {
            sent: self.cluster.now,
            timeout: Duration::from_millis(u64::from(timeout_ms)),
            answer,
            call,
            head_seen: false,
            taken: 0,
            offset: 0,
            end_seen: false,
            closed: false,
        });
        Ok(self.responses.len() - 1)
    }

    pub(crate) fn response_status(&mut self, at: usize) -> Result<Option<u16>> {
        let state = &mut self.responses[at];
        if state.closed {
            return Ok(None);
        }
        let first = !state.head_seen;
        state.head_seen = true;
        let mut call = state.call.clone();
        let result = match &state.answer {
            Ok(answer) => Ok(Some(answer.code)),
            Err(error) => {
                state.end_seen = true;
                Err(error.clone())
            }
        };
        if first {
            call.case = self.open;
            match &result {
                Ok(code) => {
                    call.live = true;
                    call.code = code.unwrap_or_default();
                }
                Err(Error::Answered(answer)) => {
                    call.live = true;
                    call.code = answer.code;
                    call.seen = answer.message.clone();
                }
                Err(_) => {}
            }
            self.calls.push(call);
        }
        result
    }

    pub(crate) fn response_header(&mut self, at: usize, name: &str) -> Option<String> {
        let answer = self.responses[at].answer.as_ref().ok()?;
        let found = answer.headers.iter().find(|(have, _)| have == name);
        found.map(|(_, value)| value.clone())
    }

    pub(crate) fn response_read(&mut self, at: usize, max: u32) -> Result<Option<Vec<u8>>> {
        let now = self.cluster.now;
        let open = self.open;
        let state = &mut self.responses[at];
        if state.closed {
            return Ok(None);
        }
        let answer = match &state.answer {
            Ok(answer) => answer,
            Err(error) => {
                state.end_seen = true;
                return Err(error.clone());
            }
        };
        let due = answer
            .chunks
            .get(state.taken)
            .filter(|(after, _)| state.sent + *after <= now && *after < state.timeout);
        if let Some((_, chunk)) = due {
            let rest = &chunk[state.offset..];
            let bytes = rest[..rest.len().min(max as usize)].to_vec();
            state.offset += bytes.len();
            if state.offset == chunk.len() {
                state.taken += 1;
                state.offset = 0;
            }
            let mut call = state.call.clone();
            call.case = open;
            call.live = true;
            call.code = answer.code;
            call.seen = String::from_utf8_lossy(&bytes).into_owned();
            if !bytes.is_empty() {
                self.calls.push(call);
            }
            return Ok(Some(bytes));
        }
        if state.taken == answer.chunks.len() && !answer.broken {
            state.end_seen = true;
            return Ok(None);
        }
        if state.taken == answer.chunks.len() || now >= state.sent + state.timeout {
            state.end_seen = true;
            return Err(Error::NoAnswer("the body broke off".to_owned()));
        }
        Ok(Some(Vec::new()))
    }

    pub(crate) fn response_arrivals(&mut self, at: usize) -> Vec<u32> {
        let state = &self.responses[at];
        let chunks = state.answer.as_ref().map(|answer| answer.chunks.as_slice());
        chunks
            .unwrap_or_default()
            .iter()
            .filter(|(after, _)| state.sent + *after <= self.cluster.now)
            .map(|(after, _)| u32::try_from(after.as_millis()).unwrap_or(u32::MAX))
            .collect()
    }

    pub(crate) fn response_close(&mut self, at: usize) {
        self.responses[at].closed = true;
    }

    pub(crate) fn scrape(
        &mut self,
        target: &str,
        path: &str,
        names: &[String],
    ) -> Result<Vec<Sample>> {
        let read = |attempt: &mut Attempt| {
            let found = attempt.cluster.workloads.exposing.remove(target);
            let mut read = found.ok_or_else(|| missing(target))?;
            let samples = read(&mut attempt.cluster, path);
            attempt
                .cluster
                .workloads
                .exposing
                .insert(target.to_owned(), read);
            Ok(samples)
        };
        let mut samples = self.reading(target, path, path.to_owned(), read)?;
        samples.retain(|sample| names.contains(&sample.name));
        Ok(samples)
    }

    pub(crate) fn query(&mut self, endpoint: &str, promql: &str) -> Result<Vec<Sample>> {
        let (kind, rest) = endpoint.split_once('/').unwrap_or((endpoint, ""));
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let slash = if prefix.is_empty() { "" } else { "/" };
        let path = format!("{slash}{prefix}/api/v1/query");
        let target = format!("{kind}/{name}");
        self.reading(&target, &path, promql.to_owned(), |attempt| {
            let found = attempt.cluster.workloads.knowing.remove(endpoint);
            let mut read = found.ok_or_else(|| missing(endpoint))?;
            let samples = read(&mut attempt.cluster, promql);
            attempt
                .cluster
                .workloads
                .knowing
                .insert(endpoint.to_owned(), read);
            Ok(samples)
        })
    }

    fn reading(
        &mut self,
        target: &str,
        path: &str,
        sent: String,
        read: impl FnOnce(&mut Attempt) -> Result<Vec<Sample>>,
    ) -> Result<Vec<Sample>> {
        let mut call = self.reach("get", target, path, sent)?;
        let resource = call.resource.clone();
        let result = match self.cluster.fault("get", &resource) {
            Some(Fault::Answer(code, reason, message)) => Err(Error::Answered(Answer {
                code,
                reason: reason.to_owned(),
                message: message.to_owned(),
                body: String::new(),
            })),
            Some(Fault::Swallowed) => Ok(Vec::new()),
            Some(_) => Err(Error::NoAnswer("connection reset by peer".into())),
            None => read(self),
        };
        match &result {
            Ok(samples) => {
                call.live = true;
                call.code = 200;
                let texts = samples
                    .iter()
                    .map(|sample| format!("{} {:?} {}", sample.name, sample.labels, sample.text));
                call.seen = texts.collect::<Vec<_>>().join("\n");
            }
            Err(Error::Answered(answer)) => {
                call.live = true;
                call.code = answer.code;
            }
            Err(_) => {}
        }
        self.calls.push(call);
        result
    }
}
