//! Logs of pods, and commands in them.
//!
//! What a container says of itself comes in whole lines, redacted like everything else. That a log or a command cannot be had
//! (the pod is gone, its container has not started, its node does not answer) is [`Error::Unreachable`] and says nothing about what the
//! container would have said.
//!
//! ```no_run
//! # use karat_sdk::{pods::{self, Logs}, Object, Result};
//! # use std::time::Duration;
//! # fn check(pod: &Object) -> Result<()> {
//! // A script that prints `key=value` and ends with `done=1`.
//! let told = Logs::of(pod).follow().open()?.script(Duration::from_secs(90))?;
//! let opens = told.get("open");
//!
//! let release = pods::exec(pod, "cat").arg("/proc/version").run(Duration::from_secs(10))?;
//! let kernel = (release.code == 0).then(|| release.output.trim());
//! # Ok(()) }
//! ```

use crate::error::{Error, Result};
use crate::host;
use crate::kube::Object;
use crate::wait::{self, Deadline, Source};
use std::collections::VecDeque;
use std::time::Duration;

mod reach;

pub use reach::reaches;

/// Bytes of one read: as much as the host gives.
const PIECE: u32 = 1 << 20;
/// How much longer than a command's own deadline its end is waited for, so that the host has time to say it.
const SLACK: Duration = Duration::from_secs(5);

/// One reading of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logs {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: Option<String>,
    pub(crate) follow: bool,
    pub(crate) previous: bool,
    pub(crate) since: Option<Duration>,
}

impl Logs {
    /// The log of a pod.
    pub fn of(pod: &Object) -> Self {
        Logs::in_namespace(pod.namespace(), pod.name())
    }

    /// As [`Logs::of`], by name.
    pub fn in_namespace(namespace: &str, pod: &str) -> Self {
        Logs {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: None,
            follow: false,
            previous: false,
            since: None,
        }
    }

    /// This container; the only one without.
    #[must_use]
    pub fn container(mut self, name: &str) -> Self {
        self.container = Some(name.to_owned());
        self
    }

    /// Goes on until the container ends.
    #[must_use]
    pub fn follow(mut self) -> Self {
        self.follow = true;
        self
    }

    /// The log of the instance before the present one.
    #[must_use]
    pub fn previous(mut self) -> Self {
        self.previous = true;
        self
    }

    /// Only lines younger than this, in whole seconds, rounded up.
    #[must_use]
    pub fn since(mut self, age: Duration) -> Self {
        self.since = Some(age);
        self
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`Error::Unreachable`], and all others of the contract.
    pub fn open(&self) -> Result<Stream> {
        let stream = host::open_log(self).map_err(inside)?;
        Ok(Stream::new(stream, format!("the log of pod {}", self.pod)))
    }

    /// Opens it and reads it to its end.
    ///
    /// # Errors
    /// As [`Logs::open`]; [`Error::Deadline`].
    pub fn read(&self, timeout: Duration) -> Result<String> {
        self.open()?.rest(timeout)
    }
}

/// Text that arrives over time.
#[derive(Debug)]
pub struct Stream {
    stream: host::ByteStream,
    source: Source,
    what: String,
    lines: VecDeque<String>,
    /// A line whose end has not come.
    partial: String,
    ended: bool,
}

/// What one look at a stream gave.
enum Piece {
    Text(String),
    NotYet,
    End,
}

impl Stream {
    fn new(stream: host::ByteStream, what: String) -> Self {
        Stream {
            source: Source(stream.ready()),
            stream,
            what,
            lines: VecDeque::new(),
            partial: String::new(),
            ended: false,
        }
    }

    /// For [`wait::any`]: ready while there is something to read, and at the end.
    pub fn source(&self) -> &Source {
        &self.source
    }

    fn piece(&self) -> Result<Piece> {
        Ok(match self.stream.read(PIECE).map_err(inside)? {
            None => Piece::End,
            Some(bytes) if bytes.is_empty() => Piece::NotYet,
            // The host gives text. Whatever else came, it is no reason to panic.
            Some(bytes) => Piece::Text(String::from_utf8_lossy(&bytes).into_owned()),
        })
    }

