//! Logs and commands of an attempt: a pod that is there and has started is asked for what the test scripted.

use super::{Attempt, CALL, Request, key};
use crate::error::{Answer, Error, Result};
use crate::kube::Query;
use crate::pods::{Command, Logs};
use crate::testing::Call;
use crate::testing::cluster::FakeCluster;
use crate::testing::pods::{FakeEnd, FakeLog, FakeResult, PodRequest};
use serde_json::{Value, json};
use std::time::Duration;

/// A log or one of the outputs of a command.
pub(super) struct StreamState {
    verb: &'static str,
    resource: &'static str,
    namespace: String,
    pod: String,
    opened: Duration,
    log: FakeLog,
    /// Pieces that were read.
    read: usize,
    broken: Option<Error>,
}

pub(super) struct ExecutionState {
    result: FakeResult,
    started: Duration,
    deadline: Duration,
    streams: [usize; 2],
}

impl StreamState {
    /// Whether a read gives something, or the end.
    pub(super) fn is_ready(&self, now: Duration) -> bool {
        self.broken.is_some()
            || match self.log.pieces.get(self.read) {
                Some((at, _)) => now >= self.opened + *at,
                None => self.log.end != FakeEnd::Open,
            }
    }
}

/// The answer where a container has not started.
fn waiting(pod: &Value) -> Error {
    let (name, container) = (
        &pod["metadata"]["name"],
        &pod["spec"]["containers"][0]["name"],
    );
    Error::Answered(Answer {
        code: 400,
        reason: "BadRequest".to_owned(),
        message: format!(
            "container {container} in pod {name} is waiting to start: ContainerCreating"
        ),
        body: String::new(),
    })
}

fn has_started(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Running" | "Succeeded" | "Failed")
    )
}

impl Attempt {
    /// One call that asks something of a pod; none where a fault swallowed it.
    fn ask_pod<T>(
        &mut self,
        verb: &'static str,
        resource: &'static str,
        (namespace, name, sent): (&str, &str, String),
        ask: impl FnOnce(&FakeCluster, &Value) -> Result<T>,
    ) -> Result<Option<T>> {
        let request = Request {
            verb,
            api_version: "v1",
            resource,
            namespace,
            name,
            dry_run: false,
            body: sent,
        };
        let mut gave = None;
        self.call(&request, |attempt, group| {
            let pods = Query::new("v1", "pods").in_namespace(namespace);
            let pod = attempt.cluster.find(&key(group, &pods, name))?.clone();
            if !has_started(&pod) {
                return Err(waiting(&pod));
            }
            gave = Some(ask(&attempt.cluster, &pod)?);
            Ok(String::new())
        })?;
        Ok(gave)
    }

    fn add_stream(
        &mut self,
        (verb, resource): (&'static str, &'static str),
        (namespace, pod): (&str, &str),
        log: FakeLog,
    ) -> usize {
        // Waits stop at these moments.
        for (at, _) in &log.pieces {
            self.cluster.after(*at, |_| {});
        }
        self.streams.push(StreamState {
            verb,
            resource,
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            opened: self.cluster.now,
            log,
            read: 0,
            broken: None,
        });
        self.streams.len() - 1
    }

    pub(crate) fn open_log(&mut self, of: &Logs) -> Result<usize> {
        let place = (of.namespace.as_str(), of.pod.as_str());
        let log = self.ask_pod(
            "get",
            "pods/log",
            (place.0, place.1, String::new()),
            |cluster, pod| {
                Ok(cluster.log_of(&PodRequest {
                    cluster,
                    pod,
                    container: of.container.as_deref(),
                    previous: of.previous,
                    argv: &[],
                }))
            },
        )?;
        let mut log = log.unwrap_or_default();
        if !of.follow {
            // What is there now, and the end.
            log.pieces.retain(|(at, _)| at.is_zero());
            if log.end == FakeEnd::Open {
                log.end = FakeEnd::Over;
            }
        }
        Ok(self.add_stream(("get", "pods/log"), place, log))
    }

