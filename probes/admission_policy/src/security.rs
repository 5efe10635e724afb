//! Pod Security: what reaches into the node is refused in a namespace of level `baseline`.
//!
//! Each attempt is the pod that was accepted just before, with a single flaw, so nothing else can be the reason.

use crate::manifest::cases;
use crate::objects::Objects;
use crate::other;
use karat_sdk::admission::Refuser;
use karat_sdk::{Answer, Case, Conclusion, Error, Reason, Result, Value, json};

/// Makes a pod reach into the node.
type Flaw = fn(&mut Value);

/// Where the flaw stands, as a JSON pointer. Gone after the pod was stored, the pod is harmless.
struct Attempt {
    prefix: &'static str,
    flaw: Flaw,
    at: &'static str,
}

/// Concludes the four cases.
pub(crate) fn check(objects: &Objects) -> Result<()> {
    cases::PLAIN_POD.check("", |case| {
        let pods = objects.pods();
        match pods.create(&objects.plain("plain")) {
            Ok(made) => {
                case.observe("uid", made.uid());
                pods.discard(made.name(), None)?;
                Ok(Conclusion::Pass)
            }
            Err(error) => other(error),
        }
    })?;
    let attempts = [
        (
            cases::PRIVILEGED,
            Attempt {
                prefix: "privileged",
                // Nothing else in the security context: privileged and no escalation contradict each other, and validation
                // would refuse the pod before Pod Security sees it.
                flaw: |spec| spec["containers"][0]["securityContext"] = json!({"privileged": true}),
                at: "/spec/containers/0/securityContext/privileged",
            },
        ),
        (
            cases::HOST_PATH,
            Attempt {
                prefix: "host-path",
                flaw: |spec| spec["volumes"] = json!([{"name": "host", "hostPath": {"path": "/"}}]),
                at: "/spec/volumes/0/hostPath/path",
            },
        ),
        (
            cases::HOST_NETWORK,
            Attempt {
                prefix: "host-network",
                flaw: |spec| spec["hostNetwork"] = json!(true),
                at: "/spec/hostNetwork",
            },
        ),
    ];
    for (id, attempt) in attempts {
        id.check("", |case| attempt.must_be_refused(case, objects))?;
    }
    Ok(())
}

impl Attempt {
    fn must_be_refused(&self, case: &Case, objects: &Objects) -> Result<Conclusion> {
        let pods = objects.pods();
        let mut pod = objects.plain(self.prefix);
        (self.flaw)(&mut pod["spec"]);
        let made = match pods.create(&pod) {
            Ok(made) => made,
            Err(Error::Answered(answer)) => return refused(case, answer),
            Err(error) => return Err(error),
        };
        case.observe("uid of what was accepted", made.uid());
        pods.discard(made.name(), None)?;
        // An injector may put a volume before ours, so all of them are looked at.
        let path = made.items("/spec/volumes");
        let still = path.iter().any(|volume| volume["hostPath"].is_object())
            || !matches!(made.at(self.at), Value::Null | Value::Bool(false));
        Ok(if still {
            Conclusion::fail(format!("{} was accepted", made.name()))
        } else {
            Conclusion::unknown(
                Reason::CompetingWorkload,
                format!(
                    "{} was accepted after something had taken the flaw out of it",
                    made.name()
                ),
            )
        })
    }
}

/// What a refusal shows. Whoever enforces it is welcome: Pod Security admission, a policy or a webhook of the platform.
fn refused(case: &Case, answer: Answer) -> Result<Conclusion> {
    let is_rule = match answer.refuser() {
        Refuser::PodSecurity | Refuser::Policy | Refuser::Webhook => true,
        // Another admission plug-in (403), or a server that allows privileged containers nowhere.
        Refuser::Other => {
            answer.code == 403 || answer.message.contains("disallowed by cluster policy")
        }
        Refuser::Authoriser | Refuser::Quota => false,
    };
    if !is_rule {
        return crate::policy::refused_otherwise(Error::Answered(answer));
    }
    case.observe("code", answer.code);
    case.observe("message", &answer.message);
    Ok(Conclusion::Pass)
}
