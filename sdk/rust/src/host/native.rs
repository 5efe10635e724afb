//! The host of unit tests: the fake cluster of [`crate::testing`], one per thread while a probe runs.

use crate::case::Conclusion;
use crate::error::Result;
use crate::http::Request;
use crate::kube::{EventKind, Query, RawAnswer, Target};
use crate::metrics::Sample;
use crate::pods::{Command, Logs};
use crate::testing::{SourceId, with};

pub(crate) fn run_id() -> String {
    crate::testing::RUN_ID.to_owned()
}

pub(crate) fn run_name(prefix: &str) -> String {
    format!("{prefix}-{}", crate::testing::RUN_ID)
}

pub(crate) fn namespace(alias: &str) -> Result<String> {
    with(|attempt| attempt.namespace(alias))
}

pub(crate) fn image(name: &str) -> Result<String> {
    with(|attempt| attempt.image(name))
}

pub(crate) fn now() -> String {
    with(|attempt| attempt.now())
}

pub(crate) fn elapsed_ms() -> u32 {
    with(|attempt| attempt.elapsed_ms())
}

pub(crate) fn log(level: &str, text: &str) {
    with(|attempt| attempt.log(level, text));
}

pub(crate) fn setting(key: &str) -> Option<String> {
    with(|attempt| attempt.setting(key))
}

#[derive(Debug)]
pub(crate) struct Case(usize);

pub(crate) fn open_case(id: &str, subject: &str) -> Result<Case> {
    with(|attempt| attempt.open_case(id, subject)).map(Case)
}

impl Case {
    pub(crate) fn observe(&self, name: &str, value: &str) {
        with(|attempt| attempt.observe(self.0, name, value));
    }

    pub(crate) fn conclude(self, conclusion: &Conclusion) -> Result<()> {
        with(|attempt| attempt.conclude(self.0, conclusion))
    }
}

#[derive(Debug)]
pub(crate) struct Lease {
    granted: String,
}

pub(crate) fn acquire(names: &[String], timeout_ms: u32) -> Result<Lease> {
    let granted = with(|attempt| attempt.acquire(names, timeout_ms))?;
    Ok(Lease { granted })
}

impl Lease {
    pub(crate) fn granted(&self) -> String {
        self.granted.clone()
    }

    pub(crate) fn release(self) {
        crate::testing::if_running(|attempt| attempt.release_lease());
    }
}

pub(crate) fn get(from: &Query, name: &str) -> Result<String> {
    with(|attempt| attempt.get(from, name))
}

#[derive(Debug)]
pub(crate) struct Cursor(usize);

pub(crate) fn open_list(from: &Query) -> Result<Cursor> {
    with(|attempt| attempt.open_list(from)).map(Cursor)
}

pub(crate) fn open_snapshot(from: &Query) -> Result<Cursor> {
    with(|attempt| attempt.open_snapshot(from)).map(Cursor)
}

impl Cursor {
    pub(crate) fn next(&self) -> Result<Option<Vec<String>>> {
        with(|attempt| attempt.next_page(self.0))
    }

    pub(crate) fn position(&self) -> String {
        with(|attempt| attempt.position(self.0))
    }
}

#[derive(Debug)]
pub(crate) struct Watch(usize);

#[derive(Debug)]
pub(crate) struct Source(SourceId);

pub(crate) fn open_watch(from: &Query) -> Result<Watch> {
    with(|attempt| attempt.open_watch(from)).map(Watch)
}

impl Watch {
    pub(crate) fn next(&self) -> Result<Option<(EventKind, String)>> {
        with(|attempt| attempt.next_event(self.0))
    }

    pub(crate) fn ready(&self) -> Source {
        Source(SourceId::Watch(self.0))
    }

    pub(crate) fn close(&self) {
        with(|attempt| attempt.close_watch(self.0));
    }
}

#[derive(Debug)]
pub(crate) struct Response(usize);

pub(crate) fn send(request: &Request, timeout_ms: u32) -> Result<Response> {
    with(|attempt| attempt.send_request(request, timeout_ms)).map(Response)
}

impl Response {
    pub(crate) fn ready(&self) -> Source {
        Source(SourceId::Response(self.0))
    }

    pub(crate) fn status(&self) -> Result<Option<u16>> {
        with(|attempt| attempt.response_status(self.0))
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        with(|attempt| attempt.response_header(self.0, name))
    }

    pub(crate) fn read(&self, max: u32) -> Result<Option<Vec<u8>>> {
        with(|attempt| attempt.response_read(self.0, max))
    }

    pub(crate) fn arrivals(&self) -> Vec<u32> {
        with(|attempt| attempt.response_arrivals(self.0))
    }

    pub(crate) fn close(&self) {
        with(|attempt| attempt.response_close(self.0));
    }
}

pub(crate) fn scrape(target: &str, path: &str, names: &[String]) -> Result<Vec<Sample>> {
    with(|attempt| attempt.scrape(target, path, names))
}

pub(crate) fn promql(endpoint: &str, promql: &str) -> Result<Vec<Sample>> {
    with(|attempt| attempt.query(endpoint, promql))
}

pub(crate) fn wait_any(sources: &[&Source], timeout_ms: u32) -> Result<Vec<u32>> {
    let sources: Vec<SourceId> = sources.iter().map(|source| source.0).collect();
    with(|attempt| attempt.wait_any(&sources, timeout_ms))
}

pub(crate) fn discover() -> Result<String> {
    with(|attempt| attempt.discover())
}

pub(crate) fn raw(path: &str) -> Result<RawAnswer> {
    with(|attempt| attempt.raw(path))
}

pub(crate) fn create(to: &Target, manifest: &str) -> Result<String> {
    with(|attempt| attempt.create(to, manifest))
}

pub(crate) fn replace(to: &Target, name: &str, manifest: &str) -> Result<String> {
    with(|attempt| attempt.replace(to, name, manifest))
}

pub(crate) fn patch(to: &Target, name: &str, kind: &str, body: &str) -> Result<String> {
    with(|attempt| attempt.patch(to, name, kind, body))
}

pub(crate) fn delete(to: &Target, name: &str, _grace_seconds: Option<u32>) -> Result<()> {
    with(|attempt| attempt.delete(to, name))
}

pub(crate) fn delete_collection(to: &Target, labels: &str) -> Result<u32> {
    with(|attempt| attempt.delete_collection(to, labels))
}

#[derive(Debug)]
pub(crate) struct ByteStream(usize);

pub(crate) fn open_log(of: &Logs) -> Result<ByteStream> {
    with(|attempt| attempt.open_log(of)).map(ByteStream)
}

impl ByteStream {
    pub(crate) fn ready(&self) -> Source {
        Source(SourceId::Stream(self.0))
    }

    pub(crate) fn read(&self, max: u32) -> Result<Option<Vec<u8>>> {
        with(|attempt| attempt.read_stream(self.0, max))
    }
}

#[derive(Debug)]
pub(crate) struct Execution(usize);

pub(crate) fn start_command(command: &Command, deadline_ms: u32) -> Result<Execution> {
    with(|attempt| attempt.start_command(command, deadline_ms)).map(Execution)
}

impl Execution {
    pub(crate) fn output(&self) -> ByteStream {
        ByteStream(with(|attempt| attempt.execution_streams(self.0)[0]))
    }

    pub(crate) fn errors(&self) -> ByteStream {
        ByteStream(with(|attempt| attempt.execution_streams(self.0)[1]))
    }

    pub(crate) fn exit(&self) -> Result<Option<i32>> {
        with(|attempt| attempt.exit_code(self.0))
    }
}
