//! Why a call gave no result, and what that says about the platform.
//!
//! Who refused matters. Only [`Error::Answered`] is a word of the API server; a refusal of the door, a lost answer or an
//! ended budget says nothing about the platform and must never become a `fail`. [`Error::is_about_platform`] draws that line.

use crate::admission::Refuser;
use crate::case::{Conclusion, Reason};
use std::fmt;
use std::time::Duration;

/// A result of the SDK.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the API server said when it did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status code.
    pub code: u16,
    /// Kubernetes' own word, `status.reason`: `NotFound`, `Conflict`, `Invalid`; empty when the body is no Status.
    pub reason: String,
    /// The message for people. Text of the cluster: never trust its form.
    pub message: String,
    /// The whole body, a `meta/v1 Status` in JSON where the server sent one.
    pub body: String,
}

/// Why a call gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The door refused: no permission, a guard, a rule of the contract. The text names the line that would grant it.
    Refused(String),
    /// The server answered with an error.
    Answered(Answer),
    /// No answer arrived. Whether a write took effect is unknown.
    NoAnswer(String),
    /// A cursor or watch lost its place; open it again.
    Expired,
    /// A budget of the manifest is used up; the text names it.
    Budget(String),
    /// The run is ending; return as soon as you can.
    Stopping,
    /// The request made no sense: a bad name, selector, path or JSON text.
    Malformed(String),
    /// Something waited for did not happen in time.
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// The server cannot give a log or run a command: the pod is gone, its container has not started, its node does not answer, or
    /// we may not. It says nothing about what the container would have said.
    Unreachable(Answer),
    /// An answer has not the form that its API documents; the text says which field is missing or odd.
    Unexpected(String),
    /// The cluster serves only versions that the probe does not know.
    VersionSkew(String),
    /// This cluster never has what a lease asks for; the text says what is missing.
    Unavailable(String),
    /// A node does not get an image of a pod that was waited for; the text has the kubelet's message.
    ImageUnavailable(String),
    /// Others of the run held what a lease asks for until the time was up; the text says who.
    Busy(String),
}

impl Error {
    fn answered(&self, code: u16, reason: &str) -> bool {
        matches!(self, Error::Answered(answer) | Error::Unreachable(answer) if answer.code == code
            && (reason.is_empty() || answer.reason.is_empty() || answer.reason == reason))
    }

    /// The server says that the object, or the resource, is not there (404).
    pub fn is_not_found(&self) -> bool {
        self.answered(404, "")
    }

    /// Somebody changed the object since it was read (409 `Conflict`).
    pub fn is_conflict(&self) -> bool {
        self.answered(409, "Conflict")
    }

    /// The name is taken (409 `AlreadyExists`).
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Error::Answered(answer) if answer.code == 409 && answer.reason == "AlreadyExists")
    }

    /// The server's validation refused the object (422 `Invalid`).
    pub fn is_invalid(&self) -> bool {
        self.answered(422, "")
    }

    /// The API server forbade it (403): authorisation or an admission plug-in.
    pub fn is_forbidden(&self) -> bool {
        self.answered(403, "")
    }

    /// The door of Karat refused; the server was never asked.
    pub fn is_refused_by_door(&self) -> bool {
        matches!(self, Error::Refused(_))
    }

    /// A cursor or watch lost its place.
    pub fn is_expired(&self) -> bool {
        matches!(self, Error::Expired) || self.answered(410, "")
    }

    /// A budget of the manifest is used up.
    pub fn is_budget(&self) -> bool {
        matches!(self, Error::Budget(_))
    }

    /// The run is ending.
    pub fn is_stopping(&self) -> bool {
        matches!(self, Error::Stopping)
    }

    /// Something waited for did not happen in time.
    pub fn is_deadline(&self) -> bool {
        matches!(self, Error::Deadline { .. })
    }

    /// Whether the error is a statement of the platform about what was asked, so that it may prove a `fail`.
    ///
    /// True for answers of the 4xx range, without those that speak of credentials, load, time or other writers (401, 403, 408,
    /// 409, 410, 429) and without refusals of an admission webhook or policy, which speak of a rule of this cluster; true for
    /// answers of a wrong form.
    /// False for everything else: a server in trouble is no server that does not conform.
    pub fn is_about_platform(&self) -> bool {
        match self {
            Error::Answered(answer) => {
                (400..500).contains(&answer.code)
                    && !matches!(answer.code, 401 | 403 | 408 | 409 | 410 | 429)
                    && !is_rule_of_cluster(answer)
            }
            Error::Unexpected(_) => true,
            _ => false,
        }
    }

    /// Whether the probe must stop: there is no use in asking on.
    pub fn ends_the_probe(&self) -> bool {
        matches!(self, Error::Budget(_) | Error::Stopping)
    }

    /// What a case must conclude when this error ended it: never more than the error shows.
    pub fn conclusion(&self) -> Conclusion {
        if self.is_about_platform() {
            return Conclusion::Fail(self.to_string());
        }
        let reason = match self {
            Error::Refused(_) => Reason::PermissionDenied,
            Error::Answered(answer) | Error::Unreachable(answer)
                if matches!(answer.code, 401 | 403) =>
            {
                Reason::PermissionDenied
            }
            // A policy of the cluster refused what the probe needs; whoever runs it can make an exception.
            Error::Answered(answer) if is_rule_of_cluster(answer) => Reason::PermissionDenied,
            Error::Answered(answer) if answer.code == 409 => Reason::CompetingWorkload,
            Error::VersionSkew(_) => Reason::VersionSkew,
            Error::Unavailable(_) => Reason::InsufficientCapacity,
            Error::Busy(_) => Reason::CompetingWorkload,
            Error::ImageUnavailable(_) => Reason::ImageUnavailable,
            _ => Reason::Deadline,
        };
        Conclusion::Unknown(reason, self.to_string())
    }
}

