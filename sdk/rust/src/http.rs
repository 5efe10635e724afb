//! HTTP to workloads, through the API server's proxy.
//!
//! ```no_run
//! use karat_sdk::http::{Request, service};
//! use std::time::Duration;
//!
//! # fn check() -> karat_sdk::Result<()> {
//! let echo = service("karat-abcd2345-example-main", "echo-abcd2345", 8080);
//! let reply = Request::get(&echo, "/health").fetch(Duration::from_secs(10))?;
//! assert_eq!(reply.code, 200);
//! # Ok(()) }
//! ```
//!
//! A code is always the workload's word. What the API server says itself is [`Error::Answered`]; [`unreached`] tells the
//! usual cases apart. Redirects are answers, and nothing is repeated but by [`patiently`]. For many requests at once, [`Request::send`] each and
//! wait for their [`Response::ready`] with [`crate::wait::any`].

use crate::case::{Conclusion, Reason};
use crate::error::{Error, Result};
use crate::host;
use crate::wait::{self, Deadline, Source};
use serde_json::Value;
use std::fmt::Display;
use std::time::Duration;

/// Bytes that one read asks for.
const CHUNK: u32 = 64 << 10;
/// How long a read that is repeated rests.
const AGAIN: Duration = Duration::from_secs(2);

/// A service as a target. The port is a number or a name; `https:` before the name asks for TLS.
pub fn service(namespace: &str, name: &str, port: impl Display) -> String {
    format!("service:{namespace}/{name}:{port}")
}

/// A pod as a target.
pub fn pod(namespace: &str, name: &str, port: impl Display) -> String {
    format!("pod:{namespace}/{name}:{port}")
}

/// One request. Plain data until it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Vec<u8>>,
}

impl Request {
    /// A request with any of the methods GET, HEAD, POST, PUT, PATCH and DELETE.
    pub fn new(method: &str, target: &str, path: &str) -> Self {
        Request {
            method: method.to_owned(),
            target: target.to_owned(),
            path: path.to_owned(),
            ..Request::default()
        }
    }

    /// A GET.
    pub fn get(target: &str, path: &str) -> Self {
        Request::new("GET", target, path)
    }

    /// A POST of JSON.
    pub fn post_json(target: &str, path: &str, body: &Value) -> Self {
        Request::new("POST", target, path)
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    /// Adds a header. `Authorization`, `Host` and those of the connection are refused.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, content: impl Into<Vec<u8>>) -> Self {
        self.body = Some(content.into());
        self
    }

