//! Logs and commands of a kubelet that is not there: a control plane alone has none. What comes is what [`Said`] says, in the
//! real protocols: a body in chunks, and a WebSocket of `v5.channel.k8s.io` or `v4.channel.k8s.io`.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::forward::{Body, BoxError, full};

const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
const STATUS: u8 = 3;

/// What a container says, step by step.
#[derive(Clone, Debug, Default)]
pub struct Said {
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Output(Bytes),
    Errors(Bytes),
    Pause(Duration),
    Status(Value),
    Break,
    Hang,
}

impl Said {
    /// Nothing yet. A log without more ends in good order, a command without more closes its socket without a status.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn and(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Bytes on standard output, sent as one piece.
    #[must_use]
    pub fn output(self, bytes: impl Into<Bytes>) -> Self {
        self.and(Step::Output(bytes.into()))
    }

    /// Bytes on standard error; not in a log.
    #[must_use]
    pub fn errors(self, bytes: impl Into<Bytes>) -> Self {
        self.and(Step::Errors(bytes.into()))
    }

    /// Says nothing for a while.
    #[must_use]
    pub fn pause(self, time: Duration) -> Self {
        self.and(Step::Pause(time))
    }

    /// The command ends with this code.
    #[must_use]
    pub fn exits(self, code: i32) -> Self {
        let status = if code == 0 {
            json!({ "metadata": {}, "status": "Success" })
        } else {
            json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            })
        };
        self.and(Step::Status(status))
    }

    /// The command could not be started.
    #[must_use]
    pub fn not_started(self, message: &str) -> Self {
        self.and(Step::Status(json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500,
        })))
    }

    /// The connection breaks.
    #[must_use]
    pub fn breaks(self) -> Self {
        self.and(Step::Break)
    }

    /// Nothing follows, and the connection stays.
    #[must_use]
    pub fn hangs(self) -> Self {
        self.and(Step::Hang)
    }
}

/// The answer to a request for a log.
pub(super) fn log(said: Said) -> Response<Body> {
    let pieces = stream::unfold(said.steps.into_iter(), |mut steps| async move {
        loop {
            match steps.next()? {
                Step::Output(bytes) => return Some((Ok(Frame::data(bytes)), steps)),
                Step::Pause(time) => tokio::time::sleep(time).await,
                Step::Break => return Some((Err(BoxError::from("broken by a rule")), steps)),
                Step::Hang => std::future::pending().await,
                Step::Errors(_) | Step::Status(_) => {}
            }
        }
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    let kind = header::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The answer to a request for a command: the upgrade, after which a task says what there is to say.
pub(super) fn exec(said: Said, mut request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
    let header = |name| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    // As API servers do: a stream is no JSON, and who accepts nothing else gets nothing.
    if header(header::ACCEPT).is_some_and(|accept| !accept.contains("*/*")) {
        return Ok(Response::builder()
            .status(StatusCode::NOT_ACCEPTABLE)
            .body(full(Bytes::from_static(b"406: Not Acceptable")))?);
    }
    let offered = header(header::SEC_WEBSOCKET_PROTOCOL).unwrap_or_default();
    let protocol = ["v5.channel.k8s.io", "v4.channel.k8s.io"]
        .into_iter()
        .find(|known| offered.split(", ").any(|one| one == *known));
    let (Some(key), Some(protocol)) = (header(header::SEC_WEBSOCKET_KEY), protocol) else {
        return Ok(Response::builder()
            .status(StatusCode::BAD_REQUEST)
            .body(full(Bytes::from_static(b"you must upgrade")))?);
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // A client that left is no news.
        if let Ok(upgraded) = upgrade.await {
            let socket = TokioIo::new(upgraded);
            let socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
            say(said, socket).await;
        }
    });
    Ok(Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .header(header::SEC_WEBSOCKET_PROTOCOL, protocol)
        .body(full(Bytes::new()))?)
}

async fn say(said: Said, mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>) {
    for step in said.steps {
        let (channel, bytes) = match step {
            Step::Output(bytes) => (OUTPUT, bytes),
            Step::Errors(bytes) => (ERRORS, bytes),
            Step::Status(status) => (STATUS, status.to_string().into()),
            Step::Pause(time) => {
                tokio::time::sleep(time).await;
                continue;
            }
            Step::Break => return,
            Step::Hang => {
                while let Some(Ok(_)) = socket.next().await {}
                return;
            }
        };
        let message = [&[channel][..], &bytes].concat();
        if socket.send(Message::binary(message)).await.is_err() {
            return;
        }
    }
    let _ = socket.close(None).await;
}
