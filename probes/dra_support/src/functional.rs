//! Steps 4 and 5: where a driver publishes devices, a claim gets the device that its selector describes, a claim that no
//! device fits gets none, and a device is free again when its pod is gone.

use crate::api::Api;
use crate::manifest::{cases, images, settings};
use karat_sdk::build::{ClaimSpec, PodBuilder, claim_template};
use karat_sdk::inventory::devices::{self, Choice, Devices, Key, MOST_SLICES};
use karat_sdk::kube::{Event, Object, Quiet, Watch, wait_for};
use karat_sdk::leases;
use karat_sdk::wait::Deadline;
use karat_sdk::{Case, Conclusion, Error, Reason, Result, Target, inventory, log, run};
use std::time::Duration;

/// How long nothing must happen to a claim that no device fits. As in the manifest.
const QUIET: Duration = Duration::from_secs(30);

/// A device to ask for, on a node that this attempt has for itself: pods of other probes are counted elsewhere.
struct Place {
    choice: Choice,
    node: String,
}

/// A pod of this check with its claim.
struct Held {
    pod: Object,
    claim: Object,
}

/// Concludes as many of the optional cases as there is something to look at.
pub(crate) fn check(api: &Api) -> Result<()> {
    let mut place = None;
    cases::INVENTORY.check("", |case| find(api, case, &mut place))?;
    let Some(place) = place else {
        return Ok(());
    };
    let mut held = None;
    let passed = cases::ALLOCATED.check("", |case| allocated(api, case, &place, &mut held))?;
    let Some(held) = held.filter(|_| passed.is_pass()) else {
        return Ok(());
    };
    cases::UNSATISFIABLE.check("", |case| unsatisfiable(api, case, &place))?;
    cases::RELEASED.check("", |case| released(api, case, &held))?;
    Ok(())
}

/// Looks for a device that a pod could get, and takes its node.
fn find(api: &Api, case: &Case, place: &mut Option<Place>) -> Result<Conclusion> {
    let found = devices::read(api.version, &run::id())?;
    if let Some(nothing) = describe(case, &found) {
        return Ok(nothing);
    }
    // Other probes of the run may have them all now; the lease comes when they are back.
    let some = found.usable().next().is_some();
    let lease = match leases::acquire(&[crate::manifest::leases::DEVICE], leases::TURN) {
        Ok(lease) => lease,
        Err(Error::Unavailable(why)) => {
            let text = if some {
                format!("devices are free, and no node that has one can be set aside: {why}")
            } else {
                format!(
                    "every published device is taken, tainted or on a node that is not usable; free one: {why}"
                )
            };
            return Ok(Conclusion::unknown(Reason::InsufficientCapacity, text));
        }
        Err(error) => return Err(error),
    };
    // Others of the run may have had the node until now.
    let found = devices::read(api.version, &run::id())?;
    let chosen = lease.nodes().iter().find_map(|node| {
        let choice = found.choose_on(node.name(), &run::id())?;
        Some((choice, node.name().to_owned()))
    });
    let Some((choice, node)) = chosen else {
        return Ok(Conclusion::unknown(
            Reason::InsufficientCapacity,
            "the node that was set aside has no free device of a driver; free one",
        ));
    };
    case.observe("node", &node);
    case.observe("class", &choice.class);
    case.observe("selector", &choice.expression);
    if let Some(first) = choice.fitting.first() {
        case.observe("driver", &first.driver);
        case.observe("pool", &first.pool);
    }
    case.observe("devices that the selector fits", choice.fitting.len());
    lease.keep();
    *place = Some(Place { choice, node });
    Ok(Conclusion::Pass)
}

