//! A proxy before the API server that makes a cluster wrong in exactly one way.
//!
//! Without rules it forwards everything with the administrator's certificate, streaming bodies in both watch and list.
//! The first [`Rule`] that matches a request decides what happens instead. It runs on a thread of its own, so it may
//! outlive the async runtime of a test. Upgrades (exec, port-forward) are not supported: nothing here has a kubelet.
//!
//! ```no_run
//! # async fn f(lab: &karat_testbed::ControlPlane) -> karat_testbed::Result<()> {
//! use karat_testbed::proxy::Rule;
//!
//! // Deletes are answered with success and never happen.
//! let proxy = lab.proxy().rule(Rule::on("DELETE", "^/apis/resource.k8s.io/").swallow()).start().await?;
//! let kubeconfig = proxy.kubeconfig();
//! # Ok(()) }
//! ```

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use regex::Regex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::control_plane::{ControlPlane, client_of};
use crate::error::{Result, TestbedError};
use crate::pki::write_private;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The API server itself takes at most 3 MiB; a larger request is a mistake of the test.
const MAX_REQUEST: usize = 16 * 1024 * 1024;

/// What a rule does with a whole JSON answer or one object of it; `false` hides the object.
type Edit = Arc<dyn Fn(&mut Value) -> bool + Send + Sync>;

#[derive(Clone)]
enum Action {
    Forward,
    Swallow,
    Answer { status: u16, body: Value },
    EditWhole(Edit),
    EditObjects(Edit),
    EditRequest(Edit),
    DropParameter(String),
    Disconnect,
    Cut { after: usize },
}

/// One deviation: which requests, and what happens to them. A rule without an action forwards them.
#[derive(Clone)]
pub struct Rule {
    method: Option<Method>,
    path: Regex,
    query: Option<Regex>,
    left: Option<Arc<AtomicU32>>,
    delay: Duration,
    action: Action,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rule")
            .field("method", &self.method)
            .field("path", &self.path.as_str())
            .finish_non_exhaustive()
    }
}

impl Rule {
    /// Matches requests with this method (`*` for any) whose path (without query) matches the regular expression.
    ///
    /// # Panics
    /// If the expression or the method is not valid; both are literals in tests.
    #[must_use]
    pub fn on(method: &str, path: &str) -> Self {
        let method = (method != "*").then(|| {
            Method::from_bytes(method.as_bytes())
                .unwrap_or_else(|e| panic!("method {method:?}: {e}"))
        });
        Self {
            method,
            path: expression(path),
            query: None,
            left: None,
            delay: Duration::ZERO,
            action: Action::Forward,
        }
    }

    /// Matches only if the query string matches too, such as `watch=(1|true)`.
    ///
    /// # Panics
    /// If the expression is not valid.
    #[must_use]
    pub fn query(mut self, query: &str) -> Self {
        self.query = Some(expression(query));
        self
    }

    /// Applies only to the first `n` matching requests.
    #[must_use]
    pub fn times(mut self, n: u32) -> Self {
        self.left = Some(Arc::new(AtomicU32::new(n)));
        self
    }

    /// Waits before doing anything.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Pretends success without forwarding: a delete gets a `Success` status, any other write its own body back.
    #[must_use]
    pub fn swallow(self) -> Self {
        self.act(Action::Swallow)
    }

    /// Answers with this status and body without forwarding.
    #[must_use]
    pub fn answer(self, status: u16, body: Value) -> Self {
        self.act(Action::Answer { status, body })
    }

