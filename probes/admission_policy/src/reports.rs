//! What informs and decides nothing: the type check of policies, and whether mutating policies are served.
//!
//! A MutatingAdmissionPolicy is not made: the door of Karat lets no probe change what others create.

use crate::manifest::{cases, settings};
use crate::policy::policies;
use crate::stored::Found;
use karat_sdk::{Case, Conclusion, Object, Reason, Result, wait};
use std::time::Duration;

const GROUP: &str = "admissionregistration.k8s.io";
/// How often a status is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Concludes what there is to conclude.
pub(crate) fn check(found: &Found) -> Result<()> {
    if let (Some(policy), Some(flawed)) = (&found.policy, &found.flawed) {
        cases::TYPE_CHECKING.check("", |case| type_checking(case, policy.stored(), flawed))?;
        policies().discard(flawed.name(), None)?;
    }
    let Some(discovery) = &found.discovery else {
        return Ok(());
    };
    cases::MUTATING.check("", |case| {
        // Read again: a value that is shown must come from an answer of its own case.
        let discovery = karat_sdk::discovery::Discovery::read().unwrap_or_else(|_| discovery.clone());
        let served = discovery.versions(GROUP);
        let served = served.iter().find(|version| {
            discovery
                .resource(GROUP, version, "mutatingadmissionpolicies")
                .is_some()
        });
        Ok(match served {
            Some(version) => {
                case.observe("version", version);
                Conclusion::Pass
            }
            None => Conclusion::unknown(
                Reason::FeatureGateOff,
                "MutatingAdmissionPolicy is not served; it is on by default from Kubernetes 1.36 on",
            ),
        })
    })?;
    Ok(())
}

/// The policy once its present form was checked.
fn checked(policy: &Object) -> Result<Object> {
    let patience = settings::ACTIVATION_WAIT.get_or(Duration::from_secs(30))?;
    let what = format!("the type check of policy {}", policy.name());
    wait::poll(LOOK, patience, &what, || {
        let present = policies().query().get(policy.name())?;
        let seen = present.at("/status/observedGeneration").as_i64();
        Ok((seen.is_some() && seen >= present.generation()).then_some(present))
    })
}

fn type_checking(case: &Case, policy: &Object, flawed: &Object) -> Result<Conclusion> {
    const WARNINGS: &str = "/status/typeChecking/expressionWarnings";
    let policy = checked(policy)?;
    case.observe("resource version of the policy", policy.resource_version());
    if let Some(warning) = policy.items(WARNINGS).first() {
        return Ok(Conclusion::fail(format!(
            "the policy is right, and the type check says {}",
            warning["warning"]
        )));
    }
    let flawed = checked(flawed)?;
    match flawed.items(WARNINGS).first() {
        Some(warning) => {
            case.observe(
                "place of the mistake",
                warning["fieldRef"].as_str().unwrap_or_default(),
            );
            case.observe("warning", warning["warning"].as_str().unwrap_or_default());
            Ok(Conclusion::Pass)
        }
        None => Ok(Conclusion::fail(format!(
            "policy {} asks pods for a field that they do not have, and the type check says nothing",
            flawed.name()
        ))),
    }
}
