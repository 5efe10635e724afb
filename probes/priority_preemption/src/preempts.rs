//! The control: the same pod, allowed to displace, is bound because one of lower priority gave way. Pods of others are
//! watched all the while; the first one that is touched ends the check.

use crate::crew::{self, Class, Crew};
use crate::manifest::settings;
use crate::room::Room;
use crate::waits::is_touched;
use karat_sdk::kube::Event;
use karat_sdk::wait::{self, Deadline};
use karat_sdk::{Case, Conclusion, Reason, Result, inventory, run};
use std::time::Duration;

/// How long is looked on when the pod is bound: a scheduler that takes too many takes them at the same time, and their marks may come a
/// moment later.
const SETTLE: Duration = Duration::from_secs(3);

/// A pod of the crew that gave way.
#[derive(Clone, Debug)]
pub(crate) struct Victim {
    pub(crate) uid: String,
    /// `deletionGracePeriodSeconds` when it was first seen to go; none when it was gone at once.
    pub(crate) grace: Option<i64>,
    /// Reason of DisruptionTarget, empty without the condition.
    pub(crate) reason: String,
    pub(crate) gone: bool,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) victims: Vec<Victim>,
    /// Whether a watch lost continuity, so that steps may be missing.
    pub(crate) gap: bool,
    high: String,
    bound: String,
    said: String,
    foreign: Option<String>,
}

impl Seen {
    /// Notes an event of the run's own namespace.
    fn own(&mut self, event: &Event, crew: &Crew) {
        if let Event::Gap(_) = event {
            self.gap = true;
        }
        let (pod, gone) = match event {
            Event::Deleted(pod) => (pod, true),
            Event::Added(pod) | Event::Modified(pod) => (pod, false),
            _ => return,
        };
        if pod.uid() == self.high {
            self.bound = pod.text("/spec/nodeName").to_owned();
            if let Some(scheduled) = pod.condition("PodScheduled") {
                self.said = scheduled.message.to_owned();
                if self.said.is_empty() {
                    self.said = scheduled.status.to_owned();
                }
            }
            return;
        }
        if crew.member(pod).is_none() || !(gone || is_touched(pod)) {
            return;
        }
        let reason = pod
            .condition("DisruptionTarget")
            .map_or("", |target| target.reason)
            .to_owned();
        let grace = pod.at("/metadata/deletionGracePeriodSeconds").as_i64();
        match self
            .victims
            .iter_mut()
            .find(|victim| victim.uid == pod.uid())
        {
            Some(victim) => {
                // Whoever ends the containers removes the object with a grace of zero: only the first word counts.
                victim.grace = victim.grace.or(grace.filter(|_| !gone));
                victim.gone |= gone;
                if victim.reason.is_empty() {
                    victim.reason = reason;
                }
            }
            None => self.victims.push(Victim {
                uid: pod.uid().to_owned(),
                grace: grace.filter(|_| !gone),
                reason,
                gone,
            }),
        }
    }

    /// Notes a pod of others on the node that was preempted.
    fn other(&mut self, event: &Event, crew: &Crew) {
        let Some(pod) = event.present().or(event.deleted()) else {
            return;
        };
        let preempted = pod.condition("DisruptionTarget").is_some_and(|target| {
            target.status == "True" && target.reason == "PreemptionByScheduler"
        });
        if pod.namespace() != crew.namespace && preempted {
            self.foreign = Some(pod.to_string());
        }
    }
}

/// Creates the pod and follows what happens until it is bound.
pub(crate) fn check(
    case: &Case,
    room: &Room,
    crew: &Crew,
    out: &mut Option<Seen>,
) -> Result<Conclusion> {
    let patience = settings::PREEMPTION_WAIT.get_or(Duration::from_secs(120))?;
    let mut own = crew.pods().query().watch()?;
    let mut there = inventory::on(&room.node.name)
        .keep(&[
            "/metadata/deletionTimestamp",
            "/spec/nodeName",
            "/spec/priority",
            "/status/conditions",
        ])
        .watch()?;
    // What was preempted before is nobody's fault here: only what comes after this read counts.
    let before = synced(&mut there)?;
    let name = run::name("high");
    let body = crew::with_share(room, crew::pod(room, &name, Class::High)?, room.asked()).build();
    let pod = crew::create(&crew.namespace, &body)?;
    case.observe("pod", pod.uid());
    let mut seen = Seen {
        high: pod.uid().to_owned(),
        ..Seen::default()
    };
    let mut deadline = Deadline::after(patience);
    let mut settling = false;
    while seen.foreign.is_none() {
        let mut news = false;
        while let Some(event) = own.poll()? {
            seen.own(&event, crew);
            news = true;
        }
        while let Some(event) = there.poll()? {
            let known = event
                .present()
                .is_some_and(|pod| before.iter().any(|uid| uid == pod.uid()));
            if !known {
                seen.other(&event, crew);
            }
            news = true;
        }
        if !settling && !seen.bound.is_empty() {
            settling = true;
            deadline = Deadline::after(SETTLE);
        }
        let left = deadline.left();
        if left.is_zero() {
            break;
        }
        if !news {
            let (one, two) = (own.source(), there.source());
            wait::any(&[&one, &two], left)?;
        }
    }
    own.close();
    there.close();
    let conclusion = judge(case, room, crew, &seen, patience)?;
    if !conclusion.is_pass() {
        // Nothing more may happen for this pod's sake.
        crew.pods().discard(&name, Some(0))?;
    }
    *out = Some(seen);
    Ok(conclusion)
}

