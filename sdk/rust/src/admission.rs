//! Who refused a write: the authoriser, an admission policy, a webhook, Pod Security, a quota, or the server's own validation.
//!
//! All of them answer with 403 or 422, and only the message tells them apart. It matters: a probe that is about one of them
//! must not take the word of another, and a refusal by somebody's policy says nothing about the API. Messages are written for
//! people and may change; what is not recognised here is [`Refuser::Other`], never a guess.

use crate::error::{Answer, Error, Result};
use crate::kube::{Object, Query, Target};
use crate::wait::{self, Deadline};
use serde_json::Value;
use std::time::Duration;

/// Rest after the first try of an object that must be refused sooner or later. It doubles, since most rules are in force within
/// a second, and those that are not would fill the recording with accepted dry runs.
const FIRST_REST: Duration = Duration::from_millis(250);
/// The longest rest between two tries.
const LONGEST_REST: Duration = Duration::from_secs(4);

/// Who said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuser {
    /// The authoriser: the caller may not do this, whatever the object.
    Authoriser,
    /// A ValidatingAdmissionPolicy; [`Denial::parse`] gives its name.
    Policy,
    /// An admission webhook.
    Webhook,
    /// Pod Security admission.
    PodSecurity,
    /// A ResourceQuota or a LimitRange.
    Quota,
    /// Another admission plug-in, or validation.
    Other,
}

impl Answer {
    /// Who refused, as far as the message tells.
    pub fn refuser(&self) -> Refuser {
        Refuser::of(&self.message)
    }
}

impl Refuser {
    /// Reads the message of an answer, or of an event or condition that repeats one.
    pub fn of(message: &str) -> Refuser {
        let said = |word: &str| message.contains(word);
        // Policies first: their text is the author's and may hold every other word.
        if Denial::parse(message).is_some() {
            Refuser::Policy
        } else if said("admission webhook \"") {
            Refuser::Webhook
        } else if said("User \"")
            && said("\" cannot ")
            && (said(" resource \"") || said(" path \""))
        {
            Refuser::Authoriser
        } else if said("violates PodSecurity") {
            Refuser::PodSecurity
        } else if said("exceeded quota") || said("failed quota") || said("status unknown for quota")
        {
            Refuser::Quota
        } else {
            Refuser::Other
        }
    }
}

/// Whether a server said that it could not ask a webhook, which says nothing about what the answer would have been.
pub fn is_unasked(answer: &Answer) -> bool {
    answer.message.contains("failed calling webhook")
}

/// Whether a server refused an object because it has a field that the kind, in this version, does not.
pub fn is_unknown_field(error: &Error) -> bool {
    matches!(error, Error::Answered(answer) if answer.code == 400 && answer.message.contains("unknown field"))
}

/// Creates an object, again every two seconds while a webhook of whom it is about cannot be called; `mine` looks at the message.
///
/// # Errors
/// Those of the server and of the door; that of the webhook when `patience` is over.
pub fn create_patiently(
    target: &Target,
    object: &Value,
    patience: Duration,
    mine: impl Fn(&str) -> bool,
) -> Result<Object> {
    let deadline = Deadline::after(patience);
    loop {
        match target.create(object) {
            Err(Error::Answered(answer))
                if is_unasked(&answer) && mine(&answer.message) && !deadline.left().is_zero() =>
            {
                wait::sleep(Duration::from_secs(2))?;
            }
            other => return other,
        }
    }
}

/// A refusal by a ValidatingAdmissionPolicy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial<'a> {
    /// Name of the policy.
    pub policy: &'a str,
    /// Its own words.
    pub text: &'a str,
}

impl<'a> Denial<'a> {
    /// Reads a message of the API server, or of a controller that repeats one in an event or a condition.
    ///
    /// The form since Kubernetes 1.26: `… ValidatingAdmissionPolicy 'p' with binding 'b' denied request: text`.
    pub fn parse(message: &'a str) -> Option<Denial<'a>> {
        let (_, rest) = message.split_once("ValidatingAdmissionPolicy '")?;
        let (policy, rest) = rest.split_once('\'')?;
        let (_, text) = rest.split_once("denied request: ")?;
        Some(Denial { policy, text })
    }
}

/// How a wait for a refusal ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It was refused as wanted.
    Yes(Answer),
    /// Somebody else refused it all the time; this is the last answer.
    ByAnother(Answer),
    /// It was accepted to the end.
    Never,
}

