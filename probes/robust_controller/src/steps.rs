//! What is done with an operator: a valid object and a flawed one are created, a child is deleted, the object is edited and deleted.

use karat_sdk::admission::{Refuser, create_patiently, is_unasked};
use karat_sdk::inventory::{self, all_pulled};
use karat_sdk::kube::{PatchKind, wait_for_beside};
use karat_sdk::leases::LeasedNode;
use karat_sdk::wait::{self, Deadline};
use karat_sdk::{
    Case, CaseId, Conclusion, Error, Object, Query, Reason, Result, Target, Value, run,
};
use std::cell::Cell;
use std::time::Duration;

use crate::installed::Installed;
use crate::manifest::{cases, settings};

/// How long a webhook that does not answer is asked again.
const ANSWER: Duration = Duration::from_secs(20);
/// How long it may take a webhook to hear of an object that another one refers to.
const HEARD: Duration = Duration::from_secs(10);
/// Between two looks.
const REST: Duration = Duration::from_secs(1);
/// What is looked at below an object.
const SEEN: &[&str] = &[
    "/metadata/ownerReferences",
    "/metadata/deletionTimestamp",
    "/spec/suspend",
    "/spec/replicas",
];

/// All that need a node for the pods of the objects, the first one first.
pub(crate) const STEPS: [CaseId; 5] = [
    cases::ACCEPTED,
    cases::REJECTS,
    cases::RECONCILES,
    cases::HEALS,
    cases::CLEANS,
];

