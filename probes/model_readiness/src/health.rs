//! The life of one server: it loads, it is loaded, its health fails, it heals.

use crate::scene::{self, Endpoint, Scene, Server, Sight};
use karat_sdk::leases::LeasedNode;
use karat_sdk::wait::Deadline;
use karat_sdk::{Case, Conclusion, Reason, Result, http, inventory};
use std::time::Duration;

/// Seconds of the client in which nothing may reach a server that is out of the traffic, beside those that its preStop hook takes:
/// who ends it over its health is not done before.
const QUIET: u64 = 5;
/// How much longer than the model takes to load its server may take to be ready.
const SETTLE: Duration = Duration::from_secs(60);
/// How many requests show that a client asks at all.
const ENOUGH: u64 = 10;

/// From the creation to the end of the loading.
pub(crate) fn loading(
    case: &Case,
    namespace: &str,
    nodes: &[LeasedNode],
    made: &mut Option<(Scene, Server)>,
) -> Result<Conclusion> {
    let scene = match scene::make(namespace, nodes)? {
        Ok(scene) => scene,
        Err(conclusion) => return Ok(conclusion),
    };
    let mut sight = scene.look()?;
    let started = sight.until(scene.times.pod, |sight| sight.pods().find_map(Server::of))?;
    let Some(server) = started else {
        return Ok(not_started(&scene, &sight));
    };
    case.observe("server", &server.pod);
    case.observe("uid", server.uid());
    let begun = scene.traffic.read()?;
    let mut waited = false;
    let mut last = None;
    let limit = scene.times.load + SETTLE;
    let opened = sight.until(limit, |sight| {
        if let Some(lost) = server.lost(sight) {
            return Some(Err(lost));
        }
        let ready = sight.pod(&server.pod).is_some_and(scene::is_ready);
        let endpoint = sight.endpoint(&server.pod);
        waited |= !ready && endpoint.is_some_and(|it| !it.ready);
        last = endpoint.or(last);
        (ready || endpoint.is_some_and(|it| it.ready)).then_some(Ok(ready))
    })?;
    let pod_is_ready = match opened.transpose() {
        Ok(opened) => opened,
        Err(lost) => return Ok(lost),
    };
    // Asked at once: what the platform calls ready must be so by its own word.
    let health = match scene.health(&server.pod) {
        Ok(code) => code,
        Err(error) => return Ok(http::not_asked(&error)),
    };
    case.observe("health when it became ready", health);
    if let Some(pod) = pod_is_ready
        && health != 200
    {
        let called = if pod {
            "its pod is Ready"
        } else {
            "its pod is not Ready, but its endpoint is published as ready"
        };
        return Ok(Conclusion::fail(format!(
            "the server says {health} of its health while its model is loading, and {called}"
        )));
    }
    scene.traffic.until(begun + 1)?;
    let all = begun + 1..=scene.traffic.read()?;
    let told = scene.traffic.told(all.clone())?;
    // It answers 503 while it loads and its health was never touched, so each of them was sent there too early.
    let early =
        scene.traffic.by(&server.pod, all.clone())? - scene.traffic.served_by(&server.pod, all)?;
    case.observe("requests in this time", told.ended);
    case.observe("of them to a server that was loading", early);
    if early > 0 {
        return Ok(Conclusion::fail(format!(
            "{early} requests reached the server while its model was loading; its endpoint was {}",
            shown(last)
        )));
    }
    if health != 200 {
        let text = format!(
            "the server says {health} of its health after {} s",
            limit.as_secs()
        );
        return Ok(Conclusion::unknown(Reason::Deadline, text));
    }
    if !waited {
        return Ok(Conclusion::unknown(
            Reason::Deadline,
            "no endpoint that is not ready was seen before the server was ready: run again with a longer `load`",
        ));
    }
    if told.ended < ENOUGH {
        return Ok(Conclusion::unknown(
            Reason::Deadline,
            format!(
                "only {} requests of the client ended while the model was loading",
                told.ended
            ),
        ));
    }
    *made = Some((scene, server));
    Ok(Conclusion::Pass)
}