/// Says what drivers publish, and why none of it can be asked for.
fn describe(case: &Case, found: &Devices) -> Option<Conclusion> {
    let free = found.usable().count();
    case.observe("devices in complete pools", found.all.len());
    case.observe(
        "devices of older generations or incomplete pools",
        found.stale,
    );
    case.observe("devices that a pod could get now", free);
    case.observe(
        "kubelets of usable nodes",
        found.kubelets.as_slice().join(", "),
    );
    if found.kubelets.contains("v1.34.0") {
        log::warn(
            "kubelet 1.34.0 loses idle connections to drivers after 30 minutes; pods with claims may hang in ContainerCreating (kubernetes/kubernetes issue 133920)",
        );
    }
    if found.is_truncated() {
        let text = format!(
            "more than {MOST_SLICES} ResourceSlices; allocation is checked on smaller clusters only"
        );
        return Some(Conclusion::unknown(Reason::InsufficientCapacity, text));
    }
    if found.all.is_empty() {
        let text = "no driver publishes a device in a complete pool; install a DRA driver to have allocation checked";
        return Some(Conclusion::unknown(Reason::NoAccelerator, text));
    }
    if free > 0 && found.choose(&run::id()).is_none() {
        let text = "no DeviceClass whose expression this probe understands selects a usable device";
        return Some(Conclusion::unknown(Reason::UnknownAccelerator, text));
    }
    None
}

fn pods(api: &Api) -> Target {
    Target::new("v1", "pods").in_namespace(&api.namespace)
}

/// Creates a template and a pod that asks for one device by it, on the node of the lease.
fn ask(api: &Api, prefix: &str, place: &Place, expression: &str) -> Result<Object> {
    let name = run::name(prefix);
    let choice = &place.choice;
    let spec = ClaimSpec::new(&choice.class).cel(expression);
    api.sandboxed("resourceclaimtemplates")
        .create(&claim_template(api.version, &name, &spec))?;
    let pod = PodBuilder::tool(&name, &run::image(images::PAUSE)?)
        .claim_template(&name)
        .pin(&place.node)
        .tolerate(choice.tolerate.iter().map(String::as_str))
        .build();
    pods(api).create(&pod)
}

fn watch_claims(api: &Api) -> Result<Watch> {
    api.query("resourceclaims")
        .in_namespace(&api.namespace)
        .watch()
}

fn is_allocated(claim: &Object) -> bool {
    claim.at("/status/allocation").is_object()
}

fn allocated(api: &Api, case: &Case, place: &Place, held: &mut Option<Held>) -> Result<Conclusion> {
    let patience = settings::ALLOCATION_WAIT.get_or(Duration::from_secs(60))?;
    let mut watch = watch_claims(api)?;
    let pod = ask(api, "fit", place, &place.choice.expression)?;
    case.observe("pod", pod.uid());
    let found = watch.until(patience, "the allocation of the claim", |claim| {
        (claim.is_owned_by(pod.uid()) && is_allocated(claim)).then(|| claim.clone())
    });
    let claim = match found {
        Ok(claim) => claim,
        Err(error) if error.is_deadline() => return not_allocated(api, &pod, place, patience),
        Err(error) => return Err(error),
    };
    case.observe("claim", claim.uid());

    let keys = devices::allocated(&claim);
    let [got] = keys.as_slice() else {
        return Ok(Conclusion::fail(format!(
            "one device was asked for, and {} were allocated",
            keys.len()
        )));
    };
    case.observe("driver", &got.driver);
    case.observe("pool", &got.pool);
    case.observe("device", &got.device);
    if !place.choice.fitting.contains(got) {
        return wrong_device(api, got, place);
    }

    // The scheduler reserves with the allocation; a controller may do so a moment later.
    let reserved = |claim: &Object| {
        let owners = claim.items("/status/reservedFor");
        owners
            .iter()
            .any(|owner| owner["uid"] == pod.uid())
            .then_some(())
    };
    if reserved(&claim).is_none() {
        match watch.until(patience, "the reservation of the claim", reserved) {
            Ok(()) => {}
            Err(error) if error.is_deadline() => {
                return Ok(Conclusion::fail(
                    "the claim is allocated and status.reservedFor does not name the pod",
                ));
            }
            Err(error) => return Err(error),
        }
    }
    watch.close();
    *held = Some(Held { pod, claim });
    runs(api, case, held.as_ref())
}

