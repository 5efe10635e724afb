//! What is done to the pod, and what must come of it.

use crate::subject::{
    AGAIN, STEADY, Subject, container, pending, shown, vanished, with_cpu, with_memory,
};
use karat_sdk::admission::Refuser;
use karat_sdk::kube::{Object, Quiet};
use karat_sdk::{Case, Conclusion, Error, Reason, Result, Value, json};
use std::time::Duration;

/// How long the node must leave a pod as it is that it cannot resize; `quiet` of the manifest.
const CALM: Duration = Duration::from_secs(10);
/// More CPU than any node has.
const TOO_MUCH: &str = "100k";
/// An accelerator that nobody has.
const DEVICE: &str = "karat.invalid/accelerator";

/// More CPU for a container that must go on.
pub(crate) fn cpu(case: &Case, subject: &Subject) -> Result<Conclusion> {
    let before = subject.now()?;
    let Some(was) = container(&before, STEADY) else {
        return Ok(vanished());
    };
    let stored = subject.resize(&[(STEADY, with_cpu("200m", "400m"))])?;
    case.observe("pod", subject.uid());
    if let Some(other) = another(&stored) {
        return Ok(other);
    }
    let done = |pod: &Object| {
        pending(pod).is_none() && container(pod, STEADY).is_some_and(|now| now.cpu == Some(400))
    };
    let after = match subject.until("the node to carry out the resize", done)? {
        Ok(pod) => pod,
        Err(pod) => return Ok(not_done(&pod, STEADY)),
    };
    let Some(now) = container(&after, STEADY) else {
        return Ok(vanished());
    };
    case.observe("container", &now.id);
    case.observe("restarts", now.restarts);
    if (&now.id, now.restarts) != (&was.id, was.restarts) {
        return Ok(Conclusion::fail(
            "the container was restarted, although its policy for CPU is NotRequired",
        ));
    }
    let inside = subject.quota(case)?;
    if inside != Some(400) {
        return Ok(Conclusion::fail(format!(
            "the status says 400m, and the cgroup of the container {}",
            shown(inside)
        )));
    }
    Ok(Conclusion::Pass)
}

/// More memory for a container that asks for a restart.
pub(crate) fn restarts(case: &Case, subject: &Subject) -> Result<Conclusion> {
    let before = subject.now()?;
    let (Some(was), Some(beside)) = (container(&before, AGAIN), container(&before, STEADY)) else {
        return Ok(vanished());
    };
    subject.resize(&[(AGAIN, with_memory("96Mi"))])?;
    let wanted = Some(96 * 1024 * 1024 * 1000);
    let done = |pod: &Object| {
        pending(pod).is_none()
            && container(pod, AGAIN)
                .is_some_and(|now| now.memory == wanted && now.restarts > was.restarts)
    };
    let after = match subject.until("the container to be restarted", done)? {
        Ok(pod) => pod,
        Err(pod) => return Ok(not_done(&pod, AGAIN)),
    };
    let (Some(now), Some(other)) = (container(&after, AGAIN), container(&after, STEADY)) else {
        return Ok(vanished());
    };
    case.observe("container", &now.id);
    case.observe("restarts", now.restarts);
    if now.restarts != was.restarts + 1 {
        let times = now.restarts - was.restarts;
        return Ok(Conclusion::fail(format!("it was restarted {times} times")));
    }
    if other.id != beside.id {
        return Ok(Conclusion::fail("the other container was restarted too"));
    }
    Ok(Conclusion::Pass)
}

/// More CPU than there is. What the pod asks for is taken back afterwards.
pub(crate) fn infeasible(case: &Case, subject: &Subject) -> Result<Conclusion> {
    let asked = subject.resize(&[(STEADY, with_cpu(TOO_MUCH, TOO_MUCH))]);
    if let Some(refused) = refusal(case, &asked) {
        return Ok(refused);
    }
    asked?;
    case.observe("pod", subject.uid());
    let told = |pod: &Object| pending(pod).is_some_and(|(reason, _)| reason == "Infeasible");
    let conclusion = match subject.until("the node to call it infeasible", told)? {
        Ok(pod) => {
            if let Some((reason, message)) = pending(&pod) {
                case.observe("reason", reason);
                case.observe("message", message);
            }
            stays(subject)?
        }
        Err(pod) => match given(&pod) {
            Some(given) => given,
            None => Conclusion::fail(format!(
                "{TOO_MUCH} CPUs were asked for, and the node does not say that this is infeasible; it says {}",
                said(&pod)
            )),
        },
    };
    match subject.resize(&[(STEADY, with_cpu("200m", "400m"))]) {
        Err(error) if error.ends_the_probe() => Err(error),
        _ => Ok(conclusion),
    }
}