fn shown(endpoint: Option<Endpoint>) -> &'static str {
    match endpoint {
        None => "in no slice",
        Some(it) if it.ready => "ready",
        Some(it) if it.terminating => "terminating",
        Some(_) => "not ready",
    }
}

fn not_started(scene: &Scene, sight: &Sight) -> Conclusion {
    let text = format!(
        "the server does not run after {} s",
        scene.times.pod.as_secs()
    );
    match sight.pods().next() {
        Some(pod) => inventory::not_running(pod, &text),
        None => Conclusion::unknown(Reason::Deadline, format!("{text}: there is no pod of it")),
    }
}

/// The server is ready, lists its model and answers the client.
pub(crate) fn loaded(case: &Case, scene: &Scene, server: &Server) -> Result<Conclusion> {
    let mut sight = scene.look()?;
    let limit = scene.times.removal;
    if let Some(conclusion) = becomes_ready(scene, server, &mut sight, limit)? {
        return Ok(conclusion);
    }
    case.observe("server", &server.pod);
    let models = match scene.models() {
        Ok(models) => models,
        Err(error) => return Ok(http::not_asked(&error)),
    };
    let listed = models["data"][0]["id"].as_str().unwrap_or_default();
    case.observe("models", listed);
    if listed != scene::MODEL {
        return Ok(Conclusion::fail(format!(
            "the Service answers, and lists {listed:?} in place of the model"
        )));
    }
    if gets_requests(scene, server, &mut sight, limit)?.is_some() {
        return Ok(Conclusion::Pass);
    }
    if let Some(lost) = server.lost(&sight) {
        return Ok(lost);
    }
    // A namespace may be closed to traffic between its pods; that is another promise.
    let pod = sight.pod(&server.pod).cloned();
    let seconds = limit.as_secs();
    Ok(match pod {
        Some(pod) if scene.reaches(&pod)? => Conclusion::fail(format!(
            "no request of the client was answered through the Service for {seconds} s, while the endpoint was ready and the client reached the pod itself"
        )),
        _ => Conclusion::unknown(
            Reason::Deadline,
            format!(
                "no request was answered for {seconds} s, and the client does not reach the pod without the Service either: pods of the namespace do not reach each other"
            ),
        ),
    })
}

/// Nothing once pod and endpoint are ready, else why not.
fn becomes_ready(
    scene: &Scene,
    server: &Server,
    sight: &mut Sight,
    limit: Duration,
) -> Result<Option<Conclusion>> {
    let ready = sight.until(limit, |sight| {
        if let Some(lost) = server.lost(sight) {
            return Some(Some(lost));
        }
        let pod = sight.pod(&server.pod).is_some_and(scene::is_ready);
        let endpoint = sight.endpoint(&server.pod).is_some_and(|it| it.ready);
        (pod && endpoint).then_some(None)
    })?;
    if let Some(result) = ready {
        return Ok(result);
    }
    let health = match scene.health(&server.pod) {
        Ok(code) => code,
        Err(error) => return Ok(Some(http::not_asked(&error))),
    };
    let seconds = limit.as_secs();
    if health != 200 {
        let text = format!("the server says {health} of its health after {seconds} s");
        return Ok(Some(Conclusion::unknown(Reason::Deadline, text)));
    }
    let pod = sight.pod(&server.pod).is_some_and(scene::is_ready);
    Ok(Some(Conclusion::fail(format!(
        "the server says 200 of its health, and after {seconds} s its pod is {} and its endpoint {}",
        if pod { "Ready" } else { "not Ready" },
        shown(sight.endpoint(&server.pod))
    ))))
}

/// The number of the first line in which the server served; none where it did not in time.
fn gets_requests(
    scene: &Scene,
    server: &Server,
    sight: &mut Sight,
    limit: Duration,
) -> Result<Option<u64>> {
    let deadline = Deadline::after(limit);
    let mut next = scene.traffic.read()? + 1;
    loop {
        scene.traffic.until(next)?;
        if scene.traffic.served_by(&server.pod, next..=next)? > 0 {
            return Ok(Some(next));
        }
        // What happens to it meanwhile must be known at the end.
        sight.until(Duration::ZERO, |_| None::<()>)?;
        if deadline.left().is_zero() {
            return Ok(None);
        }
        next += 1;
    }
}