/// Waits until the pod runs.
fn runs(api: &Api, case: &Case, held: Option<&Held>) -> Result<Conclusion> {
    let Some(held) = held else {
        return Ok(Conclusion::unknown(Reason::Deadline, "there is no pod"));
    };
    let patience = settings::POD_WAIT.get_or(Duration::from_secs(90))?;
    let name = held.pod.name();
    let phase = wait_for(
        &pods(api).query(),
        name,
        patience,
        "the start of the pod",
        |pod| {
            let phase = pod.text("/status/phase");
            matches!(phase, "Running" | "Succeeded" | "Failed").then(|| pod.clone())
        },
    );
    match phase {
        Ok(pod) if pod.text("/status/phase") == "Failed" => Ok(Conclusion::fail(format!(
            "the device was allocated and the pod failed: {} {}",
            pod.text("/status/reason"),
            pod.text("/status/message")
        ))),
        Ok(pod) => {
            case.observe("phase", pod.text("/status/phase"));
            case.observe("node", pod.text("/spec/nodeName"));
            Ok(Conclusion::Pass)
        }
        Err(error) if error.is_deadline() => {
            let pod = pods(api).query().get(name)?;
            let waiting = inventory::waiting(&pod);
            Ok(Conclusion::unknown(
                inventory::reason_of(waiting),
                format!(
                    "the device was allocated and the pod is {} {waiting} after {} s",
                    pod.text("/status/phase"),
                    patience.as_secs()
                ),
            ))
        }
        Err(error) => Err(error),
    }
}

/// The claim was not allocated in time: a fail only if a scheduler looked at the pod and the device is still free.
fn not_allocated(api: &Api, pod: &Object, place: &Place, patience: Duration) -> Result<Conclusion> {
    let now = pods(api).query().get(pod.name())?;
    let Some(scheduled) = now.condition("PodScheduled") else {
        return Ok(Conclusion::unknown(
            Reason::Deadline,
            format!(
                "no scheduler looked at the pod within {} s",
                patience.as_secs()
            ),
        ));
    };
    let message = scheduled.message.to_owned();
    let again = devices::read(api.version, &run::id())?;
    let free = again
        .usable_on(&place.node)
        .any(|device| place.choice.fitting.contains(&device.key));
    Ok(if free {
        Conclusion::fail(format!(
            "a device that fits is free, and the claim was not allocated within {} s: {message}",
            patience.as_secs()
        ))
    } else {
        Conclusion::unknown(
            Reason::CompetingWorkload,
            "the device was free before and is not any more; run again when the cluster is quieter",
        )
    })
}

/// Another device than the selector describes was allocated.
fn wrong_device(api: &Api, got: &Key, place: &Place) -> Result<Conclusion> {
    let again = devices::read(api.version, &run::id())?;
    // The pool may have been published anew between the inventory and the allocation.
    let changed = again
        .choose_on(&place.node, &run::id())
        .is_none_or(|now| now.fitting != place.choice.fitting);
    let published = again.has(got);
    if changed && published {
        return Ok(Conclusion::unknown(
            Reason::CompetingWorkload,
            format!("{got} was allocated, and the pools changed meanwhile; run again"),
        ));
    }
    Ok(Conclusion::fail(if published {
        format!(
            "{got} was allocated, which the selector `{}` does not describe",
            place.choice.expression
        )
    } else {
        format!("{got} was allocated, which is not in the newest generation of a complete pool")
    }))
}