fn stays(subject: &Subject) -> Result<Conclusion> {
    let mut watch = subject.watch()?;
    let quiet = watch.quiet(CALM, |pod| given(pod).is_some())?;
    watch.close();
    Ok(match quiet {
        Quiet::Held => Conclusion::Pass,
        Quiet::Broken(pod) => given(&pod).unwrap_or_else(vanished),
        Quiet::Gap(why) => Conclusion::unknown(
            Reason::Deadline,
            format!("the watch had a gap, so it cannot be told that nothing happened: {why}"),
        ),
    })
}

/// What a pod got that it must not get.
fn given(pod: &Object) -> Option<Conclusion> {
    let cpu = container(pod, STEADY)?.cpu;
    (cpu != Some(400)).then(|| {
        Conclusion::fail(format!(
            "the status says {} after more was asked for than the node has",
            shown(cpu)
        ))
    })
}

/// Requests that equal limits would make the pod Guaranteed.
pub(crate) fn class(case: &Case, subject: &Subject) -> Result<Conclusion> {
    let same = json!({"cpu": "200m", "memory": "64Mi"});
    let equal = json!({"requests": same, "limits": same});
    must_be_refused(
        case,
        subject,
        &[(STEADY, equal.clone()), (AGAIN, equal)],
        "another QoS class",
    )
}

/// An accelerator for a pod that runs.
pub(crate) fn devices(case: &Case, subject: &Subject) -> Result<Conclusion> {
    let mut wanted = with_cpu("200m", "400m");
    for kind in ["requests", "limits"] {
        wanted[kind][DEVICE] = json!("1");
    }
    must_be_refused(case, subject, &[(STEADY, wanted)], "an accelerator")
}

fn must_be_refused(
    case: &Case,
    subject: &Subject,
    wanted: &[(&str, Value)],
    what: &str,
) -> Result<Conclusion> {
    let asked = subject.resize(wanted);
    if let Some(refused) = refusal(case, &asked) {
        return Ok(refused);
    }
    asked?;
    Ok(Conclusion::fail(format!(
        "a resize that asks for {what} was accepted"
    )))
}

/// A refusal by validation or by a part of admission that belongs to Kubernetes, which is what must come. The authoriser, and
/// rules that somebody added, refuse for reasons of their own.
fn refusal(case: &Case, asked: &Result<Object>) -> Option<Conclusion> {
    let Err(Error::Answered(answer)) = asked else {
        return None;
    };
    if !matches!(answer.code, 403 | 422) || answer.refuser() != Refuser::Other {
        return None;
    }
    case.observe("refused", &answer.message);
    Some(Conclusion::Pass)
}

/// A server that stores something else than it was asked for.
fn another(stored: &Object) -> Option<Conclusion> {
    let containers = stored.items("/spec/containers");
    let steady = containers.iter().find(|one| one["name"] == STEADY)?;
    let limit = steady["resources"]["limits"]["cpu"].as_str().unwrap_or("");
    (limit != "400m").then(|| {
        Conclusion::fail(format!(
            "a limit of 400m was asked for and accepted, and `{limit}` stored"
        ))
    })
}

/// A resize that was accepted and did not come about.
fn not_done(pod: &Object, name: &str) -> Conclusion {
    match pending(pod) {
        // It fits no more: somebody else took what was free.
        Some(("Deferred" | "Infeasible", message)) => Conclusion::unknown(
            Reason::InsufficientCapacity,
            format!("the node cannot resize {name} now: {message}"),
        ),
        _ => Conclusion::fail(format!(
            "the resize of {name} was accepted and not carried out; the pod says {}",
            said(pod)
        )),
    }
}

fn said(pod: &Object) -> String {
    match pending(pod) {
        Some((reason, message)) => format!("{reason} {message}"),
        None => "that nothing is pending".to_owned(),
    }
}
