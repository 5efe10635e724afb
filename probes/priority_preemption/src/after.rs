//! When the pod of high priority is bound: how many gave way and how, what a budget did, and where the device went.

use crate::crew::{self, Class, Crew, GRACE};
use crate::manifest::settings;
use crate::preempts::{Seen, Victim, name_of};
use crate::room::Room;
use crate::waits::is_touched;
use karat_sdk::inventory::devices::{self, Key};
use karat_sdk::kube::{Event, Quiet, Watch};
use karat_sdk::wait::Deadline;
use karat_sdk::{Case, Conclusion, Error, Object, Query, Reason, Result, run};
use std::time::Duration;

/// How long the others are watched once more. Most of what can be seen was seen while the pod was bound.
const SETTLE: Duration = Duration::from_secs(2);

/// One victim, marked and with its grace period; the others still run.
pub(crate) fn orderly(case: &Case, crew: &Crew, seen: &Seen) -> Result<Conclusion> {
    if seen.victims.len() > 1 {
        let names: Vec<&str> = seen
            .victims
            .iter()
            .map(|victim| name_of(crew, victim))
            .collect();
        // The watch below shows the same again, for this case's own record.
        survivors(case, crew)?;
        return Ok(Conclusion::fail(format!(
            "the pod needs the room of one, and {} gave way: {}",
            names.len(),
            names.join(", ")
        )));
    }
    let Some(victim) = seen.victims.first() else {
        return Ok(Conclusion::unknown(Reason::Deadline, "nobody gave way"));
    };
    let mut watch = crew.pods().query().watch()?;
    let rest: Vec<&str> = crew
        .members
        .iter()
        .filter(|member| member.uid != victim.uid)
        .map(|member| member.uid.as_str())
        .collect();
    let mut present: Vec<String> = Vec::new();
    let quiet = watch.quiet_events(SETTLE, |event| {
        if let Some(pod) = event.present().filter(|pod| rest.contains(&pod.uid())) {
            present.push(pod.uid().to_owned());
            return is_touched(pod);
        }
        event.deleted().is_some_and(|pod| rest.contains(&pod.uid()))
    })?;
    watch.close();
    case.observe("reason of its DisruptionTarget", &victim.reason);
    for uid in &present {
        case.observe("still runs", uid);
    }
    if rest.is_empty() {
        // The victim was alone, so the pod itself is what this case sees.
        let high = crew.pods().query().get(&run::name("high"))?;
        case.observe(
            "resource version of the pod of high priority",
            high.resource_version(),
        );
    }
    if let Quiet::Broken(pod) = &quiet {
        return Ok(Conclusion::fail(format!(
            "the pod needs the room of one, and {pod} gave way as well"
        )));
    }
    if let Some(missing) = rest
        .iter()
        .find(|uid| !present.iter().any(|have| have == *uid))
    {
        return Ok(Conclusion::fail(format!(
            "the pod needs the room of one, and {missing} is gone as well"
        )));
    }
    marked(victim, seen.gap)
}

/// Whether the scheduler left its mark, and the victim its time.
fn marked(victim: &Victim, gap: bool) -> Result<Conclusion> {
    let lost = |text: String| {
        if gap {
            let text = format!("{text}, and the watch lost continuity meanwhile; run again");
            Conclusion::unknown(Reason::Deadline, text)
        } else {
            Conclusion::fail(text)
        }
    };
    if victim.reason != "PreemptionByScheduler" {
        return Ok(lost(format!(
            "the pod that gave way has `{}` instead of PreemptionByScheduler as reason of its condition DisruptionTarget",
            victim.reason
        )));
    }
    Ok(match victim.grace {
        Some(grace) if grace == i64::from(GRACE) => Conclusion::Pass,
        Some(grace) => lost(format!(
            "the pod that gave way asks for {GRACE} s to end and was given {grace} s"
        )),
        None => lost(format!(
            "the pod that gave way asks for {GRACE} s to end and was gone at once"
        )),
    })
}

fn survivors(case: &Case, crew: &Crew) -> Result<()> {
    let mut watch = crew.pods().query().watch()?;
    let deadline = Deadline::after(SETTLE);
    while let Some(event) = watch.next(deadline)? {
        match event {
            Event::Added(pod) if crew.member(&pod).is_some() => case.observe("there", pod.uid()),
            Event::Synced => break,
            _ => {}
        }
    }
    watch.close();
    Ok(())
}

