//! Answers that arrive over time and are no watches: the bytes of a log, and a WebSocket with the channels of a command.
//!
//! Both go through the client of every other request, so credentials, impersonation and pace are the same. A log is a read
//! and may be asked for again as long as nothing of it has arrived; a command may have run, so it is sent again only where
//! the server says that it did not look at it.

use super::{
    Cluster, Head, HttpAnswer, Method, Once, READ_TRIES, Request, SendError, WRITE_TRIES, chain,
};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

/// Subprotocols for commands, the better one first. Both send a Status when the command ends; `v5` can also close one channel.
const PROTOCOLS: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Largest message; kubelets send 32 KiB at most.
const MESSAGE_MAX: usize = 1 << 20;

/// The answer to a request for a stream.
pub(crate) enum Opened<T> {
    /// Accepted.
    Stream(T, u32),
    /// The server said something else.
    Answer(HttpAnswer),
}

/// The bytes of a body as they arrive.
pub(crate) struct Pieces {
    body: Body,
}

impl Pieces {
    /// The next bytes; none when the server ended the body in good order. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, SendError> {
        loop {
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|e| lost(&e))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

/// A WebSocket that carries the channels of a command.
pub(crate) struct Socket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
}

impl Socket {
    /// The next message: its channel and its bytes; none when the server closed the socket. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<(u8, Bytes)>, SendError> {
        loop {
            let message = match self.stream.next().await {
                None => return Ok(None),
                Some(message) => message.map_err(|e| lost(&e))?,
            };
            match message {
                Message::Binary(mut bytes) if !bytes.is_empty() => {
                    let payload = bytes.split_off(1);
                    return Ok(Some((bytes[0], payload)));
                }
                Message::Close(_) => return Ok(None),
                Message::Text(_) => {
                    return Err(SendError::NoAnswer {
                        cause: "the server sent text where the protocol has bytes".to_owned(),
                        tries: 1,
                    });
                }
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Keeps what lies between here and the node from taking a quiet command for a dead connection.
    pub(crate) async fn ping(&mut self) -> Result<(), SendError> {
        let ping = Message::Ping(Bytes::new());
        self.stream.send(ping).await.map_err(|e| lost(&e))
    }

    /// Says that nobody listens any more. What became of it is of no interest.
    pub(crate) async fn close(&mut self) {
        let _ = self.stream.close(None).await;
    }
}

fn lost(error: &dyn std::error::Error) -> SendError {
    SendError::NoAnswer {
        cause: chain(error),
        tries: 1,
    }
}

/// Whether the server accepted this very handshake, for a protocol that is known here.
fn check_handshake(headers: &http::HeaderMap, key: &str) -> Result<(), String> {
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    };
    if header("sec-websocket-accept") != derive_accept_key(key.as_bytes()) {
        return Err("the server answered another handshake".to_owned());
    }
    let protocol = header("sec-websocket-protocol");
    if PROTOCOLS.contains(&protocol) {
        return Ok(());
    }
    let known = PROTOCOLS.join(" and ");
    Err(format!(
        "the server chose the protocol {protocol:?}; {known} are known here"
    ))
}

impl Cluster {
    /// Opens a body that is read piece by piece.
    pub(crate) async fn pieces(&self, request: &Request) -> Result<Opened<Pieces>, SendError> {
        let opened = self.head_again(request, &[], 200, READ_TRIES).await?;
        Ok(match opened {
            (Head::Wanted(response), tries) => Opened::Stream(
                Pieces {
                    body: response.into_body(),
                },
                tries,
            ),
            (Head::Answer(answer), tries) => Opened::Answer(HttpAnswer { tries, ..answer }),
        })
    }

    /// Opens a WebSocket for a command.
    pub(crate) async fn socket(&self, request: &Request) -> Result<Opened<Socket>, SendError> {
        let mut nonce = [0_u8; 16];
        let failed = |cause: String, tries| SendError::NoAnswer { cause, tries };
        getrandom::fill(&mut nonce)
            .map_err(|e| failed(format!("no random bytes for the handshake: {e}"), 0))?;
        let key = data_encoding::BASE64.encode(&nonce);
        let handshake = [
            ("connection", "Upgrade".to_owned()),
            ("upgrade", "websocket".to_owned()),
            ("sec-websocket-version", "13".to_owned()),
            ("sec-websocket-key", key.clone()),
            // One header with a list: API servers do not read a second one.
            ("sec-websocket-protocol", PROTOCOLS.join(", ")),
        ];
        let (response, tries) = match self.head_again(request, &handshake, 101, 1).await? {
            (Head::Wanted(response), tries) => (response, tries),
            (Head::Answer(answer), tries) if answer.code < 400 => {
                let code = answer.code;
                return Err(failed(
                    format!(
                        "HTTP {code} instead of a WebSocket: something between here and the API server does not pass it on"
                    ),
                    tries,
                ));
            }
            (Head::Answer(answer), tries) => {
                return Ok(Opened::Answer(HttpAnswer { tries, ..answer }));
            }
        };
        check_handshake(response.headers(), &key).map_err(|cause| failed(cause, tries))?;
        let upgraded = hyper::upgrade::on(response).await.map_err(|e| lost(&e))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX));
        let stream =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config))
                .await;
        Ok(Opened::Stream(Socket { stream }, tries))
    }

    /// As [`Cluster::head`], as often as it may be sent. `reads` says how often a request is sent whose answer went lost; one
    /// that is sent once is repeated only where the server did not process it.
    async fn head_again(
        &self,
        request: &Request,
        extra: &[(&'static str, String)],
        wanted: u16,
        reads: u32,
    ) -> Result<(Head, u32), SendError> {
        debug_assert!(request.method == Method::Get, "streams are opened by a GET");
        let mut tries = 0;
        let mut refused = 0;
        loop {
            tries += 1;
            let sent = tries - refused;
            match self.head(request, extra, wanted).await {
                Ok(Head::Answer(answer)) if answer.code == 429 && sent < WRITE_TRIES.max(reads) => {
                }
                Ok(Head::Answer(answer))
                    if matches!(answer.code, 500 | 502 | 503 | 504) && sent < reads => {}
                Ok(head) => return Ok((head, tries)),
                Err(Once::Refused(_)) if self.refusals.wait_on(Instant::now()) => refused += 1,
                Err(Once::Failed(_) | Once::Refused(_)) if sent < reads => {}
                Err(once) => return Err(once.into_error(request, tries)),
            }
            sleep(self.back_off * 2_u32.pow(tries.min(4) - 1)).await;
        }
    }
}