fn is_rule_of_cluster(answer: &Answer) -> bool {
    matches!(answer.refuser(), Refuser::Webhook | Refuser::Policy)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused(text) => write!(f, "refused by karat: {text}"),
            Error::Answered(answer) => write!(
                f,
                "the server answered {} {}: {}",
                answer.code, answer.reason, answer.message
            ),
            Error::Unreachable(answer) => write!(
                f,
                "no log or command can be had: the server answered {} {}: {}",
                answer.code, answer.reason, answer.message
            ),
            Error::NoAnswer(text) => write!(f, "no answer from the server: {text}"),
            Error::Expired => f.write_str("a list or watch lost its place"),
            Error::Budget(text) => write!(f, "budget used up: {text}"),
            Error::Stopping => f.write_str("the run is ending"),
            Error::Malformed(text) => write!(f, "malformed request: {text}"),
            Error::Deadline { what, after } => {
                let (seconds, millis) = (after.as_secs(), after.subsec_millis());
                if seconds > 0 {
                    write!(f, "{what} did not happen within {seconds} s")
                } else {
                    write!(f, "{what} did not happen within {millis} ms")
                }
            }
            Error::Unexpected(text) => write!(f, "unexpected answer: {text}"),
            Error::VersionSkew(text) => f.write_str(text),
            Error::Unavailable(text) => write!(f, "not available in this cluster: {text}"),
            Error::ImageUnavailable(text) => write!(f, "no image for {text}"),
            Error::Busy(text) => write!(f, "held by others of this run: {text}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::Unexpected(format!("not the expected JSON: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, reason: &str, message: &str) -> Error {
        Error::Answered(Answer {
            code,
            reason: reason.into(),
            message: message.into(),
            body: String::new(),
        })
    }

    #[test]
    fn a_server_in_trouble_is_never_a_fail() {
        for error in [
            answer(500, "InternalError", "etcd"),
            answer(503, "ServiceUnavailable", ""),
            answer(429, "TooManyRequests", ""),
            answer(401, "Unauthorized", ""),
            answer(409, "Conflict", ""),
            answer(403, "Forbidden", ""),
            answer(400, "", "admission webhook \"a.b\" denied the request"),
            answer(
                422,
                "Invalid",
                "pods \"p\" is forbidden: ValidatingAdmissionPolicy 'a' with binding 'b' denied request: no",
            ),
            Error::NoAnswer("reset".into()),
            Error::Refused("line 3".into()),
            Error::Expired,
            Error::Unavailable("2 nodes".into()),
            Error::Busy("held by another".into()),
            Error::ImageUnavailable("Pod a/b".into()),
            Error::Unreachable(Answer {
                code: 404,
                reason: "NotFound".into(),
                message: String::new(),
                body: String::new(),
            }),
        ] {
            assert!(
                matches!(error.conclusion(), Conclusion::Unknown(..)),
                "{error}"
            );
        }
    }

    #[test]
    fn a_clear_answer_is() {
        for error in [
            answer(404, "NotFound", ""),
            answer(405, "", ""),
            answer(422, "Invalid", ""),
        ] {
            assert!(matches!(error.conclusion(), Conclusion::Fail(_)), "{error}");
        }
    }

    #[test]
    fn the_two_kinds_of_409_are_kept_apart() {
        assert!(answer(409, "AlreadyExists", "").is_already_exists());
        assert!(!answer(409, "AlreadyExists", "").is_conflict());
        assert!(answer(409, "Conflict", "").is_conflict());
    }
}