    /// Answers with a `Status` object of this code and reason, as the API server does for errors.
    #[must_use]
    pub fn fail(self, code: u16, reason: &str, message: &str) -> Self {
        self.answer(code, json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code }))
    }

    /// Edits the JSON of the answer. In a watch it sees each event (`type` and `object`).
    #[must_use]
    pub fn rewrite(self, edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.act(Action::EditWhole(Arc::new(move |value| {
            edit(value);
            true
        })))
    }

    /// Edits every object of the answer, be it alone, in a list or in a watch. Returning `false` hides the object.
    #[must_use]
    pub fn rewrite_objects(
        self,
        edit: impl Fn(&mut Value) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.act(Action::EditObjects(Arc::new(edit)))
    }

    /// Edits the JSON body of the request before it is forwarded.
    #[must_use]
    pub fn rewrite_request(self, edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.act(Action::EditRequest(Arc::new(move |value| {
            edit(value);
            true
        })))
    }

    /// Forwards the request without this parameter of its query, as a server that does not know it would treat it.
    #[must_use]
    pub fn drop_parameter(self, name: &str) -> Self {
        self.act(Action::DropParameter(name.to_owned()))
    }

    /// Closes the connection without an answer. The request is not forwarded.
    #[must_use]
    pub fn disconnect(self) -> Self {
        self.act(Action::Disconnect)
    }

    /// Forwards, and closes the connection after `bytes` bytes of the answer's body.
    #[must_use]
    pub fn cut_after(self, bytes: usize) -> Self {
        self.act(Action::Cut { after: bytes })
    }

    /// The server says it is another version, such as `1.33.4`.
    #[must_use]
    pub fn version(version: &str) -> Self {
        let git = format!("v{version}");
        let minor = version.split('.').nth(1).unwrap_or_default().to_owned();
        Self::on("GET", "^/version/?$").rewrite(move |info| {
            for (field, value) in [
                ("gitVersion", &git),
                ("minor", &minor),
                ("emulationMinor", &minor),
            ] {
                if info.get(field).is_some() {
                    info[field] = value.clone().into();
                }
            }
        })
    }

    fn act(mut self, action: Action) -> Self {
        self.action = action;
        self
    }

    /// True if the rule applies, which uses up one of its [`times`](Self::times).
    fn takes(&self, method: &Method, path: &str, query: &str) -> bool {
        let fits = self.method.as_ref().is_none_or(|m| m == method)
            && self.path.is_match(path)
            && self.query.as_ref().is_none_or(|q| q.is_match(query));
        fits && self.left.as_ref().is_none_or(|left| {
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok()
        })
    }
}

#[expect(
    clippy::panic,
    reason = "a bad literal in a test should stop that test where it stands"
)]
fn expression(text: &str) -> Regex {
    Regex::new(text).unwrap_or_else(|e| panic!("{e}"))
}

/// One request that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Path and query.
    pub uri: String,
    /// Index of the rule that was applied.
    pub rule: Option<usize>,
}

/// Describes a proxy; see [`ControlPlane::proxy`].
#[derive(Debug)]
pub struct ProxyBuilder<'a> {
    lab: &'a ControlPlane,
    rules: Vec<Rule>,
    plain: bool,
    upstream: PathBuf,
}

impl ControlPlane {
    /// Begins a proxy before this API server. It speaks TLS with a certificate of the laboratory's authority.
    #[must_use]
    pub fn proxy(&self) -> ProxyBuilder<'_> {
        ProxyBuilder {
            lab: self,
            rules: Vec::new(),
            plain: false,
            upstream: self.kubeconfig(),
        }
    }
}

