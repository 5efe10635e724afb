//! The wire to one API server: requests in, bytes out.
//!
//! Knows HTTP and the manners of a good client (pacing, `Retry-After`, back-off, size limits) and nothing of permissions,
//! redaction or recordings: those are the door's ([`crate::gate`]). Only reads are repeated silently, and what was never
//! sent because the connection was refused; a write that got no answer is reported as such, because nobody knows whether it
//! took effect. What a load balancer says in the server's place is no answer (see `answer`). Probe calls and the engine's own calls use two
//! instances with different credentials, which may share one [`Pace`].

use http::header::{HeaderMap, HeaderValue, InvalidHeaderValue};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

mod answer;
mod api;
mod forward;
mod refusal;
mod stream;
use answer::{foreign, is_html, read_all, retry_after};
pub use api::ApiError;
pub(crate) use api::encode;
pub(crate) use forward::{Forward, Forwarded};
use refusal::{Refusals, is_refused};
pub(crate) use stream::{Opened, Pieces, Socket};

/// Largest answer that the engine's own calls accept.
pub const ENGINE_ANSWER_MAX: u64 = 64 << 20;
/// Longest line of a watch; an object in etcd has at most 1.5 MiB.
const LINE_MAX: usize = 8 << 20;
/// How long one request may take. The API server itself gives up after 60 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(65);
/// How often a read is sent at most.
const READ_TRIES: u32 = 4;
/// How often a write is sent at most: again only after a 429, which says that the server did not process it.
const WRITE_TRIES: u32 = 6;
/// Where a kubeconfig is searched when none is named, for messages.
const SEARCHED: &str = "from KUBECONFIG or ~/.kube/config";
/// Longest `Retry-After` that is honoured, so that a hostile server cannot park a run.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// How to reach a cluster.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// The kubeconfig file. None means kube's own search: `KUBECONFIG`, `~/.kube/config`, then the service account of
    /// the pod we run in. Callers that must not depend on the environment give a path.
    pub kubeconfig: Option<PathBuf>,
    /// The context; none means the current one of the file.
    pub context: Option<String>,
    /// The pace to share with other instances; none makes a new one.
    pub pace: Option<Pace>,
}

/// Why a cluster could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig is missing or wrong.
    #[error("kubeconfig {file}: {cause}")]
    Kubeconfig {
        /// The file, or where it was searched.
        file: String,
        /// What is wrong.
        cause: String,
    },
    /// The client could not be built: certificates, exec plug-in, proxy.
    #[error("cannot build a client for {server}: {cause}")]
    Client {
        /// Address of the server.
        server: String,
        /// What is wrong.
        cause: String,
    },
}

/// HTTP methods of the Kubernetes API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads; may be repeated.
    Get,
    /// Creates.
    Post,
    /// Replaces.
    Put,
    /// Changes in part.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path and query, already percent-encoded, starting with `/`.
    pub path_and_query: String,
    /// The body.
    pub body: Option<Vec<u8>>,
    /// Content type of the body.
    pub content_type: &'static str,
    /// What we accept as an answer.
    pub accept: &'static str,
    /// Value of the `Audit-ID` header.
    pub audit_id: Option<String>,
    /// Largest body of an answer that is read, in bytes.
    pub max_bytes: u64,
}

impl Request {
    /// A GET that accepts JSON.
    pub fn get(path_and_query: impl Into<String>) -> Request {
        Request {
            method: Method::Get,
            path_and_query: path_and_query.into(),
            body: None,
            content_type: "application/json",
            accept: "application/json",
            audit_id: None,
            max_bytes: ENGINE_ANSWER_MAX,
        }
    }

    /// A request with a JSON body.
    pub fn with_body(method: Method, path_and_query: impl Into<String>, body: Vec<u8>) -> Request {
        Request {
            method,
            body: Some(body),
            ..Request::get(path_and_query)
        }
    }

    /// Sets the audit id.
    pub fn audited(mut self, audit_id: impl Into<String>) -> Request {
        self.audit_id = Some(audit_id.into());
        self
    }

    /// Sets the largest answer.
    pub fn limited(mut self, max_bytes: u64) -> Request {
        self.max_bytes = max_bytes;
        self
    }
}

