//! The host inside a component: thin conversions to the generated bindings.

use crate::bindings::karat::probe as wit;
use crate::case::Conclusion;
use crate::error::{Answer, Error, Result};
use crate::http::Request;
use crate::kube::{EventKind, Query, RawAnswer, Target};
use crate::metrics::Sample;
use crate::pods::{Command, Logs};
use std::time::Duration;

impl From<wit::types::Error> for Error {
    fn from(error: wit::types::Error) -> Self {
        use wit::types::Error as E;
        match error {
            E::Refused(text) => Error::Refused(text),
            E::Answered(answer) => Error::Answered(Answer {
                code: answer.code,
                reason: answer.reason,
                message: answer.message,
                body: answer.body,
            }),
            E::NoAnswer(text) | E::Other(text) => Error::NoAnswer(text),
            E::Expired => Error::Expired,
            E::Budget(text) => Error::Budget(text),
            E::Stopping => Error::Stopping,
            E::Malformed(text) => Error::Malformed(text),
        }
    }
}

pub(crate) fn run_id() -> String {
    wit::run::id()
}

pub(crate) fn run_name(prefix: &str) -> String {
    wit::run::name(prefix)
}

pub(crate) fn namespace(alias: &str) -> Result<String> {
    Ok(wit::run::namespace(alias)?)
}

pub(crate) fn image(name: &str) -> Result<String> {
    Ok(wit::run::image(name)?)
}

pub(crate) fn now() -> String {
    wit::clock::now()
}

pub(crate) fn elapsed_ms() -> u32 {
    wit::clock::elapsed()
}

pub(crate) fn log(level: &str, text: &str) {
    wit::log::write(level, text);
}

pub(crate) fn setting(key: &str) -> Option<String> {
    wit::settings::get(key)
}

#[derive(Debug)]
pub(crate) struct Case(wit::cases::Case);

pub(crate) fn open_case(id: &str, subject: &str) -> Result<Case> {
    Ok(Case(wit::cases::open(id, subject)?))
}

impl Case {
    pub(crate) fn observe(&self, name: &str, value: &str) {
        self.0.observe(name, value);
    }

    pub(crate) fn conclude(self, conclusion: &Conclusion) -> Result<()> {
        use wit::cases::Outcome;
        let outcome = match conclusion {
            Conclusion::Pass => Outcome::Pass,
            Conclusion::Fail(_) => Outcome::Fail,
            Conclusion::Unknown(reason, text) => {
                Outcome::Unknown(format!("{}: {text}", reason.code()))
            }
            Conclusion::NotApplicable(text) => Outcome::NotApplicable(text.clone()),
        };
        Ok(wit::cases::Case::conclude(self.0, &outcome)?)
    }
}

fn query(query: &Query) -> wit::kube_read::Query {
    let built = wit::kube_read::Query::new(&query.api_version, &query.resource);
    if let Some(namespace) = &query.namespace {
        built.in_namespace(namespace);
    }
    if let Some(labels) = &query.labels {
        built.labels(labels);
    }
    if let Some(fields) = &query.fields {
        built.fields(fields);
    }
    if !query.keep.is_empty() {
        built.keep(&query.keep);
    }
    built
}

#[derive(Debug)]
pub(crate) struct Lease(wit::leases::Lease);

pub(crate) fn acquire(names: &[String], timeout_ms: u32) -> Result<Lease> {
    match wit::leases::acquire(names, timeout_ms) {
        Ok(lease) => Ok(Lease(lease)),
        Err(wit::types::Error::Other(text)) => Err(crate::leases::Denied(text).into()),
        Err(error) => Err(error.into()),
    }
}

impl Lease {
    pub(crate) fn granted(&self) -> String {
        self.0.granted()
    }

    pub(crate) fn release(self) {
        self.0.release();
    }
}

pub(crate) fn get(from: &Query, name: &str) -> Result<String> {
    Ok(query(from).get(name)?)
}

#[derive(Debug)]
pub(crate) struct Cursor(wit::kube_read::Cursor);

pub(crate) fn open_list(from: &Query) -> Result<Cursor> {
    Ok(Cursor(query(from).open_list()?))
}

pub(crate) fn open_snapshot(from: &Query) -> Result<Cursor> {
    Ok(Cursor(query(from).open_snapshot()?))
}

impl Cursor {
    pub(crate) fn next(&self) -> Result<Option<Vec<String>>> {
        Ok(self.0.next()?)
    }

    pub(crate) fn position(&self) -> String {
        self.0.position()
    }
}

#[derive(Debug)]
pub(crate) struct Watch(wit::kube_read::Watch);

#[derive(Debug)]
pub(crate) struct Source(wit::wait::Source);

pub(crate) fn open_watch(from: &Query) -> Result<Watch> {
    Ok(Watch(query(from).open_watch()?))
}

impl Watch {
    pub(crate) fn next(&self) -> Result<Option<(EventKind, String)>> {
        use wit::kube_read::Event;
        Ok(self.0.next()?.map(|event| match event {
            Event::Added(text) => (EventKind::Added, text),
            Event::Modified(text) => (EventKind::Modified, text),
            Event::Deleted(text) => (EventKind::Deleted, text),
            Event::Synced(text) => (EventKind::Synced, text),
            // An event of a later contract: continuity can no longer be claimed.
            Event::Gap(text) | Event::Other(text) => (EventKind::Gap, text),
        }))
    }

    pub(crate) fn ready(&self) -> Source {
        Source(self.0.ready())
    }

