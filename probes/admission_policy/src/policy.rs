//! A ValidatingAdmissionPolicy with its binding: made, read back, and compared later.
//!
//! Which namespaces they concern is not written here: the door of Karat puts a selector on the probe's own namespaces into
//! both, whatever a probe asks for.

use crate::manifest::settings;
use crate::other;
use karat_sdk::admission::{self, Denial, Refused, Refuser};
use karat_sdk::build::from_text;
use karat_sdk::wait::{self, Deadline};
use karat_sdk::{
    Answer, Case, Conclusion, Error, Object, Reason, Result, Target, Value, json, run,
};
use std::time::Duration;

const API: &str = "admissionregistration.k8s.io/v1";

pub(crate) fn policies() -> Target {
    Target::new(API, "validatingadmissionpolicies")
}

fn bindings() -> Target {
    Target::new(API, "validatingadmissionpolicybindings")
}

/// What a policy says: about which resource, and the expressions that must hold.
pub(crate) struct Rules<'a> {
    pub(crate) word: &'a str,
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) resource: &'a str,
    /// Expression and message.
    pub(crate) validations: &'a [(String, &'a str)],
}

impl Rules<'_> {
    pub(crate) fn policy(&self) -> Value {
        let mut policy = from_text(
            r#"{
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{"operations": ["CREATE"]}]},
                "validations": []
            }
        }"#,
        );
        policy["metadata"]["name"] = json!(run::name(self.word));
        let rule = &mut policy["spec"]["matchConstraints"]["resourceRules"][0];
        for (key, value) in [
            ("apiGroups", self.group),
            ("apiVersions", self.version),
            ("resources", self.resource),
        ] {
            rule[key] = json!([value]);
        }
        policy["spec"]["validations"] = self
            .validations
            .iter()
            .map(|(expression, message)| {
                // Forbidden, because a refusal with 422 could be mistaken for one by the validation of the kind.
                json!({"expression": expression, "message": message, "reason": "Forbidden"})
            })
            .collect();
        policy
    }

    fn binding(&self) -> Value {
        let mut binding = from_text(
            r#"{
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {},
            "spec": {"validationActions": ["Deny"]}
        }"#,
        );
        binding["metadata"]["name"] = json!(run::name(self.word));
        binding["spec"]["policyName"] = json!(run::name(self.word));
        binding
    }
}

/// A policy in a cluster, with its binding.
pub(crate) struct Policy {
    policy: Object,
    binding: Object,
    /// Until then it may be accepted what the policy refuses.
    lag: Deadline,
    /// What was stored otherwise than it was written.
    pub(crate) rewritten: Option<String>,
}

impl Policy {
    /// Creates both, and reads them back.
    pub(crate) fn create(rules: &Rules<'_>) -> Result<Policy> {
        let sent = rules.policy();
        let name = policies().create(&sent)?.name().to_owned();
        bindings().create(&rules.binding())?;
        let lag = Deadline::after(settings::ACTIVATION_WAIT.get_or(Duration::from_secs(30))?);
        let policy = policies().query().get(&name)?;
        let binding = bindings().query().get(&name)?;
        let rewritten = rewritten(&sent, &policy, &binding);
        Ok(Policy {
            policy,
            binding,
            lag,
            rewritten,
        })
    }

    pub(crate) fn name(&self) -> &str {
        self.policy.name()
    }

    pub(crate) fn stored(&self) -> &Object {
        &self.policy
    }

    pub(crate) fn binding(&self) -> &Object {
        &self.binding
    }

    /// Whether a message says that this policy refused.
    pub(crate) fn refused(&self, message: &str) -> bool {
        Denial::parse(message).is_some_and(|denial| denial.policy == self.name())
    }