/// What the server answered, whatever it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Status code.
    pub code: u16,
    /// `Content-Type` header.
    pub content_type: String,
    /// `Date` header, the server's clock.
    pub date: String,
    /// The body.
    pub body: Vec<u8>,
    /// How often the request was sent.
    pub tries: u32,
}

/// No usable answer arrived.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The connection failed or timed out. Whether a write took effect is unknown.
    #[error("{cause}")]
    NoAnswer {
        /// What happened.
        cause: String,
        /// How often the request was sent.
        tries: u32,
    },
    /// The answer is larger than the limit of the request.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
        /// How often the request was sent.
        tries: u32,
    },
}

impl SendError {
    /// How often the request was sent.
    pub fn tries(&self) -> u32 {
        match self {
            SendError::NoAnswer { tries, .. } | SendError::TooLarge { tries, .. } => *tries,
        }
    }
}

/// The pace of a run: one token bucket, and one moment before which nobody sends because the server asked for quiet.
#[derive(Clone, Debug)]
pub struct Pace {
    inner: Arc<PaceInner>,
}

#[derive(Debug)]
struct PaceInner {
    /// Time that one request costs; zero switches the bucket off.
    interval: Duration,
    /// How far requests may run ahead.
    burst: Duration,
    state: Mutex<PaceState>,
}

#[derive(Debug, Default)]
struct PaceState {
    next: Option<Instant>,
    quiet_until: Option<Instant>,
}

impl Pace {
    /// At most `per_second` requests a second, with bursts of twice that. Zero means no limit.
    pub fn new(per_second: u32) -> Pace {
        let interval = Duration::from_secs(1)
            .checked_div(per_second)
            .unwrap_or_default();
        Pace {
            inner: Arc::new(PaceInner {
                interval,
                burst: interval * per_second * 2,
                state: Mutex::default(),
            }),
        }
    }

    /// Takes a token; gives the moment from which the request may be sent.
    fn reserve(&self, now: Instant) -> Instant {
        let mut state = self
            .inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let floor = now.checked_sub(self.inner.burst).unwrap_or(now);
        let slot = state.next.map_or(floor, |next| next.max(floor));
        state.next = Some(slot + self.inner.interval);
        let at = slot.max(now);
        match state.quiet_until {
            Some(quiet) if quiet > at => quiet,
            _ => at,
        }
    }

    /// Nobody sends before `now + wait`: a `Retry-After` of the server is for all of us.
    fn quiet(&self, now: Instant, wait: Duration) {
        let until = now + wait.min(RETRY_AFTER_MAX);
        let mut state = self
            .inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state.quiet_until = Some(state.quiet_until.map_or(until, |old| old.max(until)));
    }

    async fn take(&self) {
        let now = Instant::now();
        let at = self.reserve(now);
        if at > now {
            sleep_until(at).await;
        }
    }
}

impl Default for Pace {
    /// 50 requests a second: as much as kubectl allows itself.
    fn default() -> Self {
        Pace::new(50)
    }
}

/// A connection to one cluster with one set of credentials. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    server: Arc<str>,
    context: Option<Arc<str>>,
    pace: Pace,
    back_off: Duration,
    refusals: Refusals,
    sent: Arc<AtomicU64>,
    /// Whom the kubeconfig itself impersonates.
    impersonates: Option<Arc<str>>,
    /// Whom requests impersonate, beside the credentials of the kubeconfig.
    acts_as: Option<Arc<str>>,
}