/// Its health fails: out of the slice, out of the traffic, and no restart.
pub(crate) fn failing(case: &Case, scene: &Scene, server: &Server) -> Result<Conclusion> {
    let mut sight = scene.look()?;
    let begun = scene.traffic.read()?;
    if let Err(error) = scene.switch(&server.pod, "fail") {
        return Ok(http::not_asked(&error));
    }
    let limit = scene.times.removal;
    let deadline = Deadline::after(limit);
    let out = sight.until(limit, |sight| {
        if let Some(lost) = server.lost(sight) {
            return Some(Some(lost));
        }
        let pod = sight.pod(&server.pod).is_some_and(scene::is_ready);
        let endpoint = sight.endpoint(&server.pod).is_some_and(|it| it.ready);
        (!pod && !endpoint).then_some(None)
    })?;
    let seconds = limit.as_secs();
    case.observe("server", &server.pod);
    match out {
        Some(Some(lost)) => return Ok(lost),
        Some(None) => {}
        None => {
            let health = match scene.health(&server.pod) {
                Ok(code) => code,
                Err(error) => return Ok(http::not_asked(&error)),
            };
            if health == 200 {
                let text = "the health of the server did not fail, so there was nothing to see";
                return Ok(Conclusion::unknown(Reason::Deadline, text));
            }
            let pod = sight.pod(&server.pod).is_some_and(scene::is_ready);
            return Ok(Conclusion::fail(format!(
                "the server has said {health} of its health for {seconds} s, its pod is {} and its endpoint {}",
                if pod { "still Ready" } else { "not Ready" },
                shown(sight.endpoint(&server.pod))
            )));
        }
    }
    // The last line with an answer of it must lie before a quiet time that began in time.
    let mut quiet_from = scene.traffic.read()? + 1;
    let mut next = quiet_from;
    let quiet = scene.times.drain.as_secs() + QUIET;
    while next < quiet_from + quiet {
        scene.traffic.until(next)?;
        if scene.traffic.by(&server.pod, next..=next)? > 0 {
            quiet_from = next + 1;
        }
        sight.until(Duration::ZERO, |_| None::<()>)?;
        if let Some(lost) = server.lost(&sight) {
            return Ok(lost);
        }
        if quiet_from == next + 1 && deadline.left().is_zero() {
            let late = scene.traffic.by(&server.pod, begun + 1..=next)?;
            return Ok(Conclusion::fail(format!(
                "its endpoint is not ready, and requests still reach the server {seconds} s after its health failed ({late} since then)"
            )));
        }
        next += 1;
    }
    let told = scene.traffic.told(quiet_from..=next - 1)?;
    case.observe("requests since it was out", told.ended);
    case.observe("of them answered by it", 0);
    Ok(Conclusion::Pass)
}

/// Its health is back: in the slice and in the traffic, and the same container.
pub(crate) fn healed(case: &Case, scene: &Scene, server: &Server) -> Result<Conclusion> {
    let mut sight = scene.look()?;
    if let Err(error) = scene.switch(&server.pod, "ok") {
        return Ok(http::not_asked(&error));
    }
    let limit = scene.times.removal;
    if let Some(conclusion) = becomes_ready(scene, server, &mut sight, limit)? {
        return Ok(conclusion);
    }
    case.observe("server", &server.pod);
    let served = gets_requests(scene, server, &mut sight, limit)?;
    if let Some(lost) = server.lost(&sight) {
        return Ok(lost);
    }
    Ok(if served.is_some() {
        Conclusion::Pass
    } else {
        Conclusion::fail(format!(
            "its endpoint is ready again, and no request reached the server for {} s",
            limit.as_secs()
        ))
    })
}
