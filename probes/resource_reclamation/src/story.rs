//! One story: a pod gets a unit, ends, the unit is free, a new pod gets it.

use crate::ends::{self, End};
use crate::manifest::settings;
use crate::place::{Count, Place};
use karat_sdk::inventory::devices::{self, Key};
use karat_sdk::kube::Watch;
use karat_sdk::wait::{self, Deadline};
use karat_sdk::{Case, Conclusion, Error, Object, Reason, Result, clock, inventory, run};
use std::time::Duration;

/// How often the count is taken while something is missing. Most of it is not visible in one watch.
const LOOK: Duration = Duration::from_secs(1);

/// How long a pod holds its unit before others are looked for who hold it too.
const SETTLE: Duration = Duration::from_secs(1);

/// The times of the manifest.
struct Times {
    reclaim: Duration,
    lost: Duration,
    pod: Duration,
}

impl Times {
    fn read() -> Result<Self> {
        Ok(Times {
            reclaim: settings::RECLAIM_WAIT.get_or(Duration::from_secs(60))?,
            lost: settings::LOST_AFTER.get_or(Duration::from_secs(300))?,
            pod: settings::POD_WAIT.get_or(Duration::from_secs(90))?,
        })
    }
}

/// A pod with its unit.
struct Holder {
    pod: Object,
    /// The device; none for a unit of a device plugin.
    key: Option<Key>,
}

/// From the beginning to the heir.
pub(crate) fn tell(case: &Case, place: &Place, end: End) -> Result<Conclusion> {
    let times = Times::read()?;
    match place.count()? {
        Count::Whole => {}
        Count::Taken(text) => return Ok(competing(&text)),
        Count::Missing(text) => {
            return Ok(Conclusion::unknown(
                Reason::Deadline,
                format!("not even before the pod: {text}"),
            ));
        }
    }
    let mut pods = place.pods().query().watch()?;
    let claims = place.claims().map(|claims| claims.watch()).transpose()?;
    let made = ends::begin(place, end)?;
    case.observe(if end.has_job() { "job" } else { "pod" }, made.uid());
    let holder = match hold(place, &mut pods, claims, &made, end, &times)? {
        Ok(holder) => holder,
        Err(conclusion) => return Ok(conclusion),
    };
    if let Some(key) = &holder.key {
        case.observe("device", &key.device);
        case.observe("pool", &key.pool);
    }
    case.observe("node", holder.pod.text("/spec/nodeName"));
    // Only what holds now can be held twice.
    if !inventory::has_ended(&holder.pod)
        && let Some(text) = held_twice(place, &holder)?
    {
        return Ok(Conclusion::fail(text));
    }
    ends::bring_about(place, end, holder.pod.name())?;
    let began = clock::elapsed();
    pods.close();
    match free_again(place, &holder, end, &times)? {
        Ok(()) => {}
        Err(conclusion) => return Ok(conclusion),
    }
    case.observe(
        "milliseconds until it was free",
        (clock::elapsed() - began).as_millis(),
    );
    heir(case, place, end, &holder, &times)
}

/// Who else holds the unit of a pod that runs.
fn held_twice(place: &Place, holder: &Holder) -> Result<Option<String>> {
    wait::sleep(SETTLE)?;
    place.double_booked(holder.key.as_ref())
}

fn competing(text: &str) -> Conclusion {
    Conclusion::unknown(
        Reason::CompetingWorkload,
        format!("{text}; run again when the cluster is quieter"),
    )
}

/// Whether a pod is the one that was created, or that the Job made.
fn is_of(pod: &Object, made: &Object) -> bool {
    pod.uid() == made.uid() || pod.is_owned_by(made.uid())
}

/// Waits until the pod got its unit, and runs or has ended, as the end wants it.
fn hold(
    place: &Place,
    pods: &mut Watch,
    mut claims: Option<Watch>,
    made: &Object,
    end: End,
    times: &Times,
) -> Result<Result<Holder, Conclusion>> {
    let deadline = Deadline::after(times.pod);
    let mut pod: Option<Object> = None;
    let mut allocated: Vec<(Object, Key)> = Vec::new();
    loop {
        let mut news = false;
        while let Some(event) = pods.poll()? {
            news = true;
            if let Some(now) = event
                .present()
                .or(event.deleted())
                .filter(|now| is_of(now, made))
            {
                pod = Some(now.clone());
            }
        }
        // The device is noted from the watch: a pod that ends at once holds it for a moment only.
        if let Some(claims) = &mut claims {
            while let Some(event) = claims.poll()? {
                news = true;
                if let Some(claim) = event.present()
                    && let Some(key) = devices::allocated(claim).first()
                {
                    allocated.push((claim.clone(), key.clone()));
                }
            }
        }
        let key = pod.as_ref().and_then(|pod| {
            let found = allocated.iter().rev().find(|(claim, _)| is_of(claim, pod));
            found.map(|(_, key)| key.clone())
        });
        if let Some(now) = &pod {
            inventory::pulled(now)?;
            let ended = inventory::has_ended(now);
            // A played Job ends at once, so its owner may be deleted either way.
            let ready = match end {
                _ if end.by_itself() => ended,
                End::Owner => ended || now.text("/status/phase") == "Running",
                _ => now.text("/status/phase") == "Running",
            };
            let got = !now.text("/spec/nodeName").is_empty()
                && (key.is_some() || place.device().is_none());
            if ready && got {
                return Ok(right_end(place, now, key, end));
            }
            if ended && !end.by_itself() && end != End::Owner {
                return Ok(Err(Conclusion::unknown(
                    Reason::Deadline,
                    format!(
                        "{now} ended by itself: {} {}",
                        now.text("/status/phase"),
                        now.text("/status/reason")
                    ),
                )));
            }
        }
        let left = deadline.left();
        if left.is_zero() {
            return not_held(place, pod.as_ref(), key.is_some(), times).map(Err);
        }
        if !news {
            let one = pods.source();
            match &claims {
                Some(claims) => {
                    let two = claims.source();
                    wait::any(&[&one, &two], left)?
                }
                None => wait::any(&[&one], left)?,
            };
        }
    }
}