/// A kubeconfig that impersonates somebody cannot be used to impersonate somebody else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the kubeconfig already acts as {user}, and one request cannot act as two; use credentials of your own, or `--rbac off`"
)]
pub struct AlreadyImpersonates {
    /// User or groups of the kubeconfig.
    pub user: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Reads the kubeconfig and builds a client. Sends nothing yet.
    ///
    /// # Errors
    /// A kubeconfig that cannot be read, or credentials that cannot be used.
    pub async fn connect(options: ConnectOptions) -> Result<Cluster, ConnectError> {
        let choice = KubeConfigOptions {
            context: options.context.clone(),
            ..KubeConfigOptions::default()
        };
        let wrong = |file: &str, cause: &dyn std::error::Error| ConnectError::Kubeconfig {
            file: file.to_owned(),
            cause: chain(cause),
        };
        let named = options.kubeconfig.is_some() || options.context.is_some();
        let (file, read) = match &options.kubeconfig {
            Some(path) => (path.display().to_string(), Kubeconfig::read_from(path)),
            None => (SEARCHED.to_owned(), Kubeconfig::read()),
        };
        let from_file = match read {
            Ok(read) => {
                let context = options.context.clone().or(read.current_context.clone());
                kube::Config::from_custom_kubeconfig(read, &choice)
                    .await
                    .map(|config| (config, context))
            }
            Err(e) => Err(e),
        };
        let (mut config, context) = match from_file {
            Ok(found) => found,
            Err(e) if named => return Err(wrong(&file, &e)),
            // In a pod there is a service account and no file.
            Err(e) => {
                let config = kube::Config::incluster().map_err(|_| wrong(&file, &e))?;
                (config, None)
            }
        };
        // Retrying is decided here, not by the library: it would repeat writes and hide the number of tries.
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(10));
        let auth = &config.auth_info;
        let impersonates = auth.impersonate.clone().or_else(|| {
            let groups = auth.impersonate_groups.as_ref()?;
            Some(groups.join(", ")).filter(|groups| !groups.is_empty())
        });
        let server = config.cluster_url.to_string();
        let client = kube::Client::try_from(config).map_err(|e| ConnectError::Client {
            server: server.clone(),
            cause: chain(&e),
        })?;
        Ok(Cluster {
            client,
            server: server.into(),
            context: context.map(Into::into),
            pace: options.pace.unwrap_or_default(),
            back_off: Duration::from_millis(200),
            refusals: Refusals::default(),
            sent: Arc::default(),
            impersonates: impersonates.map(Into::into),
            acts_as: None,
        })
    }

    /// A cluster behind any client, unpaced and without pauses between tries: for scripted API servers.
    #[doc(hidden)]
    pub fn for_test(client: kube::Client) -> Cluster {
        Cluster {
            client,
            server: "http://scripted.invalid/".into(),
            context: None,
            pace: Pace::new(0),
            back_off: Duration::ZERO,
            refusals: Refusals::default(),
            sent: Arc::default(),
            impersonates: None,
            acts_as: None,
        }
    }

    /// Address of the server, for people.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Name of the kubeconfig's context; none inside a pod.
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// Number of HTTP requests sent so far by this instance and its clones, repeated ones included.
    pub fn requests(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The pace, to share it with another instance.
    pub fn pace(&self) -> Pace {
        self.pace.clone()
    }

    /// The pause after which something that failed is tried again; doubled each time by the caller.
    pub(crate) fn back_off(&self) -> Duration {
        self.back_off
    }

    /// The same connection, on which the server takes every request for one of `user`
    /// (`system:serviceaccount:<namespace>:<name>`). Groups are left to the server, which adds those that every service
    /// account has; so nobody needs the right to impersonate groups.
    ///
    /// # Errors
    /// The kubeconfig impersonates already: its headers would be sent as well, and the server would take one of them.
    pub fn acting_as(&self, user: &str) -> Result<Cluster, AlreadyImpersonates> {
        match &self.impersonates {
            Some(user) => Err(AlreadyImpersonates {
                user: user.as_ref().to_owned(),
            }),
            None => Ok(Cluster {
                acts_as: Some(user.into()),
                ..self.clone()
            }),
        }
    }

    /// The same connection without [`Cluster::acting_as`], with the same counter.
    pub(crate) fn as_itself(&self) -> Cluster {
        Cluster {
            acts_as: None,
            ..self.clone()
        }
    }

    /// The same connection with a request counter of its own.
    pub fn with_own_counter(&self) -> Cluster {
        Cluster {
            sent: Arc::default(),
            ..self.clone()
        }
    }

    /// Sends a request and reads the whole answer. Reads are repeated on connection errors, answers of others than the API
    /// server, 429 and 5xx; writes only on 429, and an eviction not even then: there 429 is the answer of a disruption
    /// budget. Where a server that answered before refuses the connection, nothing was sent, and both are sent again.
    ///
    /// # Errors
    /// No answer after all tries, or one larger than `max_bytes`.
    pub async fn send(&self, request: &Request) -> Result<HttpAnswer, SendError> {
        let is_read = request.method == Method::Get;
        let path = request.path_and_query.split('?').next().unwrap_or_default();
        let is_eviction = path.ends_with("/eviction");
        let most = if is_read {
            READ_TRIES
        } else if is_eviction {
            1
        } else {
            WRITE_TRIES
        };
        let mut tries = 0;
        let mut refused = 0;
        loop {
            tries += 1;
            let last = tries - refused >= most;
            match timeout(REQUEST_TIMEOUT, self.send_once(request)).await {
                Ok(Ok((answer, wait))) => {
                    let again = answer.code == 429
                        || (is_read && matches!(answer.code, 500 | 502 | 503 | 504));
                    // Also where this request is not repeated: the server speaks of its load, not of the request.
                    let is_load = matches!(answer.code, 429 | 500..) && !is_eviction;
                    if let Some(wait) = wait.filter(|_| is_load) {
                        self.pace.quiet(Instant::now(), wait);
                    }
                    if last || !again {
                        return Ok(HttpAnswer { tries, ..answer });
                    }
                }
                Ok(Err(Once::TooLarge)) => {
                    return Err(SendError::TooLarge {
                        limit: request.max_bytes,
                        tries,
                    });
                }
                Ok(Err(Once::Refused(cause))) => {
                    if self.refusals.wait_on(Instant::now()) {
                        refused += 1;
                    } else if last || !is_read {
                        return Err(SendError::NoAnswer { cause, tries });
                    }
                }
                Ok(Err(Once::Failed(cause))) if last || !is_read => {
                    return Err(SendError::NoAnswer { cause, tries });
                }
                Err(_) if last || !is_read => {
                    let cause = format!("no answer within {} s", REQUEST_TIMEOUT.as_secs());
                    return Err(SendError::NoAnswer { cause, tries });
                }
                Ok(Err(Once::Failed(_))) | Err(_) => {}
            }
            sleep(self.back_off * 2_u32.pow(tries.min(4) - 1)).await;
        }
    }

    /// Opens a watch: the answer's head is awaited, its lines arrive through [`Lines`]. Not repeated; the caller knows
    /// from where to go on. An answer other than 200 is given whole.
    ///
    /// # Errors
    /// No answer.
    pub async fn stream(&self, request: &Request) -> Result<Streamed, SendError> {
        match self.head(request, &[], 200).await {
            Ok(Head::Wanted(response)) => Ok(Streamed::Lines(Lines {
                body: response.into_body(),
                ready: VecDeque::new(),
                partial: Vec::new(),
            })),
            Ok(Head::Answer(answer)) => Ok(Streamed::Answer(answer)),
            Err(once) => Err(once.into_error(request, 1)),
        }
    }

    /// Sends a request once and awaits the head of its answer. A status other than `wanted` is an answer that is read whole.
    async fn head(
        &self,
        request: &Request,
        extra: &[(&'static str, String)],
        wanted: u16,
    ) -> Result<Head, Once> {
        let late = || Once::Failed("the server did not begin to answer in time".to_owned());
        let response = timeout(REQUEST_TIMEOUT, self.open(request, extra))
            .await
            .map_err(|_| late())??;
        let code = response.status().as_u16();
        let kind = response.headers().get("content-type");
        let page = kind.is_some_and(|kind| kind.to_str().is_ok_and(is_html));
        if page && code < 500 {
            return Err(Once::Failed(format!(
                "HTTP {code} in HTML: something between here and the API server answered"
            )));
        }
        if code == wanted {
            return Ok(Head::Wanted(response));
        }
        let (parts, body) = response.into_parts();
        if let Some(wait) = retry_after(&parts.headers) {
            self.pace.quiet(Instant::now(), wait);
        }
        let answer = timeout(REQUEST_TIMEOUT, read_all(parts, body, request.max_bytes))
            .await
            .map_err(|_| late())??;
        Ok(Head::Answer(answer))
    }

    async fn open(
        &self,
        request: &Request,
        extra: &[(&'static str, String)],
    ) -> Result<http::Response<Body>, Once> {
        self.pace.take().await;
        let mut builder = http::Request::builder()
            .method(request.method.as_str())
            .uri(&request.path_and_query)
            .header("accept", request.accept)
            // Newer servers compress watches one member per event, which clients decode badly.
            .header("accept-encoding", "identity");
        if request.body.is_some() {
            builder = builder.header("content-type", request.content_type);
        }
        for (name, value) in extra {
            builder = builder.header(*name, value);
        }
        let unsent = |cause: String| Once::Failed(format!("the request cannot be sent: {cause}"));
        let audit_id = request.audit_id.as_deref();
        let mut request = builder
            .body(Body::from(request.body.clone().unwrap_or_default()))
            .map_err(|e| unsent(e.to_string()))?;
        self.sign(request.headers_mut(), audit_id)
            .map_err(|e| unsent(e.to_string()))?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        let response = self.client.send(request).await.map_err(|e| {
            if is_refused(&e) {
                Once::Refused(chain(&e))
            } else {
                Once::Failed(chain(&e))
            }
        })?;
        self.refusals.over();
        Ok(response)
    }

    /// Writes who sends a request, for whom, and under which audit id, over whatever stands there.
    fn sign(
        &self,
        headers: &mut HeaderMap,
        audit_id: Option<&str>,
    ) -> Result<(), InvalidHeaderValue> {
        let ours = [
            (
                "user-agent",
                Some(concat!("karat/", env!("CARGO_PKG_VERSION"))),
            ),
            ("impersonate-user", self.acts_as.as_deref()),
            (crate::names::AUDIT_ID_HEADER, audit_id),
        ];
        for (name, value) in ours {
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_str(value)?);
            }
        }
        Ok(())
    }

    async fn send_once(&self, request: &Request) -> Result<(HttpAnswer, Option<Duration>), Once> {
        let response = self.open(request, &[]).await?;
        let (parts, body) = response.into_parts();
        let wait = retry_after(&parts.headers);
        let answer = read_all(parts, body, request.max_bytes).await?;
        match foreign(&answer, request.accept) {
            None => Ok((answer, wait)),
            Some(cause) => Err(Once::Failed(cause)),
        }
    }
}

enum Once {
    /// Nothing usable came back.
    Failed(String),
    /// No connection, so nothing was sent.
    Refused(String),
    TooLarge,
}

impl Once {
    fn into_error(self, request: &Request, tries: u32) -> SendError {
        match self {
            Once::Failed(cause) | Once::Refused(cause) => SendError::NoAnswer { cause, tries },
            Once::TooLarge => SendError::TooLarge {
                limit: request.max_bytes,
                tries,
            },
        }
    }
}

/// The head of an answer that may stream.
enum Head {
    /// As wanted; its body was not read yet.
    Wanted(http::Response<Body>),
    /// Another one, whole.
    Answer(HttpAnswer),
}

/// The answer to [`Cluster::stream`].
pub enum Streamed {
    /// Accepted; lines arrive.
    Lines(Lines),
    /// The server said something else.
    Answer(HttpAnswer),
}

/// The lines of a watch as they arrive.
pub struct Lines {
    body: Body,
    ready: VecDeque<Vec<u8>>,
    partial: Vec<u8>,
}

impl Lines {
    /// The next line without its newline; none when the server ended the stream. Dropping the future loses nothing.
    ///
    /// # Errors
    /// A broken connection, or a line that is longer than any object can be.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, SendError> {
        let failed = |cause: String| SendError::NoAnswer { cause, tries: 1 };
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            let Some(frame) = self.body.frame().await else {
                // An unfinished last line is a cut-off event: dropping it makes the caller resume before it.
                return Ok(None);
            };
            let Ok(data) = frame.map_err(|e| failed(chain(&e)))?.into_data() else {
                continue;
            };
            for (at, piece) in data.split(|b| *b == b'\n').enumerate() {
                if at > 0 {
                    let line = std::mem::take(&mut self.partial);
                    if !line.is_empty() {
                        self.ready.push_back(line);
                    }
                }
                if self.partial.len() + piece.len() > LINE_MAX {
                    return Err(failed(format!("a line is longer than {LINE_MAX} bytes")));
                }
                self.partial.extend_from_slice(piece);
            }
        }
    }
}

/// An error with its causes in one line. Repeated causes (wrappers that print their source) are shown once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Reads a `meta/v1 Status`: reason and message, empty when the body is something else.
pub(crate) fn status_of(body: &[u8]) -> (String, String) {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return Default::default();
    };
    if value["kind"] != "Status" {
        return Default::default();
    }
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

#[cfg(test)]
mod tests;