/// The steps, with what they need.
pub(crate) struct Steps<'a> {
    found: &'a Installed,
    namespace: String,
    /// Where its pods lie.
    nodes: Vec<LeasedNode>,
    /// The valid object that stays.
    name: String,
    /// The one that comes to an end.
    short: String,
    /// Whether there is one.
    has_short: Cell<bool>,
    reconcile: Duration,
    heal: Duration,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(
        found: &'a Installed,
        namespace: String,
        nodes: &[LeasedNode],
    ) -> Result<Self> {
        Ok(Steps {
            found,
            namespace,
            nodes: nodes.to_vec(),
            name: run::name("valid"),
            short: run::name("short"),
            has_short: Cell::new(false),
            reconcile: settings::RECONCILE_WAIT.get_or(Duration::from_secs(180))?,
            heal: settings::HEAL_WAIT.get_or(Duration::from_secs(60))?,
        })
    }

    /// All of them, as far as each rests on the one before.
    pub(crate) fn take(&self) -> Result<()> {
        let mut stored = None;
        let said = cases::ACCEPTED.check("", |case| self.accepted(case, &mut stored))?;
        let Some(stored) = stored.filter(|_| said.is_pass()) else {
            return said.leaves_untried(&STEPS[1..]);
        };
        cases::REJECTS.check("", |case| self.rejects(case))?;
        let said = cases::RECONCILES.check("", |case| self.reconciles(case, &stored))?;
        if said.is_pass() {
            let said = cases::HEALS.check("", |case| self.heals(case, &stored))?;
            if said.is_pass() {
                cases::FOLLOWS.check("", |case| self.follows(case, &stored))?;
            }
        } else {
            said.leaves_untried(&[cases::HEALS])?;
        }
        cases::CLEANS.check("", |case| self.cleans(case, &stored))?;
        Ok(())
    }

    /// A resource of the operator.
    fn resource(&self, resource: &str) -> Target {
        let group = self.found.operator.text("group");
        let version = format!("{group}/{}", self.found.version());
        Target::new(&version, resource).in_namespace(&self.namespace)
    }

    fn target(&self) -> Target {
        self.resource(self.found.operator.text("resource"))
    }

    /// Creates, again and again while the operator's own webhook cannot be called.
    fn create(&self, target: &Target, object: &Value) -> Result<Object> {
        create_patiently(target, object, ANSWER, |said| self.found.is_mine(said))
    }

    /// Creates a valid object, and before it what it refers to; none where the operator has no such object.
    fn make(&self, which: &str, name: &str) -> Result<Option<Object>> {
        let operator = &self.found.operator;
        let version = self.found.version();
        let Some(object) = operator.object(which, version, name, &self.nodes)? else {
            return Ok(None);
        };
        let first = operator.first(which, version, name, &self.nodes)?;
        if let Some(first) = &first {
            self.create(&self.resource(operator.first_resource()), first)?;
        }
        let deadline = Deadline::after(HEARD);
        loop {
            match self.create(&self.target(), &object) {
                // Its webhook hears of the first object a moment after the server has it.
                Err(Error::Answered(answer))
                    if first.is_some()
                        && !is_unasked(&answer)
                        && self.found.is_mine(&answer.message)
                        && !deadline.left().is_zero() =>
                {
                    wait::sleep(REST)?;
                }
                other => return other.map(Some),
            }
        }
    }

    fn accepted(&self, case: &Case, stored: &mut Option<Object>) -> Result<Conclusion> {
        match self.make("lasting", &self.name) {
            Ok(None) => Ok(Conclusion::unknown(
                Reason::VersionSkew,
                "this probe has no object for the operator",
            )),
            Ok(Some(object)) => {
                case.observe("object", object.uid());
                *stored = Some(object);
                Ok(Conclusion::Pass)
            }
            // A server that could not ask says nothing about what the answer would have been.
            Err(Error::Answered(answer)) if is_unasked(&answer) => {
                Ok(Conclusion::unknown(Reason::Deadline, answer.message))
            }
            Err(Error::Answered(answer)) if self.found.is_mine(&answer.message) => {
                Ok(Conclusion::fail(format!(
                    "the operator's own webhook lets no valid object through: {}",
                    answer.message
                )))
            }
            Err(error) => Err(error),
        }
    }

    fn rejects(&self, case: &Case) -> Result<Conclusion> {
        let operator = &self.found.operator;
        case.observe("flaw", operator.text("flaw-says"));
        let name = run::name("flawed");
        let Some(object) = operator.flawed(self.found.version(), &name, &self.nodes)? else {
            return Ok(Conclusion::unknown(
                Reason::VersionSkew,
                "this probe knows no flaw for the operator",
            ));
        };
        match self.create(&self.target(), &object) {
            Ok(_) => {
                // Nobody shall work on it.
                self.target().discard(&name, None)?;
                Ok(Conclusion::fail(format!(
                    "{} was accepted: nobody looked at it",
                    operator.text("flaw-says")
                )))
            }
            Err(Error::Answered(answer)) if is_unasked(&answer) => {
                Ok(Conclusion::unknown(Reason::Deadline, answer.message))
            }
            Err(Error::Answered(answer)) if self.found.is_mine(&answer.message) => {
                case.observe("refusal", answer.message);
                Ok(Conclusion::Pass)
            }
            // The flaw was to be one that nobody else sees.
            Err(Error::Answered(answer)) if answer.refuser() == Refuser::Other => {
                Ok(Conclusion::unknown(
                    Reason::VersionSkew,
                    format!(
                        "it was refused, and not by the operator's webhook: {}",
                        answer.message
                    ),
                ))
            }
            Err(error) => Err(error),
        }
    }

    /// The children of the valid object, which say by their owner reference that they are.
    fn children(&self, owner: &Object) -> Result<Vec<Object>> {
        let (version, resource, _) = self.found.operator.child();
        let all = Query::new(version, resource)
            .in_namespace(&self.namespace)
            .keep(SEEN)
            .list()?;
        let mut mine = all;
        mine.retain(|child| child.is_owned_by(owner.uid()));
        Ok(mine)
    }

    fn reconciles(&self, case: &Case, stored: &Object) -> Result<Conclusion> {
        let operator = &self.found.operator;
        let (_, resource, count) = operator.child();
        let what = format!("{count} {resource} that belong to the valid object");
        let made = wait::poll(REST, self.reconcile, &what, || {
            let made = self.children(stored)?;
            Ok((made.len() >= count).then_some(made))
        });
        let made = match made {
            Ok(made) => made,
            Err(error) if error.is_deadline() => return Ok(Conclusion::fail(error.to_string())),
            Err(error) => return Err(error),
        };
        for child in &made {
            case.observe(resource, child.uid());
        }
        // What shall come to an end is another object, so that the first one keeps its children.
        let ends = match self.make("short", &self.short)? {
            Some(_) => {
                self.has_short.set(true);
                &self.short
            }
            None => &self.name,
        };
        let (success, failure) = (operator.text("success"), operator.text("failure"));
        let query = self.target().query();
        let what = format!("condition {success} of the valid object");
        let ended = |object: &Object| {
            let is = |kind: &str| {
                let condition = object.condition(kind)?;
                (condition.status == "True").then(|| condition.message.to_owned())
            };
            is(success).map(Ok).or_else(|| is(failure).map(Err))
        };
        // Whoever made them, only pods of this probe are here.
        let pods = Query::new("v1", "pods").in_namespace(&self.namespace);
        let pods = pods.keep(inventory::SEEN);
        let pulled = || all_pulled(&pods.list()?);
        let said = wait_for_beside(&query, ends, self.reconcile, &what, ended, pulled);
        Ok(match said {
            Ok(Ok(_)) => {
                case.observe("final state", success);
                Conclusion::Pass
            }
            Ok(Err(said)) => Conclusion::unknown(
                Reason::InsufficientCapacity,
                format!("the operator says {failure}: {said}"),
            ),
            // Children without an end may lack room.
            Err(error) if error.is_deadline() => {
                Conclusion::unknown(Reason::Deadline, error.to_string())
            }
            Err(error) => return Err(error),
        })
    }

    /// What is deleted below the object (`delete`), or comes back (`returns`): by label, or all its children.
    fn below(&self, part: &str, owner: &Object) -> Result<Vec<Object>> {
        let selector = self.found.operator.heal(part, &self.name);
        if selector.is_empty() {
            return self.children(owner);
        }
        let found = self.healing().query().labels(selector).keep(SEEN);
        found.list()
    }

    /// The resource of what is deleted below the object.
    fn healing(&self) -> Target {
        let operator = &self.found.operator;
        let part = |part: &str| operator.heal(part, &self.name);
        let (version, resource) = (part("api-version"), part("resource"));
        let target = if resource.is_empty() {
            let (version, resource, _) = operator.child();
            Target::new(version, resource)
        } else {
            Target::new(&version, &resource)
        };
        target.in_namespace(&self.namespace)
    }

    fn heals(&self, case: &Case, stored: &Object) -> Result<Conclusion> {
        let before = self.below("returns", stored)?;
        let Some(child) = self.below("delete", stored)?.into_iter().next() else {
            return Ok(Conclusion::unknown(
                Reason::Deadline,
                "there is nothing below the object that could be deleted",
            ));
        };
        case.observe("deleted", &child);
        case.observe("its uid", child.uid());
        self.healing().delete(child.name())?;
        let back = wait::poll(REST, self.heal, "that it comes back", || {
            let now = self.below("returns", stored)?;
            Ok(now.into_iter().find(|one| {
                one.at("/metadata/deletionTimestamp").is_null()
                    && before.iter().all(|old| old.uid() != one.uid())
            }))
        });
        match back {
            Ok(back) => {
                case.observe("came back as", back.uid());
                Ok(Conclusion::Pass)
            }
            Err(error) if error.is_deadline() => Ok(Conclusion::fail(format!(
                "what was deleted below the object did not come back within {} s",
                self.heal.as_secs()
            ))),
            Err(error) => Err(error),
        }
    }

    fn follows(&self, case: &Case, stored: &Object) -> Result<Conclusion> {
        let operator = &self.found.operator;
        case.observe("edit", operator.text("change-says"));
        self.target()
            .patch(&self.name, PatchKind::Merge, &operator.change())?;
        let seen = wait::poll(REST, self.heal, operator.text("change-says"), || {
            let now = self.children(stored)?;
            let all = !now.is_empty() && now.iter().all(|one| operator.has_followed(one.value()));
            Ok(all.then_some(now))
        });
        Ok(match seen {
            Ok(children) => {
                for child in &children {
                    case.observe("shown by", child.uid());
                }
                Conclusion::Pass
            }
            Err(error) if error.is_deadline() => Conclusion::fail(error.to_string()),
            Err(error) => return Err(error),
        })
    }

    fn cleans(&self, case: &Case, stored: &Object) -> Result<Conclusion> {
        let object = self.target().query().get(&self.name)?;
        case.observe("deleted", object.uid());
        self.target().delete(&self.name)?;
        if self.has_short.get() {
            self.target().discard(&self.short, None)?;
        }
        // Its operator holds on to it as long as it is in use, and is there now.
        let first = self.found.operator.first_resource();
        if !first.is_empty() {
            for name in [&self.name, &self.short] {
                self.resource(first).discard(name, None)?;
            }
        }
        let mut left = String::new();
        let gone = wait::poll(REST, self.heal, "the end of the object", || {
            let object = self.target().query().get_opt(&self.name)?;
            let children = self.children(stored)?.len();
            left = match &object {
                Some(object) => format!(
                    "it is still there, with finalizers {}, and {children} of its children",
                    object.at("/metadata/finalizers")
                ),
                None => format!("{children} of its children are still there"),
            };
            Ok((object.is_none() && children == 0).then_some(()))
        });
        Ok(match gone {
            Ok(()) => Conclusion::Pass,
            Err(error) if error.is_deadline() => Conclusion::fail(format!(
                "the object was deleted, and after {} s {left}",
                self.heal.as_secs()
            )),
            Err(error) => return Err(error),
        })
    }
}
