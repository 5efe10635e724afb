//! Requests to workloads through the API server's proxy: sent once, answered by a head and a body that may still arrive.
//!
//! Nothing is repeated here, not even a GET: a probe that counts requests must not find more than it sent. Redirects are
//! answers. Which headers may be sent is decided by [`crate::capability::http`]; who sends them, for whom, and under which
//! audit id is decided here.

use super::{Cluster, SendError, chain, retry_after};
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::BodyExt;
use kube::client::Body;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// One request to a workload.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    pub(crate) method: Method,
    /// Path and query at the API server, percent-encoded.
    pub(crate) path_and_query: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Vec<u8>,
    pub(crate) audit_id: Option<String>,
}

/// The head of an answer, and what of it is still to come.
pub(crate) struct Forwarded {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    body: Body,
}

impl Forwarded {
    /// The next piece of the body as it arrived; none at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, String> {
        loop {
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            // Trailers are no part of the body.
            if let Ok(data) = frame.map_err(|e| chain(&e))?.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

impl Cluster {
    /// Sends a request to a workload. Any status is an answer.
    ///
    /// # Errors
    /// No answer arrived; whether the workload got the request is unknown.
    pub(crate) async fn forward(&self, forward: &Forward) -> Result<Forwarded, SendError> {
        let failed = |cause: String| SendError::NoAnswer { cause, tries: 1 };
        self.pace.take().await;
        let mut request = http::Request::builder()
            .method(forward.method.clone())
            .uri(&forward.path_and_query)
            .body(Body::from(forward.body.clone()))
            .map_err(|e| failed(format!("the request cannot be sent: {e}")))?;
        let headers = request.headers_mut();
        headers.extend(forward.headers.iter().cloned());
        // A body that was packed on the way could be neither redacted nor limited.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        self.sign(headers, forward.audit_id.as_deref())
            .map_err(|e| failed(format!("the request cannot be sent: {e}")))?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        let response = self
            .client
            .send(request)
            .await
            .map_err(|e| failed(chain(&e)))?;
        self.refusals.over();
        let (parts, body) = response.into_parts();
        Ok(Forwarded {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }

    /// The API server itself asked for quiet.
    pub(crate) fn heed(&self, headers: &HeaderMap) {
        if let Some(wait) = retry_after(headers) {
            self.pace.quiet(Instant::now(), wait);
        }
    }
}