    pub(crate) fn close(&self) {
        self.0.close();
    }
}

#[derive(Debug)]
pub(crate) struct Response(wit::http::Response);

pub(crate) fn send(request: &Request, timeout_ms: u32) -> Result<Response> {
    let built = wit::http::Request::new(&request.method, &request.target, &request.path);
    for (name, value) in &request.headers {
        built.header(name, value);
    }
    if let Some(body) = &request.body {
        built.body(body);
    }
    Ok(Response(built.send(timeout_ms)?))
}

impl Response {
    pub(crate) fn ready(&self) -> Source {
        Source(self.0.ready())
    }

    pub(crate) fn status(&self) -> Result<Option<u16>> {
        Ok(self.0.status()?)
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.0.header(name)
    }

    pub(crate) fn read(&self, max: u32) -> Result<Option<Vec<u8>>> {
        Ok(self.0.read(max)?)
    }

    pub(crate) fn arrivals(&self) -> Vec<u32> {
        self.0.arrivals()
    }

    pub(crate) fn close(&self) {
        self.0.close();
    }
}

fn samples(read: &wit::metrics::Samples) -> Vec<Sample> {
    (0..read.len())
        .map(|at| Sample {
            name: read.name(at),
            labels: read.labels(at),
            value: read.value(at),
            text: read.text(at),
        })
        .collect()
}

pub(crate) fn scrape(target: &str, path: &str, names: &[String]) -> Result<Vec<Sample>> {
    Ok(samples(&wit::metrics::scrape(target, path, names)?))
}

pub(crate) fn promql(endpoint: &str, promql: &str) -> Result<Vec<Sample>> {
    Ok(samples(&wit::metrics::query(endpoint, promql)?))
}

pub(crate) fn wait_any(sources: &[&Source], timeout_ms: u32) -> Result<Vec<u32>> {
    let sources: Vec<&wit::wait::Source> = sources.iter().map(|source| &source.0).collect();
    Ok(wit::wait::any(&sources, timeout_ms)?)
}

pub(crate) fn discover() -> Result<String> {
    Ok(wit::kube_read::discover()?)
}

pub(crate) fn raw(path: &str) -> Result<RawAnswer> {
    let answer = wit::kube_read::raw(path)?;
    Ok(RawAnswer {
        code: answer.code,
        content_type: answer.content_type,
        body: answer.body,
    })
}

fn target(target: &Target) -> wit::kube_write::Target {
    let built = wit::kube_write::Target::new(&target.api_version, &target.resource);
    if let Some(namespace) = &target.namespace {
        built.in_namespace(namespace);
    }
    if target.dry_run {
        built.dry_run();
    }
    built
}

pub(crate) fn create(to: &Target, manifest: &str) -> Result<String> {
    Ok(target(to).create(manifest)?)
}

pub(crate) fn replace(to: &Target, name: &str, manifest: &str) -> Result<String> {
    Ok(target(to).replace(name, manifest)?)
}

pub(crate) fn patch(to: &Target, name: &str, kind: &str, body: &str) -> Result<String> {
    Ok(target(to).patch(name, kind, body)?)
}

pub(crate) fn delete(to: &Target, name: &str, grace_seconds: Option<u32>) -> Result<()> {
    Ok(target(to).delete(name, grace_seconds)?)
}

pub(crate) fn delete_collection(to: &Target, labels: &str) -> Result<u32> {
    Ok(target(to).delete_collection(labels)?)
}

#[derive(Debug)]
pub(crate) struct ByteStream(wit::pods::ByteStream);

pub(crate) fn open_log(of: &Logs) -> Result<ByteStream> {
    let query = wit::pods::LogQuery::new(&of.namespace, &of.pod);
    if let Some(container) = &of.container {
        query.container(container);
    }
    if of.follow {
        query.follow();
    }
    if of.previous {
        query.previous();
    }
    if let Some(age) = of.since {
        query.since(u32::try_from(age.as_millis()).unwrap_or(u32::MAX));
    }
    Ok(ByteStream(query.open()?))
}

/// The one `other` of streams and commands says that a command's time was up.
fn in_time<T>(result: std::result::Result<T, wit::types::Error>) -> Result<T> {
    result.map_err(|error| match error {
        wit::types::Error::Other(text) => Error::Deadline {
            what: text,
            after: Duration::ZERO,
        },
        other => other.into(),
    })
}

impl ByteStream {
    pub(crate) fn ready(&self) -> Source {
        Source(self.0.ready())
    }

    pub(crate) fn read(&self, max: u32) -> Result<Option<Vec<u8>>> {
        in_time(self.0.read(max))
    }
}

#[derive(Debug)]
pub(crate) struct Execution(wit::pods::Execution);

pub(crate) fn start_command(command: &Command, deadline_ms: u32) -> Result<Execution> {
    let (program, arguments) = command
        .argv
        .split_first()
        .map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
    let built = wit::pods::Command::new(&command.namespace, &command.pod, program);
    if let Some(container) = &command.container {
        built.container(container);
    }
    for argument in arguments {
        built.arg(argument);
    }
    Ok(Execution(in_time(built.start(deadline_ms))?))
}

impl Execution {
    pub(crate) fn output(&self) -> ByteStream {
        ByteStream(self.0.output())
    }

    pub(crate) fn errors(&self) -> ByteStream {
        ByteStream(self.0.errors())
    }

    pub(crate) fn exit(&self) -> Result<Option<i32>> {
        in_time(self.0.exit())
    }
}
