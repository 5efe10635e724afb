//! What happens to a request that no rule changes: it is sent on, and its answer streams back.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::{Value, json};

use super::rule::Edit;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The API server itself takes at most 3 MiB; a larger request is a mistake of the test.
const MAX_REQUEST: usize = 16 * 1024 * 1024;

/// Sends a request on. Its body is read whole (bounded), the answer's body streams.
pub(super) async fn forward(
    client: &Client,
    request: Request<Incoming>,
    edit: Option<&Edit>,
) -> Result<Response<Body>, BoxError> {
    if request.headers().contains_key(header::UPGRADE) {
        return upgrade(client, request).await;
    }
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

/// Sends on a request that becomes a stream of its own (a command in a pod), and then every byte of both sides.
async fn upgrade(
    client: &Client,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, BoxError> {
    let below = hyper::upgrade::on(&mut request);
    let (mut parts, _) = request.into_parts();
    parts.headers.remove(header::HOST);
    let empty = kube::client::Body::empty();
    let mut response = client.send(Request::from_parts(parts, empty)).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let above = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            // Whoever ends the stream first has no more to say; an error is a side that left.
            if let (Ok(below), Ok(above)) = tokio::join!(below, above) {
                let (mut below, mut above) = (TokioIo::new(below), TokioIo::new(above));
                let _ = tokio::io::copy_bidirectional(&mut below, &mut above).await;
            }
        });
    }
    Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
}

/// Path and query without one parameter.
pub(super) fn without_parameter(path: &str, query: &str, name: &str) -> String {
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

/// Path and query with one parameter as given.
pub(super) fn with_parameter(path: &str, query: &str, name: &str, value: &str) -> String {
    let rest = without_parameter(path, query, name);
    let sign = if rest.contains('?') { '&' } else { '?' };
    format!("{rest}{sign}{name}={value}")
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

pub(super) async fn swallow(request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
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

pub(super) fn answer(status: u16, body: &Value) -> Result<Response<Body>, BoxError> {
    let bytes = serde_json::to_vec(body)?;
    Ok(Response::builder()
        .status(StatusCode::from_u16(status)?)
        .header(header::CONTENT_TYPE, "application/json")
        .body(full(bytes.into()))?)
}

pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::{with_parameter, without_parameter};

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
    fn one_parameter_is_replaced_or_added() {
        let with = |query| with_parameter("/pods", query, "limit", "1");
        assert_eq!(with("limit=500&continue=x"), "/pods?continue=x&limit=1");
        assert_eq!(with(""), "/pods?limit=1");
    }
}