impl ProxyBuilder<'_> {
    /// Adds a rule. The first one that matches a request wins.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Listens without TLS.
    #[must_use]
    pub fn plain_http(mut self) -> Self {
        self.plain = true;
        self
    }

    /// Forwards with the credentials of this kubeconfig instead of the administrator's.
    #[must_use]
    pub fn forward_with(mut self, kubeconfig: impl Into<PathBuf>) -> Self {
        self.upstream = kubeconfig.into();
        self
    }

    /// Starts listening on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port, no certificate, or an unusable kubeconfig.
    pub async fn start(self) -> Result<Proxy> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let failed = |e: &dyn std::fmt::Display| TestbedError::Proxy(e.to_string());
        let tls = if self.plain {
            None
        } else {
            Some(acceptor(self.lab)?)
        };
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(|e| failed(&e))?;
        listener.set_nonblocking(true).map_err(|e| failed(&e))?;
        let address = listener.local_addr().map_err(|e| failed(&e))?;
        let url = format!("{}://{address}", if self.plain { "http" } else { "https" });

        let kubeconfig = self.lab.state_dir().join(format!(
            "proxy-{}.kubeconfig",
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        write_private(&kubeconfig, &self.lab.pki().kubeconfig(&url, None))?;

        let (stop, stopped) = oneshot::channel();
        let (ready, answer) = oneshot::channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let job = Job {
            upstream: self.upstream,
            rules: self.rules.into(),
            seen: Arc::clone(&seen),
            tls,
        };
        let thread = std::thread::Builder::new()
            .name("testbed-proxy".into())
            .spawn(move || job.run(listener, ready, stopped))
            .map_err(|e| failed(&e))?;
        answer.await.map_err(|e| failed(&e))??;
        Ok(Proxy {
            address,
            url,
            kubeconfig,
            seen,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// A running proxy. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    url: String,
    kubeconfig: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Kubeconfig that points to it. It holds no credentials; the proxy has them.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Client that goes through it.
    ///
    /// # Errors
    /// If the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<Client> {
        client_of(&self.kubeconfig).await
    }

    /// All requests so far, in the order of their arrival.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn acceptor(lab: &ControlPlane) -> Result<TlsAcceptor> {
    let identity = lab.pki().local_server()?;
    let failed = |e: String| TestbedError::Proxy(format!("certificate: {e}"));
    let cert = CertificateDer::from_pem_slice(identity.cert_pem.as_bytes())
        .map_err(|e| failed(e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
        .map_err(|e| failed(e.to_string()))?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .and_then(|c| c.with_no_client_auth().with_single_cert(vec![cert], key))
    .map_err(|e| failed(e.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What the proxy's thread owns.
struct Job {
    upstream: PathBuf,
    rules: Arc<[Rule]>,
    seen: Arc<Mutex<Vec<Seen>>>,
    tls: Option<TlsAcceptor>,
}

impl Job {
    fn run(
        self,
        listener: std::net::TcpListener,
        ready: oneshot::Sender<Result<()>>,
        stopped: oneshot::Receiver<()>,
    ) {
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(e) => {
                let _ = ready.send(Err(TestbedError::Proxy(e.to_string())));
                return;
            }
        };
        runtime.block_on(async move {
            let made = async {
                let client = client_of(&self.upstream).await?;
                let listener = TcpListener::from_std(listener)
                    .map_err(|e| TestbedError::Proxy(e.to_string()))?;
                Ok((client, listener))
            };
            match made.await {
                Ok((client, listener)) => {
                    let _ = ready.send(Ok(()));
                    tokio::select! {
                        () = self.accept(&client, &listener) => {}
                        _ = stopped => {}
                    }
                }
                Err(e) => {
                    let _ = ready.send(Err(e));
                }
            }
        });
        // Dropping the runtime drops every connection.
    }

    async fn accept(&self, client: &Client, listener: &TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, most likely; give the others time to close.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (client, rules, seen, tls) = (
                client.clone(),
                Arc::clone(&self.rules),
                Arc::clone(&self.seen),
                self.tls.clone(),
            );
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    handle(
                        client.clone(),
                        Arc::clone(&rules),
                        Arc::clone(&seen),
                        request,
                    )
                });
                let http = hyper::server::conn::http1::Builder::new();
                // An error here is a client that left or a rule that disconnects: neither is news.
                match tls {
                    None => {
                        let _ = http.serve_connection(TokioIo::new(stream), service).await;
                    }
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            let _ = http.serve_connection(TokioIo::new(stream), service).await;
                        }
                    }
                }
            });
        }
    }
}

async fn handle(
    client: Client,
    rules: Arc<[Rule]>,
    seen: Arc<Mutex<Vec<Seen>>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, BoxError> {
    let (path, query) = (
        request.uri().path().to_owned(),
        request.uri().query().unwrap_or_default().to_owned(),
    );
    let found = rules
        .iter()
        .position(|r| r.takes(request.method(), &path, &query));
    let entry = Seen {
        method: request.method().to_string(),
        uri: request.uri().to_string(),
        rule: found,
    };
    seen.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(entry);
    let Some(rule) = found.map(|i| &rules[i]) else {
        return forward(&client, request, None).await;
    };
    if !rule.delay.is_zero() {
        tokio::time::sleep(rule.delay).await;
    }
    match &rule.action {
        Action::Forward => forward(&client, request, None).await,
        Action::Swallow => swallow(request).await,
        Action::Answer { status, body } => answer(*status, body),
        Action::Disconnect => Err("disconnected by a rule".into()),
        Action::EditRequest(edit) => forward(&client, request, Some(edit)).await,
        Action::DropParameter(name) => {
            let mut request = request;
            *request.uri_mut() = without_parameter(&path, &query, name).parse()?;
            forward(&client, request, None).await
        }
        Action::Cut { after } => Ok(forward(&client, request, None)
            .await?
            .map(|body| cut(body, *after))),
        Action::EditWhole(_) | Action::EditObjects(_) => {
            let watch = query
                .split('&')
                .any(|p| matches!(p, "watch=1" | "watch=true"));
            let mut request = request;
            // The edit needs text it can read.
            request.headers_mut().remove(header::ACCEPT_ENCODING);
            if request
                .headers()
                .get(header::ACCEPT)
                .is_some_and(|a| a.to_str().is_ok_and(|a| a.contains("protobuf")))
            {
                request.headers_mut().insert(
                    header::ACCEPT,
                    header::HeaderValue::from_static("application/json"),
                );
            }
            let response = forward(&client, request, None).await?;
            if response.status().is_success() {
                edit_response(response, rule.action.clone(), watch).await
            } else {
                Ok(response)
            }
        }
    }
}

/// Sends a request on. Its body is read whole (bounded), the answer's body streams.
async fn forward(
    client: &Client,
    request: Request<Incoming>,
    edit: Option<&Edit>,
) -> Result<Response<Body>, BoxError> {
    let (mut parts, body) = request.into_parts();
    let mut bytes = Limited::new(body, MAX_REQUEST).collect().await?.to_bytes();
    if let Some(edit) = edit
        && let Ok(mut value) = serde_json::from_slice::<Value>(&bytes)
    {
        edit(&mut value);
        bytes = serde_json::to_vec(&value)?.into();
    }
    strip(&mut parts.headers);
    parts.headers.remove(header::HOST);
    parts.headers.remove(header::CONTENT_LENGTH);
    let (mut parts, body) = client
        .send(Request::from_parts(parts, kube::client::Body::from(bytes)))
        .await?
        .into_parts();
    strip(&mut parts.headers);
    Ok(Response::from_parts(
        parts,
        body.map_err(BoxError::from).boxed_unsync(),
    ))
}

/// Path and query without one parameter.
fn without_parameter(path: &str, query: &str, name: &str) -> String {
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.is_empty() && pair.split('=').next() != Some(name))
        .collect();
    if kept.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", kept.join("&"))
    }
}