/// Shows what the budget did; there is no wrong answer.
pub(crate) fn budget(case: &Case, crew: &Crew, seen: &Seen) -> Result<Conclusion> {
    let name = crew.budget.as_deref().unwrap_or_default();
    let budget = Query::new("policy/v1", "poddisruptionbudgets")
        .in_namespace(&crew.namespace)
        .get(name)?;
    case.observe("budget", budget.uid());
    let guarded = |victim: &Victim| {
        crew.members
            .iter()
            .any(|member| member.guarded && member.uid == victim.uid)
    };
    let steered = !seen.victims.iter().any(guarded);
    case.observe("the pod with a budget stayed", steered);
    Ok(Conclusion::Pass)
}

/// The claim of the pod that gave way.
pub(crate) fn device(case: &Case, room: &Room, crew: &Crew, seen: &Seen) -> Result<Conclusion> {
    let (Some(victim), Some(devices)) = (seen.victims.first(), room.devices.as_ref()) else {
        return Ok(Conclusion::unknown(
            Reason::NoAccelerator,
            "no device was held",
        ));
    };
    let member = crew.members.iter().find(|member| member.uid == victim.uid);
    let Some(choice) = member.and_then(|member| devices.choices.get(member.choice?)) else {
        return Ok(Conclusion::unknown(
            Reason::NoAccelerator,
            "the pod that gave way held no device",
        ));
    };
    let patience = settings::RELEASE_WAIT.get_or(Duration::from_secs(60))?;
    let claims =
        Query::new(&devices.version.api_version(), "resourceclaims").in_namespace(&crew.namespace);
    let mut watch = claims.watch()?;
    let Some(left) = released(&mut watch, &victim.uid, patience)? else {
        watch.close();
        return Ok(Conclusion::fail(format!(
            "the pod that gave way is gone, and its claim is still allocated after {} s",
            patience.as_secs()
        )));
    };
    if let Some(claim) = &left {
        case.observe("claim", claim.uid());
    }
    let name = run::name("heir");
    choice.create_template(devices.version, &crew.namespace, &name)?;
    let body = crew::pod(room, &name, Class::High)?
        .claim_template(&name)
        .build();
    let pod = crew::create(&crew.namespace, &body)?;
    case.observe("pod", pod.uid());
    let got = watch.until(
        patience,
        "the allocation of the device that was free again",
        |claim| {
            claim
                .is_owned_by(pod.uid())
                .then(|| devices::allocated(claim))
                .filter(|keys| !keys.is_empty())
        },
    );
    watch.close();
    match got {
        Ok(keys) => Ok(heir(case, &keys, &choice.fitting)),
        Err(error) if error.is_deadline() => not_allocated(room, crew, &error),
        Err(error) => Err(error),
    }
}

fn heir(case: &Case, keys: &[Key], fitting: &[Key]) -> Conclusion {
    let Some(key) = keys.first() else {
        return Conclusion::unknown(Reason::Deadline, "nothing was allocated");
    };
    case.observe("device", &key.device);
    case.observe("pool", &key.pool);
    if fitting.contains(key) {
        Conclusion::Pass
    } else {
        Conclusion::fail(format!(
            "{key} was allocated, which the selector does not describe"
        ))
    }
}

fn not_allocated(room: &Room, crew: &Crew, error: &Error) -> Result<Conclusion> {
    Ok(match room.disturbed(&crew.namespace)? {
        Some(change) => {
            Conclusion::unknown(Reason::CompetingWorkload, format!("{error}, and {change}"))
        }
        None => Conclusion::fail(error.to_string()),
    })
}

/// Waits until no claim of a pod is allocated; gives the claim if it was seen at all, none when the time is up.
fn released(watch: &mut Watch, pod: &str, patience: Duration) -> Result<Option<Option<Object>>> {
    let deadline = Deadline::after(patience);
    let mut held: Option<Object> = None;
    let mut last: Option<Object> = None;
    let mut synced = false;
    while let Some(event) = watch.next(deadline)? {
        match &event {
            Event::Added(claim) | Event::Modified(claim) if claim.is_owned_by(pod) => {
                last = Some(claim.clone());
                held = Some(claim.clone()).filter(|claim| !devices::allocated(claim).is_empty());
            }
            Event::Deleted(claim) if claim.is_owned_by(pod) => {
                last = Some(claim.clone());
                held = None;
            }
            Event::Synced => synced = true,
            // What is there follows again; what is not was let go.
            Event::Gap(_) => {
                held = None;
                synced = false;
            }
            _ => {}
        }
        if synced && held.is_none() {
            return Ok(Some(last));
        }
    }
    Ok(None)
}