/// Tries an object as dry runs until it is refused in the wanted way, or the deadline passes.
///
/// What enforces a policy learns of it some time after it was created: early acceptance shows nothing, so it is waited for. Dry
/// runs leave nothing behind, and the engine counts one as an attempt only when it is refused. Answers that say that the
/// server is busy are waited out as well.
///
/// # Errors
/// Those after which nothing can go on, and the last one when every try ended in one.
pub fn until_refused(
    target: &Target,
    object: &Value,
    deadline: Deadline,
    mut wanted: impl FnMut(&Answer) -> bool,
) -> Result<Refused> {
    let target = target.clone().dry_run();
    let mut rest = FIRST_REST;
    loop {
        let tried = match target.create(object) {
            Ok(_) => Ok(Refused::Never),
            Err(Error::Answered(answer)) if wanted(&answer) => return Ok(Refused::Yes(answer)),
            Err(Error::Answered(answer)) if matches!(answer.code, 400 | 403 | 422) => {
                Ok(Refused::ByAnother(answer))
            }
            Err(error) if error.ends_the_probe() || error.is_refused_by_door() => {
                return Err(error);
            }
            Err(error) => Err(error),
        };
        let left = deadline.left();
        if left.is_zero() {
            return tried;
        }
        wait::sleep(rest.min(left))?;
        rest = (rest * 2).min(LONGEST_REST);
    }
}

/// The events about one object, as a query to list or watch. They come from `events` of the core group, which the manifest
/// must ask for in this namespace.
pub fn events_about(namespace: &str, uid: &str) -> Query {
    Query::new("v1", "events")
        .in_namespace(namespace)
        .fields(format!("involvedObject.uid={uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusers_are_told_apart_by_what_the_server_says() {
        for (message, refuser) in [
            (
                "pods is forbidden: User \"probe\" cannot create resource \"pods\" in API group \"\" in the namespace \"a\"",
                Refuser::Authoriser,
            ),
            (
                "pods \"p\" is forbidden: ValidatingAdmissionPolicy 'a' with binding 'b' denied request: no cost label",
                Refuser::Policy,
            ),
            (
                "Error creating: pods \"p-\" is forbidden: ValidatingAdmissionPolicy 'a' with binding 'b' denied request: violates PodSecurity",
                Refuser::Policy,
            ),
            (
                "admission webhook \"v.example\" denied the request: no",
                Refuser::Webhook,
            ),
            (
                "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": hostPath volumes (volume \"v\")",
                Refuser::PodSecurity,
            ),
            (
                "pods \"p\" is forbidden: exceeded quota: karat, requested: pods=1, used: pods=4, limited: pods=4",
                Refuser::Quota,
            ),
            (
                "Pod \"p\" is invalid: spec.containers[0].image: Required value",
                Refuser::Other,
            ),
            ("", Refuser::Other),
        ] {
            assert_eq!(Refuser::of(message), refuser, "{message}");
        }
    }

    #[test]
    fn the_name_of_a_policy_is_read_out_of_events_too() {
        let text = "Error creating: pods \"j-x\" is forbidden: ValidatingAdmissionPolicy 'cost-abcd2345' with binding 'c' denied request: it's missing";
        let denial = Denial::parse(text).unwrap();
        assert_eq!(
            (denial.policy, denial.text),
            ("cost-abcd2345", "it's missing")
        );
        let unbound =
            "ValidatingAdmissionPolicy 'cost' denied request: failed to configure policy: x";
        assert_eq!(Denial::parse(unbound).unwrap().policy, "cost");
        assert_eq!(
            Denial::parse("Validation failed for ValidatingAdmissionPolicy 'cost' with binding"),
            None
        );
    }
}