/// Headers that concern one connection only.
fn strip(headers: &mut HeaderMap) {
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
    ] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

async fn swallow(request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
    let (parts, body) = request.into_parts();
    let bytes = Limited::new(body, MAX_REQUEST).collect().await?.to_bytes();
    let success =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" });
    match parts.method {
        Method::DELETE => answer(200, &success),
        Method::POST => answer(201, &serde_json::from_slice(&bytes).unwrap_or(success)),
        _ => answer(200, &serde_json::from_slice(&bytes).unwrap_or(success)),
    }
}

fn answer(status: u16, body: &Value) -> Result<Response<Body>, BoxError> {
    let bytes = serde_json::to_vec(body)?;
    Ok(Response::builder()
        .status(StatusCode::from_u16(status)?)
        .header(header::CONTENT_TYPE, "application/json")
        .body(full(bytes.into()))?)
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

async fn edit_response(
    response: Response<Body>,
    action: Action,
    watch: bool,
) -> Result<Response<Body>, BoxError> {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    if watch {
        let lines = lines(body).filter_map(move |line| {
            let edited = line.map(|line| edit_event(&action, &line));
            std::future::ready(edited.transpose())
        });
        let frames = lines.map(|line| line.map(Frame::data));
        return Ok(Response::from_parts(
            parts,
            StreamBody::new(frames).boxed_unsync(),
        ));
    }
    let bytes = body.collect().await?.to_bytes();
    let edited = match serde_json::from_slice::<Value>(&bytes) {
        Ok(mut value) => {
            if !edit_value(&action, &mut value) {
                return answer(
                    404,
                    &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NotFound", "message": "hidden by a rule", "code": 404 }),
                );
            }
            serde_json::to_vec(&value)?.into()
        }
        Err(_) => bytes,
    };
    Ok(Response::from_parts(parts, full(edited)))
}

/// Edits an answer that is not a watch. False if its only object is hidden.
fn edit_value(action: &Action, value: &mut Value) -> bool {
    match action {
        Action::EditWhole(edit) => edit(value),
        Action::EditObjects(edit) => {
            let is_list = value["kind"].as_str().is_some_and(|k| k.ends_with("List"));
            match value.get_mut("items").and_then(Value::as_array_mut) {
                Some(items) if is_list => {
                    items.retain_mut(|item| edit(item));
                    true
                }
                _ => edit(value),
            }
        }
        _ => true,
    }
}

/// Edits one line of a watch; `None` hides it. Bookmarks and errors hold no object of the collection.
fn edit_event(action: &Action, line: &Bytes) -> Option<Bytes> {
    let Ok(mut event) = serde_json::from_slice::<Value>(line) else {
        return Some(line.clone());
    };
    let keep = match action {
        Action::EditWhole(edit) => edit(&mut event),
        Action::EditObjects(edit)
            if matches!(
                event["type"].as_str(),
                Some("ADDED" | "MODIFIED" | "DELETED")
            ) =>
        {
            edit(&mut event["object"])
        }
        _ => true,
    };
    let mut bytes = serde_json::to_vec(&event).ok()?;
    bytes.push(b'\n');
    keep.then(|| bytes.into())
}

/// The lines of a body, each with its line feed.
fn lines(body: Body) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
    let chunks = body.into_data_stream();
    stream::unfold(
        (chunks, BytesMut::new(), false),
        |(mut chunks, mut buffer, ended)| async move {
            loop {
                if let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                    let line = buffer.split_to(end + 1).freeze();
                    return Some((Ok(line), (chunks, buffer, ended)));
                }
                if ended {
                    return None;
                }
                match chunks.next().await {
                    Some(Ok(chunk)) => buffer.extend_from_slice(&chunk),
                    Some(Err(e)) => return Some((Err(e), (chunks, BytesMut::new(), true))),
                    None if buffer.is_empty() => return None,
                    None => return Some((Ok(buffer.split().freeze()), (chunks, buffer, true))),
                }
            }
        },
    )
}

