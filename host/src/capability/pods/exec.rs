//! Commands: argv and nothing else, over a WebSocket, until the status channel says how it ended.
//!
//! A command that ends without a status has no exit code, whatever came of it: the connection was lost, and whether the
//! command ran to its end is unknown. The same holds for one whose deadline passes; the connection is closed then, and the
//! container's runtime is expected to end the process.

use super::{ByteStream, Running, Shared, access, look_up, place, too_long};
use crate::capability::address::{self, malformed};
use crate::capability::{nothing, unexpected};
use crate::cluster::{Opened, Request, SendError, Socket};
use crate::gate::{About, Answer, Call, Content, Door, Slot, Trouble, Wire};
use crate::recording::format::{Access, Facts, Failure, ResourceAccess, Seen, function};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

/// Most words of a command.
const WORDS_MAX: usize = 256;
/// Most bytes of a command. It travels in the request's address, and what lies before API servers takes 8 KiB to 32 KiB there.
const COMMAND_MAX: usize = 4 << 10;
/// How often a quiet connection is used. Load balancers take one for dead after a minute.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
const STATUS: u8 = 3;

/// One command, as the guest built it. Nothing is checked before it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// The container; none for the only one.
    pub container: Option<String>,
    /// The program and its arguments.
    pub argv: Vec<String>,
}

impl Command {
    fn arguments(&self, deadline_ms: u32) -> Value {
        let mut arguments = json!({
            "namespace": self.namespace, "pod": self.pod, "argv": self.argv, "deadline": deadline_ms,
        });
        if let Some(container) = &self.container {
            arguments["container"] = json!(container);
        }
        arguments
    }

    fn check(&self, deadline_ms: u32) -> Result<ResourceAccess, Failure> {
        let program = self.argv.first().map(String::as_str).unwrap_or_default();
        if program.is_empty() {
            return Err(malformed("program", "", "is empty"));
        }
        if self.argv.len() > WORDS_MAX {
            let text = format!("{} words; at most {WORDS_MAX} are taken", self.argv.len());
            return Err(Failure::Malformed(text));
        }
        let bytes: usize = self.argv.iter().map(String::len).sum();
        if bytes > COMMAND_MAX {
            return Err(Failure::Malformed(format!(
                "a command of {bytes} bytes; at most {COMMAND_MAX} are taken, since it travels in the address of the request; \
                 give longer scripts to the pod itself"
            )));
        }
        if let Some(word) = self.argv.iter().find(|word| word.contains('\0')) {
            return Err(malformed(
                "argument",
                word,
                "contains NUL, which no argument can",
            ));
        }
        if deadline_ms == 0 {
            return Err(Failure::Malformed("the deadline is 0".to_owned()));
        }
        access(
            "create",
            "exec",
            &self.namespace,
            &self.pod,
            self.container.as_deref(),
        )
    }

    /// Path and query, with real values for pseudonyms.
    fn address(&self, wire: &Wire) -> Result<String, Trouble> {
        let mut words = Vec::with_capacity(self.argv.len());
        for word in &self.argv {
            words.push(wire.restore(word)?);
        }
        let mut pairs = vec![
            ("stdout", "true"),
            ("stderr", "true"),
            ("container", self.container.as_deref().unwrap_or_default()),
        ];
        pairs.extend(words.iter().map(|word| ("command", word.as_str())));
        let mut address = address::path(wire.resource()?);
        for (key, value) in pairs {
            // An empty argument is one as well.
            if value.is_empty() && key != "command" {
                continue;
            }
            address.push(if address.contains('?') { '&' } else { '?' });
            address.push_str(key);
            address.push('=');
            address.push_str(&crate::cluster::encode(value));
        }
        Ok(address)
    }
}

/// A command that was started.
#[derive(Clone)]
pub struct Execution {
    output: ByteStream,
    errors: ByteStream,
    /// None in a replay.
    ended: Option<Arc<Ended>>,
}

/// How a command ended, once it did.
type Ended = Mutex<Option<Result<i32, Trouble>>>;

impl Execution {
    /// Standard output.
    pub fn output(&self) -> ByteStream {
        self.output.clone()
    }

    /// Standard error.
    pub fn errors(&self) -> ByteStream {
        self.errors.clone()
    }
}

