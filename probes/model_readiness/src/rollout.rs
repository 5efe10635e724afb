//! The rolling update: a new server takes over, the old one drains.

use crate::scene::{self, Endpoint, Scene, Server};
use karat_sdk::{Case, Conclusion, Reason, Result, clock};
use std::time::Duration;

/// How much longer than loading and draining an update may take.
const SETTLE: Duration = Duration::from_secs(90);
/// Seconds of the client after its endpoint was marked in which a server that drains may still get requests.
const GRACE: u64 = 5;
/// Seconds of the client before the update, and after it, in which requests of before come to their end: it waits 5 s for an answer.
const ENDS: u64 = 7;
/// One failed request of so many is allowed.
const ONE_OF: u64 = 100;

/// What was seen of an update.
pub(crate) struct Change {
    /// When it began.
    began: Duration,
    /// Name of the pod that drained.
    old: String,
    /// Its endpoint when it was first terminating, and the client's last line then.
    marked: Option<(Endpoint, u64)>,
    /// From then, or from the deletion of the pod, until it was gone.
    took: Duration,
    /// The client's last line when it was gone.
    gone: u64,
}

/// From the patch until the old pod is gone.
pub(crate) fn update(
    case: &Case,
    scene: &Scene,
    change: &mut Option<Change>,
) -> Result<Conclusion> {
    let mut sight = scene.look()?;
    let limit = scene.times.load + scene.times.drain + scene.times.pod + SETTLE;
    let old = sight.until(scene.times.removal, |sight| {
        let mut pods = sight.pods();
        let only = pods.next()?;
        pods.next().is_none().then(|| only.clone())
    })?;
    let Some(old) = old else {
        return Ok(Conclusion::unknown(
            Reason::CompetingWorkload,
            "there is not exactly one server before the update",
        ));
    };
    // Those that it sent while the health failed are not of the update.
    let begun = scene.traffic.read()? + ENDS;
    scene.traffic.until(begun)?;
    let began = clock::elapsed();
    scene.renew()?;
    let name = old.name().to_owned();
    // First until the old pod is told to go, then until it is gone, so that the client's lines can be told apart.
    let ending = sight.until(limit, |sight| {
        let endpoint = sight.endpoint(&name);
        let pod = sight.pod(&name);
        let told = pod.is_none_or(|pod| !pod.at("/metadata/deletionTimestamp").is_null());
        let marked = endpoint.filter(|it| it.terminating);
        (told || marked.is_some()).then_some(())
    })?;
    if ending.is_none() {
        return Ok(not_done(scene, &sight, &name));
    }
    let since = clock::elapsed();
    let marked = sight.until(limit, |sight| {
        let marked = sight.endpoint(&name).filter(|it| it.terminating);
        (marked.is_some() || sight.pod(&name).is_none()).then_some(marked)
    })?;
    let marked = match marked.flatten() {
        Some(endpoint) => Some((endpoint, scene.traffic.read()?)),
        None => None,
    };
    let gone = sight.until(limit, |sight| sight.pod(&name).is_none().then_some(()))?;
    if gone.is_none() {
        return Ok(not_done(scene, &sight, &name));
    }
    let took = clock::elapsed() - since;
    let gone = scene.traffic.read()?;
    let new = sight.until(limit, |sight| {
        let ready = sight.pods().filter(|pod| scene::is_ready(pod));
        ready.filter_map(Server::of).next()
    })?;
    let Some(new) = new else {
        return Ok(not_done(scene, &sight, &name));
    };
    let end = scene.traffic.read()? + ENDS;
    scene.traffic.until(end)?;
    case.observe("new server", &new.pod);
    let told = scene.traffic.told(begun + 1..=end)?;
    let failed = told.ended - told.served;
    case.observe("requests", told.ended);
    case.observe("without an answer of 200", failed);
    let took_over = scene.traffic.served_by(&new.pod, end - ENDS + 1..=end)?;
    *change = Some(Change {
        began,
        old: name,
        marked,
        took,
        gone,
    });
    if failed * ONE_OF > told.ended {
        return Ok(Conclusion::fail(format!(
            "{failed} of {} requests failed during the update: {}",
            told.ended,
            told.otherwise.join(", ")
        )));
    }
    Ok(if took_over == 0 {
        Conclusion::fail(format!(
            "the old server is gone, and {} answers nothing",
            new.pod
        ))
    } else {
        Conclusion::Pass
    })
}

/// The update did not come to its end. That Deployments roll is not what is asked here.
fn not_done(scene: &Scene, sight: &scene::Sight, old: &str) -> Conclusion {
    let new = sight.pods().find(|pod| pod.name() != old);
    let text = "the update did not come to its end in time";
    let Some(pod) = new else {
        return Conclusion::unknown(Reason::Deadline, format!("{text}: there is no new pod"));
    };
    if scene::restarts(pod) > 0 {
        return Conclusion::fail(format!(
            "the new server was restarted {} times while its model was loading, which takes {} s",
            scene::restarts(pod),
            scene.times.load.as_secs()
        ));
    }
    karat_sdk::inventory::not_running(pod, text)
}

/// What became of the old server after it was told to go.
pub(crate) fn drains(case: &Case, scene: &Scene, change: &Change) -> Result<Conclusion> {
    scene.traffic.again_from(change.began)?;
    let wanted = scene.times.drain;
    case.observe("old server", &change.old);
    case.observe("seconds until it was gone", change.took.as_secs());
    if change.took * 2 < wanted {
        return Ok(Conclusion::fail(format!(
            "the old server was gone {} s after it was told to go; its preStop hook takes {} s, and it has a grace period of more",
            change.took.as_secs(),
            wanted.as_secs()
        )));
    }
    let Some((endpoint, from)) = change.marked else {
        return Ok(Conclusion::fail(
            "the endpoint of the old server was never marked as terminating",
        ));
    };
    case.observe("serving", endpoint.serving);
    case.observe("terminating", endpoint.terminating);
    if !endpoint.serving || endpoint.ready {
        return Ok(Conclusion::fail(format!(
            "the endpoint of the old server was terminating with serving {} and ready {}, while it served and drained",
            endpoint.serving, endpoint.ready
        )));
    }
    let first = from + GRACE + 1;
    if first > change.gone {
        return Ok(Conclusion::unknown(
            Reason::Deadline,
            "the client told too little while the old server drained: run again with a longer `drain`",
        ));
    }
    let late = scene.traffic.by(&change.old, first..=change.gone)?;
    case.observe("requests that still reached it", late);
    if late > 0 {
        return Ok(Conclusion::fail(format!(
            "{late} requests reached the old server more than {GRACE} s after its endpoint was marked as terminating"
        )));
    }
    Ok(Conclusion::Pass)
}