/// Whether a pod that ended by itself ended as it should.
fn right_end(
    place: &Place,
    pod: &Object,
    key: Option<Key>,
    end: End,
) -> Result<Holder, Conclusion> {
    if let (Some(key), Some((_, choice))) = (&key, place.device())
        && !choice.fitting.contains(key)
    {
        return Err(Conclusion::fail(format!(
            "{key} was allocated, which the selector does not describe"
        )));
    }
    let phase = pod.text("/status/phase");
    let wanted = match end {
        End::Success => "Succeeded",
        End::Failure | End::Deadline => "Failed",
        _ => phase,
    };
    if phase != wanted {
        return Err(Conclusion::unknown(
            Reason::Deadline,
            format!(
                "{pod} should end as {wanted} and is {phase}: {}",
                pod.text("/status/reason")
            ),
        ));
    }
    Ok(Holder {
        pod: pod.clone(),
        key,
    })
}

/// Why the pod did not get that far. Never a fail: that pods start is not what is asked here.
fn not_held(place: &Place, pod: Option<&Object>, got: bool, times: &Times) -> Result<Conclusion> {
    let after = times.pod.as_secs();
    let Some(pod) = pod else {
        return Ok(Conclusion::unknown(
            Reason::Deadline,
            format!("no pod came of it within {after} s"),
        ));
    };
    if let Count::Taken(text) = place.count()? {
        return Ok(competing(&text));
    }
    let waiting = inventory::waiting(pod);
    if inventory::reason_of(waiting) == Reason::ImageUnavailable {
        return Ok(Conclusion::unknown(
            Reason::ImageUnavailable,
            format!("{pod}: {waiting}"),
        ));
    }
    let message = pod
        .condition("PodScheduled")
        .map_or("no scheduler looked at it", |it| it.message);
    Ok(Conclusion::unknown(
        Reason::Deadline,
        format!(
            "{pod} is {} after {after} s, its unit {}: {message}",
            pod.text("/status/phase"),
            if got { "allocated" } else { "not" }
        ),
    ))
}

/// What still holds the unit; none when all is as it was.
fn still_held(place: &Place, holder: &Holder, end: End) -> Result<Option<Count>> {
    let missing = |text: String| Ok(Some(Count::Missing(text)));
    let now = place.pods().query().get_opt(holder.pod.name())?;
    if let Some(now) = now.filter(|now| now.uid() == holder.pod.uid()) {
        let held: Vec<&str> = now
            .items("/metadata/finalizers")
            .iter()
            .filter_map(|name| name.as_str())
            .collect();
        if !end.by_itself() {
            let by = if held.is_empty() {
                "nothing that it names".to_owned()
            } else {
                held.join(", ")
            };
            return missing(format!(
                "{now} is still there, {}, held by {by}",
                now.text("/status/phase")
            ));
        }
    }
    if let Some(claims) = place.claims() {
        for claim in claims.list()? {
            let reserved = claim
                .items("/status/reservedFor")
                .iter()
                .any(|by| by["uid"] == holder.pod.uid());
            if reserved {
                return missing(format!("{claim} is still reserved for the pod that ended"));
            }
            if is_of(&claim, &holder.pod) && !devices::allocated(&claim).is_empty() {
                return missing(format!("{claim} of the pod that ended is still allocated"));
            }
        }
    }
    Ok(match place.count()? {
        Count::Whole => None,
        other => Some(other),
    })
}