    /// Sends it; the answer may still arrive. `timeout` is for the whole answer.
    ///
    /// # Errors
    /// Those of the door: no permission, a target of others, a request that makes no sense.
    pub fn send(&self, timeout: Duration) -> Result<Response> {
        let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        host::send(self, millis).map(Response)
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Errors
    /// Those of [`Request::send`] and [`Response::finish`].
    pub fn fetch(&self, timeout: Duration) -> Result<Reply> {
        let response = self.send(timeout)?;
        // The host's own timeout comes first, with a better message.
        response.finish(timeout + Duration::from_secs(5))
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The workload's status code.
    pub code: u16,
    /// The body.
    pub body: Vec<u8>,
    /// When each chunk of the body arrived, from the sending on.
    pub arrivals: Vec<Duration>,
}

impl Reply {
    /// The body as text; what is no UTF-8 becomes a replacement character.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// [`Error::Unexpected`] when it is none.
    pub fn json(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

/// An answer, perhaps still arriving. It is given up when it is dropped.
#[derive(Debug)]
pub struct Response(host::Response);

impl Response {
    /// Ready while there is news: the status, bytes, the end.
    pub fn ready(&self) -> Source {
        Source(self.0.ready())
    }

    /// The workload's status code, once it is there.
    ///
    /// # Errors
    /// [`Error::Answered`] when the API server itself answered, [`Error::NoAnswer`] when nobody did.
    pub fn status(&self) -> Result<Option<u16>> {
        self.0.status()
    }

    /// A header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<String> {
        self.0.header(name)
    }

    /// At most `max` bytes of the body; empty when nothing is there at the moment, none at the end.
    ///
    /// # Errors
    /// As [`Response::status`], and [`Error::NoAnswer`] when the body broke off.
    pub fn read(&self, max: u32) -> Result<Option<Vec<u8>>> {
        self.0.read(max)
    }

    /// When each chunk of the body arrived so far, from the sending on.
    pub fn arrivals(&self) -> Vec<Duration> {
        let millis = self.0.arrivals().into_iter();
        millis
            .map(|at| Duration::from_millis(u64::from(at)))
            .collect()
    }

    /// Gives the connection up.
    pub fn close(&self) {
        self.0.close();
    }

    /// Waits for the status.
    ///
    /// # Errors
    /// As [`Response::status`]; [`Error::Deadline`] when the time is up.
    pub fn wait_status(&self, timeout: Duration) -> Result<u16> {
        let deadline = Deadline::after(timeout);
        loop {
            if let Some(code) = self.status()? {
                return Ok(code);
            }
            self.rest(deadline, timeout)?;
        }
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// As [`Response::status`] and [`Response::read`]; [`Error::Deadline`] when the time is up.
    pub fn finish(&self, timeout: Duration) -> Result<Reply> {
        let deadline = Deadline::after(timeout);
        let code = self.wait_status(timeout)?;
        let mut body = Vec::new();
        while let Some(bytes) = self.read(CHUNK)? {
            if bytes.is_empty() {
                self.rest(deadline, timeout)?;
            }
            body.extend(bytes);
        }
        Ok(Reply {
            code,
            body,
            arrivals: self.arrivals(),
        })
    }

    fn rest(&self, deadline: Deadline, timeout: Duration) -> Result<()> {
        let left = deadline.left();
        if left.is_zero() {
            return Err(Error::Deadline {
                what: "an answer over HTTP".to_owned(),
                after: timeout,
            });
        }
        crate::wait::any(&[&self.ready()], left).map(drop)
    }
}

/// Why the API server could not pass a request on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreached {
    /// There is no such service or pod.
    Missing,
    /// The service has no ready endpoint.
    NoEndpoints,
    /// The service has no such port.
    NoPort,
    /// Nobody listens, or the network does not let the API server through.
    NoConnection,
}

/// What the API server said of a request that it could not pass on; none for every other error.
pub fn unreached(error: &Error) -> Option<Unreached> {
    let Error::Answered(answer) = error else {
        return None;
    };
    let says = |part: &str| answer.message.contains(part);
    match answer.code {
        404 if answer.reason == "NotFound" => Some(Unreached::Missing),
        503 if says("no endpoints available") => Some(Unreached::NoEndpoints),
        503 | 400 if says("no service port") => Some(Unreached::NoPort),
        500 | 502 | 503 if says("error trying to reach service") => Some(Unreached::NoConnection),
        _ => None,
    }
}

/// Repeats a read every two seconds while the way to whom it asks is at fault: no answer came, the API server reached nobody, or a
/// gateway said so. A workload that answers 502, 503 or 504 itself looks the same, and is asked again, too.
///
/// # Errors
/// Those of `read`; what can go away by itself only after `patience`.
pub fn patiently<T>(patience: Duration, mut read: impl FnMut() -> Result<T>) -> Result<T> {
    // The clock is asked only where something went wrong.
    let mut deadline = None;
    loop {
        match read() {
            Err(error) if may_pass(&error) => {
                let left = deadline
                    .get_or_insert_with(|| Deadline::after(patience))
                    .left();
                if left.is_zero() {
                    return Err(error);
                }
                wait::sleep(AGAIN.min(left))?;
            }
            other => return other,
        }
    }
}

fn may_pass(error: &Error) -> bool {
    match error {
        Error::NoAnswer(_) => true,
        Error::Answered(answer) => matches!(answer.code, 502..=504) || unreached(error).is_some(),
        _ => false,
    }
}

/// What it is worth that a workload of this run could not be asked. What the API server cannot reach says nothing about the
/// platform's promise.
pub fn not_asked(error: &Error) -> Conclusion {
    match error.conclusion() {
        Conclusion::Fail(text) => Conclusion::unknown(
            Reason::ProxyUnreachable,
            format!("the workload cannot be asked through the API server: {text}"),
        ),
        _ if unreached(error).is_some() => Conclusion::unknown(
            Reason::ProxyUnreachable,
            format!("the workload cannot be asked through the API server: {error}"),
        ),
        other => other,
    }
}
