//! The few typed requests that the engine itself makes: inventory, sandboxes, clean-up. Not for probes.

use super::{Cluster, HttpAnswer, Method, Request, SendError, status_of};
use serde_json::{Value, json};

/// Why an engine call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The server answered with an error.
    #[error("{path}: {code} {reason}: {message}")]
    Answered {
        /// What was asked.
        path: String,
        /// HTTP status.
        code: u16,
        /// `status.reason`.
        reason: String,
        /// `status.message`, or the start of the body.
        message: String,
    },
    /// No usable answer.
    #[error("{path}: {cause}")]
    NoAnswer {
        /// What was asked.
        path: String,
        /// What happened.
        cause: SendError,
    },
    /// The answer is no JSON.
    #[error("{path}: the answer is no JSON: {cause}")]
    NotJson {
        /// What was asked.
        path: String,
        /// What is wrong.
        cause: String,
    },
}

impl ApiError {
    /// The HTTP status, if the server answered.
    pub fn code(&self) -> Option<u16> {
        match self {
            ApiError::Answered { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the server said that the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the server forbade the call.
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// Whether a conflict was reported, for instance a name that exists or a uid that differs.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }
}

impl Cluster {
    /// Sends and insists on a 2xx answer in JSON.
    ///
    /// # Errors
    /// Any other answer, or none.
    pub async fn send_json(&self, request: &Request) -> Result<Value, ApiError> {
        let path = || format!("{} {}", request.method.as_str(), request.path_and_query);
        let answer = self
            .send(request)
            .await
            .map_err(|cause| ApiError::NoAnswer {
                path: path(),
                cause,
            })?;
        if !(200..300).contains(&answer.code) {
            return Err(answered(path(), &answer));
        }
        serde_json::from_slice(&answer.body).map_err(|e| ApiError::NotJson {
            path: path(),
            cause: e.to_string(),
        })
    }

    /// Reads one object or document.
    ///
    /// # Errors
    /// As [`Cluster::send_json`]; a missing object is `Answered` with 404.
    pub async fn get_json(&self, path: &str) -> Result<Value, ApiError> {
        self.send_json(&Request::get(path)).await
    }

    /// Reads one object, none when the server says it is not there.
    ///
    /// # Errors
    /// As [`Cluster::send_json`].
    pub async fn find_json(&self, path: &str) -> Result<Option<Value>, ApiError> {
        match self.get_json(path).await {
            Ok(value) => Ok(Some(value)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Creates an object below a collection's path (which may have a query such as `?dryRun=All`).
    ///
    /// # Errors
    /// As [`Cluster::send_json`]; a taken name is `Answered` with 409.
    pub async fn create_json(&self, path: &str, object: &Value) -> Result<Value, ApiError> {
        let body = object.to_string().into_bytes();
        self.send_json(&Request::with_body(Method::Post, path, body))
            .await
    }

    /// Changes an object by an RFC 7386 merge patch.
    ///
    /// # Errors
    /// As [`Cluster::send_json`].
    pub async fn merge_json(&self, path: &str, patch: &Value) -> Result<Value, ApiError> {
        let mut request = Request::with_body(Method::Patch, path, patch.to_string().into_bytes());
        request.content_type = "application/merge-patch+json";
        self.send_json(&request).await
    }

    /// Deletes the object that has this uid; another object of the same name stays. True when the server accepted,
    /// false when nothing with this uid is there any more.
    ///
    /// # Errors
    /// As [`Cluster::send_json`].
    pub async fn delete_uid(&self, path: &str, uid: &str) -> Result<bool, ApiError> {
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "preconditions": {"uid": uid}, "propagationPolicy": "Background",
        });
        let body = options.to_string().into_bytes();
        match self
            .send_json(&Request::with_body(Method::Delete, path, body))
            .await
        {
            Ok(_) => Ok(true),
            Err(e) if e.is_not_found() || e.is_conflict() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// All objects of a collection in consistent pages of 500, with `apiVersion` and `kind` as far as the server gives
    /// them. `query` holds further parameters, already encoded: `labelSelector=…`.
    ///
    /// # Errors
    /// As [`Cluster::send_json`].
    pub async fn list_json(&self, path: &str, query: &str) -> Result<Vec<Value>, ApiError> {
        let mut items = Vec::new();
        let mut next = String::new();
        let mut restarts = 0;
        loop {
            let mut address = format!("{path}?limit=500");
            for (key, value) in [("", query), ("continue=", next.as_str())] {
                if !value.is_empty() {
                    address.push('&');
                    address.push_str(key);
                    address.push_str(value);
                }
            }
            let mut page = match self.get_json(&address).await {
                Ok(page) => page,
                // The list grew too old between two pages: begin again rather than mix two states.
                Err(e) if e.code() == Some(410) && !next.is_empty() && restarts < 3 => {
                    restarts += 1;
                    items.clear();
                    next.clear();
                    continue;
                }
                Err(e) => return Err(e),
            };
            if let Value::Array(found) = page["items"].take() {
                items.extend(found);
            }
            match page["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => next = encode(token),
                _ => return Ok(items),
            }
        }
    }
}

/// Percent-encodes a query value or path segment: everything but RFC 3986's unreserved characters.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&data_encoding::HEXUPPER.encode(&[byte]));
        }
    }
    out
}

fn answered(path: String, answer: &HttpAnswer) -> ApiError {
    let (reason, mut message) = status_of(&answer.body);
    if message.is_empty() {
        message = String::from_utf8_lossy(&answer.body)
            .chars()
            .take(300)
            .collect();
    }
    ApiError::Answered {
        path,
        code: answer.code,
        reason,
        message,
    }
}
