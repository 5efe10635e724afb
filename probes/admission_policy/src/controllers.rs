//! Pods that controllers create: nobody answers a Job or a Deployment that breaks a rule, so the refusal shows in what the
//! controller says and in the pod that does not come.

use crate::manifest::{cases, settings};
use crate::objects::{OF, Objects, breaks_cost};
use crate::other;
use crate::policy::Policy;
use karat_sdk::admission::{Refuser, events_about};
use karat_sdk::kube::{Event, Quiet, Watch};
use karat_sdk::wait::{self, Deadline};
use karat_sdk::{Case, CaseId, Conclusion, Object, Reason, Result, Target, run};
use std::time::Duration;

/// How long no pod must come after the refusal. As in the manifest.
const QUIET: Duration = Duration::from_secs(10);

struct Kind {
    allowed: CaseId,
    refused: CaseId,
    kind: &'static str,
    word: &'static str,
    target: Target,
}

/// Concludes the four cases.
pub(crate) fn check(objects: &Objects, policy: &Policy) -> Result<()> {
    let kinds = [
        Kind {
            allowed: cases::JOB_ALLOWED,
            refused: cases::JOB_REFUSED,
            kind: "Job",
            word: "job",
            target: objects.target("batch/v1", "jobs"),
        },
        Kind {
            allowed: cases::DEPLOYMENT_ALLOWED,
            refused: cases::DEPLOYMENT_REFUSED,
            kind: "Deployment",
            word: "deployment",
            target: objects.target("apps/v1", "deployments"),
        },
    ];
    for kind in &kinds {
        let allowed = kind
            .allowed
            .check("", |case| kind.must_have_a_pod(case, objects, policy))?;
        kind.refused.check("", |case| match &allowed {
            Conclusion::Pass => kind.must_have_none(case, objects, policy),
            _ => Ok(Conclusion::unknown(
                Reason::Deadline,
                format!(
                    "no {} got a pod that it may have, so its absence would show nothing",
                    kind.kind
                ),
            )),
        })?;
    }
    Ok(())
}

/// What came first.
enum Seen {
    Pod(Object),
    /// The controller says that a pod was refused.
    Said(String),
    Nothing,
}

impl Kind {
    /// The object that is being tried, with a watch over its pods that has seen what was there before.
    fn create(&self, objects: &Objects, prefix: &str, labelled: bool) -> Result<(Object, Watch)> {
        let mut pods = objects
            .pods()
            .query()
            .labels(format!("{OF}={}", run::name(prefix)))
            .watch()?;
        let delivery = Deadline::after(patience()?);
        while !matches!(pods.next(delivery)?, Some(Event::Synced) | None) {}
        let object = objects.workload(self.kind, prefix, labelled);
        Ok((self.target.create(&object)?, pods))
    }

    /// Where the controller says that a pod was refused.
    fn voice(&self, objects: &Objects, made: &Object) -> Result<Watch> {
        if self.kind == "Job" {
            return events_about(&objects.namespace, made.uid()).watch();
        }
        let name = format!("metadata.name={}", made.name());
        self.target.query().fields(name).watch()
    }

    /// Waits for a pod, or for a refusal that `counts`. Other refusals are kept in `last`.
    fn wait(
        &self,
        objects: &Objects,
        made: &Object,
        pods: &mut Watch,
        counts: impl Fn(&str) -> bool,
        last: &mut String,
    ) -> Result<Seen> {
        let mut voice = self.voice(objects, made)?;
        let deadline = Deadline::after(patience()?);
        loop {
            while let Some(event) = pods.poll()? {
                if let Some(pod) = event.present() {
                    return Ok(Seen::Pod(pod.clone()));
                }
            }
            while let Some(event) = voice.poll()? {
                let Some(text) = event.present().and_then(said) else {
                    continue;
                };
                if counts(text) {
                    voice.close();
                    return Ok(Seen::Said(text.to_owned()));
                }
                text.clone_into(last);
            }
            let left = deadline.left();
            if left.is_zero() {
                return Ok(Seen::Nothing);
            }
            wait::any(&[&pods.source(), &voice.source()], left)?;
        }
    }