/// Reads what is there, and gives the uids of pods that were preempted already.
fn synced(watch: &mut karat_sdk::kube::Watch) -> Result<Vec<String>> {
    let deadline = Deadline::after(Duration::from_secs(60));
    let mut touched = Vec::new();
    while let Some(event) = watch.next(deadline)? {
        match event {
            Event::Synced => break,
            Event::Added(pod) if is_touched(&pod) => touched.push(pod.uid().to_owned()),
            _ => {}
        }
    }
    Ok(touched)
}

fn judge(
    case: &Case,
    room: &Room,
    crew: &Crew,
    seen: &Seen,
    patience: Duration,
) -> Result<Conclusion> {
    let after = patience.as_secs();
    let low = |victim: &&Victim| {
        crew.members
            .iter()
            .any(|member| member.low && member.uid == victim.uid)
    };
    let disturbed = || room.disturbed(&crew.namespace);
    let competing = |change: String| {
        Conclusion::unknown(
            Reason::CompetingWorkload,
            format!("{change}; run again when the cluster is quieter"),
        )
    };
    if let Some(foreign) = &seen.foreign {
        return Ok(match disturbed()? {
            Some(change) => competing(format!("{foreign} was preempted, and {change}")),
            None => Conclusion::fail(format!(
                "{foreign}, which is not of this run, was preempted"
            )),
        });
    }
    if let Some(wrong) = seen.victims.iter().find(|victim| !low(victim)) {
        return Ok(match disturbed()? {
            Some(change) => competing(change),
            None => Conclusion::fail(format!(
                "the pod {} with the same priority gave way ({})",
                wrong.uid, wrong.reason
            )),
        });
    }
    if !seen.bound.is_empty() {
        if seen.bound != room.node.name {
            return Ok(Conclusion::fail(format!(
                "the pod may run on {} only and was bound to {}",
                room.node.name, seen.bound
            )));
        }
        let Some(victim) = seen.victims.first() else {
            return Ok(competing(
                "the pod was bound and nobody gave way: room appeared meanwhile".into(),
            ));
        };
        case.observe("bound to", &seen.bound);
        case.observe("gave way", &victim.uid);
        return Ok(Conclusion::Pass);
    }
    if let Some(change) = disturbed()? {
        return Ok(competing(format!(
            "the pod was not bound within {after} s, and {change}"
        )));
    }
    if seen.said.is_empty() {
        let text = format!("no scheduler looked at the pod within {after} s");
        return Ok(Conclusion::unknown(Reason::Deadline, text));
    }
    case.observe("message", &seen.said);
    let lows = crew.members.iter().filter(|member| member.low).count();
    Ok(match seen.victims.iter().find(|victim| !victim.gone) {
        Some(victim) => Conclusion::unknown(
            Reason::Deadline,
            format!("the pod {} is still giving way after {after} s", victim.uid),
        ),
        None if seen.victims.is_empty() => Conclusion::fail(format!(
            "{lows} pods of lower priority fill the room, and none gave way within {after} s: {}",
            seen.said
        )),
        None => Conclusion::fail(format!(
            "{} pods gave way, and the pod was not bound within {after} s: {}",
            seen.victims.len(),
            seen.said
        )),
    })
}

/// The name of the pod that gave way.
pub(crate) fn name_of<'a>(crew: &'a Crew, victim: &Victim) -> &'a str {
    crew.members
        .iter()
        .find(|member| member.uid == victim.uid)
        .map_or("", |member| member.name.as_str())
}