/// Passes `after` bytes and then fails, which makes the server close the connection in the middle.
fn cut(body: Body, after: usize) -> Body {
    let chunks = stream::unfold(
        (body.into_data_stream(), after, false),
        |(mut chunks, left, cut)| async move {
            if cut {
                return None;
            }
            if left == 0 {
                return Some((Err(BoxError::from("cut by a rule")), (chunks, 0, true)));
            }
            match chunks.next().await? {
                Ok(mut chunk) => {
                    chunk.truncate(left);
                    let left = left - chunk.len();
                    Some((Ok(Frame::data(chunk)), (chunks, left, false)))
                }
                Err(e) => Some((Err(e), (chunks, 0, true))),
            }
        },
    );
    StreamBody::new(chunks).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_fits_by_method_path_and_query_and_wears_out() {
        let rule = Rule::on("GET", "^/api/v1/pods$").query("watch=1").times(1);
        assert!(!rule.takes(&Method::POST, "/api/v1/pods", "watch=1"));
        assert!(!rule.takes(&Method::GET, "/api/v1/pods/x", "watch=1"));
        assert!(!rule.takes(&Method::GET, "/api/v1/pods", ""));
        assert!(rule.takes(&Method::GET, "/api/v1/pods", "watch=1"));
        assert!(!rule.takes(&Method::GET, "/api/v1/pods", "watch=1"));
    }

    #[test]
    fn one_parameter_goes_and_the_others_stay() {
        let without = |query| without_parameter("/pods", query, "labelSelector");
        assert_eq!(
            without("limit=5&labelSelector=a%3Db&watch=1"),
            "/pods?limit=5&watch=1"
        );
        assert_eq!(without("labelSelector=a"), "/pods");
        assert_eq!(without("labelSelectors=a"), "/pods?labelSelectors=a");
    }

    #[test]
    fn objects_are_edited_and_hidden_in_lists_and_events() {
        let action = Action::EditObjects(Arc::new(|o| {
            o["seen"] = true.into();
            o["metadata"]["name"] != "secret"
        }));
        let mut list = json!({ "kind": "PodList", "items": [{ "metadata": { "name": "a" } }, { "metadata": { "name": "secret" } }] });
        assert!(edit_value(&action, &mut list));
        assert_eq!(
            list["items"],
            json!([{ "metadata": { "name": "a" }, "seen": true }])
        );
        let mut one = json!({ "kind": "Pod", "metadata": { "name": "secret" } });
        assert!(!edit_value(&action, &mut one));
        let event = Bytes::from(r#"{"type":"ADDED","object":{"metadata":{"name":"secret"}}}"#);
        assert!(edit_event(&action, &event).is_none());
        let bookmark =
            Bytes::from(r#"{"type":"BOOKMARK","object":{"metadata":{"name":"secret"}}}"#);
        assert!(edit_event(&action, &bookmark).is_some());
    }

    #[tokio::test]
    async fn lines_are_put_together_from_any_chunks() {
        let parts = ["{\"a\"", ":1}\n{\"b\":2}\n{", "\"c\":3}"]
            .map(|p| Ok::<_, BoxError>(Frame::data(Bytes::from(p))));
        let body = StreamBody::new(stream::iter(parts)).boxed_unsync();
        let all: Vec<_> = lines(body)
            .map(|l| String::from_utf8(l.unwrap().to_vec()).unwrap())
            .collect()
            .await;
        assert_eq!(all, ["{\"a\":1}\n", "{\"b\":2}\n", "{\"c\":3}"]);
    }

    #[tokio::test]
    async fn a_cut_body_ends_with_an_error_after_the_given_bytes() {
        let body = cut(full(Bytes::from("0123456789")), 4);
        let mut stream = body.into_data_stream();
        assert_eq!(stream.next().await.unwrap().unwrap(), "0123");
        assert!(stream.next().await.unwrap().is_err());
    }
}
