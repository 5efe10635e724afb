//! The proxy's thread: accepts connections, finds the rule of each request and does what it says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Seen;
use super::edit::edit_response;
use super::forward::{Body, BoxError, forward, swallow, with_parameter, without_parameter};
use super::rule::{Action, Rule};
use super::{body, events, kubelet};
use crate::control_plane::client_of;
use crate::error::{Result, TestbedError};

/// What the proxy's thread owns.
pub(super) struct Job {
    pub(super) upstream: PathBuf,
    pub(super) rules: Arc<[Rule]>,
    pub(super) seen: Arc<Mutex<Vec<Seen>>>,
    pub(super) tls: Option<TlsAcceptor>,
}

/// What every connection needs.
#[derive(Clone)]
struct Service {
    client: Client,
    rules: Arc<[Rule]>,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Asks the accepting loop to refuse connections for a while.
    refuse: mpsc::UnboundedSender<Duration>,
}

impl Job {
    pub(super) fn run(
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
                        () = self.accept(client, listener) => {}
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

    async fn accept(&self, client: Client, mut listener: TcpListener) {
        let (refuse, mut asked) = mpsc::unbounded_channel();
        let service = Service {
            client,
            rules: Arc::clone(&self.rules),
            seen: Arc::clone(&self.seen),
            refuse,
        };
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(time) = asked.recv() => {
                    connections.shutdown().await;
                    match refused(listener, time).await {
                        Some(again) => listener = again,
                        // The port is lost; clients see a server that does not come back, and their test says so.
                        None => return,
                    }
                    while asked.try_recv().is_ok() {}
                    continue;
                }
                Some(_) = connections.join_next() => continue,
            };
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors, most likely; give the others time to close.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (service, tls) = (service.clone(), self.tls.clone());
            connections.spawn(async move {
                let service = service_fn(move |request| handle(service.clone(), request));
                let http = hyper::server::conn::http1::Builder::new();
                // An error here is a client that left or a rule that disconnects: neither is news.
                match tls {
                    None => {
                        let connection = http.serve_connection(TokioIo::new(stream), service);
                        let _ = connection.with_upgrades().await;
                    }
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            let connection = http.serve_connection(TokioIo::new(stream), service);
                            let _ = connection.with_upgrades().await;
                        }
                    }
                }
            });
        }
    }
}

/// Closes a listener and opens it again on the same port after a while. A socket that is bound and does not listen keeps the
/// port meanwhile, so that nobody else gets it and every connection is refused.
async fn refused(listener: TcpListener, time: Duration) -> Option<TcpListener> {
    let address: SocketAddr = listener.local_addr().ok()?;
    drop(listener);
    let holder = TcpSocket::new_v4().ok()?;
    holder.set_reuseaddr(true).ok()?;
    holder.bind(address).ok()?;
    tokio::time::sleep(time).await;
    holder.listen(1024).ok()
}

async fn handle(service: Service, request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
    let (path, query) = (
        request.uri().path().to_owned(),
        request.uri().query().unwrap_or_default().to_owned(),
    );
    let found = service
        .rules
        .iter()
        .position(|r| r.takes(request.method(), &path, &query));
    let entry = Seen {
        method: request.method().to_string(),
        uri: request.uri().to_string(),
        rule: found,
    };
    service
        .seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(entry);
    let Some(rule) = found.map(|i| &service.rules[i]) else {
        return forward(&service.client, request, None).await;
    };
    // What spoils a body or an event counts when it does so.
    if !matches!(rule.action, Action::Body(_) | Action::Events(..)) {
        rule.hits.add();
    }
    if !rule.delay.is_zero() {
        tokio::time::sleep(rule.delay).await;
    }
    let mut response = act(&service, rule, request, &path, &query).await?;
    for (name, value) in &rule.headers {
        let name = HeaderName::from_bytes(name.as_bytes())?;
        response
            .headers_mut()
            .insert(name, HeaderValue::from_str(value)?);
    }
    Ok(response)
}

async fn act(
    service: &Service,
    rule: &Rule,
    mut request: Request<Incoming>,
    path: &str,
    query: &str,
) -> Result<Response<Body>, BoxError> {
    let client = &service.client;
    match &rule.action {
        Action::Forward => forward(client, request, None).await,
        Action::Swallow => swallow(request).await,
        Action::Answer(canned) => Ok(canned.response()?),
        Action::AnswerAfter(canned) => {
            whole(forward(client, request, None).await?).await?;
            Ok(canned.response()?)
        }
        Action::Disconnect => Err("disconnected by a rule".into()),
        Action::DisconnectAfter => {
            whole(forward(client, request, None).await?).await?;
            Err("disconnected by a rule".into())
        }
        Action::Refuse(time) => {
            let _ = service.refuse.send(*time);
            // The loop closes this connection with all the others.
            std::future::pending().await
        }
        Action::EditRequest(edit) => forward(client, request, Some(edit)).await,
        Action::DropParameter(name) => {
            *request.uri_mut() = without_parameter(path, query, name).parse()?;
            forward(client, request, None).await
        }
        Action::SetParameter(name, value) => {
            *request.uri_mut() = with_parameter(path, query, name, value).parse()?;
            forward(client, request, None).await
        }
        Action::Body(fault) => {
            let mut response = forward(client, request, None).await?;
            if !fault.keeps_length() {
                response.headers_mut().remove(header::CONTENT_LENGTH);
            }
            Ok(response.map(|body| body::spoil(body, *fault, rule.hits.clone())))
        }
        Action::Events(fault, picked) => {
            as_json(&mut request);
            let response = forward(client, request, None).await?;
            if !is_watch(query) || !response.status().is_success() {
                return Ok(response);
            }
            Ok(response.map(|body| events::spoil(body, *fault, picked.clone(), rule.hits.clone())))
        }
        Action::Log(said) => Ok(kubelet::log(said.clone())),
        Action::Exec(said) => kubelet::exec(said.clone(), request),
        Action::EditWhole(_) | Action::EditObjects(_) => {
            as_json(&mut request);
            let response = forward(client, request, None).await?;
            if response.status().is_success() {
                edit_response(response, rule.action.clone(), is_watch(query)).await
            } else {
                Ok(response)
            }
        }
    }
}

/// Waits for the end of an answer, which is when what was asked for has surely taken effect.
async fn whole(response: Response<Body>) -> Result<(), BoxError> {
    response.into_body().collect().await?;
    Ok(())
}

fn is_watch(query: &str) -> bool {
    query
        .split('&')
        .any(|p| matches!(p, "watch=1" | "watch=true"))
}

/// Whoever edits an answer needs text that can be read.
fn as_json(request: &mut Request<Incoming>) {
    request.headers_mut().remove(header::ACCEPT_ENCODING);
    let accept = request.headers().get(header::ACCEPT);
    if accept.is_some_and(|a| a.to_str().is_ok_and(|a| a.contains("protobuf"))) {
        request.headers_mut().insert(
            header::ACCEPT,
            header::HeaderValue::from_static("application/json"),
        );
    }
}
