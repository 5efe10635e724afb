//! The negative: a pod that may not displace anybody waits in a full room, and nobody is touched.

use crate::crew::{self, Class, Crew};
use crate::manifest::settings;
use crate::room::Room;
use karat_sdk::kube::{Event, Quiet, wait_for};
use karat_sdk::{Case, Conclusion, Object, Reason, Result, run};
use std::time::Duration;

/// How long nothing must happen. As in the manifest.
const QUIET: Duration = Duration::from_secs(30);

/// What a scheduler said to a pod.
enum Said {
    /// It does not fit.
    No(String),
    /// It was bound.
    Bound,
}

/// Creates the pod, waits for the scheduler's no, and watches.
pub(crate) fn check(case: &Case, room: &Room, crew: &Crew) -> Result<Conclusion> {
    let patience = settings::PREEMPTION_WAIT.get_or(Duration::from_secs(120))?;
    let mut watch = crew.pods().query().watch()?;
    let name = run::name("waits");
    let body = crew::with_share(room, crew::pod(room, &name, Class::Never)?, room.asked()).build();
    let pod = crew::create(&crew.namespace, &body)?;
    case.observe("pod", pod.uid());
    case.observe("its preemptionPolicy", pod.text("/spec/preemptionPolicy"));
    // The window begins when a scheduler has said no: before that, nothing happens anyway.
    let said = wait_for(
        &crew.pods().query(),
        &name,
        patience,
        "the scheduler's answer",
        |pod| {
            if !pod.text("/spec/nodeName").is_empty() {
                return Some(Said::Bound);
            }
            let scheduled = pod.condition("PodScheduled")?;
            ((scheduled.status, scheduled.reason) == ("False", "Unschedulable"))
                .then(|| Said::No(scheduled.message.to_owned()))
        },
    );
    let conclusion = match said {
        Err(error) if error.is_deadline() => Conclusion::unknown(
            Reason::Deadline,
            format!(
                "no scheduler looked at the pod within {} s",
                patience.as_secs()
            ),
        ),
        Err(error) => return Err(error),
        Ok(Said::Bound) => broken(room, crew, &pod)?,
        Ok(Said::No(message)) => {
            case.observe("message", message);
            match watch.quiet_events(QUIET, |event| forbidden(event, crew, &pod))? {
                Quiet::Held => Conclusion::Pass,
                Quiet::Broken(_) => broken(room, crew, &pod)?,
                Quiet::Gap(reason) => Conclusion::unknown(
                    Reason::Deadline,
                    format!(
                        "the watch lost continuity ({reason}), so something may have been missed; run again"
                    ),
                ),
            }
        }
    };
    watch.close();
    // It must not stand in the way of the one to come.
    crew.pods().discard(&name, Some(0))?;
    Ok(conclusion)
}

/// Whether the pod was bound, or a pod that fills the room is going.
fn forbidden(event: &Event, crew: &Crew, pod: &Object) -> bool {
    if let Some(gone) = event.deleted() {
        return crew.member(gone).is_some();
    }
    event.present().is_some_and(|now| {
        if now.uid() == pod.uid() {
            return !now.text("/spec/nodeName").is_empty();
        }
        crew.member(now).is_some() && is_touched(now)
    })
}

/// Whether a pod is going, or was chosen to.
pub(crate) fn is_touched(pod: &Object) -> bool {
    !pod.text("/metadata/deletionTimestamp").is_empty()
        || pod
            .condition("DisruptionTarget")
            .is_some_and(|target| target.status == "True")
}

/// Something happened in the quiet window. A fail only when it was for this pod.
fn broken(room: &Room, crew: &Crew, pod: &Object) -> Result<Conclusion> {
    if let Some(change) = room.disturbed(&crew.namespace)? {
        return Ok(Conclusion::unknown(
            Reason::CompetingWorkload,
            format!("{change}; run again when the cluster is quieter"),
        ));
    }
    let mut touched = 0;
    for member in &crew.members {
        let now = crew.pods().query().get_opt(&member.name)?;
        touched += usize::from(now.is_none_or(|now| now.uid() != member.uid || is_touched(&now)));
    }
    let now = crew.pods().query().get_opt(pod.name())?;
    let bound = now
        .as_ref()
        .is_some_and(|now| !now.text("/spec/nodeName").is_empty());
    let policy = now
        .as_ref()
        .map_or("", |now| now.text("/spec/preemptionPolicy"))
        .to_owned();
    Ok(match (touched, bound) {
        (0, true) => Conclusion::unknown(
            Reason::CompetingWorkload,
            "the pod was bound and nobody gave way: room appeared meanwhile",
        ),
        (0, false) => Conclusion::unknown(
            Reason::Deadline,
            "something happened to a pod that fills the room, and now it is as before",
        ),
        _ => Conclusion::fail(format!(
            "a pod of the class with preemptionPolicy Never (its own says `{policy}`) waited, and {touched} pods gave way"
        )),
    })
}
