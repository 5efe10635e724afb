//! The classes, and the pods that fill the room.
//!
//! All but one have the low priority. That one has the priority of the pod to come, so it must stay; among at least two low ones the
//! youngest, which a scheduler would take first, has a PodDisruptionBudget.

use crate::manifest::{images, settings};
use crate::room::{Room, Unit};
use karat_sdk::build::PodBuilder;
use karat_sdk::wait::{self, Deadline};
use karat_sdk::{
    Case, Conclusion, Error, Object, Reason, Result, Target, Value, inventory, json, run,
};
use std::time::Duration;

/// Priority of the pods that may give way.
const LOW: i64 = -1000;
/// Priority of the pod to come, and of the one that must stay.
const HIGH: i64 = -900;
/// Grace period of the pods that fill the room, in seconds. Not the second that other pods of probes have: it must be told apart.
pub(crate) const GRACE: u32 = 7;
/// Label of the pod with a budget.
const GUARDED: &str = "priority-preemption/guarded";
/// How long admission may take to hear of a class.
const ADMISSION: Duration = Duration::from_secs(15);

/// Word for the names of the classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Low,
    High,
    Never,
}

impl Class {
    const ALL: [Class; 3] = [Class::Low, Class::High, Class::Never];

    fn word(self) -> &'static str {
        match self {
            Class::Low => "low",
            Class::High => "high",
            Class::Never => "never",
        }
    }

    fn value(self) -> i64 {
        match self {
            Class::Low => LOW,
            Class::High | Class::Never => HIGH,
        }
    }
}

/// One pod that fills the room.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Whether it may give way.
    pub(crate) low: bool,
    /// Whether a budget guards it.
    pub(crate) guarded: bool,
    /// The device it holds, as a position among the choices of the room.
    pub(crate) choice: Option<usize>,
}

/// The pods that fill the room.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) namespace: String,
    pub(crate) members: Vec<Member>,
    /// Name of the budget.
    pub(crate) budget: Option<String>,
}

impl Crew {
    pub(crate) fn pods(&self) -> Target {
        pods(&self.namespace)
    }

    /// The member that an object is.
    pub(crate) fn member(&self, pod: &Object) -> Option<&Member> {
        self.members.iter().find(|member| member.uid == pod.uid())
    }
}

pub(crate) fn pods(namespace: &str) -> Target {
    Target::new("v1", "pods").in_namespace(namespace)
}

/// Creates the three classes, and reads them again.
pub(crate) fn classes(case: &Case) -> Result<Conclusion> {
    let target = Target::new("scheduling.k8s.io/v1", "priorityclasses");
    for class in Class::ALL {
        let name = run::name(class.word());
        let policy = if class == Class::Never {
            "Never"
        } else {
            "PreemptLowerPriority"
        };
        target.create(&json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": class.value(), "preemptionPolicy": policy,
            "description": "only pods of one check of this run have it",
        }))?;
        let stored = target.query().get(&name)?;
        case.observe(&format!("uid of class {}", class.word()), stored.uid());
        if stored.at("/value").as_i64() != Some(class.value()) {
            return Ok(Conclusion::fail(format!(
                "a PriorityClass was created with the value {} and has the value {}",
                class.value(),
                stored.at("/value")
            )));
        }
        if stored.text("/preemptionPolicy") != policy {
            return Ok(Conclusion::fail(format!(
                "a PriorityClass was created with preemptionPolicy {policy} and has {}",
                stored.at("/preemptionPolicy")
            )));
        }
    }
    Ok(Conclusion::Pass)
}

/// A pod for the node, not yet created.
pub(crate) fn pod(room: &Room, name: &str, class: Class) -> Result<PodBuilder> {
    Ok(PodBuilder::tool(name, &run::image(images::PAUSE)?)
        .on(&room.node)
        .priority_class(&run::name(class.word()))
        .grace(GRACE))
}

/// The same with a share of what is competed for.
pub(crate) fn with_share(room: &Room, pod: PodBuilder, share: u64) -> PodBuilder {
    match &room.unit {
        Unit::Extended(resource) => {
            pod.extended_resource(resource, u32::try_from(share).unwrap_or(u32::MAX))
        }
        Unit::Cpu => pod.request("cpu", &format!("{share}m")),
    }
}

/// Creates a pod; again for a while when admission has not heard of its class yet.
pub(crate) fn create(namespace: &str, pod: &Value) -> Result<Object> {
    let deadline = Deadline::after(ADMISSION);
    loop {
        match pods(namespace).create(pod) {
            Err(Error::Answered(answer))
                if answer.code == 403
                    && answer.message.contains("no PriorityClass with name")
                    && !deadline.left().is_zero() =>
            {
                wait::sleep(Duration::from_millis(200))?;
            }
            other => return other,
        }
    }
}