    /// Waits until the policy refuses this object, by dry runs; at most as long as it may take. Nothing is concluded from it:
    /// the cases try for themselves.
    pub(crate) fn in_force(&self, target: &Target, object: &Value) -> Result<Option<Answer>> {
        let wanted = |answer: &Answer| self.refused(&answer.message);
        match admission::until_refused(target, object, self.lag, wanted) {
            Ok(Refused::Yes(answer)) => Ok(Some(answer)),
            Ok(Refused::ByAnother(_) | Refused::Never) => Ok(None),
            Err(error) if error.ends_the_probe() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Waits for the rest of the time that the policy may take; false when it had passed.
    pub(crate) fn wait_out(&self) -> Result<bool> {
        let left = self.lag.left();
        if left.is_zero() {
            return Ok(false);
        }
        wait::sleep(left)?;
        Ok(true)
    }

    /// What is not any more as it was read back after its creation. A policy that somebody deleted enforces nothing, and that
    /// is no fault of the platform.
    fn tampered(&self) -> Result<Option<String>> {
        for (target, mine) in [(policies(), &self.policy), (bindings(), &self.binding)] {
            let present = target.query().get_opt(mine.name())?;
            let Some(present) = present.filter(|present| present.uid() == mine.uid()) else {
                return Ok(Some(format!("{mine} is gone")));
            };
            if present.at("/spec") != mine.at("/spec") {
                return Ok(Some(format!("{mine} was changed")));
            }
        }
        Ok(None)
    }

    /// What it means that something got through which the policy forbids, after the time that it may take.
    pub(crate) fn broken_by(&self, what: &str) -> Result<Conclusion> {
        Ok(match self.tampered()? {
            Some(how) => Conclusion::unknown(
                Reason::CompetingWorkload,
                format!("{what}, but somebody was at the policy meanwhile: {how}"),
            ),
            None => Conclusion::fail(format!(
                "{what}, although policy {} and its binding are stored unchanged and had their time",
                self.name()
            )),
        })
    }

    /// Creates what the policy must refuse. `breaks` tells whether an object that was accepted breaks the rule as it is
    /// stored.
    pub(crate) fn must_refuse(
        &self,
        case: &Case,
        target: &Target,
        object: &Value,
        breaks: impl Fn(&Object) -> bool,
    ) -> Result<Conclusion> {
        let mut early = false;
        loop {
            let made = match target.create(object) {
                Ok(made) => made,
                Err(Error::Answered(answer)) if self.refused(&answer.message) => {
                    case.observe("code", answer.code);
                    case.observe("message", &answer.message);
                    if !early {
                        return Ok(Conclusion::Pass);
                    }
                    // The engine would not take a pass from a case in which the same thing was accepted.
                    return Ok(Conclusion::unknown(
                        Reason::Deadline,
                        "a dry run was refused, the object then accepted, and later refused: the API servers do not know of the policy at the same time; run again",
                    ));
                }
                Err(error) => return refused_otherwise(error),
            };
            case.observe("uid of what was accepted", made.uid());
            target.discard(made.name(), None)?;
            if !breaks(&made) {
                return Ok(Conclusion::unknown(
                    Reason::CompetingWorkload,
                    format!(
                        "something changes objects on admission, so that {} breaks no rule any more",
                        made.name()
                    ),
                ));
            }
            if !early && self.wait_out()? {
                early = true;
                continue;
            }
            return self.broken_by(&format!("{} was accepted", made.name()));
        }
    }

    /// Deletes both, the binding first: a binding without its policy is harmless, the other way round it may not be.
    pub(crate) fn remove(&self) -> Result<()> {
        bindings().discard(self.binding.name(), None)?;
        policies().discard(self.policy.name(), None)
    }
}

/// What a refusal shows that is not the one that was wanted.
pub(crate) fn refused_otherwise(error: Error) -> Result<Conclusion> {
    let Error::Answered(answer) = &error else {
        return other(error);
    };
    let reason = match answer.refuser() {
        Refuser::Quota => Reason::InsufficientCapacity,
        Refuser::Policy | Refuser::Webhook | Refuser::PodSecurity => Reason::PermissionDenied,
        Refuser::Authoriser | Refuser::Other => return other(error),
    };
    Ok(Conclusion::unknown(
        reason,
        format!("refused by something else: {}", answer.message),
    ))
}

/// What of the policy or its binding was not kept. Additions are harmless.
fn rewritten(sent: &Value, policy: &Object, binding: &Object) -> Option<String> {
    let kept = policy.items("/spec/validations");
    for validation in sent["spec"]["validations"].as_array()? {
        let expression = &validation["expression"];
        if !kept.iter().any(|have| have["expression"] == *expression) {
            return Some("the policy lost an expression".to_owned());
        }
    }
    let failure = policy.text("/spec/failurePolicy");
    if failure != "Fail" {
        return Some(format!("failurePolicy Fail became {failure}"));
    }
    let rule = &sent["spec"]["matchConstraints"]["resourceRules"][0];
    let rules = policy.items("/spec/matchConstraints/resourceRules");
    let same = |have: &Value| {
        ["apiGroups", "apiVersions", "operations", "resources"]
            .iter()
            .all(|key| have[key] == rule[key])
    };
    if !rules.iter().any(same) {
        return Some("the policy lost its rule for the resource".to_owned());
    }
    let actions = binding.at("/spec/validationActions");
    if !binding
        .items("/spec/validationActions")
        .contains(&json!("Deny"))
    {
        return Some(format!("validationActions [\"Deny\"] became {actions}"));
    }
    if binding.text("/spec/policyName") != policy.name() {
        return Some("the binding names another policy".to_owned());
    }
    None
}