/// Starts a command. The deadline counts from now.
///
/// # Errors
/// No permission, a pod that is not of this run, too many open streams (`Budget`), a command that makes no sense, the server's
/// refusal. `NoAnswer` leaves open whether the command ran.
pub async fn start(door: &Door, command: &Command, deadline_ms: u32) -> Result<Execution, Failure> {
    const FUNCTION: &str = "pods.command.start";
    let mut call = Call::new(FUNCTION, command.arguments(deadline_ms));
    let at = match command.check(deadline_ms) {
        Ok(at) => at,
        Err(failure) => {
            nothing(FUNCTION, door.refuse(call, failure))?;
            return Err(Failure::Malformed(format!(
                "the recorded answer of {FUNCTION} starts what makes no sense"
            )));
        }
    };
    call.write = true;
    // A WebSocket begins with a GET. Servers ask for `get`, newer ones for `create` as well.
    call.also = Some(Access::Resource(ResourceAccess {
        verb: "get".to_owned(),
        ..at.clone()
    }));
    let time = Duration::from_millis(u64::from(deadline_ms));
    let mut running = None;
    let (reply, extras) = door
        .call(call.reaching(Access::Resource(at.clone())), |wire| {
            let running = &mut running;
            async move {
                let open = place(&wire.live)?;
                let deadline = Instant::now() + time;
                let about = look_up(&wire).await?;
                check_ours(&wire, &about)?;
                let mut request = Request::get(command.address(&wire)?);
                // API servers answer 406 to whoever accepts JSON alone: a stream is none.
                request.accept = "*/*";
                let opened = timeout_at(deadline, wire.socket(request)).await;
                let socket = match opened.map_err(|_| Trouble::Failure(late(time)))?? {
                    Opened::Stream(socket, _) => socket,
                    Opened::Answer(answer) => {
                        return Err(Trouble::Answered(answer.code, answer.body));
                    }
                };
                let run = Run {
                    socket,
                    output: Shared::new(),
                    errors: Shared::new(),
                    ended: Arc::default(),
                    deadline,
                    time,
                    _open: open,
                };
                let handles = (
                    Arc::clone(&run.output),
                    Arc::clone(&run.errors),
                    Arc::clone(&run.ended),
                );
                let task = tokio::spawn(run.end()).abort_handle();
                *running = Some((handles, Arc::new(Running(task))));
                Ok(Answer::live(Content::Opened(Box::new(about)), 101))
            }
        })
        .await;
    nothing(FUNCTION, reply)?;
    let (streams, ended) = match running {
        None => ((None, None), None),
        Some(((output, errors, ended), task)) => (
            (Some((output, Arc::clone(&task))), Some((errors, task))),
            Some(ended),
        ),
    };
    let about = extras.about;
    Ok(Execution {
        output: ByteStream::new(door, at.clone(), about.clone(), streams.0),
        errors: ByteStream::new(door, at, about, streams.1),
        ended,
    })
}

/// The exit code; none while the command runs. Never waits.
///
/// # Errors
/// `Answered` where the command could not be started, with the words of the container's runtime; `Other` with `deadline: …`
/// where its time was up; `NoAnswer` where the connection ended before the code came.
pub fn exit(door: &Door, execution: &Execution) -> Result<Option<i32>, Failure> {
    let stream = &execution.output;
    let mut call = Call::new(
        function::EXECUTION_EXIT,
        json!({"execution": stream.number}),
    );
    call.access = Some(Access::Resource(stream.access.clone()));
    let reply = door.local(call, |_| {
        let Some(ended) = &execution.ended else {
            return Ok(Answer::own(Content::Nothing));
        };
        let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        match &*ended {
            None => Ok(Answer::own(Content::Nothing)),
            Some(Err(why)) => Err(why.clone()),
            Some(Ok(code)) => Ok(Answer {
                content: Content::Number(u64::try_from(*code).unwrap_or_default()),
                facts: Facts {
                    exit: Some(*code),
                    ..stream.facts()
                },
            }),
        }
    });
    match reply? {
        Seen::Nothing => Ok(None),
        Seen::Number(code) => match i32::try_from(code) {
            Ok(code) => Ok(Some(code)),
            Err(_) => Err(Failure::Malformed(format!(
                "the recorded exit code {code} is none"
            ))),
        },
        other => unexpected(function::EXECUTION_EXIT, &other),
    }
}

