//! What it is worth that a pod which the autoscaler wants does not run, or that one stays which it does not want.
//!
//! A fail only where the platform had what the pod needs: an image that cannot be pulled, a quota, a policy, and a unit or a node that
//! others took are no faults of the autoscaler.

use crate::steps::Lab;
use karat_sdk::admission::Refuser;
use karat_sdk::{Conclusion, Object, Reason, Result, inventory};

/// Resources of Kubernetes' own whose lack is not that of a unit.
const ORDINARY: [&str; 4] = [
    "Insufficient cpu",
    "Insufficient memory",
    "Insufficient ephemeral-storage",
    "Too many pods",
];

/// Why the second pod is not ready.
pub(crate) fn not_running(lab: &Lab<'_>, pods: &[Object], text: &str) -> Result<Conclusion> {
    let Some(pod) = pods.iter().find(|pod| !inventory::is_ready(pod)) else {
        return Ok(never_made(&lab.workload.deployment()?, text));
    };
    if pod.uid() == lab.workload.first.uid() {
        return Ok(Conclusion::unknown(
            Reason::CompetingWorkload,
            format!("{text}: the first pod is not ready any more"),
        ));
    }
    let waiting = inventory::waiting(pod);
    if inventory::reason_of(waiting) == Reason::ImageUnavailable {
        return Ok(inventory::not_running(pod, text));
    }
    let scheduled = pod.condition("PodScheduled");
    if pod.text("/spec/nodeName").is_empty() {
        let message = scheduled.map_or("no scheduler looked at it", |it| it.message);
        if ORDINARY.iter().any(|lack| message.contains(lack)) {
            return Ok(Conclusion::unknown(
                Reason::InsufficientCapacity,
                format!("{text}: {message}"),
            ));
        }
        if lab.place.free()? == 0 {
            return Ok(Conclusion::unknown(
                Reason::CompetingWorkload,
                format!("{text}, and no unit is free for it any more: {message}"),
            ));
        }
        let reason = scheduled.map_or("Pending", |it| it.reason);
        return Ok(Conclusion::fail(format!(
            "{text}; {pod} is not scheduled, {reason}, while a unit is free: {message}"
        )));
    }
    // What a container that was tried again and again said at its end is more than that it is tried again.
    let ended = pod.text("/status/containerStatuses/0/lastState/terminated/message");
    let said = if ended.is_empty() {
        inventory::complaint(pod)?
    } else {
        ended.to_owned()
    };
    Ok(Conclusion::fail(format!(
        "{text}; {pod} is {} {waiting}; {said}",
        pod.text("/status/phase")
    )))
}

/// There is no second pod at all.
fn never_made(deployment: &Object, text: &str) -> Conclusion {
    let asked = deployment.at("/spec/replicas").as_u64().unwrap_or_default();
    let Some(failure) = deployment
        .condition("ReplicaFailure")
        .filter(|it| it.status == "True")
    else {
        return Conclusion::fail(format!(
            "{text}; there is no second pod, and the Deployment asks for {asked}"
        ));
    };
    let text = format!("{text}; no second pod is made: {}", failure.message);
    match Refuser::of(failure.message) {
        Refuser::Quota => Conclusion::unknown(Reason::InsufficientCapacity, text),
        Refuser::Other => Conclusion::fail(text),
        _ => Conclusion::unknown(Reason::PermissionDenied, text),
    }
}

/// Pods that stay although one is wanted.
pub(crate) fn not_gone(pods: &[Object], wanted: u64, seconds: u64) -> Conclusion {
    let Some(going) = pods
        .iter()
        .find(|pod| !pod.at("/metadata/deletionTimestamp").is_null())
    else {
        return Conclusion::fail(format!(
            "the autoscaler wants {wanted} replica, and {} pods are there after {seconds} s",
            pods.len()
        ));
    };
    let held: Vec<&str> = going
        .items("/metadata/finalizers")
        .iter()
        .filter_map(|name| name.as_str())
        .collect();
    Conclusion::fail(format!(
        "the autoscaler wants {wanted} replica, and {going} does not go for {seconds} s, held by {}",
        if held.is_empty() {
            "nothing that it names".to_owned()
        } else {
            held.join(", ")
        }
    ))
}