    /// What has arrived, without waiting; none at the end.
    ///
    /// # Errors
    /// The stream broke. What came before was given.
    pub fn poll(&mut self) -> Result<Option<String>> {
        if let Some(line) = self.lines.pop_front() {
            let mut text = line + "\n";
            for line in self.lines.drain(..) {
                text.push_str(&line);
                text.push('\n');
            }
            text.push_str(&std::mem::take(&mut self.partial));
            return Ok(Some(text));
        }
        if !self.partial.is_empty() {
            return Ok(Some(std::mem::take(&mut self.partial)));
        }
        if self.ended {
            return Ok(None);
        }
        match self.piece()? {
            Piece::Text(text) => Ok(Some(text)),
            Piece::NotYet => Ok(Some(String::new())),
            Piece::End => {
                self.ended = true;
                Ok(None)
            }
        }
    }

    /// The next line without its end, waited for; none at the end.
    ///
    /// # Errors
    /// [`Error::Deadline`]; the stream broke.
    pub fn line(&mut self, timeout: Duration) -> Result<Option<String>> {
        let deadline = Deadline::after(timeout);
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(Some(line));
            }
            if self.ended {
                let rest = std::mem::take(&mut self.partial);
                return Ok((!rest.is_empty()).then_some(rest));
            }
            match self.piece()? {
                Piece::Text(text) => self.add(&text),
                Piece::End => self.ended = true,
                Piece::NotYet => self.wait(deadline, timeout, "a line of")?,
            }
        }
    }

    /// All that follows, waited for.
    ///
    /// # Errors
    /// [`Error::Deadline`] where it does not end in time; the stream broke.
    pub fn rest(&mut self, timeout: Duration) -> Result<String> {
        let deadline = Deadline::after(timeout);
        let mut all = String::new();
        while let Some(text) = self.poll()? {
            if text.is_empty() {
                self.wait(deadline, timeout, "the end of")?;
            }
            all.push_str(&text);
        }
        Ok(all)
    }

    /// Reads lines `key=value` until `done=1`. A script that ends without it did not finish, whatever it printed.
    ///
    /// # Errors
    /// [`Error::Deadline`]; the stream broke; [`Error::NoAnswer`] where the script did not finish.
    pub fn script(&mut self, timeout: Duration) -> Result<Script> {
        let deadline = Deadline::after(timeout);
        let mut script = Script::default();
        loop {
            // The time is asked for only where there is something to wait for: one answer may hold hundreds of lines.
            let line = match self.lines.pop_front() {
                Some(line) => line,
                None => match self.line(deadline.left())? {
                    Some(line) => line,
                    None => break,
                },
            };
            let line = line.trim_end_matches('\r');
            if line == "done=1" {
                return Ok(script);
            }
            if let Some((key, value)) = line.split_once('=') {
                script.told.push((key.to_owned(), value.to_owned()));
            }
        }
        Err(Error::NoAnswer(format!(
            "{} ended without done=1, so the script did not finish",
            self.what
        )))
    }

    fn add(&mut self, text: &str) {
        self.partial.push_str(text);
        while let Some((line, rest)) = self.partial.split_once('\n') {
            self.lines.push_back(line.to_owned());
            self.partial = rest.to_owned();
        }
    }

    fn wait(&self, deadline: Deadline, timeout: Duration, what: &str) -> Result<()> {
        let left = deadline.left();
        if left.is_zero() {
            return Err(Error::Deadline {
                what: format!("{what} {}", self.what),
                after: timeout,
            });
        }
        wait::any(&[&self.source], left).map(drop)
    }
}

/// What a script told, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    told: Vec<(String, String)>,
}

impl Script {
    /// The last value under a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.all(key).last()
    }

    /// All values under a key.
    pub fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        let told = self.told.iter();
        told.filter(move |(have, _)| have == key)
            .map(|(_, value)| value.as_str())
    }

    /// Everything.
    pub fn told(&self) -> &[(String, String)] {
        &self.told
    }
}

/// Begins a command in a pod of this run. There is no shell: arguments are passed as they are.
pub fn exec(pod: &Object, program: &str) -> Command {
    Command {
        namespace: pod.namespace().to_owned(),
        pod: pod.name().to_owned(),
        container: None,
        argv: vec![program.to_owned()],
    }
}