/// Waits until nothing holds the unit: in time it is well, between the two times nothing is said, and later it is lost.
fn free_again(
    place: &Place,
    holder: &Holder,
    end: End,
    times: &Times,
) -> Result<Result<(), Conclusion>> {
    let began = clock::elapsed();
    let mut last = None;
    let result = wait::poll(
        LOOK,
        times.lost.max(times.reclaim),
        "the return of the unit",
        || {
            last = still_held(place, holder, end)?;
            Ok(last.is_none().then_some(()))
        },
    );
    let after = clock::elapsed() - began;
    match (result, last) {
        // The last look itself takes time, and a look every second may come a second late.
        (Ok(()), _) if after <= times.reclaim + LOOK * 2 => Ok(Ok(())),
        (Ok(()), _) => Ok(Err(Conclusion::unknown(
            Reason::Deadline,
            format!(
                "the unit was free after {} s and should be within {} s",
                after.as_secs(),
                times.reclaim.as_secs()
            ),
        ))),
        (Err(error), Some(Count::Taken(text))) if error.is_deadline() => Ok(Err(competing(&text))),
        (Err(error), Some(Count::Missing(text))) if error.is_deadline() => Ok(Err(
            Conclusion::fail(format!("after {} s {text}", after.as_secs())),
        )),
        (Err(error), _) => Err(error),
    }
}

/// A new pod gets the unit, and gives it back.
fn heir(
    case: &Case,
    place: &Place,
    end: End,
    holder: &Holder,
    times: &Times,
) -> Result<Conclusion> {
    let name = run::name(&format!("{}-heir", end.word()));
    let mut pods = place.pods().query().watch()?;
    let claims = place.claims().map(|claims| claims.watch()).transpose()?;
    let made = place
        .pods()
        .create(&place.with_all(place.pod(&name)?).build())?;
    case.observe("new pod", made.uid());
    let heir = match hold(place, &mut pods, claims, &made, End::Deletion, times)? {
        Ok(heir) => heir,
        Err(Conclusion::Unknown(Reason::Deadline, text)) => return no_heir(place, &made, text),
        Err(conclusion) => return Ok(conclusion),
    };
    pods.close();
    if let (Some(was), Some(is), Some((_, choice))) = (&holder.key, &heir.key, place.device())
        && was != is
        && choice.fitting.len() == 1
    {
        return Ok(Conclusion::fail(format!(
            "the new pod got {is} instead of {was}"
        )));
    }
    if let Some(text) = held_twice(place, &heir)? {
        return Ok(Conclusion::fail(text));
    }
    place.pods().delete(&name)?;
    Ok(match free_again(place, &heir, End::Deletion, times)? {
        Ok(()) => Conclusion::Pass,
        Err(conclusion) => conclusion,
    })
}

/// The new pod does not start: a fail only where a scheduler says that it does not fit while the count says that it does.
fn no_heir(place: &Place, made: &Object, text: String) -> Result<Conclusion> {
    let now = place.pods().query().get_opt(made.name())?;
    let refused = now.as_ref().and_then(|now| {
        let scheduled = now.condition("PodScheduled")?;
        (scheduled.reason == "Unschedulable").then(|| scheduled.message.to_owned())
    });
    Ok(match (refused, place.count()?) {
        (_, Count::Taken(text)) => competing(&text),
        (Some(message), _) => Conclusion::fail(format!(
            "the unit is free, and a new pod does not get it: {message}"
        )),
        (None, _) => Conclusion::unknown(Reason::Deadline, text),
    })
}

/// Whether claims stay behind that were made for pods that are gone.
pub(crate) fn orphans(case: &Case, place: &Place) -> Result<Conclusion> {
    let times = Times::read()?;
    let Some(claims) = place.claims() else {
        return Ok(Conclusion::unknown(
            Reason::NoAccelerator,
            "there are no claims without a driver",
        ));
    };
    let mut last = Vec::new();
    let gone = wait::poll(
        LOOK,
        times.reclaim,
        "the end of claims whose pods are gone",
        || {
            let found = claims.list()?;
            let pods = place.pods().query().list()?;
            for pod in &pods {
                case.observe("pod that is still there", pod.uid());
            }
            let has_pod = |claim: &Object| pods.iter().any(|pod| is_of(claim, pod));
            last = found.into_iter().filter(|claim| !has_pod(claim)).collect();
            Ok(last.is_empty().then_some(()))
        },
    );
    match gone {
        Ok(()) => Ok(Conclusion::Pass),
        Err(error) if error.is_deadline() => Ok(left(&last, &error)),
        Err(error) => Err(error),
    }
}

fn left(claims: &[Object], error: &Error) -> Conclusion {
    let foreign = claims
        .iter()
        .flat_map(|claim| claim.items("/metadata/finalizers"))
        .filter_map(|name| name.as_str());
    let foreign: Vec<&str> = foreign
        .filter(|name| *name != "resource.kubernetes.io/delete-protection")
        .collect();
    let names: Vec<&str> = claims.iter().map(Object::name).collect();
    if foreign.is_empty() {
        Conclusion::fail(format!("{error}: {}", names.join(", ")))
    } else {
        Conclusion::fail(format!(
            "{error}: {}, held by {}",
            names.join(", "),
            foreign.join(", ")
        ))
    }
}