    fn must_have_a_pod(
        &self,
        case: &Case,
        objects: &Objects,
        policy: &Policy,
    ) -> Result<Conclusion> {
        let prefix = format!("{}-good", self.word);
        let (made, mut pods) = match self.create(objects, &prefix, true) {
            Ok(created) => created,
            Err(error) => return other(error),
        };
        case.observe(&format!("uid of the {}", self.kind), made.uid());
        let mut last = String::new();
        let ours = |text: &str| policy.refused(text);
        let seen = self.wait(objects, &made, &mut pods, ours, &mut last)?;
        pods.close();
        self.target.discard(made.name(), None)?;
        Ok(match seen {
            Seen::Pod(pod) => {
                case.observe("uid of its pod", pod.uid());
                Conclusion::Pass
            }
            Seen::Said(text) => Conclusion::fail(format!(
                "the pod of {} satisfies the policy and was refused by it: {text}",
                made.name()
            )),
            Seen::Nothing => not_tried(&made, &last),
        })
    }

    fn must_have_none(
        &self,
        case: &Case,
        objects: &Objects,
        policy: &Policy,
    ) -> Result<Conclusion> {
        let mut prefix = format!("{}-bad", self.word);
        loop {
            let (made, mut pods) = match self.create(objects, &prefix, false) {
                Ok(created) => created,
                // That the object itself is refused is more than was asked, and says nothing about its pods.
                Err(error) => return other(error),
            };
            let mut last = String::new();
            let ours = |text: &str| policy.refused(text);
            let seen = self.wait(objects, &made, &mut pods, ours, &mut last)?;
            let slipped = match seen {
                Seen::Pod(pod) => pod,
                Seen::Said(text) => {
                    case.observe("refusal", &text);
                    match pods.quiet(QUIET, |_| true)? {
                        Quiet::Held => {
                            pods.close();
                            self.target.discard(made.name(), None)?;
                            return Ok(Conclusion::Pass);
                        }
                        Quiet::Broken(pod) => pod,
                        Quiet::Gap(why) => {
                            self.target.discard(made.name(), None)?;
                            return Ok(Conclusion::unknown(
                                Reason::Deadline,
                                format!("the watch over the pods lost continuity: {why}"),
                            ));
                        }
                    }
                }
                Seen::Nothing => {
                    self.target.discard(made.name(), None)?;
                    return Ok(not_tried(&made, &last));
                }
            };
            pods.close();
            case.observe("uid of the pod that came", slipped.uid());
            self.target.discard(made.name(), None)?;
            if !breaks_cost(&slipped) {
                return Ok(Conclusion::unknown(
                    Reason::CompetingWorkload,
                    "something changes pods on admission, so that this one breaks no rule any more",
                ));
            }
            // The controller may talk to another API server than this probe, which learns of the policy later.
            let again = format!("{}-again", self.word);
            if prefix != again && policy.wait_out()? {
                prefix = again;
                continue;
            }
            return policy.broken_by(&format!(
                "the {} made pod {} without the label",
                self.kind,
                slipped.name()
            ));
        }
    }
}

fn patience() -> Result<Duration> {
    settings::CONTROLLER_WAIT.get_or(Duration::from_secs(30))
}

/// What a controller says about a pod that was refused: in an event, or in the condition of a Deployment.
fn said(object: &Object) -> Option<&str> {
    if object.text("/kind") == "Event" {
        return (object.text("/reason") == "FailedCreate").then(|| object.text("/message"));
    }
    object
        .condition("ReplicaFailure")
        .filter(|condition| condition.status == "True")
        .map(|condition| condition.message)
}

/// Neither a pod nor a refusal by the policy.
fn not_tried(made: &Object, last: &str) -> Conclusion {
    if last.is_empty() {
        return Conclusion::unknown(
            Reason::Deadline,
            format!(
                "{made} got no pod, and no refusal was reported; is the controller manager running?"
            ),
        );
    }
    let reason = match Refuser::of(last) {
        Refuser::Quota => Reason::InsufficientCapacity,
        _ => Reason::PermissionDenied,
    };
    Conclusion::unknown(
        reason,
        format!("the pod was refused by something else: {last}"),
    )
}