    pub(crate) fn start_command(&mut self, command: &Command, deadline_ms: u32) -> Result<usize> {
        let place = (command.namespace.as_str(), command.pod.as_str());
        let sent = json!(command.argv).to_string();
        // A WebSocket begins with a GET.
        self.permitted(&Request {
            verb: "get",
            api_version: "v1",
            resource: "pods/exec",
            namespace: place.0,
            name: place.1,
            dry_run: false,
            body: String::new(),
        })?;
        let result = self.ask_pod(
            "create",
            "pods/exec",
            (place.0, place.1, sent),
            |cluster, pod| {
                Ok(cluster.result_of(&PodRequest {
                    cluster,
                    pod,
                    container: command.container.as_deref(),
                    previous: false,
                    argv: &command.argv,
                }))
            },
        )?;
        let result = result.unwrap_or_default();
        let deadline = Duration::from_millis(u64::from(deadline_ms));
        let in_time = result.takes <= deadline && !result.lost;
        let ends = if in_time {
            FakeEnd::Over
        } else {
            FakeEnd::Broken
        };
        let moment = result.takes.min(deadline);
        let log = |text: &str| {
            // An empty piece stands for the moment of the end.
            let log = FakeLog::default().then(moment, if in_time { text } else { "" });
            FakeLog { end: ends, ..log }
        };
        let (output, errors) = (log(&result.output), log(&result.errors));
        let what = ("create", "pods/exec");
        let streams = [
            self.add_stream(what, place, output),
            self.add_stream(what, place, errors),
        ];
        self.executions.push(ExecutionState {
            result,
            started: self.cluster.now,
            deadline,
            streams,
        });
        Ok(self.executions.len() - 1)
    }

    pub(crate) fn execution_streams(&mut self, execution: usize) -> [usize; 2] {
        self.executions[execution].streams
    }

    pub(crate) fn read_stream(&mut self, stream: usize, _max: u32) -> Result<Option<Vec<u8>>> {
        self.cluster.now += CALL;
        let now = self.cluster.now;
        let resource = self.streams[stream].resource;
        if self.cluster.fault("read", resource).is_some() {
            self.streams[stream].broken =
                Some(Error::NoAnswer("connection reset by peer".to_owned()));
        }
        let late = self.late_of(stream);
        let state = &mut self.streams[stream];
        let mut text = String::new();
        if state.broken.is_none() {
            while let Some((at, piece)) = state.log.pieces.get(state.read)
                && now >= state.opened + *at
            {
                text.push_str(piece);
                state.read += 1;
            }
        }
        let is_read = state.read == state.log.pieces.len();
        let result = match (&state.broken, state.log.end) {
            (Some(error), _) => Err(error.clone()),
            (None, _) if !text.is_empty() => Ok(Some(text.clone())),
            (None, FakeEnd::Over) if is_read => Ok(None),
            (None, FakeEnd::Broken) if is_read => {
                Err(late.unwrap_or_else(|| Error::NoAnswer("connection reset by peer".to_owned())))
            }
            (None, _) => Ok(Some(String::new())),
        };
        if !text.is_empty() || result.is_err() {
            let call = Call {
                case: self.open,
                verb: state.verb.to_owned(),
                group: String::new(),
                resource: resource.to_owned(),
                namespace: state.namespace.clone(),
                name: state.pod.clone(),
                dry_run: false,
                live: result.is_ok(),
                code: if result.is_ok() { 200 } else { 0 },
                sent: String::new(),
                seen: text,
            };
            self.calls.push(call);
        }
        Ok(result?.map(String::into_bytes))
    }

    /// The error of a stream whose command had no time left.
    fn late_of(&self, stream: usize) -> Option<Error> {
        let of = self.executions.iter();
        of.filter(|run| run.streams.contains(&stream) && run.result.takes > run.deadline)
            .map(|run| late(run.deadline))
            .next()
    }

    pub(crate) fn exit_code(&mut self, execution: usize) -> Result<Option<i32>> {
        self.cluster.now += CALL;
        let run = &self.executions[execution];
        let stream = &self.streams[run.streams[0]];
        let passed = self.cluster.now.saturating_sub(run.started);
        let result = if let Some(error) = &stream.broken {
            Err(error.clone())
        } else if run.result.takes > run.deadline && passed >= run.deadline {
            Err(late(run.deadline))
        } else if passed < run.result.takes {
            Ok(None)
        } else if run.result.lost {
            Err(Error::NoAnswer(
                "the connection ended before the exit code came".to_owned(),
            ))
        } else if let Some(words) = &run.result.refusal {
            Err(Error::Answered(Answer {
                code: 500,
                reason: "InternalError".to_owned(),
                message: words.clone(),
                body: String::new(),
            }))
        } else {
            Ok(Some(run.result.code))
        };
        let (live, code, seen) = match &result {
            Ok(None) => return Ok(None),
            Ok(Some(code)) => (true, 200, code.to_string()),
            Err(Error::Answered(answer)) => (true, answer.code, answer.message.clone()),
            Err(_) => (false, 0, String::new()),
        };
        let call = Call {
            case: self.open,
            verb: "create".to_owned(),
            group: String::new(),
            resource: "pods/exec".to_owned(),
            namespace: stream.namespace.clone(),
            name: stream.pod.clone(),
            dry_run: false,
            live,
            code,
            sent: String::new(),
            seen,
        };
        self.calls.push(call);
        result
    }
}

fn late(deadline: Duration) -> Error {
    Error::Deadline {
        what: "deadline: the command did not end".to_owned(),
        after: deadline,
    }
}
