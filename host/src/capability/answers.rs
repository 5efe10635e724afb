//! Answers of workloads: what of a head is taken, whose words a failure is, and whole answers for those that read them here.

use super::target::{address, reachable};
use crate::cluster::{Forward, Forwarded};
use crate::gate::{Trouble, Wire};
use crate::recording::format::{Facts, Failure};
use http::HeaderMap;
use serde_json::Value;
use std::time::Duration;

/// Bytes of all headers of an answer that are kept.
const ANSWER_HEADERS_MAX: usize = 64 << 10;
/// Largest answer of [`fetch`].
const FETCH_MAX: usize = 8 << 20;

/// Why an answer is missing or broken off.
#[derive(Clone)]
pub(crate) enum Lost {
    /// The API server itself answered.
    Status(u16, Vec<u8>),
    /// Nobody answered, or not to the end.
    Silence(String),
}

impl From<&Lost> for Trouble {
    fn from(lost: &Lost) -> Trouble {
        match lost {
            Lost::Status(code, body) => Trouble::Answered(*code, body.clone()),
            Lost::Silence(cause) => Trouble::Foreign(Failure::NoAnswer(cause.clone())),
        }
    }
}

/// What of an answer's head cannot be taken.
pub(crate) fn check_head(answer: &Forwarded) -> Result<(), Lost> {
    let size: usize = answer
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if size > ANSWER_HEADERS_MAX {
        return Err(Lost::Silence(format!(
            "the answer has {size} bytes of headers; at most {ANSWER_HEADERS_MAX} are taken"
        )));
    }
    let packed = answer
        .headers
        .get_all("content-encoding")
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if packed {
        return Err(Lost::Silence(
            "the body is packed (Content-Encoding) although the request asked for `identity`; it is not unpacked".to_owned(),
        ));
    }
    Ok(())
}

pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get("content-type")
        .and_then(|kind| kind.to_str().ok())
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Whether an answer may be the API server's own.
pub(crate) fn may_be_status(answer: &Forwarded) -> bool {
    answer.code >= 400 && is_json(&answer.headers)
}

/// Whether a body is a failure of the API server, in the form that it gives all its failures.
pub(crate) fn is_status(code: u16, body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|status| {
        status["kind"] == "Status"
            && status["apiVersion"] == "v1"
            && status["status"] == "Failure"
            && status["code"] == code
    })
}

/// A whole answer of a workload, for those that read it here and give the guest something else.
pub(crate) struct Fetched {
    pub(crate) code: u16,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

/// One GET of a workload, whose access is that of the call, read whole.
pub(crate) async fn fetch(
    wire: &Wire,
    query: &str,
    accept: &'static str,
    within: Duration,
) -> Result<(Fetched, Facts), Trouble> {
    let (at, behind) = reachable(wire).await?;
    let forward = Forward {
        method: http::Method::GET,
        path_and_query: address(&at, query),
        headers: vec![(http::header::ACCEPT, http::HeaderValue::from_static(accept))],
        body: Vec::new(),
        audit_id: None,
    };
    let silence = |cause: String| Trouble::Foreign(Failure::NoAnswer(cause));
    let reading = async {
        let mut answer = wire.forward(forward).await?;
        check_head(&answer).map_err(|lost| Trouble::from(&lost))?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|cause| {
            silence(format!(
                "the body broke off after {} bytes: {cause}",
                body.len()
            ))
        })? {
            if body.len() + chunk.len() > FETCH_MAX {
                return Err(silence(format!(
                    "the body is larger than {FETCH_MAX} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        if may_be_status(&answer) && is_status(answer.code, &body) {
            if answer.code == 429 {
                wire.live.cluster.heed(&answer.headers);
            }
            return Err(Trouble::Answered(answer.code, body));
        }
        let content_type = answer.headers.get("content-type");
        let content_type = content_type.and_then(|kind| kind.to_str().ok());
        Ok(Fetched {
            code: answer.code,
            content_type: content_type.unwrap_or_default().to_owned(),
            body,
        })
    };
    let fetched = tokio::time::timeout(within, reading).await;
    let fetched = fetched.map_err(|_| {
        silence(format!(
            "the answer was not complete within {} s",
            within.as_secs()
        ))
    })??;
    Ok((fetched, behind))
}