/// In its own namespaces a probe enters what it created, by uid, and what controllers made for it. Elsewhere the guard let it
/// pass only because an exception names the subresource.
fn check_ours(wire: &Wire, about: &About) -> Result<(), Trouble> {
    let (live, at) = (&wire.live, wire.resource()?);
    let Some(pod) = &about.pod else {
        return Ok(());
    };
    let refused = |text: String| Err(Trouble::Foreign(Failure::Refused(text)));
    let known = live
        .ledger
        .uid(&live.manifest.id, "", "pods", &at.namespace, &at.name);
    if let Some(uid) = known {
        if pod["metadata"]["uid"] == uid {
            return Ok(());
        }
        return refused(format!(
            "pod {} is another one by now than this probe created",
            at.name
        ));
    }
    let is_owned = pod["metadata"]["ownerReferences"]
        .as_array()
        .is_some_and(|owners| !owners.is_empty());
    if is_owned || !live.is_sandbox(&at.namespace) {
        return Ok(());
    }
    refused(format!(
        "pod {} was not created by this probe, and nothing of it owns it; only such pods can be entered",
        at.name
    ))
}

fn late(time: Duration) -> Failure {
    Failure::Other(format!(
        "deadline: the command did not end within {} ms; its connection is closed, and whether it still runs is unknown",
        time.as_millis()
    ))
}

/// The task of a command.
struct Run {
    socket: Socket,
    output: Arc<Shared>,
    errors: Arc<Shared>,
    ended: Arc<Ended>,
    deadline: Instant,
    time: Duration,
    _open: Slot,
}

impl Run {
    async fn end(mut self) {
        let ended = match timeout_at(self.deadline, self.listen()).await {
            Ok(ended) => ended,
            Err(_) => Err(late(self.time).into()),
        };
        // Who sees the end of a stream finds the exit code.
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended.clone());
        for stream in [&self.output, &self.errors] {
            match &ended {
                // The status comes after all output, also where it says that nothing could be started.
                Ok(_) | Err(Trouble::Answered(..)) => stream.over(),
                Err(why) => stream.broken(why.clone()),
            }
        }
        let _ = timeout(FAREWELL, self.socket.close()).await;
    }

    /// Passes on what comes, until the status.
    async fn listen(&mut self) -> Result<i32, Trouble> {
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        loop {
            let message = tokio::select! {
                message = self.socket.next() => message?,
                _ = ping.tick() => {
                    self.socket.ping().await?;
                    continue;
                }
            };
            let stream = match message {
                Some((OUTPUT, bytes)) => (&self.output, bytes),
                Some((ERRORS, bytes)) => (&self.errors, bytes),
                Some((STATUS, bytes)) => return read_status(&bytes),
                // Of a channel that is closed, or that we did not ask for.
                Some(_) => continue,
                None => {
                    return Err(SendError::NoAnswer {
                        cause: "the connection ended before the exit code came; whether the command ran to its end is unknown"
                            .to_owned(),
                        tries: 1,
                    }
                    .into());
                }
            };
            stream.0.push(&stream.1).await.map_err(too_long)?;
        }
    }
}

/// What the status channel says: an exit code, or why nothing could be started.
fn read_status(bytes: &Bytes) -> Result<i32, Trouble> {
    let odd = |why: &str| {
        Err(Trouble::Foreign(Failure::NoAnswer(format!(
            "the status of the command {why}: {}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(200)])
        ))))
    };
    let Ok(mut status) = serde_json::from_slice::<Value>(bytes) else {
        return odd("is no JSON");
    };
    if status["status"] == "Success" {
        return Ok(0);
    }
    if status["status"] != "Failure" {
        return odd("says neither Success nor Failure");
    }
    if status["reason"] == "NonZeroExitCode" {
        let causes = status["details"]["causes"].as_array();
        let code = causes
            .into_iter()
            .flatten()
            .find(|cause| cause["reason"] == "ExitCode")
            .and_then(|cause| cause["message"].as_str()?.parse::<i32>().ok())
            .filter(|code| *code > 0);
        return match code {
            Some(code) => Ok(code),
            None => odd("has no exit code"),
        };
    }
    // Kubelets leave out what a Status over HTTP has.
    status["kind"] = json!("Status");
    status["apiVersion"] = json!("v1");
    let code = status["code"]
        .as_u64()
        .and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..600).contains(code)).unwrap_or(500);
    Err(Trouble::Answered(code, status.to_string().into_bytes()))
}
