//! Pods that the probe creates itself.

use crate::manifest::cases;
use crate::objects::{Objects, breaks_cost, breaks_fragile};
use crate::policy::{Policy, refused_otherwise};
use karat_sdk::{Case, Conclusion, Error, Result, Target, Value};

/// Concludes the three cases. What must be accepted comes first, at a time when the policy refuses already.
pub(crate) fn check(objects: &Objects, policy: &Policy) -> Result<()> {
    let pods = objects.pods();
    cases::POD_ALLOWED.check("", |case| {
        for pod in [
            objects.asking("labelled", true),
            objects.plain("modest"),
            objects.fragile("found", true),
        ] {
            let conclusion = must_accept(case, policy, &pods, &pod)?;
            if !conclusion.is_pass() {
                return Ok(conclusion);
            }
        }
        Ok(Conclusion::Pass)
    })?;
    cases::POD_REFUSED.check("", |case| {
        let pod = objects.asking("unlabelled", false);
        policy.must_refuse(case, &pods, &pod, breaks_cost)
    })?;
    cases::FAIL_CLOSED.check("", |case| {
        let pod = objects.fragile("missing", false);
        policy.must_refuse(case, &pods, &pod, breaks_fragile)
    })?;
    Ok(())
}

/// Creates what satisfies the policy, and takes it away again.
pub(crate) fn must_accept(
    case: &Case,
    policy: &Policy,
    target: &Target,
    object: &Value,
) -> Result<Conclusion> {
    match target.create(object) {
        Ok(made) => {
            case.observe(&format!("uid of {}", made.name()), made.uid());
            target.discard(made.name(), None)?;
            Ok(Conclusion::Pass)
        }
        Err(Error::Answered(answer)) if policy.refused(&answer.message) => {
            Ok(Conclusion::fail(format!(
                "{} satisfies the policy and was refused by it: {}",
                object["metadata"]["name"], answer.message
            )))
        }
        Err(error) => refused_otherwise(error),
    }
}
