//! `admission_policy`: what breaks a rule is refused at admission, whoever creates it, and nothing else is.
//!
//! Read in this order: `policy` (the rules, and whether they are still as they were written), `objects` (what they are tried
//! on), `stored` (step 5 of the preparations), `direct` (pods that the probe creates), `controllers` (pods that controllers
//! create), `claims` (device classes), `security` (Pod Security), `reports` (what informs and decides nothing). `README.md` says
//! what a pass is worth.
//!
//! No pod of this probe ever runs: each carries a scheduling gate that nobody lifts. So a privileged pod that a broken
//! cluster accepts reaches no node.

mod claims;
mod controllers;
mod direct;
mod objects;
mod policy;
mod reports;
mod security;
mod stored;

#[cfg(test)]
mod tests;

karat_sdk::manifest!();

use karat_sdk::{Conclusion, Error, Probe, Reason, Result, not_tried, run};
use manifest::{cases, namespaces};
use objects::Objects;

struct AdmissionPolicy;

impl Probe for AdmissionPolicy {
    fn check() -> Result<()> {
        let objects = Objects::new(run::namespace(namespaces::MAIN)?)?;
        let found = stored::check(&objects)?;
        match &found.policy {
            Some(policy) => {
                direct::check(&objects, policy)?;
                controllers::check(&objects, policy)?;
                claims::check(&objects, found.discovery.as_ref())?;
            }
            None => nothing_to_enforce()?,
        }
        security::check(&objects)?;
        reports::check(&found)?;
        if let Some(policy) = found.policy {
            policy.remove()?;
        }
        Ok(())
    }
}

/// Without a policy the cases about it cannot be tried.
fn nothing_to_enforce() -> Result<()> {
    let untried = [
        cases::POD_ALLOWED,
        cases::POD_REFUSED,
        cases::FAIL_CLOSED,
        cases::JOB_ALLOWED,
        cases::JOB_REFUSED,
        cases::DEPLOYMENT_ALLOWED,
        cases::DEPLOYMENT_REFUSED,
    ];
    let why = "there is no ValidatingAdmissionPolicy to be enforced, see case `stored`";
    not_tried(&untried, Reason::SolutionAbsent, why)
}

/// What an error shows where the case is about something else than the answer: never a fail.
fn other(error: Error) -> Result<Conclusion> {
    if error.ends_the_probe() {
        return Err(error);
    }
    Ok(match error.conclusion() {
        Conclusion::Fail(text) => Conclusion::Unknown(Reason::VersionSkew, text),
        conclusion => conclusion,
    })
}

karat_sdk::probe!(AdmissionPolicy);