/// The priority that admission gave a pod, if it is not the one of its class.
fn wrong_priority(pod: &Object, class: Class) -> Option<Conclusion> {
    let given = pod.at("/spec/priority");
    (given.as_i64() != Some(class.value())).then(|| {
        Conclusion::fail(format!(
            "a pod of the class with the value {} has the priority {given}",
            class.value()
        ))
    })
}

/// Creates the pods and waits until all run.
pub(crate) fn fill(
    case: &Case,
    room: &Room,
    namespace: &str,
    filled: &mut Option<Crew>,
) -> Result<Conclusion> {
    let many = room.shares.len();
    // With one unit there is nobody beside the victim.
    let stays = many > 1;
    let guards = many > 2;
    let mut crew = Crew {
        namespace: namespace.to_owned(),
        members: Vec::new(),
        budget: None,
    };
    if guards {
        let name = run::name("guard");
        Target::new("policy/v1", "poddisruptionbudgets").in_namespace(namespace).create(&json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
            "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {GUARDED: run::id()}}},
        }))?;
        crew.budget = Some(name);
    }
    let mut watch = crew.pods().query().watch()?;
    for (at, share) in room.shares.iter().enumerate() {
        let low = !(stays && at == 0);
        let class = if low { Class::Low } else { Class::High };
        let name = run::name(&format!("{}-{at}", if low { "low" } else { "equal" }));
        let guarded = guards && at + 1 == many;
        let mut builder = with_share(room, pod(room, &name, class)?, *share);
        let choice = room.devices.as_ref().and_then(|devices| {
            let at = at.checked_sub(usize::from(stays))?;
            Some((at, devices.version, devices.choices.get(at)?))
        });
        if let Some((_, version, choice)) = choice {
            choice.create_template(version, namespace, &name)?;
            builder = builder.claim_template(&name);
        }
        if guarded {
            builder = builder.label(GUARDED, &run::id());
        }
        let made = create(namespace, &builder.build())?;
        case.observe("pod", made.uid());
        if let Some(wrong) = wrong_priority(&made, class) {
            return Ok(wrong);
        }
        crew.members.push(Member {
            name: made.name().to_owned(),
            uid: made.uid().to_owned(),
            low,
            guarded,
            choice: choice.map(|(at, ..)| at),
        });
    }
    let patience = settings::POD_WAIT.get_or(Duration::from_secs(90))?;
    let mut running: Vec<String> = Vec::new();
    let all = watch.until(
        patience,
        "the start of the pods that fill the room",
        |pod| {
            crew.member(pod)?;
            match pod.text("/status/phase") {
                "Running" if !running.iter().any(|uid| uid == pod.uid()) => {
                    running.push(pod.uid().to_owned())
                }
                "Failed" | "Succeeded" => return Some(Err(pod.clone())),
                _ => {}
            }
            (running.len() == crew.members.len()).then_some(Ok(()))
        },
    );
    watch.close();
    match all {
        Ok(Ok(())) => {}
        Ok(Err(pod)) => {
            return Ok(Conclusion::unknown(
                Reason::Deadline,
                format!(
                    "{pod} ended as {}: {}",
                    pod.text("/status/phase"),
                    pod.text("/status/reason")
                ),
            ));
        }
        Err(error) if error.is_deadline() => return not_filled(room, &crew, &running),
        Err(error) => return Err(error),
    }
    case.observe("running", running.len());
    *filled = Some(crew);
    Ok(Conclusion::Pass)
}

/// Why the room was not filled: never a fail, because nothing says that these pods must run.
fn not_filled(room: &Room, crew: &Crew, running: &[String]) -> Result<Conclusion> {
    if let Some(change) = room.disturbed(&crew.namespace)? {
        return Ok(Conclusion::unknown(
            Reason::CompetingWorkload,
            format!("the room was not filled, and {change}; run again when the cluster is quieter"),
        ));
    }
    for member in crew
        .members
        .iter()
        .filter(|member| !running.contains(&member.uid))
    {
        let Some(pod) = crew.pods().query().get_opt(&member.name)? else {
            let text = format!("{} was removed by somebody else", member.name);
            return Ok(Conclusion::unknown(Reason::CompetingWorkload, text));
        };
        let waiting = inventory::waiting(&pod);
        if inventory::reason_of(waiting) == Reason::ImageUnavailable {
            return Ok(Conclusion::unknown(
                Reason::ImageUnavailable,
                format!("{pod}: {waiting}"),
            ));
        }
        if let Some(scheduled) = pod
            .condition("PodScheduled")
            .filter(|it| it.status == "False")
        {
            let text = format!(
                "{pod} does not fit where room was counted: {}",
                scheduled.message
            );
            return Ok(Conclusion::unknown(Reason::InsufficientCapacity, text));
        }
    }
    Ok(Conclusion::unknown(
        Reason::Deadline,
        "not all pods that fill the room run, and nothing says why",
    ))
}