fn unsatisfiable(api: &Api, case: &Case, place: &Place) -> Result<Conclusion> {
    let patience = settings::ALLOCATION_WAIT.get_or(Duration::from_secs(60))?;
    case.observe("selector", &place.choice.impossible);
    let mut watch = watch_claims(api)?;
    let pod = ask(api, "misfit", place, &place.choice.impossible)?;
    case.observe("pod", pod.uid());
    // The window begins when a scheduler has said no: before that, nothing happens anyway.
    let refused = wait_for(
        &pods(api).query(),
        pod.name(),
        patience,
        "the scheduler's refusal",
        |pod| {
            if pod.text("/status/phase") == "Running" {
                return Some(Err(pod.clone()));
            }
            let scheduled = pod.condition("PodScheduled")?;
            match (scheduled.status, scheduled.reason) {
                ("False", "Unschedulable") => Some(Ok(scheduled.message.to_owned())),
                ("True", _) => Some(Err(pod.clone())),
                _ => None,
            }
        },
    );
    let conclusion = match refused {
        Ok(Err(pod)) => Conclusion::fail(format!("no device fits, and {pod} was scheduled")),
        Err(error) if error.is_deadline() => Conclusion::unknown(
            Reason::Deadline,
            format!(
                "no scheduler looked at the pod within {} s",
                patience.as_secs()
            ),
        ),
        Err(error) => return Err(error),
        Ok(Ok(message)) => {
            case.observe("message", message);
            let forbidden = |claim: &Object| claim.is_owned_by(pod.uid()) && is_allocated(claim);
            match watch.quiet(QUIET, forbidden)? {
                Quiet::Held => still_waits(api, &pod)?,
                Quiet::Broken(claim) => {
                    Conclusion::fail(format!("no device fits, and {claim} was allocated"))
                }
                Quiet::Gap(reason) => Conclusion::unknown(
                    Reason::Deadline,
                    format!(
                        "the watch lost continuity ({reason}), so an allocation may have been missed; run again"
                    ),
                ),
            }
        }
    };
    watch.close();
    // A pod that waits may make an autoscaler add nodes: it goes at once. The engine removes it anyway if this fails.
    pods(api).discard(pod.name(), None)?;
    Ok(conclusion)
}

fn still_waits(api: &Api, pod: &Object) -> Result<Conclusion> {
    let now = pods(api).query().get(pod.name())?;
    Ok(match now.text("/status/phase") {
        "Pending" => Conclusion::Pass,
        phase => Conclusion::fail(format!("no device fits, and the pod is {phase}")),
    })
}

fn released(api: &Api, case: &Case, held: &Held) -> Result<Conclusion> {
    let patience = settings::ALLOCATION_WAIT.get_or(Duration::from_secs(60))?;
    let mut watch = watch_claims(api)?;
    pods(api).delete(held.pod.name())?;
    let deadline = Deadline::after(patience);
    while let Some(event) = watch.next(deadline)? {
        let (claim, free) = match &event {
            Event::Deleted(claim) => (claim, true),
            Event::Added(claim) | Event::Modified(claim) => (claim, !is_allocated(claim)),
            // After a gap the end of the claim is not told: what is there follows, and a missing claim is gone.
            Event::Gap(_) => {
                if gone(api, held)? {
                    case.observe("claim", held.claim.uid());
                    return Ok(Conclusion::Pass);
                }
                continue;
            }
            Event::Synced => continue,
        };
        if claim.uid() == held.claim.uid() && free {
            case.observe("claim", claim.uid());
            case.observe(
                "resource version of its last state",
                claim.resource_version(),
            );
            return Ok(Conclusion::Pass);
        }
    }
    let after = patience.as_secs();
    Ok(match pods(api).query().get_opt(held.pod.name())? {
        Some(pod) if pod.text("/metadata/deletionTimestamp").is_empty() => {
            Conclusion::fail("the pod was deleted, the server confirmed it, and it is still there")
        }
        Some(_) => Conclusion::unknown(
            Reason::Deadline,
            format!("the pod is still ending after {after} s"),
        ),
        None if gone(api, held)? => Conclusion::unknown(
            Reason::Deadline,
            format!("the claim is gone, and no watch event said so within {after} s"),
        ),
        None => Conclusion::fail(format!(
            "the pod is gone, and its claim is still allocated after {after} s"
        )),
    })
}

/// Whether the claim is gone or free, asked directly.
fn gone(api: &Api, held: &Held) -> Result<bool, Error> {
    let claims = api.sandboxed("resourceclaims").query();
    Ok(claims
        .get_opt(held.claim.name())?
        .is_none_or(|claim| claim.uid() != held.claim.uid() || !is_allocated(&claim)))
}