/// A command that was not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: Option<String>,
    pub(crate) argv: Vec<String>,
}

impl Command {
    /// In this container; the only one without.
    #[must_use]
    pub fn container(mut self, name: &str) -> Self {
        self.container = Some(name.to_owned());
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, value: &str) -> Self {
        self.argv.push(value.to_owned());
        self
    }

    /// Starts it; its time is counted from now.
    ///
    /// # Errors
    /// [`Error::Unreachable`], and all others of the contract.
    pub fn start(&self, deadline: Duration) -> Result<Execution> {
        let millis = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
        let handle = host::start_command(self, millis).map_err(|e| self.late(e, deadline))?;
        let stream =
            |stream, name: &str| Stream::new(stream, format!("{name} of {}", self.shown()));
        Ok(Execution {
            output: stream(handle.output(), "the output"),
            errors: stream(handle.errors(), "the errors"),
            handle,
            command: self.clone(),
            deadline,
        })
    }

    /// Starts it and waits for its end.
    ///
    /// # Errors
    /// [`Error::Deadline`] where it did not end in time; [`Error::Unreachable`] where it could not be started, with the words of the
    /// container's runtime; [`Error::NoAnswer`] where the connection was lost before the exit code came.
    pub fn run(&self, deadline: Duration) -> Result<Output> {
        self.start(deadline)?.finish()
    }

    fn shown(&self) -> String {
        let program = self.argv.first().map_or("", String::as_str);
        format!("`{program}` in pod {}", self.pod)
    }

    fn late(&self, error: Error, deadline: Duration) -> Error {
        match inside(error) {
            Error::Deadline { .. } => Error::Deadline {
                what: format!("the end of {}", self.shown()),
                after: deadline,
            },
            other => other,
        }
    }
}

/// A command that was started.
#[derive(Debug)]
pub struct Execution {
    handle: host::Execution,
    /// Standard output. Where a command writes much, both streams have to be read: one that is full stops the other.
    pub output: Stream,
    /// Standard error.
    pub errors: Stream,
    command: Command,
    deadline: Duration,
}

/// What a command that ended gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

impl Execution {
    /// The exit code once the command ended.
    ///
    /// # Errors
    /// As [`Command::run`].
    pub fn exit(&self) -> Result<Option<i32>> {
        let exit = self.handle.exit();
        exit.map_err(|e| self.command.late(e, self.deadline))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// As [`Command::run`].
    pub fn finish(mut self) -> Result<Output> {
        let deadline = Deadline::after(self.deadline.saturating_add(SLACK));
        let mut texts = [String::new(), String::new()];
        let mut ended = [false, false];
        while ended != [true, true] {
            let mut quiet = true;
            for (at, stream) in [&mut self.output, &mut self.errors].into_iter().enumerate() {
                if ended[at] {
                    continue;
                }
                let polled = stream.poll();
                match polled.map_err(|e| self.command.late(e, self.deadline))? {
                    None => ended[at] = true,
                    Some(text) => {
                        quiet &= text.is_empty();
                        texts[at].push_str(&text);
                    }
                }
            }
            let left = deadline.left();
            if quiet && ended != [true, true] {
                if left.is_zero() {
                    let late = Error::Deadline {
                        what: String::new(),
                        after: self.deadline,
                    };
                    return Err(self.command.late(late, self.deadline));
                }
                // An ended stream stays ready, so only the others are waited for.
                let open: Vec<&Source> = [&self.output, &self.errors]
                    .into_iter()
                    .zip(ended)
                    .filter(|(_, ended)| !ended)
                    .map(|(stream, _)| stream.source())
                    .collect();
                wait::any(&open, left)?;
            }
        }
        let [output, errors] = texts;
        let Some(code) = self.exit()? else {
            return Err(Error::NoAnswer(format!(
                "{} ended without an exit code",
                self.command.shown()
            )));
        };
        Ok(Output {
            code,
            output,
            errors,
        })
    }
}

/// What a server says of a log or a command is not about the platform's promise.
fn inside(error: Error) -> Error {
    match error {
        Error::Answered(answer) => Error::Unreachable(answer),
        other => other,
    }
}

#[cfg(test)]
mod tests;
