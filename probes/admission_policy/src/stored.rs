//! Whether the server takes a policy and keeps it as it is. All other cases about policies need one.

use crate::manifest::cases;
use crate::objects::{self, Objects, about_pods, pod_rules};
use crate::policy::{Policy, policies};
use karat_sdk::discovery::Discovery;
use karat_sdk::{Case, Conclusion, Object, Reason, Result, log};

/// What there is to look at.
pub(crate) struct Found {
    pub(crate) discovery: Option<Discovery>,
    /// None when there is nothing that could be enforced.
    pub(crate) policy: Option<Policy>,
    /// The policy with a mistake; its type check takes a while, so it is made early.
    pub(crate) flawed: Option<Object>,
}

/// Concludes the case, and waits until the policy is in force or should be.
pub(crate) fn check(objects: &Objects) -> Result<Found> {
    let mut found = Found {
        discovery: None,
        policy: None,
        flawed: None,
    };
    cases::STORED.check("", |case| stored(case, &mut found))?;
    if let Some(policy) = &found.policy {
        match policies().create(&objects::flawed()) {
            Ok(flawed) => found.flawed = Some(flawed),
            Err(error) if error.ends_the_probe() => return Err(error),
            Err(error) => log::warn(format!("no policy with a mistake: {error}")),
        }
        if policy
            .in_force(&objects.pods(), &objects.asking("wait", false))?
            .is_none()
        {
            log::warn("no dry run was refused by the policy in the time that it may take");
        }
    }
    Ok(found)
}

fn stored(case: &Case, found: &mut Found) -> Result<Conclusion> {
    let discovery = Discovery::read()?;
    let server = discovery.version().clone();
    found.discovery = Some(discovery);
    case.observe("server version", &server.git_version);
    let rules = pod_rules();
    let policy = match Policy::create(&about_pods(&rules)) {
        Ok(policy) => policy,
        Err(error) if error.is_not_found() => {
            return Ok(if server.at_least(1, 30) == Some(false) {
                Conclusion::unknown(
                    Reason::VersionSkew,
                    "ValidatingAdmissionPolicy is stable since Kubernetes 1.30, and this probe knows v1 only",
                )
            } else {
                case.observe("answer for ValidatingAdmissionPolicy v1", 404);
                Conclusion::fail(format!(
                    "ValidatingAdmissionPolicy v1 is not served: {error}"
                ))
            });
        }
        Err(error) => return Err(error),
    };
    case.observe("uid of the policy", policy.stored().uid());
    case.observe("uid of the binding", policy.binding().uid());
    let conclusion = match &policy.rewritten {
        None => Conclusion::Pass,
        Some(how) => Conclusion::fail(format!("stored otherwise than written: {how}")),
    };
    found.policy = Some(policy);
    Ok(conclusion)
}
